//! Beginning from a snapshot where there is a good one.

use bytes::Bytes;
use conductor_domain::State;
use conductor_eventlog::{EventLog, LogError, SnapshotName, SnapshotStore};

use crate::follow::Gap;

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

/// Where a reader begins.
#[derive(Debug, Default)]
pub struct Beginning {
    /// The state of the newest snapshot that is of this log.
    pub state: Option<State>,
    /// What a snapshot holds that the log does not hold any more.
    pub lost: Option<Gap>,
}

/// The newest good snapshot at or before `at_most` that is of this log: a log that has lost its
/// end may have grown again since, with other records. Whoever begins anew goes on with what
/// there is, and says what there is not.
pub async fn begin(store: &dyn SnapshotStore, log: &dyn EventLog, at_most: u64) -> Beginning {
    let mut begun = Beginning::default();
    let mut at_most = at_most;
    if let (Ok(names), Ok(last)) = (store.list().await, log.last_seq().await) {
        let newest = names.into_iter().map(|name| name.0).max();
        // Asked for in this order: one that was stored in between is not beyond the end.
        if let Some(newest) = newest.filter(|newest| *newest > last) {
            begun.lost = Some(lost(last + 1, newest));
        }
        at_most = at_most.min(last);
    }
    while let Some(state) = load_newest(store, at_most).await {
        // The time of a state is the latest of its records.
        match log.read(state.seq).await {
            Ok(Some(record)) if record.time_ms > state.time_ms => {
                begun.lost = Some(lost(state.seq, begun.lost.map_or(state.seq, |gap| gap.to)));
                at_most = state.seq.saturating_sub(1);
            }
            _ => {
                begun.state = Some(state);
                break;
            }
        }
    }
    begun
}

fn lost(from: u64, to: u64) -> Gap {
    let gap = Gap { from, to };
    tracing::error!(
        records = %gap,
        "the log has lost its end: a snapshot holds these records, the log does not or has others"
    );
    gap
}

/// Stores a state.
pub async fn save(store: &dyn SnapshotStore, seq: u64, bytes: Bytes) -> Result<(), LogError> {
    store.save(SnapshotName(seq), bytes).await
}
