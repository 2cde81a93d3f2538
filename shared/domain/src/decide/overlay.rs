//! What the deciding orchestrator has in flight: appended, but not seen in the tail yet.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use conductor_protocol::TaskId;
use conductor_protocol::event::{BudgetReached, Event};
use conductor_protocol::ids::{AgentId, Namespace, Position, QueueName};
use conductor_protocol::spec::TaskSpec;

use crate::planted::{Bug, is_planted};
use crate::state::State;
use crate::void::{Verdict, VoidReason};

/// Decisions in flight.
#[derive(Clone, Debug, Default)]
pub struct Overlay {
    /// Submit records up to this sequence are decided, or have decisions in flight.
    pub(super) submissions_upto: u64,
    /// Submissions among those whose decision turned out void, to be decided again.
    pub(super) submissions_again: BTreeMap<u64, BTreeSet<u32>>,
    /// Submissions of attempts with a decision in flight; of acceptances, the task whose attempt
    /// it is.
    pub(super) subtasks: BTreeMap<Position, Option<TaskId>>,
    /// Decisions about tasks in flight. Kept whole: an earlier decision about the same task
    /// may come back once more, when an append was repeated after the log had forgotten it.
    pub(super) tasks: BTreeMap<TaskId, Event>,
    /// Agents with a decision in flight.
    pub(super) agents: BTreeSet<AgentId>,
    /// Budgets that are said to be used up, in flight. Kept whole as well.
    pub(super) budgets: BTreeMap<Namespace, BudgetReached>,
    /// Tasks whose acceptance is in flight, with their namespace, and their key if they have one.
    pub(super) accepted: BTreeMap<TaskId, (Namespace, Option<Arc<str>>)>,
    /// Keys whose acceptance is in flight.
    pub(super) keys: BTreeMap<(Namespace, Arc<str>), TaskId>,
    /// The format that is in flight; 0 for none.
    pub(super) format: u32,
    /// How many tasks of each queue have their acceptance in flight.
    pub(super) backlog: BTreeMap<QueueName, u64>,
}

impl Overlay {
    /// Notes that a decision of ours came back in the tail. One that turned out void is
    /// decided again, because it is no longer in the way.
    pub fn on_folded(&mut self, event: &Event, verdict: Verdict) {
        match event {
            Event::TaskAccepted(e) => {
                if let Some((namespace, Some(key))) = self.accepted.remove(&e.task) {
                    self.keys.remove(&(namespace, key));
                }
                if let Some(n) = self.backlog.get_mut(&e.spec.queue) {
                    *n = n.saturating_sub(1);
                }
                self.on_submission(e.submission, verdict);
            }
            Event::TaskRejected(e) => self.on_submission(e.submission, verdict),
            Event::TaskDuplicate(e) => self.on_submission(e.submission, verdict),
            Event::LogFormat(_) => self.format = 0,
            Event::AgentLost(e) => {
                self.agents.remove(&e.agent);
            }
            Event::BudgetReached(e) => {
                if self.budgets.get(&e.namespace) == Some(e) {
                    self.budgets.remove(&e.namespace);
                }
            }
            other => {
                if let Some(task) = other.task()
                    && (self.tasks.get(&task) == Some(other) || is_planted(Bug::RepeatBelieved))
                {
                    self.tasks.remove(&task);
                }
            }
        }
    }

    /// Whether a submission with this key is a task already, or is about to be.
    pub(super) fn knows(&self, state: &State, spec: &TaskSpec) -> bool {
        let key = spec.key.clone().map(|key| (spec.namespace.clone(), key));
        key.is_some_and(|key| state.keys.contains_key(&key) || self.keys.contains_key(&key))
    }

    fn on_submission(&mut self, at: Position, verdict: Verdict) {
        if self.subtasks.remove(&at).is_some() {
            // Where it is still open it is decided again, since it is no longer in the way.
            return;
        }
        // Where it is decided already there is nothing to decide again.
        let is_open = matches!(verdict, Verdict::Void(r) if r != VoidReason::SubmissionDecided);
        // Beyond what was decided everything is decided anyway, each after what it needs.
        if is_open && at.seq <= self.submissions_upto {
            let again = self.submissions_again.entry(at.seq).or_default();
            again.insert(at.index);
        }
    }

    /// How many decisions are in flight, submissions aside.
    pub fn len(&self) -> usize {
        self.tasks.len() + self.agents.len() + self.accepted.len() + self.budgets.len()
    }

    /// Whether nothing is in flight.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
