//! A task as the state knows it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};

use conductor_protocol::compact::{Rare, Usual};
use conductor_protocol::event::Usage;
use conductor_protocol::ids::{AgentId, Lease, Position};
use conductor_protocol::{Outcome, OutcomeClass, TaskId, TaskSpec, UnixMs};
use serde::{Deserialize, Serialize};

use super::people::Approval;
use super::session::Session;
use super::subtasks::Submitted;

/// An accepted task. There may be millions, so it is kept small.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Task {
    /// Where it was submitted; its body is there when the spec holds none.
    pub submission: Position,
    /// When it was accepted.
    pub accepted_ms: UnixMs,
    /// What it is.
    pub spec: Arc<TaskSpec>,
    /// Where it stands.
    pub phase: Phase,
    /// Attempts assigned so far.
    pub attempts: u32,
    /// What is known of few tasks only.
    #[serde(default, skip_serializing_if = "Rare::is_usual")]
    pub aside: Rare<Aside>,
}

/// What is known of few tasks only.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Aside {
    /// Attempts that had been assigned when it was last redriven: the retry policy
    /// counts from there.
    pub attempts_before: u32,
    /// Tasks it needs that have not ended. Not derived: one that was run again by hand has
    /// not ended either, and is waited for no more.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub open_needs: BTreeSet<TaskId>,
    /// The first of its needs that did not succeed.
    pub failed_need: Option<TaskId>,
    /// Why the last attempt did not succeed.
    pub last_failure: Option<Failure>,
    /// Where somebody asked to cancel it.
    pub cancel: Option<Position>,
    /// Where somebody asked to run it again.
    pub redrive: Option<Position>,
    /// What its attempts have used in all, as the last that said so counts it; no figure ever
    /// goes back.
    pub usage: Option<Usage>,
    /// How long attempts that are over ran, in milliseconds; waiting for people is not running.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub ran_ms: u64,
    /// For how much of the time that the attempt ran its namespace was charged, in milliseconds.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub charged_ms: u64,
    /// The session of the last attempt that said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<Session>,
    /// Whether that session was there before the attempt that runs.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub has_session_before: bool,
    /// Until when the model service has no more, where that is why the last attempt ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub throttled_ms: Option<UnixMs>,
    /// Questions of the attempt that runs, by number, until it was told the answer.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub approvals: BTreeMap<u32, Approval>,
    /// The highest number of a question of that attempt.
    #[serde(default, skip_serializing_if = "is_zero_u32")]
    pub asked: u32,
    /// Lower numbers that it has not used: what is void for its format is asked again, and by
    /// then later questions may have counted.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub unasked: BTreeSet<u32>,
    /// What people say to that attempt and it has not been told, by where they said it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub words: BTreeMap<Position, String>,
    /// What became of what that attempt submitted, by its number.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub submitted: BTreeMap<u32, Submitted>,
    /// Tasks that its attempts submitted.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub subtasks: BTreeSet<TaskId>,
    /// How long that attempt has waited for people, until it last went on.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub paused_ms: u64,
    /// Since when it waits for people now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused_since: Option<UnixMs>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero(n: &u64) -> bool {
    *n == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero_u32(n: &u32) -> bool {
    *n == 0
}

impl Usual for Aside {
    fn usual() -> &'static Self {
        static NOTHING: OnceLock<Aside> = OnceLock::new();
        NOTHING.get_or_init(Self::default)
    }
}

/// Why an attempt did not succeed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The class.
    pub class: OutcomeClass,
    /// Which try.
    pub attempt: u32,
    /// Where that was reported.
    pub at: Position,
}

/// Where a task stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// It waits for its needs, its time or its next try.
    Pending {
        /// Not before this time; 0 for at once.
        not_before_ms: UnixMs,
    },
    /// Its last attempt did not succeed, and it is not decided yet what follows.
    Undecided,
    /// It may be assigned.
    Ready {
        /// Since when.
        since_ms: UnixMs,
        /// Since which event: the order within its lane.
        at: Position,
    },
    /// It is assigned.
    Leased(Assigned),
    /// It runs.
    Running {
        /// Where.
        assigned: Assigned,
        /// Since when.
        started_ms: UnixMs,
    },
    /// It ended.
    Ended(Ended),
}

/// An assignment in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assigned {
    /// The agent.
    pub agent: AgentId,
    /// Where in the log: with task and attempt, the lease.
    pub at: Position,
    /// When the task became ready: the queue timeout counts from there.
    pub ready_ms: UnixMs,
    /// When it was assigned.
    pub since_ms: UnixMs,
}

/// How, where and when a task ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// How.
    pub outcome: Outcome,
    /// Why, where it did not succeed.
    pub class: Option<OutcomeClass>,
    /// By which event; its result is there.
    pub at: Position,
    /// When.
    pub at_ms: UnixMs,
}

impl Task {
    /// How it ended.
    pub fn outcome(&self) -> Option<Outcome> {
        match &self.phase {
            Phase::Ended(e) => Some(e.outcome),
            _ => None,
        }
    }

    /// Whether it has ended.
    pub fn is_final(&self) -> bool {
        matches!(self.phase, Phase::Ended(_))
    }

    /// Whether it is neither assigned nor ended.
    pub fn is_waiting(&self) -> bool {
        matches!(
            self.phase,
            Phase::Pending { .. } | Phase::Undecided | Phase::Ready { .. }
        )
    }

    /// Whether it ended otherwise than asked for, and can be redriven.
    pub fn is_dead_letter(&self) -> bool {
        matches!(self.outcome(), Some(Outcome::Failed | Outcome::TimedOut))
    }

    /// The assignment in force.
    pub fn assigned(&self) -> Option<&Assigned> {
        match &self.phase {
            Phase::Leased(assigned) | Phase::Running { assigned, .. } => Some(assigned),
            _ => None,
        }
    }

    /// The current lease.
    pub fn lease(&self, task: TaskId) -> Option<Lease> {
        self.assigned().map(|a| Lease {
            task,
            attempt: self.attempts,
            assigned: a.at,
        })
    }

    /// Attempts since it was accepted or last redriven.
    pub fn attempts_now(&self) -> u32 {
        self.attempts.saturating_sub(self.aside.attempts_before)
    }

    /// The word people see (design section 4).
    pub fn state_name(&self) -> &'static str {
        match &self.phase {
            Phase::Pending { .. } | Phase::Undecided => "pending",
            Phase::Ready { .. } => "ready",
            Phase::Leased(_) => "leased",
            Phase::Running { .. } if self.is_asking() => "awaiting_approval",
            Phase::Running { .. } => "running",
            Phase::Ended(e) => e.outcome.as_str(),
        }
    }
}
