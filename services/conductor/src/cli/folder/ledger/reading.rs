//! What the log says of the tasks of files.

use std::collections::BTreeSet;

use conductor_domain::fold::Folded;
use conductor_domain::record::Content;
use conductor_domain::{Decoded, State, Verdict};
use conductor_protocol::event::Event;
use conductor_protocol::{Position, TaskId};

use super::{Decision, Ledger};
use crate::cli::folder::status::{REJECTED, error};

impl Ledger {
    /// A record was read and folded.
    pub(in crate::cli::folder) fn see(&mut self, state: &State, record: &Decoded, folded: &Folded) {
        self.at = record.seq;
        if self.by_task.is_empty() && !self.is_sending {
            return;
        }
        let (Content::Leader { items, .. } | Content::Agent { items, .. }) = &record.content else {
            return;
        };
        let verdicts = folded.verdicts.iter();
        let counted = items
            .iter()
            .zip(verdicts)
            .filter(|(_, v)| **v == Verdict::Applied);
        let mut moved = BTreeSet::new();
        for event in counted.filter_map(|(item, _)| item.as_ref().ok()) {
            match event {
                Event::TaskAccepted(e) => drop(self.by_submission.remove(&e.submission)),
                Event::TaskRejected(e) => {
                    self.decided(e.submission, Decision::Rejected(e.errors.clone()));
                }
                Event::TaskDuplicate(e) => {
                    self.decided(e.submission, Decision::Duplicate(e.task));
                }
                _ => {}
            }
            let Some(task) = event.task().filter(|t| self.by_task.contains_key(t)) else {
                continue;
            };
            for name in self.by_task.get(&task).into_iter().flatten() {
                if let Some(entry) = self.files.get_mut(name) {
                    entry.found.note(event);
                }
            }
            moved.insert(task);
        }
        // Behind all events of the record: the state is as all of them left it.
        for task in moved {
            self.moved(state, task);
        }
    }

    pub(super) fn decided(&mut self, submission: Position, decision: Decision) {
        let Some(name) = self.by_submission.remove(&submission) else {
            if self.is_sending {
                self.early.insert(submission, decision);
            }
            return;
        };
        let Some(entry) = self.files.get_mut(&name) else {
            return;
        };
        match decision {
            Decision::Rejected(errors) => {
                let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
                entry.error = Some(error(&errors));
                REJECTED.clone_into(&mut entry.status.state);
                let status = entry.status.clone();
                self.unindex(&name, &status);
            }
            // It had been accepted before: the same submission was sent twice.
            Decision::Duplicate(task) if task == entry.status.id && entry.found.is_accepted => {}
            Decision::Duplicate(task) => {
                let before = entry.status.clone();
                entry.status.id = task;
                entry.has_missed = true;
                let now = entry.status.clone();
                self.unindex(&name, &before);
                self.index(&name, &now);
                self.by_submission.remove(&submission);
                self.unread.insert(name.clone());
            }
        }
        self.dirty.insert(name);
    }

    /// What an earlier process may have sent, and the log turns out not to have, was not sent. The log
    /// was read to its end: this state is as that left it.
    pub(in crate::cli::folder) fn settle(&mut self, state: &State) {
        // What is not decided yet may be of any of them: a later start knows more.
        if !state.intake.is_empty() {
            return;
        }
        for entry in self.files.values_mut() {
            if entry.status.is_to_submit() && !state.knows(entry.status.id) {
                entry.may_be_sent = false;
            }
        }
    }

    /// Something happened to a task.
    fn moved(&mut self, state: &State, task: TaskId) {
        let Some(names) = self.by_task.get(&task) else {
            return;
        };
        let ended = state.outcome_of(task);
        for name in names.clone() {
            let Some(entry) = self.files.get_mut(&name) else {
                continue;
            };
            let before = (entry.status.state.clone(), entry.status.attempts);
            if let Some(task) = state.tasks.get(&task) {
                task.state_name().clone_into(&mut entry.status.state);
                entry.status.attempts = task.attempts;
            } else if let Some(outcome) = ended {
                outcome.as_str().clone_into(&mut entry.status.state);
            }
            if ended.is_some() && entry.has_missed {
                self.unread.insert(name);
                continue;
            }
            if ended.is_some() {
                let result = entry.found.result(state, task, &entry.status);
                entry.result = Some(result);
            } else if before == (entry.status.state.clone(), entry.status.attempts) {
                continue;
            }
            self.dirty.insert(name);
        }
        if ended.is_some() {
            self.by_task.remove(&task);
        }
    }
}
