//! What is derived from the state so that nothing has to be searched for.
//!
//! Kept up to date by [`State::reindex`] around every change of a task, and rebuilt
//! whole from a snapshot; a test compares the two.

use std::collections::{BTreeMap, BTreeSet};

use conductor_protocol::ids::{AgentId, Namespace, Position, QueueName};
use conductor_protocol::spec::Runtime;
use conductor_protocol::{TaskId, UnixMs};

use super::{AgentStatus, LeaseState, Phase, State, Task};
use crate::decide::due;
use crate::planted::{Bug, is_planted};

/// Derived from the state.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Index {
    /// When each task next needs the orchestrator, soonest first.
    pub agenda: BTreeSet<(UnixMs, TaskId)>,
    /// Tasks that may be assigned, by lane, most urgent first.
    pub ready: BTreeMap<Lane, BTreeSet<ReadyKey>>,
    /// How many tasks of each queue wait, for whatever reason.
    pub backlog: BTreeMap<QueueName, u64>,
    /// Slots taken by tasks of each namespace and queue.
    pub load: BTreeMap<Namespace, BTreeMap<QueueName, u64>>,
    /// Who waits for a task to end.
    pub dependents: BTreeMap<TaskId, BTreeSet<TaskId>>,
    /// Ended tasks, oldest end first.
    pub ended: BTreeSet<(UnixMs, TaskId)>,
    /// Idempotency keys by the time they are forgotten.
    pub key_expiry: BTreeSet<(UnixMs, Namespace, String)>,
    /// Leases that are over and whose agents are to be told.
    pub revocations: BTreeSet<(AgentId, Position)>,
    /// Agents that are to be told that they were declared lost.
    pub dismissals: BTreeSet<AgentId>,
    /// Agents that are gone, longest gone first.
    pub gone: BTreeSet<(UnixMs, AgentId)>,
}

/// Tasks alike in all that decides where they may run; only the head need be looked at.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Lane {
    /// The tenant.
    pub namespace: Namespace,
    /// The queue.
    pub queue: QueueName,
    /// The runtime required.
    pub runtime: Runtime,
    /// What only some tasks require.
    pub special: Option<Box<Special>>,
}

/// What only some tasks require.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Special {
    /// Labels required of the agent.
    pub labels: BTreeMap<String, String>,
    /// Concurrency key and limit.
    pub key: Option<(String, u32)>,
    /// Slots required of the agent: a task too large for any must hold up no smaller one.
    pub slots: u32,
}

/// Order within a lane: by rank, then by who became ready first.
///
/// The rank is the time of becoming ready less `priority × aging`, so that waiting
/// makes up for priority at a steady rate and nothing ever has to be re-sorted.
pub type ReadyKey = (i64, Position, TaskId);

impl Lane {
    /// The lane of a task.
    pub fn of(task: &Task) -> Self {
        let spec = &task.spec;
        let is_special = !spec.labels.is_empty() || spec.concurrency.is_some() || spec.slots != 1;
        Self {
            namespace: spec.namespace.clone(),
            queue: spec.queue.clone(),
            runtime: spec.runtime,
            special: is_special.then(|| {
                Box::new(Special {
                    labels: spec.labels.clone(),
                    key: spec.concurrency.as_ref().map(|c| (c.key.clone(), c.limit)),
                    slots: spec.slots,
                })
            }),
        }
    }
}

/// The order of a ready task within its lane.
fn ready_key(id: TaskId, task: &Task, aging_ms: u64) -> Option<ReadyKey> {
    match task.phase {
        Phase::Ready { since_ms, at } => {
            let head_start = u64::from(task.spec.priority).saturating_mul(aging_ms);
            let since_ms = if is_planted(Bug::AgingOff) {
                0
            } else {
                since_ms
            };
            let rank = i64::try_from(since_ms).unwrap_or(i64::MAX)
                - i64::try_from(head_start).unwrap_or(i64::MAX / 2);
            Some((rank, at, id))
        }
        _ => None,
    }
}

impl State {
    /// Takes a task out of the index; call before changing it.
    pub(crate) fn unindex(&mut self, id: TaskId) {
        let Some(task) = self.tasks.get(&id) else {
            return;
        };
        let index = &mut self.index;
        if let Some(wake) = task.wake_ms {
            index.agenda.remove(&(wake, id));
        }
        if let Some(key) = ready_key(id, task, self.config.aging_ms) {
            let lane = Lane::of(task);
            if let Some(set) = index.ready.get_mut(&lane) {
                set.remove(&key);
                if set.is_empty() {
                    index.ready.remove(&lane);
                }
            }
        }
        if task.is_waiting() {
            subtract(&mut index.backlog, &task.spec.queue, 1);
        }
        if task.assigned().is_some()
            && let Some(queues) = index.load.get_mut(&task.spec.namespace)
        {
            subtract(queues, &task.spec.queue, u64::from(task.spec.slots));
            if queues.is_empty() {
                index.load.remove(&task.spec.namespace);
            }
        }
        if let Phase::Ended(e) = &task.phase {
            index.ended.remove(&(e.at_ms, id));
        }
    }

    /// Puts a task into the index; call after changing it.
    pub(crate) fn reindex(&mut self, id: TaskId) {
        let Some(task) = self.tasks.get_mut(&id) else {
            return;
        };
        let index = &mut self.index;
        task.wake_ms = due::next(task).map(|(at, _)| at);
        if let Some(wake) = task.wake_ms {
            index.agenda.insert((wake, id));
        }
        if let Some(key) = ready_key(id, task, self.config.aging_ms) {
            index.ready.entry(Lane::of(task)).or_default().insert(key);
        }
        if task.is_waiting() {
            *index.backlog.entry(task.spec.queue.clone()).or_default() += 1;
        }
        if task.assigned().is_some() {
            let queues = index.load.entry(task.spec.namespace.clone()).or_default();
            *queues.entry(task.spec.queue.clone()).or_default() += u64::from(task.spec.slots);
        }
        if let Phase::Ended(e) = &task.phase {
            index.ended.insert((e.at_ms, id));
        }
    }

    /// Derives everything anew.
    pub(crate) fn rebuild_index(&mut self) {
        self.index = Index::default();
        let ids: Vec<TaskId> = self.tasks.keys().copied().collect();
        for id in ids {
            self.reindex(id);
            let Some(task) = self.tasks.get(&id) else {
                continue;
            };
            if let Some(wake) = task.wake_ms.filter(|_| is_planted(Bug::TimerLostOnRestart)) {
                self.index.agenda.remove(&(wake, id));
            }
            if is_planted(Bug::NeedsLostOnRestart) {
                continue;
            }
            for need in &task.open_needs {
                self.index.dependents.entry(*need).or_default().insert(id);
            }
        }
        for ((namespace, key), used) in &self.keys {
            self.index
                .key_expiry
                .insert((used.until_ms, namespace.clone(), key.clone()));
        }
        let agents: Vec<AgentId> = self.agents.keys().cloned().collect();
        for agent in agents {
            self.reindex_agent(&agent);
        }
    }

    /// Puts an agent's dues into the index; call after changing it.
    pub(crate) fn reindex_agent(&mut self, id: &AgentId) {
        let Some(agent) = self.agents.get(id) else {
            return;
        };
        let index = &mut self.index;
        for (at, slot) in &agent.slots {
            if slot.lease == LeaseState::Over {
                index.revocations.insert((id.clone(), *at));
            }
        }
        if agent.is_dismissal_due || agent.replaced.is_some() {
            index.dismissals.insert(id.clone());
        } else {
            index.dismissals.remove(id);
        }
        if matches!(agent.status, AgentStatus::Left | AgentStatus::Lost) {
            index.gone.insert((agent.since_ms, id.clone()));
        }
    }
}

fn subtract<K: Ord>(map: &mut BTreeMap<K, u64>, key: &K, by: u64) {
    if let Some(n) = map.get_mut(key) {
        *n = n.saturating_sub(by);
        if *n == 0 {
            map.remove(key);
        }
    }
}
