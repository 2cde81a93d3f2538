//! The rules: what a record of the log does to the state, and what is decided from it.
//!
//! Reading order: [`record`] → [`state`] → [`fold`] → [`decide`] (orchestrator) →
//! [`plan`] (scheduler) → [`explain`].
//!
//! # Invariants
//! - Pure and synchronous: no clock, no randomness, no I/O, no hash-ordered iteration.
//!   Time is the record's, or an argument; entropy is an argument.
//! - [`fold::apply`] is total: any record gives a new state and one verdict per event.
//! - Nothing is decided twice: what is in flight stands in an overlay until its record
//!   comes back in the tail.
//! - The state's bytes are a function of the log alone; the derived [`state::Index`] is
//!   rebuilt from them and never part of them.

pub mod config;
pub mod decide;
pub mod explain;
pub mod fold;
pub mod plan;
pub mod planted;
pub mod record;
pub mod state;
pub mod void;

pub use record::{Decoded, Record};
pub use state::State;
pub use void::{Verdict, VoidReason};
