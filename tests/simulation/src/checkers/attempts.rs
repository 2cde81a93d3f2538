//! Leases, and the reports under them.

use conductor_domain::State;
use conductor_protocol::event::Event;
use conductor_protocol::ids::Lease;

use super::{Checker, Ruling};
use crate::ledger::{By, Ledger, Seen, What};

/// A task is never given to somebody while somebody has it.
pub(super) struct OneLease;

impl Checker for OneLease {
    fn id(&self) -> &'static str {
        "one-lease"
    }

    fn on_event(&mut self, ledger: &Ledger, _: &State, seen: &Seen<'_>) -> Ruling {
        let What::Event(Event::AttemptAssigned(e)) = seen.what else {
            return Ok(());
        };
        let held = ledger.tasks.get(&e.task).and_then(|t| t.lease.as_ref());
        match held {
            Some((lease, by)) if seen.is_applied() => Err(format!(
                "{} is assigned though {by} has it since {}",
                e.task, lease.assigned
            )),
            _ => Ok(()),
        }
    }

    fn on_record(&mut self, ledger: &Ledger, state: &State) -> Ruling {
        for (id, task) in &state.tasks {
            let held = ledger.tasks.get(id).and_then(|t| t.lease.as_ref());
            if task.lease(*id) != held.map(|(lease, _)| *lease) {
                return Err(format!(
                    "{id} is held under {:?} by the state, {held:?} by the books",
                    task.lease(*id)
                ));
            }
        }
        Ok(())
    }
}

/// A report counts under the task's current lease and from who holds it, and only then.
pub(super) struct CurrentLease;

/// Whether whoever reports is who it says.
fn is_heard(ledger: &Ledger, seen: &Seen<'_>) -> bool {
    match seen.by {
        By::Agent(id, incarnation) => {
            let agent = ledger.agents.get(id);
            agent.is_some_and(|a| a.is_there && Some(a.incarnation) == incarnation)
        }
        By::Leader(role, epoch, _) => ledger.epochs.get(&role).copied() == epoch,
        _ => false,
    }
}

/// Whether it may be said again to no effect.
fn is_repeatable(event: &Event) -> bool {
    // The agent does not know what the log's format is, and repeats what it asks; nor whether it is
    // being told what it withdraws.
    matches!(
        event,
        Event::AttemptStarted(_)
            | Event::ApprovalRequested(_)
            | Event::ApprovalWithdrawn(_)
            | Event::AttemptThrottled(_)
            | Event::AttemptSubmitted(_)
    )
}

fn reported(event: &Event) -> Option<Lease> {
    match event {
        Event::AttemptStarted(e) => Some(e.lease),
        Event::AttemptProgress(e) => Some(e.lease),
        Event::AttemptUsage(e) => Some(e.lease),
        Event::AttemptSucceeded(e) => Some(e.lease),
        Event::AttemptFailed(e) => Some(e.lease),
        Event::AttemptTimedOut(e) => Some(e.lease),
        Event::ApprovalRequested(e) => Some(e.lease),
        Event::ApprovalWithdrawn(e) => Some(e.lease),
        Event::AttemptThrottled(e) => Some(e.lease),
        Event::AttemptSubmitted(e) => Some(e.lease),
        _ => None,
    }
}

impl Checker for CurrentLease {
    fn id(&self) -> &'static str {
        "current-lease"
    }

    fn on_event(&mut self, ledger: &Ledger, _: &State, seen: &Seen<'_>) -> Ruling {
        let What::Event(event) = seen.what else {
            return Ok(());
        };
        let Some(lease) = reported(event) else {
            return Ok(());
        };
        let held = ledger.tasks.get(&lease.task).and_then(|t| t.lease.as_ref());
        let is_current = held.is_some_and(|(current, holder)| {
            let is_theirs = match seen.by {
                By::Agent(agent, _) => agent == holder,
                _ => true,
            };
            *current == lease && is_theirs
        });
        let kind = event.kind();
        match (is_current, seen.is_applied()) {
            (false, true) => Err(format!(
                "{kind} counts under {lease:?}, the lease is {held:?}"
            )),
            (true, false) if is_heard(ledger, seen) && !is_repeatable(event) => Err(format!(
                "{kind} under the current {lease:?} does not count: {:?}",
                seen.verdict
            )),
            _ => Ok(()),
        }
    }
}

/// A report counts only from the agent's current incarnation, while it is there.
pub(super) struct CurrentIncarnation;

impl Checker for CurrentIncarnation {
    fn id(&self) -> &'static str {
        "current-incarnation"
    }

    fn on_event(&mut self, ledger: &Ledger, _: &State, seen: &Seen<'_>) -> Ruling {
        let (By::Agent(id, incarnation), What::Event(event)) = (seen.by, seen.what) else {
            return Ok(());
        };
        if !seen.is_applied() || matches!(event, Event::AgentJoined(_)) {
            return Ok(());
        }
        let agent = ledger.agents.get(id);
        if agent.is_some_and(|a| a.is_there && Some(a.incarnation) == incarnation) {
            return Ok(());
        }
        Err(format!(
            "{} of {id} counts under {incarnation:?}: {agent:?}",
            event.kind()
        ))
    }
}

/// No more attempts than the policy allows, numbered one by one.
pub(super) struct AttemptsMax;

impl Checker for AttemptsMax {
    fn id(&self) -> &'static str {
        "attempts-max"
    }

    fn on_event(&mut self, ledger: &Ledger, _: &State, seen: &Seen<'_>) -> Ruling {
        let What::Event(Event::AttemptAssigned(e)) = seen.what else {
            return Ok(());
        };
        let Some(task) = ledger.tasks.get(&e.task).filter(|_| seen.is_applied()) else {
            return Ok(());
        };
        if e.attempt != task.attempts + 1 {
            return Err(format!(
                "{} is tried for the {}. time after {} attempts",
                e.task, e.attempt, task.attempts
            ));
        }
        let max = task.spec.retry.max_attempts;
        if task.attempts_now >= max {
            return Err(format!(
                "{} may be tried {max} times, and is tried again",
                e.task
            ));
        }
        Ok(())
    }
}
