//! Spans of what goes on inside this process, below the task they serve: exported as they end,
//! and dropped where there is no room. What an audit needs comes from the log instead.

use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use conductor_protocol::TraceContext;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::metrics::metrics;
use crate::otlp::{ExportError, Exporter, Otlp};
use crate::span::Span;

/// Spans that may wait for the collector.
const WAITING_MAX: usize = 4_096;
/// Most tasks of one batch that get spans of their own: of very many at once some tell enough.
pub const TASKS_MAX: usize = 32;
/// How long spans wait for others.
const GATHERS: Duration = Duration::from_millis(500);

struct Live {
    otlp: Otlp,
    spans: mpsc::Sender<Span>,
}

static LIVE: OnceLock<Live> = OnceLock::new();

/// Exports live spans from now on; once in a process.
pub fn start(otlp: &Otlp, resource: &[(&'static str, String)]) -> Result<(), ExportError> {
    let exporter = otlp.exporter(resource)?;
    let (spans, coming) = mpsc::channel(WAITING_MAX);
    let live = Live {
        otlp: otlp.clone(),
        spans,
    };
    if LIVE.set(live).is_ok() {
        tokio::spawn(export(exporter, coming, otlp.batch_max));
    }
    Ok(())
}

/// Whether anybody wants live spans at all: asked before any is made.
pub fn is_on() -> bool {
    LIVE.get().is_some()
}

/// Whether live spans of this task are wanted.
pub fn wants(context: &TraceContext) -> bool {
    LIVE.get().is_some_and(|live| live.otlp.records(context))
}

/// Has a span exported, if there is room.
pub fn emit(span: Span) {
    if let Some(live) = LIVE.get()
        && live.spans.try_send(span).is_err()
    {
        metrics().spans_dropped.inc();
    }
}

/// Now, in nanoseconds since 1970.
pub fn now_ns() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |d| u64::try_from(d.as_nanos()).unwrap_or(u64::MAX))
}

async fn export(exporter: Exporter, mut coming: mpsc::Receiver<Span>, batch_max: usize) {
    let mut is_refused = false;
    while let Some(first) = coming.recv().await {
        let (mut batch, until) = (vec![first], Instant::now() + GATHERS);
        while batch.len() < batch_max {
            match tokio::time::timeout_at(until, coming.recv()).await {
                Ok(Some(span)) => batch.push(span),
                _ => break,
            }
        }
        match exporter.export(&batch).await {
            Ok(()) => {
                metrics().spans_exported.inc_by(batch.len() as u64);
                is_refused = false;
            }
            Err(e) => {
                metrics().export_failures.inc();
                metrics().spans_dropped.inc_by(batch.len() as u64);
                if !std::mem::replace(&mut is_refused, true) {
                    tracing::warn!(error = %e, "live spans are lost until the collector is there");
                }
            }
        }
    }
}
