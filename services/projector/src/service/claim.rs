//! Who projects, and from where: a position that one process at a time may change.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use conductor_eventlog::jetstream::Connection;
use conductor_eventlog::jetstream::positions::{Position, Stored};
use conductor_eventlog::{EventLog, LogError};
use conductor_protocol::UnixMs;
use conductor_telemetry::metrics;
use tokio::sync::watch;
use tokio::time::Instant;

use super::{ProjectorError, ProjectorOptions, READER, history};

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
    /// That record's time.
    time_ms: UnixMs,
    ttl: Duration,
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
            if let Some(stored) = &stored
                && !is_free(stored, options, seen)
            {
                if seen.is_none_or(|(revision, _)| revision != stored.revision) {
                    seen = Some((stored.revision, Instant::now()));
                }
                tokio::time::sleep(LOOKS_EVERY).await;
                continue;
            }
            let (seq, time_ms) = begin(connection, stored.as_ref()).await;
            let mut claim = Self {
                connection: Arc::clone(connection),
                holder: options.instance.clone(),
                seq,
                time_ms,
                ttl: options.claim_ttl,
                revision: 0,
                renewed: Instant::now(),
            };
            let over = stored.map(|s| s.revision);
            let at = claim.at();
            if claim.put(at, &options.instance, over).await? {
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

    /// That record and its time.
    pub(super) fn at(&self) -> (u64, UnixMs) {
        (self.seq, self.time_ms)
    }

    /// How often to say that this process is there: two such words may be lost.
    pub(super) fn renewed_every(&self) -> Duration {
        self.ttl / 3
    }

    /// Says that this process is still there, where that was not said for a while.
    pub(super) async fn renew(
        &mut self,
        stop: &watch::Receiver<bool>,
    ) -> Result<bool, ProjectorError> {
        if self.renewed.elapsed() < self.renewed_every() {
            return Ok(true);
        }
        self.advance(self.at(), stop).await
    }

    /// Says that all up to this record, of this time, is dealt with. While the servers are away it waits: whether
    /// this was heard decides whether anything is exported twice. `false` where they are away
    /// and this process is to end.
    pub(super) async fn advance(
        &mut self,
        at: (u64, UnixMs),
        stop: &watch::Receiver<bool>,
    ) -> Result<bool, ProjectorError> {
        let (holder, over) = (self.holder.clone(), Some(self.revision));
        let mut pause = Duration::from_millis(50);
        loop {
            match self.put(at, &holder, over).await {
                Ok(true) => return Ok(true),
                // An earlier try may have been heard though its answer was lost.
                Ok(false) if self.is_ours(at).await => return Ok(true),
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
        let (at, over) = (self.at(), Some(self.revision));
        // One that is not heard of is waited for.
        let _ = self.put(at, "", over).await;
    }

    async fn is_ours(&mut self, at: (u64, UnixMs)) -> bool {
        match self.connection.position(READER).await {
            Ok(Some(s)) if s.position.holder == self.holder && s.position.seq == at.0 => {
                (self.seq, self.time_ms) = at;
                self.revision = s.revision;
                true
            }
            _ => false,
        }
    }

    async fn put(
        &mut self,
        (seq, time_ms): (u64, UnixMs),
        holder: &str,
        over: Option<u64>,
    ) -> Result<bool, LogError> {
        let position = Position {
            seq,
            time_ms: Some(time_ms),
            holder: holder.to_owned(),
            at_ms: now_ms(),
        };
        let put = self.connection.put_position(READER, &position, over);
        let Some(revision) = put.await? else {
            return Ok(false);
        };
        (self.seq, self.time_ms, self.revision) = (seq, time_ms, revision);
        self.renewed = Instant::now();
        metrics().projected_seq.store(seq, Ordering::Relaxed);
        Ok(true)
    }
}

/// From where to go on, with that record's time: from the position, as far as the log still holds
/// what was there when it was stored.
async fn begin(connection: &Connection, stored: Option<&Stored>) -> (u64, UnixMs) {
    let Some(stored) = stored else {
        let seq = first(patiently(|| connection.last_seq()).await);
        return (seq, time_of(connection, seq).await);
    };
    let seq = stored.position.seq;
    match stored.position.time_ms {
        Some(time_ms) => patiently(|| history::last_shared(connection, (seq, time_ms))).await,
        // One of an earlier version is believed.
        None => (seq, time_of(connection, seq).await),
    }
}

async fn time_of(connection: &Connection, seq: u64) -> UnixMs {
    if seq == 0 {
        return 0;
    }
    let record = patiently(|| connection.read(seq)).await;
    record.map_or(0, |r| r.time_ms)
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
            revision == stored.revision && since.elapsed() >= options.claim_ttl
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
