//! A state from the log alone: replay, and whatever the CLI shows.

use std::sync::Arc;
use std::time::Duration;

use conductor_domain::fold::{self, Folded};
use conductor_domain::{Decoded, State};
use conductor_eventlog::{EventLog, LogError, SnapshotStore};

use crate::follow::{Batch, Follower, Gap, add_gaps};
use crate::snapshot;

/// How long the log may be away while what is in it is read.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long until it is asked again.
const PAUSE: Duration = Duration::from_millis(200);

/// Where to begin.
#[derive(Debug, Clone, Copy)]
pub enum ReadFrom<'a> {
    /// At the first record.
    Genesis,
    /// At the newest good snapshot, or else at the first record.
    Snapshot(&'a dyn SnapshotStore),
}

/// How far to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// The record at this sequence, included.
    Seq(u64),
    /// The last record stamped at or before this time.
    TimeMs(u64),
}

/// Why reading stopped short.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The log cannot be read.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The log goes beyond what this software knows.
    #[error(
        "record {seq} raises the log to format {format}, which this version does not know; \
         use a newer conductor"
    )]
    UnknownFormat {
        /// Where.
        seq: u64,
        /// The format.
        format: u32,
    },
}

/// Reads the log into a state.
#[derive(Debug)]
pub struct Reader {
    /// The state after the last record read.
    pub state: State,
    /// Sequences found missing.
    pub gaps: Vec<Gap>,
    /// Sequence the reading began after: that of the snapshot, or 0.
    pub began_at: u64,
    follower: Follower,
    ahead: std::collections::VecDeque<Decoded>,
}

impl Reader {
    /// Begins. A snapshot beyond `at_most` is not used.
    pub async fn open(log: Arc<dyn EventLog>, from: ReadFrom<'_>, at_most: u64) -> Self {
        let loaded = match from {
            ReadFrom::Genesis => None,
            ReadFrom::Snapshot(store) => snapshot::begin(store, log.as_ref(), at_most).await.state,
        };
        let state = loaded.unwrap_or_else(|| State::new(log.cell().clone()));
        Self::after(log, state)
    }

    /// Begins after the record that this state stands at.
    pub fn after(log: Arc<dyn EventLog>, state: State) -> Self {
        let follower = Follower::new(log, state.seq + 1);
        Self {
            began_at: state.seq,
            state,
            gaps: Vec::new(),
            follower,
            ahead: std::collections::VecDeque::new(),
        }
    }

    /// Folds the next record, waiting for it however long the log is silent or away, and
    /// returns it with what became of it.
    pub async fn next(&mut self) -> Result<(Decoded, Folded), ReadError> {
        while self.ahead.is_empty() {
            let batch = self.follower.next().await?;
            self.keep(batch);
        }
        let Some(record) = self.ahead.pop_front() else {
            return Err(LogError::Unavailable("nothing was read".to_owned()).into());
        };
        let folded = fold::apply(&mut self.state, &record);
        if let Some(format) = folded.stop {
            return Err(ReadError::UnknownFormat {
                seq: record.seq,
                format,
            });
        }
        Ok((record, folded))
    }

    /// Folds up to `until`, which must be in the log already, showing each record to
    /// `seen` after it was folded.
    pub async fn read_until(
        &mut self,
        until: Until,
        last_seq: u64,
        mut seen: impl FnMut(&Decoded, &Folded, &State),
    ) -> Result<(), ReadError> {
        let last = match until {
            Until::Seq(seq) => seq.min(last_seq),
            Until::TimeMs(_) => last_seq,
        };
        while self.state.seq < last {
            let Some(record) = self.take(last).await? else {
                break;
            };
            let is_beyond =
                record.seq > last || matches!(until, Until::TimeMs(at) if record.time_ms > at);
            if is_beyond {
                self.ahead.push_front(record);
                break;
            }
            let folded = fold::apply(&mut self.state, &record);
            if let Some(format) = folded.stop {
                return Err(ReadError::UnknownFormat {
                    seq: record.seq,
                    format,
                });
            }
            seen(&record, &folded, &self.state);
        }
        Ok(())
    }

    /// The next record; `None` when none of those up to `last` is left.
    async fn take(&mut self, last: u64) -> Result<Option<Decoded>, ReadError> {
        while self.ahead.is_empty() && self.follower.next_seq() <= last {
            let batch = self.read_patiently(last).await?;
            self.keep(batch);
        }
        Ok(self.ahead.pop_front())
    }

    /// The next records; a log that is away for a moment does not end the reading.
    async fn read_patiently(&mut self, last: u64) -> Result<Batch, ReadError> {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            match self.follower.try_next_up_to(last).await {
                Err(LogError::Unavailable(problem) | LogError::Lost(problem))
                    if tokio::time::Instant::now() < deadline =>
                {
                    tracing::debug!(problem, "the log is away");
                    tokio::time::sleep(PAUSE).await;
                }
                other => return Ok(other?),
            }
        }
    }

    fn keep(&mut self, batch: Batch) {
        add_gaps(&mut self.gaps, batch.gaps);
        self.ahead.extend(batch.records);
    }
}
