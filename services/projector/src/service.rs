//! Reads the log, exports what is finished, and remembers how far that was.

mod claim;
mod export;
mod history;
mod read;

use std::sync::Arc;
use std::time::Duration;

use conductor_eventlog::jetstream::{Connection, ReaderSnapshots};
use conductor_eventlog::{EventLog, LogError};
use conductor_telemetry::{ExportError, Exporter, Otlp};
use tokio::sync::{mpsc, watch};

use crate::checkpoint;
use claim::Claim;
use export::Exports;
use read::{Reading, Step};

/// The projector's name among readers.
const READER: &str = "traces";
/// Steps that may wait between reading and exporting.
const STEPS_AHEAD: usize = 256;

/// How to run a projector.
#[derive(Clone, Debug)]
pub struct ProjectorOptions {
    /// Where to.
    pub otlp: Otlp,
    /// Who it is: host, process and a random part.
    pub instance: String,
    /// Whether it is alone by its nature, so that who held the position before is dead.
    pub takes_over: bool,
    /// How long another process waits for one that says nothing, before it goes on instead.
    pub claim_ttl: Duration,
    /// Records between checkpoints; 0 for none.
    pub checkpoint_every: u64,
}

/// Why it cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum ProjectorError {
    /// The exporter cannot be made.
    #[error(transparent)]
    Export(#[from] ExportError),
    /// The log cannot be read.
    #[error(transparent)]
    Log(#[from] LogError),
    /// Another process goes on with it.
    #[error("another projector goes on from here")]
    Superseded,
    /// The log cannot be read any further.
    #[error("{0}")]
    Stopped(String),
}

/// The service.
#[derive(Debug)]
pub struct Projector;

impl Projector {
    /// Projects until it is told to stop. Waits while another one does; comes back to that where
    /// another takes over.
    pub async fn run(
        connection: Arc<Connection>,
        options: ProjectorOptions,
        mut stop: watch::Receiver<bool>,
    ) -> Result<(), ProjectorError> {
        let resource = [
            ("service.version", env!("CARGO_PKG_VERSION").to_owned()),
            ("service.instance.id", options.instance.clone()),
            ("conductor.cell", connection.cell().to_string()),
        ];
        let exporter = options.otlp.exporter(&resource)?;
        loop {
            let claimed = tokio::select! {
                claimed = Claim::take(&connection, &options) => claimed?,
                () = stopped(&mut stop) => return Ok(()),
            };
            tracing::info!(from = claimed.seq(), "traces are exported from here");
            match project(&connection, &options, &exporter, claimed, &stop).await {
                Err(ProjectorError::Superseded) => {
                    tracing::info!("another projector goes on");
                }
                done => return done,
            }
        }
    }
}

/// Reads and exports while the claim holds.
async fn project(
    connection: &Arc<Connection>,
    options: &ProjectorOptions,
    exporter: &Exporter,
    claim: Claim,
    stop: &watch::Receiver<bool>,
) -> Result<(), ProjectorError> {
    let store = ReaderSnapshots::new(Arc::clone(connection), READER);
    let begun = checkpoint::newest(&store, connection.as_ref(), claim.seq()).await;
    let (steps, coming) = mpsc::channel(STEPS_AHEAD);
    let reading = Reading {
        log: Arc::clone(connection) as Arc<dyn EventLog>,
        otlp: options.otlp.clone(),
        done_up_to: claim.seq(),
        checkpoint_every: options.checkpoint_every,
    };
    let reading = tokio::spawn(reading.run(begun, steps));
    let batch_max = options.otlp.batch_max;
    let mut exports = Exports::new(exporter, &store, batch_max, claim, coming, stop.clone());
    let done = exports.run(connection).await;
    reading.abort();
    exports.release().await;
    done
}

/// Returns once it is true, or nobody is left to say so.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    // The value itself is a lock that must not be held over an await.
    let _ = stop.wait_for(|stop| *stop).await;
}
