//! What the attempt that runs asks people, and what they tell it. All of it ends with its lease.

use conductor_protocol::UnixMs;
use conductor_protocol::event::Question;
use conductor_protocol::ids::Position;
use conductor_protocol::terms::Answer;
use serde::{Deserialize, Serialize};

use super::Task;
use super::subtasks::Submitted;
use super::task::Phase;
use crate::planted::{Bug, is_planted};

/// Most questions of one attempt that are open at once.
pub const APPROVALS_MAX: usize = 16;
/// Most numbers that an attempt may leave out for now.
const UNASKED_MAX: usize = 64;
/// Most words that wait to be told to one attempt.
pub const WORDS_MAX: usize = 16;

/// A question of the attempt that runs; it is there until the attempt was told the answer, or
/// withdrew it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approval {
    /// What about.
    pub question: Question,
    /// For people.
    pub summary: String,
    /// When it was asked.
    pub requested_ms: UnixMs,
    /// Until when an answer is waited for.
    pub expires_ms: UnixMs,
    /// What an answer that does not come means.
    pub default: Answer,
    /// What was answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply: Option<Reply>,
    /// Whether the orchestrator has decided that this is the answer.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_decided: bool,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    /// Yes or no.
    pub answer: Answer,
    /// Where it was given; absent when nobody did in time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub control: Option<Position>,
    /// What was said with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
}

impl Approval {
    /// Whether somebody can still answer.
    pub fn is_open(&self) -> bool {
        self.reply.is_none()
    }
}

impl Task {
    /// Whether its attempt waits for somebody to answer.
    pub fn is_asking(&self) -> bool {
        self.aside.approvals.values().any(|a| !a.is_decided)
    }

    /// Whether its attempt is to be told something.
    pub fn has_words(&self) -> bool {
        let aside = &self.aside;
        !aside.words.is_empty()
            || aside.approvals.values().any(|a| a.is_decided)
            || aside.submitted.values().any(Submitted::is_due)
    }

    /// How long its attempt has not counted as running at a time, because it waited for people.
    pub fn waited_ms(&self, now_ms: UnixMs) -> u64 {
        let since = self.aside.paused_since;
        let now = since.map_or(0, |since| now_ms.saturating_sub(since));
        self.aside.paused_ms.saturating_add(now)
    }

    /// Takes the number of a question: each is used once. `None` for one that leaves out more
    /// than may come later.
    pub(crate) fn take_number(&mut self, number: u32) -> Option<bool> {
        let aside = &mut self.aside;
        if number <= aside.asked {
            return Some(aside.unasked.remove(&number));
        }
        let left_out = aside.asked + 1..number;
        if left_out.len() + aside.unasked.len() > UNASKED_MAX {
            return None;
        }
        aside.unasked.extend(left_out);
        aside.asked = number;
        Some(true)
    }

    /// The attempt asks: while it waits it does not count as running.
    pub(crate) fn ask(&mut self, number: u32, approval: Approval) {
        let since = approval.requested_ms;
        self.aside.approvals.insert(number, approval);
        if !is_planted(Bug::WaitCountsAsRunning) {
            self.aside.paused_since.get_or_insert(since);
        }
    }

    /// The attempt was told an answer, or wants none: once it waits for none it runs again.
    pub(crate) fn close(&mut self, number: u32, now_ms: UnixMs) {
        self.aside.approvals.remove(&number);
        if self.aside.approvals.is_empty() {
            self.aside.paused_ms = self.waited_ms(now_ms);
            self.aside.paused_since = None;
        }
    }

    /// The lease is over, and with it all that was asked and said under it; how long it ran is
    /// kept where there may be another. To be called before the phase changes.
    pub(crate) fn end_talk(&mut self, now_ms: UnixMs, is_success: bool) {
        // Nearly every task succeeds at once, and has nothing to remember.
        let is_plain = self.aside.is_usual();
        if is_success && is_plain {
            return;
        }
        if let Phase::Running { started_ms, .. } = self.phase {
            let took = now_ms.saturating_sub(started_ms);
            let ran = took.saturating_sub(self.waited_ms(now_ms));
            self.aside.ran_ms = self.aside.ran_ms.saturating_add(ran);
        }
        if is_plain {
            return;
        }
        if !is_planted(Bug::TalkSurvivesLease) {
            self.aside.approvals.clear();
            self.aside.words.clear();
            self.aside.submitted.clear();
        }
        self.aside.asked = 0;
        self.aside.unasked.clear();
        self.aside.paused_ms = 0;
        self.aside.paused_since = None;
        self.aside.charged_ms = 0;
    }
}
