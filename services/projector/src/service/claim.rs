//! Who projects, and from where: a position that one process at a time may change.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use conductor_eventlog::jetstream::Connection;
use conductor_eventlog::jetstream::positions::{Position, Stored};
use conductor_eventlog::{EventLog, LogError};
use conductor_telemetry::metrics;
use tokio::sync::watch;
use tokio::time::Instant;

use super::{ProjectorError, ProjectorOptions, READER};

/// How often whoever projects says that it is there.
pub(super) const RENEWED_EVERY: Duration = Duration::from_secs(5);
/// How long a position may stay as it is until another process goes on from it.
const DEAD_AFTER: Duration = Duration::from_secs(15);
/// A log of so many records is as good as new: whoever starts a cell and its projector together
/// misses nothing, however long either takes.
const YOUNG_RECORDS: u64 = 10_000;
/// How often one that waits looks.
const LOOKS_EVERY: Duration = Duration::from_secs(1);

/// The right to go on from a position.
#[derive(Debug)]
pub(super) struct Claim {
    connection: Arc<Connection>,
    holder: String,
    seq: u64,
    revision: u64,
    renewed: Instant,
}

impl Claim {
    /// Waits until nobody else projects. Where nobody ever did, it begins with the first record
    /// of a young log, and at the end of an old one.
    pub(super) async fn take(
        connection: &Arc<Connection>,
        options: &ProjectorOptions,
    ) -> Result<Self, LogError> {
        let mut seen: Option<(u64, Instant)> = None;
        loop {
            let stored = patiently(|| connection.position(READER)).await;
            let (seq, over) = match &stored {
                None => (first(patiently(|| connection.last_seq()).await), None),
                Some(stored) if is_free(stored, options, seen) => {
                    (stored.position.seq, Some(stored.revision))
                }
                Some(stored) => {
                    if seen.is_none_or(|(revision, _)| revision != stored.revision) {
                        seen = Some((stored.revision, Instant::now()));
                    }
                    tokio::time::sleep(LOOKS_EVERY).await;
                    continue;
                }
            };
            let mut claim = Self {
                connection: Arc::clone(connection),
                holder: options.instance.clone(),
                seq,
                revision: 0,
                renewed: Instant::now(),
            };
            if claim.put(seq, &options.instance, over).await? {
                return Ok(claim);
            }
            // Somebody was faster.
            tokio::time::sleep(LOOKS_EVERY).await;
        }
    }

    /// All records up to here are dealt with.
    pub(super) fn seq(&self) -> u64 {
        self.seq
    }

    /// Says that this process is still there, where that was not said for a while.
    pub(super) async fn renew(
        &mut self,
        stop: &watch::Receiver<bool>,
    ) -> Result<bool, ProjectorError> {
        if self.renewed.elapsed() < RENEWED_EVERY {
            return Ok(true);
        }
        self.advance(self.seq, stop).await
    }

    /// Says that all up to `seq` is dealt with. While the servers are away it waits: whether
    /// this was heard decides whether anything is exported twice. `false` where they are away
    /// and this process is to end.
    pub(super) async fn advance(
        &mut self,
        seq: u64,
        stop: &watch::Receiver<bool>,
    ) -> Result<bool, ProjectorError> {
        let (holder, over) = (self.holder.clone(), Some(self.revision));
        let mut pause = Duration::from_millis(50);
        loop {
            match self.put(seq, &holder, over).await {
                Ok(true) => return Ok(true),
                // An earlier try may have been heard though its answer was lost.
                Ok(false) if self.is_ours(seq).await => return Ok(true),
                Ok(false) => {
                    // The other one says how far it is.
                    metrics().projected_seq.store(0, Ordering::Relaxed);
                    return Err(ProjectorError::Superseded);
                }
                Err(_) if *stop.borrow() => return Ok(false),
                Err(e) => {
                    tracing::debug!(error = %e, "the position is not stored yet");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(Duration::from_secs(2));
                }
            }
        }
    }

    /// Lets another process go on at once.
    pub(super) async fn release(mut self) {
        let (seq, over) = (self.seq, Some(self.revision));
        // One that is not heard of is waited for.
        let _ = self.put(seq, "", over).await;
    }

    async fn is_ours(&mut self, seq: u64) -> bool {
        match self.connection.position(READER).await {
            Ok(Some(s)) if s.position.holder == self.holder && s.position.seq == seq => {
                (self.seq, self.revision) = (seq, s.revision);
                true
            }
            _ => false,
        }
    }

    async fn put(&mut self, seq: u64, holder: &str, over: Option<u64>) -> Result<bool, LogError> {
        let position = Position {
            seq,
            holder: holder.to_owned(),
            at_ms: now_ms(),
        };
        let put = self.connection.put_position(READER, &position, over);
        let Some(revision) = put.await? else {
            return Ok(false);
        };
        (self.seq, self.revision) = (seq, revision);
        self.renewed = Instant::now();
        metrics().projected_seq.store(seq, Ordering::Relaxed);
        Ok(true)
    }
}

/// Up to where what is in a log of this length is not exported by the first projector ever.
fn first(last_seq: u64) -> u64 {
    if last_seq <= YOUNG_RECORDS {
        return 0;
    }
    tracing::info!(
        up_to = last_seq,
        "traces of what ended before are not exported; `conductor replay --traces` does"
    );
    last_seq
}

/// Whether nobody goes on from it: it was given back, its holder is known to be dead, or has
/// not been heard of.
fn is_free(stored: &Stored, options: &ProjectorOptions, seen: Option<(u64, Instant)>) -> bool {
    stored.position.holder.is_empty()
        || options.takes_over
        || stored.position.holder == options.instance
        || seen.is_some_and(|(revision, since)| {
            revision == stored.revision && since.elapsed() >= DEAD_AFTER
        })
}

async fn patiently<T, F: Future<Output = Result<T, LogError>>>(mut ask: impl FnMut() -> F) -> T {
    loop {
        match ask().await {
            Ok(answer) => return answer,
            Err(e) => {
                tracing::debug!(error = %e, "the position cannot be read yet");
                tokio::time::sleep(LOOKS_EVERY).await;
            }
        }
    }
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |d| d.as_millis() as u64)
}
