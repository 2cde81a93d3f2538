//! Reads the log while it grows, past all links, and notes when tasks end.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use conductor_eventlog::EventLog;
use conductor_eventlog::jetstream::Connection;
use conductor_protocol::TaskId;
use conductor_replica::{ReadFrom, Reader};

use crate::events;

/// What was seen so far.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// The server's time of each end, in milliseconds since 1970.
    pub(crate) ends: Vec<u64>,
    /// The tasks that ended.
    pub(crate) ended: BTreeSet<TaskId>,
    /// Last record seen.
    pub(crate) seq: u64,
    /// Why no more is seen, if so.
    pub(crate) problem: Option<String>,
}

impl Seen {
    /// The longest time without an end that reaches into a span of time. What passed before
    /// the span is not counted.
    pub(crate) fn longest_stall(&self, from_ms: u64, to_ms: u64) -> u64 {
        let mut at = from_ms;
        let mut longest = 0;
        let mut ends = self.ends.clone();
        ends.sort_unstable();
        for end in ends.into_iter().filter(|e| *e >= from_ms) {
            longest = longest.max(end - at);
            at = end;
            if end >= to_ms {
                return longest;
            }
        }
        longest.max(to_ms.saturating_sub(at))
    }
}

/// A reader in the background.
#[derive(Debug)]
pub(crate) struct Watcher {
    seen: Arc<Mutex<Seen>>,
    reading: tokio::task::JoinHandle<()>,
}

impl Watcher {
    /// Begins at the first record.
    pub(crate) fn start(connection: &Arc<Connection>) -> Self {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let (log, shared) = (Arc::clone(connection), Arc::clone(&seen));
        let reading = tokio::spawn(async move {
            let log = log as Arc<dyn EventLog>;
            let mut reader = Reader::open(log, ReadFrom::Genesis, 0).await;
            loop {
                let next = reader.next().await;
                let mut seen = shared.lock().unwrap_or_else(PoisonError::into_inner);
                match next {
                    Ok((record, folded)) => {
                        seen.seq = record.seq;
                        for (_, event) in events::applied(&record, &folded) {
                            if let Some(task) = events::ends(event) {
                                seen.ends.push(record.time_ms);
                                seen.ended.insert(task);
                            }
                        }
                    }
                    Err(e) => {
                        seen.problem = Some(e.to_string());
                        return;
                    }
                }
            }
        });
        Self { seen, reading }
    }

    /// Looks at what was seen.
    pub(crate) fn look<T>(&self, f: impl FnOnce(&Seen) -> T) -> T {
        f(&self.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.reading.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stall_is_the_longest_time_without_an_end_in_the_span_or_across_its_end() {
        let seen = Seen {
            ends: vec![100, 900, 400, 2_000, 2_100],
            ..Seen::default()
        };
        assert_eq!(seen.longest_stall(300, 800), 500);
        assert_eq!(seen.longest_stall(300, 950), 1_100);
        assert_eq!(seen.longest_stall(2_050, 9_000), 6_900);
    }
}
