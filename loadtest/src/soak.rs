//! Whether memory stays what it is while a fixed rate goes on.
//!
//! What the state remembers of tasks that have ended is bounded by number and by age: it grows
//! until one of the bounds is reached, which the number is first under load. So many tasks are
//! run before anything is watched; what grows after that would grow for ever.

use std::path::PathBuf;

use crate::bench::rows::{self, Row};
use crate::describe;
use crate::ground::Ground;
use crate::outcome::{Outcome, put};
use crate::plan::{Arrivals, LoadPlan, SystemPlan};
use crate::report::{Part, Report};
use crate::result::RunResult;
use crate::results;
use crate::run::{self, Scene};
use crate::system::System;
use crate::table::number;
use crate::usage::Usage;

/// How much the memory of a process may change.
const FLAT: f64 = 0.05;
/// Tasks after which the state remembers no more ended ones (`Config::tombstones_max`).
const REMEMBERED: u64 = 4_100_000;

/// How to soak.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct SoakArgs {
    /// Minutes of the measured window
    #[arg(long, default_value_t = 10.0)]
    minutes: f64,
    /// Tasks per second
    #[arg(long, default_value_t = 5_000.0)]
    rate: f64,
    /// Seconds before the measured window
    #[arg(long, default_value_t = 60.0)]
    warmup: f64,
    /// Where soak.json and soak.html are written [default: bench/ beside this program]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Where RESULTS.md and results/ are kept [default: loadtest]
    #[arg(long, value_name = "DIR")]
    results: Option<PathBuf>,
}

/// Runs so many tasks, less those that were run before, as fast as possible.
pub(crate) fn fill(ground: &Ground, system: &System, before: u64) -> Outcome<()> {
    let left = REMEMBERED.saturating_sub(before);
    if left == 0 {
        return Ok(());
    }
    let plan = LoadPlan {
        count: Some(left),
        ..LoadPlan::default()
    };
    let scene = Scene {
        target: ground.target(),
        dir: ground.dir(),
        watched: system.watched(),
    };
    run::load(&scene, &plan).map(|_| ())
}

/// Seconds of a day.
const DAY_S: f64 = 86_400.0;

/// How the memory of a process changed between the first and the last quarter of its window.
struct Drift {
    /// The last over the first.
    ratio: f64,
    /// Megabytes a day, should it go on like that.
    mb_per_day: f64,
}

fn drift(usage: &Usage, seconds: f64) -> Drift {
    let quarter = usage.series.len().div_ceil(4);
    // The least: a snapshot is made in memory now and then, which is no growth; what is never
    // given back is.
    let floor = |points: &[(f64, f64, u64)]| {
        let each = points.iter().map(|p| p.2 as f64);
        each.reduce(f64::min).unwrap_or_default()
    };
    let first = usage.series.get(..quarter).unwrap_or_default();
    let last = usage.series.get(usage.series.len() - quarter..);
    let (first, last) = (floor(first), floor(last.unwrap_or_default()));
    Drift {
        ratio: last / first.max(1.0),
        // From the middle of the first quarter to the middle of the last.
        mb_per_day: (last - first) / 1024.0 / (seconds * 0.75).max(1.0) * DAY_S,
    }
}

/// What a run says of the memory of Conductor's processes.
pub(crate) fn row(result: &RunResult) -> Row {
    let ours = result.usage.iter().filter(|u| u.is_ours);
    let seconds = result.load.seconds;
    let drifts: Vec<(String, Drift)> = ours.map(|u| (u.name.clone(), drift(u, seconds))).collect();
    let shown = drifts.iter().map(|(name, drift)| {
        let percent = (drift.ratio - 1.0) * 100.0;
        format!(
            "{name} {percent:+.1} % ({:+.0} MB in 24 h)",
            drift.mb_per_day
        )
    });
    // What is given back, as after a snapshot, is no growth.
    let is_flat = drifts.iter().all(|(_, d)| d.ratio - 1.0 <= FLAT);
    let what = format!(
        "memory at {} tasks a second over {:.0} s: least of the last quarter over that of the first",
        number(result.load.ended_per_s),
        result.load.seconds
    );
    let shown = shown.collect::<Vec<_>>().join(", ");
    Row::new(
        &what,
        "grows by at most 5 %",
        shown,
        1,
        is_flat && !drifts.is_empty(),
    )
}

/// The command.
pub(crate) fn main(args: &SoakArgs) -> Outcome<()> {
    let plan = LoadPlan {
        arrivals: Arrivals::Constant,
        rate: args.rate,
        warmup: args.warmup,
        duration: args.minutes * 60.0,
        ..LoadPlan::default()
    };
    let system_plan = SystemPlan::default();
    let ground = Ground::start(&system_plan)?;
    let system = System::start(&system_plan, &ground)?;
    fill(&ground, &system, 0)?;
    let result = run::on(&ground, &system, &system_plan, &plan)?;
    system.stop();
    let mut parts = vec![rows::part(&[row(&result)])];
    parts.push(Part::Text(format!(
        "Before that {} tasks were run as fast as possible, after which the state remembers no \
         more ended ones.",
        number(REMEMBERED as f64)
    )));
    parts.push(Part::Text(
        "The server is not judged: its memory is its own cache and index of a log that grows."
            .to_owned(),
    ));
    let described = describe::report(&result);
    parts.extend(described.parts.iter().cloned());
    let report = Report {
        title: "Soak".to_owned(),
        parts,
        ..described
    };
    put(&report.markdown());
    results::write(args.out.as_deref(), "soak", &report, &result)?;
    let dir = args.results.clone().unwrap_or_else(results::default_dir);
    results::keep(&dir, "soak", &report)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drift_is_the_end_over_the_beginning() {
        let drift = |of: fn(u64) -> u64| {
            let series = (0..40).map(|i| (i as f64, 0.0, of(i))).collect();
            let usage = Usage {
                series,
                ..Usage::default()
            };
            drift(&usage, 40.0)
        };
        assert!((drift(|_| 500).ratio - 1.0).abs() < 1e-9);
        let grows = drift(|i| 1_024 * (100 + i));
        assert!(grows.ratio > 1.0 + FLAT);
        assert!(
            (grows.mb_per_day - DAY_S).abs() < 1.0,
            "a megabyte a second"
        );
        assert!(super::drift(&Usage::default(), 40.0).ratio.abs() < 1e-9);
    }
}
