//! `conductor-simulation`: runs many seeds, or one of them with its story.

#![allow(
    clippy::expect_used,
    reason = "a tool for those who work on it: it says what is wrong and ends"
)]

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use clap::Parser;
use conductor_simulation::referee::Coverage;
use conductor_simulation::scenario::Scenario;
use conductor_simulation::{run, shrink};
use indicatif::{ProgressBar, ProgressStyle};

/// Simulate the whole system under faults; every run follows from its seed
#[derive(Debug, Parser)]
struct Args {
    /// How many seeds to run
    #[arg(long, default_value_t = 1_000)]
    seeds: u64,
    /// The first of them
    #[arg(long, default_value_t = 1)]
    from: u64,
    /// Run this one seed and tell its story
    #[arg(long, conflicts_with_all = ["seeds", "from"])]
    seed: Option<u64>,
    /// Run a kept scenario (a file) and tell its story
    #[arg(long, conflicts_with_all = ["seeds", "from", "seed"])]
    case: Option<PathBuf>,
    /// Make a failing seed small, and write it to this file
    #[arg(long, requires = "seed")]
    shrink: Option<PathBuf>,
    /// Plant a bug of `conductor_domain::planted` (needs --features planted-bugs)
    #[cfg(feature = "planted-bugs")]
    #[arg(long)]
    plant: Option<String>,
    /// Threads
    #[arg(long, default_value_t = std::thread::available_parallelism().map_or(1, usize::from))]
    threads: usize,
    /// Print what was met: phases, events and verdicts
    #[arg(long)]
    coverage: bool,
}

#[expect(clippy::print_stdout, reason = "it is a command")]
fn main() -> ExitCode {
    let args = Args::parse();
    #[cfg(feature = "planted-bugs")]
    plant(&args);
    let scenario = match (&args.seed, &args.case) {
        (Some(seed), _) => Some(Scenario::draw(*seed)),
        (None, Some(file)) => {
            let text = std::fs::read_to_string(file).expect("the file can be read");
            Some(serde_json::from_str(&text).expect("it is a scenario"))
        }
        (None, None) => None,
    };
    let Some(mut scenario) = scenario else {
        return many(&args);
    };
    if let Some(file) = &args.shrink
        && let Some(violation) = run(&scenario, false).violation
    {
        scenario = shrink::shrink(&scenario, violation.rule);
        let text = serde_json::to_string_pretty(&scenario).expect("a scenario is data");
        std::fs::write(file, text).expect("the file can be written");
    }
    println!("{:#?}", scenario.options);
    let done = run(&scenario, true);
    for line in &done.story {
        println!("{line}");
    }
    match done.violation {
        Some(violation) => {
            println!("seed {}: {violation}", scenario.options.seed);
            ExitCode::FAILURE
        }
        None => ExitCode::SUCCESS,
    }
}

/// Plants the bug asked for, in this thread.
#[cfg(feature = "planted-bugs")]
fn plant(args: &Args) {
    use conductor_domain::planted;
    let Some(name) = &args.plant else { return };
    let named = |bug: &&planted::Bug| format!("{bug:?}") == *name;
    let bug = planted::Bug::ALL.iter().find(named);
    planted::plant(Some(*bug.expect("there is a bug of that name")));
}

/// What many runs found.
#[derive(Default)]
struct Found {
    failures: Vec<(u64, String)>,
    coverage: Coverage,
    records: u64,
    tasks: u64,
    settled_ms: u64,
}

#[expect(clippy::print_stdout, reason = "it is a command")]
fn many(args: &Args) -> ExitCode {
    let next = AtomicU64::new(args.from);
    let end = args.from + args.seeds;
    let found = Mutex::new(Found::default());
    let bar = ProgressBar::new(args.seeds).with_style(
        ProgressStyle::with_template("{bar:40} {pos}/{len} seeds, {per_sec}, {eta} left")
            .expect("a template"),
    );
    let started = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..args.threads {
            scope.spawn(|| {
                #[cfg(feature = "planted-bugs")]
                plant(args);
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end {
                        return;
                    }
                    let done = run(&Scenario::draw(seed), false);
                    let mut found = found.lock().expect("nobody panicked");
                    if let Some(violation) = done.violation {
                        let options = Scenario::draw(seed).options;
                        bar.println(format!("seed {seed}: {violation}\n  {options:?}"));
                        found.failures.push((seed, violation.to_string()));
                    }
                    for (met, times) in done.coverage {
                        *found.coverage.entry(met).or_default() += times;
                    }
                    found.records += done.records;
                    found.tasks += done.tasks;
                    found.settled_ms = found.settled_ms.max(done.settled_ms);
                    bar.inc(1);
                }
            });
        }
    });
    bar.finish_and_clear();
    let found = found.into_inner().expect("nobody panicked");
    if args.coverage {
        for (met, times) in &found.coverage {
            println!("{times:>9} {met}");
        }
    }
    println!(
        "{} seeds from {}: {} tasks, {} records, {} kinds of things met, all done {} s after \
         trouble at the latest, {} failures, {:.1} s",
        args.seeds,
        args.from,
        found.tasks,
        found.records,
        found.coverage.len(),
        found.settled_ms / 1_000,
        found.failures.len(),
        started.elapsed().as_secs_f64()
    );
    for (seed, what) in found.failures.iter().take(20) {
        let short: String = what.chars().take(300).collect();
        println!("  seed {seed}: {short}");
    }
    let Some((seed, _)) = found.failures.iter().min() else {
        return ExitCode::SUCCESS;
    };
    println!("making seed {seed} small …");
    tell_smallest(*seed);
    ExitCode::FAILURE
}

/// Makes a failing seed small, keeps it beside the program, and tells its story.
#[expect(clippy::print_stdout, reason = "it is a command")]
fn tell_smallest(seed: u64) {
    let scenario = Scenario::draw(seed);
    let Some(violation) = run(&scenario, false).violation else {
        return;
    };
    let small = shrink::shrink(&scenario, violation.rule);
    let exe = std::env::current_exe().expect("the program has a path");
    let dir = exe.with_file_name("simulation");
    let file = dir.join(format!("seed-{seed}.json"));
    let text = serde_json::to_string_pretty(&small).expect("a scenario is data");
    std::fs::create_dir_all(&dir).expect("a directory beside the program");
    std::fs::write(&file, text).expect("the file can be written");
    let done = run(&small, true);
    for line in &done.story {
        println!("{line}");
    }
    if let Some(violation) = done.violation {
        println!("seed {seed}: {violation}");
    }
    println!(
        "kept in {}; once mended, it belongs into tests/simulation/tests/cases",
        file.display()
    );
}
