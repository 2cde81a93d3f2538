//! The proxy against a provider of our own on loopback.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

mod budgets;
mod fake;
mod passing;
mod refusing;
