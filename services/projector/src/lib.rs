//! The trace projector: a reader of the log that makes one trace of each task.
//!
//! Reading order: [`tracer`] (records → finished traces, pure) → [`delivery`] (what waits for
//! the collector, pure) → [`checkpoint`] (what it remembers) → [`service`] (reads, exports, remembers how far it came).
//!
//! # Invariants
//! - A trace leaves when its task has ended, whole, and once: what was exported up to is stored
//!   behind every export, with a compare-and-set.
//! - Times are those of the records; ids are functions of the task. The same log gives the same
//!   spans, whoever reads it, and whenever.
//! - A single trace that a collector refuses for good is skipped and counted; one that takes
//!   nothing at all is waited for.
//! - Without a collector it waits: nothing gathers but one batch, and the log keeps the rest.

pub mod checkpoint;
pub mod delivery;
pub mod service;
pub mod tracer;

pub use delivery::Delivery;
pub use service::{Projector, ProjectorOptions};
pub use tracer::{Trace, Tracer};
