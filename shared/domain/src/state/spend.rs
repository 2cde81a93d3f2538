//! What namespaces have spent today, and what they may.

use std::collections::BTreeMap;

use conductor_protocol::UnixMs;
use conductor_protocol::human::{DurationMs, format_time};
use conductor_protocol::ids::Namespace;
use conductor_protocol::spec::Runtime;
use serde::{Deserialize, Serialize};

use super::{Phase, State, Task};
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
    /// Turns of models.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub turns: u64,
    /// How long attempts ran that need a model, in milliseconds; waiting for people is not running.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub ran_ms: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero(n: &u64) -> bool {
    *n == 0
}

/// What a task has used more than was known.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct More {
    /// Money, in US dollars.
    pub(crate) usd: f64,
    /// Tokens that count.
    pub(crate) tokens: u64,
    /// Turns.
    pub(crate) turns: u64,
    /// Time that its attempt ran, in milliseconds.
    pub(crate) ran_ms: u64,
}

impl Task {
    /// How long its attempt has run at a time that its namespace has not been charged for, in
    /// milliseconds; waiting for people is not running. Programs that need no model are charged for
    /// nothing.
    pub(crate) fn uncharged_ms(&self, now_ms: UnixMs) -> u64 {
        let Phase::Running { started_ms, .. } = self.phase else {
            return 0;
        };
        if !needs_a_model(self.spec.runtime) {
            return 0;
        }
        let ran = now_ms.saturating_sub(started_ms);
        let ran = ran.saturating_sub(self.waited_ms(now_ms));
        ran.saturating_sub(self.aside.charged_ms)
    }

    /// The time for which its namespace is still to be charged when its attempt ends. To be called
    /// before the phase changes.
    pub(crate) fn rest(&self, now_ms: UnixMs) -> Option<(Namespace, More)> {
        let ran_ms = self.uncharged_ms(now_ms);
        let more = More {
            ran_ms,
            ..More::default()
        };
        (ran_ms > 0).then(|| (self.spec.namespace.clone(), more))
    }
}

impl State {
    /// An attempt is over, and its namespace is charged for the rest of its time.
    pub(crate) fn charge(&mut self, rest: Option<(Namespace, More)>) {
        if let Some((namespace, more)) = rest {
            self.spend(&namespace, more);
        }
    }

    /// A task of a namespace has used more.
    pub(crate) fn spend(&mut self, namespace: &Namespace, more: More) {
        let day = self.time_ms / DAY_MS;
        if self.spend.day != day {
            self.spend.day = day;
            self.spend.by.clear();
        }
        // Beyond all numbers is the largest.
        let usd_micros = (more.usd * MICROS) as u64;
        if usd_micros == 0 && more.tokens == 0 && more.turns == 0 && more.ran_ms == 0 {
            return;
        }
        let spent = self.spend.by.entry(namespace.clone()).or_default();
        spent.usd_micros = spent.usd_micros.saturating_add(usd_micros);
        spent.tokens = spent.tokens.saturating_add(more.tokens);
        spent.turns = spent.turns.saturating_add(more.turns);
        spent.ran_ms = spent.ran_ms.saturating_add(more.ran_ms);
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
            || self.turns.is_some_and(|max| spent.turns >= max)
            || self.ran_ms.is_some_and(|max| spent.ran_ms >= max)
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
        let turns = self
            .turns
            .map(|max| format!("{} of {max} turns", spent.turns));
        let time = self.ran_ms.map(|max| {
            let (ran, max) = (seconds(spent.ran_ms), DurationMs(max));
            format!("{ran} of {max} of running")
        });
        money
            .into_iter()
            .chain(tokens)
            .chain(turns)
            .chain(time)
            .collect::<Vec<_>>()
            .join(", ")
    }
}

/// A time in whole seconds, for people.
fn seconds(ms: u64) -> DurationMs {
    DurationMs(ms / 1_000 * 1_000)
}
