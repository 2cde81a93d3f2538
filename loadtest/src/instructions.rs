//! Instructions that the rules take for a task, counted by valgrind: what no noise moves.
//!
//! Each operation is run on the same log of no-op tasks, once few and once more times in a
//! process of its own; the difference is its cost. The counts are kept in a file, and a
//! change that makes one of them worse by more than the tolerance is refused.

use std::fmt::Write as _;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::process::Command;

use conductor_domain::decide::{self, Input};
use conductor_domain::record::{Content, Decoded};
use conductor_domain::{Record, State, fold, plan, record};
use conductor_protocol::{CellId, Event};

use crate::outcome::{Outcome, say};
use crate::pipeline;

/// By how much a count may grow, in percent. The compiler and all crates are pinned; but the same
/// code was seen to take up to 17 % more where the compiler inlined otherwise because something
/// else had changed.
const TOLERANCE_PERCENT: f64 = 20.0;
/// Tasks of the log.
const TASKS: u64 = 2_000;
/// How often an operation is run in the first process; in the second twice as often.
const TIMES: u64 = 2;

/// How to count.
#[derive(Debug, clap::Args)]
pub(crate) struct InstructionsArgs {
    /// The counts to compare with
    #[arg(long, default_value = "loadtest/instructions.txt")]
    file: PathBuf,
    /// Write the counts instead of comparing them
    #[arg(long)]
    update: bool,
}

/// One operation, in a process that valgrind watches.
#[derive(Debug, clap::Args)]
pub(crate) struct OperationArgs {
    name: String,
    times: u64,
}

/// What operations are run on.
struct Prepared {
    cell: CellId,
    records: Vec<Record>,
    decoded: Vec<Decoded>,
    events: Vec<Event>,
    /// Submissions that are not decided yet.
    submitted: State,
    /// Tasks that are ready, and agents that are free.
    ready: State,
}

type Operation = fn(&Prepared);

const OPERATIONS: [(&str, Operation); 5] = [
    ("encode", |p| {
        let mut out = Vec::new();
        for event in &p.events {
            out.clear();
            event.encode_into(&mut out);
            black_box(&out);
        }
    }),
    ("decode", |p| {
        for r in &p.records {
            black_box(record::decode(&p.cell, r));
        }
    }),
    ("fold", |p| {
        let mut state = State::new(p.cell.clone());
        for d in &p.decoded {
            black_box(fold::apply(&mut state, d));
        }
    }),
    ("decide", |p| {
        let input = Input {
            now_ms: p.submitted.time_ms,
            silent_agents: &[],
            silent_leases: &[],
            events_max: usize::MAX,
        };
        let mut overlay = decide::Overlay::default();
        black_box(decide::decide(&p.submitted, &mut overlay, input, &mut || 0));
    }),
    ("plan", |p| {
        let bounds = plan::Bounds {
            assignments: usize::MAX,
            now_ms: p.ready.time_ms,
            agents: 16,
        };
        let mut overlay = plan::Overlay::default();
        black_box(plan::plan(&p.ready, &mut overlay, bounds));
    }),
];

/// Runs one operation so many times.
pub(crate) fn operation(args: &OperationArgs) -> Outcome<()> {
    let found = OPERATIONS.iter().find(|(name, _)| *name == args.name);
    let (_, operation) = found.ok_or_else(|| format!("there is no operation {}", args.name))?;
    let prepared = prepare();
    for _ in 0..args.times {
        operation(&prepared);
    }
    Ok(())
}

fn prepare() -> Prepared {
    let cell = CellId::default();
    let records = pipeline::log_of(TASKS);
    let decoded: Vec<Decoded> = records.iter().map(|r| record::decode(&cell, r)).collect();
    let (mut submitted, mut ready) = (State::new(cell.clone()), State::new(cell.clone()));
    for d in &decoded {
        // Everything but the decisions that would end the waiting.
        let is_assigned = |e: &Event| matches!(e, Event::AttemptAssigned(_));
        let is_accepted = |e: &Event| matches!(e, Event::TaskAccepted(_));
        if !any_event(d, is_accepted) && !any_event(d, is_assigned) {
            fold::apply(&mut submitted, d);
        }
        if !any_event(d, is_assigned) {
            fold::apply(&mut ready, d);
        }
    }
    let events = decoded.iter().flat_map(events_of).cloned().collect();
    Prepared {
        cell,
        records,
        decoded,
        events,
        submitted,
        ready,
    }
}

fn events_of(decoded: &Decoded) -> impl Iterator<Item = &Event> {
    let items = match &decoded.content {
        Content::Leader { items, .. }
        | Content::Agent { items, .. }
        | Content::Election { items, .. } => items.as_slice(),
        _ => &[],
    };
    items.iter().filter_map(|item| item.as_ref().ok())
}

fn any_event(decoded: &Decoded, is: impl Fn(&Event) -> bool) -> bool {
    events_of(decoded).any(is)
}

/// The command.
pub(crate) fn main(args: &InstructionsArgs) -> Outcome<()> {
    let mut counts = Vec::new();
    for (name, _) in OPERATIONS {
        let (few, more) = (count(name, TIMES)?, count(name, 2 * TIMES)?);
        let each = more.saturating_sub(few) / (TIMES * TASKS);
        counts.push((name.to_owned(), each));
    }
    if args.update {
        let mut text = String::new();
        for (name, each) in &counts {
            let _ = writeln!(text, "{name} {each}");
        }
        std::fs::write(&args.file, text)?;
        say(&format!("wrote {}", args.file.display()));
        return Ok(());
    }
    let kept = std::fs::read_to_string(&args.file)
        .map_err(|e| format!("cannot read {}: {e}", args.file.display()))?;
    let (table, is_worse) = compare(&kept, &counts);
    say(&table);
    if is_worse {
        return Err(format!(
            "more instructions than {TOLERANCE_PERCENT} % above {}; where that is meant, \
             write the new counts with --update and say why",
            args.file.display()
        )
        .into());
    }
    Ok(())
}

/// The counts beside those that were kept, and whether one is worse than it may be.
fn compare(kept: &str, counts: &[(String, u64)]) -> (String, bool) {
    let mut table = String::from("instructions a task, of all its events\n");
    let mut is_worse = false;
    for (name, each) in counts {
        let before = kept.lines().find_map(|line| {
            let (known, count) = line.split_once(' ')?;
            count.parse::<u64>().ok().filter(|_| known == name)
        });
        let change = before.map(|before| (*each as f64 / before as f64 - 1.0) * 100.0);
        let verdict = match change {
            Some(percent) if percent <= TOLERANCE_PERCENT => "ok",
            Some(_) => "WORSE",
            None => "NOT KEPT",
        };
        is_worse |= verdict != "ok";
        let (before, change) = (before.unwrap_or_default(), change.unwrap_or_default());
        let _ = writeln!(
            table,
            "  {name:8} {each:>8}  kept {before:>8}  {change:+6.1} %  {verdict}"
        );
    }
    (table, is_worse)
}

/// All instructions of a process that runs an operation so many times.
fn count(name: &str, times: u64) -> Outcome<u64> {
    let program = std::env::current_exe()?;
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(Path::new(&program))
        .args(["operation", name, &times.to_string()])
        .output()
        .map_err(|e| format!("cannot run valgrind: {e}; install it (apt-get install valgrind)"))?;
    let text = String::from_utf8_lossy(&output.stderr);
    let line = text.lines().find_map(|l| l.split_once("Collected : "));
    let collected = line.and_then(|(_, count)| count.trim().parse().ok());
    collected.ok_or_else(|| format!("valgrind says no count:\n{text}").into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_worse_than_the_tolerance_is_refused() {
        let counts = |each| vec![("fold".to_owned(), each)];
        assert!(!compare("fold 1000\n", &counts(1_190)).1);
        assert!(!compare("fold 1000\n", &counts(500)).1);
        assert!(compare("fold 1000\n", &counts(1_210)).1);
        assert!(compare("plan 1000\n", &counts(1_000)).1, "not kept");
    }
}
