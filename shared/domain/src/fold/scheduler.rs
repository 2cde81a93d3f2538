//! Decisions of the leading scheduler.

use conductor_protocol::event::{AttemptAssigned, Event};
use conductor_protocol::ids::{AgentId, Position};

use super::{At, Ruling, people};
use crate::planted::{Bug, is_planted};
use crate::state::{
    Agent, Assigned, LeaseState, Phase, SlotUse, State, Task, WORKSPACES_SINCE, Workspace,
};
use crate::void::VoidReason;

pub(super) fn apply(state: &mut State, at: At, agent: &AgentId, event: &Event) -> Ruling {
    if event.since_format() > state.format {
        return Err(VoidReason::FormatNotReached);
    }
    match event {
        Event::AttemptAssigned(e) => assigned(state, at, agent, e),
        Event::AttemptRevoked(e) => {
            let a = state
                .agents
                .get_mut(agent)
                .ok_or(VoidReason::UnknownAgent)?;
            if a.incarnation != e.incarnation {
                return Err(VoidReason::StaleIncarnation);
            }
            let lease = a
                .slots
                .lease_mut(&e.lease.assigned)
                .ok_or(VoidReason::LeaseUnknown)?;
            match lease {
                LeaseState::Current => Err(VoidReason::LeaseUnknown),
                LeaseState::Told => Err(VoidReason::Duplicate),
                LeaseState::Over => {
                    *lease = LeaseState::Told;
                    state
                        .index
                        .revocations
                        .remove(&(agent.clone(), e.lease.assigned));
                    Ok(())
                }
            }
        }
        Event::AttemptTold(e) => people::told(state, at, agent, e),
        Event::WorkspaceDropped(e) => state.workspace_dropped(agent, e),
        Event::AgentDismissed(e) => {
            let a = state
                .agents
                .get_mut(agent)
                .ok_or(VoidReason::UnknownAgent)?;
            if e.replaced {
                if a.replaced != Some(e.incarnation) {
                    return Err(VoidReason::NoChange);
                }
                a.replaced = None;
                state.reindex_agent(agent);
                return Ok(());
            }
            if a.incarnation != e.incarnation {
                return Err(VoidReason::StaleIncarnation);
            }
            if !a.is_dismissal_due {
                return Err(VoidReason::NoChange);
            }
            a.is_dismissal_due = false;
            state.reindex_agent(agent);
            Ok(())
        }
        _ => Err(VoidReason::WrongWriter),
    }
}

fn assigned(state: &mut State, at: At, agent: &AgentId, e: &AttemptAssigned) -> Ruling {
    let a = state.agents.get(agent).ok_or(VoidReason::UnknownAgent)?;
    // An agent tells by itself that such words are not meant for it.
    if a.incarnation != e.incarnation {
        return Err(VoidReason::StaleIncarnation);
    }
    if !a.status.is_there() {
        return Err(VoidReason::AgentGone);
    }
    let verdict = may_assign(state, at, (agent, a), e);
    let slot = SlotUse {
        task: e.task,
        attempt: e.attempt,
        cost: e.slots,
        lease: if verdict.is_ok() {
            LeaseState::Current
        } else {
            LeaseState::Over
        },
    };
    // The agent cannot see that an assignment is void and will begin: it occupies its
    // slots and has to be told, like every lease that is over.
    state.change_agent(agent, |a| a.slots.insert(at.position, slot));
    if let Err(reason) = verdict {
        state.index.revocations.insert((agent.clone(), at.position));
        return Err(reason);
    }
    take(state, at, agent, e);
    Ok(())
}

fn may_assign(
    state: &State,
    at: At,
    (id, agent): (&AgentId, &Agent),
    e: &AttemptAssigned,
) -> Ruling {
    let task = state.tasks.get(&e.task).ok_or(VoidReason::UnknownTask)?;
    if task.is_final() {
        return Err(VoidReason::AlreadyFinal);
    }
    if task.aside.cancel.is_some() && !is_planted(Bug::CancelIgnored) {
        return Err(VoidReason::CancelRequested);
    }
    if !matches!(task.phase, Phase::Ready { .. }) {
        return Err(VoidReason::NotReady);
    }
    if e.attempt != task.attempts + 1 {
        return Err(VoidReason::WrongAttempt);
    }
    if state.paused.contains(&task.spec.queue) && !is_planted(Bug::PauseIgnored) {
        return Err(VoidReason::QueuePaused);
    }
    if !agent.takes_work() {
        return Err(VoidReason::AgentDraining);
    }
    if !is_capable(agent, task) {
        return Err(VoidReason::NotCapable);
    }
    let free = agent.joined.slots.saturating_sub(agent.slots_used());
    if e.slots != task.spec.slots || free < task.spec.slots {
        return Err(VoidReason::NoCapacity);
    }
    if let Some(c) = &task.spec.concurrency
        && state.key_running.get(&c.key).copied().unwrap_or(0) >= c.limit
    {
        return Err(VoidReason::KeySaturated);
    }
    if state.is_over_budget(task, at.time_ms) {
        return Err(VoidReason::BudgetReached);
    }
    may_enter(state, id, agent, task)
}

/// Whether a task may work in its workspace there.
fn may_enter(state: &State, id: &AgentId, agent: &Agent, task: &Task) -> Ruling {
    let held = state.workspace_of(task);
    if held.is_some_and(Workspace::is_taken) {
        return Err(VoidReason::WorkspaceBusy);
    }
    if held.is_some() && !state.may_run(id, agent, task) {
        return Err(VoidReason::WorkspaceElsewhere);
    }
    Ok(())
}

/// Whether an agent has the runtime, the sandbox and every label a task requires.
pub(crate) fn is_capable(agent: &Agent, task: &Task) -> bool {
    agent.joined.runtimes.contains_key(&task.spec.runtime)
        && agent.joined.can_box(task.spec.terms.as_deref())
        && task.spec.labels.iter().all(|(k, v)| {
            let has = agent.joined.labels.get(k).map(String::as_str);
            has == Some(v) || is_planted(Bug::LabelsIgnored)
        })
}

fn take(state: &mut State, at: At, agent: &AgentId, e: &AttemptAssigned) {
    state.counters.attempts += 1;
    let taken = state.change_task(e.task, |task| {
        let ready_ms = match task.phase {
            Phase::Ready { since_ms, .. } => since_ms,
            _ => at.time_ms,
        };
        task.attempts += 1;
        task.phase = Phase::Leased(new_assignment(agent, at, ready_ms));
        let key = task.spec.concurrency.as_ref().map(|c| c.key.clone());
        (key, task.workspace())
    });
    let Some((key, workspace)) = taken else {
        return;
    };
    if let Some(key) = key {
        *state.key_running.entry(key).or_default() += 1;
    }
    if let Some(workspace) = workspace.filter(|_| state.format >= WORKSPACES_SINCE) {
        state.enter_workspace(workspace, agent, e.task);
    }
}

fn new_assignment(agent: &AgentId, at: At, ready_ms: u64) -> Assigned {
    let position: Position = at.position;
    Assigned {
        agent: agent.clone(),
        at: position,
        ready_ms,
        since_ms: at.time_ms,
    }
}
