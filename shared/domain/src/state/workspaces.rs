//! Named workspaces: which agent holds each, and which task works in it.
//!
//! The files are on that agent's disk, so whatever goes on in a workspace runs there, one task
//! at a time.

use conductor_protocol::ids::{AgentId, Namespace};
use conductor_protocol::{TaskId, UnixMs};
use serde::{Deserialize, Serialize};

use super::{Agent, State, Task};
use crate::fold::is_capable;
use crate::planted::{Bug, is_planted};

/// The format that workspaces came with.
pub(crate) const FORMAT: u32 = 2;
/// How long it is remembered where a workspace is that nobody works in.
pub(crate) const KEPT_MS: u64 = 30 * 24 * 3_600_000;
/// Of how many workspaces that is remembered.
pub(crate) const WORKSPACES_MAX: usize = 10_000;

/// The name of a workspace within the cell.
pub type WorkspaceKey = (Namespace, String);

/// Where a workspace is, and who works in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Workspace {
    /// The agent that has it.
    pub agent: AgentId,
    /// The task that works in it now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<TaskId>,
    /// When that last changed.
    pub since_ms: UnixMs,
}

impl Task {
    /// The named workspace it works in.
    pub fn workspace(&self) -> Option<WorkspaceKey> {
        let terms = self.spec.terms.as_deref()?;
        let name = terms.workspace.as_ref()?.name.clone()?;
        Some((self.spec.namespace.clone(), name))
    }
}

impl State {
    /// The workspace a task works in, where it is known who has it.
    pub fn workspace_of(&self, task: &Task) -> Option<&Workspace> {
        if self.workspaces.is_empty() {
            return None;
        }
        self.workspaces.get(&task.workspace()?)
    }

    /// Whether an agent may run a task at all: it is capable, and has the task's workspace if
    /// anybody has.
    pub(crate) fn may_run(&self, id: &AgentId, agent: &Agent, task: &Task) -> bool {
        let held = self
            .workspace_of(task)
            .filter(|_| !is_planted(Bug::WorkspaceAnywhere));
        is_capable(agent, task) && held.is_none_or(|w| w.agent == *id)
    }

    /// A task works in its workspace from now on.
    pub(crate) fn enter_workspace(&mut self, key: WorkspaceKey, agent: &AgentId, task: TaskId) {
        self.leave_index(&key);
        let entered = Workspace {
            agent: agent.clone(),
            task: Some(task),
            since_ms: self.time_ms,
        };
        self.workspaces.insert(key, entered);
    }

    /// A task works in it no longer.
    pub(crate) fn leave_workspace(&mut self, key: &WorkspaceKey, task: TaskId) {
        let now = self.time_ms;
        if let Some(workspace) = self.workspaces.get_mut(key)
            && workspace.task == Some(task)
        {
            workspace.task = None;
            workspace.since_ms = now;
            self.index.workspaces.insert((now, key.clone()));
        }
    }

    /// Forgets who has a workspace that nobody works in; whether there was one.
    pub(crate) fn release_workspace(&mut self, key: &WorkspaceKey) -> bool {
        self.leave_index(key);
        self.workspaces.remove(key).is_some()
    }

    fn leave_index(&mut self, key: &WorkspaceKey) {
        if let Some(workspace) = self.workspaces.get(key) {
            self.index
                .workspaces
                .remove(&(workspace.since_ms, key.clone()));
        }
    }

    /// Forgets workspaces that nobody has worked in for long.
    pub(crate) fn expire_workspaces(&mut self) {
        while let Some((since_ms, key)) = self.index.workspaces.first() {
            let is_old = since_ms.saturating_add(KEPT_MS) < self.time_ms;
            if !is_old && self.index.workspaces.len() <= WORKSPACES_MAX {
                break;
            }
            let key = key.clone();
            self.release_workspace(&key);
        }
    }
}
