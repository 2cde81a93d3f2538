//! Two results side by side, unless they promise different things.

use std::path::PathBuf;
use std::process::ExitCode;

use crate::outcome::{Outcome, put, say};
use crate::report::Part;
use crate::result::RunResult;
use crate::table::{micros, number};

/// Which results to compare.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct CompareArgs {
    /// The result that is the measure, as `run --out` wrote it
    before: PathBuf,
    /// The result that is compared with it
    after: PathBuf,
}

/// Why two results are not compared: what is acknowledged differs in what it is worth.
fn refusal(before: &RunResult, after: &RunResult) -> Option<String> {
    (before.durability != after.durability).then(|| {
        format!(
            "the runs differ in durability and are not compared: {} against {}",
            before.durability, after.durability
        )
    })
}

/// The figures of both, and the second over the first.
fn rows(before: &RunResult, after: &RunResult) -> Vec<Vec<String>> {
    let row = |name: String, a: f64, b: f64, show: fn(f64) -> String| {
        vec![name, show(a), show(b), number(b / a)]
    };
    let mut rows = vec![
        row(
            "tasks a second".to_owned(),
            before.load.ended_per_s,
            after.load.ended_per_s,
            number,
        ),
        row(
            "CPU of Conductor per task".to_owned(),
            before.cpu_us_per_task(),
            after.cpu_us_per_task(),
            micros,
        ),
    ];
    for (name, a) in &before.load.latencies {
        let same = after.load.latencies.iter().find(|(other, _)| other == name);
        let Some((_, b)) = same else { continue };
        let (a, b) = (&a.measured, &b.measured);
        rows.push(row(format!("{name}, p50"), a.p50, b.p50, micros));
        rows.push(row(format!("{name}, p99"), a.p99, b.p99, micros));
    }
    for a in &before.usage {
        let Some(b) = after.usage.iter().find(|b| b.name == a.name) else {
            continue;
        };
        let name = format!("RSS of {}, KB", a.name);
        rows.push(row(name, a.rss_max_kb as f64, b.rss_max_kb as f64, number));
    }
    rows
}

fn read(path: &PathBuf) -> Outcome<RunResult> {
    let bytes = std::fs::read(path).map_err(|e| format!("{}: {e}", path.display()))?;
    let parsed = serde_json::from_slice(&bytes);
    Ok(parsed.map_err(|e| format!("{} is no result of a run: {e}", path.display()))?)
}

/// The command: exits with 2 where it refuses.
pub(crate) fn main(args: &CompareArgs) -> Outcome<ExitCode> {
    let (before, after) = (read(&args.before)?, read(&args.after)?);
    if let Some(refusal) = refusal(&before, &after) {
        say(&format!("error: {refusal}"));
        return Ok(ExitCode::from(2));
    }
    if before.origin.machine != after.origin.machine {
        say("note: the runs were measured on different machines");
    }
    let same_load =
        serde_json::to_value(&before.load_plan)? == serde_json::to_value(&after.load_plan)?;
    if !same_load {
        say("note: the runs had different loads");
    }
    let title = format!("Both at {}", before.durability);
    let head = ["figure", "before", "after", "ratio"];
    put(&Part::table(&title, &head, rows(&before, &after)).markdown());
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::LoadResult;
    use crate::plan::{LoadPlan, Sync, SystemPlan};
    use crate::{origin, result::Origin};

    fn result(change: impl FnOnce(&mut SystemPlan)) -> RunResult {
        let mut system_plan = SystemPlan::default();
        change(&mut system_plan);
        RunResult {
            origin: Origin::default(),
            durability: origin::durability(&system_plan),
            load_plan: LoadPlan::default(),
            system_plan,
            commands: Vec::new(),
            ready_s: 0.0,
            load: LoadResult::default(),
            usage: Vec::new(),
            frames: Vec::new(),
        }
    }

    #[test]
    fn runs_of_different_durability_are_not_compared() {
        let usual = result(|_| {});
        assert_eq!(refusal(&usual, &result(|p| p.agents = 99)), None);
        let lazy = refusal(&usual, &result(|p| p.sync = Sync::TwoMinutes)).unwrap();
        assert!(lazy.contains("sync_interval 2m"), "{lazy}");
        assert!(refusal(&usual, &result(|p| p.replicas = 3)).is_some());
        let mut memory = result(|_| {});
        memory.durability.storage = "memory".to_owned();
        assert!(refusal(&usual, &memory).is_some());
    }
}
