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
