//! The exporting half: batches, repeats, remembers.

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use conductor_eventlog::jetstream::{Connection, ReaderSnapshots};
use conductor_eventlog::{EventLog, SnapshotName, SnapshotStore};
use conductor_telemetry::{ExportError, Exporter, metrics};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::claim::Claim;
use super::{ProjectorError, Step, stopped};
use crate::delivery::{Delivery, Next};

/// How long after it was told to stop it reads on at most, for what ends meanwhile.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// How long spans wait for others.
const GATHERS: Duration = Duration::from_millis(200);
/// Pauses between tries while the collector is away.
const PAUSE_MIN: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(4);

/// What is exported before the position moves.
struct Batch {
    /// Its last record, and that one's time.
    at: (u64, u64),
    traces: Delivery,
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
            at: claim.at(),
            traces: Delivery::new(batch_max),
            checkpoint: None,
        };
        Self {
            exporter,
            store,
            batch_max,
            claim,
            coming,
            batch,
            is_refused: false,
            stop,
        }
    }

    /// Exports until it is told to stop, or the claim or the log is lost. What is on its way to
    /// the collector is never given up halfway: it would be sent again.
    pub(super) async fn run(&mut self, log: &Connection) -> Result<(), ProjectorError> {
        let mut stop = self.stop.clone();
        while !*stop.borrow() {
            tokio::select! {
                gathered = self.gather(self.claim.renewed_every()) => gathered?,
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
        while self.batch.traces.len() < self.batch_max {
            let Ok(step) = tokio::time::timeout_at(until, self.coming.recv()).await else {
                return Ok(());
            };
            let ended = || ProjectorError::Stopped("the log is read no more".to_owned());
            let step = step.ok_or_else(ended)?.map_err(ProjectorError::Stopped)?;
            self.batch.at = (step.seq, step.time_ms);
            if self.batch.traces.is_empty() && !step.traces.is_empty() {
                until = until.min(Instant::now() + GATHERS);
            }
            step.traces
                .into_iter()
                .for_each(|trace| self.batch.traces.push(trace));
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
        // A task of very many spans takes several exports; all before the position moves.
        while !self.batch.traces.is_empty() {
            if !self.insist().await? {
                return Ok(false);
            }
        }
        let is_heard = if self.batch.at == self.claim.at() {
            self.claim.renew(&self.stop).await?
        } else {
            self.claim.advance(self.batch.at, &self.stop).await?
        };
        if !is_heard {
            return Ok(false);
        }
        metrics()
            .projected_ms
            .store(self.batch.at.1, Ordering::Relaxed);
        if let Some((seq, bytes)) = self.batch.checkpoint.take()
            && let Err(e) = self.store.save(SnapshotName(seq), bytes).await
        {
            tracing::debug!(error = %e, "a checkpoint of traces is not saved; it saves only time");
        }
        Ok(true)
    }

    /// Exports the first spans, however long the collector is away: meanwhile the log keeps
    /// what follows. `false` when it is away and this process is to end.
    async fn insist(&mut self) -> Result<bool, ProjectorError> {
        let mut pause = PAUSE_MIN;
        loop {
            let Err(problem) = self.export().await? else {
                self.batch.traces.taken();
                if std::mem::take(&mut self.is_refused) {
                    tracing::info!("traces are exported again");
                }
                return Ok(true);
            };
            let next = self.batch.traces.refused(&problem);
            tracing::debug!(error = %problem, ?next, "an export was not taken");
            match next {
                Next::AtOnce | Next::Wait if problem.is_for_good() => {}
                Next::Ask if self.is_welcome().await? => {
                    self.skip(&problem);
                    return Ok(true);
                }
                _ if self.is_refused => {}
                _ => {
                    self.is_refused = true;
                    tracing::warn!(error = %problem, "traces wait for the collector; the log keeps them");
                }
            }
            if *self.stop.borrow() {
                return Ok(false);
            }
            if next == Next::AtOnce {
                continue;
            }
            // Short beside the time after which another process would take over.
            let longest = PAUSE_MAX.min(self.claim.renewed_every());
            tokio::select! {
                () = tokio::time::sleep(pause.min(longest)) => pause = (pause * 2).min(longest),
                () = stopped(&mut self.stop) => {}
            }
        }
    }

    /// Leaves out a trace that the collector refuses for good.
    fn skip(&mut self, problem: &ExportError) {
        metrics().traces_refused.inc();
        if let Some(skipped) = self.batch.traces.skip() {
            let (task, trace, spans) = (skipped.task, skipped.trace, skipped.spans);
            tracing::warn!(%task, trace, spans, error = %problem, "the collector refuses a trace for good; it is skipped");
        }
    }

    /// Exports the first spans once.
    async fn export(&mut self) -> Result<Result<(), ExportError>, ProjectorError> {
        self.claim.renew(&self.stop).await?;
        let export = self.exporter.export(self.batch.traces.portion());
        meanwhile(&mut self.claim, &self.stop, export).await
    }

    /// Whether the collector takes anything from us.
    async fn is_welcome(&mut self) -> Result<bool, ProjectorError> {
        let ask = self.exporter.is_welcome();
        meanwhile(&mut self.claim, &self.stop, ask).await
    }
}

/// While that is done it is said that this process is there: another that took over would export
/// the same.
async fn meanwhile<T>(
    claim: &mut Claim,
    stop: &watch::Receiver<bool>,
    work: impl Future<Output = T>,
) -> Result<T, ProjectorError> {
    tokio::pin!(work);
    loop {
        tokio::select! {
            done = &mut work => return Ok(done),
            () = tokio::time::sleep(claim.renewed_every()) => {
                claim.renew(stop).await?;
            }
        }
    }
}
