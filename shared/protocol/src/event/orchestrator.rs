//! Decisions of the leading orchestrator.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::class::OutcomeClass;
use crate::control::OnReached;
use crate::ids::{AgentId, Lease, Namespace, Position, TaskId, UnixMs};
use crate::spec::TaskSpec;
use crate::terms::Answer;

/// The log's format is raised: events that came with it count from here on.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LogFormat {
    /// The format from this record on.
    pub format: u32,
}

/// A submission became a task.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct TaskAccepted {
    /// Where it was submitted.
    pub submission: Position,
    /// Its identity.
    pub task: TaskId,
    /// What it is, all defaults resolved; shared with the state.
    pub spec: Arc<TaskSpec>,
}

/// One thing wrong with a submission.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct FieldError {
    /// Path of the field, such as `retry.max_attempts`; empty for the whole submission.
    pub field: String,
    /// What is wrong.
    pub problem: String,
    /// What was expected instead.
    pub expected: String,
}

impl FieldError {
    /// An error at `field`.
    pub fn new(
        field: impl Into<String>,
        problem: impl Into<String>,
        expected: impl Into<String>,
    ) -> Self {
        Self {
            field: field.into(),
            problem: problem.into(),
            expected: expected.into(),
        }
    }
}

impl std::fmt::Display for FieldError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let field = if self.field.is_empty() {
            "submission"
        } else {
            &self.field
        };
        write!(f, "{field}: {}; expected {}", self.problem, self.expected)
    }
}

/// A submission was refused.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TaskRejected {
    /// Where it was submitted.
    pub submission: Position,
    /// Everything that was wrong with it.
    pub errors: Vec<FieldError>,
}

/// A submission named an id or key that is already a task.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TaskDuplicate {
    /// Where it was submitted.
    pub submission: Position,
    /// The task there already was.
    pub task: TaskId,
}

/// A task may be assigned: all it needs has ended, and its time has come.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TaskReady {
    /// The task.
    pub task: TaskId,
}

/// Another attempt will be made.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TaskRetrySet {
    /// The task.
    pub task: TaskId,
    /// The attempt that ended.
    pub attempt: u32,
    /// When the next may start.
    pub at_ms: UnixMs,
    /// The delay that was drawn, jitter included.
    pub delay_ms: u64,
}

/// A task failed for good; it rests as a dead letter.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TaskFailed {
    /// The task.
    pub task: TaskId,
    /// Why.
    pub class: OutcomeClass,
    /// For people.
    pub reason: String,
}

/// Which timeout ended a task.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TaskTimeout {
    /// It waited too long.
    Queue,
    /// Its last allowed attempt ran too long.
    Run,
    /// Its last allowed attempt gave no sign of life.
    Heartbeat,
    /// It took too long in all.
    Total,
}

impl TaskTimeout {
    /// The wire name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queue => "queue",
            Self::Run => "run",
            Self::Heartbeat => "heartbeat",
            Self::Total => "total",
        }
    }
}

/// A task ended by a timeout; it rests as a dead letter.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TaskTimedOut {
    /// The task.
    pub task: TaskId,
    /// Which timeout.
    pub timeout: TaskTimeout,
}

/// Why a task was cancelled.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CancelCause {
    /// Somebody asked.
    Control(Position),
    /// A task it needs did not succeed, and its policy is to skip.
    NeedFailed(TaskId),
}

/// A task was cancelled.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TaskCancelled {
    /// The task.
    pub task: TaskId,
    /// Why.
    pub cause: CancelCause,
}

/// A finished task starts over because somebody asked.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TaskRedriven {
    /// The task.
    pub task: TaskId,
    /// Where that was asked.
    pub control: Position,
}

/// A question of an attempt was answered, or nobody did in time.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ApprovalDecided {
    /// The lease of the attempt that asked.
    pub lease: Lease,
    /// Which question.
    pub approval: u32,
    /// The answer.
    pub answer: Answer,
    /// Where it was given; absent when nobody answered in time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub control: Option<Position>,
    /// What was said with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
}

/// A namespace has used up its budget of the day. Once for each time that it does: what people
/// allowed, and another budget, may be used up in their turn.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct BudgetReached {
    /// The namespace.
    pub namespace: Namespace,
    /// The day, in days since 1970 by UTC.
    pub day: u64,
    /// What it had spent on that day.
    pub spent: DaySpent,
    /// What it might spend, with all that people have allowed.
    pub limit: DayLimit,
    /// What happens now.
    pub on_reached: OnReached,
}

/// What a namespace spent in a day.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct DaySpent {
    /// Money, in millionths of a US dollar.
    pub usd_micros: u64,
    /// Tokens that count.
    pub tokens: u64,
    /// Turns of models.
    pub turns: u64,
    /// How long attempts ran that need a model, in milliseconds.
    pub ran_ms: u64,
}

/// What a namespace may spend in a day.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct DayLimit {
    /// Money, in millionths of a US dollar.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usd_micros: Option<u64>,
    /// Tokens that count.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens: Option<u64>,
    /// Turns of models.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub turns: Option<u64>,
    /// How long attempts may run that need a model, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ran_ms: Option<u64>,
}

/// Which timeout ended an attempt.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AttemptTimeout {
    /// It ran too long.
    Run,
    /// It gave no sign of life.
    Heartbeat,
}

/// An attempt ended by a timeout; the lease is over.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct AttemptTimedOut {
    /// The lease that ends.
    pub lease: Lease,
    /// Which timeout.
    pub timeout: AttemptTimeout,
}

/// An agent gave no sign of life; all its leases are over.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct AgentLost {
    /// The agent.
    pub agent: AgentId,
    /// The incarnation that is lost.
    pub incarnation: u64,
}
