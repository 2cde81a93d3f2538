//! The agent: runs attempts, isolated, and reports what became of them.
//!
//! Reading order: [`duty`] (takes assignments, keeps leases, reports: decides nothing that
//! is not told by the log) → [`service`] (the actor around it) → [`attempt`] (one
//! attempt from assignment to end) → [`runtime`] (what to run, how to read it) →
//! [`sandbox`] (what it is boxed in by) → [`input`], [`process`] and [`reaper`] (a process tree
//! that is gone afterwards), [`output`]. Beside them, what a program reaches the world by:
//! [`models`], [`forward`], [`secrets`], [`mask`]; and what it can ask of the agent: [`tools`].
//!
//! # Invariants
//! - It hears the scheduler alone and speaks of its own attempts alone.
//! - Whatever ends an attempt, nothing of its process tree is left.
//! - No key is where a program runs, and no secret in what leaves it.
//! - Output may be dropped and counted; facts are never dropped.

pub mod attempt;
pub(crate) mod beneath;
pub mod dirs;
pub mod duty;
pub mod files;
pub mod forward;
pub mod input;
pub mod inside;
pub mod lines;
pub mod mask;
pub mod models;
pub mod output;
pub mod people;
pub mod process;
pub mod reaper;
pub mod runtime;
pub mod sandbox;
pub mod schema;
pub mod secrets;
pub mod service;
pub mod sessions;
pub mod subtasks;
pub mod tools;
pub(crate) mod trees;
pub mod usage;
pub mod workspace;
