//! Submissions, from the record that brings them to the decision about each.

use std::collections::BTreeSet;
use std::sync::Arc;

use conductor_protocol::compact::Rare;
use conductor_protocol::event::{TaskAccepted, TaskRejected};
use conductor_protocol::ids::{Namespace, Position};
use conductor_protocol::{TaskId, UnixMs};

use super::{At, Notice, Ruling, Word, subtasks};
use crate::planted::{Bug, is_planted};
use crate::record::SubmitRecord;
use crate::state::{Aside, Intake, KeyUse, News, Outcome, Phase, State, Task};
use crate::void::VoidReason;

/// Submissions wait, as they came, for the orchestrator to look into them.
pub(super) fn submitted(state: &mut State, seq: u64, time_ms: UnixMs, submit: &SubmitRecord) {
    state.counters.submitted += u64::from(submit.count);
    state.intake.insert(
        seq,
        Intake {
            queue: submit.queue.clone(),
            namespace: submit.namespace.clone(),
            time_ms,
            encoding: submit.encoding,
            reply: submit.reply.clone(),
            traceparent: submit.traceparent.clone(),
            payload: submit.payload.clone(),
            undecided: (0..submit.count).collect(),
        },
    );
}

/// Marks a submission as decided; returns where its verdict is also published. An attempt that
/// submitted it is to be told `news`.
fn settle(
    state: &mut State,
    submission: Position,
    news: impl FnOnce() -> News,
) -> Result<Option<String>, VoidReason> {
    let Some(intake) = state.intake.get_mut(&submission.seq) else {
        let subtask = state.subtasks.remove(&submission);
        let subtask = subtask.ok_or(VoidReason::SubmissionDecided)?;
        subtasks::decided(state, &subtask, news());
        return Ok(None);
    };
    if !intake.undecided.remove(&submission.index) {
        return Err(VoidReason::SubmissionDecided);
    }
    if is_planted(Bug::SubmissionKept) {
        intake.undecided.insert(submission.index);
    }
    let reply = intake.reply.clone();
    if intake.undecided.is_empty() {
        state.intake.remove(&submission.seq);
    }
    // The orchestrator refuses a reply subject that is not allowed; it must not then
    // be told so on that very subject.
    Ok(reply.filter(|r| conductor_protocol::subject::is_allowed_reply(&state.cell, r)))
}

/// When a submission that is not decided yet came in.
fn open_since(state: &State, at: Position) -> Option<UnixMs> {
    match state.intake.get(&at.seq) {
        Some(intake) => intake
            .undecided
            .contains(&at.index)
            .then_some(intake.time_ms),
        None => state.subtasks.get(&at).map(|s| s.time_ms),
    }
}

/// `task.accepted`.
pub(super) fn accepted(
    state: &mut State,
    at: At,
    e: &TaskAccepted,
    notices: &mut Vec<Notice>,
) -> Ruling {
    let since_ms = open_since(state, e.submission).ok_or(VoidReason::SubmissionDecided)?;
    subtasks::may_become(state, e.submission)?;
    let key = e.spec.key.clone().map(|k| (e.spec.namespace.clone(), k));
    let is_key_taken = key.as_ref().is_some_and(|k| state.keys.contains_key(k));
    // An id that is derived from its submission nobody else can have used.
    let is_forgotten = e.task.made_at_ms() < state.id_floor_ms
        && e.task != TaskId::derived(state.cell.as_str(), e.submission, since_ms);
    if state.knows(e.task) || is_key_taken || is_forgotten {
        return Err(VoidReason::Duplicate);
    }
    // What it needs was known when that was decided; its acceptance may have turned out void.
    if e.spec.needs.iter().any(|need| !state.knows(*need)) {
        return Err(VoidReason::UnknownTask);
    }
    if let Some(reply) = settle(state, e.submission, || News::Accepted(e.task))? {
        let word = Word::Accepted {
            submission: e.submission,
            task: e.task,
        };
        notices.push(Notice { reply, word });
    }
    if let Some(key) = key {
        keep_key(state, at, key, e.task);
    }
    state.counters.accepted += 1;
    let task = new_task(state, at, e);
    state.insert_task(e.task, task);
    Ok(())
}

fn keep_key(state: &mut State, at: At, key: (Namespace, Arc<str>), task: TaskId) {
    let window_ms = state.config.idempotency_window_ms;
    let until_ms = at.time_ms.saturating_add(window_ms);
    let expiry = (until_ms, key.0.clone(), key.1.clone());
    state.index.key_expiry.insert(expiry);
    state.keys.insert(key, KeyUse { task, until_ms });
}

fn new_task(state: &mut State, at: At, e: &TaskAccepted) -> Task {
    let (mut open_needs, mut failed_need) = (BTreeSet::new(), None);
    for need in &e.spec.needs {
        if is_planted(Bug::NeedsIgnored) {
            break;
        }
        let is_open = state.tasks.get(need).is_some_and(|t| !t.is_final());
        if is_open {
            open_needs.insert(*need);
            state
                .index
                .dependents
                .entry(*need)
                .or_default()
                .insert(e.task);
        } else if state.outcome_of(*need) != Some(Outcome::Succeeded) && failed_need.is_none() {
            failed_need = Some(*need);
        }
    }
    let not_before_ms = e.spec.start_at_ms.unwrap_or(0);
    let waits = !open_needs.is_empty() || failed_need.is_some() || not_before_ms > at.time_ms;
    let phase = if waits {
        Phase::Pending { not_before_ms }
    } else {
        Phase::Ready {
            since_ms: at.time_ms,
            at: at.position,
        }
    };
    Task {
        submission: e.submission,
        accepted_ms: at.time_ms,
        spec: Arc::clone(&e.spec),
        phase,
        attempts: 0,
        aside: Rare::from(Aside {
            open_needs,
            failed_need,
            ..Aside::default()
        }),
    }
}

/// `task.rejected`.
pub(super) fn rejected(state: &mut State, e: &TaskRejected, notices: &mut Vec<Notice>) -> Ruling {
    let reply = settle(state, e.submission, || News::Rejected(e.errors.clone()))?;
    state.counters.rejected += 1;
    if let Some(reply) = reply {
        let word = Word::Rejected {
            submission: e.submission,
            errors: e.errors.clone(),
        };
        notices.push(Notice { reply, word });
    }
    Ok(())
}

/// `task.duplicate`.
pub(super) fn duplicate(
    state: &mut State,
    submission: Position,
    task: TaskId,
    notices: &mut Vec<Notice>,
) -> Ruling {
    // The acceptance that it repeats may have turned out void.
    if state.subtasks.contains_key(&submission) && !state.knows(task) {
        return Err(VoidReason::UnknownTask);
    }
    let reply = settle(state, submission, || News::Accepted(task))?;
    state.counters.duplicates += 1;
    if let Some(reply) = reply {
        notices.push(Notice {
            reply,
            word: Word::Duplicate { submission, task },
        });
    }
    Ok(())
}
