//! Agents with free slots, those with most room first.

use std::collections::btree_set::Iter;
use std::collections::{BTreeMap, BTreeSet};
use std::iter::{Peekable, Rev};

use conductor_protocol::ids::AgentId;

use super::Overlay;
use crate::fold::is_capable;
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
    /// How many of the others may be opened, each counted by its [`weight`].
    may_open: usize,
}

/// Most that an agent of many slots counts for among those that may be told something at
/// once. As many as the scheduler's appends in flight: one such agent is enough.
const WEIGHT_MAX: u32 = 16;

/// What an agent counts for among those that may be told something at once: one that is given
/// much at a time as many as could be given as much one by one.
fn weight(agent: &Agent) -> usize {
    agent.room_step().min(WEIGHT_MAX) as usize
}

impl<'s> FreeAgents<'s> {
    /// Words are in flight to at most `agents_max` agents at once, and to fewer that have many
    /// slots: while they are, what is ready gathers, so that each is told much at a time.
    pub(super) fn of(state: &'s State, overlay: &Overlay, agents_max: usize) -> Self {
        let told = overlay.told.keys().filter_map(|id| state.agents.get(id));
        let told: usize = told.map(weight).sum();
        let mut free = Self {
            state,
            opened: BTreeSet::new(),
            left: BTreeMap::new(),
            rest: state.index.free.iter().rev().peekable(),
            may_open: agents_max.saturating_sub(told),
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

    /// All that may be planned for, most room first.
    fn candidates(&self) -> impl Iterator<Item = Room<'s>> + '_ {
        let mut opened = self.opened.iter().rev().copied().peekable();
        let mut rest = (self.may_open > 0).then(|| {
            let rest = self.rest.clone().map(|(room, id)| (*room, id));
            let rest = rest.filter(|(_, id)| !self.left.contains_key(id));
            rest.peekable()
        });
        std::iter::from_fn(move || {
            let other = rest.as_mut().and_then(|r| r.peek().copied());
            match (opened.peek().copied(), other) {
                (Some(a), Some(b)) if b > a => rest.as_mut()?.next(),
                (Some(_), _) => opened.next(),
                (None, _) => rest.as_mut()?.next(),
            }
        })
    }

    /// Takes the slots `task` costs from the agent with most room that can run it.
    pub(super) fn take(&mut self, task: &Task) -> Option<(AgentId, u64)> {
        let cost = task.spec.slots;
        let mut roomy = self.candidates().take_while(|(room, _)| *room >= cost);
        let found = roomy.find_map(|(room, id)| {
            let agent = self.state.agents.get(id)?;
            let left = self.left.get(id).copied();
            let left = left
                .unwrap_or_else(|| agent.slots_free())
                .checked_sub(cost)?;
            is_capable(agent, task).then_some((room, id, agent, left))
        });
        drop(roomy);
        let Some((room, id, agent, left)) = found else {
            self.reserve(task);
            return None;
        };
        if !self.opened.remove(&(room, id)) {
            self.may_open = self.may_open.saturating_sub(weight(agent));
        }
        self.put(agent, left, id);
        Some((id.clone(), agent.incarnation))
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
        let candidate = self.candidates().find(|(_, id)| {
            let agent = self.state.agents.get(*id);
            agent.is_some_and(|a| a.joined.slots >= task.spec.slots && is_capable(a, task))
        });
        if let Some((room, id)) = candidate {
            self.opened.remove(&(room, id));
            self.left.insert(id, 0);
        }
    }
}
