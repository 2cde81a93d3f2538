//! Whose turn it is.

use std::collections::BTreeMap;

use conductor_domain::State;
use conductor_domain::state::index::Lane;
use conductor_domain::state::{Phase, Task};
use conductor_protocol::event::Event;
use conductor_protocol::ids::Position;
use conductor_protocol::{Control, TaskId};

use super::{Checker, Ruling};
use crate::ledger::{Ledger, Seen, What};

/// For how long a ready task may be overtaken by tasks that rank after it: as long as an
/// assignment may be on its way, or may turn out void and have to be made again.
const SLACK_MS: u64 = 120_000;

/// A task that is overtaken a few times only was on its way to an agent, or had nowhere to go.
const OVERTAKINGS_MIN: u32 = 5;

/// Waiting makes up for priority: no ready task is overtaken for longer than that by tasks
/// alike that rank after it.
#[derive(Default)]
pub(super) struct NoStarvation {
    /// Since when each is overtaken, and how often it was, by where it became ready.
    overtaken: BTreeMap<(TaskId, Position), (u64, u32)>,
}

/// A ready task's rank, and since which event it is ready.
fn ready(task: &Task, aging_ms: u64) -> Option<(i64, Position)> {
    match task.phase {
        Phase::Ready { since_ms, at } => {
            let head_start = u64::from(task.spec.priority) * aging_ms;
            Some((since_ms as i64 - head_start as i64, at))
        }
        _ => None,
    }
}

impl Checker for NoStarvation {
    fn id(&self) -> &'static str {
        "no-starvation"
    }

    fn on_event(&mut self, ledger: &Ledger, state: &State, seen: &Seen<'_>) -> Ruling {
        let e = match seen.what {
            What::Event(Event::AttemptAssigned(e)) => e,
            // Whatever was paused or let go on: who could not run was not overtaken. Another
            // aging interval is another order.
            What::Control(
                Control::PauseQueue { .. }
                | Control::ResumeQueue { .. }
                | Control::DrainAgent { .. }
                | Control::ResumeAgent { .. }
                | Control::PutConfig(_),
            ) => {
                self.overtaken.clear();
                return Ok(());
            }
            _ => return Ok(()),
        };
        let aging_ms = state.config.aging_ms;
        let Some(task) = state.tasks.get(&e.task).filter(|_| seen.is_applied()) else {
            return Ok(());
        };
        let Some((ours, _)) = ready(task, aging_ms) else {
            return Ok(());
        };
        let lane = Lane::of(task);
        for (id, other) in &state.tasks {
            // It may have been assigned a moment ago, in the same frame.
            let is_held = ledger.tasks.get(id).is_none_or(|t| t.lease.is_some());
            let Some((theirs, at)) = ready(other, aging_ms) else {
                continue;
            };
            let may_run = *id != e.task && !is_held && other.aside.cancel.is_none();
            if !may_run || theirs >= ours || Lane::of(other) != lane {
                continue;
            }
            let overtaken = self.overtaken.entry((*id, at));
            let (since_ms, times) = overtaken.or_insert((seen.time_ms, 0));
            *times += 1;
            if *since_ms + SLACK_MS < seen.time_ms && *times >= OVERTAKINGS_MIN {
                return Err(format!(
                    "{} is assigned before {id}, which is overtaken since {since_ms}: {:?} before {:?}",
                    e.task, task.phase, other.phase
                ));
            }
        }
        Ok(())
    }
}
