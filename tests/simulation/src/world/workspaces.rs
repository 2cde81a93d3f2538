//! Named workspaces: what programs leave in them, and who wants them gone.

use conductor_agent::duty::Input;
use conductor_protocol::Control;
use conductor_protocol::event::{AttemptAssigned, AttemptChanged, WorkspaceDropped};
use conductor_protocol::ids::{Lease, Namespace, Position};

use super::{Life, Next, World};
use crate::checkers::{self, Violation};
use crate::ledger::workspace_of;
use crate::scenario::Node;

/// The pause before a removal is tried again.
const PAUSE_MS: u64 = 500;

/// The named workspace that an attempt works in.
pub(super) fn entered(assigned: &AttemptAssigned) -> Option<(Namespace, String)> {
    let workspace = assigned.terms.as_ref()?.workspace.as_ref()?;
    Some((assigned.namespace.clone(), workspace.name.clone()?))
}

impl World {
    /// What a program that ends by itself leaves in its workspace, said before its end.
    pub(super) fn says_what_changed(&mut self, life: Life, at: Position) -> Result<(), Violation> {
        let Node::Agent(n) = life.node else {
            return Ok(());
        };
        let Some(program) = self.agent(n).and_then(|a| a.programs.get(&at)) else {
            return Ok(());
        };
        let (lease, has_workspace) = (program.lease, program.workspace.is_some());
        let mut luck = self.luck(&format!("changed {at}"));
        // Some do not know, and some do not say.
        if !has_workspace || !luck.chance(800) {
            return Ok(());
        }
        let unpushed = luck.chance(900).then(|| luck.chance(400));
        let changed = AttemptChanged {
            lease,
            files: 1,
            insertions: 1,
            deletions: 0,
            patch: None,
            base: None,
            head: None,
            pushed: None,
            unpushed,
        };
        self.tell_agent(life, Input::Fact(changed.into()))
    }

    /// Somebody wants the workspace removed that an attempt worked in.
    pub(super) fn person_tidies(&mut self, lease: Lease) {
        let task = self.referee.ledger.tasks.get(&lease.task);
        let Some((namespace, name)) = task.and_then(|t| workspace_of(&t.spec)) else {
            return;
        };
        let mut luck = self.luck(&format!("tidy {}", lease.assigned));
        if !luck.chance(400) {
            return;
        }
        // Some repeat the name, some another.
        let given_up = luck.chance(300).then(|| name.clone());
        let discard = given_up.or_else(|| luck.chance(100).then(|| "another".to_owned()));
        let said = Control::RemoveWorkspace {
            namespace,
            name,
            discard,
        };
        self.push_in(luck.around(2_000), Next::Person(Box::new(said)));
    }

    /// An agent removes a workspace once no program of its uses it; that ends with the incarnation
    /// that was told.
    pub(super) fn remove_workspace(
        &mut self,
        life: Life,
        dropped: WorkspaceDropped,
    ) -> Result<(), Violation> {
        let Node::Agent(n) = life.node else {
            return Ok(());
        };
        let key = (dropped.namespace.clone(), dropped.name.clone());
        let Some(agent) = self.agent(n) else {
            return Ok(());
        };
        if agent.commit.as_ref().map(|(i, _)| *i) != Some(dropped.incarnation) {
            return Ok(());
        }
        let mut programs = agent.programs.values();
        if programs.any(|p| p.workspace.as_ref() == Some(&key)) {
            self.push_in(PAUSE_MS, Next::Remove(life, Box::new(dropped)));
            return Ok(());
        }
        self.removes_what_was_asked(n, &key, &dropped)?;
        self.say(|| format!("process {n} removes {key:?}"));
        self.tell_agent(life, Input::Removed(dropped))
    }

    /// What an agent removes is the workspace that somebody wanted gone, and not one of that name
    /// that came later.
    fn removes_what_was_asked(
        &self,
        n: usize,
        key: &(Namespace, String),
        dropped: &WorkspaceDropped,
    ) -> Result<(), Violation> {
        let state = &self.referee.state;
        let Some(id) = self.agents.get(n).map(|p| &p.id) else {
            return Ok(());
        };
        let known = state.agents.get(id).map(|a| a.incarnation);
        let held = state.workspaces.get(key).filter(|w| w.agent == *id);
        let Some(held) = held.filter(|_| known == Some(dropped.incarnation)) else {
            return Ok(());
        };
        let asked = held.removal.as_ref().map(|r| r.control);
        if asked == Some(dropped.control) && held.task.is_none() {
            return Ok(());
        }
        Err(Violation {
            rule: checkers::REMOVES_WHAT_WAS_ASKED,
            seq: state.seq,
            what: format!("process {n} removes {key:?}, asked for at {asked:?}: {held:?}"),
        })
    }
}
