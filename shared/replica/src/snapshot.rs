//! Beginning from a snapshot where there is a good one.

use bytes::Bytes;
use conductor_domain::State;
use conductor_eventlog::{LogError, SnapshotName, SnapshotStore};

/// The newest snapshot at or before `at_most` that is whole and of this software's
/// state version. Damaged, foreign or unreachable ones only cost time.
pub async fn load_newest(store: &dyn SnapshotStore, at_most: u64) -> Option<State> {
    let names = match store.list().await {
        Ok(names) => names,
        Err(e) => {
            tracing::warn!(error = %e, "snapshots cannot be listed; folding from the first record");
            return None;
        }
    };
    for name in names.into_iter().filter(|n| n.0 <= at_most) {
        let loaded = store.load(name).await;
        let state = loaded
            .map_err(|e| e.to_string())
            .and_then(|bytes| State::from_snapshot(&bytes).map_err(|e| e.to_string()));
        match state {
            Ok(state) if state.seq == name.0 => return Some(state),
            Ok(state) => {
                tracing::warn!(
                    name = name.0,
                    seq = state.seq,
                    "a snapshot has the wrong name"
                );
            }
            Err(error) => tracing::warn!(seq = name.0, error, "a snapshot is not used"),
        }
    }
    None
}

/// Stores a state.
pub async fn save(store: &dyn SnapshotStore, seq: u64, bytes: Bytes) -> Result<(), LogError> {
    store.save(SnapshotName(seq), bytes).await
}
