//! Stored snapshots, and what may become of them.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use conductor_domain::State;
use conductor_eventlog::{LogError, SnapshotName, SnapshotStore};
use conductor_replica::snapshot;
use futures::FutureExt;

use crate::scenario::Spoil;

/// Most snapshots kept.
const KEPT: usize = 4;

/// A store of snapshots in memory.
#[derive(Debug, Default)]
pub struct Shelf {
    stored: Mutex<BTreeMap<u64, Bytes>>,
}

impl Shelf {
    fn stored(&self) -> MutexGuard<'_, BTreeMap<u64, Bytes>> {
        self.stored.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stores one.
    pub fn put(&self, seq: u64, bytes: Vec<u8>) {
        let mut stored = self.stored();
        stored.insert(seq, bytes.into());
        while stored.len() > KEPT {
            stored.pop_first();
        }
    }

    /// The state a process begins with: the very function that processes use.
    pub fn newest(&self) -> Option<State> {
        snapshot::load_newest(self, u64::MAX)
            .now_or_never()
            .flatten()
    }

    /// Something becomes of them.
    pub fn spoil(&self, how: Spoil) {
        let mut stored = self.stored();
        match how {
            Spoil::LoseAll => stored.clear(),
            Spoil::LoseNewest => {
                stored.pop_last();
            }
            Spoil::Tear => {
                for bytes in stored.values_mut() {
                    bytes.truncate(bytes.len() / 2);
                }
            }
            Spoil::Flip => {
                for (seq, bytes) in stored.iter_mut() {
                    let mut flipped = bytes.to_vec();
                    // Somewhere in head, digest or body.
                    let at = (*seq as usize).wrapping_mul(7) % flipped.len().max(1);
                    if let Some(byte) = flipped.get_mut(at) {
                        *byte ^= 1 << (seq % 8);
                    }
                    *bytes = flipped.into();
                }
            }
            Spoil::Rename => {
                if let Some((seq, bytes)) = stored.pop_last() {
                    stored.insert(seq + 3, bytes);
                }
            }
        }
    }
}

#[async_trait]
impl SnapshotStore for Shelf {
    async fn save(&self, name: SnapshotName, bytes: Bytes) -> Result<(), LogError> {
        self.put(name.0, bytes.to_vec());
        Ok(())
    }

    async fn list(&self) -> Result<Vec<SnapshotName>, LogError> {
        let names = self
            .stored()
            .keys()
            .rev()
            .map(|seq| SnapshotName(*seq))
            .collect();
        Ok(names)
    }

    async fn load(&self, name: SnapshotName) -> Result<Bytes, LogError> {
        let found = self.stored().get(&name.0).cloned();
        found.ok_or_else(|| LogError::Refused(format!("there is no snapshot at {}", name.0)))
    }
}
