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
