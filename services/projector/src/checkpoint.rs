//! What the projector saves of itself, so that it need not read from the first record: the state
//! and its traces at one record.

use bytes::Bytes;
use conductor_domain::State;
use conductor_eventlog::{EventLog, SnapshotStore};

use crate::tracer::Tracer;

/// Bytes of the length that stands first.
const LENGTH: usize = 8;

/// The bytes of a checkpoint: the length of the traces, the traces, the state's snapshot.
pub fn encode(tracer: &Tracer, state: &State) -> Result<Bytes, rmp_serde::encode::Error> {
    // By name: some fields are left out where they say nothing.
    let first = rmp_serde::to_vec_named(tracer)?;
    let mut out = (first.len() as u64).to_be_bytes().to_vec();
    out.extend_from_slice(&first);
    out.extend_from_slice(&state.to_snapshot());
    Ok(out.into())
}

/// Reads a checkpoint; `None` for damaged ones and those of other versions.
pub fn decode(bytes: &[u8]) -> Option<(Tracer, State)> {
    let (length, rest) = bytes.split_first_chunk::<LENGTH>()?;
    let length = usize::try_from(u64::from_be_bytes(*length)).ok()?;
    let (first, state) = rest.split_at_checked(length)?;
    let tracer = rmp_serde::from_slice(first).ok()?;
    Some((tracer, State::from_snapshot(state).ok()?))
}

/// The newest good checkpoint at or before `at_most` that is of this log, or else the beginning.
/// Any that cannot be used only costs time.
pub async fn newest(
    store: &dyn SnapshotStore,
    log: &dyn EventLog,
    at_most: u64,
) -> (Tracer, State) {
    let names = store.list().await.unwrap_or_default();
    for name in names.into_iter().filter(|name| name.0 <= at_most) {
        let Ok(bytes) = store.load(name).await else {
            continue;
        };
        let Some((tracer, state)) = decode(&bytes).filter(|(_, s)| s.seq == name.0) else {
            tracing::debug!(seq = name.0, "a checkpoint of traces is not used");
            continue;
        };
        // A log that lost its end and grew again holds a later record there.
        if let Ok(Some(record)) = log.read(state.seq).await
            && record.time_ms <= state.time_ms
        {
            return (tracer, state);
        }
    }
    (Tracer::default(), State::new(log.cell().clone()))
}
