//! Taking and keeping a role.
//!
//! The lock keeps candidates from duelling; the `elected` record, appended with a
//! compare-and-set on its literal subject, is what makes a leader.

use std::sync::Arc;
use std::time::{Duration, Instant};

use conductor_domain::Record;
use conductor_eventlog::jetstream::Connection;
use conductor_eventlog::jetstream::locks::{Lock, Tried};
use conductor_eventlog::{AppendError, EventLog, LogError};
use conductor_protocol::CellId;
use conductor_protocol::event::{Event, LeaderElected};
use conductor_protocol::subject::{Role, Subject};
use conductor_telemetry::metrics;
use tokio::sync::watch;

use crate::bid::Bid;

/// After so many of its times a lock that has not changed counts as forgotten.
const STALE_AFTER_TTLS: u32 = 3;
/// How long taking the role may take beyond waiting for its lock.
const TAKING_MAX: Duration = Duration::from_secs(15);

/// What a candidate needs.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// The servers.
    pub connection: Arc<Connection>,
    /// The role.
    pub role: Role,
    /// Who: host, process and a random part.
    pub holder: String,
    /// How long a lock outlives its holder.
    pub ttl: Duration,
    /// Whether a lock found at the start is a dead predecessor's, not to be waited for.
    pub takes_over: bool,
}

/// A bid by `holder` for a role, to follow the election that is `last` on the role's subject.
pub fn bid(cell: &CellId, role: Role, holder: &str, last: Option<&Record>) -> Bid {
    let elected = Event::from(LeaderElected {
        holder: holder.to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    });
    let subject = Subject::Leader(role).render(cell);
    Bid::new(subject, &elected, &format!("elected-{role}-{holder}"), last)
}

/// What became of a candidacy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It leads, under this epoch.
    Elected(u64),
    /// It leads no longer.
    Deposed,
}

impl Candidate {
    /// Stands for the role until told to stop, telling every change to `tell`.
    /// `deposed_by` shows the newest epoch seen in the tail: a newer leader than
    /// oneself ends the term at once.
    pub async fn stand(
        self,
        mut stop: watch::Receiver<bool>,
        mut deposed_by: watch::Receiver<u64>,
        tell: impl Fn(Outcome) + Send,
    ) {
        let mut seen = None;
        let mut takes_over = self.takes_over;
        loop {
            // Every step has a limit of its own; together they must not take for ever either.
            let taken = tokio::time::timeout(
                self.ttl * 3 + TAKING_MAX,
                self.take(&mut seen, std::mem::take(&mut takes_over)),
            );
            let taken = tokio::select! {
                _ = stop.wait_for(|stop| *stop) => return,
                taken = taken => taken.unwrap_or(Ok(None)),
            };
            let (mut lock, epoch) = match taken {
                Ok(Some(taken)) => taken,
                Ok(None) => continue,
                Err(e) => {
                    tracing::debug!(role = %self.role, error = %e, "cannot stand for a role now");
                    tokio::time::sleep(Duration::from_millis(250)).await;
                    continue;
                }
            };
            tell(Outcome::Elected(epoch));
            let is_stopped = tokio::select! {
                _ = stop.wait_for(|stop| *stop) => true,
                _ = deposed_by.wait_for(|newest| *newest > epoch) => false,
                () = self.keep(&mut lock) => false,
            };
            tell(Outcome::Deposed);
            // Given back so that the next need not wait; a lock that is lost is not ours to give.
            if let Err(e) = self.connection.unlock(lock).await {
                tracing::debug!(role = %self.role, error = %e, "the lock was not given back");
            }
            if is_stopped {
                return;
            }
        }
    }

    /// Waits for the lock, takes it, and is elected. `seen` is the revision at which
    /// another's lock was first seen, and when.
    async fn take(
        &self,
        seen: &mut Option<(u64, Instant)>,
        takes_over: bool,
    ) -> Result<Option<(Lock, u64)>, LogError> {
        // The servers expire a lock; one that they forgot to expire must not stop us.
        let stale = seen
            .filter(|(_, since)| since.elapsed() > self.ttl * STALE_AFTER_TTLS)
            .map(|(revision, _)| revision);
        let try_lock = |stale| {
            self.connection
                .try_lock(self.role, &self.holder, self.ttl, stale)
        };
        let mut tried = try_lock(stale).await?;
        if let (Tried::Held(revision), true) = (&tried, takes_over) {
            tried = try_lock(Some(*revision)).await?;
        }
        let lock = match tried {
            Tried::Taken(lock) => lock,
            Tried::Held(revision) => {
                if seen.is_none_or(|(before, _)| before != revision) {
                    *seen = Some((revision, Instant::now()));
                }
                self.connection.wait_unlocked(self.role, self.ttl).await?;
                return Ok(None);
            }
        };
        *seen = None;
        match self.elect().await {
            Ok(Some(epoch)) => Ok(Some((lock, epoch))),
            Ok(None) => {
                self.connection.unlock(lock).await?;
                Ok(None)
            }
            Err(e) => Err(e),
        }
    }

    /// Appends `elected`; `None` when another candidate was faster.
    async fn elect(&self) -> Result<Option<u64>, LogError> {
        let subject = Subject::Leader(self.role).render(self.connection.cell());
        let last = self.connection.last_on(&subject).await?;
        let bid = bid(
            self.connection.cell(),
            self.role,
            &self.holder,
            last.as_ref(),
        );
        let started = Instant::now();
        loop {
            match self.connection.append(&bid.append).await {
                Ok(appended) => return Ok(Some(appended.seq)),
                Err(AppendError::Conflict(_)) => {
                    metrics().election_conflicts.inc();
                    break;
                }
                Err(AppendError::Refused(problem)) => return Err(LogError::Refused(problem)),
                Err(AppendError::Unavailable(problem)) if started.elapsed() > self.ttl => {
                    return Err(LogError::Unavailable(problem));
                }
                Err(AppendError::Unavailable(_)) => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
        let last = self.connection.last_on(&subject).await?;
        Ok(last.and_then(|last| bid.seq_if_won(&last)))
    }

    /// Renews the lock until it is lost, or could not be renewed for most of its time.
    async fn keep(&self, lock: &mut Lock) {
        let (mut renewed, mut pause) = (Instant::now(), self.ttl / 3);
        loop {
            tokio::time::sleep(pause).await;
            pause = self.ttl / 3;
            match self.connection.renew(lock).await {
                Ok(true) => renewed = Instant::now(),
                Ok(false) => {
                    tracing::warn!(role = %self.role, "another process has the lock");
                    return;
                }
                Err(e) if renewed.elapsed() * 3 > self.ttl * 2 => {
                    tracing::warn!(role = %self.role, error = %e, "the lock could not be renewed in time");
                    return;
                }
                // Little time is left: the link may be up again by now.
                Err(_) => pause = self.ttl / 20,
            }
        }
    }
}
