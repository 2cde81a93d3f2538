//! `SNAPSHOTS_<cell>`: saved states. None is needed; they only save time.

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
    async fn snapshots(&self) -> Result<ObjectStore, LogError> {
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

fn object_name(name: SnapshotName) -> String {
    format!("state-{:020}", name.0)
}

#[async_trait]
impl SnapshotStore for Connection {
    async fn save(&self, name: SnapshotName, bytes: Bytes) -> Result<(), LogError> {
        let store = self.snapshots().await?;
        let mut reader: &[u8] = &bytes;
        store
            .put(object_name(name).as_str(), &mut reader)
            .await
            .map_err(unavailable)?;
        for old in self.list().await?.into_iter().skip(KEPT) {
            store.delete(object_name(old)).await.map_err(unavailable)?;
        }
        Ok(())
    }

    async fn list(&self) -> Result<Vec<SnapshotName>, LogError> {
        let store = self.snapshots().await?;
        let mut names = Vec::new();
        let mut objects = store.list().await.map_err(unavailable)?;
        while let Some(object) = objects.next().await {
            let object = object.map_err(unavailable)?;
            let seq = object
                .name
                .strip_prefix("state-")
                .and_then(|n| n.parse().ok());
            names.extend(seq.filter(|_| !object.deleted).map(SnapshotName));
        }
        names.sort_unstable_by(|a, b| b.cmp(a));
        Ok(names)
    }

    async fn load(&self, name: SnapshotName) -> Result<Bytes, LogError> {
        let store = self.snapshots().await?;
        let mut object = store.get(object_name(name)).await.map_err(unavailable)?;
        let mut bytes = Vec::new();
        object.read_to_end(&mut bytes).await.map_err(unavailable)?;
        Ok(bytes.into())
    }
}
