//! From a submission to a task: every default filled in, every rule checked that
//! needs no knowledge beyond the record itself.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::diagnose::expected;
use super::{Submission, runs, terms};
use crate::compact::Pairs;
use crate::event::FieldError;
use crate::frame::Encoding;
use crate::ids::{CellId, Namespace, Position, QueueName, TaskId, UnixMs, is_valid_name};
use crate::limits;
use crate::spec::{PRIORITY_DEFAULT, TaskSpec};
use crate::subject::is_allowed_reply;

/// What the record around a submission says.
#[derive(Debug, Clone)]
pub struct Context<'a> {
    /// The cell.
    pub cell: &'a CellId,
    /// Sequence of the record.
    pub seq: u64,
    /// The record's time.
    pub time_ms: UnixMs,
    /// The queue of the subject.
    pub queue: &'a QueueName,
    /// The namespace of the subject, if it names one: every submission is then of it.
    pub namespace: Option<&'a Namespace>,
    /// The `Conductor-Reply` header.
    pub reply: Option<&'a str>,
    /// The `traceparent` header.
    pub traceparent: Option<&'a str>,
}

/// A submission that is right in itself.
#[derive(Debug, Clone, PartialEq)]
pub struct Resolved {
    /// The task's id, given or derived.
    pub task: TaskId,
    /// The task.
    pub spec: TaskSpec,
}

/// Reads all submissions of one record; names among them are looked up here.
pub fn resolve_all(
    context: &Context<'_>,
    encoding: Encoding,
    elements: &[&[u8]],
) -> Vec<Result<Resolved, Vec<FieldError>>> {
    let read: Vec<_> = elements
        .iter()
        .map(|e| Submission::read(encoding, e))
        .collect();
    let names = names(context, &read);
    let mut out = Vec::with_capacity(read.len());
    for ((index, (submission, errors)), element) in read.into_iter().enumerate().zip(elements) {
        let at = Position::new(context.seq, index as u32);
        out.push(resolve(
            context,
            at,
            submission,
            errors,
            element.len(),
            &names,
        ));
    }
    if !names.is_empty() {
        refuse_broken_graphs(&mut out);
    }
    out
}

/// Task ids by name; `None` for a name that stands twice.
pub(super) type Names = BTreeMap<String, Option<TaskId>>;

fn names(context: &Context<'_>, read: &[(Submission, Vec<FieldError>)]) -> Names {
    let mut names = Names::new();
    if read.len() < 2 {
        return names;
    }
    for (index, (s, _)) in read.iter().enumerate() {
        let Some(name) = &s.name else { continue };
        let id = id_of(context, Position::new(context.seq, index as u32), s);
        names
            .entry(name.clone())
            .and_modify(|other| *other = None)
            .or_insert(Some(id));
    }
    names
}

fn id_of(context: &Context<'_>, at: Position, s: &Submission) -> TaskId {
    s.id.unwrap_or_else(|| TaskId::derived(context.cell.as_str(), at, context.time_ms))
}

pub(super) fn resolve(
    context: &Context<'_>,
    at: Position,
    s: Submission,
    mut errors: Vec<FieldError>,
    bytes: usize,
    names: &Names,
) -> Result<Resolved, Vec<FieldError>> {
    let task = id_of(context, at, &s);
    check_scalars(context, &s, bytes, &mut errors);
    check_maps(&s, &mut errors);
    check_policies(&s, &mut errors);
    let needs = needs(&s, names, &mut errors);
    let terms = terms::checked(&s, &mut errors);
    let Some(run) = runs::checked(&s, &mut errors) else {
        return Err(errors);
    };
    if !errors.is_empty() {
        return Err(errors);
    }
    let start_at_ms = match (s.start_at, s.delay) {
        (Some(at), _) => Some(at.0),
        (None, Some(delay)) => Some(context.time_ms.saturating_add(delay.0)),
        (None, None) => None,
    };
    let runtime = run.runtime();
    let is_small = bytes <= limits::BODY_INLINE_BYTES_MAX;
    let spec = TaskSpec {
        name: s.name.map(Into::into),
        queue: context.queue.clone(),
        namespace: namespace(context, s.namespace.as_deref()),
        priority: s.priority.unwrap_or(PRIORITY_DEFAULT),
        labels: s.labels,
        needs,
        on_need_failed: s.on_need_failed.unwrap_or_default(),
        // Not by `unwrap_or_default`: the compiler then chose between two structs byte by byte, a quarter
        // of all instructions of a decision (`make instructions`).
        retry: s.retry.map(Into::into).unwrap_or_default(),
        timeouts: s.timeouts.map(Into::into).unwrap_or_default(),
        start_at_ms,
        concurrency: s.concurrency.map(Box::new),
        slots: s.slots.unwrap_or(1),
        metadata: if is_small {
            s.metadata
        } else {
            Pairs::default()
        },
        key: s.key.map(Into::into),
        reply: context.reply.map(Into::into),
        traceparent: s
            .traceparent
            .as_deref()
            .or(context.traceparent)
            .filter(|t| is_traceparent(t))
            .map(Into::into),
        terms: terms.map(Arc::new),
        runtime,
        run: is_small.then(|| Arc::new(run)),
    };
    Ok(Resolved { task, spec })
}

/// Whose a task is.
fn namespace(context: &Context<'_>, own: Option<&str>) -> Namespace {
    match (context.namespace, own) {
        (Some(of_subject), _) => of_subject.clone(),
        (None, Some(own)) => Namespace::from_log(own),
        (None, None) => Namespace::default(),
    }
}

pub(super) fn wrong(errors: &mut Vec<FieldError>, field: &str, problem: impl Into<String>) {
    errors.push(FieldError::new(field, problem, expected(field)));
}

pub(super) fn check_text(errors: &mut Vec<FieldError>, field: &str, text: Option<&String>) {
    match text.map(String::len) {
        Some(0) => wrong(errors, field, "is empty"),
        Some(n) if n > limits::KEY_BYTES_MAX => wrong(errors, field, format!("has {n} bytes")),
        _ => {}
    }
}

fn check_scalars(
    context: &Context<'_>,
    s: &Submission,
    bytes: usize,
    errors: &mut Vec<FieldError>,
) {
    if bytes > limits::SPEC_BYTES_MAX {
        let problem = format!("has {bytes} bytes");
        let expected = format!(
            "at most {} bytes; put large inputs in a file",
            limits::SPEC_BYTES_MAX
        );
        errors.push(FieldError::new("", problem, expected));
    }
    check_text(errors, "key", s.key.as_ref());
    check_text(errors, "name", s.name.as_ref());
    if let Some(queue) = s.queue.as_deref().filter(|q| *q != context.queue.as_str()) {
        let problem = format!(
            "is {queue:?} but the subject says {:?}",
            context.queue.as_str()
        );
        wrong(errors, "queue", problem);
    }
    check_namespace(context, s.namespace.as_deref(), errors);
    if let Some(p) = s.priority.filter(|p| *p > limits::PRIORITY_MAX) {
        wrong(errors, "priority", format!("is {p}"));
    }
    if let Some(n) = s.slots.filter(|n| !(1..=limits::SLOTS_MAX).contains(n)) {
        wrong(errors, "slots", format!("is {n}"));
    }
    if let Some(c) = &s.concurrency {
        check_text(errors, "concurrency.key", Some(&c.key));
        if c.limit == 0 {
            wrong(errors, "concurrency.limit", "is 0");
        }
    }
    if s.start_at.is_some() && s.delay.is_some() {
        wrong(errors, "delay", "stands beside start_at; give one of them");
    }
    check_duration(errors, "delay", s.delay.map(|d| d.0), 0);
    if let Some(reply) = context.reply.filter(|r| !is_allowed_reply(context.cell, r)) {
        errors.push(FieldError::new(
            "Conductor-Reply",
            format!("is {reply:?}"),
            format!(
                "a subject below _INBOX, _INBOX_OF or conductor.{}.reply",
                context.cell
            ),
        ));
    }
}

/// Whose it is, where the submission or its subject says so.
fn check_namespace(context: &Context<'_>, own: Option<&str>, errors: &mut Vec<FieldError>) {
    let Some(own) = own else { return };
    if !is_valid_name(own) {
        wrong(errors, "namespace", "is not a name");
        return;
    }
    if let Some(namespace) = context.namespace.filter(|n| n.as_str() != own) {
        let namespace = namespace.as_str();
        let problem = format!("is {own:?} but the subject says {namespace:?}");
        let expected = format!("{namespace:?}, or absent; or submit on the subject of {own:?}");
        errors.push(FieldError::new("namespace", problem, expected));
    }
}

fn check_maps(s: &Submission, errors: &mut Vec<FieldError>) {
    for (field, map) in [("labels", &s.labels), ("metadata", &s.metadata)] {
        if map.len() > limits::MAP_ENTRIES_MAX {
            wrong(
                errors,
                field,
                format!("has {} entries, at most 64 are allowed", map.len()),
            );
        }
        for (key, value) in map {
            if key.is_empty() || key.len() > limits::KEY_BYTES_MAX {
                wrong(errors, field, "has a key of 0 or more than 256 bytes");
            }
            if value.len() > limits::MAP_VALUE_BYTES_MAX {
                let problem = format!("has {} bytes, at most 1024 are allowed", value.len());
                wrong(errors, &format!("{field}.{key}"), problem);
            }
        }
    }
}

pub(super) fn check_duration(
    errors: &mut Vec<FieldError>,
    field: &str,
    ms: Option<u64>,
    least: u64,
) {
    if let Some(ms) = ms.filter(|ms| *ms < least || *ms > limits::DURATION_MS_MAX) {
        let problem = format!("is {ms} ms; {least} ms to 366 days are allowed");
        wrong(errors, field, problem);
    }
}

fn check_policies(s: &Submission, errors: &mut Vec<FieldError>) {
    if let Some(r) = &s.retry {
        if !(1..=limits::ATTEMPTS_MAX).contains(&r.max_attempts) {
            wrong(
                errors,
                "retry.max_attempts",
                format!("is {}", r.max_attempts),
            );
        }
        if !(1.0..=100.0).contains(&r.factor) {
            wrong(errors, "retry.factor", format!("is {}", r.factor));
        }
        if !(0.0..=1.0).contains(&r.jitter) {
            wrong(errors, "retry.jitter", format!("is {}", r.jitter));
        }
        check_duration(errors, "retry.backoff", Some(r.backoff.0), 0);
        check_duration(errors, "retry.max_backoff", Some(r.max_backoff.0), 0);
    }
    if let Some(t) = &s.timeouts {
        for (field, value, least) in [
            ("timeouts.queue", t.queue, 1),
            ("timeouts.run", t.run, 1),
            ("timeouts.heartbeat", t.heartbeat, 1_000),
            ("timeouts.total", t.total, 1),
        ] {
            check_duration(errors, field, value.map(|d| d.0), least);
        }
    }
}

/// Whether it may be W3C trace context. What is not is no reason to refuse a task, and no
/// burden to carry with it.
fn is_traceparent(text: &str) -> bool {
    text.len() <= limits::TRACEPARENT_BYTES_MAX
        && text.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-')
}

fn needs(s: &Submission, names: &Names, errors: &mut Vec<FieldError>) -> Vec<TaskId> {
    if s.needs.len() > limits::NEEDS_MAX {
        wrong(
            errors,
            "needs",
            format!("has {} entries, at most 256 are allowed", s.needs.len()),
        );
        return Vec::new();
    }
    let mut out = Vec::with_capacity(s.needs.len());
    for (i, need) in s.needs.iter().enumerate() {
        let field = format!("needs[{i}]");
        let id = match (names.get(need), need.parse::<TaskId>()) {
            (Some(Some(id)), _) => *id,
            (None, Ok(id)) => id,
            (Some(None), _) => {
                wrong(
                    errors,
                    &field,
                    format!("the name {need:?} stands twice in this submission"),
                );
                continue;
            }
            (None, Err(_)) => {
                wrong(
                    errors,
                    &field,
                    format!("{need:?} is no task id and no name here"),
                );
                continue;
            }
        };
        if !out.contains(&id) {
            out.push(id);
        }
    }
    out
}

/// A task whose need is refused is refused too, and so is every circle.
fn refuse_broken_graphs(all: &mut [Result<Resolved, Vec<FieldError>>]) {
    let here: BTreeMap<TaskId, usize> = all
        .iter()
        .enumerate()
        .filter_map(|(i, r)| r.as_ref().ok().map(|r| (r.task, i)))
        .collect();
    // Peel off what needs nothing that is still unpeeled; a circle never peels.
    let mut open: Vec<usize> = vec![0; all.len()];
    let mut dependents: Vec<Vec<usize>> = vec![Vec::new(); all.len()];
    for (i, result) in all.iter().enumerate() {
        let Ok(r) = result else { continue };
        for n in r.spec.needs.iter().filter_map(|need| here.get(need)) {
            if let (Some(count), Some(list)) = (open.get_mut(i), dependents.get_mut(*n)) {
                *count += 1;
                list.push(i);
            }
        }
    }
    let mut free: Vec<usize> = open
        .iter()
        .enumerate()
        .filter(|(_, n)| **n == 0)
        .map(|(i, _)| i)
        .collect();
    let mut peeled = vec![false; all.len()];
    while let Some(i) = free.pop() {
        if let Some(flag) = peeled.get_mut(i) {
            *flag = true;
        }
        for d in dependents.get(i).into_iter().flatten() {
            if let Some(count) = open.get_mut(*d) {
                *count -= 1;
                if *count == 0 {
                    free.push(*d);
                }
            }
        }
    }
    for (result, is_peeled) in all.iter_mut().zip(peeled) {
        if result.is_ok() && !is_peeled {
            let mut errors = Vec::new();
            wrong(&mut errors, "needs", "form a circle");
            *result = Err(errors);
        }
    }
}
