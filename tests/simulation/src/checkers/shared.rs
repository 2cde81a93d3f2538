//! What tasks share beside budgets: named workspaces, and where sessions are.

use conductor_domain::State;
use conductor_protocol::Control;
use conductor_protocol::event::{AttemptAssigned, Event};
use conductor_protocol::ids::AgentId;

use super::{Checker, Ruling};
use crate::ledger::{By, Ledger, Seen, Task, What, workspace_of};

/// An assignment that counted, its task in the books, and its agent.
pub(super) fn assigned<'a>(
    ledger: &'a Ledger,
    seen: &Seen<'a>,
) -> Option<(&'a AttemptAssigned, &'a Task, &'a AgentId)> {
    let (By::Leader(_, _, Some(id)), What::Event(Event::AttemptAssigned(e))) = (seen.by, seen.what)
    else {
        return None;
    };
    let task = ledger.tasks.get(&e.task)?;
    seen.is_applied().then_some((e, task, id))
}

/// One task works in a named workspace at a time, and where it is.
pub(super) struct Workspaces;

impl Checker for Workspaces {
    fn id(&self) -> &'static str {
        "workspaces"
    }

    fn on_event(&mut self, ledger: &Ledger, _: &State, seen: &Seen<'_>) -> Ruling {
        may_go(ledger, seen)?;
        let Some((e, task, agent)) = assigned(ledger, seen) else {
            return Ok(());
        };
        let Some(key) = workspace_of(&task.spec).filter(|_| ledger.shared.format >= 2) else {
            return Ok(());
        };
        // Whoever entered it before the format was reached is not known to have done so.
        let Some(keeper) = ledger.shared.workspaces.get(&key) else {
            return Ok(());
        };
        if let Some(at) = ledger.shared.removals.get(&key) {
            return Err(format!("{} enters {key:?}, to go since {at}", e.task));
        }
        if keeper != agent {
            return Err(format!(
                "{} enters {key:?} on {agent}, it is on {keeper}",
                e.task
            ));
        }
        Ok(())
    }

    fn on_record(&mut self, ledger: &Ledger, state: &State) -> Ruling {
        for (key, workspace) in &state.workspaces {
            let asked = workspace.removal.as_ref().map(|r| r.control);
            let known = (workspace.unpushed, asked);
            let removal = ledger.shared.removals.get(key).copied();
            let noted = (ledger.shared.unpushed.contains(key), removal);
            if known != noted {
                return Err(format!("{key:?} is known as {known:?}, noted as {noted:?}"));
            }
            let Some(id) = workspace.task else { continue };
            let lease = ledger.tasks.get(&id).and_then(|t| t.lease.as_ref());
            if lease.is_none_or(|(_, agent)| *agent != workspace.agent) {
                return Err(format!("{key:?} is entered by {id}, held by {lease:?}"));
            }
        }
        Ok(())
    }

    fn at_end(&mut self, ledger: &Ledger, _: &State) -> Ruling {
        for (key, at) in &ledger.shared.removals {
            let agent = ledger.shared.workspaces.get(key);
            let agent = agent.and_then(|id| ledger.agents.get(id));
            if agent.is_some_and(|a| a.is_there) {
                return Err(format!("{key:?} is still there, to go since {at}"));
            }
        }
        Ok(())
    }
}

/// A workspace with work that is nowhere else goes only where that was given up by name, and one
/// that is gone was asked for.
fn may_go(ledger: &Ledger, seen: &Seen<'_>) -> Ruling {
    if !seen.is_applied() {
        return Ok(());
    }
    match (seen.what, seen.by) {
        (
            What::Control(Control::RemoveWorkspace {
                namespace,
                name,
                discard,
            }),
            _,
        ) => {
            let key = (namespace.clone(), name.clone());
            if ledger.shared.unpushed.contains(&key) && discard.as_ref() != Some(name) {
                return Err(format!("{key:?} is to go with work that is nowhere else"));
            }
        }
        (What::Event(Event::WorkspaceRemoved(e)), By::Agent(agent, _)) => {
            let key = (e.namespace.clone(), e.name.clone());
            let asked = ledger.shared.removals.get(&key);
            let keeper = ledger.shared.workspaces.get(&key);
            if (asked, keeper) != (Some(&e.control), Some(agent)) {
                return Err(format!("{agent} removed {key:?}, asked for at {asked:?}"));
            }
        }
        _ => {}
    }
    Ok(())
}

/// A session is offered where it is.
pub(super) struct Sessions;

impl Checker for Sessions {
    fn id(&self) -> &'static str {
        "sessions"
    }

    fn on_event(&mut self, ledger: &Ledger, _: &State, seen: &Seen<'_>) -> Ruling {
        let Some((e, _, agent)) = assigned(ledger, seen) else {
            return Ok(());
        };
        let session = e.before.as_ref().and_then(|b| b.session.as_ref());
        let Some(session) = session else {
            return Ok(());
        };
        let keeper = ledger.shared.sessions.get(session);
        if keeper != Some(agent) {
            return Err(format!(
                "{session} is offered to {agent}, it is on {keeper:?}"
            ));
        }
        Ok(())
    }
}
