//! What is said on the log, and how it is written down.
//!
//! Reading order: [`limits`] → [`ids`] → [`subject`] → [`spec`], [`terms`] and
//! [`submission`] (what people ask for) → [`control`] (what operators say) → [`event`] (what the
//! actors record) → [`frame`] (how events share one record). [`credentials`] are files, not on the
//! log.
//!
//! # Invariants
//! - Pure: no clock, no randomness, no I/O, no hash-ordered iteration.
//! - Decoding is total: any byte sequence gives a value or an error, never a panic.
//! - Wire names and schema numbers of stored events are never reused; the golden
//!   files in `golden/` pin the bytes of every version.
//! - Events are property bags: they are not validated when read, because yesterday's
//!   rules must still load. Submissions are validated, with one error per field.

pub mod class;
pub mod compact;
pub mod control;
pub mod credentials;
pub mod event;
pub mod frame;
pub mod human;
pub mod ids;
pub mod limits;
mod msgpack;
pub mod spec;
pub mod subject;
pub mod submission;
pub mod terms;
pub mod trace;
mod words;

pub use class::{Outcome, OutcomeClass};
pub use control::Control;
pub use event::Event;
pub use ids::{AgentId, CellId, Lease, Namespace, Position, QueueName, TaskId, UnixMs};
pub use spec::{RunSpec, TaskSpec};
pub use terms::Terms;
pub use trace::TraceContext;
