//! What attempts ask people, and what they are told.

use conductor_domain::State;
use conductor_protocol::Control;
use conductor_protocol::event::{ApprovalDecided, AttemptTimeout, AttemptTold, Event, Word};
use conductor_protocol::ids::Lease;

use super::{Checker, Ruling};
use crate::ledger::{Ledger, Seen, What};

/// An answer is the one that was given, or the default where nobody gave one; it reaches its
/// attempt once, under its lease alone, and not at all where that has withdrawn its question; and no attempt waits for one for ever, or is timed out
/// while it does.
pub(super) struct Answers;

impl Checker for Answers {
    fn id(&self) -> &'static str {
        "answers"
    }

    fn on_event(&mut self, ledger: &Ledger, _: &State, seen: &Seen<'_>) -> Ruling {
        if !seen.is_applied() {
            return Ok(());
        }
        match seen.what {
            What::Event(Event::ApprovalRequested(e)) => {
                let key = (e.lease.assigned, e.approval);
                if ledger.talk.questions.contains_key(&key) {
                    return Err(format!("{key:?} is asked again"));
                }
                Ok(())
            }
            What::Event(Event::ApprovalWithdrawn(e)) => {
                let key = (e.lease.assigned, e.approval);
                match ledger.talk.questions.get(&key) {
                    Some(question) if question.is_waited_for() => Ok(()),
                    other => Err(format!("{key:?} is withdrawn, which is {other:?}")),
                }
            }
            What::Event(Event::ApprovalDecided(e)) => decided(ledger, e),
            What::Event(Event::AttemptTold(e)) => told(ledger, e),
            What::Event(Event::AttemptTimedOut(e)) if e.timeout == AttemptTimeout::Run => {
                if ledger.talk.is_asking(e.lease.assigned) {
                    return Err(format!("{:?} is timed out while it waits", e.lease));
                }
                Ok(())
            }
            What::Control(Control::Decide { task, approval, .. }) => {
                let lease = ledger.tasks.get(task).and_then(|t| t.lease.as_ref());
                let lease = lease.map(|(lease, _)| lease.assigned);
                let asked = lease.and_then(|at| ledger.talk.questions.get(&(at, *approval)));
                match asked {
                    Some(q) if q.decided.is_none() && !q.is_withdrawn => Ok(()),
                    other => Err(format!("an answer to {other:?} counts")),
                }
            }
            _ => Ok(()),
        }
    }

    fn on_record(&mut self, ledger: &Ledger, state: &State) -> Ruling {
        for id in &state.index.asking {
            let lease = ledger.tasks.get(id).and_then(|t| t.lease.as_ref());
            let is_asking = lease.is_some_and(|(l, _)| ledger.talk.is_asking(l.assigned));
            if !is_asking {
                return Err(format!("{id} asks nothing, by the books"));
            }
        }
        Ok(())
    }

    fn at_end(&mut self, ledger: &Ledger, _: &State) -> Ruling {
        let waits = |(at, number): &(_, u32)| {
            let question = ledger.talk.questions.get(&(*at, *number))?;
            let lease = ledger.tasks.get(&question.task)?.lease.as_ref()?;
            let is_open = lease.0.assigned == *at && question.is_waited_for();
            is_open.then(|| format!("question {number} of {lease:?} was never answered"))
        };
        match ledger.talk.questions.keys().find_map(waits) {
            Some(problem) => Err(problem),
            None => Ok(()),
        }
    }
}

fn is_current(ledger: &Ledger, lease: Lease) -> bool {
    let held = ledger.tasks.get(&lease.task).and_then(|t| t.lease.as_ref());
    held.is_some_and(|(current, _)| *current == lease)
}

fn decided(ledger: &Ledger, e: &ApprovalDecided) -> Ruling {
    let key = (e.lease.assigned, e.approval);
    let Some(question) = ledger.talk.questions.get(&key) else {
        return Err(format!("{key:?} is decided, and was never asked"));
    };
    let expected = question
        .given
        .map_or((question.default, None), |(answer, at)| (answer, Some(at)));
    if question.decided.is_some() || question.is_withdrawn || !is_current(ledger, e.lease) {
        return Err(format!("{key:?} is decided, which is {question:?}"));
    }
    if expected != (e.answer, e.control) {
        return Err(format!("{key:?} is decided as {e:?}, not {expected:?}"));
    }
    Ok(())
}

fn told(ledger: &Ledger, e: &AttemptTold) -> Ruling {
    if !is_current(ledger, e.lease) {
        return Err(format!("{:?} is told something after its end", e.lease));
    }
    match &e.word {
        Word::Decision {
            approval, answer, ..
        } => {
            let key = (e.lease.assigned, *approval);
            let question = ledger.talk.questions.get(&key);
            let is_due = question.is_some_and(|q| q.decided == Some(*answer) && q.is_waited_for());
            if !is_due {
                return Err(format!("{key:?} is told {answer:?}, and is {question:?}"));
            }
        }
        // See `Subtasks`.
        Word::Subtask { .. } => {}
        Word::Text { control, .. } => {
            let said = ledger.talk.words.get(control);
            let is_due = said.is_some_and(|s| s.lease == e.lease.assigned && s.told == 0);
            if !is_due {
                return Err(format!("{:?} is told {said:?}", e.lease));
            }
        }
    }
    Ok(())
}
