//! Live spans of deciding, below the tasks that were decided about.

use std::collections::BTreeMap;

use conductor_domain::State;
use conductor_protocol::TraceContext;
use conductor_protocol::event::Event;
use conductor_protocol::subject::Role;
use conductor_protocol::trace::SpanKind;
use conductor_telemetry::{Span, live};
use ractor::ActorRef;

use crate::appender::AppenderMsg;
use crate::role::Draft;

/// Says of some of the tasks that were decided about how long that took, and has their appends
/// traced.
pub(super) fn trace(
    role: Role,
    drafts: &[Draft],
    state: &State,
    since_ns: u64,
    appender: &ActorRef<AppenderMsg>,
) {
    let mut by_subject: BTreeMap<&String, Vec<TraceContext>> = BTreeMap::new();
    let (mut decided, mut traced) = (0, 0);
    for draft in drafts {
        let Draft::Events { subject, events } = draft else {
            continue;
        };
        decided += events.len();
        for event in events.iter().take(live::TASKS_MAX.saturating_sub(traced)) {
            if let Some(context) = context_of(event, state).filter(live::wants) {
                let of_subject = by_subject.entry(subject).or_default();
                // One id for all that is decided of it here.
                if !of_subject.contains(&context) {
                    of_subject.push(context);
                    traced += 1;
                }
            }
        }
    }
    let (kind, name) = match role {
        Role::Orchestrator => (SpanKind::Decide, "decide"),
        Role::Scheduler => (SpanKind::Plan, "plan"),
    };
    let (now, mut n) = (live::now_ns(), 0);
    for (subject, contexts) in by_subject {
        for context in &contexts {
            // A task may be decided about more than once at a record, and in a step.
            n += 1;
            let id = context.span(kind, since_ns.wrapping_add(n));
            let root = Some(context.span(SpanKind::Task, 0));
            let behind_ns = since_ns.saturating_sub(state.time_ms.saturating_mul(1_000_000));
            let span = Span::new(context.trace, id, root, name, (0, 0))
                .at_ns(since_ns, now)
                .with("conductor.role", role.as_str())
                .with("conductor.epoch", state.epoch(role))
                .with("conductor.sequence", state.seq)
                .with("conductor.tail.lag_ms", behind_ns / 1_000_000)
                .with("conductor.batch.events", decided as u64);
            live::emit(span);
        }
        // A term that ends meanwhile appends nothing any more.
        let _ = appender.cast(AppenderMsg::Trace(subject.clone(), contexts));
    }
}

/// The trace of the task that an event speaks of. Only who traces pays for decoding it.
fn context_of(event: &[u8], state: &State) -> Option<TraceContext> {
    let event = Event::decode(event).ok()?;
    let task = event.task()?;
    let caller = match &event {
        Event::TaskAccepted(e) => e.spec.traceparent.clone(),
        _ => state.tasks.get(&task)?.spec.traceparent.clone(),
    };
    Some(TraceContext::of(task, caller.as_deref()))
}
