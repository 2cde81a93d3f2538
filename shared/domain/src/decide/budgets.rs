//! Budgets of namespaces that are used up, and the tasks that fail for it.
//!
//! Everything here goes by the time of the last record, not by the clock: that is the day which
//! the fold goes by, too. A clock that is ahead of the server's would see a day begin for which
//! no record can be written yet, and decide the same again and again until one can.

use conductor_protocol::event::{BudgetReached, Event, TaskFailed};
use conductor_protocol::ids::{Namespace, QueueName};
use conductor_protocol::spec::Runtime;
use conductor_protocol::{OutcomeClass, UnixMs};

use super::Overlay;
use crate::planted::{Bug, is_planted};
use crate::state::index::Lane;
use crate::state::{DAY_MS, Reached, State, needs_a_model};

/// Decides which budgets are used up, and what follows for tasks that wait.
pub(super) fn decide(state: &State, overlay: &mut Overlay, max: usize, out: &mut Vec<Event>) {
    let time_ms = state.time_ms;
    for name in state.config.namespace_budget.keys() {
        // No task can have a name that is none, and no event has room for one of any length.
        let Ok(namespace) = name.parse::<Namespace>() else {
            continue;
        };
        if out.len() >= max || !state.is_spent(&namespace, time_ms) {
            continue;
        }
        let reached = state.budget_reached(&namespace, time_ms);
        if reached.is_none() || is_planted(Bug::BudgetNotedAgain) {
            note(state, overlay, &namespace, time_ms, out);
        }
        if reached.is_some_and(Reached::fails) {
            fail(state, overlay, &namespace, max, out);
        }
    }
}

/// Says that a budget is used up.
fn note(
    state: &State,
    overlay: &mut Overlay,
    namespace: &Namespace,
    time_ms: UnixMs,
    out: &mut Vec<Event>,
) {
    let Some(budget) = state.budget(namespace, time_ms) else {
        return;
    };
    if overlay.budgets.contains_key(namespace) {
        return;
    }
    let reached = BudgetReached {
        namespace: namespace.clone(),
        day: time_ms / DAY_MS,
        spent: state.spent(namespace, time_ms).into(),
        limit: budget.into(),
        on_reached: budget.on_reached,
    };
    overlay.budgets.insert(namespace.clone(), reached.clone());
    out.push(reached.into());
}

/// Fails what waits for a model in a namespace, as much as may be decided now.
fn fail(
    state: &State,
    overlay: &mut Overlay,
    namespace: &Namespace,
    max: usize,
    out: &mut Vec<Event>,
) {
    let lanes = state.index.ready.range(before(namespace)..);
    let its = lanes.take_while(|(lane, _)| lane.namespace == *namespace);
    let waiting = its.filter(|(lane, _)| needs_a_model(lane.runtime));
    let mut reason = None;
    for (_, _, task) in waiting.flat_map(|(_, ready)| ready) {
        if out.len() >= max {
            return;
        }
        if overlay.tasks.contains_key(task) {
            continue;
        }
        let reason = reason.get_or_insert_with(|| {
            let why = state.budget_is_used_up(namespace, state.time_ms);
            format!("{why}; tasks that need a model do not wait for the next")
        });
        let failed = Event::from(TaskFailed {
            task: *task,
            class: OutcomeClass::Budget,
            reason: reason.clone(),
        });
        overlay.tasks.insert(*task, failed.clone());
        out.push(failed);
    }
}

/// What comes before all lanes of a namespace, and after those of the one before.
fn before(namespace: &Namespace) -> Lane {
    Lane {
        namespace: namespace.clone(),
        // Shorter than any name.
        queue: QueueName::from_log(""),
        runtime: Runtime::Command,
        special: None,
    }
}
