//! `conductor replay --traces`: the traces of any range, again.

use std::sync::Arc;

use conductor_eventlog::EventLog;
use conductor_projector::Tracer;
use conductor_replica::reader::Until;
use conductor_replica::{ReadFrom, Reader};
use conductor_telemetry::{Otlp, Span};
use serde_json::json;
use tokio::sync::mpsc;

use crate::exit::{Exit, Failure, Outcome};
use crate::out;
use crate::settings::Settings;

/// Exports that may wait while the log is read on.
const EXPORTS_AHEAD: usize = 64;

/// Exports the traces of all tasks that ended after `since` and not after `until`. Whatever was
/// exported before is the same again, under the same ids.
pub(super) async fn run(since: Until, until: Until, settings: &Settings) -> Outcome {
    let Some(otlp) = Otlp::from_env()? else {
        return Err(Failure::usage("nothing says where traces go").hint(
            "set OTEL_EXPORTER_OTLP_ENDPOINT to a collector, such as http://127.0.0.1:4317",
        ));
    };
    let connection = Arc::new(settings.open().await?);
    let log = Arc::clone(&connection) as Arc<dyn EventLog>;
    let last = log.last_seq().await?;
    let resource = [
        ("service.version", env!("CARGO_PKG_VERSION").to_owned()),
        ("conductor.cell", connection.cell().to_string()),
    ];
    let collector = otlp.exporter(&resource)?;
    let (spans, mut coming) = mpsc::channel::<Vec<Span>>(EXPORTS_AHEAD);
    let exporting = tokio::spawn(async move {
        let mut count = 0_usize;
        while let Some(batch) = coming.recv().await {
            collector.export(&batch).await?;
            count += batch.len();
        }
        Ok::<_, conductor_telemetry::ExportError>(count)
    });
    let (mut tracer, mut found) = (Tracer::default(), Found::default());
    let mut reader = Reader::open(log, ReadFrom::Genesis, 0).await;
    // In steps, so that what is found leaves before the next is read.
    while !exporting.is_finished() {
        let read_to = reader.state.seq;
        let step = match until {
            Until::Seq(seq) => Until::Seq(seq.min(read_to.saturating_add(STEP))),
            time @ Until::TimeMs(_) => time,
        };
        let at_most = last.min(read_to.saturating_add(STEP));
        reader
            .read_until(step, at_most, |record, folded, state| {
                let is_in = match since {
                    Until::Seq(seq) => record.seq > seq,
                    Until::TimeMs(ms) => state.time_ms > ms,
                };
                let finished = tracer.apply(record, folded, state).into_iter();
                let wanted =
                    finished.filter(|t| is_in && (t.has_failed || otlp.records(&t.context)));
                found.add(wanted.map(|t| t.spans));
            })
            .await?;
        while found.spans.len() >= otlp.batch_max {
            let next = found.spans.drain(..otlp.batch_max).collect();
            if spans.send(next).await.is_err() {
                break;
            }
        }
        if reader.state.seq < at_most || at_most == last {
            break;
        }
    }
    if !found.spans.is_empty() {
        // One that ended says why below.
        let _ = spans.send(std::mem::take(&mut found.spans)).await;
    }
    drop(spans);
    let joined = exporting.await;
    let exported = joined.map_err(|e| Failure::new(Exit::Failure, e.to_string()))??;
    let report = json!({
        "cell": connection.cell(), "seq": reader.state.seq, "endpoint": otlp.endpoint,
        "traces": found.traces, "spans": exported,
    });
    out::one(settings.output, &report);
    Ok(Exit::Ok)
}

/// Records read before what was found in them is sent.
const STEP: u64 = 1_000;

/// What was found and not sent yet, and how much in all.
#[derive(Default)]
struct Found {
    traces: usize,
    spans: Vec<Span>,
}

impl Found {
    fn add(&mut self, traces: impl Iterator<Item = Vec<Span>>) {
        for spans in traces {
            self.traces += 1;
            self.spans.extend(spans);
        }
    }
}
