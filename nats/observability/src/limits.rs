//! From where on something is bad. Alerts and the colours of panels both take it from here.

/// A reader of the log that a role decides from is this many seconds behind.
pub const TAIL_LAG_S: f64 = 10.0;
/// The trace projector is this many records behind: traces come late, nothing waits for them.
pub const PROJECTOR_LAG_RECORDS: u64 = 10_000;
/// A ready task has waited this many seconds.
pub const OLDEST_S: f64 = 900.0;
/// So many tasks have to wait before a growing backlog is worth a word.
pub const BACKLOG_MIN: u64 = 100;
/// This part of a backlog more in an hour is growth.
pub const BACKLOG_GROWTH_PER_HOUR: f64 = 0.5;
/// This part of the tasks that ended did not succeed.
pub const FAILURE_RATIO: f64 = 0.25;
/// So many tasks have to fail before their part of all is worth a word.
pub const FAILURES_MIN: u64 = 10;
/// This part of the submissions was rejected.
pub const REJECTED_RATIO: f64 = 0.1;
/// So many dead letters are more than somebody looks after.
pub const DEAD_LETTERS: u64 = 100;
/// So many leases lost in a quarter of an hour are no accident.
pub const LEASES_LOST: u64 = 3;
/// The longest silence of an agent, in seconds: a heartbeat comes every 15, and 45 without one
/// end the agent.
pub const PRESENCE_S: f64 = 35.0;
/// An append takes this many seconds (p99); a busy server of two cores takes 0.03 to 0.09.
pub const APPEND_P99_S: f64 = 0.5;
/// So many appends a second are sent again because no answer came in time.
pub const REPEATS_PER_S: f64 = 0.1;
/// So many events under an epoch that is over, in five minutes: an election leaves some behind.
pub const STALE_EPOCH: u64 = 10;
/// So many records without a snapshot: one is due every 100,000.
pub const RECORDS_WITHOUT_SNAPSHOT: u64 = 300_000;
/// A round trip to the server takes this many seconds.
pub const RTT_S: f64 = 0.25;
/// This part of the files that a process may open is open.
pub const FILES_RATIO: f64 = 0.8;
/// So many starts of a process in half an hour.
pub const RESTARTS: u64 = 3;
