//! Budgets of namespaces: what they may spend in a day, and what follows when that is used up.
//!
//! All of it belongs to a day and is asked for by a time: what was noted yesterday says nothing
//! of today, whether or not anything was spent since.

use conductor_protocol::UnixMs;
use conductor_protocol::control::OnReached;
use conductor_protocol::event::DayLimit;
use conductor_protocol::human::{DurationMs, format_time};
use conductor_protocol::ids::Namespace;
use serde::{Deserialize, Serialize};

use super::spend::{DAY_MS, MICROS, Spent, needs_a_model};
use super::{State, Task};
use crate::config::DayBudget;
use crate::planted::{Bug, is_planted};

/// So much of what people said with their answer is repeated, in bytes of it once it is quoted: with
/// all else that a reason says it stays below `MESSAGE_BYTES_MAX`.
const TEXT_BYTES_MAX: usize = 200;

/// A budget that is noted as used up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reached {
    /// When that was noted.
    pub at_ms: UnixMs,
    /// What happens then.
    pub on_reached: OnReached,
    /// Whether people were asked and said no.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_denied: bool,
    /// What they said with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
}

impl Reached {
    /// Whether tasks fail that would have to wait for it.
    pub fn fails(&self) -> bool {
        let waits = match self.on_reached {
            OnReached::Wait => true,
            OnReached::Fail => false,
            OnReached::Ask => !self.is_denied,
        };
        !waits || is_planted(Bug::BudgetWaitFails)
    }

    /// Whether people are asked and have not answered.
    pub fn is_asking(&self) -> bool {
        self.on_reached == OnReached::Ask && !self.is_denied
    }
}

/// What people are asked when a namespace has used up its budget.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BudgetQuestion {
    /// The namespace.
    pub namespace: Namespace,
    /// Since when.
    pub asked_ms: UnixMs,
    /// When the day ends, and with it the question.
    pub expires_ms: UnixMs,
    /// What it has spent, and of how much, for people.
    pub account: String,
}

impl State {
    /// What a namespace may spend on the day of a time, with all that people have allowed.
    pub(crate) fn budget(&self, namespace: &Namespace, time_ms: UnixMs) -> Option<DayBudget> {
        let budget = self.config.namespace_budget.get(namespace.as_str())?;
        let granted = self
            .spend_of(time_ms)
            .and_then(|s| s.granted.get(namespace));
        Some(match granted {
            Some(times) => budget.times(u64::from(*times) + 1),
            None => *budget,
        })
    }

    /// Whether a namespace has used up what it may spend on the day of a time.
    pub(crate) fn is_spent(&self, namespace: &Namespace, time_ms: UnixMs) -> bool {
        if self.config.namespace_budget.is_empty() || is_planted(Bug::BudgetIgnored) {
            return false;
        }
        let budget = self.budget(namespace, time_ms);
        budget.is_some_and(|b| b.is_reached(self.spent(namespace, time_ms)))
    }

    /// What is noted on the day of a time of a namespace that has used up its budget.
    pub fn budget_reached(&self, namespace: &Namespace, time_ms: UnixMs) -> Option<&Reached> {
        self.spend_of(time_ms)?.reached.get(namespace)
    }

    /// Whether tasks of a namespace that need a model and wait fail, because its budget is used up.
    pub(crate) fn fails_for_budget(&self, namespace: &Namespace, time_ms: UnixMs) -> bool {
        let reached = self.budget_reached(namespace, time_ms);
        reached.is_some_and(Reached::fails) && self.is_spent(namespace, time_ms)
    }

    /// Whether a task has to wait for its namespace's budget.
    pub(crate) fn is_over_budget(&self, task: &Task, time_ms: UnixMs) -> bool {
        needs_a_model(task.spec.runtime) && self.is_spent(&task.spec.namespace, time_ms)
    }

    /// When budgets are whole again, should there be any.
    pub fn budgets_renewed_ms(&self, now_ms: UnixMs) -> Option<UnixMs> {
        (!self.config.namespace_budget.is_empty()).then(|| next_day(now_ms))
    }

    /// What people are asked about budgets that are used up on the day of a time.
    pub fn budget_questions(&self, time_ms: UnixMs) -> Vec<BudgetQuestion> {
        let reached = self.spend_of(time_ms).map(|s| s.reached.iter());
        let asking = reached.into_iter().flatten().filter(|(_, r)| r.is_asking());
        let question = |(namespace, reached): (&Namespace, &Reached)| BudgetQuestion {
            namespace: namespace.clone(),
            asked_ms: reached.at_ms,
            expires_ms: next_day(time_ms),
            account: self.account(namespace, time_ms),
        };
        asking.map(question).collect()
    }

    /// What a namespace has spent on the day of a time, and of how much, for people.
    fn account(&self, namespace: &Namespace, time_ms: UnixMs) -> String {
        let budget = self.budget(namespace, time_ms).unwrap_or_default();
        budget.compared(self.spent(namespace, time_ms))
    }

    /// Why a task has to wait for its namespace's budget.
    pub(crate) fn why_over_budget(&self, task: &Task, time_ms: UnixMs) -> Option<String> {
        let namespace = &task.spec.namespace;
        if !self.is_over_budget(task, time_ms) {
            return None;
        }
        let tomorrow = format_time(next_day(time_ms));
        let reached = self.budget_reached(namespace, time_ms);
        let then = match reached {
            Some(reached) if reached.fails() => {
                "the orchestrator has not decided yet that it fails".to_owned()
            }
            Some(reached) if reached.is_asking() => format!(
                "people are asked whether it may spend as much again (`conductor approvals approve \
                 --namespace {namespace}`); else it goes on at {tomorrow}, or with a higher budget"
            ),
            _ => format!("it goes on at {tomorrow}, or with a higher budget"),
        };
        let what = self.budget_is_used_up(namespace, time_ms);
        Some(format!("{what}; {then}"))
    }

    /// That a budget is used up, and what people said of that, for people.
    pub(crate) fn budget_is_used_up(&self, namespace: &Namespace, time_ms: UnixMs) -> String {
        let account = self.account(namespace, time_ms);
        let what = format!("namespace {namespace} has used up its budget of the day ({account})");
        let reached = self.budget_reached(namespace, time_ms);
        let Some(denied) = reached.filter(|r| r.is_denied) else {
            return what;
        };
        let said = denied.text.as_deref().map(beginning);
        let said = said.map(|text| format!(" ({text:?})")).unwrap_or_default();
        format!("{what}, and was not allowed as much again{said}")
    }
}

/// As much of a text as is repeated.
fn beginning(text: &str) -> &str {
    let mut bytes = 0;
    let rest = text.char_indices().find(|(_, c)| {
        bytes += c.escape_debug().map(char::len_utf8).sum::<usize>();
        bytes > TEXT_BYTES_MAX
    });
    let end = rest.map_or(text.len(), |(at, _)| at);
    text.get(..end).unwrap_or_default()
}

/// When the day of a time ends.
fn next_day(time_ms: UnixMs) -> UnixMs {
    (time_ms / DAY_MS + 1) * DAY_MS
}

impl DayBudget {
    /// So many times as much.
    fn times(&self, times: u64) -> Self {
        let more = |max: Option<u64>| max.map(|max| max.saturating_mul(times));
        Self {
            usd_micros: more(self.usd_micros),
            tokens: more(self.tokens),
            turns: more(self.turns),
            ran_ms: more(self.ran_ms),
            on_reached: self.on_reached,
        }
    }

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

impl From<DayBudget> for DayLimit {
    fn from(budget: DayBudget) -> Self {
        Self {
            usd_micros: budget.usd_micros,
            tokens: budget.tokens,
            turns: budget.turns,
            ran_ms: budget.ran_ms,
        }
    }
}

/// A time in whole seconds, for people.
fn seconds(ms: u64) -> DurationMs {
    DurationMs(ms / 1_000 * 1_000)
}
