//! Every metric that a role serves on `:9090/metrics`. All carry the label `cell`; Prometheus
//! adds `job` and `instance`.

/// What Prometheus makes by itself.
pub const OF_PROMETHEUS: [&str; 1] = ["ALERTS"];

/// How a metric counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// It only grows.
    Counter,
    /// It goes up and down.
    Gauge,
    /// Counts by upper bound, with their sum.
    Histogram,
}

/// Whose figure it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scope {
    /// The cell's: a function of the log, so the same from every process that holds a replica.
    /// To add them up over processes would count everything once for each.
    Cell,
    /// One process's own.
    Process,
}

/// One metric.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Metric {
    /// Its name; without the suffixes of a histogram.
    pub name: &'static str,
    /// How it counts.
    pub kind: Kind,
    /// Whose figure it is.
    pub scope: Scope,
    /// Its labels beside `cell`.
    pub labels: &'static [&'static str],
}

impl Metric {
    /// The names under which it stands on a page of metrics.
    pub fn series(&self) -> Vec<String> {
        match self.kind {
            Kind::Histogram => ["_bucket", "_count", "_sum"]
                .map(|suffix| format!("{}{suffix}", self.name))
                .to_vec(),
            Kind::Counter | Kind::Gauge => vec![self.name.to_owned()],
        }
    }
}

/// The metric that a name on a page of metrics belongs to.
pub fn of_series(series: &str) -> Option<&'static Metric> {
    METRICS
        .iter()
        .find(|m| m.series().iter().any(|name| name == series))
}

const fn cell(name: &'static str, kind: Kind, labels: &'static [&'static str]) -> Metric {
    let scope = Scope::Cell;
    Metric {
        name,
        kind,
        scope,
        labels,
    }
}

const fn process(name: &'static str, kind: Kind, labels: &'static [&'static str]) -> Metric {
    let scope = Scope::Process;
    Metric {
        name,
        kind,
        scope,
        labels,
    }
}

use Kind::{Counter, Gauge, Histogram};

/// All of them.
pub const METRICS: [Metric; 63] = [
    cell("tasks_total", Counter, &[]),
    cell("tasks_completed", Gauge, &[]),
    cell("tasks_failed", Gauge, &[]),
    cell("pending_tasks", Gauge, &[]),
    cell("workers_active", Gauge, &[]),
    cell("conductor_tasks_submitted_total", Counter, &[]),
    cell("conductor_tasks_rejected_total", Counter, &[]),
    cell("conductor_tasks_duplicate_total", Counter, &[]),
    cell("conductor_tasks_finished_total", Counter, &["outcome"]),
    cell("conductor_attempts_total", Counter, &[]),
    cell("conductor_retries_total", Counter, &[]),
    cell("conductor_dead_letters", Gauge, &[]),
    cell("conductor_agents", Gauge, &["status"]),
    cell("conductor_agents_lost_total", Counter, &[]),
    cell("conductor_slots", Gauge, &[]),
    cell("conductor_slots_used", Gauge, &[]),
    cell("conductor_queue_backlog", Gauge, &["queue"]),
    cell("conductor_queue_oldest_seconds", Gauge, &["queue"]),
    cell("conductor_queue_paused", Gauge, &["queue"]),
    cell("conductor_void_events_total", Counter, &["reason"]),
    cell("conductor_leader_epoch", Gauge, &["role"]),
    cell("conductor_log_last_sequence", Gauge, &[]),
    cell("conductor_stream_messages", Gauge, &["stream"]),
    cell("conductor_stream_bytes", Gauge, &["stream"]),
    process("conductor_is_leader", Gauge, &["role"]),
    process("task_duration_seconds", Histogram, &["outcome"]),
    process("conductor_task_wait_seconds", Histogram, &[]),
    process("conductor_attempt_run_seconds", Histogram, &["outcome"]),
    process("conductor_leases_lost_total", Counter, &[]),
    process("conductor_attempts_given_up_total", Counter, &[]),
    process("conductor_append_seconds", Histogram, &["writer"]),
    process("conductor_frame_events", Histogram, &["writer"]),
    process("conductor_frame_bytes", Histogram, &["writer"]),
    process("conductor_append_repeats_total", Counter, &["writer"]),
    process("conductor_append_refused_total", Counter, &["writer"]),
    process("conductor_election_conflicts_total", Counter, &[]),
    process("conductor_tail_lag_records", Gauge, &["reader"]),
    process("conductor_tail_lag_seconds", Gauge, &["reader"]),
    process("conductor_snapshot_age_seconds", Gauge, &[]),
    process("conductor_snapshot_bytes", Gauge, &[]),
    process("conductor_presence_age_seconds", Gauge, &[]),
    process("conductor_nats_connected", Gauge, &[]),
    process("conductor_nats_rtt_seconds", Gauge, &[]),
    process("conductor_nats_reconnects_total", Counter, &[]),
    process("conductor_server_refusals_total", Counter, &["kind"]),
    process("conductor_attempts_running", Gauge, &[]),
    process("conductor_spans_exported_total", Counter, &[]),
    process("conductor_export_failures_total", Counter, &[]),
    process("conductor_spans_dropped_total", Counter, &[]),
    process("conductor_spans_rejected_total", Counter, &[]),
    process("conductor_traces_refused_total", Counter, &[]),
    process("conductor_metrics_connections_refused_total", Counter, &[]),
    process("conductor_log_lines_suppressed_total", Counter, &[]),
    process("conductor_build_info", Gauge, &["version"]),
    process("process_cpu_seconds_total", Counter, &[]),
    process("process_resident_memory_bytes", Gauge, &[]),
    process("process_open_fds", Gauge, &[]),
    process("process_max_fds", Gauge, &[]),
    process("process_start_time_seconds", Gauge, &[]),
    process("process_threads", Gauge, &[]),
    process("conductor_tokio_workers", Gauge, &[]),
    process("conductor_tokio_alive_tasks", Gauge, &[]),
    process("conductor_tokio_global_queue_depth", Gauge, &[]),
];
