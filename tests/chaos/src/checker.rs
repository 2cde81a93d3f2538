//! Reads the log and the side effects afterwards, by itself, and finds what is wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use conductor_domain::state::Outcome;
use conductor_domain::{Record, State, fold, record};
use conductor_eventlog::EventLog;
use conductor_eventlog::jetstream::Connection;
use conductor_harness::system::cell;
use conductor_protocol::event::Event;
use conductor_protocol::{Lease, Position, TaskId};

use crate::events;
use crate::load::{Book, Expect, digest};

/// How long the log may be silent before what is missing counts as missing.
const SILENCE: Duration = Duration::from_secs(10);

/// The log as it is: each record by its sequence.
pub(crate) async fn read_log(connection: &Connection) -> Result<BTreeMap<u64, Record>, String> {
    let mut log = BTreeMap::new();
    let last = connection.last_seq().await.map_err(|e| e.to_string())?;
    let tail = connection.tail(1, Vec::new()).await;
    let mut tail = tail.map_err(|e| e.to_string())?;
    while log.last_key_value().is_none_or(|(seq, _)| *seq < last) {
        match tokio::time::timeout(SILENCE, tail.next()).await {
            Ok(Ok(batch)) => log.extend(batch.records.into_iter().map(|r| (r.seq, r))),
            Ok(Err(e)) => return Err(e.to_string()),
            // What should come does not.
            Err(_) => break,
        }
    }
    Ok(log)
}

/// The log as it is on all servers together: what one left out is asked for by itself.
pub(crate) async fn read_whole_log(
    connection: &Connection,
) -> Result<BTreeMap<u64, Record>, String> {
    let mut log = read_log(connection).await?;
    let last = connection.last_seq().await.map_err(|e| e.to_string())?;
    for (from, to) in gaps(&log, last) {
        for seq in from..=to {
            let record = connection.read(seq).await.map_err(|e| e.to_string())?;
            log.extend(record.map(|r| (seq, r)));
        }
    }
    Ok(log)
}

/// Sequences up to `last` that are not there, as ranges.
pub(crate) fn gaps(log: &BTreeMap<u64, Record>, last: u64) -> Vec<(u64, u64)> {
    let mut gaps = Vec::new();
    let mut next = 1;
    for seq in log.keys().copied().chain([last + 1]) {
        if seq > next {
            gaps.push((next, seq - 1));
        }
        next = seq + 1;
    }
    gaps
}

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    /// Acknowledged tasks that ended.
    pub(crate) ended: usize,
    /// Acknowledged records or tasks that are not there.
    pub(crate) lost: usize,
    /// Tasks whose result was counted more than once.
    pub(crate) counted_twice: usize,
    /// Attempts that ran more than once.
    pub(crate) attempts_twice: usize,
    /// Tasks that ran more often than their own policy asks for.
    pub(crate) tasks_again: usize,
    /// Lines in the file of side effects.
    pub(crate) executions: usize,
    /// Submissions that were there already.
    pub(crate) duplicates: u64,
    /// Events without effect, by reason.
    pub(crate) void: BTreeMap<String, u64>,
    /// Records in the log.
    pub(crate) records: usize,
    /// The state's digest after the last record.
    pub(crate) digest: String,
    /// Everything that must not be.
    pub(crate) problems: Vec<String>,
}

/// A task as the log tells of it.
#[derive(Debug, Default)]
struct Told {
    accepted: usize,
    ends: usize,
    succeeded: usize,
    counted: Option<u32>,
    lease: Option<(u32, Position)>,
}

/// Checks a log without gaps against the book and the side effects.
pub(crate) fn check(log: &BTreeMap<u64, Record>, book: &Book, effects: &Path) -> Findings {
    let mut found = Findings {
        records: log.len(),
        ..Findings::default()
    };
    check_acks(log, book, &mut found);
    let mut state = State::new(cell());
    let mut told: BTreeMap<TaskId, Told> = BTreeMap::new();
    let mut handed_out: BTreeMap<(TaskId, u32), usize> = BTreeMap::new();
    for record in log.values() {
        let decoded = record::decode(&cell(), record);
        let folded = fold::apply(&mut state, &decoded);
        for attempt in events::handed_out(&decoded) {
            *handed_out.entry(attempt).or_default() += 1;
        }
        for (index, event) in events::applied(&decoded, &folded) {
            note(
                &mut told,
                Position::new(record.seq, index),
                event,
                &mut found,
            );
        }
    }
    found.digest = state.digest().to_string();
    found.duplicates = state.counters.duplicates;
    let void = state.counters.void.iter();
    found.void = void.map(|(reason, n)| (reason.to_string(), *n)).collect();
    let lines = read_effects(effects, &mut found);
    check_runs(&lines, &handed_out, &mut found);
    for (task, sent) in &book.tasks {
        let told = told.remove(task).unwrap_or_default();
        let outcome = state.outcome_of(*task);
        let of_task = lines.range((*task, 0)..=(*task, u32::MAX));
        let runs: usize = of_task.clone().map(|(_, n)| n).sum();
        found.tasks_again += usize::from(runs > sent.wants);
        found.attempts_twice += of_task.filter(|(_, n)| **n > 1).count();
        if told.accepted == 0 || told.ends == 0 {
            found.lost += 1;
            found.problems.push(format!(
                "{task} was acknowledged: accepted {} times, ended {} times",
                told.accepted, told.ends
            ));
            continue;
        }
        found.ended += 1;
        if told.accepted > 1 || told.ends > 1 || told.succeeded > 1 {
            found.counted_twice += 1;
            found
                .problems
                .push(format!("{task} counted twice: {told:?}"));
        }
        let is_as_expected = match sent.expect {
            Expect::Success => outcome == Some(Outcome::Succeeded),
            Expect::Failure => outcome == Some(Outcome::Failed),
            Expect::Either => {
                matches!(outcome, Some(Outcome::Succeeded | Outcome::Cancelled))
            }
        };
        if !is_as_expected {
            found.problems.push(format!(
                "{task} should end as {:?}, and ended as {outcome:?}",
                sent.expect
            ));
        }
        if let Some(attempt) = told.counted.filter(|a| !lines.contains_key(&(*task, *a))) {
            found.problems.push(format!(
                "{task}: attempt {attempt} counts as succeeded and never ran"
            ));
        }
    }
    for (task, told) in told.iter().filter(|(_, t)| t.accepted > 0) {
        found
            .problems
            .push(format!("{task} was never submitted: {told:?}"));
    }
    found
}

/// No attempt ran more often than it was handed out.
fn check_runs(
    lines: &BTreeMap<(TaskId, u32), usize>,
    handed_out: &BTreeMap<(TaskId, u32), usize>,
    found: &mut Findings,
) {
    for (attempt, runs) in lines {
        let times = handed_out.get(attempt).copied().unwrap_or(0);
        if *runs > times {
            let (task, n) = attempt;
            found.problems.push(format!(
                "{task}: attempt {n} was handed out {times} times and ran {runs} times"
            ));
        }
    }
}

/// Every acknowledged publish is at its sequence, as it was sent.
fn check_acks(log: &BTreeMap<u64, Record>, book: &Book, found: &mut Findings) {
    for ack in &book.acks {
        let is_there = log
            .get(&ack.seq)
            .is_some_and(|r| r.subject == ack.subject && digest(&r.payload) == ack.digest);
        if !is_there {
            found.lost += 1;
            let what = log.get(&ack.seq).map(|r| r.subject.clone());
            found.problems.push(format!(
                "what was acknowledged as {} is not there, but {what:?}",
                ack.seq
            ));
        }
    }
    found.problems.extend(
        book.refusals
            .iter()
            .map(|r| format!("a publish was refused: {r}")),
    );
}

/// Follows leases by itself: a report must be about the lease in force.
fn note(told: &mut BTreeMap<TaskId, Told>, at: Position, event: &Event, found: &mut Findings) {
    let mut report = |told: &mut BTreeMap<TaskId, Told>, lease: &Lease| {
        let task = told.entry(lease.task).or_default();
        if task.lease.take() != Some((lease.attempt, lease.assigned)) {
            found.counted_twice += 1;
            found.problems.push(format!(
                "a report at {at:?} counted under {lease:?}, not the lease in force"
            ));
        }
    };
    match event {
        Event::TaskAccepted(e) => told.entry(e.task).or_default().accepted += 1,
        Event::AttemptAssigned(e) => {
            told.entry(e.task).or_default().lease = Some((e.attempt, at));
        }
        Event::AttemptSucceeded(e) => {
            report(told, &e.lease);
            let task = told.entry(e.lease.task).or_default();
            task.succeeded += 1;
            task.counted = Some(e.lease.attempt);
        }
        Event::AttemptFailed(e) => report(told, &e.lease),
        _ => {}
    }
    if let Some(task) = events::ends(event) {
        told.entry(task).or_default().ends += 1;
    }
}

/// How often each attempt ran.
fn read_effects(path: &Path, found: &mut Findings) -> BTreeMap<(TaskId, u32), usize> {
    let mut lines = BTreeMap::new();
    for line in std::fs::read_to_string(path).unwrap_or_default().lines() {
        let parsed = line
            .split_once(' ')
            .and_then(|(task, n)| Some((task.parse().ok()?, n.parse().ok()?)));
        found.executions += 1;
        match parsed {
            Some(key) => *lines.entry(key).or_default() += 1,
            None => found
                .problems
                .push(format!("a side effect that is none: {line:?}")),
        }
    }
    lines
}

/// Tasks of the book that have not ended yet.
pub(crate) fn open(book: &Book, ended: &BTreeSet<TaskId>) -> usize {
    book.tasks.keys().filter(|t| !ended.contains(t)).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::{Ack, Sent};
    use conductor_protocol::event::{AttemptAssigned, AttemptSucceeded, OutputStats};

    fn record(seq: u64) -> Record {
        Record {
            seq,
            time_ms: seq,
            subject: "conductor.local.control".to_owned(),
            content_type: None,
            reply: None,
            traceparent: None,
            payload: seq.to_string().into_bytes().into(),
        }
    }

    #[test]
    fn what_was_acknowledged_and_is_not_there_is_lost() {
        let log: BTreeMap<u64, Record> = [1, 2, 4].map(|seq| (seq, record(seq))).into();
        assert_eq!(gaps(&log, 6), [(3, 3), (5, 6)]);
        let ack = |seq, payload: &str| Ack {
            seq,
            digest: digest(payload.as_bytes()),
            subject: "conductor.local.control",
        };
        let mut book = Book {
            acks: vec![ack(1, "1"), ack(2, "other"), ack(3, "3")],
            ..Book::default()
        };
        let sent = Sent {
            expect: Expect::Success,
            wants: 1,
        };
        book.tasks.insert(conductor_harness::system::new_id(), sent);
        let found = check(&log, &book, Path::new("/nowhere"));
        assert_eq!((found.lost, found.problems.len()), (3, 3), "{found:?}");
    }

    #[test]
    fn a_result_that_counts_twice_or_under_an_old_lease_is_found() {
        let task = conductor_harness::system::new_id();
        let assigned = |attempt| {
            Event::from(AttemptAssigned {
                task,
                attempt,
                incarnation: 1,
                slots: 1,
                run: serde_json::from_str("{\"noop\":{}}").unwrap(),
                timeouts: conductor_protocol::compact::Rare::default(),
                queue: "default".parse().unwrap(),
                namespace: conductor_protocol::Namespace::default(),
                name: None,
                metadata: conductor_protocol::compact::Pairs::default(),
                traceparent: None,
                terms: None,
                before: None,
                inputs: Vec::new(),
            })
        };
        let succeeded = |attempt, seq| {
            Event::from(AttemptSucceeded {
                lease: Lease {
                    task,
                    attempt,
                    assigned: Position::new(seq, 0),
                },
                result: None,
                exit_code: None,
                usage: None,
                output: None::<OutputStats>,
            })
        };
        let counted_twice = |story: &[(u64, Event)]| {
            let (mut told, mut found) = (BTreeMap::new(), Findings::default());
            for (seq, event) in story {
                note(&mut told, Position::new(*seq, 0), event, &mut found);
            }
            found.counted_twice
        };
        assert_eq!(counted_twice(&[(1, assigned(1)), (2, succeeded(1, 1))]), 0);
        let twice = [(1, assigned(1)), (2, succeeded(1, 1)), (3, succeeded(1, 1))];
        assert_eq!(counted_twice(&twice), 1);
        let old = [(1, assigned(1)), (2, assigned(2)), (3, succeeded(1, 1))];
        assert_eq!(counted_twice(&old), 1);
    }
}
