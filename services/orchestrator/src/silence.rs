//! Who has fallen silent, judged by the heartbeats of the presence stream.
//!
//! Silence counts only while heartbeats can be heard: after an election, or when the
//! stream was away, everybody's time begins anew.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use conductor_domain::State;
use conductor_domain::planted::{Bug, is_planted};
use conductor_domain::state::LeaseState;
use conductor_eventlog::jetstream::presence::Beat;
use conductor_protocol::AgentId;
use conductor_protocol::ids::{Lease, Position};
use conductor_protocol::spec::HEARTBEAT_TIMEOUT_MS_DEFAULT;

/// How often everybody is looked at.
const LISTEN_EVERY: Duration = Duration::from_millis(500);

/// When each agent and lease was last heard of.
#[derive(Debug, Default)]
pub(crate) struct Silence {
    since: Option<Instant>,
    listened: Option<Instant>,
    agents: BTreeMap<AgentId, (u64, Instant)>,
    leases: BTreeMap<Position, Instant>,
}

impl Silence {
    /// Nothing could be heard until now.
    pub(crate) fn restart(&mut self, now: Instant) {
        self.since = Some(now);
        self.agents.clear();
        self.leases.clear();
    }

    pub(crate) fn heard(&mut self, beat: &Beat, now: Instant) {
        self.agents
            .insert(beat.agent.clone(), (beat.incarnation, now));
        for lease in &beat.leases {
            self.leases.insert(lease.assigned, now);
        }
    }

    /// Agents and leases that have been silent for longer than they may.
    pub(crate) fn listen(
        &mut self,
        state: &State,
        now: Instant,
    ) -> (Vec<(AgentId, u64)>, Vec<Lease>) {
        let (mut agents, mut leases) = (Vec::new(), Vec::new());
        let Some(since) = self.since.filter(|_| !is_planted(Bug::SilenceIgnored)) else {
            return (agents, leases);
        };
        if self
            .listened
            .is_some_and(|at| now.saturating_duration_since(at) < LISTEN_EVERY)
        {
            return (agents, leases);
        }
        self.listened = Some(now);
        let mut held = BTreeMap::new();
        let timeout = Duration::from_millis(HEARTBEAT_TIMEOUT_MS_DEFAULT);
        for (id, agent) in state.agents.iter().filter(|(_, a)| a.status.is_there()) {
            let entry = self
                .agents
                .entry(id.clone())
                .or_insert((agent.incarnation, now));
            if entry.0 != agent.incarnation {
                *entry = (agent.incarnation, now);
            }
            if now.saturating_duration_since(entry.1.max(since)) > timeout {
                agents.push((id.clone(), agent.incarnation));
                continue;
            }
            let current = agent
                .slots
                .iter()
                .filter(|(_, s)| s.lease == LeaseState::Current);
            for (position, slot) in current {
                let heard = self.leases.get(position).copied().unwrap_or(now);
                held.insert(*position, heard);
                let Some(task) = state.tasks.get(&slot.task) else {
                    continue;
                };
                let allowed = Duration::from_millis(task.spec.timeouts.heartbeat_ms());
                if now.saturating_duration_since(heard.max(since)) > allowed {
                    let (task, attempt) = (slot.task, slot.attempt);
                    leases.push(Lease {
                        task,
                        attempt,
                        assigned: *position,
                    });
                }
            }
        }
        self.leases = held;
        self.agents
            .retain(|id, _| state.agents.get(id).is_some_and(|a| a.status.is_there()));
        (agents, leases)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use conductor_domain::{Record, fold, record};
    use conductor_protocol::CellId;
    use conductor_protocol::event::{AgentJoined, Event};
    use conductor_protocol::frame::{FrameHead, join};

    fn state_with_agent() -> State {
        let cell = CellId::default();
        let mut state = State::new(cell.clone());
        let joined = Event::from(AgentJoined {
            slots: 1,
            ..AgentJoined::default()
        });
        let record = Record {
            seq: 1,
            time_ms: 1,
            subject: "conductor.local.agent.a1".into(),
            content_type: None,
            reply: None,
            traceparent: None,
            payload: join(FrameHead::default(), &[joined.encode()]).into(),
        };
        fold::apply(&mut state, &record::decode(&cell, &record));
        state
    }

    fn beat() -> Beat {
        Beat {
            agent: AgentId::from_log("a1"),
            incarnation: 1,
            leases: vec![],
            hearing: conductor_eventlog::jetstream::ears::Hearing::default(),
        }
    }

    #[test]
    fn an_agent_is_lost_after_its_silence_and_not_before() {
        let state = state_with_agent();
        let mut silence = Silence::default();
        let start = Instant::now();
        silence.restart(start);
        silence.heard(&beat(), start);
        let at = |s: u64| start + Duration::from_secs(s);
        assert!(silence.listen(&state, at(44)).0.is_empty());
        silence.heard(&beat(), at(44));
        assert!(silence.listen(&state, at(80)).0.is_empty());
        assert_eq!(
            silence.listen(&state, at(90)).0,
            [(AgentId::from_log("a1"), 1)]
        );
    }

    #[test]
    fn time_begins_anew_when_nothing_could_be_heard() {
        let state = state_with_agent();
        let mut silence = Silence::default();
        let start = Instant::now();
        silence.restart(start);
        let at = |s: u64| start + Duration::from_secs(s);
        assert!(silence.listen(&state, at(1)).0.is_empty());
        silence.restart(at(100));
        assert!(silence.listen(&state, at(101)).0.is_empty());
        assert!(silence.listen(&state, at(140)).0.is_empty());
        assert_eq!(silence.listen(&state, at(147)).0.len(), 1);
    }
}
