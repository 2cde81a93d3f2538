//! `conductor replay --traces`: the traces of any range, again.

use std::sync::Arc;
use std::time::Duration;

use conductor_eventlog::EventLog;
use conductor_projector::delivery::{Delivery, Next};
use conductor_projector::{Trace, Tracer};
use conductor_replica::reader::Until;
use conductor_replica::{ReadFrom, Reader};
use conductor_telemetry::{ExportError, Exporter, Otlp};
use serde_json::json;
use tokio::sync::mpsc;

use crate::exit::{Exit, Failure, Outcome};
use crate::out;
use crate::settings::Settings;

/// Traces that may wait while the log is read on.
const TRACES_AHEAD: usize = 4_096;
/// Pause before a trace that was refused is tried again.
const PAUSE: Duration = Duration::from_millis(500);

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
    let (sender, coming) = mpsc::channel::<Trace>(TRACES_AHEAD);
    let exporting = tokio::spawn(export(collector, otlp.batch_max, coming));
    let mut tracer = Tracer::default();
    let mut reader = Reader::open(log, ReadFrom::Genesis, 0).await;
    // In steps, so that what is found leaves before the next is read.
    'reading: while !exporting.is_finished() {
        let read_to = reader.state.seq;
        let step = match until {
            Until::Seq(seq) => Until::Seq(seq.min(read_to.saturating_add(STEP))),
            time @ Until::TimeMs(_) => time,
        };
        let at_most = last.min(read_to.saturating_add(STEP));
        let mut found = Vec::new();
        reader
            .read_until(step, at_most, |record, folded, state| {
                let is_in = match since {
                    Until::Seq(seq) => record.seq > seq,
                    Until::TimeMs(ms) => state.time_ms > ms,
                };
                let finished = tracer.apply(record, folded, state).into_iter();
                let is_wanted = |t: &Trace| is_in && (t.has_failed || otlp.records(&t.context));
                found.extend(finished.filter(is_wanted));
            })
            .await?;
        for trace in found {
            // One that ended says why below.
            if sender.send(trace).await.is_err() {
                break 'reading;
            }
        }
        if reader.state.seq < at_most || at_most == last {
            break;
        }
    }
    drop(sender);
    let joined = exporting.await;
    let done = joined.map_err(|e| Failure::new(Exit::Failure, e.to_string()))??;
    let report = json!({
        "cell": connection.cell(), "seq": reader.state.seq, "endpoint": otlp.endpoint,
        "traces": done.traces, "spans": done.spans, "refused": done.refused,
    });
    out::one(settings.output, &report);
    Ok(Exit::Ok)
}

/// Records read before what was found in them is sent.
const STEP: u64 = 1_000;

/// What was exported.
#[derive(Default)]
struct Done {
    traces: usize,
    spans: usize,
    refused: usize,
}

/// Exports what comes, in batches; ends with the first problem that is not of a single trace.
async fn export(
    collector: Exporter,
    batch_max: usize,
    mut coming: mpsc::Receiver<Trace>,
) -> Result<Done, ExportError> {
    let (mut delivery, mut done) = (Delivery::new(batch_max), Done::default());
    while let Some(trace) = coming.recv().await {
        done.traces += 1;
        delivery.push(trace);
        if delivery.len() >= batch_max {
            send(&collector, &mut delivery, &mut done).await?;
        }
    }
    send(&collector, &mut delivery, &mut done).await?;
    Ok(done)
}

async fn send(
    collector: &Exporter,
    delivery: &mut Delivery,
    done: &mut Done,
) -> Result<(), ExportError> {
    while !delivery.is_empty() {
        let n = delivery.portion().len();
        let Err(problem) = collector.export(delivery.portion()).await else {
            delivery.taken();
            done.spans += n;
            continue;
        };
        match delivery.refused(&problem) {
            Next::AtOnce => {}
            Next::Wait if problem.is_for_good() => tokio::time::sleep(PAUSE).await,
            Next::Ask if collector.is_welcome().await => {
                if let Some(skipped) = delivery.skip() {
                    done.traces -= 1;
                    done.refused += 1;
                    let (task, trace) = (skipped.task, skipped.trace);
                    tracing::warn!(%task, trace, error = %problem, "the collector refuses a trace for good; it is skipped");
                }
            }
            Next::Wait | Next::Ask => return Err(problem),
        }
    }
    Ok(())
}
