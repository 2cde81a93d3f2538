//! Following the log: every record, in order, through reconnects; gaps are reported.

use std::sync::Arc;
use std::time::Duration;

use conductor_domain::{Decoded, record};
use conductor_eventlog::{EventLog, LogError, Tail, TailBatch};

/// Sequences that the log should hold and does not (design section 5: a flipped bit in
/// a block file can make the server drop messages without a word).
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Gap {
    /// First missing sequence.
    pub from: u64,
    /// Last missing sequence.
    pub to: u64,
}

impl std::fmt::Display for Gap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.from, self.to)
    }
}

/// Records in log order, read.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// At least one.
    pub records: Vec<Decoded>,
    /// Sequences found missing before or between them.
    pub gaps: Vec<Gap>,
    /// How many more the log held when the last of them was delivered.
    pub pending: u64,
}

/// Follows the whole log from a sequence on.
pub struct Follower {
    log: Arc<dyn EventLog>,
    next: u64,
    tail: Option<Box<dyn Tail>>,
    pause: Duration,
}

impl std::fmt::Debug for Follower {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Follower")
            .field("next", &self.next)
            .finish_non_exhaustive()
    }
}

const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(2);

impl Follower {
    /// Follows from sequence `next` on.
    pub fn new(log: Arc<dyn EventLog>, next: u64) -> Self {
        Self {
            log,
            next: next.max(1),
            tail: None,
            pause: PAUSE_MIN,
        }
    }

    /// The next records, however long the log is away in between.
    pub async fn next(&mut self) -> Batch {
        loop {
            match self.try_next().await {
                Ok(batch) if !batch.records.is_empty() => return batch,
                Ok(_) => {}
                Err(e) => {
                    tracing::warn!(error = %e, retry_in = ?self.pause, "the tail broke off");
                    tokio::time::sleep(self.pause).await;
                    self.pause = (self.pause * 2).min(PAUSE_MAX);
                }
            }
        }
    }

    /// The next records, or why there are none; trying again goes on where it stopped.
    pub async fn try_next(&mut self) -> Result<Batch, LogError> {
        let tail = match &mut self.tail {
            Some(tail) => tail,
            None => self
                .tail
                .insert(self.log.tail(self.next, Vec::new()).await?),
        };
        match tail.next().await {
            Ok(batch) => {
                self.pause = PAUSE_MIN;
                self.read(batch).await
            }
            Err(e) => {
                self.tail = None;
                Err(e)
            }
        }
    }

    async fn read(&mut self, batch: TailBatch) -> Result<Batch, LogError> {
        let mut out = Batch {
            pending: batch.pending,
            ..Batch::default()
        };
        for item in batch.records {
            if item.seq < self.next {
                continue;
            }
            if item.seq > self.next {
                // The tail jumped: is the record really not there? Until that is known, only
                // what came before it is handed on, and the tail begins again from there.
                match self.log.read(self.next).await {
                    Ok(None) => {}
                    Err(e) if out.records.is_empty() => {
                        self.tail = None;
                        return Err(e);
                    }
                    Ok(Some(_)) | Err(_) => {
                        self.tail = None;
                        break;
                    }
                }
                out.gaps.push(Gap {
                    from: self.next,
                    to: item.seq - 1,
                });
            }
            self.next = item.seq + 1;
            out.records.push(record::decode(self.log.cell(), &item));
        }
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use async_trait::async_trait;
    use conductor_domain::Record;
    use conductor_eventlog::{Append, AppendError, Appended};
    use conductor_protocol::CellId;
    use std::collections::VecDeque;
    use std::sync::Mutex;

    /// A log that does as it is told: what each tail hands out, and what each look finds.
    #[derive(Debug)]
    struct Scripted {
        cell: CellId,
        tails: Mutex<VecDeque<Vec<u64>>>,
        looks: Mutex<VecDeque<Result<bool, ()>>>,
        opened_at: Mutex<Vec<u64>>,
    }

    struct ScriptedTail(Option<Vec<u64>>);

    fn record(seq: u64) -> Record {
        Record {
            seq,
            time_ms: seq,
            subject: "conductor.local.control".into(),
            content_type: None,
            reply: None,
            traceparent: None,
            payload: bytes::Bytes::new(),
        }
    }

    #[async_trait]
    impl Tail for ScriptedTail {
        async fn next(&mut self) -> Result<TailBatch, LogError> {
            let Some(seqs) = self.0.take() else {
                std::future::pending::<()>().await;
                unreachable!()
            };
            Ok(TailBatch {
                records: seqs.into_iter().map(record).collect(),
                pending: 0,
            })
        }
    }

    #[async_trait]
    impl EventLog for Scripted {
        fn cell(&self) -> &CellId {
            &self.cell
        }
        async fn append(&self, _: &Append) -> Result<Appended, AppendError> {
            unreachable!()
        }
        async fn tail(&self, from: u64, _: Vec<String>) -> Result<Box<dyn Tail>, LogError> {
            self.opened_at.lock().unwrap().push(from);
            Ok(Box::new(ScriptedTail(
                self.tails.lock().unwrap().pop_front(),
            )))
        }
        async fn read(&self, seq: u64) -> Result<Option<Record>, LogError> {
            match self.looks.lock().unwrap().pop_front().unwrap() {
                Ok(is_there) => Ok(is_there.then(|| record(seq))),
                Err(()) => Err(LogError::Unavailable("away".into())),
            }
        }
        async fn last_on(&self, _: &str) -> Result<Option<Record>, LogError> {
            unreachable!()
        }
        async fn last_seq(&self) -> Result<u64, LogError> {
            unreachable!()
        }
    }

    fn follow(tails: &[&[u64]], looks: &[Result<bool, ()>]) -> (Arc<Scripted>, Follower) {
        let log = Arc::new(Scripted {
            cell: "local".parse().unwrap(),
            tails: Mutex::new(tails.iter().map(|t| t.to_vec()).collect()),
            looks: Mutex::new(looks.iter().copied().collect()),
            opened_at: Mutex::new(Vec::new()),
        });
        (Arc::clone(&log), Follower::new(log, 1))
    }

    fn seqs(batch: &Batch) -> Vec<u64> {
        batch.records.iter().map(|r| r.seq).collect()
    }

    #[tokio::test]
    async fn a_record_that_is_really_missing_is_a_gap() {
        let (_, mut follower) = follow(&[&[1, 2, 4]], &[Ok(false)]);
        let batch = follower.try_next().await.unwrap();
        assert_eq!(
            (seqs(&batch), batch.gaps),
            (vec![1, 2, 4], vec![Gap { from: 3, to: 3 }])
        );
    }

    #[tokio::test]
    async fn nothing_is_skipped_when_it_cannot_be_known_whether_a_record_is_missing() {
        for look in [Err(()), Ok(true)] {
            let (log, mut follower) = follow(&[&[1, 2, 4], &[3, 4]], &[look]);
            let first = follower.try_next().await.unwrap();
            assert_eq!((seqs(&first), first.gaps.len()), (vec![1, 2], 0));
            let second = follower.try_next().await.unwrap();
            assert_eq!((seqs(&second), second.gaps.len()), (vec![3, 4], 0));
            assert_eq!(*log.opened_at.lock().unwrap(), [1, 3]);
        }
    }

    #[tokio::test]
    async fn what_was_handed_on_before_is_not_handed_on_again() {
        let (_, mut follower) = follow(&[&[1, 2, 2, 1, 3]], &[]);
        assert_eq!(seqs(&follower.try_next().await.unwrap()), [1, 2, 3]);
    }
}
