//! Accepting and rejecting what attempts submit.

use conductor_protocol::TaskId;
use conductor_protocol::event::{Event, FieldError};
use conductor_protocol::ids::Position;
use conductor_protocol::spec::TaskSpec;
use conductor_protocol::submission::{Parent, resolve_subtask};

use super::Overlay;
use super::intake::{decide_one, rejected};
use crate::fold::is_wanted;
use crate::planted::{Bug, is_planted};
use crate::state::{State, Subtask, Task};

/// Decides what attempts submitted and nobody has decided.
pub(super) fn decide(state: &State, overlay: &mut Overlay, max: usize, out: &mut Vec<Event>) {
    for (at, subtask) in &state.subtasks {
        if out.len() >= max {
            break;
        }
        if overlay.subtasks.contains_key(at) {
            continue;
        }
        let decided = decide_subtask(state, overlay, *at, subtask);
        let is_accepted = matches!(decided, Event::TaskAccepted(_));
        let parent = is_accepted.then_some(subtask.lease.task);
        overlay.subtasks.insert(*at, parent);
        out.push(decided);
    }
}

fn decide_subtask(state: &State, overlay: &mut Overlay, at: Position, subtask: &Subtask) -> Event {
    let id = subtask.lease.task;
    let parent = state.tasks.get(&id).filter(|_| is_wanted(state, subtask));
    let Some(parent) = parent else {
        let problem = "the attempt that submitted it is over, or shall be";
        return rejected(
            at,
            vec![FieldError::new("", problem, "an attempt that runs")],
        );
    };
    let agent = parent.assigned().and_then(|a| state.agents.get(&a.agent));
    let of = Parent {
        task: id,
        spec: &parent.spec,
        sandbox: agent.and_then(|a| a.joined.sandbox),
    };
    let resolved = resolve_subtask(&state.cell, at, subtask.time_ms, of, &subtask.body);
    let resolved = match resolved {
        Ok(resolved) => resolved,
        Err(errors) => return rejected(at, errors),
    };
    let is_known = overlay.knows(state, &resolved.spec);
    let mut errors = foreign_needs(parent, &resolved.spec);
    if !is_known {
        errors.extend(beyond_limit(overlay, id, parent));
    }
    if !errors.is_empty() {
        return rejected(at, errors);
    }
    decide_one(state, overlay, at, subtask.time_ms, resolved)
}

/// A subtask may need others of its parent's alone: of foreign ones it would get the results.
fn foreign_needs(parent: &Task, spec: &TaskSpec) -> Vec<FieldError> {
    let needs = spec.needs.iter().enumerate();
    let foreign = needs.filter(|(_, need)| !parent.aside.subtasks.contains(need));
    let error = |(i, need): (usize, &TaskId)| {
        let problem = format!("{need} is no task that this task submitted");
        let expected = "a task that this task submitted before";
        FieldError::new(format!("needs[{i}]"), problem, expected)
    };
    foreign.map(error).collect()
}

fn beyond_limit(overlay: &Overlay, id: TaskId, parent: &Task) -> Option<FieldError> {
    let most = parent.spec.terms.as_ref()?.subtasks.as_ref()?.max;
    let in_flight = overlay
        .subtasks
        .values()
        .filter(|p| **p == Some(id))
        .count();
    let has = parent.aside.subtasks.len() + in_flight;
    let is_beyond = u32::try_from(has).is_ok_and(|has| has >= most);
    let error = || {
        let problem = format!("this task has submitted {has} tasks");
        FieldError::new("", problem, format!("at most {most} (subtasks.max)"))
    };
    (is_beyond && !is_planted(Bug::SubtasksUnlimited)).then(error)
}
