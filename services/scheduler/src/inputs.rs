//! What a task is given of the tasks it needed: their results, as they stand in the log.

use std::collections::BTreeMap;
use std::sync::Arc;

use conductor_domain::Record;
use conductor_domain::state::{Outcome, Phase, State, Task};
use conductor_protocol::TaskId;
use conductor_protocol::event::{Event, Input, SubtaskNews};
use conductor_protocol::frame;
use conductor_protocol::ids::Position;
use conductor_protocol::spec::Runtime;

/// Needs whose results are handed on.
const INPUTS_MAX: usize = 32;
/// Bytes of all results of a task's needs together.
const INPUTS_BYTES_MAX: usize = 64 * 1024;
/// Bytes of a note that something was cut, at most.
const NOTE_BYTES_MAX: usize = 64;

/// A task that another needed, and where its result stands.
#[derive(Clone, Debug)]
pub(crate) struct Need {
    task: TaskId,
    name: Option<Arc<str>>,
    /// Absent where it did not succeed, or has left the state.
    at: Option<Position>,
}

/// Whose results a task is given.
pub(crate) fn needs(state: &State, task: &Task) -> Vec<Need> {
    // Nothing reads them.
    if task.spec.runtime == Runtime::Noop {
        return Vec::new();
    }
    let need = |id: &TaskId| {
        let needed = state.tasks.get(id);
        let at = needed.and_then(|t| match &t.phase {
            Phase::Ended(ended) if ended.outcome == Outcome::Succeeded => Some(ended.at),
            _ => None,
        });
        Need {
            task: *id,
            name: needed.and_then(|t| t.spec.name.clone()),
            at,
        }
    };
    task.spec.needs.iter().take(INPUTS_MAX).map(need).collect()
}

impl Need {
    /// The record that has its result.
    pub(crate) fn seq(&self) -> Option<u64> {
        self.at.map(|at| at.seq)
    }
}

/// The results, as far as there is room for them.
pub(crate) fn inputs(needs: &[Need], records: &BTreeMap<u64, Record>) -> Vec<Input> {
    let mut room = INPUTS_BYTES_MAX - INPUTS_MAX * NOTE_BYTES_MAX;
    let input = |need: &Need| {
        let result = need.at.and_then(|at| result(need.task, at, records));
        let result = result.map(|text| cut(text, room));
        room = room.saturating_sub(result.as_ref().map_or(0, String::len));
        Input {
            task: need.task,
            name: need.name.clone(),
            result,
        }
    };
    needs.iter().map(input).collect()
}

/// Adds to the news that a task has ended what it gave.
pub(crate) fn add_result(
    news: &mut SubtaskNews,
    task: TaskId,
    at: Position,
    records: &BTreeMap<u64, Record>,
) {
    if let SubtaskNews::Ended { result, .. } = news {
        *result = self::result(task, at, records);
    }
}

/// The result in the event by which a task ended.
fn result(task: TaskId, at: Position, records: &BTreeMap<u64, Record>) -> Option<String> {
    let record = records.get(&at.seq)?;
    let frame = frame::split(&record.payload).ok()?;
    let bytes = frame.events.get(usize::try_from(at.index).ok()?)?;
    match Event::decode(bytes).ok()? {
        Event::AttemptSucceeded(e) if e.lease.task == task => e.result,
        _ => None,
    }
}

/// A result that fits, and says so where it was cut.
fn cut(text: String, room: usize) -> String {
    if text.len() <= room {
        return text;
    }
    let note = format!("\n[cut by conductor: {} bytes in all]", text.len());
    let fits = |end: &usize| text.is_char_boundary(*end);
    let end = (0..=room).rev().find(fits).unwrap_or(0);
    // There is room kept for one of these with each.
    format!("{}{note}", text.get(..end).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use conductor_protocol::event::AttemptSucceeded;
    use conductor_protocol::frame::{FrameHead, join};
    use conductor_protocol::ids::Lease;

    fn id(n: u8) -> TaskId {
        TaskId::from_parts(u64::from(n), [n; 10])
    }

    /// A record in which task `n` succeeds with a result, behind another event.
    fn record(n: u8, result: &str) -> (u64, Record) {
        let lease = Lease {
            task: id(n),
            attempt: 1,
            assigned: Position::new(1, 0),
        };
        let succeeded = Event::from(AttemptSucceeded {
            lease,
            result: Some(result.to_owned()),
            exit_code: None,
            usage: None,
            output: None,
        });
        let other = Event::from(conductor_protocol::event::AgentDraining {});
        let payload = join(
            FrameHead::incarnation(1),
            &[other.encode(), succeeded.encode()],
        );
        let record = Record {
            seq: u64::from(n),
            time_ms: 0,
            subject: String::new(),
            content_type: None,
            reply: None,
            traceparent: None,
            payload: payload.into(),
        };
        (u64::from(n), record)
    }

    fn need(n: u8) -> Need {
        Need {
            task: id(n),
            name: Some(Arc::from(format!("t{n}"))),
            at: Some(Position::new(u64::from(n), 1)),
        }
    }

    #[test]
    fn results_are_found_where_their_tasks_ended() {
        let records = [record(1, "one"), record(2, "two")].into();
        let gone = Need {
            at: None,
            ..need(3)
        };
        // What stands there is of another task.
        let wrong = Need {
            at: Some(Position::new(1, 1)),
            ..need(4)
        };
        let found = inputs(&[need(2), need(1), gone, wrong], &records);
        let results: Vec<Option<&str>> = found.iter().map(|i| i.result.as_deref()).collect();
        assert_eq!(results, [Some("two"), Some("one"), None, None]);
        assert_eq!(found[0].name.as_deref(), Some("t2"));
    }

    #[test]
    fn no_more_is_handed_on_than_there_is_room_for() {
        let long = "ä".repeat(15_000);
        let records = [record(1, &long), record(2, &long), record(3, &long)].into();
        let found = inputs(&[need(1), need(2), need(3)], &records);
        let results: Vec<&str> = found.iter().filter_map(|i| i.result.as_deref()).collect();
        assert_eq!((results[0], results[1]), (long.as_str(), long.as_str()));
        assert!(results[2].ends_with("[cut by conductor: 30000 bytes in all]"));
        let all: usize = results.iter().map(|r| r.len()).sum();
        assert!(all <= INPUTS_BYTES_MAX, "{all}");
    }
}
