//! How long a task takes: alone, and where half of what is possible goes on.

use super::Bench;
use super::rows::{Row, Spread};
use super::throughput::{brief, several};
use crate::latency::{Latency, Percentiles};
use crate::load::BY_LOG;
use crate::outcome::Outcome;
use crate::plan::{Arrivals, LoadPlan, SystemPlan};
use crate::relay::{self, Measured};
use crate::report::Part;
use crate::result::RunResult;
use crate::run;
use crate::table::{micros, number};

/// A percentile of a latency, of every run; by the worse of measured and corrected.
fn spread(results: &[RunResult], name: &str, of: fn(&Percentiles) -> f64) -> Spread {
    let named = results
        .iter()
        .filter_map(|r| r.load.latencies.iter().find(|(n, _)| n == name));
    Spread::of(named.map(|(_, latency)| latency.worst(of)))
}

/// The middle of every turn, in microseconds; by the worse of measured and corrected, as for tasks.
fn medians<'a>(of: impl Iterator<Item = Option<&'a Latency>>) -> Spread {
    Spread::of(of.flatten().map(|latency| latency.worst(|p| p.p50)))
}

/// One task at a time; in turns with one acknowledged publish at a time, and with bare clients
/// that hand on as many records in a row: a machine is not the same from minute to minute.
pub(super) fn alone(bench: &mut Bench) -> Outcome<()> {
    let plan = LoadPlan {
        in_flight: 1,
        by_log: true,
        ..brief(bench)
    };
    let (mut results, mut relays) = (Vec::new(), Vec::new());
    for _ in 0..bench.scale.runs {
        relays.push(relay::measure(bench.scale.raw / 2.0)?);
        let result = run::run(&SystemPlan::default(), &plan)?;
        bench.note("one at a time", &result);
        results.push(result);
    }
    let round_trip = medians(relays.iter().map(|r| r.round_trip.as_ref()));
    for (until, name, at_most) in [
        (
            "attempt begun, by the time its record is given before it is synced",
            BY_LOG,
            5.0,
        ),
        (
            "attempt begun, heard of by whoever submitted",
            "submit to started",
            5.0,
        ),
        ("result counted", "submit to ended", 7.0),
    ] {
        bench
            .rows
            .push(row(&results, &round_trip, until, name, at_most));
    }
    let heard = spread(&results, "submit to started", |p| p.p50);
    bench.parts.push(relay_part(&relays, &heard));
    Ok(())
}

/// How long one task at a time takes until something, in round trips.
fn row(results: &[RunResult], round_trip: &Spread, until: &str, name: &str, at_most: f64) -> Row {
    let middle = spread(results, name, |p| p.p50);
    let tail = spread(results, name, |p| p.p99);
    let ratio = middle.median() / round_trip.median();
    let figure = format!(
        "p50 {}, p99 {}",
        middle.show("", micros),
        tail.show("", micros)
    );
    let wanted = format!(
        "p50 <= {at_most} round trips ({} each), p99 <= 10 ms",
        micros(round_trip.median())
    );
    let is_met = middle.runs() > 0 && ratio <= at_most && tail.median() <= 10_000.0;
    let what = format!("one task at a time: submit to {until}");
    Row::new(&what, &wanted, figure, middle.runs(), is_met).ratio(ratio)
}

/// What records in a row take without any rules.
fn relay_part(relays: &[Measured], heard: &Spread) -> Part {
    let round_trip = medians(relays.iter().map(|r| r.round_trip.as_ref()));
    let row = |what: &str, of: &Spread| {
        vec![
            what.to_owned(),
            of.show("", micros),
            number(of.median() / round_trip.median()),
        ]
    };
    let one = medians(relays.iter().map(|r| r.relay.one.as_ref()));
    let all = medians(relays.iter().map(|r| r.relay.all.as_ref()));
    let rows = vec![
        row("bare client: one acknowledged publish", &round_trip),
        row("bare client: one record, until its writer hears it", &one),
        row("bare clients: four records in a row", &all),
        row("Conductor: submitted, accepted, assigned, begun", heard),
    ];
    let columns = ["one at a time, in turns", "p50", "round trips"];
    Part::table(
        "Records in a row, without the rules and with them",
        &columns,
        rows,
    )
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
