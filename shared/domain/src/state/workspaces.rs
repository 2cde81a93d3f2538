//! Named workspaces: which agent holds each, and which task works in it.
//!
//! The files are on that agent's disk, so whatever goes on in a workspace runs there, one task
//! at a time.
//!
//! A removal goes a way of its own: somebody asks for it (control), the scheduler tells the agent
//! that has the workspace, each incarnation once, and the agent says that it is gone. Nobody enters
//! it meanwhile, so nothing is removed that came after the asking.

use conductor_protocol::event::{WorkspaceDropped, WorkspaceRemoved};
use conductor_protocol::ids::{AgentId, Namespace, Position};
use conductor_protocol::{TaskId, UnixMs};
use serde::{Deserialize, Serialize};

use super::{Agent, State, Task};
use crate::fold::{Ruling, is_capable};
use crate::planted::{Bug, is_planted};
use crate::void::VoidReason;

/// The format that workspaces came with.
pub(crate) const FORMAT: u32 = 2;
/// How long it is remembered where a workspace is that nobody works in.
pub(crate) const KEPT_MS: u64 = 30 * 24 * 3_600_000;
/// Of how many workspaces that is remembered.
pub(crate) const WORKSPACES_MAX: usize = 10_000;
/// How many may be on their way out at once: the scheduler looks at all of them.
const REMOVALS_MAX: usize = 1_000;

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
    /// Whether it holds work that is nowhere else, as far as is known: a task that enters it may
    /// make some, and its agent says afterwards whether it did.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unpushed: bool,
    /// Its removal, where somebody asked for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub removal: Option<Removal>,
}

/// The removal of a workspace that somebody asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removal {
    /// Where that was asked for.
    pub control: Position,
    /// The incarnation of its agent that was told; another is told again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub told: Option<u64>,
}

impl Workspace {
    /// Whether no task may enter it now: another works in it, or it is on its way out.
    pub fn is_taken(&self) -> bool {
        let is_leaving = self.removal.is_some() && !is_planted(Bug::RemovalIgnored);
        self.task.is_some() || is_leaving
    }
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
            unpushed: true,
            removal: None,
        };
        self.workspaces.insert(key, entered);
    }

    /// The agent of a task that works in a workspace says whether that holds work that is nowhere
    /// else.
    pub(crate) fn note_unpushed(&mut self, task: TaskId, unpushed: bool) {
        let key = self.tasks.get(&task).and_then(|t| t.workspace());
        if let Some(workspace) = key.and_then(|key| self.workspaces.get_mut(&key))
            && workspace.task == Some(task)
        {
            workspace.unpushed = unpushed;
        }
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

    /// Whether it may be forgotten who has a workspace: nobody works in it, and its agent is not
    /// about to remove it. That agent could otherwise remove what the next task makes there.
    pub(crate) fn may_release(&self, key: &WorkspaceKey) -> Ruling {
        let is_kept = |w: &Workspace| {
            let agent = self.agents.get(&w.agent);
            let is_there = agent.is_some_and(|a| a.status.is_there());
            w.task.is_some() || w.removal.is_some() && is_there
        };
        if self.workspaces.get(key).is_some_and(is_kept) {
            return Err(VoidReason::WorkspaceBusy);
        }
        Ok(())
    }

    /// Forgets who has a workspace that nobody works in; whether there was one.
    pub(crate) fn release_workspace(&mut self, key: &WorkspaceKey) -> bool {
        self.leave_index(key);
        self.workspaces.remove(key).is_some()
    }

    /// Somebody asks for the removal of a workspace. Work that is nowhere else is given up by
    /// repeating its name.
    pub(crate) fn ask_removal(
        &mut self,
        at: Position,
        key: &WorkspaceKey,
        discard: Option<&str>,
    ) -> Ruling {
        let is_full = self.index.removals.len() >= REMOVALS_MAX;
        let workspace = self.workspaces.get_mut(key).ok_or(VoidReason::NoChange)?;
        if workspace.task.is_some() {
            return Err(VoidReason::WorkspaceBusy);
        }
        if workspace.removal.is_some() {
            return Err(VoidReason::Duplicate);
        }
        let is_given_up = discard == Some(key.1.as_str()) || is_planted(Bug::UnpushedIgnored);
        if workspace.unpushed && !is_given_up {
            return Err(VoidReason::WorkspaceUnpushed);
        }
        if is_full {
            return Err(VoidReason::NoCapacity);
        }
        let (control, told) = (at, None);
        workspace.removal = Some(Removal { control, told });
        self.index.removals.insert(key.clone());
        Ok(())
    }

    /// `workspace.dropped`: the agent that has it hears that it is to go.
    pub(crate) fn workspace_dropped(&mut self, agent: &AgentId, e: &WorkspaceDropped) -> Ruling {
        let a = self.agents.get(agent).ok_or(VoidReason::UnknownAgent)?;
        if a.incarnation != e.incarnation {
            return Err(VoidReason::StaleIncarnation);
        }
        let key = (e.namespace.clone(), e.name.clone());
        let removal = self.removal_of(agent, &key, e.control)?;
        if removal.told == Some(e.incarnation) {
            return Err(VoidReason::Duplicate);
        }
        removal.told = Some(e.incarnation);
        Ok(())
    }

    /// `workspace.removed`: it is gone, and the next task in it begins anew, wherever it runs.
    pub(crate) fn workspace_removed(&mut self, agent: &AgentId, e: &WorkspaceRemoved) -> Ruling {
        let key = (e.namespace.clone(), e.name.clone());
        let incarnation = self.agents.get(agent).map(|a| a.incarnation);
        let removal = self.removal_of(agent, &key, e.control)?;
        if removal.told.is_none() || removal.told != incarnation {
            return Err(VoidReason::NotRequested);
        }
        self.release_workspace(&key);
        Ok(())
    }

    /// The removal that was asked for there, of a workspace that this agent has.
    fn removal_of(
        &mut self,
        agent: &AgentId,
        key: &WorkspaceKey,
        control: Position,
    ) -> Result<&mut Removal, VoidReason> {
        let workspace = self.workspaces.get_mut(key);
        let of_agent = workspace.filter(|w| w.agent == *agent);
        let removal = of_agent.and_then(|w| w.removal.as_mut());
        removal
            .filter(|r| r.control == control)
            .ok_or(VoidReason::NotRequested)
    }

    fn leave_index(&mut self, key: &WorkspaceKey) {
        self.index.removals.remove(key);
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
