//! What namespaces have spent today. What they may, and what follows, is in `budgets`.

use std::collections::BTreeMap;

use conductor_protocol::UnixMs;
use conductor_protocol::event::DaySpent;
use conductor_protocol::ids::Namespace;
use conductor_protocol::spec::Runtime;
use serde::{Deserialize, Serialize};

use super::{Phase, Reached, State, Task};

/// A day in UTC, in milliseconds.
pub(crate) const DAY_MS: u64 = 24 * 3_600_000;
/// Millionths of a dollar in a dollar.
pub(crate) const MICROS: f64 = 1_000_000.0;

/// What was spent on one day, in UTC by the records' time, and which budgets that used up.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spend {
    /// Days since 1970.
    pub day: u64,
    /// By namespace.
    pub by: BTreeMap<Namespace, Spent>,
    /// Namespaces whose budget is noted as used up.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub reached: BTreeMap<Namespace, Reached>,
    /// How often people have allowed a namespace to spend as much again.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub granted: BTreeMap<Namespace, u32>,
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

impl From<Spent> for DaySpent {
    fn from(spent: Spent) -> Self {
        Self {
            usd_micros: spent.usd_micros,
            tokens: spent.tokens,
            turns: spent.turns,
            ran_ms: spent.ran_ms,
        }
    }
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

    /// What belongs to the day of the last record; what belonged to another day is gone.
    pub(crate) fn today(&mut self) -> &mut Spend {
        let day = self.time_ms / DAY_MS;
        if self.spend.day != day {
            self.spend = Spend {
                day,
                ..Spend::default()
            };
        }
        &mut self.spend
    }

    /// What is kept of the day of a time, if that day is the one.
    pub(crate) fn spend_of(&self, time_ms: UnixMs) -> Option<&Spend> {
        (self.spend.day == time_ms / DAY_MS).then_some(&self.spend)
    }

    /// A task of a namespace has used more.
    pub(crate) fn spend(&mut self, namespace: &Namespace, more: More) {
        self.today();
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
        let spent = self.spend_of(time_ms).and_then(|s| s.by.get(namespace));
        spent.copied().unwrap_or_default()
    }
}

/// Whether tasks of a runtime spend anything.
pub(crate) fn needs_a_model(runtime: Runtime) -> bool {
    matches!(runtime, Runtime::Claude | Runtime::Codex | Runtime::Acp)
}
