//! What operators and clients say on the `control` subject.
//!
//! People write these, so JSON and MessagePack are both welcome and `v` may be left
//! out; they are facts in the log nevertheless and follow the rules of events.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::frame::Encoding;
use crate::human::DurationMs;
use crate::ids::{AgentId, Namespace, QueueName, TaskId};
use crate::terms::Answer;
use crate::words::words;

/// A command of an operator or client.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(tag = "type")]
pub enum Control {
    /// End a task, whatever it is doing.
    #[serde(rename = "task.cancel")]
    Cancel {
        /// The task.
        task: TaskId,
        /// For people.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    /// Run a finished task again (also: redrive a dead letter).
    #[serde(rename = "task.retry")]
    Retry {
        /// The task.
        task: TaskId,
    },
    /// Assign nothing more from a queue.
    #[serde(rename = "queue.pause")]
    PauseQueue {
        /// The queue.
        queue: QueueName,
    },
    /// Assign from a paused queue again.
    #[serde(rename = "queue.resume")]
    ResumeQueue {
        /// The queue.
        queue: QueueName,
    },
    /// Assign nothing more to an agent.
    #[serde(rename = "agent.drain")]
    DrainAgent {
        /// The agent.
        agent: AgentId,
    },
    /// Assign to a drained agent again.
    #[serde(rename = "agent.resume")]
    ResumeAgent {
        /// The agent.
        agent: AgentId,
    },
    /// Answer a question of a running attempt.
    #[serde(rename = "approval.decide")]
    Decide {
        /// The task whose attempt asks.
        task: TaskId,
        /// Which of its questions.
        approval: u32,
        /// The answer.
        answer: Answer,
        /// What to say with it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        text: Option<String>,
    },
    /// Tell the model of a running attempt something.
    #[serde(rename = "task.tell")]
    Tell {
        /// The task.
        task: TaskId,
        /// What.
        text: String,
    },
    /// Forget which agent has a named workspace: the next task that works in it begins anew,
    /// wherever it runs.
    #[serde(rename = "workspace.release")]
    ReleaseWorkspace {
        /// Its namespace.
        #[serde(default)]
        namespace: Namespace,
        /// Its name.
        name: String,
    },
    /// Remove a named workspace, with all that is in it, from the agent that has it. Refused while
    /// it holds work that is nowhere else, unless that is given up by name.
    #[serde(rename = "workspace.remove")]
    RemoveWorkspace {
        /// Its namespace.
        #[serde(default)]
        namespace: Namespace,
        /// Its name.
        name: String,
        /// Its name once more: what is nowhere else may be lost.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        discard: Option<String>,
    },
    /// Answer whether a namespace that has used up its budget of the day may spend as much again.
    #[serde(rename = "budget.decide")]
    DecideBudget {
        /// The namespace.
        namespace: Namespace,
        /// The answer.
        answer: Answer,
        /// What to say with it, to whoever reads why a task waits or failed; kept with a no alone.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        text: Option<String>,
    },
    /// Change the cell's settings; what is absent stays as it is.
    #[serde(rename = "config.put")]
    PutConfig(ConfigChange),
}

/// A change of the settings that decisions and folds depend on.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct ConfigChange {
    /// How long an id or key is remembered after its task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotency_window: Option<DurationMs>,
    /// How long a finished task stays in the state in full.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_retention: Option<DurationMs>,
    /// How many finished tasks stay in the state in full.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_max: Option<u64>,
    /// How many ids of ended tasks are remembered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tombstones_max: Option<u64>,
    /// Time after which waiting weighs as much as one level of priority.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aging: Option<DurationMs>,
    /// Backlog cap of queues that have none of their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backlog_max: Option<u64>,
    /// Backlog caps by queue.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub queue_backlog_max: BTreeMap<String, u64>,
    /// Fair-share weights by namespace; absent ones weigh 1.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub namespace_weight: BTreeMap<String, u32>,
    /// Fair-share weights by queue; absent ones weigh 1.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub queue_weight: BTreeMap<String, u32>,
    /// What the tasks of a namespace may spend in a day; one without limits takes a budget away.
    /// What was reached and allowed under the one before is forgotten.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub namespace_budget: BTreeMap<String, NamespaceBudget>,
}

/// What the tasks of a namespace may spend in a day of UTC, and what becomes of those that need a
/// model when it is reached.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct NamespaceBudget {
    /// Money, in US dollars.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usd_per_day: Option<f64>,
    /// Tokens: read, written to a cache, and written; read from a cache are not counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens_per_day: Option<u64>,
    /// Turns of models.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub turns_per_day: Option<u64>,
    /// Time that attempts run which need a model; waiting for people is not running.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_per_day: Option<DurationMs>,
    /// What happens when it is reached; they wait for the next day when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_reached: Option<OnReached>,
}

impl NamespaceBudget {
    /// Whether it limits anything.
    pub fn has_limit(&self) -> bool {
        self.usd_per_day.is_some()
            || self.tokens_per_day.is_some()
            || self.turns_per_day.is_some()
            || self.time_per_day.is_some()
    }
}

words! {
    /// What happens to the tasks of a namespace that need a model when its budget of the day is
    /// used up. Attempts that run go on in any case.
    #[derive(Default)]
    OnReached("policy of a budget") {
        /// They wait for the next day.
        #[default]
        Wait = "wait",
        /// They fail with class `budget`.
        Fail = "fail",
        /// They wait, and people are asked: yes is as much again, no has them fail.
        Ask = "ask",
    }
}

impl Control {
    /// The wire name.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Cancel { .. } => "task.cancel",
            Self::Retry { .. } => "task.retry",
            Self::PauseQueue { .. } => "queue.pause",
            Self::ResumeQueue { .. } => "queue.resume",
            Self::DrainAgent { .. } => "agent.drain",
            Self::ResumeAgent { .. } => "agent.resume",
            Self::Decide { .. } => "approval.decide",
            Self::Tell { .. } => "task.tell",
            Self::ReleaseWorkspace { .. } => "workspace.release",
            Self::RemoveWorkspace { .. } => "workspace.remove",
            Self::DecideBudget { .. } => "budget.decide",
            Self::PutConfig(_) => "config.put",
        }
    }

    /// The task it speaks of.
    pub fn task(&self) -> Option<TaskId> {
        match self {
            Self::Cancel { task, .. }
            | Self::Retry { task }
            | Self::Decide { task, .. }
            | Self::Tell { task, .. } => Some(*task),
            _ => None,
        }
    }

    /// Reads one element of a control record. `v`, where given, must be 1.
    pub fn decode(encoding: Encoding, element: &[u8]) -> Option<Self> {
        #[derive(Deserialize)]
        struct Versioned {
            #[serde(default)]
            v: Option<u64>,
        }
        fn read<'a, T: Deserialize<'a>>(encoding: Encoding, element: &'a [u8]) -> Option<T> {
            match encoding {
                Encoding::Json => serde_json::from_slice(element).ok(),
                Encoding::Msgpack => rmp_serde::from_slice(element).ok(),
            }
        }
        match read::<Versioned>(encoding, element)?.v {
            None | Some(1) => read(encoding, element),
            Some(_) => None,
        }
    }
}
