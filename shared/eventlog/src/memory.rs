//! A log in memory, for simulation: the rules of the log of record, no durability, no
//! waiting. Time is an argument.

use std::collections::BTreeMap;

use conductor_domain::Record;
use conductor_protocol::UnixMs;

use crate::port::{Append, AppendError, Appended};

/// A log in memory.
#[derive(Clone, Debug, Default)]
pub struct MemoryLog {
    records: Vec<Record>,
    ids: BTreeMap<String, (u64, UnixMs)>,
    window_ms: u64,
    dedups_first: bool,
}

impl MemoryLog {
    /// An empty log that recognises a repeated append for this long, in milliseconds. Three
    /// servers look for a repetition before they look at the precondition, one looks after it
    /// (nats-facts 2).
    pub fn new(window_ms: u64, dedups_first: bool) -> Self {
        Self {
            window_ms,
            dedups_first,
            ..Self::default()
        }
    }

    /// Appends as our own writers do.
    pub fn append(&mut self, append: &Append, now_ms: UnixMs) -> Result<Appended, AppendError> {
        let stored = self.ids.get(&append.id).filter(|(_, stored_ms)| {
            // Beyond its window the log has forgotten it.
            now_ms.saturating_sub(*stored_ms) <= self.window_ms
        });
        let repeated = stored.map(|(seq, _)| Appended {
            seq: *seq,
            is_duplicate: true,
        });
        let last = self.last_on(&append.subject).map_or(0, |r| r.seq);
        let is_refused = append
            .expected_last
            .is_some_and(|expected| expected != last);
        match repeated {
            Some(repeated) if self.dedups_first || !is_refused => return Ok(repeated),
            _ if is_refused => {
                return Err(AppendError::Conflict(
                    self.last_on(&append.subject).map(|r| r.seq),
                ));
            }
            _ => {}
        }
        let seq = self.publish(
            Record {
                seq: 0,
                time_ms: 0,
                subject: append.subject.clone(),
                content_type: None,
                reply: None,
                traceparent: None,
                payload: append.payload.clone(),
            },
            now_ms,
        );
        self.ids.insert(append.id.clone(), (seq, now_ms));
        Ok(Appended {
            seq,
            is_duplicate: false,
        })
    }

    /// Stores what somebody outside published, headers included; returns its sequence.
    pub fn publish(&mut self, mut record: Record, now_ms: UnixMs) -> u64 {
        record.seq = self.last_seq() + 1;
        record.time_ms = now_ms;
        self.records.push(record);
        self.last_seq()
    }

    /// The server forgets which appends it has seen, as it may when it restarts.
    pub fn forget_ids(&mut self) {
        self.ids.clear();
    }

    /// The records from sequence `from` on.
    pub fn from(&self, from: u64) -> &[Record] {
        let start = usize::try_from(from.saturating_sub(1)).unwrap_or(usize::MAX);
        self.records.get(start..).unwrap_or_default()
    }

    /// The record at a sequence.
    pub fn read(&self, seq: u64) -> Option<&Record> {
        self.from(seq).first().filter(|r| r.seq == seq)
    }

    /// The last record on a subject.
    pub fn last_on(&self, subject: &str) -> Option<&Record> {
        self.records.iter().rev().find(|r| r.subject == subject)
    }

    /// Sequence of the last record; 0 for an empty log.
    pub fn last_seq(&self) -> u64 {
        self.records.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn append(id: &str, expected_last: Option<u64>) -> Append {
        Append {
            subject: "s".into(),
            payload: id.to_owned().into(),
            id: id.into(),
            expected_last,
        }
    }

    #[test]
    fn a_repetition_is_recognised_within_the_window_only() {
        let mut log = MemoryLog::new(100, false);
        assert_eq!(log.append(&append("a", None), 1_000).unwrap().seq, 1);
        assert!(log.append(&append("a", None), 1_100).unwrap().is_duplicate);
        assert_eq!(log.append(&append("a", None), 1_101).unwrap().seq, 2);
        log.forget_ids();
        assert_eq!(log.append(&append("a", None), 1_102).unwrap().seq, 3);
    }

    #[test]
    fn a_precondition_that_does_not_hold_stores_nothing() {
        for dedups_first in [false, true] {
            let mut log = MemoryLog::new(100, dedups_first);
            assert_eq!(log.append(&append("a", Some(0)), 1).unwrap().seq, 1);
            let again = log.append(&append("a", Some(0)), 1);
            assert_eq!(again.is_ok(), dedups_first, "{again:?}");
            let other = log.append(&append("b", Some(0)), 1);
            assert_eq!(other, Err(AppendError::Conflict(Some(1))));
            assert_eq!(log.last_seq(), 1);
            assert_eq!(log.append(&append("b", Some(1)), 1).unwrap().seq, 2);
        }
    }
}
