//! Signs of life, and what follows when they do not arrive.

use std::sync::Arc;
use std::time::{Duration, Instant};

use conductor_eventlog::jetstream::Connection;
use conductor_eventlog::jetstream::presence::Beat;
use conductor_protocol::spec::HEARTBEAT_INTERVAL_MS_DEFAULT;
use ractor::ActorRef;

use super::{AgentMsg, AgentState};
use crate::attempt::Stop;

/// How often leases are looked at, and beats considered.
const TICK: Duration = Duration::from_millis(250);

impl AgentState {
    /// Sends a sign of life if it is time: three fit into the shortest lease.
    pub(super) fn beat(&mut self, myself: &ActorRef<AgentMsg>) {
        let Some(membership) = &self.membership else {
            return;
        };
        if self.is_beating {
            return;
        }
        self.is_beating = true;
        let leases = self.running.values().map(|r| r.lease);
        let beat = Beat {
            agent: self.options.id.clone(),
            incarnation: membership.incarnation,
            leases: leases
                .chain(self.waiting.iter().map(|(lease, _)| *lease))
                .collect(),
        };
        let shortest = self.running.values().map(|r| r.lease_length).min();
        let interval = Duration::from_millis(HEARTBEAT_INTERVAL_MS_DEFAULT);
        let interval = shortest.map_or(interval, |s| interval.min(s / 3));
        self.next_beat = Instant::now() + interval;
        let (connection, myself) = (Arc::clone(&self.connection), myself.clone());
        tokio::spawn(async move {
            let arrived = connection.beat(&beat).await.is_ok();
            // An actor that is gone needs no answer.
            let _ = myself.cast(AgentMsg::BeatDone(arrived));
        });
    }

    pub(super) fn beat_done(&mut self, arrived: bool) {
        self.is_beating = false;
        if arrived {
            self.heard_beat = Instant::now();
        } else {
            // Sooner than usual: the servers may be back any moment.
            self.next_beat = Instant::now();
        }
    }

    pub(super) fn on_tick(&mut self, myself: &ActorRef<AgentMsg>) {
        self.end_expired_leases();
        if Instant::now() >= self.next_beat {
            self.beat(myself);
        }
    }

    /// An attempt goes on through an outage up to its lease: after that somebody else
    /// may have been given its task.
    fn end_expired_leases(&mut self) {
        for running in self.running.values() {
            // Silence before it was ours is not this lease's.
            let silent = self.heard_beat.max(running.started).elapsed();
            if silent > running.lease_length && *running.stop.borrow() == Stop::No {
                tracing::warn!(task = %running.lease.task, "the log is away for longer than the lease; stopping the attempt");
                running.stop.send_replace(Stop::LeaseExpired);
            }
        }
    }
}

/// Reminds the actor to look at its leases, and of a beat when the link is back.
pub(super) async fn feed_clock(connection: Arc<Connection>, actor: ActorRef<AgentMsg>) {
    let mut up = connection.is_up();
    loop {
        tokio::select! {
            () = tokio::time::sleep(TICK) => {
                if actor.cast(AgentMsg::Tick).is_err() {
                    return;
                }
            }
            changed = up.changed() => {
                if changed.is_err() || actor.cast(AgentMsg::Beat).is_err() {
                    return;
                }
            }
        }
    }
}
