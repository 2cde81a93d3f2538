//! Identities: who and what an event speaks of.

use std::fmt;
use std::str::FromStr;

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};
use smol_str::SmolStr;
use uuid::Uuid;

use crate::limits::NAME_BYTES_MAX;
use crate::msgpack::Reader;

/// Milliseconds since the Unix epoch, by the server's clock unless said otherwise.
pub type UnixMs = u64;

/// A task's identity: a UUIDv7, so that it says when it was made. Kept as two numbers, because
/// comparing ids is much of what a fold does.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskId {
    high: u64,
    low: u64,
}

impl TaskId {
    /// Wraps a UUID that the caller has made; versions other than 7 are refused.
    pub fn from_uuid(uuid: Uuid) -> Option<Self> {
        (uuid.get_version_num() == 7).then(|| Self::of(uuid))
    }

    /// Makes an id from a time and 80 bits the caller supplies.
    pub fn from_parts(ms: UnixMs, random: [u8; 10]) -> Self {
        Self::of(uuid::Builder::from_unix_timestamp_millis(ms, &random).into_uuid())
    }

    fn of(uuid: Uuid) -> Self {
        let (high, low) = uuid.as_u64_pair();
        Self { high, low }
    }

    fn uuid(&self) -> Uuid {
        Uuid::from_u64_pair(self.high, self.low)
    }

    /// The id of a task that was submitted without one: a function of the submission's
    /// place in the log, so that every leader, and the submitter, derives the same.
    pub fn derived(cell: &str, at: Position, ms: UnixMs) -> Self {
        let mut hash = Sha256::new();
        hash.update(cell.as_bytes());
        hash.update(at.seq.to_be_bytes());
        hash.update(at.index.to_be_bytes());
        let mut random = [0_u8; 10];
        random.copy_from_slice(hash.finalize().get(..10).unwrap_or(&[0; 10]));
        Self::from_parts(ms, random)
    }

    /// When the id was made, by its maker's clock.
    pub fn made_at_ms(&self) -> UnixMs {
        self.high >> 16
    }

    /// Reads an id; `None` for anything else.
    pub(crate) fn read(r: &mut Reader<'_>) -> Option<Self> {
        Self::from_uuid(Uuid::from_bytes(*r.bin()?))
    }

    /// The 16 bytes.
    pub fn to_bytes(&self) -> [u8; 16] {
        self.uuid().into_bytes()
    }
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.uuid().hyphenated().fmt(f)
    }
}

impl fmt::Debug for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why a text is not a task id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a UUID of version 7")]
pub struct InvalidTaskId;

impl FromStr for TaskId {
    type Err = InvalidTaskId;
    fn from_str(s: &str) -> Result<Self, InvalidTaskId> {
        let uuid = Uuid::parse_str(s).map_err(|_| InvalidTaskId)?;
        Self::from_uuid(uuid).ok_or(InvalidTaskId)
    }
}

impl Serialize for TaskId {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        if s.is_human_readable() {
            s.collect_str(self)
        } else {
            s.serialize_bytes(&self.to_bytes())
        }
    }
}

impl<'de> Deserialize<'de> for TaskId {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct V;
        impl Visitor<'_> for V {
            type Value = TaskId;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a UUIDv7 as text or 16 bytes")
            }
            fn visit_str<E: de::Error>(self, s: &str) -> Result<TaskId, E> {
                s.parse().map_err(E::custom)
            }
            fn visit_bytes<E: de::Error>(self, b: &[u8]) -> Result<TaskId, E> {
                Uuid::from_slice(b)
                    .ok()
                    .and_then(TaskId::from_uuid)
                    .ok_or_else(|| E::custom(InvalidTaskId))
            }
        }
        d.deserialize_any(V)
    }
}

/// The identity of an event: the record's stream sequence and the event's index in the frame.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Position {
    /// Stream sequence of the record, from 1.
    pub seq: u64,
    /// Index of the event in the record's frame, from 0.
    pub index: u32,
}

impl Position {
    /// The event at `index` of the record at `seq`.
    pub const fn new(seq: u64, index: u32) -> Self {
        Self { seq, index }
    }

    /// Reads a position; `None` for anything else.
    pub(crate) fn read(r: &mut Reader<'_>) -> Option<Self> {
        r.exactly(&[0x92])?;
        Some(Self {
            seq: r.uint()?,
            index: r.uint()?,
        })
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.seq, self.index)
    }
}

impl fmt::Debug for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Position {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        (self.seq, self.index).serialize(s)
    }
}

impl<'de> Deserialize<'de> for Position {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        <(u64, u32)>::deserialize(d).map(|(seq, index)| Self { seq, index })
    }
}

/// The right to run one attempt: a report counts only under the task's current lease.
///
/// `assigned` is the position of the assignment and serves as the fencing token.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Lease {
    /// The task.
    pub task: TaskId,
    /// Which try, from 1.
    pub attempt: u32,
    /// Where in the log it was assigned.
    pub assigned: Position,
}

impl Lease {
    /// Reads a lease with its fields in the order they are written in; `None` for anything else.
    pub(crate) fn read(r: &mut Reader<'_>) -> Option<Self> {
        r.exactly(b"\x83\xa4task")?;
        let task = TaskId::read(r)?;
        r.exactly(b"\xa7attempt")?;
        let attempt = r.uint()?;
        r.exactly(b"\xa8assigned")?;
        let assigned = Position::read(r)?;
        Some(Self {
            task,
            attempt,
            assigned,
        })
    }
}

/// Why a text is not a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("must be 1 to {NAME_BYTES_MAX} characters of A-Z a-z 0-9 _ -")]
pub struct InvalidName;

/// Whether `s` may stand as one token of a subject.
pub fn is_valid_name(s: &str) -> bool {
    !s.is_empty()
        && s.len() <= NAME_BYTES_MAX
        && s.bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

macro_rules! names {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(SmolStr);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str { &self.0 }

            /// Takes a name from an event that is already in the log, as it stands.
            pub fn from_log(s: &str) -> Self { Self(SmolStr::new(s)) }
        }
        impl FromStr for $name {
            type Err = InvalidName;
            fn from_str(s: &str) -> Result<Self, InvalidName> {
                if is_valid_name(s) { Ok(Self(SmolStr::new(s))) } else { Err(InvalidName) }
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { f.write_str(&self.0) }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { fmt::Debug::fmt(&self.0, f) }
        }
    )*};
}

names! {
    /// One log with its actors; a region runs one cell or more.
    CellId;
    /// An agent's name: one subject token, stable across its restarts.
    AgentId;
    /// A queue: where submissions wait, can be paused and have a backlog cap.
    QueueName;
    /// A tenant: the first level of fair sharing.
    Namespace;
}

impl Default for Namespace {
    fn default() -> Self {
        Self(SmolStr::new_static("default"))
    }
}

impl Default for CellId {
    fn default() -> Self {
        Self(SmolStr::new_static("local"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn derived_id_depends_on_place_alone() {
        let a = TaskId::derived("local", Position::new(7, 0), 1_700_000_000_000);
        assert_eq!(
            a,
            TaskId::derived("local", Position::new(7, 0), 1_700_000_000_000)
        );
        assert_ne!(
            a,
            TaskId::derived("local", Position::new(7, 1), 1_700_000_000_000)
        );
        assert_ne!(
            a,
            TaskId::derived("other", Position::new(7, 0), 1_700_000_000_000)
        );
        assert_eq!(a.made_at_ms(), 1_700_000_000_000);
    }

    #[test]
    fn only_version_seven_is_an_id() {
        assert!(
            "6ba7b810-9dad-41d1-80b4-00c04fd430c8"
                .parse::<TaskId>()
                .is_err()
        );
        let id = TaskId::from_parts(5, [1; 10]);
        assert_eq!(id.to_string().parse::<TaskId>(), Ok(id));
    }

    #[test]
    fn names_are_subject_tokens() {
        assert!("a-b_9".parse::<QueueName>().is_ok());
        for bad in ["", "a.b", "a b", "*", ">", &"x".repeat(65)] {
            assert!(bad.parse::<QueueName>().is_err(), "{bad}");
        }
    }
}
