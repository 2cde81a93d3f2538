//! What a process counts as it goes: every name stands here once.
//!
//! What can be read from somewhere at any time is no business of this file: it is read when
//! somebody asks, see [`crate::sample`]. Cardinality is bounded: labels take few values, and no
//! task, attempt or agent is one.

use std::borrow::Cow;
use std::sync::OnceLock;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::exemplar::HistogramWithExemplars;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

/// How something ended: `succeeded`, or why not.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ByOutcome {
    outcome: &'static str,
}

/// Who appended: `orchestrator`, `scheduler` or `agent`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ByWriter {
    writer: &'static str,
}

/// What a server refused: `publish`, `subscribe`, `connect` or `limit`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ByKind {
    kind: &'static str,
}

/// The trace of one that was counted.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OfTrace {
    trace_id: String,
}

type Times = HistogramWithExemplars<OfTrace>;

/// From a millisecond to about nine hours, each four times the one before.
#[derive(Clone, Copy, Debug)]
struct Long;

impl MetricConstructor<Times> for Long {
    fn new_metric(&self) -> Times {
        Times::new(long())
    }
}

fn long() -> impl Iterator<Item = f64> {
    exponential_buckets(0.001, 4.0, 13)
}

/// From 100 µs to 13 s.
#[derive(Clone, Copy, Debug)]
struct Short;

impl MetricConstructor<Histogram> for Short {
    fn new_metric(&self) -> Histogram {
        Histogram::new(exponential_buckets(0.000_1, 2.0, 18))
    }
}

/// From 1 to 65,536 events.
#[derive(Clone, Copy, Debug)]
struct Count;

impl MetricConstructor<Histogram> for Count {
    fn new_metric(&self) -> Histogram {
        Histogram::new(exponential_buckets(1.0, 4.0, 9))
    }
}

/// From 64 bytes to 1 MiB.
#[derive(Clone, Copy, Debug)]
struct Bytes;

impl MetricConstructor<Histogram> for Bytes {
    fn new_metric(&self) -> Histogram {
        Histogram::new(exponential_buckets(64.0, 4.0, 8))
    }
}

/// What this process has counted.
#[derive(Debug)]
pub struct Metrics {
    task_duration: Family<ByOutcome, Times, Long>,
    task_wait: Times,
    attempt_run: Family<ByOutcome, Times, Long>,
    append: Family<ByWriter, Histogram, Short>,
    frame_events: Family<ByWriter, Histogram, Count>,
    frame_bytes: Family<ByWriter, Histogram, Bytes>,
    append_repeats: Family<ByWriter, Counter>,
    append_refused: Family<ByWriter, Counter>,
    server_refusals: Family<ByKind, Counter>,
    /// Attempts that ended because their agent or its heartbeat was lost.
    pub leases_lost: Counter,
    /// Attempts that an agent gave up because it was told to end.
    pub attempts_given_up: Counter,
    /// Places of leaders and agents that somebody else had taken first.
    pub election_conflicts: Counter,
    /// Attempts that run in this process.
    pub attempts_running: Gauge,
    /// Spans that a collector took.
    pub spans_exported: Counter,
    /// Exports that no collector took.
    pub export_failures: Counter,
    /// Spans that a collector rejected of an export that it took.
    pub spans_rejected: Counter,
    /// Traces that a collector refused for good, which were skipped.
    pub traces_refused: Counter,
    /// Live spans that found no room.
    pub spans_dropped: Counter,
    /// Connections to metrics and health that were one too many.
    pub connections_refused: Counter,
    /// Lines of log that were left out because they repeat.
    pub log_lines_suppressed: Counter,
    /// Record up to which this process has exported traces; 0 where it exports none.
    pub projected_seq: AtomicU64,
    /// That record's time, in milliseconds since 1970.
    pub projected_ms: AtomicU64,
}

/// What this process has counted; the same for all of it.
pub fn metrics() -> &'static Metrics {
    static METRICS: OnceLock<Metrics> = OnceLock::new();
    METRICS.get_or_init(|| {
        let metrics = Metrics::new();
        metrics.begin();
        metrics
    })
}

/// All that append.
const WRITERS: [&str; 3] = ["orchestrator", "scheduler", "agent"];
/// All that a server refuses.
const REFUSALS: [&str; 4] = ["publish", "subscribe", "connect", "limit"];

impl Metrics {
    fn new() -> Self {
        Self {
            task_duration: Family::new_with_constructor(Long),
            task_wait: Times::new(long()),
            attempt_run: Family::new_with_constructor(Long),
            append: Family::new_with_constructor(Short),
            frame_events: Family::new_with_constructor(Count),
            frame_bytes: Family::new_with_constructor(Bytes),
            append_repeats: Family::default(),
            append_refused: Family::default(),
            server_refusals: Family::default(),
            leases_lost: Counter::default(),
            attempts_given_up: Counter::default(),
            election_conflicts: Counter::default(),
            attempts_running: Gauge::default(),
            spans_exported: Counter::default(),
            export_failures: Counter::default(),
            spans_rejected: Counter::default(),
            traces_refused: Counter::default(),
            spans_dropped: Counter::default(),
            connections_refused: Counter::default(),
            log_lines_suppressed: Counter::default(),
            projected_seq: AtomicU64::new(0),
            projected_ms: AtomicU64::new(0),
        }
    }

    /// Begins at 0 what may never happen: a rate is seen only of what was there before.
    fn begin(&self) {
        for writer in WRITERS {
            let by = ByWriter { writer };
            drop(self.append_repeats.get_or_create(&by));
            drop(self.append_refused.get_or_create(&by));
        }
        for kind in REFUSALS {
            drop(self.server_refusals.get_or_create(&ByKind { kind }));
        }
    }

    /// A task ended after this long since it was accepted.
    pub fn task_ended(&self, outcome: &'static str, took: Duration, trace: Option<&str>) {
        let times = self.task_duration.get_or_create(&ByOutcome { outcome });
        times.observe(took.as_secs_f64(), of_trace(trace), None);
    }

    /// An attempt that had waited this long for an agent ran this long.
    pub fn attempt_ended(
        &self,
        outcome: &'static str,
        waited: Duration,
        ran: Duration,
        trace: Option<&str>,
    ) {
        self.task_wait
            .observe(waited.as_secs_f64(), of_trace(trace), None);
        let times = self.attempt_run.get_or_create(&ByOutcome { outcome });
        times.observe(ran.as_secs_f64(), of_trace(trace), None);
    }

    /// A frame of so many events and bytes is in the log, after this long.
    pub fn appended(&self, writer: &'static str, took: Duration, events: usize, bytes: usize) {
        let by = ByWriter { writer };
        let append = self.append.get_or_create(&by);
        append.observe(took.as_secs_f64());
        let (events, bytes) = (events as f64, bytes as f64);
        self.frame_events.get_or_create(&by).observe(events);
        self.frame_bytes.get_or_create(&by).observe(bytes);
    }

    /// An append was not acknowledged in time.
    pub fn append_repeated(&self, writer: &'static str) {
        self.append_repeats
            .get_or_create(&ByWriter { writer })
            .inc();
    }

    /// The log refused a frame.
    pub fn append_refused(&self, writer: &'static str) {
        self.append_refused
            .get_or_create(&ByWriter { writer })
            .inc();
    }

    /// The server that this process keeps refused its clients something so many times.
    pub fn server_refused(&self, kind: &'static str, times: u64) {
        self.server_refusals
            .get_or_create(&ByKind { kind })
            .inc_by(times);
    }

    /// A registry that shows them, beside what else is registered there.
    pub(crate) fn registry(&self, cell: &str) -> Registry {
        let labels = [(Cow::Borrowed("cell"), Cow::Owned(cell.to_owned()))];
        let mut r = Registry::with_labels(labels.into_iter());
        // Help texts end with a full stop that the registry adds.
        r.register(
            "task_duration_seconds",
            "From a task's acceptance to its end, as the leading orchestrator saw it",
            self.task_duration.clone(),
        );
        r.register(
            "conductor_task_wait_seconds",
            "From ready to begun, as the leading orchestrator saw it",
            self.task_wait.clone(),
        );
        r.register(
            "conductor_attempt_run_seconds",
            "From the beginning of an attempt to its end, as the leading orchestrator saw it",
            self.attempt_run.clone(),
        );
        r.register(
            "conductor_append_seconds",
            "From the first try to append a frame to its acknowledgement",
            self.append.clone(),
        );
        r.register(
            "conductor_frame_events",
            "Events of each frame that was appended",
            self.frame_events.clone(),
        );
        r.register(
            "conductor_frame_bytes",
            "Bytes of each frame that was appended",
            self.frame_bytes.clone(),
        );
        r.register(
            "conductor_append_repeats",
            "Appends that were not acknowledged in time and were tried again",
            self.append_repeats.clone(),
        );
        r.register(
            "conductor_append_refused",
            "Frames that the log refused",
            self.append_refused.clone(),
        );
        r.register(
            "conductor_server_refusals",
            "What the server that this process keeps refused its clients",
            self.server_refusals.clone(),
        );
        self.register_counters(&mut r);
        r
    }

    fn register_counters(&self, r: &mut Registry) {
        for (name, help, counter) in [
            (
                "conductor_leases_lost",
                "Attempts that ended because their agent or its heartbeat was lost",
                &self.leases_lost,
            ),
            (
                "conductor_attempts_given_up",
                "Attempts that an agent gave up because it was told to end",
                &self.attempts_given_up,
            ),
            (
                "conductor_election_conflicts",
                "Places of leaders and agents that somebody else had taken first",
                &self.election_conflicts,
            ),
            (
                "conductor_spans_exported",
                "Spans that a collector took",
                &self.spans_exported,
            ),
            (
                "conductor_export_failures",
                "Exports that no collector took",
                &self.export_failures,
            ),
            (
                "conductor_spans_rejected",
                "Spans that a collector rejected of an export that it took",
                &self.spans_rejected,
            ),
            (
                "conductor_traces_refused",
                "Traces that a collector refused for good, which were skipped",
                &self.traces_refused,
            ),
            (
                "conductor_spans_dropped",
                "Live spans that found no room",
                &self.spans_dropped,
            ),
            (
                "conductor_metrics_connections_refused",
                "Connections to metrics and health that were one too many",
                &self.connections_refused,
            ),
            (
                "conductor_log_lines_suppressed",
                "Lines of log that were left out because they repeat",
                &self.log_lines_suppressed,
            ),
        ] {
            r.register(name, help, counter.clone());
        }
        r.register(
            "conductor_attempts_running",
            "Attempts that run in this process",
            self.attempts_running.clone(),
        );
    }
}

fn of_trace(trace: Option<&str>) -> Option<OfTrace> {
    trace.map(|trace| OfTrace {
        trace_id: trace.to_owned(),
    })
}
