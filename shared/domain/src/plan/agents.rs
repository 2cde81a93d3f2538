//! Agents with free slots, those with most room first.

use std::collections::btree_set::Iter;
use std::collections::{BTreeMap, BTreeSet};
use std::iter::{Peekable, Rev};

use conductor_protocol::ids::AgentId;

use super::Overlay;
use crate::state::{Agent, Phase, State, Task};

/// An agent and its room.
type Room<'s> = (u32, &'s AgentId);

/// Agents with free slots during one planning.
pub(super) struct FreeAgents<'s> {
    state: &'s State,
    /// Agents to whom something is in flight, or was planned just now.
    opened: BTreeSet<Room<'s>>,
    /// How many of their slots are left.
    left: BTreeMap<&'s AgentId, u32>,
    /// The others, in the order of the index.
    rest: Peekable<Rev<Iter<'s, (u32, AgentId)>>>,
    /// How many of the others may be opened.
    may_open: usize,
    /// How many of them are as good as those that are open, each counted by its [`weight`].
    may_open_gladly: usize,
}

/// An agent that can run a task.
struct Found<'s> {
    room: u32,
    id: &'s AgentId,
    agent: &'s Agent,
    /// Slots that are left when it does.
    left: u32,
}

/// How many steps of room an agent must be better by than those that are open, once enough of
/// them are: what is in flight to an agent never ends while there is always something for it,
/// and must not keep the others from work.
const STEPS_BETTER: u32 = 2;

/// What an agent counts for among those that are told something at once: one that is given much
/// at a time counts for as many as would be given as much one by one.
fn weight(agent: &Agent) -> usize {
    agent.room_step() as usize
}

impl<'s> FreeAgents<'s> {
    /// Words are in flight to at most `agents_max` agents at once, and if possible to fewer that
    /// have many slots: while they are, what is ready gathers, so that each is told much at a
    /// time.
    pub(super) fn of(state: &'s State, overlay: &Overlay, agents_max: usize) -> Self {
        let told = overlay.told.keys().filter_map(|id| state.agents.get(id));
        let told: usize = told.map(weight).sum();
        let mut free = Self {
            state,
            opened: BTreeSet::new(),
            left: BTreeMap::new(),
            rest: state.index.free.iter().rev().peekable(),
            may_open: agents_max.saturating_sub(overlay.told.len()),
            may_open_gladly: agents_max.saturating_sub(told),
        };
        for (id, in_flight) in &overlay.slots {
            let Some((id, agent)) = state.agents.get_key_value(id) else {
                continue;
            };
            free.put(agent, agent.slots_free().saturating_sub(*in_flight), id);
        }
        free
    }

    fn put(&mut self, agent: &Agent, left: u32, id: &'s AgentId) {
        self.left.insert(id, left);
        if left > 0 {
            self.opened.insert((agent.room(left), id));
        }
    }

    pub(super) fn is_empty(&mut self) -> bool {
        self.skip_opened();
        self.opened.is_empty() && (self.may_open == 0 || self.rest.peek().is_none())
    }

    fn skip_opened(&mut self) {
        let left = &self.left;
        while (self.rest)
            .next_if(|(_, id)| left.contains_key(id))
            .is_some()
        {}
    }

    /// Those that are open, most room first.
    fn opened(&self) -> impl Iterator<Item = Room<'s>> + '_ {
        self.opened.iter().rev().copied()
    }

    /// Those that may be opened, most room first.
    fn others(&self) -> impl Iterator<Item = Room<'s>> + '_ {
        let all = (self.may_open > 0).then(|| self.rest.clone());
        let all = all.into_iter().flatten().map(|(room, id)| (*room, id));
        all.filter(|(_, id)| !self.left.contains_key(id))
    }

    /// The first that can run `task`.
    fn first(&self, agents: impl Iterator<Item = Room<'s>>, task: &Task) -> Option<Found<'s>> {
        let cost = task.spec.slots;
        let mut roomy = agents.take_while(|(room, _)| *room >= cost);
        roomy.find_map(|(room, id)| {
            let agent = self.state.agents.get(id)?;
            let left = self.left.get(id).copied();
            let left = left
                .unwrap_or_else(|| agent.slots_free())
                .checked_sub(cost)?;
            let found = Found {
                room,
                id,
                agent,
                left,
            };
            self.state.may_run(id, agent, task).then_some(found)
        })
    }

    /// Whether an agent that is not open is to be opened rather than one that is.
    fn is_better(&self, other: &Found<'_>, opened: &Found<'_>) -> bool {
        let by = if self.may_open_gladly > 0 {
            0
        } else {
            other.agent.room_step().saturating_mul(STEPS_BETTER)
        };
        other.room > opened.room.saturating_add(by)
    }

    /// Takes the slots `task` costs from the agent with most room that can run it.
    pub(super) fn take(&mut self, task: &Task) -> Option<(AgentId, u64)> {
        let found = match self.keeper(task) {
            Some(keeper) => Some(keeper),
            None => self.best(task),
        };
        let Some(found) = found else {
            self.reserve(task);
            return None;
        };
        if !self.opened.remove(&(found.room, found.id)) {
            self.may_open = self.may_open.saturating_sub(1);
            let weight = weight(found.agent);
            self.may_open_gladly = self.may_open_gladly.saturating_sub(weight);
        }
        self.put(found.agent, found.left, found.id);
        Some((found.id.clone(), found.agent.incarnation))
    }

    /// The agent that has the session in which the task goes on, if it can take it now.
    fn keeper(&self, task: &Task) -> Option<Found<'s>> {
        let session = task.session_to_resume()?;
        let (id, agent) = self.state.agents.get_key_value(&session.agent)?;
        let left = self.left.get(id).copied();
        if left.is_none() && self.may_open == 0 {
            return None;
        }
        let free = left.unwrap_or_else(|| agent.slots_free());
        let found = Found {
            room: agent.room(free),
            id,
            agent,
            left: free.checked_sub(task.spec.slots)?,
        };
        self.state.may_run(id, agent, task).then_some(found)
    }

    /// The agent with most room that can run a task.
    fn best(&self, task: &Task) -> Option<Found<'s>> {
        let opened = self.first(self.opened(), task);
        let other = self.first(self.others(), task);
        match (opened, other) {
            (Some(opened), Some(other)) if self.is_better(&other, &opened) => Some(other),
            (opened, other) => opened.or(other),
        }
    }

    /// Keeps the capable agent with most room that is large enough, but too busy now, from
    /// being filled up with smaller tasks, once the large one has waited its time.
    fn reserve(&mut self, task: &Task) {
        let Phase::Ready { since_ms, .. } = task.phase else {
            return;
        };
        let waited = self.state.time_ms.saturating_sub(since_ms);
        if waited < self.state.config.aging_ms {
            return;
        }
        let is_large = |(_, id): &Room<'_>| {
            let agent = self.state.agents.get(*id);
            let is_large = |a: &Agent| a.joined.slots >= task.spec.slots;
            agent.is_some_and(|a| is_large(a) && self.state.may_run(id, a, task))
        };
        let opened = self.opened().find(is_large);
        let candidate = self.others().find(is_large).max(opened);
        if let Some((room, id)) = candidate {
            self.opened.remove(&(room, id));
            self.left.insert(id, 0);
        }
    }
}
