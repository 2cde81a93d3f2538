//! What the server that this process keeps refuses its clients: said and counted, since nobody reads
//! the server's own log.

use std::collections::BTreeMap;
use std::time::Duration;

use conductor_nats::{Refusal, Refusals};
use conductor_telemetry::metrics;
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

/// How often its log is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// So many different ones are named at a look; of the others their number is.
const NAMED_MAX: usize = 10;

/// Says and counts them until this process stops.
pub(super) async fn watch(mut refusals: Refusals, mut stop: watch::Receiver<bool>) {
    let mut looks = tokio::time::interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = looks.tick() => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
        // A disk may be slow.
        let look = tokio::task::spawn_blocking(move || {
            let found = refusals.look();
            (refusals, found)
        });
        let Ok((after, found)) = look.await else {
            return;
        };
        refusals = after;
        tell(found);
    }
}

fn tell(found: Vec<Refusal>) {
    let mut alike: BTreeMap<Refusal, u64> = BTreeMap::new();
    for refusal in found {
        metrics().server_refused(refusal.kind.as_str(), 1);
        *alike.entry(refusal).or_default() += 1;
    }
    let others = alike.len().saturating_sub(NAMED_MAX);
    for (refusal, times) in alike.into_iter().take(NAMED_MAX) {
        let kind = refusal.kind.as_str();
        let Refusal {
            account,
            user,
            about,
            ..
        } = refusal;
        tracing::warn!(
            kind,
            account,
            user,
            about,
            times,
            "the server refused a client"
        );
    }
    if others > 0 {
        tracing::warn!(others, "the server refused clients much more");
    }
}
