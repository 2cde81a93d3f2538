//! What namespaces may spend in a day.

use std::collections::BTreeMap;

use conductor_domain::State;
use conductor_protocol::control::{ConfigChange, NamespaceBudget};
use conductor_protocol::event::{BudgetReached, Event, TaskFailed};
use conductor_protocol::ids::Namespace;
use conductor_protocol::spec::Runtime;
use conductor_protocol::{Control, OutcomeClass};

use super::shared::assigned;
use super::{Checker, Ruling};
use crate::budgets::Noted;
use crate::ledger::{Ledger, Seen, What};

/// So long after a budget was used up somebody has said so, once trouble has ceased.
const SAID_WITHIN_MS: u64 = 40_000;

/// Nothing that needs a model is begun in a namespace that has spent what it may; that it has is
/// said once, until it may spend more; and what waits fails only where the policy, or people, say
/// so.
#[derive(Default)]
pub(super) struct Budgets {
    /// Namespaces of which it is to be said, by when they had spent all.
    unsaid: BTreeMap<Namespace, u64>,
}

impl Checker for Budgets {
    fn id(&self) -> &'static str {
        "budgets"
    }

    fn on_event(&mut self, ledger: &Ledger, _: &State, seen: &Seen<'_>) -> Ruling {
        if !seen.is_applied() {
            return Ok(());
        }
        if let Some((e, task, _)) = assigned(ledger, seen) {
            let namespace = &task.spec.namespace;
            let is_model = task.spec.runtime == Runtime::Claude;
            if is_model && ledger.shared.budgets.is_spent(namespace) {
                return Err(format!("{} begins, but {namespace} has spent all", e.task));
            }
        }
        match seen.what {
            What::Event(Event::BudgetReached(e)) => reached(ledger, e),
            What::Event(Event::TaskFailed(e)) => failed(ledger, e),
            What::Control(Control::PutConfig(change)) => self.lifted(change, seen.time_ms),
            _ => Ok(()),
        }
    }

    fn on_record(&mut self, ledger: &Ledger, state: &State) -> Ruling {
        let budgets = &ledger.shared.budgets;
        for (namespace, spent) in &budgets.spent {
            let known = state.spent(namespace, state.time_ms);
            let known = (known.tokens, known.turns);
            if known != *spent {
                return Err(format!(
                    "{namespace} spent {spent:?}, the state says {known:?}"
                ));
            }
        }
        let noted = |reached: &conductor_domain::state::Reached| Noted {
            on_reached: reached.on_reached,
            is_denied: reached.is_denied,
        };
        let known = state.spend.reached.iter();
        let known: BTreeMap<_, _> = known.map(|(n, r)| (n.clone(), noted(r))).collect();
        if known != budgets.noted {
            return Err(format!(
                "{:?} are noted as used up, the state says {known:?}",
                budgets.noted
            ));
        }
        self.note_unsaid(ledger, state.time_ms);
        Ok(())
    }
}

impl Budgets {
    fn note_unsaid(&mut self, ledger: &Ledger, now_ms: u64) {
        let before = std::mem::take(&mut self.unsaid);
        for namespace in ledger.shared.budgets.unsaid() {
            let since = before.get(namespace).copied().unwrap_or(now_ms);
            self.unsaid.insert(namespace.clone(), since);
        }
    }

    /// The operator takes all budgets away, long after trouble has ceased.
    fn lifted(&self, change: &ConfigChange, now_ms: u64) -> Ruling {
        let budgets = &change.namespace_budget;
        if budgets.is_empty() || budgets.values().any(NamespaceBudget::has_limit) {
            return Ok(());
        }
        let mut late = self.unsaid.iter();
        match late.find(|(_, since)| now_ms.saturating_sub(**since) > SAID_WITHIN_MS) {
            Some((namespace, since)) => {
                let ms = now_ms - since;
                Err(format!(
                    "{namespace} has spent all for {ms} ms, nobody said so"
                ))
            }
            None => Ok(()),
        }
    }
}

/// It is true, it is what the settings say, and nobody has said so before.
fn reached(ledger: &Ledger, e: &BudgetReached) -> Ruling {
    let (budgets, namespace) = (&ledger.shared.budgets, &e.namespace);
    if !budgets.is_spent(namespace) {
        return Err(format!("{namespace} has spent all, it is said; it has not"));
    }
    if let Some(noted) = budgets.noted.get(namespace) {
        return Err(format!("{namespace} has spent all, again after {noted:?}"));
    }
    let policy = budgets.policy(namespace);
    if e.on_reached != policy {
        let said = e.on_reached;
        return Err(format!("{namespace}: {said} is said, {policy} is set"));
    }
    Ok(())
}

/// No program of ours ends so: it is its namespace that has spent all, and what waits for that
/// shall fail.
fn failed(ledger: &Ledger, e: &TaskFailed) -> Ruling {
    let task = ledger.tasks.get(&e.task);
    let Some(task) = task.filter(|_| e.class == OutcomeClass::Budget) else {
        return Ok(());
    };
    let (budgets, namespace) = (&ledger.shared.budgets, &task.spec.namespace);
    let noted = budgets.noted.get(namespace);
    let is_meant = task.spec.runtime == Runtime::Claude && task.lease.is_none();
    if !is_meant || !budgets.is_spent(namespace) || !noted.is_some_and(|n| n.fails()) {
        let spent = budgets.spent.get(namespace);
        return Err(format!(
            "{} fails for {namespace}, which spent {spent:?} and is noted as {noted:?}",
            e.task
        ));
    }
    Ok(())
}
