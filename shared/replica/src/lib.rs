//! A replica follows the log, holds the folded state and hosts the roles that decide.
//!
//! Reading order: [`follow`] (records in order, come what may) → [`reader`] (a state
//! from them: replay, CLI) → [`role`] (what a decider looks like) → [`host`] (folds and lets
//! roles decide) → [`replica`] (the actor around it), with [`election`] and [`appender`]
//! beside it.
//!
//! # Invariants
//! - A process tails the log once, however many roles it runs.
//! - Nothing asynchronous stands between reading the state and deciding from it.
//! - What is decided takes effect only by coming back in the tail.

pub mod appender;
pub mod bid;
pub mod clock;
pub mod election;
pub mod follow;
pub mod host;
pub mod reader;
pub mod replica;
pub mod role;
pub mod snapshot;

pub use bid::Bid;
pub use follow::{Follower, Gap};
pub use reader::{ReadFrom, Reader};
pub use replica::{Replica, ReplicaOptions, ReplicaStatus};
