//! The state: what decisions need, and nothing that the log could not rebuild.

mod budgets;
pub mod index;
mod people;
mod session;
mod slots;
mod snapshot;
mod spend;
mod subtasks;
mod task;
mod workspaces;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use conductor_protocol::event::AgentJoined;
use conductor_protocol::frame::Encoding;
use conductor_protocol::ids::{AgentId, Namespace, Position, QueueName};
use conductor_protocol::subject::Role;
use conductor_protocol::{CellId, TaskId, UnixMs, limits};
use serde::{Deserialize, Serialize};

pub use budgets::{BudgetQuestion, Reached};
pub use conductor_protocol::Outcome;
pub use index::Index;
pub use people::{APPROVALS_MAX, Approval, Reply, WORDS_MAX};
pub use session::Session;
pub use slots::{LeaseState, SlotUse, Slots};
pub use snapshot::{Digest, STATE_VERSION, SnapshotError};
pub(crate) use spend::{DAY_MS, MICROS, needs_a_model};
pub use spend::{Spend, Spent};
pub use subtasks::{News, Submitted, Subtask};
pub use task::{Aside, Assigned, Ended, Failure, Phase, Task};
pub(crate) use workspaces::FORMAT as WORKSPACES_SINCE;
pub use workspaces::{Removal, Workspace, WorkspaceKey};

use crate::config::Config;
use crate::fold::Passed;
use crate::planted::{Bug, is_planted};
use crate::void::VoidReason;

/// The state of a cell after a record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// The cell.
    pub cell: CellId,
    /// Sequence of the last record folded; 0 before the first.
    pub seq: u64,
    /// Latest record time seen: time within the log never goes back.
    pub time_ms: UnixMs,
    /// The log's format.
    pub format: u32,
    /// Settings in force.
    pub config: Config,
    /// Who leads, by role.
    pub leaders: BTreeMap<Role, Leader>,
    /// Submit records with submissions that are not decided yet, by sequence.
    pub intake: BTreeMap<u64, Intake>,
    /// Tasks that have not ended, and ended ones within their retention.
    pub tasks: BTreeMap<TaskId, Box<Task>>,
    /// Outcomes of tasks that have left `tasks`, by id: oldest first.
    pub tombstones: BTreeMap<TaskId, Outcome>,
    /// Tasks that attempts submitted and that are not decided yet, by where they did.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub subtasks: BTreeMap<Position, Subtask>,
    /// Ids made before this time are no longer known, and therefore refused.
    pub id_floor_ms: UnixMs,
    /// Idempotency keys.
    pub keys: BTreeMap<(Namespace, Arc<str>), KeyUse>,
    /// Agents, gone ones included for a while.
    pub agents: BTreeMap<AgentId, Agent>,
    /// Queues that are paused.
    pub paused: BTreeSet<QueueName>,
    /// How many tasks run under each concurrency key.
    pub key_running: BTreeMap<String, u32>,
    /// What was spent on the last day on which anything was.
    #[serde(default)]
    pub spend: Spend,
    /// Who has which named workspace.
    #[serde(default)]
    pub workspaces: BTreeMap<WorkspaceKey, Workspace>,
    /// Counters since the first record.
    pub counters: Counters,
    /// What is derived from the rest.
    #[serde(skip)]
    pub index: Index,
    /// What ended in the record that is being folded; empty between records.
    #[serde(skip)]
    pub(crate) passed: Vec<Passed>,
}

/// Who leads a role.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leader {
    /// Sequence of its election.
    pub epoch: u64,
    /// Who.
    pub holder: String,
    /// Version of its software.
    pub version: String,
}

/// A submit record with submissions that are not decided yet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Intake {
    /// The queue of the subject.
    pub queue: QueueName,
    /// The namespace of the subject, if it names one: its submissions are of no other, and need
    /// tasks of no other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<Namespace>,
    /// The record's time.
    pub time_ms: UnixMs,
    /// How the record is encoded.
    pub encoding: Encoding,
    /// Where verdicts and outcomes are also published.
    pub reply: Option<String>,
    /// W3C trace context.
    pub traceparent: Option<String>,
    /// The record's bytes.
    pub payload: Bytes,
    /// Indices that are not decided yet.
    pub undecided: BTreeSet<u32>,
}

/// An idempotency key in use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyUse {
    /// The task it stands for.
    pub task: TaskId,
    /// Forgotten after this time.
    pub until_ms: UnixMs,
}

/// Whether an agent can be spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AgentStatus {
    /// It takes assignments.
    Up,
    /// It finishes what it has.
    Draining,
    /// It left.
    Left,
    /// It was declared lost.
    Lost,
}

impl AgentStatus {
    /// Whether its reports count.
    pub fn is_there(self) -> bool {
        matches!(self, Self::Up | Self::Draining)
    }

    /// The wire name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Draining => "draining",
            Self::Left => "left",
            Self::Lost => "lost",
        }
    }
}

/// An agent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Agent {
    /// Sequence of its latest `agent.joined`.
    pub incarnation: u64,
    /// What it said of itself then.
    pub joined: AgentJoined,
    /// Whether it can be spoken to.
    pub status: AgentStatus,
    /// When the status last changed.
    pub since_ms: UnixMs,
    /// An operator wants nothing more assigned to it; outlives its restarts.
    pub is_drained: bool,
    /// It was declared lost and has not been told.
    pub is_dismissal_due: bool,
    /// The incarnation whose process another one of the same name took over from, and which
    /// has not been told yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaced: Option<u64>,
    /// What occupies its slots.
    pub slots: Slots,
}

/// Steps from an agent that is free to one that is full, as the scheduler sees it.
const ROOM_STEPS: u32 = 8;

impl Agent {
    /// Slots in use, those of leases that are over but still running included.
    pub fn slots_used(&self) -> u32 {
        if is_planted(Bug::SlotsOverbooked) {
            return 0;
        }
        self.slots.used()
    }

    /// Slots that may be assigned now.
    pub fn slots_free(&self) -> u32 {
        if self.takes_work() {
            self.joined.slots.saturating_sub(self.slots_used())
        } else {
            0
        }
    }

    /// Free slots as far as it matters who is assigned something next: of agents that differ by
    /// less than an eighth of their slots none is better. What is assigned at a time then goes
    /// to few of them, and takes few records to say and to answer (loadtest: half of the load).
    /// Never less than what is free, and 0 only if that is.
    pub fn room(&self, free: u32) -> u32 {
        if free == 0 {
            return 0;
        }
        let (step, used) = (self.room_step(), self.joined.slots.saturating_sub(free));
        self.joined.slots - used / step * step
    }

    /// How many slots are assigned at a time before another agent is better.
    pub fn room_step(&self) -> u32 {
        (self.joined.slots / ROOM_STEPS).max(1)
    }

    /// Whether it may be assigned anything at all.
    pub fn takes_work(&self) -> bool {
        self.status == AgentStatus::Up && !self.is_drained
    }
}

/// Counts since the first record.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Records folded.
    pub records: u64,
    /// Submissions seen.
    pub submitted: u64,
    /// Submissions that became tasks.
    pub accepted: u64,
    /// Submissions refused.
    pub rejected: u64,
    /// Submissions that already were tasks.
    pub duplicates: u64,
    /// Attempts assigned.
    pub attempts: u64,
    /// Retries set.
    pub retries: u64,
    /// Tasks that ended, by outcome.
    pub ended: BTreeMap<Outcome, u64>,
    /// Agents declared lost.
    pub agents_lost: u64,
    /// Void events, by reason.
    pub void: BTreeMap<VoidReason, u64>,
}

impl State {
    /// The state before the first record.
    pub fn new(cell: CellId) -> Self {
        Self {
            cell,
            seq: 0,
            time_ms: 0,
            format: limits::FORMAT_FIRST,
            config: Config::default(),
            leaders: BTreeMap::new(),
            intake: BTreeMap::new(),
            tasks: BTreeMap::new(),
            tombstones: BTreeMap::new(),
            subtasks: BTreeMap::new(),
            id_floor_ms: 0,
            keys: BTreeMap::new(),
            agents: BTreeMap::new(),
            paused: BTreeSet::new(),
            key_running: BTreeMap::new(),
            spend: Spend::default(),
            workspaces: BTreeMap::new(),
            counters: Counters::default(),
            index: Index::default(),
            passed: Vec::new(),
        }
    }

    /// The epoch in force for a role; 0 before the first election.
    pub fn epoch(&self, role: Role) -> u64 {
        self.leaders.get(&role).map_or(0, |l| l.epoch)
    }

    /// How a task ended, if it is known to have.
    pub fn outcome_of(&self, task: TaskId) -> Option<Outcome> {
        match self.tasks.get(&task) {
            Some(t) => t.outcome(),
            None => self.tombstones.get(&task).copied(),
        }
    }

    /// Whether anything is known of a task.
    pub fn knows(&self, task: TaskId) -> bool {
        self.tasks.contains_key(&task) || self.tombstones.contains_key(&task)
    }

    /// How many tasks of a queue wait, for whatever reason.
    pub fn backlog(&self, queue: &QueueName) -> u64 {
        self.index.backlog.get(queue).copied().unwrap_or(0)
    }
}
