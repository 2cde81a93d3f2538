//! What the tools can do, as whoever runs the attempt does it.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use conductor_protocol::TaskId;
use conductor_protocol::event::FieldError;
use conductor_protocol::terms::Answer;
use serde::Serialize;
use serde_json::Value;

use crate::input::{AttachArtifact, Complete, ReportProgress};

/// An attempt, for the tools that its program calls. Errors are for the program to read: each names
/// a field of what was called, and what would do instead. Every call may be dropped at any time, when
/// its caller has gone.
#[async_trait]
pub trait Attempt: fmt::Debug + Send + Sync + 'static {
    /// Takes in how far it is. It may be said at any rate; the newest is passed on.
    fn report(&self, progress: ReportProgress) -> Result<(), FieldError>;

    /// Keeps a file of its workspace as it is now; returns once it is safe.
    async fn attach(&self, file: AttachArtifact) -> Result<Attached, FieldError>;

    /// Asks people whether it may do something, or, where `is_open`, whatever it wants to know; returns
    /// when somebody has answered, or nobody did in time. Where the same is being asked already, that
    /// question's answer is waited for.
    async fn ask(&self, text: String, is_open: bool) -> Result<Reply, FieldError>;

    /// Its task, as a program may know it.
    fn task(&self) -> Value;

    /// Takes its result, if that is one its task allows. The last that was taken counts.
    fn complete(&self, result: Complete) -> Result<(), FieldError>;

    /// Its task's own subtasks.
    fn children(&self) -> &dyn Children;
}

/// A file that was kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Attached {
    /// The artifact's name.
    pub name: String,
    /// Bytes.
    pub size: u64,
    /// SHA-256 of them, in hexadecimal.
    pub sha256: String,
}

/// What people answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Reply {
    /// Yes or no.
    pub answer: Answer,
    /// What was said with it.
    pub text: Option<String>,
}

/// The subtasks of an attempt's task.
#[async_trait]
pub trait Children: fmt::Debug + Send + Sync + 'static {
    /// Whether the task may have subtasks at all: only then there are tools for them.
    fn allowed(&self) -> bool;

    /// Submits one; returns once it is known to be accepted. Everything that is wrong with it is said
    /// at once.
    async fn create(&self, submission: Value) -> Result<Created, Vec<FieldError>>;

    /// How one of them is, once it has ended or so long has passed; `None` for whatever is no subtask
    /// of this attempt.
    async fn get(&self, task: TaskId, wait: Duration) -> Option<ChildState>;
}

/// A subtask that was accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Created {
    /// Which of its task's subtasks, from 1.
    pub number: u32,
    /// Its id.
    pub task: TaskId,
}

/// How a subtask is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ChildState {
    /// Its id.
    pub task: TaskId,
    /// Which of its task's subtasks, from 1.
    pub number: u32,
    /// `open` until it has ended, then how it did, such as `succeeded`.
    pub state: String,
    /// Whether it has ended.
    pub is_final: bool,
    /// Its result, once there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub result: Option<String>,
    /// Why it failed, where it did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}
