//! The standard set: every target, beside what the bare client and server give.

pub(crate) mod backlog;
pub(crate) mod crowd;
mod latencies;
pub(crate) mod rows;
mod throughput;
mod workloads;

use std::path::PathBuf;
use std::time::Instant;

use rows::Row;
use serde::Serialize;

use crate::baseline::Baseline;
use crate::origin;
use crate::outcome::{Outcome, put, say};
use crate::report::{Part, Report};
use crate::result::RunResult;
use crate::results;

/// How the standard set is run.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct BenchArgs {
    /// One short run of everything, to see that it works; its figures mean little
    #[arg(long)]
    quick: bool,
    /// Where bench.json and bench.html are written [default: bench/ beside this program]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Where RESULTS.md and results/ are kept; a quick run, or one of some steps, writes there only if told
    #[arg(long, value_name = "DIR")]
    results: Option<PathBuf>,
    /// Only steps with this in their name
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
}

/// How long and how often things are measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scale {
    /// Seconds of the sustained run.
    sustained: f64,
    /// Seconds of each further run of it.
    short: f64,
    /// Seconds during which memory is watched.
    steady: f64,
    /// Whether what is remembered of ended tasks is filled up before.
    fills: bool,
    /// Seconds of every other run.
    brief: f64,
    /// Seconds before each.
    warmup: f64,
    /// Runs of which the median is taken.
    runs: usize,
    /// Seconds of each variant of the bare client.
    raw: f64,
    /// Tasks of the backlog, and finished tasks of the restart.
    backlog: u64,
    /// Seconds that idle agents are watched.
    idle: f64,
    /// Many agents.
    crowd: u32,
}

const FULL: Scale = Scale {
    sustained: 60.0,
    short: 6.0,
    steady: 30.0,
    fills: true,
    brief: 4.0,
    warmup: 2.0,
    runs: 3,
    raw: 2.0,
    backlog: 1_000_000,
    idle: 30.0,
    crowd: 1_000,
};

const QUICK: Scale = Scale {
    sustained: 3.0,
    short: 2.0,
    steady: 2.0,
    fills: false,
    brief: 1.0,
    warmup: 1.0,
    runs: 1,
    raw: 0.5,
    backlog: 20_000,
    idle: 3.0,
    crowd: 50,
};

/// What was measured so far.
pub(crate) struct Bench {
    /// How long things are measured.
    pub(crate) scale: Scale,
    /// Every target.
    pub(crate) rows: Vec<Row>,
    /// What else is worth telling.
    pub(crate) parts: Vec<Part>,
    /// Every run.
    pub(crate) runs: Vec<(String, RunResult)>,
    /// The bare client where every write is synced.
    pub(crate) raw: Baseline,
    /// Tasks a second, sustained.
    pub(crate) sustained: f64,
}

type Step = fn(&mut Bench) -> Outcome<()>;

/// In the order in which later steps need figures of earlier ones.
const STEPS: [(&str, Step); 13] = [
    ("bare client", throughput::bare),
    ("sustained throughput", throughput::sustained),
    ("unseen", throughput::unseen),
    ("accounts", throughput::accounts),
    ("lazy sync", throughput::lazy),
    ("single publishes", throughput::single),
    ("one at a time", latencies::alone),
    ("half of the load", latencies::half),
    ("cluster", throughput::cluster),
    ("backlog, replay, restart", backlog::backlog),
    ("many agents", crowd::crowd),
    ("workloads", workloads::workloads),
    ("everything in one process", workloads::up),
];

/// For machines.
#[derive(Serialize)]
struct Everything<'a> {
    rows: &'a [Row],
    raw: &'a Baseline,
    runs: &'a [(String, RunResult)],
}

/// The command.
pub(crate) fn main(args: &BenchArgs) -> Outcome<()> {
    let begin = Instant::now();
    let mut bench = Bench {
        scale: if args.quick { QUICK } else { FULL },
        rows: Vec::new(),
        parts: Vec::new(),
        runs: Vec::new(),
        raw: Baseline::default(),
        sustained: 0.0,
    };
    let only = args.only.as_deref().unwrap_or_default();
    for (name, step) in STEPS.into_iter().filter(|(name, _)| name.contains(only)) {
        let at = begin.elapsed().as_secs_f64();
        say(&format!("{at:6.1} s  {name}"));
        // One that fails is a target missed; the others are measured all the same.
        if let Err(e) = step(&mut bench) {
            say(&format!("          failed: {e}"));
            let figure = format!("failed: {e}");
            bench
                .rows
                .push(Row::new(name, "a figure", figure, 0, false));
        }
    }
    let report = bench.report(begin.elapsed().as_secs_f64());
    put(&rows::part(&bench.rows).markdown());
    bench.write(args, &report)
}

impl Bench {
    /// Notes a run, with what makes it unsound.
    pub(crate) fn note(&mut self, name: &str, result: &RunResult) {
        for problem in result.problems() {
            self.parts
                .push(Part::Text(format!("NOT SOUND, {name}: {problem}")));
        }
        self.runs.push((name.to_owned(), result.clone()));
    }

    fn report(&self, took_s: f64) -> Report {
        let mut parts = vec![rows::part(&self.rows)];
        parts.extend(self.parts.iter().cloned());
        let mut commands: Vec<String> = Vec::new();
        for (name, run) in &self.runs {
            if run.commands.iter().any(|c| !commands.contains(c)) {
                commands.push(format!("# {name}"));
                commands.extend(run.commands.iter().cloned());
            }
        }
        parts.push(Part::Heading("Commands of the runs".to_owned()));
        parts.push(Part::Commands(commands));
        Report {
            title: "Standard set".to_owned(),
            origin: origin::here(),
            took_s,
            parts,
        }
    }

    fn write(&self, args: &BenchArgs, report: &Report) -> Outcome<()> {
        let everything = Everything {
            rows: &self.rows,
            raw: &self.raw,
            runs: &self.runs,
        };
        results::write(args.out.as_deref(), "bench", report, &everything)?;
        match &args.results {
            Some(dir) => results::keep(dir, "bench", report),
            // Part of the set must not replace the whole.
            None if args.quick || args.only.is_some() => Ok(()),
            None => results::keep(&results::default_dir(), "bench", report),
        }
    }
}
