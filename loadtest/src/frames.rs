//! How many events share a record, and how large records are, by their writer.

use std::collections::BTreeMap;

use conductor_eventlog::EventLog;
use conductor_protocol::frame::{self, Encoding};
use conductor_protocol::subject::Subject;
use serde::{Deserialize, Serialize};

use crate::nats;
use crate::outcome::Outcome;
use crate::plan::Target;

/// How many of the last records are looked at.
const LOOKED_AT: u64 = 5_000;

/// The records of one kind of writer.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Frames {
    /// `submit`, `orchestrator`, `scheduler`, `agent`.
    pub(crate) writer: String,
    /// How many records.
    pub(crate) records: usize,
    /// Events of a record: half had at most so many.
    pub(crate) events_p50: usize,
    /// 99 of 100.
    pub(crate) events_p99: usize,
    /// The most.
    pub(crate) events_max: usize,
    /// Bytes of a record: half had at most so many.
    pub(crate) bytes_p50: usize,
    /// The most.
    pub(crate) bytes_max: usize,
}

/// Looks at the last records of the log.
pub(crate) fn read(target: &Target) -> Outcome<Vec<Frames>> {
    nats::with(target, async |log| {
        let last = log.last_seq().await?;
        let mut next = last.saturating_sub(LOOKED_AT).max(1);
        let mut sizes: BTreeMap<&str, Vec<(usize, usize)>> = BTreeMap::new();
        let mut tail = log.tail(next, Vec::new()).await?;
        while next <= last {
            for record in tail.next().await?.records {
                next = record.seq + 1;
                let (writer, events) = match Subject::parse(log.cell(), &record.subject) {
                    Some(Subject::Submit(_) | Subject::SubmitIn(..)) => {
                        ("submit", submissions(&record.payload))
                    }
                    Some(Subject::Orchestrator) => ("orchestrator", ours(&record.payload)),
                    Some(Subject::Scheduler(_)) => ("scheduler", ours(&record.payload)),
                    Some(Subject::Agent(_)) => ("agent", ours(&record.payload)),
                    _ => continue,
                };
                let sizes = sizes.entry(writer).or_default();
                sizes.push((events, record.payload.len()));
            }
        }
        let all = sizes.into_iter();
        Ok(all.map(|(writer, sizes)| frames(writer, &sizes)).collect())
    })
}

fn ours(payload: &[u8]) -> usize {
    frame::split(payload).map_or(0, |f| f.events.len())
}

fn submissions(payload: &[u8]) -> usize {
    let encoding = Encoding::of(None, payload);
    frame::split_public(encoding, payload).map_or(0, |e| e.len())
}

fn frames(writer: &str, sizes: &[(usize, usize)]) -> Frames {
    let mut events: Vec<usize> = sizes.iter().map(|s| s.0).collect();
    let mut bytes: Vec<usize> = sizes.iter().map(|s| s.1).collect();
    events.sort_unstable();
    bytes.sort_unstable();
    Frames {
        writer: writer.to_owned(),
        records: sizes.len(),
        events_p50: quantile(&events, 0.5),
        events_p99: quantile(&events, 0.99),
        events_max: quantile(&events, 1.0),
        bytes_p50: quantile(&bytes, 0.5),
        bytes_max: quantile(&bytes, 1.0),
    }
}

/// The value that so large a part of the sorted values is not above.
fn quantile(sorted: &[usize], part: f64) -> usize {
    let rank = (sorted.len() as f64 * part).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_values_that_were_there() {
        let values: Vec<usize> = (1..=100).collect();
        assert_eq!(quantile(&values, 0.5), 50);
        assert_eq!(quantile(&values, 0.99), 99);
        assert_eq!(quantile(&values, 1.0), 100);
        assert_eq!(quantile(&[], 0.5), 0);
    }
}
