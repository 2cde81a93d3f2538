//! Making the streams, by servers that may just have started.

use std::time::Duration;

use conductor_eventlog::jetstream::Connection;
use conductor_eventlog::jetstream::provision::{Provision, ProvisionError, Provisioned};
use tokio::time::Instant;

use crate::exit::Outcome;

/// How long servers may take to be there.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long after another stream they may show the log.
const APART: Duration = Duration::from_secs(5);

/// Provisions; servers that are still electing among themselves are given time.
pub(crate) async fn provision_patiently(
    connection: &Connection,
    how: &Provision,
) -> Outcome<Provisioned> {
    let mut pause = Duration::from_millis(100);
    let (started, mut gone_since) = (Instant::now(), None);
    loop {
        let e = match connection.provision(how).await {
            Err(e) => e,
            Ok(made) => return Ok(made),
        };
        let (since, patience) = match e {
            ProvisionError::Unavailable(_) | ProvisionError::Refused { .. } => {
                gone_since = None;
                (started, PATIENCE)
            }
            // Servers that elect may show some streams before others.
            ProvisionError::Gone { .. } => (*gone_since.get_or_insert(Instant::now()), APART),
            ProvisionError::ServerTooOld { .. } | ProvisionError::Unsafe { .. } => {
                return Err(e.into());
            }
        };
        if since.elapsed() >= patience {
            return Err(e.into());
        }
        tracing::warn!(error = %e, retry_in = ?pause, "the log is not there yet");
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(2));
    }
}
