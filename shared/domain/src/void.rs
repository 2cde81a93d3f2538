//! Why an event in the log has no effect.

use serde::{Deserialize, Serialize};

/// What the fold made of one event.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// It changed the state.
    Applied,
    /// It stays in the log without effect, visible in every audit.
    Void(VoidReason),
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $wire:literal,)*) => {
        /// Why an event is void.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
        pub enum VoidReason {
            $($(#[$doc])* #[serde(rename = $wire)] $name,)*
        }

        impl VoidReason {
            /// Every reason.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// The wire name.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $wire,)* }
            }
        }
    };
}

reasons! {
    /// Not a well-formed frame, or a field of the wrong kind.
    Malformed = "malformed",
    /// A kind, or a version of one, that this software does not know.
    UnknownKind = "unknown_kind",
    /// A kind that came with a format the log has not reached.
    FormatNotReached = "format_not_reached",
    /// Not a subject of this cell, or a kind its writer may not write.
    WrongWriter = "wrong_writer",
    /// A decision under an epoch that is over, or under none.
    StaleEpoch = "stale_epoch",
    /// A report of an earlier incarnation of the agent, or for another one.
    StaleIncarnation = "stale_incarnation",
    /// An agent that never joined.
    UnknownAgent = "unknown_agent",
    /// An agent that left or was declared lost.
    AgentGone = "agent_gone",
    /// An agent that takes nothing more.
    AgentDraining = "agent_draining",
    /// A task that never was, or has left the state.
    UnknownTask = "unknown_task",
    /// A submission that is not there or already decided.
    SubmissionDecided = "submission_decided",
    /// The same thing again: a task id, a key, a start, a request.
    Duplicate = "duplicate",
    /// A task that has ended.
    AlreadyFinal = "already_final",
    /// A task that has not ended.
    NotFinal = "not_final",
    /// A task that is not in the state the event speaks of.
    NotPending = "not_pending",
    /// A task that may not be assigned.
    NotReady = "not_ready",
    /// An attempt number that is not the next, or not the last.
    WrongAttempt = "wrong_attempt",
    /// A task one of whose needs has not ended, or not well.
    NeedsUnmet = "needs_unmet",
    /// A task somebody asked to cancel.
    CancelRequested = "cancel_requested",
    /// Nobody asked for it.
    NotRequested = "not_requested",
    /// A queue that is paused.
    QueuePaused = "queue_paused",
    /// An agent without the slots.
    NoCapacity = "no_capacity",
    /// Something that the task's terms do not allow.
    NotAllowed = "not_allowed",
    /// An agent without a required label, the runtime or the sandbox.
    NotCapable = "not_capable",
    /// A concurrency key at its limit.
    KeySaturated = "key_saturated",
    /// A namespace that has spent what it may spend in a day.
    BudgetReached = "budget_reached",
    /// A namespace that has not spent what it may spend in a day, or whose budget is another by now.
    BudgetNotReached = "budget_not_reached",
    /// A named workspace that another agent has.
    WorkspaceElsewhere = "workspace_elsewhere",
    /// A named workspace that another task works in, or that is on its way out.
    WorkspaceBusy = "workspace_busy",
    /// A named workspace that holds work which is nowhere else, and was not given up by name.
    WorkspaceUnpushed = "workspace_unpushed",
    /// A report under a lease that is not the task's current one.
    LeaseNotCurrent = "lease_not_current",
    /// A lease the agent does not hold, or that is not over.
    LeaseUnknown = "lease_unknown",
    /// A question that is not there, or an answer that is not the one that was given.
    NotAsked = "not_asked",
    /// A question that was answered already.
    Answered = "answered",
    /// It changes nothing.
    NoChange = "no_change",
}

impl std::fmt::Display for VoidReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}
