//! A real nats-server and real Conductor processes for every test: its own server, on a
//! free port, with its own store, gone when the test ends, however it ends.
//!
//! Reading order: [`server`] (the servers) → [`process`] (processes of ours and what can be
//! done to them) → [`system`] (a running system, and the log as a test sees it) →
//! [`plain`] (a NATS client that knows nothing of Conductor) → [`proxy`] (a network that
//! can be cut) → [`otlp`] (a collector of spans).
//!
//! Nothing here waits for a time to pass: it waits for something to be in the log, or for
//! a process to have ended, and gives up after [`PATIENCE`] with what it saw. Only tests of what goes
//! by days wait past midnight ([`away_from_midnight`]).

// A harness fails by panicking, with everything a person needs to see why.
#![allow(
    clippy::panic,
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::indexing_slicing
)]

pub mod binary;
pub mod http;
pub mod otlp;
pub mod plain;
pub mod process;
pub mod proxy;
pub mod server;
pub mod story;
pub mod system;
pub mod wait;

use std::time::Duration;

pub use otlp::Collector;
pub use plain::PlainClient;
pub use process::Process;
pub use proxy::{Link, Proxy};
pub use server::{TestCluster, TestServer};
pub use story::{Story, Told};
pub use system::System;
pub use wait::{away_from_midnight, until, until_asked};

/// How long anything may take on a slow, busy machine before a test gives up.
pub const PATIENCE: Duration = Duration::from_secs(90);
