//! `POSITIONS_<cell>`: how far readers have come whose effects must not be repeated, and who
//! reads. Changed only by compare-and-set, so that of two readers of a kind one goes on.

use async_nats::jetstream::kv::{self, Store};
use conductor_protocol::UnixMs;
use serde::{Deserialize, Serialize};

use super::Connection;
use crate::port::LogError;

/// How far a reader has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// All records up to this sequence are dealt with.
    pub seq: u64,
    /// When the record there was stored: a log that lost its end has a later one there, or none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_ms: Option<UnixMs>,
    /// The process that reads.
    pub holder: String,
    /// When it last said so, by its own clock: only that it changes matters.
    pub at_ms: UnixMs,
}

/// A position as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// What.
    pub position: Position,
    /// What the next change must expect.
    pub revision: u64,
}

fn unavailable(e: impl std::fmt::Display) -> LogError {
    LogError::Unavailable(e.to_string())
}

impl Connection {
    pub(super) async fn positions(&self) -> Result<Store, LogError> {
        let bucket = self.stream_name("POSITIONS");
        if let Ok(store) = self.js.get_key_value(&bucket).await {
            return Ok(store);
        }
        let config = kv::Config {
            bucket,
            description: "How far readers have come that must not repeat themselves".to_owned(),
            history: 1,
            num_replicas: self.log_replicas().await,
            ..Default::default()
        };
        self.js.create_key_value(config).await.map_err(unavailable)
    }

    /// Where the reader of this name stands; `None` before it first said so. What cannot be
    /// read counts as that.
    pub async fn position(&self, reader: &str) -> Result<Option<Stored>, LogError> {
        let store = self.positions().await?;
        let entry = store.entry(reader).await.map_err(unavailable)?;
        Ok(entry.and_then(|e| {
            let position = serde_json::from_slice(&e.value).ok()?;
            Some(Stored {
                position,
                revision: e.revision,
            })
        }))
    }

    /// Stores a position over the revision that was read, or over none; `None` when somebody
    /// else has changed it since.
    pub async fn put_position(
        &self,
        reader: &str,
        position: &Position,
        over: Option<u64>,
    ) -> Result<Option<u64>, LogError> {
        let store = self.positions().await?;
        let bytes = serde_json::to_vec(position).map_err(unavailable)?.into();
        match over {
            Some(revision) => match store.update(reader, bytes, revision).await {
                Ok(revision) => Ok(Some(revision)),
                Err(e) if e.kind() == kv::UpdateErrorKind::WrongLastRevision => Ok(None),
                Err(e) => Err(unavailable(e)),
            },
            None => match store.create(reader, bytes).await {
                Ok(revision) => Ok(Some(revision)),
                Err(e) if e.kind() == kv::CreateErrorKind::AlreadyExists => Ok(None),
                Err(e) => Err(unavailable(e)),
            },
        }
    }
}
