//! How long a task takes: alone, and where half of what is possible goes on.

use super::Bench;
use super::rows::{Row, Spread};
use super::throughput::{brief, several};
use crate::latency::Percentiles;
use crate::outcome::Outcome;
use crate::plan::{Arrivals, LoadPlan, SystemPlan};
use crate::result::RunResult;
use crate::table::micros;

/// A percentile of a latency, of every run; by the worse of measured and corrected.
fn spread(results: &[RunResult], name: &str, of: fn(&Percentiles) -> f64) -> Spread {
    let named = results
        .iter()
        .filter_map(|r| r.load.latencies.iter().find(|(n, _)| n == name));
    Spread::of(named.map(|(_, latency)| latency.worst(of)))
}

/// One task at a time.
pub(super) fn alone(bench: &mut Bench) -> Outcome<()> {
    let plan = LoadPlan {
        in_flight: 1,
        ..brief(bench)
    };
    let results = several(bench, "one at a time", &SystemPlan::default(), &plan)?;
    let started = spread(&results, "submit to started", |p| p.p50);
    let tail = spread(&results, "submit to started", |p| p.p99);
    let ended = spread(&results, "submit to ended", |p| p.p50);
    let round_trip = bench.raw.round_trip_p50();
    let ratio = started.median() / round_trip;
    let figure = format!(
        "p50 {}, p99 {}",
        started.show("", micros),
        tail.show("", micros)
    );
    let wanted = format!(
        "p50 <= 5 round trips ({} each), p99 <= 10 ms",
        micros(round_trip)
    );
    let is_met = started.runs() > 0 && ratio <= 5.0 && tail.median() <= 10_000.0;
    let what = "one task at a time: submit to attempt begun";
    bench
        .rows
        .push(Row::new(what, &wanted, figure, started.runs(), is_met).ratio(ratio));
    let ratio = ended.median() / round_trip;
    let figure = format!("p50 {}", ended.show("", micros));
    let what = "one task at a time: submit to result counted";
    let is_met = ended.runs() > 0 && ratio <= 7.0;
    bench
        .rows
        .push(Row::new(what, "p50 <= 7 round trips", figure, ended.runs(), is_met).ratio(ratio));
    Ok(())
}

/// Poisson arrivals at half of the sustained rate.
pub(super) fn half(bench: &mut Bench) -> Outcome<()> {
    let plan = LoadPlan {
        arrivals: Arrivals::Poisson,
        rate: (bench.sustained / 2.0).max(100.0),
        ..brief(bench)
    };
    let results = several(bench, "half of the load", &SystemPlan::default(), &plan)?;
    let tail = spread(&results, "submit to started", |p| p.p99);
    let middle = spread(&results, "submit to started", |p| p.p50);
    let figure = format!(
        "p99 {}; p50 {}",
        tail.show("", micros),
        middle.show("", micros)
    );
    let what = format!(
        "half of the load, Poisson at {:.0}/s: submit to attempt begun",
        plan.rate
    );
    let is_met = tail.runs() > 0 && tail.median() <= 50_000.0;
    bench
        .rows
        .push(Row::new(&what, "p99 <= 50 ms", figure, tail.runs(), is_met));
    Ok(())
}
