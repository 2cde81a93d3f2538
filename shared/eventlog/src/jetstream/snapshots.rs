//! `SNAPSHOTS_<cell>`: saved states. None is needed; they only save time.

use std::sync::Arc;

use async_nats::jetstream::object_store::{self, ObjectStore};
use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use tokio::io::AsyncReadExt;

use super::Connection;
use crate::port::{LogError, SnapshotName, SnapshotStore};

/// How many snapshots are kept: the newest may turn out damaged.
const KEPT: usize = 3;

impl Connection {
    pub(super) async fn snapshots(&self) -> Result<ObjectStore, LogError> {
        let bucket = self.stream_name("SNAPSHOTS");
        if let Ok(store) = self.js.get_object_store(&bucket).await {
            return Ok(store);
        }
        let config = object_store::Config {
            bucket,
            description: Some("Saved states; lost ones only cost time".to_owned()),
            num_replicas: self.log_replicas().await,
            ..Default::default()
        };
        self.js
            .create_object_store(config)
            .await
            .map_err(unavailable)
    }
}

fn unavailable(e: impl std::fmt::Display) -> LogError {
    LogError::Unavailable(e.to_string())
}

/// What readers other than replicas save of themselves, under a name of their own.
#[derive(Debug, Clone)]
pub struct ReaderSnapshots {
    connection: Arc<Connection>,
    reader: &'static str,
}

impl ReaderSnapshots {
    /// Those of the reader of this name, which is not `state`.
    pub fn new(connection: Arc<Connection>, reader: &'static str) -> Self {
        Self { connection, reader }
    }
}

/// The name under which replicas save the state.
const STATE: &str = "state";

fn object_name(of: &str, name: SnapshotName) -> String {
    format!("{of}-{:020}", name.0)
}

#[async_trait]
impl SnapshotStore for Connection {
    async fn save(&self, name: SnapshotName, bytes: Bytes) -> Result<(), LogError> {
        self.save_of(STATE, name, bytes).await
    }

    async fn list(&self) -> Result<Vec<SnapshotName>, LogError> {
        self.list_of(STATE).await
    }

    async fn load(&self, name: SnapshotName) -> Result<Bytes, LogError> {
        self.load_of(STATE, name).await
    }
}

#[async_trait]
impl SnapshotStore for ReaderSnapshots {
    async fn save(&self, name: SnapshotName, bytes: Bytes) -> Result<(), LogError> {
        self.connection.save_of(self.reader, name, bytes).await
    }

    async fn list(&self) -> Result<Vec<SnapshotName>, LogError> {
        self.connection.list_of(self.reader).await
    }

    async fn load(&self, name: SnapshotName) -> Result<Bytes, LogError> {
        self.connection.load_of(self.reader, name).await
    }
}

impl Connection {
    async fn save_of(&self, of: &str, name: SnapshotName, bytes: Bytes) -> Result<(), LogError> {
        let store = self.snapshots().await?;
        let mut reader: &[u8] = &bytes;
        store
            .put(object_name(of, name).as_str(), &mut reader)
            .await
            .map_err(unavailable)?;
        for old in self.list_of(of).await?.into_iter().skip(KEPT) {
            let old = object_name(of, old);
            store.delete(old).await.map_err(unavailable)?;
        }
        Ok(())
    }

    async fn list_of(&self, of: &str) -> Result<Vec<SnapshotName>, LogError> {
        let store = self.snapshots().await?;
        let mut names = Vec::new();
        let mut objects = store.list().await.map_err(unavailable)?;
        while let Some(object) = objects.next().await {
            let object = object.map_err(unavailable)?;
            let seq = object
                .name
                .strip_prefix(of)
                .and_then(|n| n.strip_prefix('-'))
                .and_then(|n| n.parse().ok());
            names.extend(seq.filter(|_| !object.deleted).map(SnapshotName));
        }
        names.sort_unstable_by(|a, b| b.cmp(a));
        Ok(names)
    }

    async fn load_of(&self, of: &str, name: SnapshotName) -> Result<Bytes, LogError> {
        let store = self.snapshots().await?;
        let mut object = store
            .get(object_name(of, name))
            .await
            .map_err(unavailable)?;
        let mut bytes = Vec::new();
        object.read_to_end(&mut bytes).await.map_err(unavailable)?;
        Ok(bytes.into())
    }
}
