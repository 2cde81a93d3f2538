//! What is derived from the state so that nothing has to be searched for.
//!
//! Kept up to date by [`State::change_task`] and its like, and rebuilt
//! whole from a snapshot; a test compares the two.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use conductor_protocol::compact::Pairs;
use conductor_protocol::ids::{AgentId, Namespace, Position, QueueName};
use conductor_protocol::spec::Runtime;
use conductor_protocol::terms::{Level, Reach, SandboxKind, Terms};
use conductor_protocol::{TaskId, UnixMs};

use super::{Agent, AgentStatus, LeaseState, Phase, State, Task, WorkspaceKey};
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
    pub key_expiry: BTreeSet<(UnixMs, Namespace, Arc<str>)>,
    /// Agents that may be assigned something, by their room.
    pub free: BTreeSet<(u32, AgentId)>,
    /// Named workspaces that nobody works in, longest left first.
    pub workspaces: BTreeSet<(UnixMs, WorkspaceKey)>,
    /// Named workspaces that are on their way out.
    pub removals: BTreeSet<WorkspaceKey>,
    /// Leases that are over and whose agents are to be told.
    pub revocations: BTreeSet<(AgentId, Position)>,
    /// Tasks whose attempts wait for people to answer.
    pub asking: BTreeSet<TaskId>,
    /// Tasks whose attempts are to be told something people said.
    pub to_tell: BTreeSet<TaskId>,
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
    pub labels: Pairs,
    /// Concurrency key and limit.
    pub key: Option<(String, u32)>,
    /// Slots required of the agent: a task too large for any must hold up no smaller one.
    pub slots: u32,
    /// What the sandbox has to be.
    pub sandbox: Sandbox,
    /// The named workspace required.
    pub workspace: Option<WorkspaceKey>,
}

/// What a task's sandbox has to be, as far as agents differ in that.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sandbox {
    /// Which one.
    pub kind: Option<SandboxKind>,
    /// What it has to promise.
    pub level: Option<Level>,
    /// How far its network has to go.
    pub reach: Option<Reach>,
}

impl Sandbox {
    fn of(task: &Task) -> Self {
        let terms = task.spec.terms.as_deref();
        Self {
            kind: terms.and_then(Terms::sandbox_kind),
            level: terms.and_then(Terms::level),
            reach: terms.map(Terms::reach).filter(|r| *r != Reach::None),
        }
    }
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
        let (sandbox, workspace) = (Sandbox::of(task), task.workspace());
        let is_special = !spec.labels.is_empty()
            || spec.concurrency.is_some()
            || spec.slots != 1
            || sandbox != Sandbox::default()
            || workspace.is_some();
        Self {
            namespace: spec.namespace.clone(),
            queue: spec.queue.clone(),
            runtime: spec.runtime,
            special: is_special.then(|| {
                Box::new(Special {
                    labels: spec.labels.clone(),
                    key: spec.concurrency.as_ref().map(|c| (c.key.clone(), c.limit)),
                    slots: spec.slots,
                    sandbox,
                    workspace,
                })
            }),
        }
    }
}

impl Lane {
    /// The named workspace that its tasks work in.
    pub fn workspace(&self) -> Option<&WorkspaceKey> {
        self.special.as_ref()?.workspace.as_ref()
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

/// Where a task stands in the index: a function of the task.
#[derive(Clone, Copy, Default, PartialEq)]
struct Places {
    wake: Option<UnixMs>,
    ready: Option<ReadyKey>,
    waits: bool,
    slots: u32,
    ended: Option<UnixMs>,
    asks: bool,
    has_words: bool,
}

impl Places {
    fn of(id: TaskId, task: &Task, aging_ms: u64) -> Self {
        Self {
            wake: due::next(task).map(|(at, _)| at),
            ready: ready_key(id, task, aging_ms),
            waits: task.is_waiting(),
            slots: task.assigned().map_or(0, |_| task.spec.slots),
            ended: match &task.phase {
                Phase::Ended(e) => Some(e.at_ms),
                _ => None,
            },
            asks: task.is_asking(),
            has_words: task.has_words(),
        }
    }
}

impl Index {
    fn moved_free(&mut self, id: &AgentId, from: u32, to: u32) {
        if from == to {
            return;
        }
        self.free.remove(&(from, id.clone()));
        if to > 0 {
            self.free.insert((to, id.clone()));
        }
    }

    /// Moves a task from where it stood to where it stands: only what differs is touched.
    fn moved(&mut self, id: TaskId, task: &Task, from: Places, to: Places) {
        let spec = &task.spec;
        moved(&mut self.agenda, from.wake, to.wake, id);
        moved(&mut self.ended, from.ended, to.ended, id);
        if from.ready != to.ready {
            self.moved_ready(task, from.ready, to.ready);
        }
        mark(&mut self.asking, id, from.asks, to.asks);
        mark(&mut self.to_tell, id, from.has_words, to.has_words);
        match (from.waits, to.waits) {
            (true, false) => subtract(&mut self.backlog, &spec.queue, 1),
            (false, true) => add(&mut self.backlog, &spec.queue, 1),
            _ => {}
        }
        if from.slots != to.slots {
            let queues = if let Some(queues) = self.load.get_mut(&spec.namespace) {
                queues
            } else {
                self.load.entry(spec.namespace.clone()).or_default()
            };
            add(queues, &spec.queue, u64::from(to.slots));
            subtract(queues, &spec.queue, u64::from(from.slots));
            if queues.is_empty() {
                self.load.remove(&spec.namespace);
            }
        }
    }

    fn moved_ready(&mut self, task: &Task, from: Option<ReadyKey>, to: Option<ReadyKey>) {
        let lane = Lane::of(task);
        if let Some(key) = to {
            let set = if let Some(set) = self.ready.get_mut(&lane) {
                set
            } else {
                self.ready.entry(lane.clone()).or_default()
            };
            set.insert(key);
        }
        if let Some(key) = from
            && let Some(set) = self.ready.get_mut(&lane)
        {
            set.remove(&key);
            if set.is_empty() {
                self.ready.remove(&lane);
            }
        }
    }
}

fn mark(set: &mut BTreeSet<TaskId>, id: TaskId, from: bool, to: bool) {
    match (from, to) {
        (false, true) => {
            set.insert(id);
        }
        (true, false) => {
            set.remove(&id);
        }
        _ => {}
    }
}

fn moved(
    set: &mut BTreeSet<(UnixMs, TaskId)>,
    from: Option<UnixMs>,
    to: Option<UnixMs>,
    id: TaskId,
) {
    if from == to {
        return;
    }
    if let Some(at) = from {
        set.remove(&(at, id));
    }
    if let Some(at) = to {
        set.insert((at, id));
    }
}

impl State {
    /// Adds a task, with everything that is derived from it.
    pub(crate) fn insert_task(&mut self, id: TaskId, task: Task) {
        let to = Places::of(id, &task, self.config.aging_ms);
        self.index.moved(id, &task, Places::default(), to);
        self.tasks.insert(id, Box::new(task));
    }

    /// Changes a task, with everything that is derived from it; `None` if there is none.
    pub(crate) fn change_task<T>(
        &mut self,
        id: TaskId,
        change: impl FnOnce(&mut Task) -> T,
    ) -> Option<T> {
        let task = self.tasks.get_mut(&id)?;
        let from = Places::of(id, task, self.config.aging_ms);
        let changed = change(task);
        let to = Places::of(id, task, self.config.aging_ms);
        self.index.moved(id, task, from, to);
        Some(changed)
    }

    /// Removes a task, with everything that is derived from it.
    pub(crate) fn remove_task(&mut self, id: TaskId) -> Option<Box<Task>> {
        let task = self.tasks.remove(&id)?;
        let from = Places::of(id, &task, self.config.aging_ms);
        self.index.moved(id, &task, from, Places::default());
        Some(task)
    }

    /// Changes an agent, with the index of its room.
    pub(crate) fn change_agent<T>(
        &mut self,
        id: &AgentId,
        change: impl FnOnce(&mut Agent) -> T,
    ) -> Option<T> {
        let agent = self.agents.get_mut(id)?;
        let from = agent.room(agent.slots_free());
        let changed = change(agent);
        let to = agent.room(agent.slots_free());
        self.index.moved_free(id, from, to);
        Some(changed)
    }

    /// Derives everything anew.
    pub(crate) fn rebuild_index(&mut self) {
        self.index = Index::default();
        for (id, task) in &self.tasks {
            let mut to = Places::of(*id, task, self.config.aging_ms);
            to.wake = to.wake.filter(|_| !is_planted(Bug::TimerLostOnRestart));
            self.index.moved(*id, task, Places::default(), to);
            if is_planted(Bug::NeedsLostOnRestart) {
                continue;
            }
            for need in &task.aside.open_needs {
                self.index.dependents.entry(*need).or_default().insert(*id);
            }
        }
        for (key, workspace) in &self.workspaces {
            if workspace.task.is_none() {
                let at = (workspace.since_ms, key.clone());
                self.index.workspaces.insert(at);
            }
            if workspace.removal.is_some() {
                self.index.removals.insert(key.clone());
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

    /// Puts an agent's dues into the index; call after changing them.
    pub(crate) fn reindex_agent(&mut self, id: &AgentId) {
        let Some(agent) = self.agents.get(id) else {
            return;
        };
        let index = &mut self.index;
        index.moved_free(id, 0, agent.room(agent.slots_free()));
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

fn add<K: Ord + Clone>(map: &mut BTreeMap<K, u64>, key: &K, by: u64) {
    if by == 0 {
        return;
    }
    match map.get_mut(key) {
        Some(n) => *n += by,
        None => {
            map.insert(key.clone(), by);
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
