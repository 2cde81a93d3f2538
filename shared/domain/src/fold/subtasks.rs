//! Tasks that attempts submit, from the submission to what the attempt is told of their end.

use conductor_protocol::TaskId;
use conductor_protocol::event::{AttemptSubmitted, SubtaskNews};
use conductor_protocol::ids::Position;
use conductor_protocol::limits::{SUBMITTED_MAX, SUBTASK_BYTES_MAX};

use super::{At, Ruling};
use crate::planted::{Bug, is_planted};
use crate::state::{Ended, News, Phase, State, Submitted, Subtask, Task};
use crate::void::VoidReason;

/// `attempt.submitted`, under the current lease: it waits for the orchestrator.
pub(super) fn submitted(state: &mut State, at: At, e: &AttemptSubmitted) -> Ruling {
    if e.body.len() > SUBTASK_BYTES_MAX {
        return Err(VoidReason::Malformed);
    }
    let noted = state.change_task(e.lease.task, |task| note(task, e.number));
    noted.unwrap_or(Err(VoidReason::UnknownTask))?;
    state.counters.submitted += 1;
    let subtask = Subtask {
        lease: e.lease,
        number: e.number,
        time_ms: at.time_ms,
        body: e.body.clone(),
    };
    state.subtasks.insert(at.position, subtask);
    Ok(())
}

/// What may be submitted is decided by the orchestrator, who gives reasons; here is what bounds
/// those who do not care for them.
fn note(task: &mut Task, number: u32) -> Ruling {
    if !matches!(task.phase, Phase::Running { .. }) {
        return Err(VoidReason::NotPending);
    }
    let terms = task.spec.terms.as_ref();
    if terms.is_none_or(|t| t.subtasks.is_none()) {
        return Err(VoidReason::NotAllowed);
    }
    if task.aside.submitted.contains_key(&number) {
        return Err(VoidReason::Duplicate);
    }
    if task.aside.submitted.len() >= SUBMITTED_MAX as usize {
        return Err(VoidReason::NoCapacity);
    }
    task.aside.submitted.insert(number, Submitted::default());
    Ok(())
}

/// Whether what was submitted there may still become a task: not once its attempt is over.
pub(super) fn may_become(state: &State, at: Position) -> Ruling {
    match state.subtasks.get(&at) {
        Some(subtask) if !is_wanted(state, subtask) => Err(VoidReason::LeaseNotCurrent),
        _ => Ok(()),
    }
}

/// Whether the attempt that submitted it still runs, and shall.
pub(crate) fn is_wanted(state: &State, subtask: &Subtask) -> bool {
    let parent = state.tasks.get(&subtask.lease.task);
    parent.is_some_and(|p| {
        p.lease(subtask.lease.task) == Some(subtask.lease) && p.aside.cancel.is_none()
    })
}

/// It is decided: its attempt is to be told.
pub(super) fn decided(state: &mut State, subtask: &Subtask, news: News) {
    let news = match news {
        News::Accepted(id) => ended_already(state, id).unwrap_or(News::Accepted(id)),
        other => other,
    };
    let task = match &news {
        News::Accepted(id) | News::Ended { task: id, .. } => Some(*id),
        News::Rejected(_) => None,
    };
    state.change_task(subtask.lease.task, |parent| {
        parent.aside.subtasks.extend(task);
        if parent.lease(subtask.lease.task) == Some(subtask.lease)
            && let Some(submitted) = parent.aside.submitted.get_mut(&subtask.number)
        {
            submitted.is_now(news);
        }
    });
}

/// What there is to say of one that had ended before: the same submission, once more.
fn ended_already(state: &State, task: TaskId) -> Option<News> {
    let outcome = state.outcome_of(task)?;
    let ended = state.tasks.get(&task).and_then(|t| match &t.phase {
        Phase::Ended(ended) => Some(ended),
        _ => None,
    });
    Some(News::Ended {
        task,
        outcome,
        class: ended.and_then(|e| e.class),
        at: ended.map(|e| e.at),
    })
}

/// A subtask has ended: an attempt of its parent that runs is to be told.
pub(super) fn ended(state: &mut State, parent: TaskId, task: TaskId, ended: &Ended) {
    if is_planted(Bug::SubtaskEndForgotten) {
        return;
    }
    state.change_task(parent, |parent| {
        for submitted in parent.aside.submitted.values_mut().filter(|s| s.is(task)) {
            submitted.is_now(News::Ended {
                task,
                outcome: ended.outcome,
                class: ended.class,
                at: Some(ended.at),
            });
        }
    });
}

/// Whoever cancels a task cancels those below it that have not ended.
pub(super) fn cancel_below(state: &mut State, id: TaskId, control: Position) {
    let mut below = children(state, id);
    while let Some(id) = below.pop() {
        below.extend(children(state, id));
        state.change_task(id, |task| {
            if !task.is_final() && !is_planted(Bug::SubtasksOutliveCancel) {
                task.aside.cancel.get_or_insert(control);
            }
        });
    }
}

fn children(state: &State, id: TaskId) -> Vec<TaskId> {
    let task = state.tasks.get(&id);
    // Most tasks have none, and nothing beside themselves.
    let children = task.map(|t| t.aside.subtasks.iter().copied().collect());
    children.unwrap_or_default()
}

/// `attempt.told`: the attempt knows the newest of a submission of its.
pub(super) fn told(task: &mut Task, number: u32, news: &SubtaskNews) -> Ruling {
    let submitted = task.aside.submitted.get_mut(&number);
    let submitted = submitted.ok_or(VoidReason::NotAsked)?;
    if submitted.is_told {
        return Err(VoidReason::Duplicate);
    }
    let is_it = match (&submitted.news, news) {
        (Some(News::Rejected(errors)), SubtaskNews::Rejected { errors: said }) => errors == said,
        (Some(News::Accepted(id)), SubtaskNews::Accepted { task })
        | (Some(News::Ended { task: id, .. }), SubtaskNews::Ended { task, .. }) => id == task,
        _ => false,
    };
    if !is_it {
        return Err(VoidReason::NotAsked);
    }
    submitted.is_told = !is_planted(Bug::NewsNotForgotten);
    if let Some(News::Rejected(errors)) = submitted.news.as_mut().filter(|_| submitted.is_told) {
        // The attempt knows them now, and of many they would be much.
        errors.clear();
    }
    Ok(())
}
