//! Making the streams, by servers that may just have started.

use std::time::Duration;

use conductor_eventlog::jetstream::Connection;
use conductor_eventlog::jetstream::provision::{Provision, ProvisionError, Provisioned};

use crate::exit::Outcome;

/// Provisions; servers that are still electing among themselves are given time.
pub(crate) async fn provision_patiently(
    connection: &Connection,
    how: &Provision,
) -> Outcome<Provisioned> {
    let mut pause = Duration::from_millis(100);
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    loop {
        match connection.provision(how).await {
            Err(e @ (ProvisionError::Unavailable(_) | ProvisionError::Refused { .. }))
                if tokio::time::Instant::now() < deadline =>
            {
                tracing::warn!(error = %e, retry_in = ?pause, "the log is not there yet");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(Duration::from_secs(2));
            }
            other => return Ok(other?),
        }
    }
}
