//! The event log as a port, and JetStream behind it.
//!
//! Reading order: [`port`] (what a log is) → [`group_commit`] (how a writer gathers
//! events into frames, or submissions into records) → [`memory`] (a log for tests and
//! simulation) → [`jetstream`] (the log of record, and the streams beside it).
//!
//! # Invariants
//! - The only crate that names async-nats.
//! - A writer has at most one append in flight per subject; one whose ack is lost is
//!   repeated, same bytes and same id, until it is known.
//! - Nothing is core-published into a stream: what is not acknowledged did not happen.

pub mod group_commit;
pub mod jetstream;
pub mod memory;
pub mod port;

pub use group_commit::{Fate, GroupCommit};
pub use port::{
    Append, AppendError, Appended, EventLog, LogError, SnapshotName, SnapshotStore, Tail, TailBatch,
};
