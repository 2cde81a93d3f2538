//! Questions to the servers and to live replicas, from a program that waits for the answer.

use std::time::{Duration, Instant};

use conductor_eventlog::EventLog;
use conductor_eventlog::jetstream::Connection;
use conductor_replica::replica::Answer;

use crate::outcome::Outcome;
use crate::plan::Target;

/// How long the log must not have grown to be quiet.
const QUIET: Duration = Duration::from_millis(1_500);

/// Connects and does something; waits for it.
pub(crate) fn with<T>(
    target: &Target,
    what: impl AsyncFnOnce(Connection) -> Outcome<T>,
) -> Outcome<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async { what(Connection::open(&target.connect("loadtest")?).await?).await })
}

/// Waits until nothing is appended any more and replicas have read everything; returns the
/// sequence of the last record.
pub(crate) fn wait_quiet(target: &Target, at_most: Duration) -> Outcome<u64> {
    with(target, async |connection| {
        let begin = Instant::now();
        let (mut last, mut since) = (0, Instant::now());
        loop {
            let seq = connection.last_seq().await?;
            if seq != last {
                (last, since) = (seq, Instant::now());
            }
            if since.elapsed() > QUIET && is_read(&connection, last).await? {
                return Ok(last);
            }
            if begin.elapsed() > at_most {
                return Err(format!("the log still grows after {at_most:?}").into());
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    })
}

async fn is_read(connection: &Connection, last: u64) -> Outcome<bool> {
    let answers = connection.ask(Duration::from_secs(2)).await?;
    let mut answers = answers
        .iter()
        .filter_map(|a| serde_json::from_slice::<Answer>(a).ok());
    Ok(answers.all(|a| a.seq >= last))
}

/// Removes every snapshot, so that the next start reads the whole log.
pub(crate) fn forget_snapshots(target: &Target) -> Outcome<()> {
    let (url, stream) = (&target.url, format!("OBJ_SNAPSHOTS_{}", target.cell));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let servers: Vec<&str> = url.split(',').collect();
        let client = async_nats::ConnectOptions::new().connect(servers).await?;
        let js = async_nats::jetstream::new(client);
        // Where none was taken there is none to remove.
        let _ = js.delete_stream(stream).await;
        Ok(())
    })
}
