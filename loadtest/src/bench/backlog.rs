//! What waits, and what is done: memory of a backlog, replay, and a start over a long log.

use std::time::{Duration, Instant};

use super::Bench;
use super::rows::{Row, Spread};
use super::throughput::brief;
use crate::ground::Ground;
use crate::load::{LoadResult, SUBMITTED};
use crate::nats;
use crate::outcome::Outcome;
use crate::plan::{LoadPlan, SystemPlan};
use crate::process::{Process, conductor};
use crate::run;
use crate::system::{System, role};
use crate::table::{micros, number};
use crate::usage;

/// How long a log may take until it is quiet.
const QUIET: Duration = Duration::from_secs(300);
/// How long replays may take until no further one is begun.
const REPLAYS: Duration = Duration::from_secs(10);
/// Memory that is the same after so long has settled.
const SETTLE: Duration = Duration::from_secs(3);
/// Memory is taken as it is after so long.
const SETTLE_MAX: Duration = Duration::from_secs(30);
/// Tasks that wait in a small backlog.
const SMALL: usize = 1_000;

/// What a backlog took.
pub(crate) struct Filled {
    /// Bytes of memory for each task, of the processes that decide.
    pub(crate) bytes_per_task: f64,
    /// What the load saw while it was worked off.
    pub(crate) load: LoadResult,
}

/// Submits so many tasks while there is no agent, then lets agents work them off.
pub(crate) fn fill(
    ground: &Ground,
    system: &mut System,
    plan: &SystemPlan,
    tasks: u64,
) -> Outcome<Filled> {
    let load_plan = LoadPlan {
        count: Some(tasks),
        in_flight: tasks as usize,
        patience: 120.0,
        ..LoadPlan::default()
    };
    let before = deciders_memory(system);
    let mut load = role("load", &ground.target(), &load_plan, ground.dir())?;
    load.wait_says(SUBMITTED, QUIET)?;
    nats::wait_quiet(&ground.target(), QUIET)?;
    let bytes_per_task = (settled_memory(system) - before) / tasks as f64;
    system.start_agents(plan, ground)?;
    let load: LoadResult = load.result()?;
    if load.ended < tasks {
        return Err(format!("of {tasks} tasks only {} ended", load.ended).into());
    }
    Ok(Filled {
        bytes_per_task,
        load,
    })
}

/// Bytes of memory of the processes that decide.
fn deciders_memory(system: &System) -> f64 {
    let used = system.deciders.iter().filter_map(|p| usage::read(p.pid()));
    used.map(|u| u.rss_kb).sum::<u64>() as f64 * 1024.0
}

/// The same once it stays as it is: what was needed while the tasks came in is given back to
/// the operating system within seconds, and is not what waiting takes.
fn settled_memory(system: &System) -> f64 {
    let begin = Instant::now();
    loop {
        let before = deciders_memory(system);
        std::thread::sleep(SETTLE);
        let now = deciders_memory(system);
        if begin.elapsed() > SETTLE_MAX || (now / before - 1.0).abs() < 0.005 {
            return now;
        }
    }
}

/// The backlog, and with its log the replay and the restart.
pub(super) fn backlog(bench: &mut Bench) -> Outcome<()> {
    let (plan, tasks) = (SystemPlan::default(), bench.scale.backlog);
    let small = LoadPlan {
        in_flight: (plan.agents * plan.slots) as usize + SMALL,
        ..brief(bench)
    };
    let ground = Ground::start(&plan)?;
    let system = System::start(&plan, &ground)?;
    let small = run::on(&ground, &system, &plan, &small)?;
    system.stop();
    bench.note("backlog of 1,000", &small);
    replay(bench, &ground, "of steady work")?;
    drop(ground);
    let ground = Ground::start(&plan)?;
    let mut system = System::start_deciders(&plan, &ground)?;
    let filled = fill(&ground, &mut system, &plan, tasks)?;
    let (rate, usual) = (filled.load.begun_per_s, small.load.started_per_s);
    let ratio = rate / usual;
    let waiting = number(tasks as f64);
    bench.rows.push(Row::new(
        &format!("memory of {waiting} tasks that wait, settled; orchestrator and scheduler in one process"),
        "<= 1,024 B each",
        format!("{} B", number(filled.bytes_per_task)),
        1,
        filled.bytes_per_task <= 1_024.0,
    ));
    let what = format!("attempts begun while {waiting} tasks are worked off");
    let wanted = format!(
        ">= 0.7 times those where 1,000 wait all along ({}/s)",
        number(usual)
    );
    let figure = format!("{}/s", number(rate));
    bench
        .rows
        .push(Row::new(&what, &wanted, figure, 1, ratio >= 0.7).ratio(ratio));
    system.stop();
    replay(
        bench,
        &ground,
        &format!("in which {waiting} waited at once"),
    )?;
    restart(bench, &ground, &plan, tasks)
}

/// A replay of the whole log.
pub(crate) struct Replayed {
    /// Events of it, submissions included.
    pub(crate) events: f64,
    /// Seconds it took to read and fold them.
    pub(crate) seconds: f64,
    /// CPU seconds of the whole command.
    pub(crate) cpu_s: f64,
}

/// Runs `conductor replay` from the first record on.
pub(crate) fn replay_once(ground: &Ground) -> Outcome<Replayed> {
    let args = ["replay", "--nats-url", &ground.target().url].map(str::to_owned);
    let mut replay = Process::start("replay", &conductor()?, &args, ground.dir())?;
    let (status, _, cpu_s) = replay.end_and_cpu()?;
    if !status.success() {
        return Err(format!("replay failed ({status}): {}", replay.said()).into());
    }
    // As a table: JSON would list tasks, which is no part of replaying.
    let report = replay.printed();
    let field = |name: &str| field(&report, name);
    let events = field("events").ok_or("replay did not count events")?;
    // It counts a record of submissions once, however many there are in it.
    let submissions = field("submitted").unwrap_or(0.0);
    Ok(Replayed {
        events: events + submissions,
        seconds: field("seconds").ok_or("replay took no time")?,
        cpu_s,
    })
}

/// A number from a table of names and values.
fn field(table: &str, name: &str) -> Option<f64> {
    let mut lines = table.lines().map(str::split_whitespace);
    let mut line = lines.find(|words| words.clone().next() == Some(name))?;
    line.nth(1)?.parse().ok()
}

fn replay(bench: &mut Bench, ground: &Ground, log: &str) -> Outcome<()> {
    let mut rates = Vec::new();
    let mut walls = Vec::new();
    let begin = Instant::now();
    // One that is slow is measured once: the set has ten minutes.
    while rates.is_empty() || (rates.len() < bench.scale.runs && begin.elapsed() < REPLAYS) {
        let replayed = replay_once(ground)?;
        rates.push(replayed.events / replayed.cpu_s.max(1e-3));
        walls.push(replayed.events / replayed.seconds.max(1e-3));
    }
    let (rates, walls) = (Spread::of(rates), Spread::of(walls));
    bench.rows.push(Row::new(
        &format!("`conductor replay` of a log {log}, events per CPU second"),
        ">= 1,000,000",
        format!(
            "{}; by the clock {}/s",
            rates.show("", number),
            walls.show("", number)
        ),
        rates.runs(),
        rates.median() >= 1e6,
    ));
    Ok(())
}

fn restart(bench: &mut Bench, ground: &Ground, plan: &SystemPlan, tasks: u64) -> Outcome<()> {
    let ready = || -> Outcome<f64> {
        let system = System::start_deciders(plan, ground)?;
        let ready = system.ready.as_secs_f64();
        system.stop();
        Ok(ready)
    };
    let mut with = Vec::new();
    for _ in 0..bench.scale.runs {
        with.push(ready()?);
    }
    nats::forget_snapshots(&ground.target())?;
    let without = Spread::of([ready()?]);
    let with = Spread::of(with);
    let finished = number(tasks as f64);
    let seconds = |s: f64| micros(s * 1e6);
    bench.rows.push(Row::new(
        &format!("start over {finished} finished tasks, with a snapshot, until it leads"),
        "<= 3 s",
        with.show("", seconds),
        with.runs(),
        with.median() <= 3.0,
    ));
    bench.rows.push(Row::new(
        &format!("start over {finished} finished tasks, without any snapshot"),
        "<= 15 s",
        without.show("", seconds),
        without.runs(),
        without.median() <= 15.0,
    ));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::field;

    #[test]
    fn numbers_are_found_by_their_names() {
        let table = "ended     succeeded=7\nevents    4016\nseconds   0.036\n";
        assert_eq!(field(table, "events"), Some(4_016.0));
        assert_eq!(field(table, "seconds"), Some(0.036));
        assert_eq!(field(table, "ended"), None);
    }
}
