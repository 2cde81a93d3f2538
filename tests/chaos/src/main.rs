//! Real faults on real processes and real servers; afterwards the log and the side effects
//! are checked. `make chaos` runs it.
//!
//! One seed decides the schedule: kinds, victims, pauses, durations, and the tasks. What
//! exactly is hit at that moment is the machine's real time, which no seed brings back.
//!
//! Reading order: [`fault`] (what is done, and when) → [`strike`] (how) → [`field`] and
//! [`ground`] (to whom) → [`load`] (meanwhile) → [`checker`] and [`flip`] (afterwards) →
//! [`report`].

// It fails by panicking, with everything a person needs to see why; it reports by printing.
#![allow(
    clippy::panic,
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test program fails by panicking and reports by printing"
)]

mod checker;
mod disk;
mod events;
mod fault;
mod field;
mod flip;
mod ground;
mod load;
mod report;
mod run;
mod strike;
mod watcher;
mod wire;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Parser;
use conductor_simulation::random::Random;
use ground::Topology;
use tokio::signal::unix::{SignalKind, signal};

/// Which topologies to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Which {
    /// One server.
    One,
    /// Three in a cluster.
    Three,
    /// One, then three.
    Both,
}

/// Real faults on real processes, and a check that nothing was lost or counted twice
#[derive(Debug, Parser)]
struct Args {
    /// How long to go on, over all topologies
    #[arg(long, default_value_t = 10.0)]
    minutes: f64,
    /// Decides the schedule; printed in any case
    #[arg(long)]
    seed: Option<u64>,
    /// The servers
    #[arg(long, value_enum, default_value = "both")]
    topology: Which,
    /// Only faults with this in their name
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// Where report.json and report.txt are written
    #[arg(long)]
    report: Option<PathBuf>,
}

/// This machine's clock, in milliseconds since 1970: also that of the servers.
fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.unwrap_or_default().as_millis() as u64
}

/// The last lines of a text.
fn tail(text: &[u8], lines: usize) -> String {
    let text = String::from_utf8_lossy(text);
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

fn main() -> ExitCode {
    let args = Args::parse();
    disk::enter_namespace();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(3)
        .enable_all()
        .build()
        .expect("a runtime");
    let code = runtime.block_on(async {
        tokio::select! {
            code = all(&args) => code,
            // Everything that was started ends with what holds it.
            code = told_to_stop() => code,
        }
    });
    runtime.shutdown_timeout(Duration::from_secs(2));
    ExitCode::from(code)
}

/// Returns on Ctrl-C and SIGTERM, with the exit code of a program that they end.
async fn told_to_stop() -> u8 {
    let mut terminate = signal(SignalKind::terminate()).expect("signals can be heard");
    tokio::select! {
        _ = tokio::signal::ctrl_c() => 130,
        _ = terminate.recv() => 143,
    }
}

async fn all(args: &Args) -> u8 {
    let seed = args
        .seed
        .unwrap_or_else(|| u64::from(uuid::Uuid::new_v4().as_fields().0));
    println!("seed {seed}");
    let only = args.only.as_deref().unwrap_or_default();
    if !fault::is_there(only) {
        println!("--only {only:?}: there is no fault of such a name");
        return 2;
    }
    let topologies: &[Topology] = match args.topology {
        Which::One => &[Topology::One],
        Which::Three => &[Topology::Three],
        Which::Both => &[Topology::One, Topology::Three],
    };
    let seconds = args.minutes * 60.0 / topologies.len() as f64;
    let mut parts = Vec::new();
    for topology in topologies {
        // A topology's schedule is the same whether or not another ran before it.
        let random = Random::stream(seed, &format!("{topology:?}"));
        parts.push(run::topology(*topology, seconds, only, random).await);
    }
    let is_well = parts.iter().all(|p| p.problems.is_empty());
    let exit = u8::from(!is_well);
    let text = report::to_text(seed, args.minutes, &parts, exit);
    println!("{text}");
    if let Some(dir) = &args.report {
        let json = report::to_json(seed, args.minutes, &parts, exit);
        std::fs::create_dir_all(dir).expect("a directory for the report");
        std::fs::write(dir.join("report.txt"), text).expect("report.txt");
        std::fs::write(dir.join("report.json"), format!("{json:#}\n")).expect("report.json");
    }
    exit
}
