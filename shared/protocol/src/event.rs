//! Events: past-tense facts that the actors append.
//!
//! Every event is a map that begins `{type, v, …}`: an explicit wire name and schema
//! number, never reused. Unknown fields are ignored, unknown kinds are void.

mod agent;
mod leader;
mod orchestrator;
mod peek;
mod quick;
mod scheduler;
mod usage;

pub use agent::{
    AgentDraining, AgentJoined, AgentLeft, ApprovalRequested, ApprovalWithdrawn, AttemptArtifact,
    AttemptChanged, AttemptFailed, AttemptProgress, AttemptStarted, AttemptStopped,
    AttemptSubmitted, AttemptSucceeded, AttemptThrottled, AttemptUsage, OutputStats, Question,
    Usage, WorkspaceRemoved,
};
pub use leader::LeaderElected;
pub use orchestrator::{
    AgentLost, ApprovalDecided, AttemptTimedOut, AttemptTimeout, BudgetReached, CancelCause,
    DayLimit, DaySpent, FieldError, LogFormat, TaskAccepted, TaskCancelled, TaskDuplicate,
    TaskFailed, TaskReady, TaskRedriven, TaskRejected, TaskRetrySet, TaskTimedOut, TaskTimeout,
};
pub use scheduler::{
    AgentDismissed, AttemptAssigned, AttemptRevoked, AttemptTold, Input, RevokeReason, SubtaskNews,
    Word, WorkspaceDropped,
};

pub use peek::{Peek, peek};

use crate::ids::TaskId;
use crate::msgpack::{self, Reader};

/// Who may write an event.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Writer {
    /// The leading orchestrator.
    Orchestrator,
    /// The leading scheduler.
    Scheduler,
    /// An agent, about itself and its attempts.
    Agent,
    /// Whoever takes a role.
    Leader,
}

/// Why bytes are not an event this software knows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EventError {
    /// Not a map with `type` and `v`, or a field of the wrong kind.
    #[error("malformed event")]
    Malformed,
    /// A kind or version of it that this software does not know.
    #[error("unknown event {kind} v{v}")]
    Unknown {
        /// The wire name.
        kind: String,
        /// The schema number.
        v: u64,
    },
}

macro_rules! events {
    ($($name:literal v $v:literal $writer:ident => $variant:ident($ty:ident)),* $(,)?) => {
        /// An event of any kind.
        #[derive(Clone, PartialEq, Debug)]
        pub enum Event {
            $(#[doc = concat!("`", $name, "` v", stringify!($v), ".")] $variant($ty),)*
        }

        impl Event {
            /// Wire name and schema number of every event there is.
            pub const KINDS: &'static [(&'static str, u64)] = &[$(($name, $v)),*];

            /// The wire name.
            pub fn kind(&self) -> &'static str {
                match self { $(Self::$variant(_) => $name,)* }
            }

            /// The schema number.
            pub fn version(&self) -> u64 {
                match self { $(Self::$variant(_) => $v,)* }
            }

            /// Who may write it.
            pub fn writer(&self) -> Writer {
                match self { $(Self::$variant(_) => Writer::$writer,)* }
            }

            fn write_body(&self, out: &mut Vec<u8>) -> Result<(), rmp_serde::encode::Error> {
                match self { $(Self::$variant(e) => rmp_serde::encode::write_named(out, e),)* }
            }

            fn from_map(kind: &str, v: u64, map: &[u8]) -> Result<Self, EventError> {
                match (kind, v) {
                    $(($name, $v) => rmp_serde::from_slice(map)
                        .map(Self::$variant)
                        .map_err(|_| EventError::Malformed),)*
                    _ => Err(EventError::Unknown { kind: kind.to_owned(), v }),
                }
            }

            /// The event as JSON, for people.
            pub fn to_json(&self) -> serde_json::Value {
                let body = match self { $(Self::$variant(e) => serde_json::to_value(e),)* };
                let mut map = serde_json::Map::new();
                map.insert("type".into(), self.kind().into());
                map.insert("v".into(), self.version().into());
                if let Ok(serde_json::Value::Object(fields)) = body {
                    map.extend(fields);
                }
                serde_json::Value::Object(map)
            }
        }

        $(impl From<$ty> for Event {
            fn from(e: $ty) -> Self { Self::$variant(e) }
        })*
    };
}

events! {
    "log.format" v 1 Orchestrator => LogFormat(LogFormat),
    "task.accepted" v 1 Orchestrator => TaskAccepted(TaskAccepted),
    "task.rejected" v 1 Orchestrator => TaskRejected(TaskRejected),
    "task.duplicate" v 1 Orchestrator => TaskDuplicate(TaskDuplicate),
    "task.ready" v 1 Orchestrator => TaskReady(TaskReady),
    "task.retry_set" v 1 Orchestrator => TaskRetrySet(TaskRetrySet),
    "task.failed" v 1 Orchestrator => TaskFailed(TaskFailed),
    "task.timed_out" v 1 Orchestrator => TaskTimedOut(TaskTimedOut),
    "task.cancelled" v 1 Orchestrator => TaskCancelled(TaskCancelled),
    "task.redriven" v 1 Orchestrator => TaskRedriven(TaskRedriven),
    "attempt.timed_out" v 1 Orchestrator => AttemptTimedOut(AttemptTimedOut),
    "agent.lost" v 1 Orchestrator => AgentLost(AgentLost),
    "attempt.assigned" v 1 Scheduler => AttemptAssigned(AttemptAssigned),
    "attempt.revoked" v 1 Scheduler => AttemptRevoked(AttemptRevoked),
    "agent.dismissed" v 1 Scheduler => AgentDismissed(AgentDismissed),
    "agent.joined" v 1 Agent => AgentJoined(AgentJoined),
    "agent.draining" v 1 Agent => AgentDraining(AgentDraining),
    "agent.left" v 1 Agent => AgentLeft(AgentLeft),
    "attempt.started" v 1 Agent => AttemptStarted(AttemptStarted),
    "attempt.progress" v 1 Agent => AttemptProgress(AttemptProgress),
    "attempt.usage" v 1 Agent => AttemptUsage(AttemptUsage),
    "attempt.succeeded" v 1 Agent => AttemptSucceeded(AttemptSucceeded),
    "attempt.failed" v 1 Agent => AttemptFailed(AttemptFailed),
    "attempt.stopped" v 1 Agent => AttemptStopped(AttemptStopped),
    "attempt.artifact" v 1 Agent => AttemptArtifact(AttemptArtifact),
    "attempt.changed" v 1 Agent => AttemptChanged(AttemptChanged),
    "attempt.throttled" v 1 Agent => AttemptThrottled(AttemptThrottled),
    "attempt.submitted" v 1 Agent => AttemptSubmitted(AttemptSubmitted),
    "approval.requested" v 1 Agent => ApprovalRequested(ApprovalRequested),
    "approval.withdrawn" v 1 Agent => ApprovalWithdrawn(ApprovalWithdrawn),
    "approval.decided" v 1 Orchestrator => ApprovalDecided(ApprovalDecided),
    "budget.reached" v 1 Orchestrator => BudgetReached(BudgetReached),
    "attempt.told" v 1 Scheduler => AttemptTold(AttemptTold),
    "workspace.dropped" v 1 Scheduler => WorkspaceDropped(WorkspaceDropped),
    "workspace.removed" v 1 Agent => WorkspaceRemoved(WorkspaceRemoved),
    "leader.elected" v 1 Leader => LeaderElected(LeaderElected),
}

impl Event {
    /// Appends the event's bytes: `{type, v, …fields}`.
    pub fn encode_into(&self, out: &mut Vec<u8>) {
        let start = out.len();
        // The header of the map is known once the fields are written.
        msgpack::put_map(out, 0);
        msgpack::put_short_str(out, "type");
        msgpack::put_short_str(out, self.kind());
        msgpack::put_short_str(out, "v");
        msgpack::put_uint(out, self.version());
        let body = out.len();
        // Serialising our own plain structs into memory has no way to fail; an event without
        // fields stands in so that even then the log stays well-formed.
        let fields = match self.write_body(out) {
            Ok(()) => msgpack::map_at(out, body).ok().flatten(),
            Err(_) => None,
        };
        let fields = if let Some((fields, first)) = fields {
            out.drain(body..first);
            fields
        } else {
            out.truncate(body);
            0
        };
        msgpack::set_map(out, start, fields + 2);
    }

    /// The format the log must have reached for this kind to count (design section 2).
    pub fn since_format(&self) -> u32 {
        match self {
            Self::AttemptArtifact(_)
            | Self::AttemptChanged(_)
            | Self::AttemptThrottled(_)
            | Self::AttemptSubmitted(_)
            | Self::ApprovalRequested(_)
            | Self::ApprovalWithdrawn(_)
            | Self::ApprovalDecided(_)
            | Self::BudgetReached(_)
            | Self::AttemptTold(_)
            | Self::WorkspaceDropped(_)
            | Self::WorkspaceRemoved(_) => 2,
            _ => crate::limits::FORMAT_FIRST,
        }
    }

    /// The task it speaks of.
    pub fn task(&self) -> Option<TaskId> {
        match self {
            Self::TaskAccepted(e) => Some(e.task),
            Self::TaskDuplicate(e) => Some(e.task),
            Self::TaskReady(e) => Some(e.task),
            Self::TaskRetrySet(e) => Some(e.task),
            Self::TaskFailed(e) => Some(e.task),
            Self::TaskTimedOut(e) => Some(e.task),
            Self::TaskCancelled(e) => Some(e.task),
            Self::TaskRedriven(e) => Some(e.task),
            Self::AttemptTimedOut(e) => Some(e.lease.task),
            Self::AttemptAssigned(e) => Some(e.task),
            Self::AttemptRevoked(e) => Some(e.lease.task),
            Self::AttemptStarted(e) => Some(e.lease.task),
            Self::AttemptProgress(e) => Some(e.lease.task),
            Self::AttemptUsage(e) => Some(e.lease.task),
            Self::AttemptSucceeded(e) => Some(e.lease.task),
            Self::AttemptFailed(e) => Some(e.lease.task),
            Self::AttemptStopped(e) => Some(e.lease.task),
            Self::AttemptArtifact(e) => Some(e.lease.task),
            Self::AttemptChanged(e) => Some(e.lease.task),
            Self::AttemptThrottled(e) => Some(e.lease.task),
            Self::AttemptSubmitted(e) => Some(e.lease.task),
            Self::ApprovalRequested(e) => Some(e.lease.task),
            Self::ApprovalWithdrawn(e) => Some(e.lease.task),
            Self::ApprovalDecided(e) => Some(e.lease.task),
            Self::AttemptTold(e) => Some(e.lease.task),
            Self::LogFormat(_)
            | Self::TaskRejected(_)
            | Self::AgentLost(_)
            | Self::BudgetReached(_)
            | Self::AgentDismissed(_)
            | Self::AgentJoined(_)
            | Self::AgentDraining(_)
            | Self::AgentLeft(_)
            | Self::WorkspaceDropped(_)
            | Self::WorkspaceRemoved(_)
            | Self::LeaderElected(_) => None,
        }
    }

    /// The lease that an agent's report is of.
    pub fn lease(&self) -> Option<&crate::ids::Lease> {
        match self {
            Self::AttemptStarted(e) => Some(&e.lease),
            Self::AttemptProgress(e) => Some(&e.lease),
            Self::AttemptUsage(e) => Some(&e.lease),
            Self::AttemptSucceeded(e) => Some(&e.lease),
            Self::AttemptFailed(e) => Some(&e.lease),
            Self::AttemptStopped(e) => Some(&e.lease),
            Self::AttemptArtifact(e) => Some(&e.lease),
            Self::AttemptChanged(e) => Some(&e.lease),
            Self::AttemptThrottled(e) => Some(&e.lease),
            Self::AttemptSubmitted(e) => Some(&e.lease),
            Self::ApprovalRequested(e) => Some(&e.lease),
            Self::ApprovalWithdrawn(e) => Some(&e.lease),
            _ => None,
        }
    }

    /// The event's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(128);
        self.encode_into(&mut out);
        out
    }

    /// Reads the event that stands first in `bytes`, where it is of a frequent kind and just as
    /// our own encoder writes it; says how many bytes it takes.
    pub fn first_of(bytes: &[u8]) -> Option<(Self, usize)> {
        let (kind, v) = kind_and_version(bytes)?;
        quick::read(kind, v, bytes)
    }

    /// Reads one event from the bytes of its map.
    pub fn decode(map: &[u8]) -> Result<Self, EventError> {
        let (kind, v) = kind_and_version(map).ok_or(EventError::Malformed)?;
        if let Some((event, _)) = quick::read(kind, v, map) {
            return Ok(event);
        }
        Self::from_map(kind, v, map)
    }
}

/// Finds `type` and `v`; ours stand first, so this normally reads two entries.
fn kind_and_version(map: &[u8]) -> Option<(&str, u64)> {
    let mut r = Reader::new(map);
    let (mut kind, mut version) = (None, None);
    for _ in 0..r.map()? {
        match r.key()? {
            b"type" => kind = Some(r.str()?),
            b"v" => version = Some(r.uint()?),
            other => {
                std::str::from_utf8(other).ok()?;
                r.value(1)?;
            }
        }
        if let (Some(kind), Some(version)) = (kind, version) {
            return Some((kind, version));
        }
    }
    None
}
