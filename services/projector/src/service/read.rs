//! The reading half: folds, and hands on what is finished.

use std::sync::Arc;

use bytes::Bytes;
use conductor_domain::State;
use conductor_eventlog::EventLog;
use conductor_replica::Reader;
use conductor_telemetry::Otlp;
use tokio::sync::mpsc;

use crate::checkpoint;
use crate::tracer::{Trace, Tracer};

/// What came of a record.
#[derive(Debug)]
pub(super) struct Step {
    /// Its sequence.
    pub(super) seq: u64,
    /// Its time.
    pub(super) time_ms: u64,
    /// What is to be exported before this record counts as dealt with.
    pub(super) traces: Vec<Trace>,
    /// What to save once it does.
    pub(super) checkpoint: Option<Bytes>,
}

/// The reading half.
pub(super) struct Reading {
    pub(super) log: Arc<dyn EventLog>,
    pub(super) otlp: Otlp,
    /// Traces that ended up to here are not exported again.
    pub(super) done_up_to: u64,
    pub(super) checkpoint_every: u64,
}

impl Reading {
    /// Reads until nobody listens; the last word is why it cannot go on.
    pub(super) async fn run(
        self,
        (mut tracer, state): (Tracer, State),
        steps: mpsc::Sender<Result<Step, String>>,
    ) {
        let mut saved_at = state.seq;
        let mut reader = Reader::after(Arc::clone(&self.log), state);
        loop {
            let (record, folded) = match reader.next().await {
                Ok(next) => next,
                Err(e) => {
                    // Nobody may listen any more.
                    let _ = steps.send(Err(e.to_string())).await;
                    return;
                }
            };
            let finished = tracer.apply(&record, &folded, &reader.state);
            let seq = record.seq;
            if seq <= self.done_up_to {
                continue;
            }
            let mut step = Step {
                seq,
                time_ms: record.time_ms,
                traces: self.wanted(finished),
                checkpoint: None,
            };
            if self.checkpoint_every > 0 && seq >= saved_at + self.checkpoint_every {
                saved_at = seq;
                step.checkpoint = checkpoint::encode(&tracer, &reader.state).ok();
            }
            if steps.send(Ok(step)).await.is_err() {
                return;
            }
        }
    }

    /// Failed tasks always, others as the sampler says.
    fn wanted(&self, mut finished: Vec<Trace>) -> Vec<Trace> {
        finished.retain(|t| t.has_failed || self.otlp.records(&t.context));
        finished
    }
}
