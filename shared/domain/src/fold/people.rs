//! Questions of attempts to people, and what people say to attempts.
//!
//! An answer goes a way of its own: somebody gives it (control), the orchestrator decides that it
//! counts, or that nobody gave one in time, and the scheduler tells the attempt, since agents hear
//! nobody else. Each step counts once, and only under the lease that asked. Until it was told, the
//! attempt may withdraw what it asked.

use conductor_protocol::TaskId;
use conductor_protocol::event::{
    ApprovalDecided, ApprovalRequested, ApprovalWithdrawn, AttemptTold, Word,
};
use conductor_protocol::ids::AgentId;
use conductor_protocol::limits::WORD_BYTES_MAX;
use conductor_protocol::terms::Answer;

use super::{At, Ruling, subtasks};
use crate::planted::{Bug, is_planted};
use crate::state::{APPROVALS_MAX, Approval, Phase, Reply, State, Task, WORDS_MAX};
use crate::void::VoidReason;

/// The format that questions and words came with.
const FORMAT: u32 = 2;

/// `approval.requested`, under the current lease.
pub(super) fn requested(state: &mut State, at: At, e: &ApprovalRequested) -> Ruling {
    if e.summary.len() > WORD_BYTES_MAX {
        return Err(VoidReason::Malformed);
    }
    let changed = state.change_task(e.lease.task, |task| {
        if !matches!(task.phase, Phase::Running { .. }) {
            return Err(VoidReason::NotPending);
        }
        if task.aside.approvals.len() >= APPROVALS_MAX {
            return Err(VoidReason::NoCapacity);
        }
        match task.take_number(e.approval) {
            Some(true) => {}
            Some(false) => return Err(VoidReason::Duplicate),
            None => return Err(VoidReason::NoCapacity),
        }
        let approval = Approval {
            question: e.question,
            summary: e.summary.clone(),
            requested_ms: at.time_ms,
            expires_ms: at.time_ms.saturating_add(e.expires.0),
            default: e.default,
            reply: None,
            is_decided: false,
        };
        task.ask(e.approval, approval);
        Ok(())
    });
    changed.unwrap_or(Err(VoidReason::UnknownTask))
}

/// `approval.withdrawn`, under the current lease: whatever was answered, nobody waits for it.
pub(super) fn withdrawn(state: &mut State, at: At, e: &ApprovalWithdrawn) -> Ruling {
    change(state, e.lease.task, |task| {
        asked(task, e.approval)?;
        if !is_planted(Bug::WithdrawalIgnored) {
            task.close(e.approval, at.time_ms);
        }
        Ok(())
    })
}

/// A task that people may say something about.
fn open(state: &State, id: TaskId, text: Option<&str>) -> Result<(), VoidReason> {
    if state.format < FORMAT {
        return Err(VoidReason::FormatNotReached);
    }
    if text.is_some_and(|t| t.len() > WORD_BYTES_MAX) {
        return Err(VoidReason::Malformed);
    }
    let task = state.tasks.get(&id).ok_or(VoidReason::UnknownTask)?;
    if task.is_final() {
        return Err(VoidReason::AlreadyFinal);
    }
    Ok(())
}

/// Somebody answers.
pub(super) fn answered(
    state: &mut State,
    at: At,
    id: TaskId,
    number: u32,
    answer: Answer,
    text: Option<&str>,
) -> Ruling {
    open(state, id, text)?;
    let reply = Reply {
        answer,
        control: Some(at.position),
        text: text.map(str::to_owned),
    };
    change(state, id, |task| {
        let asked = asked(task, number)?;
        if !asked.is_open() {
            return Err(VoidReason::Answered);
        }
        asked.reply = Some(reply);
        Ok(())
    })
}

/// Somebody says something.
pub(super) fn said(state: &mut State, at: At, id: TaskId, text: &str) -> Ruling {
    open(state, id, Some(text))?;
    change(state, id, |task| {
        if !matches!(task.phase, Phase::Running { .. }) {
            return Err(VoidReason::NotPending);
        }
        if task.aside.words.len() >= WORDS_MAX {
            return Err(VoidReason::NoCapacity);
        }
        task.aside.words.insert(at.position, text.to_owned());
        Ok(())
    })
}

/// `approval.decided`: the answer is the one that was given, or that nobody gave one.
pub(super) fn decided(state: &mut State, e: &ApprovalDecided) -> Ruling {
    let task = state.tasks.get(&e.lease.task);
    let task = task.ok_or(VoidReason::UnknownTask)?;
    if task.lease(e.lease.task) != Some(e.lease) {
        return Err(VoidReason::LeaseNotCurrent);
    }
    change(state, e.lease.task, |task| {
        let asked = asked(task, e.approval)?;
        // Whoever answered while it expired was in time.
        if asked.is_decided || (e.control.is_none() && !asked.is_open()) {
            return Err(VoidReason::Answered);
        }
        let reply = asked.reply.clone().unwrap_or(Reply {
            answer: asked.default,
            control: None,
            text: None,
        });
        if (reply.answer, reply.control) != (e.answer, e.control) {
            return Err(VoidReason::NotAsked);
        }
        asked.reply = Some(reply);
        asked.is_decided = true;
        Ok(())
    })
}

/// `attempt.told`: the agent hears it, and it need not be said again.
pub(super) fn told(state: &mut State, at: At, agent: &AgentId, e: &AttemptTold) -> Ruling {
    let a = state.agents.get(agent).ok_or(VoidReason::UnknownAgent)?;
    if a.incarnation != e.incarnation {
        return Err(VoidReason::StaleIncarnation);
    }
    let task = state.tasks.get(&e.lease.task);
    let task = task.ok_or(VoidReason::UnknownTask)?;
    let is_its = task.assigned().is_some_and(|a| a.agent == *agent);
    if !is_its || task.lease(e.lease.task) != Some(e.lease) {
        return Err(VoidReason::LeaseNotCurrent);
    }
    change(state, e.lease.task, |task| match &e.word {
        Word::Decision {
            approval, answer, ..
        } => {
            let asked = asked(task, *approval)?;
            let is_it = asked.reply.as_ref().is_some_and(|r| r.answer == *answer);
            if !asked.is_decided || !is_it {
                return Err(VoidReason::NotAsked);
            }
            if !is_planted(Bug::AnswerNotForgotten) {
                task.close(*approval, at.time_ms);
            }
            Ok(())
        }
        Word::Subtask { number, news } => subtasks::told(task, *number, news),
        Word::Text { control, .. } => {
            let said = task.aside.words.remove(control);
            said.map(|_| ()).ok_or(VoidReason::NotRequested)
        }
    })
}

fn change(state: &mut State, id: TaskId, rule: impl FnOnce(&mut Task) -> Ruling) -> Ruling {
    let changed = state.change_task(id, rule);
    changed.unwrap_or(Err(VoidReason::UnknownTask))
}

/// The question of that number, if it is there.
fn asked(task: &mut Task, number: u32) -> Result<&mut Approval, VoidReason> {
    if task.aside.approvals.is_empty() {
        return Err(VoidReason::NotAsked);
    }
    let asked = task.aside.approvals.get_mut(&number);
    asked.ok_or(VoidReason::NotAsked)
}
