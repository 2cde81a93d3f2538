//! The nats-server that Conductor starts by itself: finding it, configuring it, keeping
//! it, and never leaving it behind.
//!
//! Reading order: [`locate`] → [`config`] → [`server`], with [`guard`] (nothing outlives
//! its parent), [`data_dir`] (one process per directory) and [`refusals`] (what a server does not let
//! its clients do) beside them.
//!
//! # Invariants
//! - Speaks no NATS: that is `conductor-eventlog`.
//! - Every child dies with its parent, even by `kill -9`.

pub mod config;
pub mod data_dir;
pub mod guard;
mod health;
pub mod locate;
pub mod refusals;
pub mod server;

pub use config::{Cluster, Leaf, OperatorMode, ServerConfig, StoreKeys, TlsFiles};
pub use data_dir::{DataDir, DataDirError};
pub use locate::{FLOOR, LocateError, PINNED, Version, locate};
pub use refusals::{Refusal, Refusals};
pub use server::{Server, ServerError};
