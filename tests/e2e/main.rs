//! The whole system, as people meet it: the real binary, a real nats-server for each test.
//! A test target of the `conductor` package, so that cargo builds the binary first.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

mod agents;
mod attack;
mod budgets;
mod claude;
mod cli;
mod client;
mod codex;
mod collectors;
mod conformance;
mod control;
mod crowd;
mod encrypted;
mod failover;
mod folder;
mod forms;
mod mcp;
mod model_api;
mod models;
mod needs;
mod people;
mod sandbox;
mod sight;
mod storm;
mod subtasks;
mod timing;
mod tls;
mod tools;
mod top;
mod traces;
mod trouble;
mod up;
mod workspace;
