//! What namespaces have spent today, and what they may.

use std::collections::BTreeMap;

use conductor_protocol::UnixMs;
use conductor_protocol::human::format_time;
use conductor_protocol::ids::Namespace;
use conductor_protocol::spec::Runtime;
use serde::{Deserialize, Serialize};

use super::{State, Task};
use crate::config::DayBudget;
use crate::planted::{Bug, is_planted};

/// A day in UTC, in milliseconds.
const DAY_MS: u64 = 24 * 3_600_000;
/// Millionths of a dollar in a dollar.
pub(crate) const MICROS: f64 = 1_000_000.0;

/// What was spent on one day, in UTC by the records' time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spend {
    /// Days since 1970.
    pub day: u64,
    /// By namespace.
    pub by: BTreeMap<Namespace, Spent>,
}

/// What a namespace spent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spent {
    /// Money, in millionths of a US dollar.
    pub usd_micros: u64,
    /// Tokens that count.
    pub tokens: u64,
}

impl State {
    /// A task of a namespace has used more.
    pub(crate) fn spend(&mut self, namespace: &Namespace, (usd, tokens): (f64, u64)) {
        let day = self.time_ms / DAY_MS;
        if self.spend.day != day {
            self.spend.day = day;
            self.spend.by.clear();
        }
        // Beyond all numbers is the largest.
        let usd_micros = (usd * MICROS) as u64;
        if usd_micros == 0 && tokens == 0 {
            return;
        }
        let spent = self.spend.by.entry(namespace.clone()).or_default();
        spent.usd_micros = spent.usd_micros.saturating_add(usd_micros);
        spent.tokens = spent.tokens.saturating_add(tokens);
    }

    /// What a namespace has spent on the day of a time.
    pub fn spent(&self, namespace: &Namespace, time_ms: UnixMs) -> Spent {
        let is_today = self.spend.day == time_ms / DAY_MS;
        let spent = self.spend.by.get(namespace).filter(|_| is_today);
        spent.copied().unwrap_or_default()
    }

    /// Whether a namespace has used up what it may spend on the day of a time.
    pub(crate) fn is_spent(&self, namespace: &Namespace, time_ms: UnixMs) -> bool {
        if self.config.namespace_budget.is_empty() || is_planted(Bug::BudgetIgnored) {
            return false;
        }
        let budget = self.config.namespace_budget.get(namespace.as_str());
        budget.is_some_and(|b| b.is_reached(self.spent(namespace, time_ms)))
    }

    /// Whether a task has to wait for its namespace's budget.
    pub(crate) fn is_over_budget(&self, task: &Task, time_ms: UnixMs) -> bool {
        needs_a_model(task.spec.runtime) && self.is_spent(&task.spec.namespace, time_ms)
    }

    /// Why a task has to wait for its namespace's budget.
    pub(crate) fn why_over_budget(&self, task: &Task, time_ms: UnixMs) -> Option<String> {
        let namespace = &task.spec.namespace;
        if !self.is_over_budget(task, time_ms) {
            return None;
        }
        let budget = self.config.namespace_budget.get(namespace.as_str())?;
        let spent = self.spent(namespace, time_ms);
        let tomorrow = format_time((time_ms / DAY_MS + 1) * DAY_MS);
        Some(format!(
            "namespace {namespace} has used up its budget of the day ({}); it goes on at {tomorrow}, \
             or with a higher budget",
            budget.compared(spent)
        ))
    }
}

/// Whether tasks of a runtime spend anything.
pub(crate) fn needs_a_model(runtime: Runtime) -> bool {
    matches!(runtime, Runtime::Claude | Runtime::Codex | Runtime::Acp)
}

impl DayBudget {
    /// Whether so much is all of it.
    fn is_reached(&self, spent: Spent) -> bool {
        self.usd_micros.is_some_and(|max| spent.usd_micros >= max)
            || self.tokens.is_some_and(|max| spent.tokens >= max)
    }

    fn compared(&self, spent: Spent) -> String {
        let usd = |micros: u64| micros as f64 / MICROS;
        let money = self.usd_micros.map(|max| {
            let (spent, max) = (usd(spent.usd_micros), usd(max));
            format!("{spent:.2} of {max:.2} USD")
        });
        let tokens = self
            .tokens
            .map(|max| format!("{} of {max} tokens", spent.tokens));
        money
            .into_iter()
            .chain(tokens)
            .collect::<Vec<_>>()
            .join(", ")
    }
}
