//! Decisions of the leading scheduler: the only words an agent ever hears.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::FieldError;
use crate::class::{Outcome, OutcomeClass};
use crate::compact::{Pairs, Rare};
use crate::ids::{Lease, Namespace, Position, QueueName, TaskId};
use crate::spec::{RunSpec, Timeouts};
use crate::terms::{Answer, Before, Terms};

/// An agent shall run an attempt. The event's position completes the lease.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct AttemptAssigned {
    /// The task.
    pub task: TaskId,
    /// Which try, from 1.
    pub attempt: u32,
    /// The incarnation of the agent it is meant for.
    pub incarnation: u64,
    /// Slots it takes.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub slots: u32,
    /// What to run.
    pub run: Arc<RunSpec>,
    /// Run and heartbeat timeouts.
    #[serde(default, skip_serializing_if = "Rare::is_usual")]
    pub timeouts: Rare<Timeouts>,
    /// The task's queue, for the program's environment.
    pub queue: QueueName,
    /// The task's namespace, for the program's environment.
    #[serde(default)]
    pub namespace: Namespace,
    /// The task's name, for the program's environment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Arc<str>>,
    /// The submitter's notes.
    #[serde(default, skip_serializing_if = "Pairs::is_empty")]
    pub metadata: Pairs,
    /// W3C trace context.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<Arc<str>>,
    /// What the task asks for beyond what it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terms: Option<Arc<Terms>>,
    /// What is known of earlier attempts, where there is anything to go on from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Box<Before>>,
    /// Results of the tasks it needed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inputs: Vec<Input>,
}

/// The result of a task that another needed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Input {
    /// The task.
    pub task: TaskId,
    /// What people call it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Arc<str>>,
    /// Its result, as it stands in the log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<String>,
}

/// A word for an attempt that runs: what somebody decided, or tells it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct AttemptTold {
    /// The lease.
    pub lease: Lease,
    /// The incarnation of the agent it is meant for.
    pub incarnation: u64,
    /// The word.
    pub word: Word,
}

/// What an attempt is told.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Word {
    /// A question of its was answered.
    Decision {
        /// Which question.
        approval: u32,
        /// The answer.
        answer: Answer,
        /// What was said with it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        text: Option<String>,
    },
    /// Somebody tells the model something.
    Text {
        /// Where that was asked for.
        control: Position,
        /// What.
        text: String,
    },
    /// What became of a task that it submitted.
    Subtask {
        /// Which of its submissions.
        number: u32,
        /// What.
        news: SubtaskNews,
    },
}

/// What became of a task that an attempt submitted. Of several only the newest is told.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SubtaskNews {
    /// It is a task.
    Accepted {
        /// Which.
        task: TaskId,
    },
    /// It is none.
    Rejected {
        /// Every field that is wrong.
        errors: Vec<FieldError>,
    },
    /// It has ended.
    Ended {
        /// Which task.
        task: TaskId,
        /// How.
        outcome: Outcome,
        /// Why, where it did not succeed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        class: Option<OutcomeClass>,
        /// Its result, as it stands in the log.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        result: Option<String>,
    },
}

fn one() -> u32 {
    1
}
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_one(n: &u32) -> bool {
    *n == 1
}

/// Why an agent shall stop an attempt.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RevokeReason {
    /// The task was cancelled.
    Cancelled,
    /// A timeout ended the attempt or the task.
    TimedOut,
    /// The assignment came too late and never counted.
    Void,
    /// The lease is over for another reason.
    LeaseOver,
}

/// An agent shall stop an attempt whose lease is over.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct AttemptRevoked {
    /// The lease.
    pub lease: Lease,
    /// The incarnation of the agent it is meant for.
    pub incarnation: u64,
    /// Why.
    pub reason: RevokeReason,
}

/// An agent was declared lost, or another process took its name; should it still be there,
/// it shall stop what it runs, and in the first case join anew.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct AgentDismissed {
    /// The incarnation that is meant.
    pub incarnation: u64,
    /// Whether another process has its name now.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub replaced: bool,
}

/// An agent shall remove a named workspace that it has, with all that is in it, and say so by
/// `workspace.removed`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct WorkspaceDropped {
    /// Its namespace.
    pub namespace: Namespace,
    /// Its name.
    pub name: String,
    /// The incarnation of the agent it is meant for.
    pub incarnation: u64,
    /// Where that was asked for: by it the same word is known should it come again, when
    /// another workspace may have the name.
    pub control: Position,
}
