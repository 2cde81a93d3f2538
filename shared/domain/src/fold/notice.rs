//! What submitters who named a reply subject are told. Only the leader tells it.

use conductor_protocol::event::FieldError;
use conductor_protocol::ids::Position;
use conductor_protocol::{OutcomeClass, TaskId};

use crate::state::Outcome;
use crate::void::VoidReason;

/// A word for a reply subject.
#[derive(Clone, Debug, PartialEq)]
pub struct Notice {
    /// Where to.
    pub reply: String,
    /// What.
    pub word: Word,
}

/// What happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Word {
    /// A submission became a task.
    Accepted {
        /// Where it was submitted.
        submission: Position,
        /// The task.
        task: TaskId,
    },
    /// A submission already was a task.
    Duplicate {
        /// Where it was submitted.
        submission: Position,
        /// The task there already was.
        task: TaskId,
    },
    /// A submission was refused.
    Rejected {
        /// Where it was submitted.
        submission: Position,
        /// Everything that was wrong.
        errors: Vec<FieldError>,
    },
    /// A task ended.
    Ended {
        /// The task.
        task: TaskId,
        /// How.
        outcome: Outcome,
        /// Why, where it did not succeed.
        class: Option<OutcomeClass>,
        /// By which event.
        at: Position,
        /// Its result.
        result: Option<String>,
    },
    /// A record of submissions or commands could not be read at all.
    Unreadable {
        /// Where it stands.
        at: Position,
    },
    /// A control command was folded.
    Control {
        /// Where it stands.
        at: Position,
        /// Whether it had an effect.
        ruling: Result<(), VoidReason>,
    },
}

impl Word {
    /// The word as JSON.
    pub fn to_json(&self) -> serde_json::Value {
        use serde_json::json;
        match self {
            Self::Accepted { submission, task } => {
                json!({"type": "accepted", "submission": submission, "task": task})
            }
            Self::Duplicate { submission, task } => {
                json!({"type": "duplicate", "submission": submission, "task": task})
            }
            Self::Rejected { submission, errors } => {
                json!({"type": "rejected", "submission": submission, "errors": errors})
            }
            Self::Ended {
                task,
                outcome,
                class,
                at,
                result,
            } => json!({
                "type": "ended", "task": task, "outcome": outcome, "class": class, "at": at,
                "result": result,
            }),
            Self::Unreadable { at } => {
                let error = FieldError::new(
                    "payload",
                    "is neither JSON nor MessagePack, or cut short",
                    "an object, or an array of objects; `Content-Type` may say which",
                );
                json!({"type": "rejected", "submission": at, "errors": [error]})
            }
            Self::Control { at, ruling } => match ruling {
                Ok(()) => json!({"type": "applied", "at": at}),
                Err(reason) => json!({"type": "void", "at": at, "reason": reason}),
            },
        }
    }
}
