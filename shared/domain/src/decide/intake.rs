//! Accepting and rejecting submissions.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use conductor_protocol::event::{Event, FieldError, TaskAccepted, TaskDuplicate, TaskRejected};
use conductor_protocol::frame;
use conductor_protocol::ids::Position;
use conductor_protocol::limits::{ERROR_TEXT_BYTES_MAX, ERRORS_MAX};
use conductor_protocol::spec::TaskSpec;
use conductor_protocol::submission::{Context, Resolved, resolve_all};
use conductor_protocol::{TaskId, UnixMs};

use super::{Input, Overlay};
use crate::state::{Intake, State};

/// Decides the submissions that came in since the last call, and those whose decision turned
/// out void.
pub(super) fn decide(state: &State, overlay: &mut Overlay, input: Input<'_>, out: &mut Vec<Event>) {
    for (seq, again) in std::mem::take(&mut overlay.submissions_again) {
        if let Some(intake) = state.intake.get(&seq) {
            decide_record(state, overlay, seq, intake, &again, out);
        }
    }
    let from = overlay.submissions_upto.saturating_add(1);
    for (seq, intake) in state.intake.range(from..) {
        if out.len() >= input.events_max {
            break;
        }
        decide_record(state, overlay, *seq, intake, &intake.undecided, out);
        overlay.submissions_upto = *seq;
    }
}

fn decide_record(
    state: &State,
    overlay: &mut Overlay,
    seq: u64,
    intake: &Intake,
    wanted: &BTreeSet<u32>,
    out: &mut Vec<Event>,
) {
    // The fold has split these bytes once already; should they not split, nothing is lost
    // but this record's decision, and the audit shows it as undecided.
    let Ok(elements) = frame::split_public(intake.encoding, &intake.payload) else {
        return;
    };
    let context = Context {
        cell: &state.cell,
        seq,
        time_ms: intake.time_ms,
        queue: &intake.queue,
        namespace: intake.namespace.as_ref(),
        reply: intake.reply.as_deref(),
        traceparent: intake.traceparent.as_deref(),
    };
    let resolved = resolve_all(&context, intake.encoding, &elements);
    let order = needs_first(&resolved);
    let mut resolved: Vec<_> = resolved.into_iter().map(Some).collect();
    for index in order {
        let submission = Position::new(seq, index as u32);
        let Some(result) = resolved.get_mut(index).and_then(Option::take) else {
            continue;
        };
        let is_open = intake.undecided.contains(&submission.index);
        if !is_open || !wanted.contains(&submission.index) {
            continue;
        }
        let errors = match &result {
            Ok(r) if intake.namespace.is_some() => foreign_needs(state, overlay, &r.spec),
            _ => Vec::new(),
        };
        out.push(match result {
            Ok(_) if !errors.is_empty() => rejected(submission, errors),
            Ok(r) => decide_one(state, overlay, submission, intake.time_ms, r),
            Err(errors) => rejected(submission, errors),
        });
    }
}

/// Indices in an order in which every task comes after those it needs, as far as they
/// are in the same record, and otherwise as submitted.
fn needs_first(resolved: &[Result<Resolved, Vec<FieldError>>]) -> Vec<usize> {
    let needs_any = |r: &Result<Resolved, _>| r.as_ref().is_ok_and(|r| !r.spec.needs.is_empty());
    if !resolved.iter().any(needs_any) {
        return (0..resolved.len()).collect();
    }
    let by_id: BTreeMap<TaskId, usize> = resolved
        .iter()
        .enumerate()
        .filter_map(|(i, r)| r.as_ref().ok().map(|r| (r.task, i)))
        .collect();
    let mut order = Vec::with_capacity(resolved.len());
    let mut is_visited = vec![false; resolved.len()];
    for root in 0..resolved.len() {
        // Depth first with a stack of our own: (task, needs looked at so far).
        let mut stack = vec![(root, 0)];
        while let Some((i, looked_at)) = stack.pop() {
            if looked_at == 0 {
                match is_visited.get_mut(i) {
                    Some(visited) if !*visited => *visited = true,
                    _ => continue,
                }
            }
            let needs = match resolved.get(i) {
                Some(Ok(r)) => r.spec.needs.as_slice(),
                _ => &[],
            };
            match needs.get(looked_at) {
                Some(need) => {
                    stack.push((i, looked_at + 1));
                    if let Some(n) = by_id.get(need) {
                        stack.push((*n, 0));
                    }
                }
                None => order.push(i),
            }
        }
    }
    order
}

/// What is submitted on the subject of one namespace needs no task of another: it would get its
/// results. Said as of a task that nobody knows, since whether there is one is not told either.
/// Of one that has left the state there are no results, and its namespace is not known any more.
fn foreign_needs(state: &State, overlay: &Overlay, spec: &TaskSpec) -> Vec<FieldError> {
    let is_foreign = |need: &TaskId| {
        let known = state.tasks.get(need).map(|t| &t.spec.namespace);
        let in_flight = || overlay.accepted.get(need).map(|(namespace, _)| namespace);
        known
            .or_else(in_flight)
            .is_some_and(|n| *n != spec.namespace)
    };
    let needs = spec.needs.iter().enumerate();
    let foreign = needs.filter(|(_, need)| is_foreign(need));
    foreign.map(|(i, need)| unknown_need(i, *need)).collect()
}

fn unknown_need(i: usize, need: TaskId) -> FieldError {
    FieldError::new(
        format!("needs[{i}]"),
        format!("{need} is not a task this cell knows"),
        "a task accepted before, or in the same submission",
    )
}

pub(super) fn decide_one(
    state: &State,
    overlay: &mut Overlay,
    submission: Position,
    submitted_ms: UnixMs,
    resolved: Resolved,
) -> Event {
    let Resolved { task, spec } = resolved;
    let key = spec.key.clone().map(|k| (spec.namespace.clone(), k));
    let twin = key.as_ref().and_then(|k| {
        state
            .keys
            .get(k)
            .map(|used| used.task)
            .or_else(|| overlay.keys.get(k).copied())
    });
    if let Some(first) = twin {
        return TaskDuplicate {
            submission,
            task: first,
        }
        .into();
    }
    if state.knows(task) || overlay.accepted.contains_key(&task) {
        return TaskDuplicate { submission, task }.into();
    }
    let mut errors = Vec::new();
    check_id_time(state, task, submitted_ms, &mut errors);
    // Nobody else can have used an id that is derived from this place, whatever its time.
    if !errors.is_empty() && task == TaskId::derived(state.cell.as_str(), submission, submitted_ms)
    {
        errors.clear();
    }
    for (i, need) in spec.needs.iter().enumerate() {
        if !state.knows(*need) && !overlay.accepted.contains_key(need) {
            errors.push(unknown_need(i, *need));
        }
    }
    let waiting =
        state.backlog(&spec.queue) + overlay.backlog.get(&spec.queue).copied().unwrap_or(0);
    let cap = state.config.backlog_max_of(spec.queue.as_str());
    if waiting >= cap {
        errors.push(FieldError::new(
            "queue",
            format!("{} is full: {waiting} tasks wait", spec.queue),
            format!("fewer than {cap} waiting tasks; try again later or raise the cap"),
        ));
    }
    if !errors.is_empty() {
        return rejected(submission, errors);
    }
    let in_flight = (spec.namespace.clone(), spec.key.clone());
    overlay.accepted.insert(task, in_flight);
    if let Some(key) = key {
        overlay.keys.insert(key, task);
    }
    *overlay.backlog.entry(spec.queue.clone()).or_default() += 1;
    TaskAccepted {
        submission,
        task,
        spec: Arc::new(spec),
    }
    .into()
}

/// A rejection that fits into the log, whatever was submitted.
pub(super) fn rejected(submission: Position, mut errors: Vec<FieldError>) -> Event {
    errors.truncate(ERRORS_MAX);
    for error in &mut errors {
        for text in [&mut error.field, &mut error.problem, &mut error.expected] {
            if text.len() > ERROR_TEXT_BYTES_MAX {
                let fits = |i: &usize| text.is_char_boundary(*i);
                let end = (0..=ERROR_TEXT_BYTES_MAX).rev().find(fits);
                text.truncate(end.unwrap_or(0));
                text.push('…');
            }
        }
    }
    TaskRejected { submission, errors }.into()
}

/// An id too old to be told from a repeated one is refused, and so is one from the
/// future, which would have to be remembered too long. Measured from when it was
/// submitted: a submitter is not to blame for our being away.
fn check_id_time(state: &State, task: TaskId, submitted_ms: UnixMs, errors: &mut Vec<FieldError>) {
    let made = task.made_at_ms();
    let window = state.config.idempotency_window_ms;
    let oldest = submitted_ms.saturating_sub(window).max(state.id_floor_ms);
    if made < oldest {
        errors.push(FieldError::new(
            "id",
            format!(
                "was made {} s before the oldest id still remembered",
                (oldest - made) / 1000
            ),
            "a UUIDv7 made within the idempotency window",
        ));
    }
    if made > submitted_ms.saturating_add(window) {
        errors.push(FieldError::new(
            "id",
            format!("was made {} s in the future", (made - submitted_ms) / 1000),
            "a UUIDv7 made by a clock that is about right",
        ));
    }
}
