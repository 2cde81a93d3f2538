//! The whole system in one thread, with no network and no clock: the real rules, deciders,
//! appenders and agents' duties over a log in memory, under faults that a seed decides.
//!
//! Reading order: [`options`] (what a run is like) → [`scenario`] (what happens in it) →
//! `world` (the simulated processes and the network between them) → [`referee`] (sees every
//! record; keeps the [`ledger`], calls the [`checkers`]) → [`shrink`] (a failing run made
//! small).

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    missing_debug_implementations,
    reason = "a test crate: nobody prints its parts"
)]
#![allow(
    clippy::unnecessary_wraps,
    clippy::needless_pass_by_value,
    reason = "whatever happens is handed over, and may break a rule"
)]

pub mod books;
pub mod budgets;
pub mod checkers;
pub mod filings;
pub mod ledger;
pub mod options;
pub mod random;
pub mod referee;
pub mod run;
pub mod scenario;
pub mod shelf;
pub mod shrink;
mod story;
mod traces;
mod world;

pub use run::{Run, run};
