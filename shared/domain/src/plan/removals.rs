//! Which agents are to be told that a named workspace of theirs is to go.

use conductor_protocol::event::{Event, WorkspaceDropped};
use conductor_protocol::ids::AgentId;

use super::{Overlay, Told};
use crate::planted::{Bug, is_planted};
use crate::state::State;

/// Workspaces that somebody wants removed, and whose agents, as they are now, were not told so.
/// Those of agents that are gone wait for them. Noted in the overlay.
pub fn removals(state: &State, overlay: &mut Overlay, max: usize) -> Vec<(AgentId, Event)> {
    let mut out = Vec::new();
    for key in &state.index.removals {
        if out.len() >= max || is_planted(Bug::RemovalForgotten) {
            break;
        }
        let Some(workspace) = state.workspaces.get(key) else {
            continue;
        };
        let agent = state.agents.get(&workspace.agent);
        let Some(agent) = agent.filter(|a| a.status.is_there()) else {
            continue;
        };
        let untold = |r: &&crate::state::Removal| r.told != Some(agent.incarnation);
        let Some(removal) = workspace.removal.as_ref().filter(untold) else {
            continue;
        };
        let told = Told::Dropped(removal.control, agent.incarnation);
        if overlay.said.insert((workspace.agent.clone(), told)) {
            let dropped = WorkspaceDropped {
                namespace: key.0.clone(),
                name: key.1.clone(),
                incarnation: agent.incarnation,
                control: removal.control,
            };
            out.push((workspace.agent.clone(), dropped.into()));
        }
    }
    out
}
