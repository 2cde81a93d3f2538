//! The cell's settings that folds and decisions depend on: facts of the log.

use std::collections::BTreeMap;

use conductor_protocol::control::{ConfigChange, NamespaceBudget, OnReached};
use serde::{Deserialize, Serialize};

use crate::state::MICROS;

/// Settings in force. The defaults are part of the log's format, like those of a spec.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Config {
    /// How long an id or key is remembered, in milliseconds of record time.
    pub idempotency_window_ms: u64,
    /// How long a finished task stays in the state in full, in milliseconds.
    pub finished_retention_ms: u64,
    /// How many finished tasks stay in the state in full.
    pub finished_max: u64,
    /// How many ids of ended tasks are remembered.
    pub tombstones_max: u64,
    /// Waiting this long weighs as much as one level of priority, in milliseconds.
    pub aging_ms: u64,
    /// Backlog cap of queues that have none of their own.
    pub backlog_max: u64,
    /// Backlog caps by queue.
    pub queue_backlog_max: BTreeMap<String, u64>,
    /// Fair-share weights by namespace; absent ones weigh 1.
    pub namespace_weight: BTreeMap<String, u32>,
    /// Fair-share weights by queue; absent ones weigh 1.
    pub queue_weight: BTreeMap<String, u32>,
    /// What the tasks of a namespace may spend in a day; absent ones may spend anything.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub namespace_budget: BTreeMap<String, DayBudget>,
}

/// What the tasks of a namespace may spend in a day.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct DayBudget {
    /// Money, in millionths of a US dollar.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usd_micros: Option<u64>,
    /// Tokens that count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<u64>,
    /// Turns of models.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub turns: Option<u64>,
    /// Time that attempts run which need a model, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ran_ms: Option<u64>,
    /// What happens when it is used up.
    #[serde(default, skip_serializing_if = "is_wait")]
    pub on_reached: OnReached,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_wait(on_reached: &OnReached) -> bool {
    *on_reached == OnReached::Wait
}

impl From<&NamespaceBudget> for DayBudget {
    fn from(budget: &NamespaceBudget) -> Self {
        Self {
            // Less than nothing, and what is no number, is nothing.
            usd_micros: budget.usd_per_day.map(|usd| (usd * MICROS) as u64),
            tokens: budget.tokens_per_day,
            turns: budget.turns_per_day,
            ran_ms: budget.time_per_day.map(|time| time.0),
            on_reached: budget.on_reached.unwrap_or_default(),
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            idempotency_window_ms: 24 * 3600 * 1000,
            finished_retention_ms: 24 * 3600 * 1000,
            finished_max: 10_000,
            tombstones_max: 4_000_000,
            aging_ms: 60_000,
            backlog_max: 2_000_000,
            queue_backlog_max: BTreeMap::new(),
            namespace_weight: BTreeMap::new(),
            queue_weight: BTreeMap::new(),
            namespace_budget: BTreeMap::new(),
        }
    }
}

impl Config {
    /// Takes over what a change names.
    pub fn change(&mut self, change: &ConfigChange) {
        let set = |field: &mut u64, value: Option<u64>| {
            if let Some(value) = value {
                *field = value;
            }
        };
        set(
            &mut self.idempotency_window_ms,
            change.idempotency_window.map(|d| d.0),
        );
        set(
            &mut self.finished_retention_ms,
            change.finished_retention.map(|d| d.0),
        );
        set(&mut self.finished_max, change.finished_max);
        set(&mut self.tombstones_max, change.tombstones_max);
        set(&mut self.aging_ms, change.aging.map(|d| d.0));
        set(&mut self.backlog_max, change.backlog_max);
        self.queue_backlog_max
            .extend(change.queue_backlog_max.clone());
        self.namespace_weight
            .extend(change.namespace_weight.clone());
        self.queue_weight.extend(change.queue_weight.clone());
        for (namespace, budget) in &change.namespace_budget {
            if budget.has_limit() {
                self.namespace_budget
                    .insert(namespace.clone(), budget.into());
            } else {
                self.namespace_budget.remove(namespace);
            }
        }
    }

    /// The backlog cap of a queue.
    pub fn backlog_max_of(&self, queue: &str) -> u64 {
        self.queue_backlog_max
            .get(queue)
            .copied()
            .unwrap_or(self.backlog_max)
    }

    /// The fair-share weight of a namespace, at least 1.
    pub fn weight_of_namespace(&self, namespace: &str) -> u64 {
        u64::from(
            self.namespace_weight
                .get(namespace)
                .copied()
                .unwrap_or(1)
                .max(1),
        )
    }

    /// The fair-share weight of a queue, at least 1.
    pub fn weight_of_queue(&self, queue: &str) -> u64 {
        u64::from(self.queue_weight.get(queue).copied().unwrap_or(1).max(1))
    }
}
