//! One topology: start, load, faults, checks.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use conductor_eventlog::jetstream::Connection;
use conductor_harness::System;
use conductor_harness::process::{self, Ran};

use crate::checker::{self, Findings};
use crate::fault::{Fault, Planned, Schedule};
use crate::field::Field;
use crate::ground::Topology;
use crate::load::Load;
use crate::report::{Part, Struck};
use crate::watcher::Watcher;
use crate::{flip, now_ms, strike};
use conductor_simulation::random::Random;

/// How long after a fault was undone a task that was submitted since may take to end.
const STALL_MAX: Duration = Duration::from_secs(60);
/// How long everything may take to end when the faults are over.
const SETTLE_MAX: Duration = Duration::from_secs(120);
/// How long a command of the CLI may take.
const CLI_MAX: Duration = Duration::from_secs(45);
/// How often it is looked at.
const POLL: Duration = Duration::from_millis(20);

/// What is needed all along.
pub(crate) struct Scene {
    /// Servers and processes.
    pub(crate) field: Field,
    /// A connection past all links.
    pub(crate) connection: Arc<Connection>,
    /// The side effects.
    pub(crate) effects: PathBuf,
    watcher: Arc<Watcher>,
    load: Load,
    problems: Vec<String>,
}

/// Runs one topology for so long.
pub(crate) async fn topology(
    topology: Topology,
    seconds: f64,
    only: &str,
    mut random: Random,
) -> Part {
    let field = Field::start(topology).await;
    println!(
        "{}: {} processes, {}",
        topology.name(),
        Field::processes().len(),
        field.ground.urls()
    );
    if let Some(why) = &field.ground.disk.fallback {
        println!("the disk is no file system of its own: {why}");
    }
    let system = System::at(field.ground.urls()).await;
    system.wait_ready(3).await;
    let connection = Arc::clone(&system.connection);
    let watcher = Arc::new(Watcher::start(&connection));
    let effects = field.dir.path().join("effects");
    let urls = field.urls(crate::field::CLIENT);
    let load = Load::start(urls, &effects, &watcher, &mut random).await;
    let mut scene = Scene {
        field,
        connection,
        effects,
        watcher,
        load,
        problems: Vec::new(),
    };
    let started = Instant::now();
    let mut struck = Vec::new();
    let _ = scene.progress(now_ms()).await;
    let schedule = Schedule::new(topology, random.fork());
    for planned in schedule.filter(|p| p.fault.name().contains(only)) {
        if started.elapsed().as_secs_f64() >= seconds || !scene.problems.is_empty() {
            break;
        }
        let (after, seconds_in) = (planned.pause_ms, started.elapsed().as_secs_f64());
        tokio::time::sleep(Duration::from_millis(after)).await;
        let done = scene.strike(planned).await;
        let (kind, stall, held) = (&done.0.kind, done.0.stall_ms, done.0.held_ms);
        println!(
            "{seconds_in:7.1} s  {kind} ({}): held {held} ms, stall {stall} ms",
            done.1
        );
        struck.push(done.0);
    }
    let seconds = started.elapsed().as_secs_f64();
    let (found, flips) = scene.finish(topology, &mut random).await;
    if !scene.problems.is_empty() {
        println!("{}", scene.field.last_words());
    }
    let disk = scene.field.ground.disk.method();
    let server = scene.connection.server_version();
    let problems = std::mem::take(&mut scene.problems);
    scene.load.look(|book| Part {
        topology,
        seconds,
        server,
        disk,
        submissions: book.submissions,
        acks: book.acks.len(),
        tasks: book.tasks.len(),
        unanswered: book.unanswered,
        struck,
        found,
        flips,
        problems,
    })
}

impl Scene {
    /// Does a fault and waits until the system has made progress again.
    async fn strike(&mut self, planned: Planned) -> (Struck, String) {
        let (from, at) = (now_ms(), Instant::now());
        let who = strike::strike(&mut self.field, planned, &self.connection).await;
        let held_ms = at.elapsed().as_millis() as u64;
        let kind = planned.fault.name();
        if let Err(missing) = self.progress(now_ms()).await {
            self.problems
                .push(format!("no progress after {kind} ({who}): {missing}"));
        }
        let stall_ms = self.watcher.look(|s| s.longest_stall(from, now_ms()));
        if planned.fault == Fault::LoseStreams {
            self.streams_are_back(&kind).await;
        }
        let struck = Struck {
            kind,
            stall_ms,
            held_ms,
        };
        (struck, who)
    }

    /// Waits until a task that was acknowledged after `since_ms` has ended.
    async fn progress(&self, since_ms: u64) -> Result<(), String> {
        let deadline = Instant::now() + STALL_MAX;
        loop {
            let fresh: Vec<_> = self.load.look(|book| {
                let fresh = book.by_time.iter().rev();
                let fresh = fresh.take_while(|(at, _)| *at >= since_ms);
                fresh.map(|(_, task)| *task).collect()
            });
            if self
                .watcher
                .look(|s| fresh.iter().any(|t| s.ended.contains(t)))
            {
                return Ok(());
            }
            if Instant::now() >= deadline {
                let seq = self.watcher.look(|s| s.seq);
                return Err(format!(
                    "within {STALL_MAX:?}, {} tasks acknowledged meanwhile, log read up to {seq}",
                    fresh.len()
                ));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    async fn streams_are_back(&mut self, kind: &str) {
        let deadline = Instant::now() + STALL_MAX;
        loop {
            let missing = strike::missing_streams(&self.field).await;
            if missing.is_empty() {
                return;
            }
            if Instant::now() >= deadline {
                self.problems
                    .push(format!("{kind}: {missing:?} were not made again"));
                return;
            }
            tokio::time::sleep(POLL * 10).await;
        }
    }

    /// Lets everything end, and checks.
    async fn finish(
        &mut self,
        topology: Topology,
        random: &mut Random,
    ) -> (Findings, Vec<serde_json::Value>) {
        self.load.stop().await;
        let deadline = Instant::now() + SETTLE_MAX;
        let open = loop {
            let ended = self.watcher.look(|s| s.ended.clone());
            let open = self.load.look(|book| checker::open(book, &ended));
            if open == 0 || Instant::now() >= deadline {
                break open;
            }
            tokio::time::sleep(POLL * 5).await;
        };
        if open > 0 {
            self.problems
                .push(format!("{open} tasks have not ended within {SETTLE_MAX:?}"));
        }
        let log = match checker::read_log(&self.connection).await {
            Ok(log) => log,
            Err(e) => {
                self.problems.push(format!("the log cannot be read: {e}"));
                return (Findings::default(), Vec::new());
            }
        };
        let last = log.last_key_value().map_or(0, |(seq, _)| *seq);
        let mut found = self
            .load
            .look(|book| checker::check(&log, book, &self.effects));
        for (from, to) in checker::gaps(&log, last) {
            found
                .problems
                .push(format!("records {from}-{to} are not there"));
        }
        self.problems.append(&mut found.problems);
        self.check_replay(&found.digest, last).await;
        if !self.problems.is_empty() {
            return (found, Vec::new());
        }
        let (flips, problems) = flip::flips(self, topology, random).await;
        self.problems.extend(problems);
        (found, flips)
    }

    /// Replay says what the checker found, and what live replicas hold.
    async fn check_replay(&mut self, digest: &str, last: u64) {
        let replay = self
            .cli(&["replay", "-o", "json", "--as-of", &last.to_string()])
            .await;
        let report: serde_json::Value = serde_json::from_str(&replay.stdout).unwrap_or_default();
        let is_well = replay.code == 0
            && report["digest"] == digest
            && report["gaps"] == serde_json::json!([]);
        if !is_well {
            let (code, theirs) = (replay.code, &report["digest"]);
            self.problems.push(format!(
                "replay: exit {code}, digest {theirs}, not {digest}; {}",
                replay.stderr
            ));
        }
        let live = self.cli(&["replay", "--compare-live", "-o", "json"]).await;
        let report: serde_json::Value = serde_json::from_str(&live.stdout).unwrap_or_default();
        let answers = report["live"].as_array().map_or(0, Vec::len);
        if live.code != 0 || answers != 4 {
            self.problems.push(format!(
                "replay --compare-live: exit {}, {answers} of 4 answers: {} {}",
                live.code, report["live"], live.stderr
            ));
        }
    }

    /// Waits until some replica says more of losses than before.
    pub(crate) async fn says_end_is_lost(&self, before: usize) -> bool {
        let deadline = Instant::now() + STALL_MAX;
        while flip::said_end_is_lost(&self.field) <= before {
            if Instant::now() >= deadline {
                return false;
            }
            tokio::time::sleep(POLL * 10).await;
        }
        true
    }

    /// Runs a command of the CLI, past all links.
    pub(crate) async fn cli(&self, args: &[&str]) -> Ran {
        let mut all = vec!["--nats-url".to_owned(), self.field.ground.urls()];
        all.extend(args.iter().map(|a| (*a).to_owned()));
        let ran = tokio::time::timeout(CLI_MAX, process::run(&all, &[], b"")).await;
        ran.unwrap_or_else(|_| Ran {
            code: -1,
            stdout: String::new(),
            stderr: format!("{args:?} did not end within {CLI_MAX:?}"),
        })
    }
}
