//! The trace projector: a reader of the log that makes one trace of each task.
//!
//! Reading order: [`tracer`] (records → finished traces, pure) → [`checkpoint`] (what it
//! remembers) → [`service`] (reads, exports, remembers how far it came).
//!
//! # Invariants
//! - A trace leaves when its task has ended, whole, and once: what was exported up to is stored
//!   behind every export, with a compare-and-set.
//! - Times are those of the records; ids are functions of the task. The same log gives the same
//!   spans, whoever reads it, and whenever.
//! - Without a collector it waits: nothing gathers but one batch, and the log keeps the rest.

pub mod checkpoint;
pub mod service;
pub mod tracer;

pub use service::{Projector, ProjectorOptions};
pub use tracer::{Trace, Tracer};
