//! Making the streams, by servers that may just have started.

use std::time::Duration;

use conductor_eventlog::jetstream::Connection;
use conductor_eventlog::jetstream::provision::{Provision, ProvisionError, Provisioned};
use tokio::time::Instant;

use crate::exit::Outcome;

/// Provisions; servers that are still electing among themselves are given time.
pub(crate) async fn provision_patiently(
    connection: &Connection,
    how: &Provision,
) -> Outcome<Provisioned> {
    let mut pause = Duration::from_millis(100);
    let started = Instant::now();
    loop {
        match connection.provision(how).await {
            Err(e) if started.elapsed() < patience(&e) => {
                tracing::warn!(error = %e, retry_in = ?pause, "the log is not there yet");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(Duration::from_secs(2));
            }
            other => return Ok(other?),
        }
    }
}

/// For how long it may be otherwise in a moment.
fn patience(e: &ProvisionError) -> Duration {
    match e {
        ProvisionError::Unavailable(_) | ProvisionError::Refused { .. } => Duration::from_secs(30),
        // Servers that elect may show some streams before others.
        ProvisionError::Gone { .. } => Duration::from_secs(5),
        ProvisionError::ServerTooOld { .. } | ProvisionError::Unsafe { .. } => Duration::ZERO,
    }
}
