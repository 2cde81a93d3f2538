//! Which tasks there are.

use conductor_domain::State;
use conductor_domain::state::Task;
use serde_json::Value;

use crate::cli::read;

/// Which tasks are wanted.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Filter<'f> {
    /// Whether those that have ended are.
    pub(crate) includes_ended: bool,
    /// Only those in this state, ended or not.
    pub(crate) state: Option<&'f str>,
    /// Only those of this queue.
    pub(crate) queue: Option<&'f str>,
    /// Only those of this namespace.
    pub(crate) namespace: Option<&'f str>,
    /// Most rows: the newest.
    pub(crate) limit: usize,
}

impl Filter<'_> {
    fn wants(&self, task: &Task) -> bool {
        let is = |wanted: Option<&str>, found: &str| wanted.is_none_or(|w| w == found);
        (self.includes_ended || self.state.is_some() || !task.is_final())
            && is(self.state, task.state_name())
            && is(self.queue, task.spec.queue.as_str())
            && is(self.namespace, task.spec.namespace.as_str())
    }
}

/// The tasks that are wanted, newest last.
pub(crate) fn rows(state: &State, filter: &Filter<'_>) -> Vec<Value> {
    let wanted = state.tasks.iter().filter(|(_, t)| filter.wants(t));
    let newest = wanted.rev().take(filter.limit);
    let mut rows: Vec<Value> = newest
        .map(|(id, t)| read::task_json(state, *id, t))
        .collect();
    rows.reverse();
    rows
}
