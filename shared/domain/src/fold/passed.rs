//! What ended in a record: for those who measure and trace, who need the times of what the state
//! then forgets.

use conductor_protocol::ids::{AgentId, Position};
use conductor_protocol::{OutcomeClass, TaskId, UnixMs};

use crate::state::Outcome;

/// An attempt ended, or a task, or both by one event.
#[derive(Clone, Debug, PartialEq)]
pub struct Passed {
    /// By which event.
    pub at: Position,
    /// When.
    pub time_ms: UnixMs,
    /// The task.
    pub task: TaskId,
    /// Why, where it did not succeed.
    pub class: Option<OutcomeClass>,
    /// The attempt that ended.
    pub attempt: Option<PastAttempt>,
    /// How the task ended, if it did.
    pub end: Option<PastTask>,
}

/// An attempt that ended.
#[derive(Clone, Debug, PartialEq)]
pub struct PastAttempt {
    /// Which try, from 1.
    pub number: u32,
    /// The agent.
    pub agent: AgentId,
    /// Where it was assigned.
    pub assigned: Position,
    /// When the task had become ready for it.
    pub ready_ms: UnixMs,
    /// When it was assigned.
    pub assigned_ms: UnixMs,
    /// When it began, if it did.
    pub started_ms: Option<UnixMs>,
    /// Whether its agent was about to leave, or left, of its own accord.
    pub agent_was_leaving: bool,
}

/// A task that ended.
#[derive(Clone, Debug, PartialEq)]
pub struct PastTask {
    /// How.
    pub outcome: Outcome,
    /// When it was accepted, or last run again by hand.
    pub accepted_ms: UnixMs,
}
