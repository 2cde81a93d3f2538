//! The exporting half: batches, repeats, remembers.

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use conductor_eventlog::jetstream::{Connection, ReaderSnapshots};
use conductor_eventlog::{EventLog, SnapshotName, SnapshotStore};
use conductor_telemetry::{ExportError, Exporter, Span, metrics};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::claim::{Claim, RENEWED_EVERY};
use super::{ProjectorError, Step, stopped};

/// How long after it was told to stop it reads on at most, for what ends meanwhile.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// How long spans wait for others.
const GATHERS: Duration = Duration::from_millis(200);
/// Pauses between tries while the collector is away: short beside the time after which another
/// process would take over.
const PAUSE_MIN: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(4);

/// What is exported at a time.
#[derive(Default)]
struct Batch {
    seq: u64,
    time_ms: u64,
    spans: Vec<Span>,
    checkpoint: Option<(u64, Bytes)>,
}

/// The exporting half.
pub(super) struct Exports<'a> {
    exporter: &'a Exporter,
    store: &'a ReaderSnapshots,
    batch_max: usize,
    claim: Claim,
    coming: mpsc::Receiver<Result<Step, String>>,
    batch: Batch,
    is_refused: bool,
    /// Most spans of the next export: fewer after one that was refused.
    size: usize,
    stop: watch::Receiver<bool>,
}

impl<'a> Exports<'a> {
    pub(super) fn new(
        exporter: &'a Exporter,
        store: &'a ReaderSnapshots,
        batch_max: usize,
        claim: Claim,
        coming: mpsc::Receiver<Result<Step, String>>,
        stop: watch::Receiver<bool>,
    ) -> Self {
        let batch = Batch {
            seq: claim.seq(),
            ..Batch::default()
        };
        Self {
            exporter,
            store,
            batch_max,
            claim,
            coming,
            batch,
            is_refused: false,
            size: batch_max,
            stop,
        }
    }

    /// Exports until it is told to stop, or the claim or the log is lost. What is on its way to
    /// the collector is never given up halfway: it would be sent again.
    pub(super) async fn run(&mut self, log: &Connection) -> Result<(), ProjectorError> {
        let mut stop = self.stop.clone();
        while !*stop.borrow() {
            tokio::select! {
                gathered = self.gather(RENEWED_EVERY) => gathered?,
                () = stopped(&mut stop) => {}
            }
            if !self.deliver().await? {
                return Ok(());
            }
        }
        self.finish(log).await
    }

    /// Exports what is in the log, and what still comes there for a while.
    async fn finish(&mut self, log: &Connection) -> Result<(), ProjectorError> {
        let until = Instant::now() + LAST_WORDS;
        loop {
            self.gather(GATHERS).await?;
            let is_delivered = self.deliver().await?;
            if is_delivered && self.claim.seq() >= log.last_seq().await? {
                return Ok(());
            }
            if !is_delivered || Instant::now() >= until {
                tracing::warn!("traces of what ended last are exported by the next start");
                return Ok(());
            }
        }
    }

    /// Lets another process go on at once.
    pub(super) async fn release(self) {
        self.claim.release().await;
    }

    /// Takes in what comes: until there is enough of it, what there is has waited long enough,
    /// or nothing came for `at_most`.
    async fn gather(&mut self, at_most: Duration) -> Result<(), ProjectorError> {
        let mut until = Instant::now() + at_most;
        while self.batch.spans.len() < self.batch_max {
            let Ok(step) = tokio::time::timeout_at(until, self.coming.recv()).await else {
                return Ok(());
            };
            let ended = || ProjectorError::Stopped("the log is read no more".to_owned());
            let step = step.ok_or_else(ended)?.map_err(ProjectorError::Stopped)?;
            self.batch.seq = step.seq;
            self.batch.time_ms = step.time_ms;
            if self.batch.spans.is_empty() && !step.spans.is_empty() {
                until = until.min(Instant::now() + GATHERS);
            }
            self.batch.spans.extend(step.spans);
            if let Some(bytes) = step.checkpoint {
                self.batch.checkpoint = Some((step.seq, bytes));
                return Ok(());
            }
        }
        Ok(())
    }

    /// Exports what was gathered, then says so; `false` where the collector is away and nobody
    /// can wait for it any more.
    async fn deliver(&mut self) -> Result<bool, ProjectorError> {
        while !self.batch.spans.is_empty() {
            // A task of very many spans takes several exports; all before the position moves.
            let Some(n) = self.insist().await? else {
                return Ok(false);
            };
            self.batch.spans.drain(..n);
        }
        let is_new = self.batch.seq > self.claim.seq();
        let is_heard = if is_new {
            self.claim.advance(self.batch.seq, &self.stop).await?
        } else {
            self.claim.renew(&self.stop).await?
        };
        if !is_heard {
            return Ok(false);
        }
        let time_ms = self.batch.time_ms;
        metrics().projected_ms.store(time_ms, Ordering::Relaxed);
        if let Some((seq, bytes)) = self.batch.checkpoint.take()
            && let Err(e) = self.store.save(SnapshotName(seq), bytes).await
        {
            tracing::debug!(error = %e, "a checkpoint of traces is not saved; it saves only time");
        }
        Ok(true)
    }

    /// Exports the first spans, however long the collector is away: meanwhile the log keeps
    /// what follows. Says how many those were; `None` when it is away and this process is to end.
    async fn insist(&mut self) -> Result<Option<usize>, ProjectorError> {
        let mut pause = PAUSE_MIN;
        loop {
            let n = self.batch.spans.len().min(self.size);
            match self.export(n).await? {
                Ok(()) => {
                    metrics().spans_exported.inc_by(n as u64);
                    if std::mem::take(&mut self.is_refused) {
                        tracing::info!("traces are exported again");
                    }
                    self.size = (self.size * 2).min(self.batch_max);
                    return Ok(Some(n));
                }
                Err(e) if self.is_refused => tracing::debug!(error = %e, "traces still wait"),
                Err(e) => {
                    self.is_refused = true;
                    tracing::warn!(error = %e, "traces wait for the collector; the log keeps them");
                }
            }
            metrics().export_failures.inc();
            // It may be too much at once for the collector.
            self.size = (n / 2).max(1);
            if *self.stop.borrow() {
                return Ok(None);
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => pause = (pause * 2).min(PAUSE_MAX),
                () = stopped(&mut self.stop) => {}
            }
        }
    }

    /// Exports the first spans once. Meanwhile it is said that this process is there: another
    /// that took over would export the same.
    async fn export(&mut self, n: usize) -> Result<Result<(), ExportError>, ProjectorError> {
        let spans = self.batch.spans.get(..n).unwrap_or_default();
        self.claim.renew(&self.stop).await?;
        let export = self.exporter.export(spans);
        tokio::pin!(export);
        loop {
            tokio::select! {
                done = &mut export => return Ok(done),
                () = tokio::time::sleep(RENEWED_EVERY) => {
                    self.claim.renew(&self.stop).await?;
                }
            }
        }
    }
}
