//! Signs of life, and what follows when they do not arrive.

use std::time::{Duration, Instant};

use conductor_eventlog::jetstream::ears::Hearing;
use conductor_eventlog::jetstream::presence::Beat;
use conductor_protocol::TraceContext;
use conductor_protocol::ids::Lease;
use conductor_protocol::spec::HEARTBEAT_INTERVAL_MS_DEFAULT;

use super::{Duty, Effect};
use crate::attempt::Stop;

impl Duty {
    /// Sends a sign of life if none is on its way: three fit into the shortest lease.
    pub(super) fn beat(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        let Some(membership) = self.membership else {
            return;
        };
        if self.is_beating {
            return;
        }
        self.is_beating = true;
        let running = self.running.values().map(|r| r.lease);
        let waiting = self.waiting.iter().map(|(lease, _)| *lease);
        let beat = Beat {
            agent: self.id.clone(),
            incarnation: membership.incarnation,
            leases: running.chain(waiting).collect(),
            // Known to whoever sends it.
            hearing: Hearing::default(),
        };
        let shortest = self.running.values().map(|r| r.lease_length).min();
        let interval = Duration::from_millis(HEARTBEAT_INTERVAL_MS_DEFAULT);
        self.next_beat = now + shortest.map_or(interval, |s| interval.min(s / 3));
        effects.push(Effect::Beat(beat));
    }

    pub(super) fn beat_done(&mut self, arrived: bool, now: Instant) {
        self.is_beating = false;
        if arrived {
            self.heard_beat = now;
        } else {
            // Sooner than usual: the servers may be back any moment.
            self.next_beat = now;
        }
    }

    pub(super) fn tick(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        self.end_expired_leases(now, effects);
        if now >= self.next_beat {
            self.beat(now, effects);
        }
    }

    /// An attempt goes on through an outage up to its lease: after that somebody else
    /// may have been given its task.
    fn end_expired_leases(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        let heard_beat = self.heard_beat;
        let is_expired = |r: &super::Running| {
            // Silence before it was ours is not this lease's.
            let silent = now.saturating_duration_since(heard_beat.max(r.started));
            silent > r.lease_length && r.stop == Stop::No
        };
        let expired: Vec<(Lease, TraceContext)> = self
            .running
            .values()
            .filter(|r| is_expired(r))
            .map(|r| (r.lease, r.context))
            .collect();
        for (lease, context) in expired {
            let (at, trace) = (lease.assigned, context.trace_hex());
            tracing::warn!(task = %lease.task, attempt = lease.attempt, trace, %at, "the log is away for longer than the lease; stopping the attempt");
            self.stop(at, Stop::LeaseExpired, effects);
        }
    }
}
