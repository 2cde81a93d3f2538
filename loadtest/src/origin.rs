//! Of what and where a run is: versions, commit, machine.

use std::process::Command;

use chrono::{SecondsFormat, Utc};
use conductor_nats::locate::{locate, version_of};

use crate::plan::SystemPlan;
use crate::result::{Durability, Machine, Origin};

/// Of what and where this run is.
pub(crate) fn here() -> Origin {
    let server = locate().ok().and_then(|path| version_of(&path));
    Origin {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        commit: commit(),
        server: server.map_or_else(|| "unknown".to_owned(), |v| v.to_string()),
        date: Utc::now().to_rfc3339_opts(SecondsFormat::Secs, true),
        machine: machine(),
    }
}

/// The durability of a plan.
pub(crate) fn durability(plan: &SystemPlan) -> Durability {
    Durability {
        sync_interval: plan.sync.as_str().to_owned(),
        replicas: plan.replicas,
        storage: "file".to_owned(),
    }
}

/// The commit of the sources beside the binary, with a mark where they were changed.
fn commit() -> Option<String> {
    let dir = std::env::current_exe().ok()?;
    let git = |args: &[&str]| {
        let mut git = Command::new("git");
        let ran = git.arg("-C").arg(dir.parent()?).args(args).output().ok()?;
        let text = String::from_utf8(ran.stdout).ok()?;
        ran.status.success().then(|| text.trim().to_owned())
    };
    let commit = git(&["rev-parse", "--short=12", "HEAD"])?;
    let changed = git(&["status", "--porcelain", "--untracked-files=no"])?;
    let is_changed = !changed.is_empty();
    Some(commit + if is_changed { " with changes" } else { "" })
}

fn machine() -> Machine {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpu = field(&read("/proc/cpuinfo"), "model name").unwrap_or_default();
    let memory = field(&read("/proc/meminfo"), "MemTotal").unwrap_or_default();
    let kb = memory
        .split_whitespace()
        .next()
        .and_then(|n| n.parse().ok());
    Machine {
        cpu,
        cores: std::thread::available_parallelism().map_or(0, std::num::NonZero::get),
        memory_mb: kb.unwrap_or(0_u64) / 1024,
        kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
    }
}

fn field(text: &str, name: &str) -> Option<String> {
    let line = text.lines().find(|l| l.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_is_known() {
        let machine = machine();
        assert!(machine.cores > 0 && machine.memory_mb > 100, "{machine:?}");
        assert_eq!(field("a : 1\nb\t: x y\n", "b"), Some("x y".to_owned()));
    }
}
