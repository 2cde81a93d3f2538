//! Whose turn it is.

use conductor_domain::State;
use conductor_domain::state::Phase;
use conductor_domain::state::index::Lane;
use conductor_protocol::event::Event;

use super::{Checker, Ruling};
use crate::ledger::{Ledger, Seen, What};

/// How long a task may be ready and be overtaken by one that ranks after it: as long as an
/// assignment may be on its way, or may turn out void and have to be made again.
const SLACK_MS: u64 = 120_000;

/// Waiting makes up for priority: nobody is overtaken for longer than that by tasks alike
/// that rank after it.
pub(super) struct NoStarvation;

impl Checker for NoStarvation {
    fn id(&self) -> &'static str {
        "no-starvation"
    }

    fn on_event(&mut self, ledger: &Ledger, state: &State, seen: &Seen<'_>) -> Ruling {
        let What::Event(Event::AttemptAssigned(e)) = seen.what else {
            return Ok(());
        };
        let Some(task) = state.tasks.get(&e.task).filter(|_| seen.is_applied()) else {
            return Ok(());
        };
        let rank = |task: &conductor_domain::state::Task| match task.phase {
            Phase::Ready { since_ms, .. } => {
                let head_start = u64::from(task.spec.priority) * state.config.aging_ms;
                Some((since_ms as i64 - head_start as i64, since_ms))
            }
            _ => None,
        };
        let Some((ours, _)) = rank(task) else {
            return Ok(());
        };
        let lane = Lane::of(task);
        for (id, other) in &state.tasks {
            // It may have been assigned a moment ago, in the same frame.
            let is_held = ledger.tasks.get(id).is_none_or(|t| t.lease.is_some());
            if *id != e.task
                && !is_held
                && rank(other).is_some_and(|(theirs, since_ms)| {
                    theirs < ours && since_ms + SLACK_MS < seen.time_ms
                })
                && Lane::of(other) == lane
                && other.cancel.is_none()
            {
                return Err(format!(
                    "{} is assigned before {id}, which has waited its time: {:?} before {:?}",
                    e.task, task.phase, other.phase
                ));
            }
        }
        Ok(())
    }
}
