//! Budgets of namespaces that are used up, and what people say of that.

use conductor_protocol::OutcomeClass;
use conductor_protocol::control::ConfigChange;
use conductor_protocol::event::{BudgetReached, TaskFailed};
use conductor_protocol::ids::Namespace;
use conductor_protocol::limits::WORD_BYTES_MAX;
use conductor_protocol::terms::Answer;

use super::{At, Ruling};
use crate::planted::{Bug, is_planted};
use crate::state::{DAY_MS, Phase, Reached, State, Task, needs_a_model};
use crate::void::VoidReason;

/// `budget.reached`: true of the day of its record, and said once.
pub(super) fn reached(state: &mut State, at: At, e: &BudgetReached) -> Ruling {
    let is_of_today = e.day == at.time_ms / DAY_MS;
    if !is_of_today || !state.is_spent(&e.namespace, at.time_ms) {
        return Err(VoidReason::BudgetNotReached);
    }
    // Another budget was set while that was on its way.
    let budget = state.budget(&e.namespace, at.time_ms).unwrap_or_default();
    if budget.on_reached != e.on_reached {
        return Err(VoidReason::BudgetNotReached);
    }
    let is_known = state.budget_reached(&e.namespace, at.time_ms).is_some();
    if is_known && !is_planted(Bug::BudgetNotedAgain) {
        return Err(VoidReason::Duplicate);
    }
    let reached = Reached {
        at_ms: at.time_ms,
        on_reached: e.on_reached,
        is_denied: false,
        text: None,
    };
    state.today().reached.insert(e.namespace.clone(), reached);
    Ok(())
}

/// `budget.decide`: the first answer of the day counts. Yes is as much again, and may be used up
/// in its turn.
pub(super) fn answered(
    state: &mut State,
    at: At,
    namespace: &Namespace,
    answer: Answer,
    text: Option<&str>,
) -> Ruling {
    if text.is_some_and(|t| t.len() > WORD_BYTES_MAX) {
        return Err(VoidReason::Malformed);
    }
    let reached = state.budget_reached(namespace, at.time_ms);
    if reached.is_some_and(|r| r.is_denied) {
        return Err(VoidReason::Answered);
    }
    if !reached.is_some_and(Reached::is_asking) {
        return Err(VoidReason::NotAsked);
    }
    let today = state.today();
    match answer {
        Answer::Allow => {
            today.reached.remove(namespace);
            if !is_planted(Bug::GrantForgotten) {
                let granted = today.granted.entry(namespace.clone()).or_default();
                *granted = granted.saturating_add(1);
            }
        }
        Answer::Deny => {
            if let Some(reached) = today.reached.get_mut(namespace) {
                reached.is_denied = true;
                reached.text = text.map(str::to_owned);
            }
        }
    }
    Ok(())
}

/// A namespace was given another budget: what became of the one before says nothing of it.
pub(super) fn changed(state: &mut State, change: &ConfigChange) {
    for name in change.namespace_budget.keys() {
        let namespace = Namespace::from_log(name);
        state.spend.reached.remove(&namespace);
        state.spend.granted.remove(&namespace);
    }
}

/// Whether a task that waits fails because its namespace's budget is used up.
pub(super) fn is_failed(state: &State, at: At, task: &Task, e: &TaskFailed) -> bool {
    e.class == OutcomeClass::Budget
        && matches!(task.phase, Phase::Ready { .. })
        && needs_a_model(task.spec.runtime)
        && state.fails_for_budget(&task.spec.namespace, at.time_ms)
}
