//! Metrics and health of what runs in this process.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};

use conductor_eventlog::EventLog;
use conductor_eventlog::jetstream::Connection;
use conductor_eventlog::jetstream::figures::StreamSize;
use conductor_replica::ReplicaStatus;
use conductor_replica::replica::{Measured, ReplicaMsg};
use conductor_telemetry::host::ThisProcess;
use conductor_telemetry::metrics;
use conductor_telemetry::sample::{Sample, Source};
use conductor_telemetry::serve::{self, Answer, Health, Sight};
use ractor::ActorRef;
use tokio::sync::watch;

use crate::exit::{Exit, Failure, Outcome};
use crate::settings::{MetricsAddr, Settings};

/// Records behind the log's end at which a process still counts as ready.
const BEHIND_MAX: u64 = 10_000;
/// How long a replica may take to answer.
const ANSWER_MS: u64 = 1_000;
/// How long the servers may take to say how large a stream is.
const LINK_MAX: Duration = Duration::from_millis(700);
/// How long the streams' sizes are good for.
const SIZES_KEPT: Duration = Duration::from_secs(10);

type Sizes = (std::time::Instant, Vec<StreamSize>);
type Samples<'a> = Pin<Box<dyn Future<Output = Vec<Sample>> + Send + 'a>>;

/// What can be seen of this process; filled in as its parts come up.
#[derive(Debug, Default)]
pub(super) struct Watched {
    /// The link, once there is one.
    pub(super) connection: OnceLock<Arc<Connection>>,
    /// The replica, where this process has one.
    pub(super) replica: OnceLock<watch::Receiver<ReplicaStatus>>,
    /// Its actor, while it runs.
    pub(super) actor: Mutex<Option<ActorRef<ReplicaMsg>>>,
    /// Whether each agent of this process has joined.
    joined: Mutex<Vec<Arc<AtomicBool>>>,
    /// Whether all parts were started.
    pub(super) has_started: AtomicBool,
    sizes: Mutex<Option<Sizes>>,
}

impl Watched {
    /// One more agent is waited for; set once it has joined.
    pub(super) fn expects_agent(&self) -> Arc<AtomicBool> {
        let has_joined = Arc::new(AtomicBool::new(false));
        let mut joined = self.joined.lock().unwrap_or_else(PoisonError::into_inner);
        joined.push(Arc::clone(&has_joined));
        has_joined
    }

    /// Shows this process where the settings say, from now on; returns where.
    pub(super) async fn show(self: &Arc<Self>, settings: &Settings) -> Outcome<Option<SocketAddr>> {
        let (wanted, may_move) = match settings.metrics {
            MetricsAddr::Off => return Ok(None),
            MetricsAddr::Unnamed(wanted) => (wanted, true),
            MetricsAddr::Named(wanted) => (wanted, false),
        };
        let listener = serve::listen(wanted, may_move).await.map_err(|e| {
            let message = format!("metrics cannot be shown on {wanted}: {e}");
            Failure::new(Exit::Conflict, message).hint("name another address with --metrics-addr")
        })?;
        let at = listener.local_addr()?;
        let sight = Sight {
            cell: settings.cell.to_string(),
            sources: vec![
                Box::new(ThisProcess),
                Box::new(Link(Arc::clone(self))),
                Box::new(Cell(Arc::clone(self))),
            ],
            health: Box::new(Well {
                watched: Arc::clone(self),
                behind_max: BEHIND_MAX,
            }),
        };
        tokio::spawn(serve::serve(listener, sight));
        tracing::info!(%at, "metrics are shown");
        Ok(Some(at))
    }

    async fn measured(&self) -> Option<Measured> {
        // A lock that must not be held over an await.
        let actor = {
            let actor = self.actor.lock().unwrap_or_else(PoisonError::into_inner);
            actor.clone()?
        };
        ractor::call_t!(actor, ReplicaMsg::Measure, ANSWER_MS).ok()
    }

    /// The sizes of the streams beside the log, asked for no more often than they matter.
    async fn sizes(&self, connection: &Connection) -> Vec<StreamSize> {
        let kept = self
            .sizes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        if let Some((_, sizes)) = kept.filter(|(at, _)| at.elapsed() < SIZES_KEPT) {
            return sizes;
        }
        let sizes = connection.sizes_beside().await;
        let now = Some((std::time::Instant::now(), sizes.clone()));
        *self.sizes.lock().unwrap_or_else(PoisonError::into_inner) = now;
        sizes
    }
}

/// The link to the servers.
struct Link(Arc<Watched>);

impl Source for Link {
    fn samples(&self) -> Samples<'_> {
        Box::pin(async {
            let connection = self.0.connection.get();
            let is_up = connection.is_some_and(|c| *c.is_up().borrow());
            let help = "Whether the link to NATS is up";
            let connected = f64::from(u8::from(is_up));
            let mut samples = vec![Sample::gauge("conductor_nats_connected", help, connected)];
            if let Some(connection) = connection {
                samples.push(Sample::counter(
                    "conductor_nats_reconnects",
                    "How often the link came back after it was lost",
                    connection.reconnects(),
                ));
            }
            samples
        })
    }
}

/// The cell, as far as this process follows its log.
struct Cell(Arc<Watched>);

impl Source for Cell {
    fn samples(&self) -> Samples<'_> {
        Box::pin(async {
            let Some(connection) = self.0.connection.get() else {
                return Vec::new();
            };
            // The replica answers though the servers do not.
            let log = tokio::time::timeout(LINK_MAX, connection.log_size());
            let (measured, log) = tokio::join!(self.0.measured(), log);
            let log = log.ok().flatten();
            let mut samples = log
                .iter()
                .flat_map(|(size, took)| link(size, *took))
                .collect::<Vec<_>>();
            let projected = metrics().projected_seq.load(Ordering::Relaxed);
            if let Some((size, _)) = &log {
                if projected > 0 {
                    let time_ms = metrics().projected_ms.load(Ordering::Relaxed);
                    samples.extend(lag("projector", (projected, time_ms), size.last_seq));
                }
                if let Some(measured) = &measured {
                    samples.extend(lags(measured, size.last_seq));
                    samples.extend(sizes(size));
                    let beside = tokio::time::timeout(LINK_MAX, self.0.sizes(connection)).await;
                    samples.extend(beside.iter().flatten().flat_map(sizes));
                }
            }
            samples.extend(measured.into_iter().flat_map(|m| m.samples));
            samples
        })
    }
}

fn link(size: &StreamSize, round_trip: Duration) -> [Sample; 2] {
    [
        Sample::gauge(
            "conductor_nats_rtt_seconds",
            "Round trip of a request to JetStream",
            round_trip.as_secs_f64(),
        ),
        Sample::gauge(
            "conductor_log_last_sequence",
            "Last record of the log",
            size.last_seq as f64,
        ),
    ]
}

fn lags(measured: &Measured, last_seq: u64) -> [Sample; 2] {
    let reader = match measured.roles.as_slice() {
        [role] => role.as_str(),
        _ => "replica",
    };
    lag(reader, (measured.seq, measured.time_ms), last_seq)
}

/// How far a reader that stands at this record, of this time, is behind the log's last.
fn lag(reader: &str, (seq, time_ms): (u64, u64), last_seq: u64) -> [Sample; 2] {
    let records = last_seq.saturating_sub(seq);
    let behind_ms = if records == 0 {
        0
    } else {
        now_ms().saturating_sub(time_ms)
    };
    let records = Sample::gauge(
        "conductor_tail_lag_records",
        "Records of the log that are not read yet",
        records as f64,
    );
    let seconds = Sample::gauge(
        "conductor_tail_lag_seconds",
        "Age of the last record read, where there are later ones",
        behind_ms as f64 / 1_000.0,
    );
    [records, seconds].map(|sample| sample.label("reader", reader))
}

fn sizes(size: &StreamSize) -> Vec<Sample> {
    let of = |name, help, n: u64| Sample::gauge(name, help, n as f64).label("stream", size.stream);
    vec![
        of(
            "conductor_stream_messages",
            "Messages of the stream",
            size.messages,
        ),
        of("conductor_stream_bytes", "Bytes of the stream", size.bytes),
    ]
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |d| d.as_millis() as u64)
}

/// Whether this process can do its work.
struct Well {
    watched: Arc<Watched>,
    /// Records behind the log's end at which it still counts as ready.
    behind_max: u64,
}

impl Health for Well {
    fn not_started(&self) -> Option<String> {
        if self.watched.connection.get().is_none() {
            return Some("not connected to NATS yet".to_owned());
        }
        if !self.watched.has_started.load(Ordering::Acquire) {
            return Some("the streams are not there yet".to_owned());
        }
        let is_behind = |r: &watch::Receiver<ReplicaStatus>| !r.borrow().is_caught_up;
        if self.watched.replica.get().is_some_and(is_behind) {
            return Some("the log is not read to its end yet".to_owned());
        }
        let joined = self
            .watched
            .joined
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if joined.iter().any(|j| !j.load(Ordering::Acquire)) {
            return Some("an agent has not joined yet".to_owned());
        }
        None
    }

    fn not_ready(&self) -> Answer<'_> {
        Box::pin(async {
            let connection = self.watched.connection.get();
            let Some(connection) = connection.filter(|c| *c.is_up().borrow()) else {
                return Some("the link to NATS is down".to_owned());
            };
            let last = tokio::time::timeout(LINK_MAX, connection.last_seq()).await;
            let Ok(Ok(last)) = last else {
                return Some("the log does not answer".to_owned());
            };
            let status = self.watched.replica.get().map(|r| r.borrow().clone())?;
            if let Some(problem) = status.stopped {
                return Some(problem);
            }
            let behind = last.saturating_sub(status.seq);
            (behind > self.behind_max).then(|| format!("{behind} records behind the log"))
        })
    }
}

#[cfg(test)]
mod tests;
