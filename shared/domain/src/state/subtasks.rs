//! Tasks that attempts submit, and what they are to be told of them.

use conductor_protocol::event::FieldError;
use conductor_protocol::ids::{Lease, Position};
use conductor_protocol::{Outcome, OutcomeClass, TaskId, UnixMs};
use serde::{Deserialize, Serialize};

use super::Task;

/// What an attempt submitted and nobody has decided yet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Subtask {
    /// The lease of the attempt.
    pub lease: Lease,
    /// Which of its submissions.
    pub number: u32,
    /// When.
    pub time_ms: UnixMs,
    /// The submission, as JSON.
    pub body: String,
}

/// What became of a submission of the attempt that runs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Submitted {
    /// The newest of it; absent until it is decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub news: Option<News>,
    /// Whether the attempt was told that.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_told: bool,
}

/// What an attempt is to be told of a submission of its.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum News {
    /// It is this task.
    Accepted(TaskId),
    /// It is none, for these reasons.
    Rejected(Vec<FieldError>),
    /// It was this task, and that has ended.
    Ended {
        /// Which.
        task: TaskId,
        /// How.
        outcome: Outcome,
        /// Why, where it did not succeed.
        class: Option<OutcomeClass>,
        /// By which event, where that is still known: its result is there.
        at: Option<Position>,
    },
}

impl Submitted {
    /// Whether the attempt is to be told something.
    pub fn is_due(&self) -> bool {
        self.news.is_some() && !self.is_told
    }

    /// There is something new.
    pub(crate) fn is_now(&mut self, news: News) {
        self.news = Some(news);
        self.is_told = false;
    }

    /// Whether it became this task.
    pub(crate) fn is(&self, task: TaskId) -> bool {
        matches!(self.news, Some(News::Accepted(id)) if id == task)
    }
}

impl Task {
    /// The task whose attempt submitted it.
    pub fn parent(&self) -> Option<TaskId> {
        self.spec.terms.as_ref()?.parent
    }
}
