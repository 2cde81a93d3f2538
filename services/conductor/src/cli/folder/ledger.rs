//! What is known of each task file. Pure: it is told what was found, sent and read, and says what
//! is to be written.

mod found;
mod reading;

use std::collections::{BTreeMap, BTreeSet};

use conductor_domain::State;
use conductor_protocol::event::FieldError;
use conductor_protocol::{Position, TaskId, UnixMs};
use serde_json::Value;

use super::disk::Print;
use super::status::{REJECTED, SUBMITTED, SUBMITTING, Status, WITHDRAWN};
use crate::cli::submit::Order;
use crate::cli::task::detail::Detail;
use found::Found;

/// An id of a claim that the log does not know is not used again when it is older: the orchestrator
/// refuses ids that it may have forgotten. The key stays.
const ID_AGE_MAX_MS: u64 = 3_600_000;

/// All task files.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    files: BTreeMap<String, Entry>,
    /// The files of a task: several where they name the same key or id.
    by_task: BTreeMap<TaskId, BTreeSet<String>>,
    /// Files whose submission is in the log and not decided.
    by_submission: BTreeMap<Position, String>,
    /// Decisions that were read before the acknowledgement of what they decide.
    early: BTreeMap<Position, Decision>,
    /// Whether any acknowledgement is waited for.
    is_sending: bool,
    /// Files of which something is to be written.
    dirty: BTreeSet<String>,
    /// Files whose task ended before it was followed: its result is to be read.
    unread: BTreeSet<String>,
    /// The last record that was read.
    at: u64,
}

/// What is known of one.
#[derive(Debug)]
struct Entry {
    status: Status,
    /// How the file was when it was last read.
    print: Option<Print>,
    /// Whether it was handed over to be sent: its task may be in the log, whatever was heard of that.
    may_be_sent: bool,
    /// What its attempts left so far.
    found: Found,
    /// Whether some of that came before it was followed.
    has_missed: bool,
    /// Its result, once it has ended.
    result: Option<Value>,
    /// What is wrong with it.
    error: Option<String>,
}

/// What the orchestrator decided, where that is known by the submission alone.
#[derive(Clone, Debug)]
enum Decision {
    Rejected(Vec<FieldError>),
    Duplicate(TaskId),
}

/// What is to be written of a file.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Writing {
    pub(super) name: String,
    /// First, so that whoever reads the status finds it.
    pub(super) result: Option<Value>,
    pub(super) error: Option<String>,
    pub(super) status: Status,
}

/// What becomes of a file that was read.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Claim {
    /// It is this task already.
    Known,
    /// Its status is to be written, and it is then to be submitted.
    Submit(Box<Order>, Status),
}

impl Ledger {
    /// Takes up what an earlier process wrote; returns where the log is to be read from for it.
    pub(super) fn resume(statuses: BTreeMap<String, Status>, last: u64) -> (Self, u64) {
        let mut ledger = Self::default();
        for (name, status) in statuses {
            if !status.is_closed() {
                ledger.index(&name, &status);
            }
            let mut entry = Entry::new(status, None);
            // Nobody knows how far the earlier process came.
            entry.may_be_sent = true;
            ledger.files.insert(name, entry);
        }
        let open = ledger.files.values().filter(|e| !e.status.is_closed());
        let from = open.map(|e| e.status.after_record).min().unwrap_or(last);
        ledger.at = from.min(last);
        let from = ledger.at;
        (ledger, from)
    }

    fn index(&mut self, name: &str, status: &Status) {
        let files = self.by_task.entry(status.id).or_default();
        files.insert(name.to_owned());
        if let Some(submission) = status.submission {
            self.by_submission.insert(submission, name.to_owned());
        }
    }

    fn unindex(&mut self, name: &str, status: &Status) {
        if let Some(files) = self.by_task.get_mut(&status.id) {
            files.remove(name);
            if files.is_empty() {
                self.by_task.remove(&status.id);
            }
        }
        if let Some(submission) = status.submission {
            self.by_submission.remove(&submission);
        }
    }

    /// Whether a file is worth a look: it is new, not submitted yet, or its task has ended.
    pub(super) fn may_want(&self, name: &str) -> bool {
        let is_due = |e: &Entry| e.status.is_closed() || e.status.is_to_submit();
        !self.is_sending && self.files.get(name).is_none_or(is_due)
    }

    /// Whether a file is worth reading, as it is now.
    pub(super) fn wants(&self, name: &str, print: Print) -> bool {
        let is_new = |e: &Entry| e.status.is_to_submit() || e.print != Some(print);
        self.may_want(name) && self.files.get(name).is_none_or(is_new)
    }

    /// A file was read: `order` is its task, with `key` for where it names neither key nor id.
    pub(super) fn claim(
        &mut self,
        name: &str,
        (print, sha256): (Print, String),
        mut order: Order,
        (key, new_id, now_ms): (String, TaskId, UnixMs),
    ) -> Claim {
        let before = self.files.get_mut(name);
        if let Some(before) = before
            && before.status.sha256 == sha256
            && before.status.is_closed()
            && !before.status.file_removed
            && !before.is_tried_again(print)
        {
            before.print = Some(print);
            return Claim::Known;
        }
        let before = self.files.remove(name);
        if let Some(before) = &before {
            self.unindex(name, &before.status);
        }
        // What may be in the log already is submitted as what it was.
        let may_be_sent = before.as_ref().is_some_and(|e| e.may_be_sent);
        let again = before
            .map(|e| e.status)
            .filter(|s| s.is_to_submit() && s.sha256 == sha256);
        let may_be_sent = may_be_sent && again.is_some();
        let submission = &mut order.submission;
        if submission.key.is_none() && submission.id.is_none() {
            let earlier = again.as_ref().and_then(|s| s.key.clone());
            submission.key = Some(earlier.unwrap_or(key));
        }
        let earlier = again
            .as_ref()
            .map(|s| s.id)
            .filter(|id| id.made_at_ms() + ID_AGE_MAX_MS > now_ms);
        let id = *submission.id.get_or_insert(earlier.unwrap_or(new_id));
        let status = Status {
            id,
            state: SUBMITTING.to_owned(),
            attempts: 0,
            queue: order.queue.to_string(),
            key: submission.key.clone(),
            sha256,
            after_record: again.map_or(self.at, |s| s.after_record),
            submission: None,
            file_removed: false,
        };
        self.index(name, &status);
        self.dirty.remove(name);
        self.unread.remove(name);
        let mut entry = Entry::new(status.clone(), Some(print));
        entry.may_be_sent = may_be_sent;
        self.files.insert(name.to_owned(), entry);
        Claim::Submit(Box::new(order), status)
    }

    /// The submissions of these files are on their way: decisions may be read before their
    /// acknowledgements.
    pub(super) fn sending(&mut self, names: &[String]) {
        self.is_sending = true;
        for name in names {
            if let Some(entry) = self.files.get_mut(name) {
                entry.may_be_sent = true;
            }
        }
    }

    /// They are in the log at these places, as far as that is known.
    pub(super) fn sent(&mut self, names: &BTreeMap<Position, String>) {
        for (position, name) in names {
            let Some(entry) = self.files.get_mut(name) else {
                continue;
            };
            if entry.status.is_to_submit() {
                SUBMITTED.clone_into(&mut entry.status.state);
            }
            entry.status.submission = Some(*position);
            if !entry.status.is_closed() && !entry.found.is_accepted {
                self.by_submission.insert(*position, name.clone());
            }
            self.dirty.insert(name.clone());
            if let Some(decision) = self.early.remove(position) {
                self.decided(*position, decision);
            }
        }
        self.not_sent();
    }

    /// Nothing more is waited for; what was not acknowledged is sent again.
    pub(super) fn not_sent(&mut self) {
        self.is_sending = false;
        self.early.clear();
    }

    /// These are all the files there are.
    pub(super) fn only(&mut self, there: &BTreeSet<&str>) {
        let gone = self
            .files
            .iter()
            .filter(|(n, _)| !there.contains(n.as_str()));
        let gone: Vec<String> = gone.map(|(name, _)| name.clone()).collect();
        for name in gone {
            let Some(entry) = self.files.get_mut(&name) else {
                continue;
            };
            // What may have been sent is followed, though its acknowledgement was not heard.
            if entry.status.is_to_submit() && !entry.may_be_sent {
                WITHDRAWN.clone_into(&mut entry.status.state);
                let status = entry.status.clone();
                self.unindex(&name, &status);
                self.dirty.insert(name);
            } else if !entry.status.file_removed {
                entry.status.file_removed = true;
                self.dirty.insert(name);
            }
        }
    }

    /// Files whose task may have ended before it was followed, with the task.
    pub(super) fn take_unread(&mut self) -> Vec<(String, TaskId)> {
        let names = std::mem::take(&mut self.unread).into_iter();
        let with_task = |name: String| Some((self.files.get(&name)?.status.id, name));
        names
            .filter_map(with_task)
            .map(|(id, name)| (name, id))
            .collect()
    }

    /// It could not be read; it is to be tried again.
    pub(super) fn still_unread(&mut self, name: String) {
        self.unread.insert(name);
    }

    /// The whole story of a task was read, which may have ended.
    pub(super) fn was_read(&mut self, name: &str, detail: &Detail) {
        let Some(entry) = self.files.get_mut(name) else {
            return;
        };
        if let Some(state) = detail.value.get("state").and_then(Value::as_str) {
            state.clone_into(&mut entry.status.state);
        }
        let attempts = detail.value.get("attempts").and_then(Value::as_u64);
        entry.status.attempts = u32::try_from(attempts.unwrap_or_default()).unwrap_or(u32::MAX);
        if entry.status.is_closed() {
            entry.result = Some(found::of_detail(detail));
            let status = entry.status.clone();
            self.unindex(name, &status);
        }
        self.dirty.insert(name.to_owned());
    }

    /// Whether anything is to be written or read.
    pub(super) fn has_news(&self) -> bool {
        !self.dirty.is_empty() || !self.unread.is_empty()
    }

    /// Files of which the log, as far as this state goes, should know and does not.
    pub(super) fn unknown_to(&self, state: &State) -> Vec<&str> {
        let is_unknown = |e: &Entry| {
            let is_undecided = e
                .status
                .submission
                .is_some_and(|s| state.intake.contains_key(&s.seq));
            let is_open = !e.status.is_closed() && !e.status.is_to_submit();
            is_open && !is_undecided && !state.knows(e.status.id)
        };
        let unknown = self.files.iter().filter(|(_, e)| is_unknown(e));
        unknown.map(|(name, _)| name.as_str()).collect()
    }

    /// What is to be written since this was last asked.
    pub(super) fn take_writings(&mut self) -> Vec<Writing> {
        let names = std::mem::take(&mut self.dirty);
        let writing = |name: String| {
            let entry = self.files.get(&name)?;
            // What must be read first is said to be over when it was.
            let is_partial = entry.status.is_closed() && self.unread.contains(&name);
            (!is_partial).then(|| Writing {
                result: entry.result.clone(),
                error: entry.error.clone(),
                status: entry.status.clone(),
                name,
            })
        };
        names.into_iter().filter_map(writing).collect()
    }

    /// It was written: of what is over only so much is kept as the file is known by.
    pub(super) fn written(&mut self, writing: &Writing) {
        let Some(entry) = self.files.get_mut(&writing.name) else {
            return;
        };
        let is_same = entry.status == writing.status;
        if !is_same || !entry.status.is_closed() {
            return;
        }
        if entry.status.file_removed || entry.status.state == WITHDRAWN {
            self.files.remove(&writing.name);
        } else {
            entry.result = None;
            entry.error = None;
            entry.found = Found::default();
        }
    }

    /// It could not be written; it is to be tried again.
    pub(super) fn not_written(&mut self, writing: &Writing) {
        self.dirty.insert(writing.name.clone());
    }

    /// How many files have a task that has not ended.
    pub(super) fn open(&self) -> usize {
        self.files
            .values()
            .filter(|e| !e.status.is_closed())
            .count()
    }
}

impl Entry {
    fn new(status: Status, print: Option<Print>) -> Self {
        Self {
            status,
            print,
            may_be_sent: false,
            found: Found::default(),
            has_missed: false,
            result: None,
            error: None,
        }
    }

    /// What was refused is tried again once somebody has touched the file, as it is at every start.
    fn is_tried_again(&self, print: Print) -> bool {
        self.status.state == REJECTED && self.print != Some(print)
    }
}

#[cfg(test)]
mod tests;
