//! The orchestrator: accepts, orders, retries, cancels, times out.
//!
//! The rules are `conductor_domain::decide`; this is what they need of the world: the
//! time, some entropy, and which agents have fallen silent.
//!
//! # Invariants
//! - It never speaks to an agent: agents hear the scheduler alone.
//! - It decides only while it leads, and only from folded state.

mod silence;

use std::time::Instant;

use conductor_domain::decide::{self, Input, Overlay};
use conductor_domain::fold::Folded;
use conductor_domain::record::Content;
use conductor_domain::{Decoded, State, Verdict, VoidReason};
use conductor_eventlog::jetstream::presence::Beat;
use conductor_protocol::event::Event;
use conductor_protocol::frame::Elements;
use conductor_protocol::subject::{Role as Name, Subject};
use conductor_protocol::{CellId, UnixMs};
use conductor_replica::role::{Draft, Now, Role};

use silence::Silence;

/// Most events decided at once: a frame or two.
const EVENTS_MAX: usize = 4_096;
/// How often silence is looked for while agents are there, in milliseconds.
const LISTEN_EVERY_MS: u64 = 1_000;

/// The orchestrator's role.
#[derive(Debug)]
pub struct Orchestrator {
    subject: String,
    overlay: Overlay,
    silence: Silence,
    entropy: u64,
}

impl Orchestrator {
    /// An orchestrator of `cell`. `seed` is where its jitter begins; what it draws is
    /// recorded, so replay never needs it.
    pub fn new(cell: &CellId, seed: u64) -> Self {
        Self {
            subject: Subject::Orchestrator.render(cell),
            overlay: Overlay::default(),
            silence: Silence::default(),
            entropy: seed | 1,
        }
    }
}

impl Role for Orchestrator {
    fn name(&self) -> Name {
        Name::Orchestrator
    }

    fn on_elected(&mut self, now: Instant) {
        self.overlay = Overlay::default();
        self.silence.restart(now);
    }

    fn on_folded(&mut self, record: &Decoded, folded: &Folded) {
        let Content::Leader {
            role: Name::Orchestrator,
            items,
            ..
        } = &record.content
        else {
            return;
        };
        for (item, verdict) in items.iter().zip(&folded.verdicts) {
            let Ok(event) = item else { continue };
            // Words of an earlier leader say nothing about what we have in flight.
            if *verdict != Verdict::Void(VoidReason::StaleEpoch) {
                self.overlay.on_folded(event, *verdict);
            }
        }
    }

    fn decide(&mut self, state: &State, now: Now) -> Vec<Draft> {
        let (silent_agents, silent_leases) = self.silence.listen(state, now.instant);
        let input = Input {
            now_ms: now.server_ms,
            silent_agents: &silent_agents,
            silent_leases: &silent_leases,
            events_max: EVENTS_MAX,
        };
        let entropy = &mut self.entropy;
        let events = decide::decide(state, &mut self.overlay, input, &mut || next(entropy));
        if events.is_empty() {
            return Vec::new();
        }
        events.iter().for_each(warn_of_budget);
        vec![Draft::Events {
            subject: self.subject.clone(),
            events: Elements::of_events(&events),
        }]
    }

    fn next_wake(&self, state: &State, now: Now) -> Option<UnixMs> {
        let listen = state
            .agents
            .values()
            .any(|a| a.status.is_there())
            .then_some(now.server_ms + LISTEN_EVERY_MS);
        let due = decide::next_wake(state, &self.overlay);
        match (due, listen) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    fn in_flight_max(&self) -> usize {
        1
    }

    fn on_beat(&mut self, beat: &Beat, now: Instant) {
        self.silence.heard(beat, now);
    }

    fn on_presence_restored(&mut self, now: Instant) {
        self.silence.restart(now);
    }
}

/// A budget that is used up is for whoever looks after the cell, too.
fn warn_of_budget(event: &Event) {
    if let Event::BudgetReached(e) = event {
        tracing::warn!(namespace = %e.namespace, then = %e.on_reached, "a budget of the day is used up");
    }
}

/// xorshift64*: jitter needs spread, not secrecy.
fn next(state: &mut u64) -> u64 {
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    state.wrapping_mul(0x2545_F491_4F6C_DD1D)
}
