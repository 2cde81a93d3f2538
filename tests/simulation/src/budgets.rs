//! The books about what namespaces may spend in a day. No run goes on over midnight.

use std::collections::BTreeMap;

use conductor_protocol::TaskId;
use conductor_protocol::control::{ConfigChange, NamespaceBudget, OnReached};
use conductor_protocol::event::Usage;
use conductor_protocol::ids::Namespace;
use conductor_protocol::terms::Answer;

/// A budget that was noted as used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Noted {
    /// What happens then.
    pub on_reached: OnReached,
    /// Whether people were asked and said no.
    pub is_denied: bool,
}

impl Noted {
    /// Whether tasks fail for it that would have to wait.
    pub fn fails(self) -> bool {
        self.on_reached == OnReached::Fail || self.is_denied
    }
}

/// What namespaces may spend in a day, and have spent.
#[derive(Clone, Debug, Default)]
pub struct Budgets {
    /// What they may.
    pub limits: BTreeMap<Namespace, NamespaceBudget>,
    /// How often people allowed as much again.
    pub granted: BTreeMap<Namespace, u32>,
    /// Those that were noted as used up.
    pub noted: BTreeMap<Namespace, Noted>,
    /// How often each began anew: with another budget, or because people allowed more.
    pub turns: BTreeMap<Namespace, u64>,
    /// Tokens and turns that were spent.
    pub spent: BTreeMap<Namespace, (u64, u64)>,
    /// Tokens and turns of each task, the most that was said.
    used: BTreeMap<TaskId, (u64, u64)>,
}

impl Budgets {
    /// Settings change.
    pub fn put(&mut self, change: &ConfigChange) {
        for (name, budget) in &change.namespace_budget {
            let namespace = Namespace::from_log(name);
            self.granted.remove(&namespace);
            self.begins_anew(&namespace);
            self.limits.insert(namespace, *budget);
        }
    }

    /// Somebody says whether a namespace may spend as much again.
    pub fn answered(&mut self, namespace: &Namespace, answer: Answer) {
        if answer == Answer::Allow {
            *self.granted.entry(namespace.clone()).or_default() += 1;
            self.begins_anew(namespace);
        } else if let Some(noted) = self.noted.get_mut(namespace) {
            noted.is_denied = true;
        }
    }

    /// A budget is said to be used up.
    pub fn reached(&mut self, namespace: &Namespace, on_reached: OnReached) {
        let noted = Noted {
            on_reached,
            is_denied: false,
        };
        self.noted.insert(namespace.clone(), noted);
    }

    fn begins_anew(&mut self, namespace: &Namespace) {
        self.noted.remove(namespace);
        *self.turns.entry(namespace.clone()).or_default() += 1;
    }

    /// A task says what it has used in all.
    pub fn used(&mut self, task: TaskId, namespace: Namespace, usage: &Usage) {
        let (tokens, turns) = (usage.input_tokens, u64::from(usage.turns));
        let before = self.used.entry(task).or_default();
        let spent = self.spent.entry(namespace).or_default();
        spent.0 += tokens.saturating_sub(before.0);
        spent.1 += turns.saturating_sub(before.1);
        *before = (before.0.max(tokens), before.1.max(turns));
    }

    /// What happens when a namespace has spent all it may.
    pub fn policy(&self, namespace: &Namespace) -> OnReached {
        let budget = self.limits.get(namespace);
        budget.and_then(|b| b.on_reached).unwrap_or_default()
    }

    /// Whether a namespace has spent all it may.
    pub fn is_spent(&self, namespace: &Namespace) -> bool {
        let Some(budget) = self.limits.get(namespace) else {
            return false;
        };
        let (tokens, turns) = self.spent.get(namespace).copied().unwrap_or_default();
        let times = 1 + u64::from(self.granted.get(namespace).copied().unwrap_or_default());
        let is_all = |most: Option<u64>, spent| most.is_some_and(|most| spent >= most * times);
        is_all(budget.tokens_per_day, tokens) || is_all(budget.turns_per_day, turns)
    }

    /// Namespaces that have spent all they may, and of which nobody has said so.
    pub fn unsaid(&self) -> impl Iterator<Item = &Namespace> {
        let all = self.limits.keys();
        all.filter(|n| self.is_spent(n) && !self.noted.contains_key(*n))
    }
}
