//! What happened, as a table for people and as JSON.

use std::collections::BTreeMap;

use comfy_table::{Table, presets};
use serde_json::{Value, json};

use crate::checker::Findings;
use crate::ground::Topology;

/// One fault that was done.
#[derive(Clone, Debug)]
pub(crate) struct Struck {
    /// Its kind.
    pub(crate) kind: String,
    /// Longest time without a task that ended.
    pub(crate) stall_ms: u64,
    /// How long it lasted until it was undone.
    pub(crate) held_ms: u64,
}

/// One topology.
#[derive(Debug)]
pub(crate) struct Part {
    /// Which.
    pub(crate) topology: Topology,
    /// How long faults were done.
    pub(crate) seconds: f64,
    /// Version of the server.
    pub(crate) server: String,
    /// How the disk was full.
    pub(crate) disk: String,
    /// Records sent.
    pub(crate) submissions: u64,
    /// Acknowledgements.
    pub(crate) acks: usize,
    /// Acknowledged tasks.
    pub(crate) tasks: usize,
    /// Publishes repeated for want of an answer.
    pub(crate) unanswered: u64,
    /// Every fault.
    pub(crate) struck: Vec<Struck>,
    /// What the checker found.
    pub(crate) found: Findings,
    /// What became of the flipped bits.
    pub(crate) flips: Vec<Value>,
    /// Everything that must not be.
    pub(crate) problems: Vec<String>,
}

/// Of a kind: how often, longest stall, longest hold.
type Kinds = BTreeMap<String, (usize, u64, u64)>;

fn kinds<'p>(parts: impl Iterator<Item = &'p Part>) -> Kinds {
    let mut kinds = Kinds::new();
    for struck in parts.flat_map(|p| &p.struck) {
        let kind = kinds.entry(struck.kind.clone()).or_default();
        kind.0 += 1;
        kind.1 = kind.1.max(struck.stall_ms);
        kind.2 = kind.2.max(struck.held_ms);
    }
    kinds
}

impl Part {
    /// Faults done, flipped bits included.
    pub(crate) fn faults(&self) -> usize {
        self.struck.len() + self.flips.len()
    }

    /// Gaps that reading found after the last flipped bit, and those that replay named. With
    /// three nodes the others have what one lost: there are none to name.
    fn gaps(&self) -> (usize, usize) {
        let last = self.flips.last().map(|f| &f["seen"][0]);
        let is_cluster = self.topology == Topology::Three;
        let Some(seen) = last.filter(|_| !is_cluster) else {
            return (0, 0);
        };
        let end = seen["last_after"].as_u64().unwrap_or(0);
        let is_inside = |gap: &&Value| {
            let from = gap.as_str().and_then(|g| g.split('-').next()?.parse().ok());
            from.is_some_and(|from: u64| from <= end)
        };
        let found = seen["missing"].as_array().into_iter().flatten();
        let named = seen["replay"]["gaps"].as_array().map_or(0, Vec::len);
        (found.filter(is_inside).count(), named)
    }

    fn to_json(&self) -> Value {
        let (gaps_found, gaps_reported) = self.gaps();
        let kinds = kinds(std::iter::once(self));
        let kinds = kinds.into_iter().map(|(kind, (n, stall, held))| {
            (
                kind,
                json!({"count": n, "longest_stall_ms": stall, "longest_held_ms": held}),
            )
        });
        json!({
            "topology": self.topology.name(), "seconds": self.seconds, "server": self.server,
            "disk_full_by": self.disk,
            "submissions": self.submissions, "acks": self.acks, "unanswered_publishes": self.unanswered,
            "tasks": self.tasks, "ended": self.found.ended, "records": self.found.records,
            "faults": self.faults(), "faults_by_kind": kinds.collect::<serde_json::Map<_, _>>(),
            "executions": self.found.executions,
            "attempts_executed_more_than_once": self.found.attempts_twice,
            "tasks_executed_more_often_than_asked": self.found.tasks_again,
            "results_counted_more_than_once": self.found.counted_twice,
            "lost": self.found.lost, "duplicates_by_id": self.found.duplicates,
            "void": self.found.void, "digest": self.found.digest,
            "gaps_found": gaps_found, "gaps_reported": gaps_reported,
            "flipped_bits": self.flips, "problems": self.problems,
        })
    }
}

/// A flipped bit and what was said of it, for people.
pub(crate) fn flip_lines(flip: &Value) -> Vec<String> {
    let list = |v: &Value| match v.as_array() {
        Some(all) if !all.is_empty() => {
            let texts = all.iter().map(|t| t.to_string().replace('"', ""));
            texts.collect::<Vec<_>>().join(", ")
        }
        _ => "none".to_owned(),
    };
    let seen = flip["seen"].as_array().into_iter().flatten();
    let line = |s: &Value| {
        format!(
            "bit flipped {} ({} on n{}, led by n{}): a single reader misses {}; other content {}; replay \
             exit {}, names {}; --compare-live exit {}, {} of {} agree; doctor exit {}; \
             replicas said so {} times",
            flip["what"].as_str().unwrap_or_default(),
            flip["record"],
            flip["node"],
            s["leader"],
            list(&s["missing"]),
            list(&s["changed"]),
            s["replay"]["exit"],
            list(&s["replay"]["gaps"]),
            s["compare_live"]["exit"],
            s["compare_live"]["agree"],
            s["compare_live"]["answers"],
            s["doctor"]["exit"],
            s["replicas_said_so"],
        )
    };
    seen.map(line).collect()
}

/// The whole report as JSON.
pub(crate) fn to_json(seed: u64, minutes: f64, parts: &[Part], exit: u8) -> Value {
    json!({
        "seed": seed, "minutes": minutes, "exit_code": exit,
        "faults": parts.iter().map(Part::faults).sum::<usize>(),
        "lost": parts.iter().map(|p| p.found.lost).sum::<usize>(),
        "results_counted_more_than_once": parts.iter().map(|p| p.found.counted_twice).sum::<usize>(),
        "topologies": parts.iter().map(Part::to_json).collect::<Vec<_>>(),
    })
}

/// The whole report for people.
pub(crate) fn to_text(seed: u64, minutes: f64, parts: &[Part], exit: u8) -> String {
    let mut table = Table::new();
    table.load_style(presets::UTF8_BORDERS_ONLY);
    let mut header = vec![String::new()];
    header.extend(parts.iter().map(|p| p.topology.name().to_owned()));
    table.set_header(header);
    let mut row = |name: &str, of: &dyn Fn(&Part) -> String| {
        let mut cells = vec![name.to_owned()];
        cells.extend(parts.iter().map(of));
        table.add_row(cells);
    };
    row("nats-server", &|p| p.server.clone());
    row("seconds of faults", &|p| format!("{:.0}", p.seconds));
    row("submissions", &|p| p.submissions.to_string());
    row("acks", &|p| p.acks.to_string());
    row("publishes repeated for want of an answer", &|p| {
        p.unanswered.to_string()
    });
    row("tasks acknowledged", &|p| p.tasks.to_string());
    row("tasks ended", &|p| p.found.ended.to_string());
    row("records in the log", &|p| p.found.records.to_string());
    row("faults", &|p| p.faults().to_string());
    row("executions", &|p| p.found.executions.to_string());
    row("attempts executed more than once (allowed)", &|p| {
        p.found.attempts_twice.to_string()
    });
    row("tasks executed more often than asked (allowed)", &|p| {
        p.found.tasks_again.to_string()
    });
    row("results counted more than once", &|p| {
        p.found.counted_twice.to_string()
    });
    row("lost", &|p| p.found.lost.to_string());
    row("gaps after flipped bits, of them reported", &|p| {
        let (found, reported) = p.gaps();
        format!("{found}, {reported}")
    });
    let mut faults = Table::new();
    faults.load_style(presets::UTF8_BORDERS_ONLY);
    let mut header = vec!["fault".to_owned()];
    for part in parts {
        let name = part.topology.name();
        header.extend([
            format!("{name}: times"),
            "held at most".into(),
            "longest stall".into(),
        ]);
    }
    faults.set_header(header);
    let of_parts: Vec<Kinds> = parts.iter().map(|p| kinds(std::iter::once(p))).collect();
    for kind in kinds(parts.iter()).keys() {
        let mut cells = vec![kind.clone()];
        for of_part in &of_parts {
            match of_part.get(kind) {
                Some((n, stall, held)) => {
                    cells.extend([n.to_string(), seconds(*held), seconds(*stall)]);
                }
                None => cells.extend(["-".into(), "-".into(), "-".into()]),
            }
        }
        faults.add_row(cells);
    }
    let mut text = format!("seed {seed}, {minutes} minutes\n{table}\n{faults}\n");
    for part in parts {
        text += &format!("{}: disk full by {}\n", part.topology.name(), part.disk);
        for line in part.flips.iter().flat_map(flip_lines) {
            text += &format!("{}: {line}\n", part.topology.name());
        }
        for problem in &part.problems {
            text += &format!("{}: WRONG: {problem}\n", part.topology.name());
        }
    }
    text + &format!("exit code {exit}\n")
}

fn seconds(ms: u64) -> String {
    format!("{:.1} s", ms as f64 / 1_000.0)
}
