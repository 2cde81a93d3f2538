//! What a record says, event by event, with what became of each.

use conductor_domain::fold::Folded;
use conductor_domain::record::Content;
use conductor_domain::{Decoded, Verdict};
use conductor_protocol::TaskId;
use conductor_protocol::event::Event;

/// The events of leaders and agents that counted, with their index in the record.
pub(crate) fn applied<'r>(record: &'r Decoded, folded: &'r Folded) -> Vec<(u32, &'r Event)> {
    let (Content::Leader { items, .. }
    | Content::Agent { items, .. }
    | Content::Election { items, .. }) = &record.content
    else {
        return Vec::new();
    };
    let pairs = items.iter().zip(&folded.verdicts).zip(0..);
    pairs
        .filter(|((_, verdict), _)| **verdict == Verdict::Applied)
        .filter_map(|((item, _), n)| Some((n, item.as_ref().ok()?)))
        .collect()
}

/// The attempts that the record hands out, whether that counted or not: an agent may begin
/// what turns out void.
pub(crate) fn handed_out(record: &Decoded) -> impl Iterator<Item = (TaskId, u32)> + '_ {
    let items = match &record.content {
        Content::Leader { items, .. } => items.as_slice(),
        _ => &[],
    };
    items.iter().filter_map(|item| match item {
        Ok(Event::AttemptAssigned(e)) => Some((e.task, e.attempt)),
        _ => None,
    })
}

/// The task that this event ends.
pub(crate) fn ends(event: &Event) -> Option<TaskId> {
    match event {
        Event::AttemptSucceeded(e) => Some(e.lease.task),
        Event::TaskFailed(e) => Some(e.task),
        Event::TaskTimedOut(e) => Some(e.task),
        Event::TaskCancelled(e) => Some(e.task),
        _ => None,
    }
}
