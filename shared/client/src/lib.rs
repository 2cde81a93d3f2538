//! What a program that submits much uses.
//!
//! The server syncs a few thousand records per second, however many submissions each holds.
//! A [`Submitter`] gathers as our own writers do: while one append is in flight on a queue's
//! subject, further submissions gather into the next record. There is no timer: one
//! submission alone goes at once, many at a time share a record.
//!
//! ```no_run
//! use std::sync::Arc;
//!
//! use conductor_client::Submitter;
//! use conductor_eventlog::jetstream::{Connect, Connection};
//! use conductor_protocol::spec::{CommandSpec, RunSpec};
//! use conductor_protocol::submission::Submission;
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let connect = Connect::to("nats://127.0.0.1:4222", "nightly", "local".parse()?);
//! let connection = Connection::open(&connect).await?;
//! let submitter = Submitter::new(Arc::new(connection));
//! let queue = "default".parse()?;
//! let tasks: Vec<Submission> = (0..1_000)
//!     .map(|n| Submission {
//!         // The same key again is the same task: safe to submit once more.
//!         key: Some(format!("nightly-{n}")),
//!         run: Some(RunSpec::Command(Box::new(CommandSpec {
//!             argv: vec!["make".to_owned(), format!("part-{n}")],
//!             ..CommandSpec::default()
//!         }))),
//!         ..Submission::default()
//!     })
//!     .collect();
//! let positions = submitter.submit_all(&queue, &tasks).await?;
//! println!("the first of them stands at {}", positions[0]);
//! # Ok(())
//! # }
//! ```
//!
//! Reading order: [`Submitter`] → `ledger` (who is told what of a record) → `worker` (the
//! task behind it) → [`SubmitError`].
//!
//! # Invariants
//! - A position is given only for what the log has acknowledged.
//! - One append in flight per queue: submissions of one queue are stored in the order in
//!   which they were handed over.
//! - What waits is bounded; whoever submits faster than the log takes waits.

mod error;
mod ledger;
mod submitter;
mod worker;

pub use error::SubmitError;
pub use submitter::{Submitter, WAITING_BYTES_MAX};
