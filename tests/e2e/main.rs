//! The whole system, as people meet it: the real binary, a real nats-server for each test.
//! A test target of the `conductor` package, so that cargo builds the binary first.

mod agents;
mod control;
mod failover;
mod forms;
mod needs;
mod storm;
mod timing;
mod trouble;
mod up;
