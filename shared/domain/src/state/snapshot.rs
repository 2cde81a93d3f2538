//! The state's bytes: one form, whoever computes it.

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::State;
use crate::planted::{Bug, is_planted};

/// Raised whenever the same log folds to other bytes: a snapshot of another version is
/// not read, and the recorded-log test says so.
pub const STATE_VERSION: u32 = 6;

/// SHA-256 over the state's bytes.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Digest(pub [u8; 32]);

impl std::fmt::Display for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl std::fmt::Debug for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

impl std::str::FromStr for Digest {
    type Err = SnapshotError;
    fn from_str(s: &str) -> Result<Self, SnapshotError> {
        let mut out = [0_u8; 32];
        if s.len() != 64 {
            return Err(SnapshotError::Damaged);
        }
        for (byte, pair) in out.iter_mut().zip(s.as_bytes().chunks(2)) {
            *byte = std::str::from_utf8(pair)
                .ok()
                .and_then(|p| u8::from_str_radix(p, 16).ok())
                .ok_or(SnapshotError::Damaged)?;
        }
        Ok(Self(out))
    }
}

/// Why a snapshot cannot be used. It only costs time: the log has everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// Its bytes do not have the digest they are stored with, or cannot be read.
    #[error("the snapshot is damaged")]
    Damaged,
    /// It was written by software that folds differently.
    #[error("the snapshot is of state version {0}, this software has {STATE_VERSION}")]
    OtherVersion(u32),
}

const MAGIC: &[u8; 8] = b"CNDSNAP1";
const HEAD: usize = 8 + 4 + 32;
/// Bytes of a task in a snapshot, about.
const TASK_BYTES: usize = 640;
/// Bytes of a tombstone in a snapshot.
const TOMBSTONE_BYTES: usize = 28;

impl State {
    /// The state's bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        // Serialising plain structs into memory has no way to fail; should it ever,
        // the empty bytes make every comparison and every load fail loudly.
        rmp_serde::to_vec_named(self).unwrap_or_default()
    }

    /// SHA-256 over the state's bytes.
    pub fn digest(&self) -> Digest {
        Digest(Sha256::digest(self.to_bytes()).into())
    }

    /// A snapshot: magic, state version, digest, bytes.
    pub fn to_snapshot(&self) -> Vec<u8> {
        // It may be a hundred megabytes, next to the state itself: made once, and in place.
        let about = self.tasks.len() * TASK_BYTES + self.tombstones.len() * TOMBSTONE_BYTES;
        let mut out = Vec::with_capacity(HEAD + about);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&STATE_VERSION.to_be_bytes());
        out.extend_from_slice(&[0; 32]);
        // See `to_bytes`.
        if rmp_serde::encode::write_named(&mut out, self).is_err() {
            out.truncate(HEAD);
        }
        let digest = Sha256::digest(out.get(HEAD..).unwrap_or_default());
        if let Some(place) = out.get_mut(HEAD - digest.len()..HEAD) {
            place.copy_from_slice(&digest);
        }
        out
    }

    /// Reads a snapshot back, verifying its digest, and rebuilds what is derived.
    pub fn from_snapshot(snapshot: &[u8]) -> Result<Self, SnapshotError> {
        let (head, bytes) = snapshot
            .split_at_checked(HEAD)
            .ok_or(SnapshotError::Damaged)?;
        let rest = head.strip_prefix(MAGIC).ok_or(SnapshotError::Damaged)?;
        let (version, digest) = rest.split_at_checked(4).ok_or(SnapshotError::Damaged)?;
        let version = version.iter().fold(0_u32, |n, b| (n << 8) | u32::from(*b));
        if version != STATE_VERSION {
            return Err(SnapshotError::OtherVersion(version));
        }
        if Sha256::digest(bytes).as_slice() != digest {
            return Err(SnapshotError::Damaged);
        }
        let mut state: Self = rmp_serde::from_slice(bytes).map_err(|_| SnapshotError::Damaged)?;
        if is_planted(Bug::SnapshotIncomplete) {
            state.counters.retries = 0;
        }
        state.rebuild_index();
        Ok(state)
    }
}
