//! `LOCKS_<cell>`: who may try to lead a role. Liveness only: what decides is the
//! `elected` record in the log, so a lock that is held twice does no harm.

use std::future::IntoFuture;
use std::time::Duration;

use async_nats::jetstream::kv::{self, Store};
use async_nats::jetstream::message::PublishMessage;
use conductor_protocol::subject::Role;
use futures::StreamExt;

use super::Connection;
use super::log::restored;
use crate::port::LogError;

/// A lock that is held; renewed until it is released or lost.
#[derive(Debug)]
pub struct Lock {
    role: Role,
    holder: String,
    ttl: Duration,
    revision: u64,
}

/// What came of trying to take a lock.
#[derive(Debug)]
pub enum Tried {
    /// It is ours.
    Taken(Lock),
    /// Somebody has it, at this revision.
    Held(u64),
}

fn unavailable(e: impl std::fmt::Display) -> LogError {
    LogError::Unavailable(e.to_string())
}

impl Connection {
    pub(super) async fn locks(&self) -> Result<Store, LogError> {
        let bucket = self.stream_name("LOCKS");
        if let Ok(store) = self.js.get_key_value(&bucket).await {
            return Ok(store);
        }
        let config = kv::Config {
            bucket,
            description: "Who may try to lead a role; liveness only".to_owned(),
            history: 1,
            num_replicas: self.log_replicas().await,
            // Watchers learn of an expiry by its delete marker.
            limit_markers: Some(Duration::from_secs(60)),
            ..Default::default()
        };
        self.js.create_key_value(config).await.map_err(unavailable)
    }

    /// Takes the lock if nobody holds it, if it is ours already (the answer to an earlier
    /// try was lost), or if it still stands at the revision `stale`.
    ///
    /// Not `create_with_ttl`: over the marker of an earlier lock that writes an entry
    /// without a TTL (async-nats 0.51), which outlives its holder for ever.
    pub async fn try_lock(
        &self,
        role: Role,
        holder: &str,
        ttl: Duration,
        stale: Option<u64>,
    ) -> Result<Tried, LogError> {
        let store = self.locks().await?;
        let entry = store.entry(role.as_str()).await.map_err(unavailable)?;
        let revision = match &entry {
            None => 0,
            Some(e) if e.operation != kv::Operation::Put => e.revision,
            Some(e) if e.value == holder.as_bytes() || stale == Some(e.revision) => e.revision,
            Some(e) => return Ok(Tried::Held(e.revision)),
        };
        let mut lock = Lock {
            role,
            holder: holder.to_owned(),
            ttl,
            revision,
        };
        if self.renew(&mut lock).await? {
            Ok(Tried::Taken(lock))
        } else {
            Ok(Tried::Held(revision))
        }
    }

    /// Renews the lock; `false` when somebody else has it by now.
    pub async fn renew(&self, lock: &mut Lock) -> Result<bool, LogError> {
        use async_nats::jetstream::context::PublishErrorKind;
        // kv.update() knows no TTL, so the entry is written as what it is.
        let message = PublishMessage::build()
            .payload(lock.holder.clone().into())
            .expected_last_subject_sequence(lock.revision)
            .ttl(lock.ttl);
        let subject = format!("$KV.{}.{}", self.stream_name("LOCKS"), lock.role);
        let mut link = self.is_up();
        link.mark_unchanged();
        let sent = self
            .js
            .send_publish(subject, message)
            .await
            .map_err(unavailable)?;
        let acknowledged = tokio::select! {
            acknowledged = sent.into_future() => acknowledged,
            // The answer went down with the link, and the lock has little time to wait for it.
            () = restored(&mut link) => return Err(unavailable("the link was lost")),
        };
        match acknowledged {
            Ok(ack) => {
                lock.revision = ack.sequence;
                Ok(true)
            }
            Err(e) if e.kind() == PublishErrorKind::WrongLastSequence => self.is_ours(lock).await,
            Err(e) => Err(unavailable(e)),
        }
    }

    /// Whether the lock that stands there is ours all the same: one that was renewed, but whose
    /// answer was lost.
    async fn is_ours(&self, lock: &mut Lock) -> Result<bool, LogError> {
        let store = self.locks().await?;
        let entry = store.entry(lock.role.as_str()).await.map_err(unavailable)?;
        let ours = entry
            .filter(|e| e.operation == kv::Operation::Put && e.value == lock.holder.as_bytes());
        if let Some(entry) = &ours {
            lock.revision = entry.revision;
        }
        Ok(ours.is_some())
    }

    /// Gives the lock back, so that another takes over at once.
    pub async fn unlock(&self, lock: Lock) -> Result<(), LogError> {
        let store = self.locks().await?;
        let deleted = store
            .delete_expect_revision(lock.role.as_str(), Some(lock.revision))
            .await;
        deleted.map_err(unavailable)
    }

    /// Returns when the role's lock is free, or after `at_most`.
    pub async fn wait_unlocked(&self, role: Role, at_most: Duration) -> Result<(), LogError> {
        let store = self.locks().await?;
        let mut changes = store
            .watch_with_history(role.as_str())
            .await
            .map_err(unavailable)?;
        let freed = async {
            while let Some(change) = changes.next().await {
                match change {
                    Ok(entry) if entry.operation == kv::Operation::Put => {}
                    _ => break,
                }
            }
        };
        // No word within the time: the caller looks for itself.
        let _ = tokio::time::timeout(at_most, freed).await;
        Ok(())
    }
}
