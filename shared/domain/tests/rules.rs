//! The rules, shown: given a log, when a record comes, then that is the state.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

mod rules {
    mod budgets;
    mod deciding;
    mod going_on;
    mod granting;
    mod namespaces;
    mod people;
    mod planning;
    mod properties;
    mod recorded;
    mod removal;
    mod retention;
    mod sharing;
    mod subtasks;
    mod transitions;
    mod voids;
    mod world;
}
