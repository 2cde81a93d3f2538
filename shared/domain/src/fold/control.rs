//! What operators and clients say.

use conductor_protocol::Control;

use super::{At, Ruling, budgets, people, subtasks};
use crate::state::{State, WORKSPACES_SINCE};
use crate::void::VoidReason;

/// The format that budgets of namespaces came with.
const BUDGETS_SINCE: u32 = 2;

pub(super) fn apply(state: &mut State, at: At, control: &Control) -> Ruling {
    match control {
        Control::Cancel { task, .. } => {
            let t = state.tasks.get(task).ok_or(VoidReason::UnknownTask)?;
            if t.is_final() {
                return Err(VoidReason::AlreadyFinal);
            }
            if t.aside.cancel.is_some() {
                return Err(VoidReason::Duplicate);
            }
            state.change_task(*task, |t| t.aside.cancel = Some(at.position));
            subtasks::cancel_below(state, *task, at.position);
            Ok(())
        }
        Control::Retry { task } => {
            let t = state.tasks.get(task).ok_or(VoidReason::UnknownTask)?;
            if !t.is_final() {
                return Err(VoidReason::NotFinal);
            }
            if t.aside.redrive.is_some() {
                return Err(VoidReason::Duplicate);
            }
            state.change_task(*task, |t| t.aside.redrive = Some(at.position));
            Ok(())
        }
        Control::PauseQueue { queue } => changed(state.paused.insert(queue.clone())),
        Control::ResumeQueue { queue } => changed(state.paused.remove(queue)),
        Control::DrainAgent { agent } => {
            let was = state.change_agent(agent, |a| std::mem::replace(&mut a.is_drained, true));
            changed(!was.ok_or(VoidReason::UnknownAgent)?)
        }
        Control::ResumeAgent { agent } => {
            let was = state.change_agent(agent, |a| std::mem::replace(&mut a.is_drained, false));
            changed(was.ok_or(VoidReason::UnknownAgent)?)
        }
        Control::Decide {
            task,
            approval,
            answer,
            text,
        } => people::answered(state, at, *task, *approval, *answer, text.as_deref()),
        Control::Tell { task, text } => people::said(state, at, *task, text),
        Control::ReleaseWorkspace { namespace, name } => {
            since(state, WORKSPACES_SINCE)?;
            let key = (namespace.clone(), name.clone());
            state.may_release(&key)?;
            changed(state.release_workspace(&key))
        }
        Control::RemoveWorkspace {
            namespace,
            name,
            discard,
        } => {
            since(state, WORKSPACES_SINCE)?;
            let key = (namespace.clone(), name.clone());
            state.ask_removal(at.position, &key, discard.as_deref())
        }
        Control::DecideBudget {
            namespace,
            answer,
            text,
        } => {
            since(state, BUDGETS_SINCE)?;
            budgets::answered(state, at, namespace, *answer, text.as_deref())
        }
        Control::PutConfig(change) => {
            if !change.namespace_budget.is_empty() {
                since(state, BUDGETS_SINCE)?;
            }
            state.config.change(change);
            budgets::changed(state, change);
            // The order of the ready depends on the aging interval.
            state.rebuild_index();
            Ok(())
        }
    }
}

/// Whether the log has reached the format that something came with.
fn since(state: &State, format: u32) -> Ruling {
    if state.format < format {
        return Err(VoidReason::FormatNotReached);
    }
    Ok(())
}

fn changed(has_changed: bool) -> Ruling {
    if has_changed {
        Ok(())
    } else {
        Err(VoidReason::NoChange)
    }
}
