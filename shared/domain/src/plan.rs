//! What the leading scheduler decides: which agent runs what, now.
//!
//! Fairness comes first: among namespaces, then among the queues of one, whoever uses
//! the smallest share of slots for its weight is next. Within a queue the rank decides:
//! priority, made up for by waiting. Planning twice changes nothing, because what was
//! planned stands in the overlay until it comes back in the tail.

mod agents;
mod lanes;
mod removals;
mod words;

use std::collections::{BTreeMap, BTreeSet};

use conductor_protocol::event::{AgentDismissed, AttemptRevoked, Event, RevokeReason};
use conductor_protocol::ids::{AgentId, Lease, Namespace, Position, QueueName};
use conductor_protocol::{TaskId, UnixMs};

use crate::planted::{Bug, is_planted};
use crate::state::index::{Lane, ReadyKey};
use crate::state::{LeaseState, Outcome, State, WorkspaceKey};
use agents::FreeAgents;
use lanes::Lanes;
pub use removals::removals;
pub use words::{Telling, words};

/// An attempt that an agent shall run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// The task.
    pub task: TaskId,
    /// Which try.
    pub attempt: u32,
    /// The agent.
    pub agent: AgentId,
    /// The agent's incarnation.
    pub incarnation: u64,
}

/// What the scheduler has in flight: appended, but not seen in the tail yet.
#[derive(Clone, Debug, Default)]
pub struct Overlay {
    tasks: BTreeMap<TaskId, Claim>,
    slots: BTreeMap<AgentId, u32>,
    /// How many assignments are on their way to each agent. Those for which records are to be read
    /// first do not count: should it be lost, they must not keep others waiting.
    told: BTreeMap<AgentId, u32>,
    keys: BTreeMap<String, u32>,
    /// Named workspaces that tasks are on their way into.
    workspaces: BTreeSet<WorkspaceKey>,
    load: BTreeMap<Namespace, BTreeMap<QueueName, u64>>,
    /// The tasks in flight as they stand in the index of the ready.
    ready: BTreeMap<Lane, BTreeSet<ReadyKey>>,
    said: BTreeSet<(AgentId, Told)>,
}

/// What an agent is told besides assignments.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Told {
    /// That this lease is over.
    Revoked(Position),
    /// That this incarnation is over, and whether another process replaced it.
    Dismissed(u64, bool),
    /// What people say to an attempt of its.
    Word(words::WordKey),
    /// That the workspace whose removal was asked for there is to go, as this incarnation.
    Dropped(Position, u64),
}

/// What an assignment in flight takes.
#[derive(Clone, Debug)]
struct Claim {
    agent: AgentId,
    incarnation: u64,
    attempt: u32,
    cost: u32,
    key: Option<String>,
    lane: Lane,
    ready: ReadyKey,
    has_body: bool,
}

impl Overlay {
    /// Notes that a decision of ours came back in the tail, whatever became of it. An
    /// earlier one about the same task or agent may come back once more, when an append was
    /// repeated after the log had forgotten it: it says nothing of what is in flight now.
    pub fn on_folded(&mut self, agent: &AgentId, event: &Event) {
        match event {
            Event::AttemptAssigned(e) => {
                let is_it = self.tasks.get(&e.task).is_some_and(|claim| {
                    claim.agent == *agent
                        && claim.attempt == e.attempt
                        && claim.incarnation == e.incarnation
                });
                if is_it {
                    self.release(e.task);
                }
            }
            Event::AttemptRevoked(e) => {
                let told = Told::Revoked(e.lease.assigned);
                self.said.remove(&(agent.clone(), told));
            }
            Event::AttemptTold(e) => {
                let told = Told::Word(words::key(&e.lease, &e.word));
                self.said.remove(&(agent.clone(), told));
            }
            Event::WorkspaceDropped(e) => {
                let told = Told::Dropped(e.control, e.incarnation);
                self.said.remove(&(agent.clone(), told));
            }
            Event::AgentDismissed(e) => {
                let told = Told::Dismissed(e.incarnation, e.replaced);
                self.said.remove(&(agent.clone(), told));
            }
            _ => {}
        }
    }

    fn release(&mut self, task: TaskId) {
        let Some(claim) = self.tasks.remove(&task) else {
            return;
        };
        give_back(&mut self.slots, &claim.agent, claim.cost);
        if claim.has_body {
            give_back(&mut self.told, &claim.agent, 1);
        }
        if let Some(n) = claim.key.and_then(|k| self.keys.get_mut(&k)) {
            *n = n.saturating_sub(1);
        }
        if let Some(workspace) = claim.lane.workspace() {
            self.workspaces.remove(workspace);
        }
        let queues = self.load.get_mut(&claim.lane.namespace);
        if let Some(n) = queues.and_then(|q| q.get_mut(&claim.lane.queue)) {
            *n = n.saturating_sub(u64::from(claim.cost));
        }
        if let Some(keys) = self.ready.get_mut(&claim.lane) {
            keys.remove(&claim.ready);
            if keys.is_empty() {
                self.ready.remove(&claim.lane);
            }
        }
    }

    fn claim(&mut self, task: TaskId, claim: Claim) {
        take(&mut self.slots, &claim.agent, claim.cost);
        if claim.has_body {
            take(&mut self.told, &claim.agent, 1);
        }
        if let Some(key) = &claim.key {
            *self.keys.entry(key.clone()).or_default() += 1;
        }
        if let Some(workspace) = claim.lane.workspace() {
            self.workspaces.insert(workspace.clone());
        }
        let (namespace, queue) = (&claim.lane.namespace, &claim.lane.queue);
        let queues = self.load.entry(namespace.clone()).or_default();
        *queues.entry(queue.clone()).or_default() += u64::from(claim.cost);
        self.tasks.insert(task, claim);
    }

    /// What was planned stands in the way of planning it again.
    fn note_ready(&mut self, planned: Vec<(Lane, ReadyKey)>) {
        if is_planted(Bug::PlannedWithoutOverlay) {
            self.tasks.clear();
            return;
        }
        for (lane, key) in planned {
            match self.ready.get_mut(&lane) {
                Some(keys) => {
                    keys.insert(key);
                }
                None => {
                    self.ready.insert(lane, BTreeSet::from([key]));
                }
            }
        }
    }

    /// How many assignments are in flight.
    pub fn len(&self) -> usize {
        self.tasks.len()
    }

    /// Whether no assignment is in flight.
    pub fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }
}

fn take(counts: &mut BTreeMap<AgentId, u32>, agent: &AgentId, by: u32) {
    match counts.get_mut(agent) {
        Some(n) => *n += by,
        None => {
            counts.insert(agent.clone(), by);
        }
    }
}

fn give_back(counts: &mut BTreeMap<AgentId, u32>, agent: &AgentId, by: u32) {
    if let Some(n) = counts.get_mut(agent) {
        *n = n.saturating_sub(by);
        if *n == 0 {
            counts.remove(agent);
        }
    }
}

/// How much may be in flight at once.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Assignments.
    pub assignments: usize,
    /// Now, by the server's clock as far as it is known: budgets are by the day.
    pub now_ms: UnixMs,
    /// Agents that are told something: each has a subject of its own, and costs an append. Of
    /// agents with many slots it is fewer where that keeps no task waiting.
    pub agents: usize,
}

/// Plans as many assignments as are due and within bounds, and notes them in the overlay.
pub fn plan(state: &State, overlay: &mut Overlay, bounds: Bounds) -> Vec<Assignment> {
    let mut out = Vec::new();
    let max = bounds.assignments.saturating_sub(overlay.len());
    if state.index.ready.is_empty() || max == 0 {
        return out;
    }
    let mut agents = FreeAgents::of(state, overlay, bounds.agents);
    if agents.is_empty() {
        return out;
    }
    let in_flight = std::mem::take(&mut overlay.ready);
    let mut lanes = Lanes::of(state, overlay, &in_flight, bounds.now_ms);
    let mut planned = Vec::new();
    while out.len() < max && !agents.is_empty() {
        let Some(pick) = lanes.next(state) else { break };
        // Lanes may share a key: one that was free when the planning began may not be now.
        if lanes.is_blocked(state, overlay, pick) {
            lanes.close(pick);
            continue;
        }
        let Some((agent, incarnation)) = agents.take(pick.task) else {
            lanes.close(pick);
            continue;
        };
        let assignment = Assignment {
            task: pick.id(),
            attempt: pick.task.attempts + 1,
            agent,
            incarnation,
        };
        let Some(lane) = lanes.lane(pick) else { break };
        planned.push((lane.clone(), pick.key));
        overlay.claim(
            assignment.task,
            Claim {
                agent: assignment.agent.clone(),
                incarnation,
                attempt: assignment.attempt,
                cost: pick.task.spec.slots,
                key: pick.task.spec.concurrency.as_ref().map(|c| c.key.clone()),
                lane: lane.clone(),
                ready: pick.key,
                has_body: pick.task.spec.run.is_some() && pick.task.spec.needs.is_empty(),
            },
        );
        lanes.taken(state, overlay, pick);
        out.push(assignment);
    }
    overlay.ready = in_flight;
    overlay.note_ready(planned);
    out
}

/// What agents are to be told besides assignments: leases that are over, and that they
/// were declared lost. Noted in the overlay.
pub fn revocations(state: &State, overlay: &mut Overlay, max: usize) -> Vec<(AgentId, Event)> {
    let mut out = Vec::new();
    for (id, position) in &state.index.revocations {
        if out.len() >= max || is_planted(Bug::RevocationForgotten) {
            break;
        }
        let Some(agent) = state.agents.get(id) else {
            continue;
        };
        let Some(slot) = agent.slots.get(position) else {
            continue;
        };
        let told = (id.clone(), Told::Revoked(*position));
        if slot.lease != LeaseState::Over || !overlay.said.insert(told) {
            continue;
        }
        let lease = Lease {
            task: slot.task,
            attempt: slot.attempt,
            assigned: *position,
        };
        let reason = reason(state, lease);
        let incarnation = agent.incarnation;
        out.push((
            id.clone(),
            AttemptRevoked {
                lease,
                incarnation,
                reason,
            }
            .into(),
        ));
    }
    for id in &state.index.dismissals {
        if is_planted(Bug::DismissalForgotten) {
            break;
        }
        let Some(agent) = state.agents.get(id) else {
            continue;
        };
        let incarnation = agent.replaced.unwrap_or(agent.incarnation);
        let replaced = agent.replaced.is_some();
        let told = (id.clone(), Told::Dismissed(incarnation, replaced));
        if overlay.said.insert(told) {
            let dismissed = AgentDismissed {
                incarnation,
                replaced,
            };
            out.push((id.clone(), dismissed.into()));
        }
    }
    out
}

fn reason(state: &State, lease: Lease) -> RevokeReason {
    let Some(task) = state.tasks.get(&lease.task) else {
        return RevokeReason::LeaseOver;
    };
    match task.outcome() {
        Some(Outcome::Cancelled) => RevokeReason::Cancelled,
        Some(Outcome::TimedOut) => RevokeReason::TimedOut,
        Some(_) => RevokeReason::LeaseOver,
        None if task
            .aside
            .last_failure
            .as_ref()
            .is_some_and(|f| f.attempt == lease.attempt) =>
        {
            RevokeReason::TimedOut
        }
        None => RevokeReason::Void,
    }
}
