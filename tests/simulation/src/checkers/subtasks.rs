//! What attempts submit.

use conductor_domain::State;
use conductor_domain::state::News;
use conductor_protocol::event::{AttemptTold, Event, SubtaskNews, TaskAccepted, Word};

use super::{Checker, Ruling};
use crate::filings::Filed;
use crate::ledger::{Ledger, Seen, What};

/// A task that an attempt submits is its child: never more than are allowed, with nothing that
/// the parent has not, and not once the parent is over; and an attempt that runs is told what
/// became of it, once.
pub(super) struct Subtasks;

impl Checker for Subtasks {
    fn id(&self) -> &'static str {
        "subtasks"
    }

    fn on_event(&mut self, ledger: &Ledger, _: &State, seen: &Seen<'_>) -> Ruling {
        if !seen.is_applied() {
            return Ok(());
        }
        match seen.what {
            What::Event(Event::TaskAccepted(e)) => accepted(ledger, e),
            What::Event(Event::AttemptTold(e)) => told(ledger, e),
            _ => Ok(()),
        }
    }

    /// What stands to be told is what happened.
    fn on_record(&mut self, ledger: &Ledger, state: &State) -> Ruling {
        for filed in ledger.filings.0.values() {
            let held = ledger.tasks.get(&filed.lease.task);
            let held = held.and_then(|t| t.lease.as_ref());
            if held.is_none_or(|(lease, _)| *lease != filed.lease) {
                continue;
            }
            let parent = state.tasks.get(&filed.lease.task);
            let submitted = parent.and_then(|p| p.aside.submitted.get(&filed.number));
            let Some(submitted) = submitted else {
                return Err(format!("{filed:?} is forgotten"));
            };
            let is_end = matches!(submitted.news, Some(News::Ended { .. }));
            let is_same =
                submitted.news.is_some() == filed.decided.is_some() && is_end == filed.has_ended;
            let was_told = if is_end { filed.told.1 } else { filed.told.0 };
            if !is_same || submitted.is_told != was_told {
                return Err(format!("{filed:?} stands as {submitted:?}"));
            }
        }
        Ok(())
    }
}

fn accepted(ledger: &Ledger, e: &TaskAccepted) -> Ruling {
    let terms = e.spec.terms.as_deref();
    let Some(filed) = ledger.filings.0.get(&e.submission) else {
        return match terms.and_then(|t| t.parent) {
            Some(parent) => Err(format!("{} is no subtask of {parent}", e.task)),
            None => Ok(()),
        };
    };
    let id = filed.lease.task;
    let Some(parent) = ledger.tasks.get(&id) else {
        return Err(format!("{} has no parent", e.task));
    };
    let is_running = parent
        .lease
        .as_ref()
        .is_some_and(|(l, _)| *l == filed.lease);
    if !is_running || parent.is_cancelled {
        return Err(format!("{} is accepted though {id} is over", e.task));
    }
    let parents = parent.spec.terms.as_deref();
    let same_box = terms.map(|t| (&t.sandbox, t.parent)) == parents.map(|t| (&t.sandbox, Some(id)));
    if !same_box || e.spec.namespace != parent.spec.namespace {
        return Err(format!("{} has what {id} has not: {:?}", e.task, e.spec));
    }
    let most = parents
        .and_then(|t| t.subtasks.as_ref())
        .map_or(0, |s| s.max);
    let has = ledger.filings.tasks_of(id);
    if u32::try_from(has).is_ok_and(|has| has >= most) {
        return Err(format!("{id} has {has} subtasks and gets another"));
    }
    Ok(())
}

fn told(ledger: &Ledger, e: &AttemptTold) -> Ruling {
    let Word::Subtask { number, news } = &e.word else {
        return Ok(());
    };
    let filed = ledger.filings.of(e.lease.assigned, *number);
    let is_true = |f: &Filed| match news {
        SubtaskNews::Accepted { task } => f.decided == Some(Some(*task)) && !f.told.0,
        SubtaskNews::Rejected { .. } => f.decided == Some(None) && !f.told.0,
        SubtaskNews::Ended { task, .. } => {
            f.decided == Some(Some(*task)) && f.has_ended && !f.told.1
        }
    };
    if filed.is_some_and(is_true) {
        Ok(())
    } else {
        Err(format!(
            "{:?} is told {news:?}, and there is {filed:?}",
            e.lease
        ))
    }
}
