//! What operators and clients say.

use conductor_protocol::Control;

use super::{At, Ruling, end};
use crate::state::State;
use crate::void::VoidReason;

pub(super) fn apply(state: &mut State, at: At, control: &Control) -> Ruling {
    match control {
        Control::Cancel { task, .. } => {
            let t = state.tasks.get(task).ok_or(VoidReason::UnknownTask)?;
            if t.is_final() {
                return Err(VoidReason::AlreadyFinal);
            }
            if t.cancel.is_some() {
                return Err(VoidReason::Duplicate);
            }
            end::change(state, *task, |t| t.cancel = Some(at.position));
            Ok(())
        }
        Control::Retry { task } => {
            let t = state.tasks.get(task).ok_or(VoidReason::UnknownTask)?;
            if !t.is_final() {
                return Err(VoidReason::NotFinal);
            }
            if t.redrive.is_some() {
                return Err(VoidReason::Duplicate);
            }
            end::change(state, *task, |t| t.redrive = Some(at.position));
            Ok(())
        }
        Control::PauseQueue { queue } => changed(state.paused.insert(queue.clone())),
        Control::ResumeQueue { queue } => changed(state.paused.remove(queue)),
        Control::DrainAgent { agent } => {
            let a = state
                .agents
                .get_mut(agent)
                .ok_or(VoidReason::UnknownAgent)?;
            changed(!std::mem::replace(&mut a.is_drained, true))
        }
        Control::ResumeAgent { agent } => {
            let a = state
                .agents
                .get_mut(agent)
                .ok_or(VoidReason::UnknownAgent)?;
            changed(std::mem::replace(&mut a.is_drained, false))
        }
        Control::PutConfig(change) => {
            state.config.change(change);
            // The order of the ready depends on the aging interval.
            state.rebuild_index();
            Ok(())
        }
    }
}

fn changed(has_changed: bool) -> Ruling {
    if has_changed {
        Ok(())
    } else {
        Err(VoidReason::NoChange)
    }
}
