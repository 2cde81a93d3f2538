//! Spans of what goes on inside this process, below the task they serve: exported as they end,
//! and dropped where there is no room. What an audit needs comes from the log instead.

use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use conductor_protocol::TraceContext;
use tokio::sync::{mpsc, oneshot};
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
    spans: mpsc::Sender<Item>,
}

enum Item {
    Span(Box<Span>),
    /// Told once all before it is exported, or given up.
    Flush(oneshot::Sender<()>),
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
        && live.spans.try_send(Item::Span(Box::new(span))).is_err()
    {
        metrics().spans_dropped.inc();
    }
}

/// Waits until what was made so far is exported, at most so long.
pub async fn flush(at_most: Duration) {
    let Some(live) = LIVE.get() else { return };
    let (done, is_done) = oneshot::channel();
    let flushed = async {
        if live.spans.send(Item::Flush(done)).await.is_ok() {
            // An exporter that is gone flushes nothing more.
            let _ = is_done.await;
        }
    };
    if tokio::time::timeout(at_most, flushed).await.is_err() {
        let left = WAITING_MAX - live.spans.capacity();
        metrics().spans_dropped.inc_by(left as u64);
    }
}

/// Now, in nanoseconds since 1970.
pub fn now_ns() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |d| u64::try_from(d.as_nanos()).unwrap_or(u64::MAX))
}

async fn export(exporter: Exporter, mut coming: mpsc::Receiver<Item>, batch_max: usize) {
    let mut is_refused = false;
    while let Some(first) = coming.recv().await {
        let (mut batch, mut flushed) = (Vec::new(), None);
        let (mut next, until) = (Some(first), Instant::now() + GATHERS);
        while let Some(item) = next.take() {
            match item {
                Item::Span(span) => batch.push(*span),
                Item::Flush(waiting) => {
                    flushed = Some(waiting);
                    break;
                }
            }
            if batch.len() < batch_max {
                next = tokio::time::timeout_at(until, coming.recv())
                    .await
                    .ok()
                    .flatten();
            }
        }
        let done = if batch.is_empty() {
            Ok(())
        } else {
            exporter.export(&batch).await
        };
        if let Some(waiting) = flushed {
            // Whoever waited may have given up.
            let _ = waiting.send(());
        }
        match done {
            Ok(()) => is_refused = false,
            Err(e) => {
                metrics().spans_dropped.inc_by(batch.len() as u64);
                if !std::mem::replace(&mut is_refused, true) {
                    tracing::warn!(error = %e, "live spans are lost until the collector is there");
                }
            }
        }
    }
}
