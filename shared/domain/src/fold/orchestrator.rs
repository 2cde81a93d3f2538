//! Decisions of the leading orchestrator.

use conductor_protocol::event::{
    AttemptTimeout, CancelCause, Event, TaskCancelled, TaskFailed, TaskTimeout,
};
use conductor_protocol::ids::Lease;
use conductor_protocol::spec::NeedPolicy;
use conductor_protocol::{OutcomeClass, TaskId};

use super::{At, Notice, Ruling, budgets, end, intake, people};
use crate::planted::{Bug, is_planted};
use crate::state::{AgentStatus, Outcome, Phase, State, Task};
use crate::void::VoidReason;

pub(super) fn apply(state: &mut State, at: At, event: &Event, notices: &mut Vec<Notice>) -> Ruling {
    if event.since_format() > state.format {
        return Err(VoidReason::FormatNotReached);
    }
    match event {
        Event::LogFormat(e) => {
            if e.format <= state.format {
                return Err(VoidReason::NoChange);
            }
            state.format = e.format;
            Ok(())
        }
        Event::TaskAccepted(e) => intake::accepted(state, at, e, notices),
        Event::TaskRejected(e) => intake::rejected(state, e, notices),
        Event::TaskDuplicate(e) => intake::duplicate(state, e.submission, e.task, notices),
        Event::TaskReady(e) => ready(state, at, e.task),
        Event::TaskRetrySet(e) => retry_set(state, e.task, e.attempt, e.at_ms),
        Event::TaskFailed(e) => failed(state, at, e, notices),
        Event::TaskTimedOut(e) => timed_out(state, at, e.task, e.timeout, notices),
        Event::TaskCancelled(e) => cancelled(state, at, e, notices),
        Event::TaskRedriven(e) => redriven(state, at, e.task),
        Event::AttemptTimedOut(e) => attempt_timed_out(state, at, e.lease, e.timeout),
        Event::ApprovalDecided(e) => people::decided(state, e),
        Event::BudgetReached(e) => budgets::reached(state, at, e),
        Event::AgentLost(e) => {
            let agent = state
                .agents
                .get_mut(&e.agent)
                .ok_or(VoidReason::UnknownAgent)?;
            if agent.incarnation != e.incarnation {
                return Err(VoidReason::StaleIncarnation);
            }
            if !agent.status.is_there() {
                return Err(VoidReason::AgentGone);
            }
            agent.is_dismissal_due = true;
            state.counters.agents_lost += 1;
            end::agent_gone(state, at, &e.agent, AgentStatus::Lost);
            Ok(())
        }
        _ => Err(VoidReason::WrongWriter),
    }
}

/// The task, if it has not ended.
fn open(state: &State, id: TaskId) -> Result<&Task, VoidReason> {
    let task = state.tasks.get(&id).ok_or(VoidReason::UnknownTask)?;
    if task.is_final() && !is_planted(Bug::EndsTwice) {
        Err(VoidReason::AlreadyFinal)
    } else {
        Ok(task)
    }
}

fn ready(state: &mut State, at: At, id: TaskId) -> Ruling {
    let task = open(state, id)?;
    if task.aside.cancel.is_some() {
        return Err(VoidReason::CancelRequested);
    }
    if !matches!(task.phase, Phase::Pending { .. }) {
        return Err(VoidReason::NotPending);
    }
    let is_held = task.aside.failed_need.is_some() && task.spec.on_need_failed != NeedPolicy::Run;
    if !task.aside.open_needs.is_empty() || is_held {
        return Err(VoidReason::NeedsUnmet);
    }
    state.change_task(id, |task| {
        task.phase = Phase::Ready {
            since_ms: at.time_ms,
            at: at.position,
        };
    });
    Ok(())
}

fn retry_set(state: &mut State, id: TaskId, attempt: u32, not_before_ms: u64) -> Ruling {
    let task = open(state, id)?;
    if task.phase != Phase::Undecided {
        return Err(VoidReason::NotPending);
    }
    if task.attempts != attempt {
        return Err(VoidReason::WrongAttempt);
    }
    state.counters.retries += 1;
    state.change_task(id, |task| {
        task.attempts += u32::from(is_planted(Bug::RetryCountedTwice));
        // Waiting for the model service is no try of the task's.
        if task.aside.throttled_ms.is_some() {
            task.aside.throttled_ms = None;
            task.aside.attempts_before += 1;
        }
        task.phase = Phase::Pending { not_before_ms };
    });
    Ok(())
}

fn failed(state: &mut State, at: At, e: &TaskFailed, notices: &mut Vec<Notice>) -> Ruling {
    let task = open(state, e.task)?;
    let is_for_need =
        matches!(task.phase, Phase::Pending { .. }) && task.aside.failed_need.is_some();
    let is_for_budget = budgets::is_failed(state, at, task, e);
    if task.phase != Phase::Undecided && !is_for_need && !is_for_budget {
        return Err(VoidReason::NotPending);
    }
    end::finish(
        state,
        at,
        e.task,
        Outcome::Failed,
        Some(e.class),
        None,
        notices,
    );
    Ok(())
}

fn timed_out(
    state: &mut State,
    at: At,
    id: TaskId,
    timeout: TaskTimeout,
    notices: &mut Vec<Notice>,
) -> Ruling {
    let task = open(state, id)?;
    let fits = match timeout {
        TaskTimeout::Total => true,
        TaskTimeout::Queue => matches!(task.phase, Phase::Ready { .. } | Phase::Leased(_)),
        TaskTimeout::Run | TaskTimeout::Heartbeat => task.phase == Phase::Undecided,
    };
    if !fits {
        return Err(VoidReason::NotPending);
    }
    let class = match timeout {
        TaskTimeout::Heartbeat => OutcomeClass::HeartbeatLost,
        _ => OutcomeClass::Timeout,
    };
    end::finish(state, at, id, Outcome::TimedOut, Some(class), None, notices);
    Ok(())
}

fn cancelled(state: &mut State, at: At, e: &TaskCancelled, notices: &mut Vec<Notice>) -> Ruling {
    let task = open(state, e.task)?;
    let (is_asked_for, class) = match e.cause {
        CancelCause::Control(_) => (task.aside.cancel.is_some(), OutcomeClass::Cancelled),
        CancelCause::NeedFailed(_) => {
            let waits = matches!(task.phase, Phase::Pending { .. });
            (
                waits && task.aside.failed_need.is_some(),
                OutcomeClass::NeedFailed,
            )
        }
    };
    if !is_asked_for {
        return Err(VoidReason::NotRequested);
    }
    end::finish(
        state,
        at,
        e.task,
        Outcome::Cancelled,
        Some(class),
        None,
        notices,
    );
    Ok(())
}

/// Starts over. Its needs are not looked at again: somebody decided that it shall run.
fn redriven(state: &mut State, at: At, id: TaskId) -> Ruling {
    let task = state.tasks.get(&id).ok_or(VoidReason::UnknownTask)?;
    if !task.is_final() {
        return Err(VoidReason::NotFinal);
    }
    if task.aside.redrive.is_none() {
        return Err(VoidReason::NotRequested);
    }
    state.change_task(id, |task| {
        task.phase = Phase::Ready {
            since_ms: at.time_ms,
            at: at.position,
        };
        task.aside.attempts_before = task.attempts;
        task.accepted_ms = at.time_ms;
        task.aside.failed_need = None;
        task.aside.open_needs.clear();
        task.aside.last_failure = None;
        task.aside.cancel = None;
        task.aside.redrive = None;
    });
    Ok(())
}

fn attempt_timed_out(state: &mut State, at: At, lease: Lease, timeout: AttemptTimeout) -> Ruling {
    let task = open(state, lease.task)?;
    if task.lease(lease.task) != Some(lease) {
        return Err(VoidReason::LeaseNotCurrent);
    }
    // It began to wait for people while that was on its way.
    if timeout == AttemptTimeout::Run && task.aside.paused_since.is_some() {
        return Err(VoidReason::NotPending);
    }
    let class = match timeout {
        AttemptTimeout::Run => OutcomeClass::Timeout,
        AttemptTimeout::Heartbeat => OutcomeClass::HeartbeatLost,
    };
    end::attempt_failed(state, at, lease, class, end::Slot::StillBusy);
    Ok(())
}
