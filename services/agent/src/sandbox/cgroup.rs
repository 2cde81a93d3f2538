//! Control groups (version 2): limits for all processes of an attempt together, and an end
//! that none of them escapes.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

use super::limits::Limits;
use crate::reaper::has_oom;

/// Where the hierarchy may be mounted.
const MOUNTS: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];
/// What limits an attempt.
const WANTED: [&str; 3] = ["memory", "pids", "cpu"];
/// Where the agent itself goes, in a group that it has to itself.
const ASIDE: &str = "conductor-self";
/// How often it is made once more.
const MAKE_TRIES: u32 = 8;
/// How long a group that was killed may take to be empty.
const EMPTY_MAX: Duration = Duration::from_secs(5);

/// Where groups of attempts are made, and what can be limited there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cgroups {
    /// Below here.
    pub base: PathBuf,
    /// What can be limited there.
    pub controllers: BTreeSet<String>,
}

impl Cgroups {
    /// Whether the kernel limits memory there.
    pub fn limits_memory(&self) -> bool {
        self.controllers.contains("memory")
    }

    /// Whether the kernel counts processes there.
    pub fn counts_processes(&self) -> bool {
        self.controllers.contains("pids")
    }

    /// The group of a lease.
    pub fn of(&self, lease: &str) -> PathBuf {
        self.base.join(lease.replace('/', "-"))
    }

    /// What is written into the files of a group, as far as that is possible there.
    pub fn settings(&self, limits: &Limits) -> Vec<(&'static str, String)> {
        let has = |controller: &str| self.controllers.contains(controller);
        let mut out = Vec::new();
        if let Some(memory) = limits.memory.filter(|_| has("memory")) {
            out.push(("memory.max", memory.to_string()));
            out.push(("memory.high", (memory / 10 * 9).to_string()));
            out.push(("memory.swap.max", "0".to_owned()));
        }
        if let Some(processes) = limits.processes.filter(|_| has("pids")) {
            out.push(("pids.max", processes.to_string()));
        }
        if let Some(millis) = limits.cpu_millis.filter(|_| has("cpu")) {
            out.push(("cpu.max", format!("{} 100000", u64::from(millis) * 100)));
        }
        out
    }

    /// Makes the group of a lease.
    pub fn create(&self, lease: &str, limits: &Limits) -> io::Result<Cgroup> {
        let path = self.of(lease);
        // The last attempt that ended has removed the base, perhaps just now.
        let mut made = self.make(&path);
        for _ in 0..MAKE_TRIES {
            if !made
                .as_ref()
                .is_err_and(|e| e.kind() == io::ErrorKind::NotFound)
            {
                break;
            }
            made = self.make(&path);
        }
        made?;
        let cgroup = Cgroup { path };
        for (file, value) in self.settings(limits) {
            match fs::write(cgroup.path.join(file), value) {
                // Where there is no swap to be had, there is no file that forbids it.
                Err(e) if e.kind() == io::ErrorKind::NotFound && file == "memory.swap.max" => {}
                other => other?,
            }
        }
        Ok(cgroup)
    }

    fn make(&self, path: &Path) -> io::Result<()> {
        fs::create_dir_all(&self.base)?;
        for controller in &self.controllers {
            fs::write(
                self.base.join("cgroup.subtree_control"),
                format!("+{controller}"),
            )?;
        }
        fs::create_dir_all(path)
    }

    /// Kills what is in groups that an earlier life of the agent left, and removes them.
    pub fn clear(&self) {
        for entry in fs::read_dir(&self.base).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                Cgroup { path }.end();
            }
        }
    }
}

/// The group of one attempt.
#[derive(Debug, PartialEq, Eq)]
pub struct Cgroup {
    path: PathBuf,
}

impl Cgroup {
    /// Whether a process of it was killed for want of memory.
    pub fn has_oom(&self) -> bool {
        has_oom(&self.path.join("memory.events"))
    }

    /// Kills all that is in it, waits until it is empty, and removes it.
    pub fn end(&self) {
        let limit = Instant::now() + EMPTY_MAX;
        loop {
            // Without that file the kernel is older than 5.14: then what is in it has ended before.
            let _ = fs::write(self.path.join("cgroup.kill"), "1");
            match fs::remove_dir(&self.path) {
                Ok(()) => {
                    // That of all attempts, should this have been the last.
                    let _ = self.path.parent().map(fs::remove_dir);
                    return;
                }
                Err(e) if e.kind() == io::ErrorKind::NotFound => return,
                Err(e) if Instant::now() > limit => {
                    tracing::warn!(path = %self.path.display(), error = %e, "a control group is left over");
                    return;
                }
                Err(_) => std::thread::sleep(Duration::from_millis(2)),
            }
        }
    }
}

/// Where the agent of that directory may make groups; `None` where it may not.
pub(super) fn find(data: &Path) -> Option<Cgroups> {
    let name: String = Sha256::digest(data.as_os_str().as_encoded_bytes())
        .iter()
        .take(6)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let own = fs::read_to_string("/proc/self/cgroup").ok()?;
    let own = own.lines().find_map(|line| line.strip_prefix("0::"))?;
    let is_v2 = |mount: &&&str| Path::new(mount).join("cgroup.controllers").exists();
    let mount = Path::new(MOUNTS.iter().find(is_v2)?);
    let own = mount.join(own.trim_start_matches('/'));
    // Where an earlier look put us.
    let own = if own.ends_with(ASIDE) {
        own.parent()?.to_owned()
    } else {
        own
    };
    let base = own.join(format!("conductor-{name}"));
    fs::create_dir_all(&base).ok()?;
    if step_aside(&own).is_none() {
        tracing::debug!(path = %own.display(), "other processes share our control group");
    }
    delegate(&own, &base);
    let enabled = fs::read_to_string(base.join("cgroup.subtree_control")).unwrap_or_default();
    let controllers = enabled.split_whitespace().map(str::to_owned).collect();
    let found = Cgroups { base, controllers };
    found.clear();
    // The kernel lets a process into a group only where both ends may be written.
    let tried = found.create("probe", &Limits::default()).ok()?;
    let joins = joins(&tried.path);
    tried.end();
    joins.then_some(found)
}

/// Leaves a group that is ours alone for one below it: only a group without processes hands
/// anything down. (The root of all groups needs none of that.)
fn step_aside(own: &Path) -> Option<()> {
    let procs = fs::read_to_string(own.join("cgroup.procs")).ok()?;
    (procs.trim() == std::process::id().to_string()).then_some(())?;
    let aside = own.join(ASIDE);
    fs::create_dir_all(&aside).ok()?;
    fs::write(aside.join("cgroup.procs"), "0").ok()
}

/// Hands what limits attempts down to the groups that are made for them, as far as it goes: a
/// group that has processes of its own hands nothing down.
fn delegate(own: &Path, base: &Path) {
    for controller in WANTED {
        for group in [own, base] {
            let _ = fs::write(
                group.join("cgroup.subtree_control"),
                format!("+{controller}"),
            );
        }
    }
}

/// Whether a process of ours can be put there.
fn joins(group: &Path) -> bool {
    let child = std::process::Command::new("/bin/sleep").arg("10").spawn();
    let Ok(mut child) = child else { return false };
    let joined = fs::write(group.join("cgroup.procs"), child.id().to_string());
    // It has ended, or is ended: nobody waits ten seconds.
    let _ = child.kill();
    let _ = child.wait();
    joined.is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    fn limits() -> Limits {
        Limits {
            memory: Some(100 << 20),
            cpu_millis: Some(1_500),
            processes: Some(64),
            ..Limits::default()
        }
    }

    #[test]
    fn what_can_be_limited_is() {
        let cgroups = |controllers: &[&str]| Cgroups {
            base: "/sys/fs/cgroup/conductor".into(),
            controllers: controllers.iter().map(|c| (*c).to_owned()).collect(),
        };
        let all = cgroups(&WANTED);
        expect![[r#"
            [("memory.max", "104857600"), ("memory.high", "94371840"), ("memory.swap.max", "0"), ("pids.max", "64"), ("cpu.max", "150000 100000")]"#]]
        .assert_eq(&format!("{:?}", all.settings(&limits())));
        assert_eq!(cgroups(&[]).settings(&limits()), []);
        assert_eq!(all.settings(&Limits::default()), []);
        assert_eq!(all.of("t/1/5"), Path::new("/sys/fs/cgroup/conductor/t-1-5"));
    }

    #[test]
    fn want_of_memory_is_read_from_the_kernels_count() {
        let dir = tempfile::tempdir().unwrap();
        let events = dir.path().join("memory.events");
        let group = Cgroup {
            path: dir.path().to_owned(),
        };
        assert!(!group.has_oom());
        fs::write(&events, "low 0\nhigh 7\nmax 3\noom 0\noom_kill 0\n").unwrap();
        assert!(!group.has_oom());
        fs::write(&events, "low 0\nhigh 7\nmax 3\noom 1\noom_kill 2\n").unwrap();
        assert!(group.has_oom());
    }

    #[test]
    fn a_group_is_ended_with_all_that_is_in_it() {
        let data = tempfile::tempdir().unwrap();
        let Some(groups) = find(data.path()) else {
            eprintln!("no control groups can be made here: only what is written there is tested");
            return;
        };
        let group = groups.create("t/1/5", &Limits::default()).unwrap();
        let mut child = std::process::Command::new("sleep")
            .arg("300")
            .spawn()
            .unwrap();
        fs::write(group.path.join("cgroup.procs"), child.id().to_string()).unwrap();
        group.end();
        assert!(!child.wait().unwrap().success());
        assert!(!group.path.exists() && !groups.base.exists());
    }
}
