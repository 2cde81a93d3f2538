//! How costs grow: with what waits, with agents, with the size of tasks, and with history.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::bench::{backlog, crowd};
use crate::ground::Ground;
use crate::nats;
use crate::origin;
use crate::outcome::{Outcome, put, say};
use crate::plan::{LoadPlan, SystemPlan};
use crate::plot::{Line, Plot, Scale};
use crate::report::{Part, Report};
use crate::result::RunResult;
use crate::results;
use crate::run;
use crate::system::System;
use crate::table::number;
use crate::usage;

/// Bytes of tasks that are in flight at most, where tasks are large.
const IN_FLIGHT_BYTES: usize = 64 * 1024 * 1024;
/// Events of a task without work, its submission included.
const EVENTS_PER_TASK: u64 = 5;
/// How long a log may take until it is quiet.
const QUIET: Duration = Duration::from_secs(300);

/// How to measure growth.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct GrowthArgs {
    /// Leave out the largest of everything, and measure briefly
    #[arg(long)]
    quick: bool,
    /// Only what has this in its name: backlog, agents, payload, history
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// Where growth.json and growth.html are written [default: bench/ beside this program]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Where RESULTS.md and results/ are kept; a quick run writes there only if told
    #[arg(long, value_name = "DIR")]
    results: Option<PathBuf>,
}

/// How figures depend on one thing.
#[derive(Clone, Debug, Serialize)]
struct Growth {
    title: &'static str,
    x: &'static str,
    figures: &'static [&'static str],
    rows: Vec<(f64, Vec<f64>)>,
}

impl Growth {
    fn parts(&self) -> Vec<Part> {
        let head: Vec<&str> = [self.x].iter().chain(self.figures).copied().collect();
        let rows = self.rows.iter().map(|(x, figures)| {
            let all = [*x].into_iter().chain(figures.iter().copied());
            all.map(number).collect()
        });
        let mut parts = vec![Part::table(self.title, &head, rows.collect())];
        parts.extend(self.figures.iter().enumerate().map(|(i, figure)| {
            let points = self.rows.iter();
            let points = points.filter_map(|(x, f)| Some((*x, *f.get(i)?)));
            Part::Plot(Plot {
                title: format!("{figure}, by {}", self.x),
                x: self.x.to_owned(),
                y: (*figure).to_owned(),
                x_scale: Scale::Log,
                y_scale: Scale::Linear,
                lines: vec![Line {
                    name: (*figure).to_owned(),
                    points: points.collect(),
                }],
            })
        }));
        parts
    }
}

/// How much of everything.
struct Extent {
    backlogs: &'static [u64],
    agents: &'static [u32],
    payloads: &'static [usize],
    histories: &'static [u64],
    seconds: f64,
}

const FULL: Extent = Extent {
    backlogs: &[1_000, 10_000, 100_000, 1_000_000],
    agents: &[1, 10, 100, 1_000],
    payloads: &[200, 1_024, 4_096, 16_384, 65_536],
    histories: &[100_000, 1_000_000, 10_000_000],
    seconds: 8.0,
};

const QUICK: Extent = Extent {
    backlogs: &[1_000, 10_000],
    agents: &[1, 10],
    payloads: &[200, 4_096],
    histories: &[10_000, 50_000],
    seconds: 1.0,
};

fn load_plan(extent: &Extent) -> LoadPlan {
    LoadPlan {
        duration: extent.seconds,
        warmup: 2.0,
        ..LoadPlan::default()
    }
}

fn memory_mb(result: &RunResult) -> f64 {
    let system = result.usage.iter().filter(|u| u.name == "system");
    system.map(|u| u.rss_max_kb as f64 / 1024.0).sum()
}

/// Tasks that wait all along, and tasks that wait and are worked off.
fn backlogs(extent: &Extent) -> Outcome<Growth> {
    let (plan, mut rows) = (SystemPlan::default(), Vec::new());
    for waiting in extent.backlogs {
        say(&format!("backlog {waiting}"));
        let load = LoadPlan {
            in_flight: (plan.agents * plan.slots) as usize + *waiting as usize,
            // All of them must have been submitted when it begins to count.
            warmup: 3.0 + *waiting as f64 / 8_000.0,
            ..load_plan(extent)
        };
        let steady = run::run(&plan, &load)?;
        let ground = Ground::start(&plan)?;
        let mut system = System::start_deciders(&plan, &ground)?;
        let filled = backlog::fill(&ground, &mut system, &plan, *waiting)?;
        system.stop();
        let figures = vec![
            steady.load.ended_per_s,
            steady.cpu_us_per_task(),
            memory_mb(&steady),
            filled.load.begun_per_s,
            filled.bytes_per_task,
        ];
        rows.push((*waiting as f64, figures));
    }
    Ok(Growth {
        title: "Backlog",
        x: "tasks that wait",
        figures: &[
            "tasks a second while they wait",
            "CPU µs per task",
            "system RSS MB",
            "begun a second while worked off",
            "bytes each while they wait",
        ],
        rows,
    })
}

fn agents(extent: &Extent) -> Outcome<Growth> {
    let mut rows = Vec::new();
    for agents in extent.agents {
        say(&format!("agents {agents}"));
        let plan = crowd::plan(*agents);
        let ground = Ground::start(&plan)?;
        let system = System::start(&plan, &ground)?;
        // A window shorter than the time between heartbeats may see none of them.
        let idle = crowd::idle(&ground, &system, extent.seconds * 4.0)?;
        let result = run::on(&ground, &system, &plan, &load_plan(extent))?;
        system.stop();
        let figures = vec![
            crowd::percent(&idle, "system"),
            crowd::percent(&idle, "nats-server"),
            result.load.ended_per_s,
            result.cpu_us_per_task(),
            memory_mb(&result),
        ];
        rows.push((f64::from(*agents), figures));
    }
    Ok(Growth {
        title: "Agents, of 1,024 slots each",
        x: "agents",
        figures: &[
            "system, idle, % of a core",
            "server, idle, % of a core",
            "tasks a second",
            "CPU µs per task",
            "system RSS MB",
        ],
        rows,
    })
}

fn payloads(extent: &Extent) -> Outcome<Growth> {
    let mut rows = Vec::new();
    for bytes in extent.payloads {
        say(&format!("payload {bytes}"));
        let load = LoadPlan {
            bytes: *bytes,
            in_flight: (IN_FLIGHT_BYTES / bytes).min(LoadPlan::default().in_flight),
            ..load_plan(extent)
        };
        let result = run::run(&SystemPlan::default(), &load)?;
        let figures = vec![
            result.load.ended_per_s,
            result.load.ended_per_s * result.load.bytes as f64 / 1e6,
            result.cpu_us_per_task(),
            memory_mb(&result),
        ];
        rows.push((result.load.bytes as f64, figures));
    }
    Ok(Growth {
        title: "Payload",
        x: "bytes of a submission",
        figures: &[
            "tasks a second",
            "MB of submissions a second",
            "CPU µs per task",
            "system RSS MB",
        ],
        rows,
    })
}

/// One log that grows and grows.
fn histories(extent: &Extent) -> Outcome<Growth> {
    let plan = SystemPlan::default();
    let ground = Ground::start(&plan)?;
    let (mut rows, mut done) = (Vec::new(), 0);
    for events in extent.histories {
        say(&format!("history {events}"));
        let tasks = events / EVENTS_PER_TASK;
        let load = LoadPlan {
            count: Some(tasks - done),
            ..load_plan(extent)
        };
        done = tasks;
        let system = System::start(&plan, &ground)?;
        let filled = run::on(&ground, &system, &plan, &load)?;
        nats::wait_quiet(&ground.target(), QUIET)?;
        let rss = system.deciders.iter().filter_map(|p| usage::read(p.pid()));
        let rss_mb = rss.map(|u| u.rss_kb as f64 / 1024.0).sum();
        system.stop();
        let ready = || -> Outcome<f64> {
            let system = System::start_deciders(&plan, &ground)?;
            let ready = system.ready.as_secs_f64();
            system.stop();
            Ok(ready)
        };
        let with_snapshot = ready()?;
        nats::forget_snapshots(&ground.target())?;
        let without = ready()?;
        let replayed = backlog::replay_once(&ground)?;
        let figures = vec![
            filled.load.ended_per_s,
            filled.cpu_us_per_task(),
            rss_mb,
            with_snapshot,
            without,
            replayed.events / replayed.cpu_s.max(1e-3),
        ];
        rows.push((replayed.events, figures));
    }
    Ok(Growth {
        title: "History",
        x: "events in the log",
        figures: &[
            "tasks a second on the way there",
            "CPU µs per task",
            "system RSS MB",
            "start with a snapshot, s",
            "start without, s",
            "replayed events per CPU second",
        ],
        rows,
    })
}

type Measure = fn(&Extent) -> Outcome<Growth>;

/// The command.
pub(crate) fn main(args: &GrowthArgs) -> Outcome<()> {
    let begin = Instant::now();
    let extent = if args.quick { QUICK } else { FULL };
    let all: [(&str, Measure); 4] = [
        ("backlog", backlogs),
        ("agents", agents),
        ("payload", payloads),
        ("history", histories),
    ];
    let only = args.only.as_deref().unwrap_or_default();
    let durability = origin::durability(&SystemPlan::default());
    let mut parts = vec![Part::Text(format!(
        "Durability: {durability}. No-op tasks, closed loop, gathered, 10 agents of 1,024 \
         slots unless said; one run of each."
    ))];
    let mut measured = Vec::new();
    for (name, measure) in all.into_iter().filter(|(name, _)| name.contains(only)) {
        match measure(&extent) {
            Ok(growth) => {
                parts.extend(growth.parts());
                measured.push(growth);
            }
            Err(e) => parts.push(Part::Text(format!("{name}: failed: {e}"))),
        }
    }
    let report = Report {
        title: "Growth of costs".to_owned(),
        origin: origin::here(),
        took_s: begin.elapsed().as_secs_f64(),
        parts,
    };
    put(&report.markdown());
    results::write(args.out.as_deref(), "growth", &report, &measured)?;
    match &args.results {
        Some(dir) => results::keep(dir, "growth", &report),
        None if args.quick => Ok(()),
        None => results::keep(&results::default_dir(), "growth", &report),
    }
}
