//! Reads in the log what became of the tasks, as cheaply as it can: it shares the machine.

use std::sync::Arc;
use std::time::Duration;

use conductor_eventlog::EventLog;
use conductor_protocol::frame;
use tokio::sync::Semaphore;

use crate::book::Book;
use crate::workload::Workload;

/// Tells which numbers it has seen before.
#[derive(Debug, Default)]
struct Once {
    bits: Vec<u64>,
}

impl Once {
    /// Whether it is the first time.
    fn is_first(&mut self, number: u64) -> bool {
        let (word, bit) = ((number / 64) as usize, 1_u64 << (number % 64));
        if word >= self.bits.len() {
            self.bits.resize(word + 1, 0);
        }
        let Some(seen) = self.bits.get_mut(word) else {
            return false;
        };
        let is_first = *seen & bit == 0;
        *seen |= bit;
        is_first
    }
}

/// Follows the log from `from` on, for as long as it is let.
pub(crate) async fn observe(
    log: Arc<dyn EventLog>,
    from: u64,
    workload: Workload,
    book: Arc<Book>,
    free: Arc<Semaphore>,
) {
    let cell = log.cell().clone();
    let mut subjects = vec![format!("conductor.{cell}.agent.*")];
    if workload.ends_by_orchestrator() {
        subjects.push(format!("conductor.{cell}.orchestrator"));
    }
    let (mut next, mut once) = (from, Once::default());
    let mut timed = Vec::new();
    loop {
        let Ok(mut tail) = log.tail(next, subjects.clone()).await else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        while let Ok(batch) = tail.next().await {
            let now = book.now();
            let (mut started, mut ended) = (0, 0);
            for record in batch.records.iter().filter(|r| r.seq >= next) {
                let Ok(frame) = frame::split(&record.payload) else {
                    continue;
                };
                for news in frame.events.iter().filter_map(|e| workload.news(e)) {
                    if news.is_end && once.is_first(news.number) {
                        ended += 1;
                    } else if !news.is_end {
                        started += 1;
                    }
                    if book.is_timed(news.number) {
                        timed.push((news.number, news.is_end));
                    }
                }
            }
            next = batch.records.last().map_or(next, |r| r.seq + 1);
            book.observed(now, started, ended, &timed);
            timed.clear();
            free.add_permits(ended as usize);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Once;

    #[test]
    fn an_end_counts_once() {
        let mut once = Once::default();
        let seen = [0, 64, 0, 1_000_000, 64, 63].map(|n| once.is_first(n));
        assert_eq!(seen, [true, true, false, true, false, true]);
    }
}
