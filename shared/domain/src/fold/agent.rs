//! Reports of agents. A report counts only under the task's current lease.

use conductor_protocol::OutcomeClass;
use conductor_protocol::event::{AgentJoined, AttemptStarted, Event, Usage};
use conductor_protocol::ids::{AgentId, Lease};

use super::{At, Notice, Ruling, end, people, subtasks};
use crate::planted::{Bug, is_planted};
use crate::state::{Agent, AgentStatus, LeaseState, Outcome, Phase, Slots, State, Task};
use crate::void::VoidReason;

pub(super) fn apply(
    state: &mut State,
    at: At,
    id: &AgentId,
    incarnation: Option<u64>,
    event: &Event,
    notices: &mut Vec<Notice>,
) -> Ruling {
    if event.since_format() > state.format {
        return Err(VoidReason::FormatNotReached);
    }
    if let Event::AgentJoined(e) = event {
        joined(state, at, id, e);
        return Ok(());
    }
    let agent = state.agents.get(id).ok_or(VoidReason::UnknownAgent)?;
    if incarnation != Some(agent.incarnation) && !is_planted(Bug::IncarnationUnchecked) {
        return Err(VoidReason::StaleIncarnation);
    }
    if !agent.status.is_there() {
        return Err(VoidReason::AgentGone);
    }
    match event {
        Event::AgentDraining(_) => draining(state, at, id),
        Event::AgentLeft(_) => {
            end::agent_gone(state, at, id, AgentStatus::Left);
            Ok(())
        }
        Event::AttemptStarted(e) => started(state, at, id, e),
        Event::AttemptProgress(e) => current(state, id, e.lease),
        // What was made stands in the log; no decision depends on it.
        Event::AttemptArtifact(e) => current(state, id, e.lease),
        Event::AttemptChanged(e) => {
            current(state, id, e.lease)?;
            if let Some(unpushed) = e.unpushed {
                state.note_unpushed(e.lease.task, unpushed);
            }
            Ok(())
        }
        Event::WorkspaceRemoved(e) => state.workspace_removed(id, e),
        Event::AttemptThrottled(e) => {
            current(state, id, e.lease)?;
            let noted = state.change_task(e.lease.task, |task| {
                task.aside.throttled_ms = e.until_ms.or(task.aside.throttled_ms);
            });
            noted.ok_or(VoidReason::UnknownTask)
        }
        Event::ApprovalRequested(e) => {
            current(state, id, e.lease)?;
            people::requested(state, at, e)
        }
        Event::AttemptSubmitted(e) => {
            current(state, id, e.lease)?;
            subtasks::submitted(state, at, e)
        }
        Event::ApprovalWithdrawn(e) => {
            current(state, id, e.lease)?;
            people::withdrawn(state, at, e)
        }
        Event::AttemptUsage(e) => {
            current(state, id, e.lease)?;
            note_usage(state, id, e.lease, Some(&e.usage));
            Ok(())
        }
        Event::AttemptSucceeded(e) => {
            current(state, id, e.lease)?;
            note_usage(state, id, e.lease, e.usage.as_ref());
            let result = e.result.as_deref();
            end::finish(
                state,
                at,
                e.lease.task,
                Outcome::Succeeded,
                None,
                result,
                notices,
            );
            Ok(())
        }
        Event::AttemptFailed(e) => {
            current(state, id, e.lease)?;
            note_usage(state, id, e.lease, e.usage.as_ref());
            end::attempt_failed(state, at, e.lease, e.class, end::Slot::Free);
            Ok(())
        }
        Event::AttemptStopped(e) => stopped(state, at, id, e.lease),
        _ => Err(VoidReason::WrongWriter),
    }
}

fn joined(state: &mut State, at: At, id: &AgentId, e: &AgentJoined) {
    let was_there = state.agents.get(id).is_some_and(|a| a.status.is_there());
    if !is_planted(Bug::LeaseSurvivesRejoin) {
        // It did not leave, or this changes nothing; what it is now stands below.
        end::agent_gone(state, at, id, AgentStatus::Lost);
    }
    let before = state.agents.get(id);
    if let Some(before) = before {
        state.index.gone.remove(&(before.since_ms, id.clone()));
    }
    let agent = Agent {
        incarnation: at.position.seq,
        joined: e.clone(),
        status: AgentStatus::Up,
        since_ms: at.time_ms,
        is_drained: before.is_some_and(|b| b.is_drained),
        is_dismissal_due: false,
        // Its process may still be there, and would wait for work for ever.
        replaced: before.and_then(|b| {
            if was_there {
                Some(b.incarnation)
            } else {
                b.replaced
            }
        }),
        slots: Slots::default(),
    };
    state.agents.insert(id.clone(), agent);
    state.reindex_agent(id);
}

fn draining(state: &mut State, at: At, id: &AgentId) -> Ruling {
    let ruling = state.change_agent(id, |agent| {
        if agent.status == AgentStatus::Draining {
            return Err(VoidReason::NoChange);
        }
        agent.status = AgentStatus::Draining;
        agent.since_ms = at.time_ms;
        Ok(())
    });
    ruling.unwrap_or(Err(VoidReason::UnknownAgent))
}

/// Whether `lease` is its task's current one and this agent's.
fn current(state: &State, id: &AgentId, lease: Lease) -> Ruling {
    let task = state.tasks.get(&lease.task);
    is_current(task.ok_or(VoidReason::UnknownTask)?, id, lease)
}

fn is_current(task: &Task, id: &AgentId, lease: Lease) -> Ruling {
    let is_ours = task.assigned().is_some_and(|a| a.agent == *id);
    let is_current = is_ours && task.lease(lease.task) == Some(lease);
    if is_current || is_planted(Bug::LeaseUnchecked) {
        Ok(())
    } else {
        Err(VoidReason::LeaseNotCurrent)
    }
}

fn started(state: &mut State, at: At, id: &AgentId, e: &AttemptStarted) -> Ruling {
    let lease = e.lease;
    let changed = state.change_task(lease.task, |task| {
        is_current(task, id, lease)?;
        let Phase::Leased(assigned) = &task.phase else {
            return Err(VoidReason::Duplicate);
        };
        task.phase = Phase::Running {
            assigned: assigned.clone(),
            started_ms: at.time_ms,
        };
        if let Some(session) = &e.session {
            task.note_session(session, id);
        }
        Ok(())
    });
    changed.unwrap_or(Err(VoidReason::UnknownTask))
}

/// Usage is cumulative over all attempts of a task: who reports it was told what was before.
fn note_usage(state: &mut State, id: &AgentId, lease: Lease, usage: Option<&Usage>) {
    let Some(usage) = usage else { return };
    let Some(task) = state.tasks.get_mut(&lease.task) else {
        return;
    };
    let mut more = task.note_usage(usage);
    // While it runs its namespace is charged whenever it says what it has used.
    more.ran_ms = task.uncharged_ms(state.time_ms);
    task.aside.charged_ms = task.aside.charged_ms.saturating_add(more.ran_ms);
    if let Some(session) = &usage.session {
        task.note_session(session, id);
    }
    let namespace = task.spec.namespace.clone();
    state.spend(&namespace, more);
}

fn stopped(state: &mut State, at: At, id: &AgentId, lease: Lease) -> Ruling {
    let agent = state.agents.get(id).ok_or(VoidReason::UnknownAgent)?;
    let slot = agent
        .slots
        .get(&lease.assigned)
        .ok_or(VoidReason::LeaseUnknown)?;
    match slot.lease {
        // It stopped what it should be running, so another has to.
        LeaseState::Current => {
            let class = OutcomeClass::LeaseExpired;
            end::attempt_failed(state, at, lease_of(slot, lease), class, end::Slot::Free);
        }
        LeaseState::Over | LeaseState::Told => {
            end::free_slot(state, id, lease.assigned, end::Slot::Free);
        }
    }
    Ok(())
}

fn lease_of(slot: &crate::state::SlotUse, lease: Lease) -> Lease {
    Lease {
        task: slot.task,
        attempt: slot.attempt,
        assigned: lease.assigned,
    }
}
