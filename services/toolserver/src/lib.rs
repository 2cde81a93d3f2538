//! The tools that an attempt's program is offered by its agent: an MCP server for each attempt, over
//! the socket by which it reaches its models.
//!
//! Reading order: [`attempt`] (what tools can do, as whoever runs the attempt does it) → [`input`]
//! (what they take, and its limits) → [`tool`] (the tools themselves) → [`server`] (the protocol; the
//! only place that knows it).
//!
//! # Invariants
//! - A tool speaks of the attempt it was called in, and of subtasks of its task. None takes a name or
//!   an address of another.
//! - Everything that comes in has a limit: a request, each text in it, the calls under way.
//! - What is wrong with a call is its answer, with the field and the remedy: a model reads it.

pub mod attempt;
pub mod input;
pub mod server;
pub mod tool;

pub use attempt::{Attached, Attempt, ChildState, Children, Created, Reply};
pub use server::ToolServer;
