//! What tasks an attempt may submit.

use serde::{Deserialize, Serialize};

use super::Budget;
use crate::ids::QueueName;
use crate::spec::Runtime;

/// What tasks the attempts of a task may submit. Whatever it says, a subtask is boxed in as its
/// parent, shares its namespace and gets nothing that its parent has not.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct SubtaskSpec {
    /// How many, over all its attempts.
    pub max: u32,
    /// How deep: 1 when absent, which lets none of them submit any.
    pub depth: u32,
    /// Queues they may go to besides the parent's own.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub queues: Vec<String>,
    /// What they may run besides commands and what the parent itself runs: with another model comes
    /// another key.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub runtimes: Vec<Runtime>,
    /// What each may spend; that of the parent when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub budget: Option<Budget>,
}

impl Default for SubtaskSpec {
    fn default() -> Self {
        Self {
            max: 16,
            depth: 1,
            queues: Vec::new(),
            runtimes: Vec::new(),
            budget: None,
        }
    }
}

impl SubtaskSpec {
    /// Whether a subtask may go to this queue.
    pub fn allows_queue(&self, parents: &QueueName, queue: &str) -> bool {
        parents.as_str() == queue || self.queues.iter().any(|q| q == queue)
    }

    /// Whether a subtask may be of this runtime.
    pub fn allows_runtime(&self, parents: Runtime, runtime: Runtime) -> bool {
        let is_plain = matches!(runtime, Runtime::Command | Runtime::Noop);
        is_plain || runtime == parents || self.runtimes.contains(&runtime)
    }
}
