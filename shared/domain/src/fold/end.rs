//! How attempts and tasks end, whoever says so, and how ended tasks are forgotten.

use std::collections::BTreeSet;

use conductor_protocol::ids::{AgentId, Lease, Position};
use conductor_protocol::{OutcomeClass, TaskId};

use super::{At, Notice, Passed, PastAttempt, PastTask, Word, subtasks};
use crate::planted::{Bug, is_planted};
use crate::state::{
    AgentStatus, Ended, Failure, LeaseState, Outcome, Phase, State, Task, WorkspaceKey,
};

/// Most agents remembered after they are gone.
const GONE_AGENTS_MAX: usize = 1_000;

/// What becomes of an attempt's slots when its lease ends.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Slot {
    /// The agent itself says that the attempt is over.
    Free,
    /// The agent is to be told, and says when it is over.
    StillBusy,
    /// The agent is gone, and its slots with it.
    Gone,
}

/// What a lease holds.
struct Held {
    attempt: PastAttempt,
    key: Option<String>,
    workspace: Option<(TaskId, WorkspaceKey)>,
}

impl Held {
    /// What the lease in force holds, if there is one.
    fn by(id: TaskId, task: &Task) -> Option<Self> {
        let started_ms = match &task.phase {
            Phase::Running { started_ms, .. } => Some(*started_ms),
            _ => None,
        };
        task.assigned().map(|assigned| Self {
            attempt: PastAttempt {
                number: task.attempts,
                agent: assigned.agent.clone(),
                assigned: assigned.at,
                ready_ms: assigned.ready_ms,
                assigned_ms: assigned.since_ms,
                started_ms,
                agent_was_leaving: false,
            },
            key: task.spec.concurrency.as_ref().map(|c| c.key.clone()),
            workspace: task.workspace().map(|key| (id, key)),
        })
    }

    /// The lease has ended: frees the key, and the slots or marks them.
    fn release(mut self, state: &mut State, slot: Slot) -> PastAttempt {
        let agent = state.agents.get(&self.attempt.agent);
        self.attempt.agent_was_leaving =
            agent.is_some_and(|a| matches!(a.status, AgentStatus::Draining | AgentStatus::Left));
        if let Some(key) = self.key
            && let Some(n) = state.key_running.get_mut(&key)
        {
            let given_back = if is_planted(Bug::KeyReleasedTwice) {
                2
            } else {
                u32::from(!is_planted(Bug::KeyKept))
            };
            *n = n.saturating_sub(given_back);
            if *n == 0 {
                state.key_running.remove(&key);
            }
        }
        if let Some((task, workspace)) = self.workspace {
            state.leave_workspace(&workspace, task);
        }
        free_slot(state, &self.attempt.agent, self.attempt.assigned, slot);
        self.attempt
    }
}

pub(super) fn free_slot(state: &mut State, agent: &AgentId, at: Position, slot: Slot) {
    match slot {
        Slot::Free | Slot::Gone => {
            state.change_agent(agent, |a| a.slots.remove(&at));
            if !state.index.revocations.is_empty() {
                state.index.revocations.remove(&(agent.clone(), at));
            }
        }
        Slot::StillBusy => {
            let Some(a) = state.agents.get_mut(agent) else {
                return;
            };
            if let Some(lease) = a.slots.lease_mut(&at)
                && *lease == LeaseState::Current
            {
                *lease = LeaseState::Over;
                state.index.revocations.insert((agent.clone(), at));
            }
        }
    }
}

/// The attempt of the current lease did not succeed: what follows is to be decided.
pub(super) fn attempt_failed(
    state: &mut State,
    at: At,
    lease: Lease,
    class: OutcomeClass,
    slot: Slot,
) {
    let mut rest = None;
    let held = state.change_task(lease.task, |task| {
        rest = task.rest(at.time_ms);
        let held = Held::by(lease.task, task);
        task.end_talk(at.time_ms, false);
        task.session_failed(class);
        task.forget_throttle(class, at.time_ms);
        task.aside.last_failure = Some(Failure {
            class,
            attempt: task.attempts,
            at: at.position,
        });
        task.phase = Phase::Undecided;
        held
    });
    state.charge(rest);
    if let Some(held) = held.flatten() {
        let attempt = held.release(state, slot);
        state.passed.push(Passed {
            at: at.position,
            time_ms: at.time_ms,
            task: lease.task,
            class: Some(class),
            attempt: Some(attempt),
            end: None,
        });
    }
}

/// The task has ended.
pub(super) fn finish(
    state: &mut State,
    at: At,
    id: TaskId,
    outcome: Outcome,
    class: Option<OutcomeClass>,
    result: Option<&str>,
    notices: &mut Vec<Notice>,
) {
    // Only the agent's own word that it succeeded frees its slots at once.
    let slot = if outcome == Outcome::Succeeded {
        Slot::Free
    } else {
        Slot::StillBusy
    };
    *state.counters.ended.entry(outcome).or_default() += 1;
    let ended = Ended {
        outcome,
        class,
        at: at.position,
        at_ms: at.time_ms,
    };
    let (mut held, mut reply, mut needs) = (None, None, BTreeSet::new());
    let mut parent = None;
    let mut accepted_ms = 0;
    let mut rest = None;
    state.change_task(id, |task| {
        rest = task.rest(at.time_ms);
        accepted_ms = task.accepted_ms;
        held = Held::by(id, task);
        parent = task.parent();
        task.end_talk(at.time_ms, outcome == Outcome::Succeeded);
        task.phase = Phase::Ended(ended.clone());
        reply.clone_from(&task.spec.reply);
        // A task that has ended no longer waits for those it needs.
        if !task.aside.open_needs.is_empty() {
            needs = std::mem::take(&mut task.aside.open_needs);
        }
    });
    state.charge(rest);
    let attempt = held.map(|held| held.release(state, slot));
    state.passed.push(Passed {
        at: at.position,
        time_ms: at.time_ms,
        task: id,
        class,
        attempt,
        end: Some(PastTask {
            outcome,
            accepted_ms,
        }),
    });
    for need in needs {
        stop_waiting(state, id, need);
    }
    if let Some(parent) = parent {
        subtasks::ended(state, parent, id, &ended);
    }
    if let Some(reply) = reply {
        let result = result.map(str::to_owned);
        let word = Word::Ended {
            task: id,
            outcome,
            class,
            at: at.position,
            result,
        };
        let reply = reply.to_string();
        notices.push(Notice { reply, word });
    }
    if state.index.dependents.is_empty() {
        return;
    }
    for dependent in state.index.dependents.remove(&id).unwrap_or_default() {
        state.change_task(dependent, |task| {
            task.aside.open_needs.remove(&id);
            if outcome != Outcome::Succeeded && task.aside.failed_need.is_none() {
                task.aside.failed_need = Some(id);
            }
        });
    }
}

fn stop_waiting(state: &mut State, id: TaskId, need: TaskId) {
    if let Some(waiting) = state.index.dependents.get_mut(&need) {
        waiting.remove(&id);
        if waiting.is_empty() {
            state.index.dependents.remove(&need);
        }
    }
}

/// An agent is gone, or back as another incarnation: its leases are over.
pub(super) fn agent_gone(state: &mut State, at: At, agent: &AgentId, status: AgentStatus) {
    let gone = state.change_agent(agent, |a| {
        a.status = status;
        let since_ms = std::mem::replace(&mut a.since_ms, at.time_ms);
        (since_ms, std::mem::take(&mut a.slots))
    });
    let Some((since_ms, slots)) = gone else {
        return;
    };
    state.index.gone.remove(&(since_ms, agent.clone()));
    for (position, used) in slots {
        state.index.revocations.remove(&(agent.clone(), position));
        if used.lease == LeaseState::Current {
            let lease = Lease {
                task: used.task,
                attempt: used.attempt,
                assigned: position,
            };
            attempt_failed(state, at, lease, OutcomeClass::AgentLost, Slot::Gone);
        }
    }
    state.reindex_agent(agent);
}

/// Forgets what is beyond its retention. Bounded by what came in, since each record
/// brings in at most what it holds.
pub(super) fn expire(state: &mut State) {
    let now = state.time_ms;
    while let Some((ended_ms, id)) = state.index.ended.first().copied() {
        let is_due = ended_ms.saturating_add(state.config.finished_retention_ms) <= now
            || state.index.ended.len() as u64 > state.config.finished_max;
        if !is_due || is_planted(Bug::NothingExpires) {
            break;
        }
        let outcome = state.remove_task(id).and_then(|t| t.outcome());
        if let Some(outcome) = outcome.filter(|_| !is_planted(Bug::TombstoneDropped)) {
            state.tombstones.insert(id, outcome);
        }
    }
    while let Some((id, _)) = state.tombstones.first_key_value() {
        let made = id.made_at_ms();
        let is_old = made.saturating_add(state.config.idempotency_window_ms) < now;
        if !is_old && state.tombstones.len() as u64 <= state.config.tombstones_max {
            break;
        }
        // The floor is what makes forgetting safe: an id below it is refused for ever.
        if !is_planted(Bug::FloorNotRaised) {
            state.id_floor_ms = state.id_floor_ms.max(made + 1);
        }
        state.tombstones.pop_first();
    }
    while state
        .index
        .key_expiry
        .first()
        .is_some_and(|(until, ..)| *until < now)
    {
        if let Some((until, namespace, key)) = state.index.key_expiry.pop_first() {
            let key = (namespace, key);
            if state.keys.get(&key).is_some_and(|k| k.until_ms == until) {
                state.keys.remove(&key);
            }
        }
    }
    state.expire_workspaces();
    while state.index.gone.len() > GONE_AGENTS_MAX {
        if let Some((_, agent)) = state.index.gone.pop_first() {
            state.agents.remove(&agent);
            state.index.dismissals.remove(&agent);
        }
    }
}
