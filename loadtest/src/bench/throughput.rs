//! How much goes through: sustained, with lazy sync, by single publishes, on a cluster.

use super::Bench;
use super::rows::{Row, Spread};
use crate::baseline::{self, RawArgs};
use crate::describe;
use crate::ground::Ground;
use crate::outcome::Outcome;
use crate::plan::{Arrivals, Layout, LoadPlan, Submit, Sync, SystemPlan};
use crate::raw::Consumer;
use crate::report::Part;
use crate::result::RunResult;
use crate::run;
use crate::soak;
use crate::system::System;
use crate::table::{micros, number};

/// Connections of plain publishes.
const CONNECTIONS: usize = 32;
/// Tasks a second while memory is watched.
const STEADY_RATE: f64 = 5_000.0;
/// Plain publishes that are tasks in flight.
const SINGLE_IN_FLIGHT: usize = 20_000;

fn raw_args(bench: &Bench, sync: Sync) -> RawArgs {
    RawArgs {
        // Where every write is synced, one at a time is faster than many.
        windows: vec![1, 256, 1_024],
        consumers: vec![Consumer::File, Consumer::Memory],
        seconds: bench.scale.raw,
        repeat: bench.scale.runs,
        sync,
        replicas: 1,
    }
}

/// The bare client where every write is synced.
pub(super) fn bare(bench: &mut Bench) -> Outcome<()> {
    bench.raw = baseline::raw(&raw_args(bench, Sync::Always))?;
    let title = "The bare client, synced before each acknowledgement";
    bench.parts.push(bench.raw.part(title));
    Ok(())
}

/// Runs a plan several times, each with servers and a system of its own.
pub(super) fn several(
    bench: &mut Bench,
    name: &str,
    system: &SystemPlan,
    plan: &LoadPlan,
) -> Outcome<Vec<RunResult>> {
    let mut results = Vec::new();
    for _ in 0..bench.scale.runs {
        let result = run::run(system, plan)?;
        bench.note(name, &result);
        results.push(result);
    }
    Ok(results)
}

/// A plan of brief runs.
pub(super) fn brief(bench: &Bench) -> LoadPlan {
    LoadPlan {
        warmup: bench.scale.warmup,
        duration: bench.scale.brief,
        ..LoadPlan::default()
    }
}

/// The first run is the long one.
pub(super) fn sustained(bench: &mut Bench) -> Outcome<()> {
    let system = SystemPlan::default();
    let plan = |duration: f64| LoadPlan {
        warmup: bench.scale.warmup,
        duration,
        ..LoadPlan::default()
    };
    let (long, short) = (plan(bench.scale.sustained), plan(bench.scale.short));
    let (first, steady) = sustained_then_steady(bench, &system, &long)?;
    bench.note("sustained", &first);
    let mut results = vec![first];
    for _ in 1..bench.scale.runs {
        let result = run::run(&system, &short)?;
        bench.note("sustained, shorter", &result);
        results.push(result);
    }
    let all = Spread::of(results.iter().map(|r| r.load.ended_per_s));
    let cpu = Spread::of(results.iter().map(RunResult::cpu_us_per_task));
    let Some(first) = results.first() else {
        return Ok(());
    };
    let long = first.load.ended_per_s;
    // What does not last is not sustained.
    bench.sustained = all.median().min(long);
    let raw = bench.raw.tasks_per_s();
    let round_trip = bench.raw.round_trip_p50();
    let is_enough = bench.sustained >= 40_000.0 || round_trip > 300.0;
    let ratio = bench.sustained / raw;
    let figure = format!(
        "{}; over {:.0} s: {}",
        all.show("/s", number),
        first.load.seconds,
        number(long)
    );
    let wanted = format!(
        ">= 30 times the bare client ({}/s), and >= 40,000/s where its round trip is at most \
         0.3 ms (here {})",
        number(raw),
        micros(round_trip)
    );
    let what = "no-op tasks of 256 B, gathered, closed loop";
    bench.rows.push(
        Row::new(
            what,
            &wanted,
            figure,
            all.runs(),
            ratio >= 30.0 && is_enough,
        )
        .ratio(ratio),
    );
    bench.rows.push(Row::new(
        "CPU per no-op task, system and agents together",
        "<= 40 µs",
        cpu.show(" µs", number),
        cpu.runs(),
        cpu.median() <= 40.0,
    ));
    bench.rows.push(soak::row(&steady));
    bench
        .parts
        .push(Part::Heading("The sustained run".to_owned()));
    let whole = describe::report(first).parts;
    let told = whole
        .into_iter()
        .filter(|p| !matches!(p, Part::Commands(_)));
    bench.parts.extend(told);
    Ok(())
}

/// A run, and on the same system a slower one by which one sees whether memory still grows.
fn sustained_then_steady(
    bench: &mut Bench,
    plan: &SystemPlan,
    long: &LoadPlan,
) -> Outcome<(RunResult, RunResult)> {
    let ground = Ground::start(plan)?;
    let system = System::start(plan, &ground)?;
    let first = run::on(&ground, &system, plan, long)?;
    if bench.scale.fills {
        soak::fill(&ground, &system, first.load.ended)?;
    }
    let slower = LoadPlan {
        arrivals: Arrivals::Constant,
        rate: STEADY_RATE,
        // By then what only the full load needed is given back to the operating system.
        warmup: bench.scale.steady / 2.0,
        duration: bench.scale.steady,
        ..brief(bench)
    };
    let steady = run::on(&ground, &system, plan, &slower)?;
    system.stop();
    bench.note("steady after that", &steady);
    Ok((first, steady))
}

/// A system as it is by default, and with something switched off: in turns, since a machine is not
/// the same from minute to minute.
fn in_turns(
    bench: &mut Bench,
    (name, other): (&str, &str),
    plan: impl Fn(bool) -> SystemPlan,
) -> Outcome<(Spread, Spread)> {
    let (mut with, mut without) = (Vec::new(), Vec::new());
    for _ in 0..bench.scale.runs {
        for (is_on, into) in [(true, &mut with), (false, &mut without)] {
            let result = run::run(&plan(is_on), &brief(bench))?;
            bench.note(if is_on { name } else { other }, &result);
            into.push(result.load.ended_per_s);
        }
    }
    Ok((Spread::of(with), Spread::of(without)))
}

/// What it costs to be seen.
pub(super) fn unseen(bench: &mut Bench) -> Outcome<()> {
    let plan = |is_seen| SystemPlan {
        is_seen,
        ..SystemPlan::default()
    };
    let (seen, unseen) = in_turns(bench, ("seen", "unseen"), plan)?;
    let ratio = seen.median() / unseen.median();
    let wanted = format!(
        ">= 0.9 times what it does with all that switched off ({})",
        unseen.show("/s", number)
    );
    let what = "no-op tasks with metrics, health and log as they are by default";
    let figure = seen.show("/s", number);
    bench
        .rows
        .push(Row::new(what, &wanted, figure, seen.runs(), ratio >= 0.9).ratio(ratio));
    Ok(())
}

/// What it costs that the server knows who may do what: `conductor up` as it is by default.
pub(super) fn accounts(bench: &mut Bench) -> Outcome<()> {
    let plan = |has_accounts| SystemPlan {
        layout: Layout::Up,
        has_accounts,
        ..SystemPlan::default()
    };
    let (with, without) = in_turns(bench, ("accounts", "open server"), plan)?;
    let ratio = with.median() / without.median();
    let wanted = format!(
        ">= 0.85 times what it does with an open server ({})",
        without.show("/s", number)
    );
    let what = "no-op tasks by `conductor up`, with accounts and each agent's own credentials";
    let figure = with.show("/s", number);
    bench
        .rows
        .push(Row::new(what, &wanted, figure, with.runs(), ratio >= 0.85).ratio(ratio));
    Ok(())
}

/// Both sides with a server that syncs every two minutes.
pub(super) fn lazy(bench: &mut Bench) -> Outcome<()> {
    let raw = baseline::raw(&RawArgs {
        repeat: 1,
        ..raw_args(bench, Sync::TwoMinutes)
    })?;
    bench
        .parts
        .push(raw.part("The bare client, synced every two minutes"));
    let system = SystemPlan {
        sync: Sync::TwoMinutes,
        ..SystemPlan::default()
    };
    let results = several(bench, "lazy sync", &system, &brief(bench))?;
    let all = Spread::of(results.iter().map(|r| r.load.ended_per_s));
    let ratio = all.median() / raw.tasks_per_s();
    let wanted = format!(
        ">= 1.2 times the bare client ({}/s)",
        number(raw.tasks_per_s())
    );
    let what = "the same, synced every two minutes on both sides";
    let figure = all.show("/s", number);
    bench
        .rows
        .push(Row::new(what, &wanted, figure, all.runs(), ratio >= 1.2).ratio(ratio));
    Ok(())
}

/// Each task a publish of its own, against a server that does nothing but take them.
pub(super) fn single(bench: &mut Bench) -> Outcome<()> {
    let system = SystemPlan::default();
    let plan = LoadPlan {
        submit: Submit::Single,
        connections: CONNECTIONS,
        in_flight: SINGLE_IN_FLIGHT,
        // What is decided waits behind what is submitted, several times over.
        warmup: bench.scale.warmup * 4.0,
        ..brief(bench)
    };
    let mut alone = Vec::new();
    for _ in 0..bench.scale.runs {
        let brief = LoadPlan {
            warmup: bench.scale.warmup,
            ..plan.clone()
        };
        alone.push(baseline::accepted(&system, &brief)?.acked_per_s);
    }
    let alone = Spread::of(alone);
    let results = several(bench, "single publishes", &system, &plan)?;
    let all = Spread::of(results.iter().map(|r| r.load.ended_per_s));
    let ratio = all.median() / alone.median();
    let wanted = format!(
        ">= 0.7 times what the server takes of them alone ({})",
        alone.show("/s", number)
    );
    let what = "no-op tasks by single publishes, 32 connections";
    let figure = all.show("/s", number);
    bench
        .rows
        .push(Row::new(what, &wanted, figure, all.runs(), ratio >= 0.7).ratio(ratio));
    Ok(())
}

/// Three servers on this machine, every record on all of them.
pub(super) fn cluster(bench: &mut Bench) -> Outcome<()> {
    let system = SystemPlan {
        replicas: 3,
        ..SystemPlan::default()
    };
    let results = several(bench, "cluster", &system, &brief(bench))?;
    let all = Spread::of(results.iter().map(|r| r.load.ended_per_s));
    let ratio = all.median() / bench.sustained;
    let wanted = format!(">= 0.4 times one server ({}/s)", number(bench.sustained));
    let what = "no-op tasks on a cluster of three, on the same machine";
    let figure = all.show("/s", number);
    bench
        .rows
        .push(Row::new(what, &wanted, figure, all.runs(), ratio >= 0.4).ratio(ratio));
    Ok(())
}
