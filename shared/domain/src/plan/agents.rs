//! Agents with free slots, most free first.

use std::collections::BTreeSet;

use conductor_protocol::ids::AgentId;

use super::Overlay;
use crate::fold::is_capable;
use crate::state::{Phase, State, Task};

/// Agents with free slots during one planning.
pub(super) struct FreeAgents<'s> {
    by_free: BTreeSet<(u32, &'s AgentId)>,
}

impl<'s> FreeAgents<'s> {
    pub(super) fn of(state: &'s State, overlay: &Overlay) -> Self {
        let mut by_free = BTreeSet::new();
        for (id, agent) in &state.agents {
            if !agent.takes_work() {
                continue;
            }
            let in_flight = overlay.slots.get(id).copied().unwrap_or(0);
            let used = agent.slots_used().saturating_add(in_flight);
            let free = agent.joined.slots.saturating_sub(used);
            if free > 0 {
                by_free.insert((free, id));
            }
        }
        Self { by_free }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_free.is_empty()
    }

    /// Takes the slots `task` costs from the freest agent that can run it.
    pub(super) fn take(&mut self, state: &State, task: &Task) -> Option<(AgentId, u64)> {
        let cost = task.spec.slots;
        let found = self.by_free.iter().rev().copied().find_map(|(free, id)| {
            let agent = state.agents.get(id)?;
            (free >= cost && is_capable(agent, task)).then_some((free, id, agent.incarnation))
        });
        let Some((free, id, incarnation)) = found else {
            self.reserve(state, task);
            return None;
        };
        self.by_free.remove(&(free, id));
        if free > cost {
            self.by_free.insert((free - cost, id));
        }
        Some((id.clone(), incarnation))
    }

    /// Keeps the freest capable agent that is large enough, but too busy now, from
    /// being filled up with smaller tasks, once the large one has waited its time.
    fn reserve(&mut self, state: &State, task: &Task) {
        let Phase::Ready { since_ms, .. } = task.phase else {
            return;
        };
        if state.time_ms.saturating_sub(since_ms) < state.config.aging_ms {
            return;
        }
        let candidate = self.by_free.iter().rev().copied().find(|(_, id)| {
            state
                .agents
                .get(*id)
                .is_some_and(|a| a.joined.slots >= task.spec.slots && is_capable(a, task))
        });
        if let Some(reserved) = candidate {
            self.by_free.remove(&reserved);
        }
    }
}
