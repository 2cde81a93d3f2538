//! Whether memory stays what it is while a fixed rate goes on.

use std::path::PathBuf;

use crate::bench::rows::{self, Row};
use crate::describe;
use crate::outcome::{Outcome, put};
use crate::plan::{Arrivals, LoadPlan, SystemPlan};
use crate::report::{Part, Report};
use crate::result::RunResult;
use crate::results;
use crate::run;
use crate::table::number;
use crate::usage::Usage;

/// How much the memory of a process may change.
const FLAT: f64 = 0.05;

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

/// The memory of a process in the last quarter of its window over that in the first.
fn drift(usage: &Usage) -> f64 {
    let quarter = usage.series.len().div_ceil(4);
    let mean = |points: &[(f64, f64, u64)]| {
        points.iter().map(|p| p.2 as f64).sum::<f64>() / points.len().max(1) as f64
    };
    let first = usage.series.get(..quarter).unwrap_or_default();
    let last = usage.series.get(usage.series.len() - quarter..);
    mean(last.unwrap_or_default()) / mean(first).max(1.0)
}

/// What a run says of the memory of Conductor's processes.
pub(crate) fn row(result: &RunResult) -> Row {
    let ours = result.usage.iter().filter(|u| u.is_ours);
    let drifts: Vec<(String, f64)> = ours.map(|u| (u.name.clone(), drift(u))).collect();
    let shown = drifts.iter().map(|(name, drift)| {
        let percent = (drift - 1.0) * 100.0;
        format!("{name} {percent:+.1} %")
    });
    let is_flat = drifts.iter().all(|(_, d)| (d - 1.0).abs() <= FLAT);
    let what = format!(
        "memory at {} tasks a second over {:.0} s: last quarter over the first",
        number(result.load.ended_per_s),
        result.load.seconds
    );
    let shown = shown.collect::<Vec<_>>().join(", ");
    Row::new(&what, "± 5 %", shown, 1, is_flat && !drifts.is_empty())
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
    let result = run::run(&SystemPlan::default(), &plan)?;
    let mut parts = vec![rows::part(&[row(&result)])];
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
        let usage = |of: fn(u64) -> u64| Usage {
            series: (0..40).map(|i| (i as f64, 0.0, of(i))).collect(),
            ..Usage::default()
        };
        assert!((drift(&usage(|_| 500)) - 1.0).abs() < 1e-9);
        assert!(drift(&usage(|i| 1_000 + 10 * i)) > 1.0 + FLAT);
        assert!(drift(&Usage::default()).abs() < 1e-9);
    }
}
