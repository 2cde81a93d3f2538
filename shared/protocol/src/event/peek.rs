//! What an event is and of which task, without decoding it: for those who count.

use crate::msgpack;

/// What an event's bytes say at a glance.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Peek<'a> {
    /// The wire name.
    pub kind: &'a str,
    /// The bytes of the task's id, where the event speaks of one, itself or by its lease.
    pub task: Option<&'a [u8]>,
}

/// Looks at one event; `None` for bytes that are none. What it does not look at may still
/// be malformed.
pub fn peek(map: &[u8]) -> Option<Peek<'_>> {
    let (entries, mut at) = msgpack::map_at(map, 0).ok()??;
    let (mut kind, mut task) = (None, None);
    for _ in 0..entries {
        let (key, value) = msgpack::str_at(map, at).ok()?;
        match key {
            "type" => kind = Some(msgpack::str_at(map, value).ok()?.0),
            "task" => task = id_at(map, value),
            "lease" => task = task_of_lease(map, value),
            _ => {}
        }
        if let (Some(kind), Some(_)) = (kind, task) {
            return Some(Peek { kind, task });
        }
        at = msgpack::skip(map, value).ok()?;
    }
    kind.map(|kind| Peek { kind, task })
}

fn task_of_lease(bytes: &[u8], at: usize) -> Option<&[u8]> {
    let (entries, mut at) = msgpack::map_at(bytes, at).ok()??;
    for _ in 0..entries {
        let (key, value) = msgpack::str_at(bytes, at).ok()?;
        if key == "task" {
            return id_at(bytes, value);
        }
        at = msgpack::skip(bytes, value).ok()?;
    }
    None
}

/// The last 16 bytes of the value at `at`, which for an id is all but its header.
fn id_at(bytes: &[u8], at: usize) -> Option<&[u8]> {
    let end = msgpack::skip(bytes, at).ok()?;
    bytes.get(at..end)?.last_chunk().map(<[u8; 16]>::as_slice)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{AgentLeft, AttemptStarted, Event, TaskReady};
    use crate::ids::{Lease, Position, TaskId};

    #[test]
    fn a_glance_agrees_with_decoding() {
        let task = TaskId::from_parts(7, [3; 10]);
        let lease = Lease {
            task,
            attempt: 1,
            assigned: Position::new(4, 2),
        };
        let started = AttemptStarted::new(lease, None);
        for event in [Event::from(TaskReady { task }), Event::from(started)] {
            let bytes = event.encode();
            let seen = peek(&bytes).unwrap();
            assert_eq!(seen.kind, event.kind());
            assert_eq!(seen.task, Some(task.to_bytes().as_slice()));
        }
        let left = Event::from(AgentLeft {}).encode();
        assert_eq!(peek(&left).unwrap().task, None);
        assert_eq!(peek(&[0x93, 1, 2, 3]), None);
    }
}
