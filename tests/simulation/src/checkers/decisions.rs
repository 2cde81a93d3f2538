//! What leaders decide.

use std::collections::BTreeSet;

use conductor_domain::State;
use conductor_protocol::event::{Event, SubtaskNews, Word};
use conductor_protocol::subject::Role;

use super::{Checker, Ruling};
use crate::ledger::{By, Ledger, Seen, What};

/// Every submission in the log is accepted, rejected or a duplicate, exactly once.
pub(super) struct SubmissionOnce;

impl Checker for SubmissionOnce {
    fn id(&self) -> &'static str {
        "submission-once"
    }

    fn on_event(&mut self, ledger: &Ledger, _: &State, seen: &Seen<'_>) -> Ruling {
        let submission = match seen.what {
            What::Event(Event::TaskAccepted(e)) => e.submission,
            What::Event(Event::TaskRejected(e)) => e.submission,
            What::Event(Event::TaskDuplicate(e)) => e.submission,
            _ => return Ok(()),
        };
        match ledger.submissions.get(&submission) {
            Some(0) => Ok(()),
            _ if !seen.is_applied() => Ok(()),
            Some(_) => Err(format!("{submission} is decided again")),
            None => Err(format!("{submission} was never submitted")),
        }
    }

    fn at_end(&mut self, ledger: &Ledger, state: &State) -> Ruling {
        match ledger.undecided.first() {
            Some(at) => Err(format!(
                "{at} was never decided; intake {:?}",
                state.intake.keys()
            )),
            None => Ok(()),
        }
    }
}

/// No task id is accepted twice, and no idempotency key within its window.
pub(super) struct AcceptedOnce;

impl Checker for AcceptedOnce {
    fn id(&self) -> &'static str {
        "accepted-once"
    }

    fn on_event(&mut self, ledger: &Ledger, _: &State, seen: &Seen<'_>) -> Ruling {
        let What::Event(Event::TaskAccepted(e)) = seen.what else {
            return Ok(());
        };
        if !seen.is_applied() {
            return Ok(());
        }
        if ledger.tasks.contains_key(&e.task) {
            return Err(format!("{} is accepted again", e.task));
        }
        let key = e
            .spec
            .key
            .as_ref()
            .map(|k| (e.spec.namespace.clone(), k.clone()));
        if let Some((task, until_ms)) = key.and_then(|k| ledger.keys.get(&k))
            && *until_ms > seen.time_ms
        {
            return Err(format!("{} is accepted under the key of {task}", e.task));
        }
        Ok(())
    }
}

/// A task ends once, unless it is run again by hand; nothing happens to it after its end;
/// and it does end.
pub(super) struct EndsOnce;

impl Checker for EndsOnce {
    fn id(&self) -> &'static str {
        "ends-once"
    }

    fn on_event(&mut self, ledger: &Ledger, _: &State, seen: &Seen<'_>) -> Ruling {
        let What::Event(event) = seen.what else {
            return Ok(());
        };
        if !seen.is_applied() {
            return Ok(());
        }
        let id = match event {
            Event::TaskRedriven(_) | Event::TaskAccepted(_) | Event::TaskDuplicate(_) => {
                return Ok(());
            }
            // What ran when the task ended may say later that it is over.
            Event::AttemptStopped(_) | Event::AttemptRevoked(_) => return Ok(()),
            event => event.task(),
        };
        let Some((id, task)) = id.and_then(|id| ledger.tasks.get_key_value(&id)) else {
            return Ok(());
        };
        match task.outcome {
            Some(outcome) => Err(format!("{id} is {outcome:?}, and then {}", event.kind())),
            None => Ok(()),
        }
    }

    fn at_end(&mut self, ledger: &Ledger, state: &State) -> Ruling {
        let Some(id) = ledger.open.first() else {
            return Ok(());
        };
        let why = conductor_domain::explain::why(state, *id);
        Err(format!(
            "{} tasks never ended, {id} for one: {why:?}; {:?}",
            ledger.open.len(),
            state.tasks.get(id)
        ))
    }
}

/// Only decisions of the current leader count.
pub(super) struct CurrentEpoch;

impl Checker for CurrentEpoch {
    fn id(&self) -> &'static str {
        "current-epoch"
    }

    fn on_event(&mut self, ledger: &Ledger, _: &State, seen: &Seen<'_>) -> Ruling {
        let By::Leader(role, epoch, _) = seen.by else {
            return Ok(());
        };
        let current = ledger.epochs.get(&role).copied();
        if seen.is_applied() && epoch != current {
            return Err(format!(
                "{role} of {epoch:?} is heard, though {current:?} leads"
            ));
        }
        Ok(())
    }

    fn at_end(&mut self, ledger: &Ledger, _: &State) -> Ruling {
        let is_led = |role| ledger.epochs.contains_key(&role);
        if is_led(Role::Orchestrator) && is_led(Role::Scheduler) {
            Ok(())
        } else {
            Err(format!("not every role is led: {:?}", ledger.epochs))
        }
    }
}

/// A task that somebody asked to cancel is not given to anybody any more.
pub(super) struct CancelIsFinal;

impl Checker for CancelIsFinal {
    fn id(&self) -> &'static str {
        "cancel-is-final"
    }

    fn on_event(&mut self, ledger: &Ledger, _: &State, seen: &Seen<'_>) -> Ruling {
        let task = match seen.what {
            What::Event(Event::AttemptAssigned(e)) => e.task,
            What::Event(Event::TaskReady(e)) => e.task,
            What::Event(Event::TaskCancelled(e)) => {
                let is_asked = ledger.tasks.get(&e.task).is_some_and(|t| t.is_cancelled);
                let is_control =
                    matches!(e.cause, conductor_protocol::event::CancelCause::Control(_));
                if seen.is_applied() && is_control && !is_asked {
                    return Err(format!("nobody asked to cancel {}", e.task));
                }
                return Ok(());
            }
            _ => return Ok(()),
        };
        let is_cancelled = ledger.tasks.get(&task).is_some_and(|t| t.is_cancelled);
        if seen.is_applied() && is_cancelled {
            return Err(format!("{task} goes on though it was cancelled"));
        }
        Ok(())
    }
}

/// A leader does not decide again what it has decided, while that is on its way or counted.
#[derive(Default)]
pub(super) struct DecidedOnce {
    decided: BTreeSet<String>,
}

impl Checker for DecidedOnce {
    fn id(&self) -> &'static str {
        "decided-once"
    }

    fn on_event(&mut self, ledger: &Ledger, _: &State, seen: &Seen<'_>) -> Ruling {
        let (By::Leader(role, epoch, agent), What::Event(event)) = (seen.by, seen.what) else {
            return Ok(());
        };
        if ledger.epochs.get(&role).copied() != epoch || seen.is_repeat {
            return Ok(());
        }
        // A task that was run again may be decided on as if it were new.
        let turn = event
            .task()
            .and_then(|id| ledger.tasks.get(&id))
            .map(|t| (t.attempts, t.redriven));
        let about = match event {
            Event::TaskAccepted(e) => format!("submission {}", e.submission),
            Event::TaskRejected(e) => format!("submission {}", e.submission),
            Event::TaskDuplicate(e) => format!("submission {}", e.submission),
            Event::AttemptTimedOut(e) => format!("lease {}", e.lease.assigned),
            Event::AttemptRevoked(e) => format!("lease {}", e.lease.assigned),
            Event::ApprovalDecided(e) => format!("question {} {}", e.lease.assigned, e.approval),
            Event::AttemptTold(e) => match &e.word {
                Word::Decision { approval, .. } => {
                    format!("answer {} {approval}", e.lease.assigned)
                }
                Word::Text { control, .. } => format!("text {} {control}", e.lease.assigned),
                Word::Subtask { number, news } => {
                    let is_end = matches!(news, SubtaskNews::Ended { .. });
                    format!("news {} {number} {is_end}", e.lease.assigned)
                }
            },
            Event::BudgetReached(e) => {
                let turn = ledger.shared.budgets.turns.get(&e.namespace);
                format!("{} {turn:?}", e.namespace)
            }
            Event::AgentLost(e) => format!("{} {}", e.agent, e.incarnation),
            Event::AgentDismissed(e) => format!("{agent:?} {} {}", e.incarnation, e.replaced),
            Event::WorkspaceDropped(e) => format!("removal {} {}", e.control, e.incarnation),
            Event::AttemptAssigned(e) => format!("attempt {} of {}", e.attempt, e.task),
            _ if event
                .task()
                .is_some_and(|id| !ledger.tasks.contains_key(&id)) =>
            {
                return Ok(());
            }
            _ => format!("{:?}", event.task()),
        };
        // Of a decision that turned out void nothing is left; it may be decided again. An
        // attempt's turn is over once it was assigned.
        let turn = if matches!(event, Event::AttemptAssigned(_)) {
            None
        } else {
            turn
        };
        let decision = format!("{epoch:?} {} {about} {turn:?}", event.kind());
        if self.decided.contains(&decision) {
            return Err(format!("decided again: {decision}"));
        }
        if seen.is_applied() {
            self.decided.insert(decision);
        }
        Ok(())
    }
}
