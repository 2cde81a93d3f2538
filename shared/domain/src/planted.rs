//! Bugs on purpose, for the simulation to find: a check that nothing can fail proves nothing.
//!
//! Without the feature `planted-bugs`, which only `tests/simulation` turns on, every question
//! here is a constant no, and the compiler leaves nothing of it.

macro_rules! bugs {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// A bug that can be planted.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
        pub enum Bug {
            $($(#[$doc])* $name,)*
        }

        impl Bug {
            /// Every bug.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];
        }
    };
}

bugs! {
    /// Reports count under any lease.
    LeaseUnchecked,
    /// Decisions count under any epoch.
    EpochUnchecked,
    /// Reports count under any incarnation.
    IncarnationUnchecked,
    /// An append without an answer is taken for stored.
    AckBeforeAppend,
    /// The orchestrator does not note what it has in flight.
    DecidedWithoutOverlay,
    /// The scheduler does not note what it has in flight.
    PlannedWithoutOverlay,
    /// A finished task leaves no tombstone.
    TombstoneDropped,
    /// Tombstones are forgotten, and their ids may be used again.
    FloorNotRaised,
    /// What is due later is not found again after a restart.
    TimerLostOnRestart,
    /// Who waits for whom is not found again after a restart.
    NeedsLostOnRestart,
    /// A snapshot says it stands one record later than it does.
    SnapshotAhead,
    /// A snapshot does not hold everything.
    SnapshotIncomplete,
    /// A retry counts as an attempt.
    RetryCountedTwice,
    /// One more attempt than allowed.
    RetriedTooOften,
    /// A concurrency key is given back twice.
    KeyReleasedTwice,
    /// A concurrency key is not given back.
    KeyKept,
    /// Needs are taken for met.
    NeedsIgnored,
    /// What has ended can end again.
    EndsTwice,
    /// Paused queues go on.
    PauseIgnored,
    /// Labels do not matter.
    LabelsIgnored,
    /// Slots in use count as free.
    SlotsOverbooked,
    /// A decided submission may be decided again.
    SubmissionKept,
    /// Waiting makes up for nothing.
    AgingOff,
    /// Agents do not remember what they were given.
    SeenForgotten,
    /// Nobody notices that an agent is silent.
    SilenceIgnored,
    /// Finished tasks stay for ever.
    NothingExpires,
    /// Cancelled tasks are given to agents.
    CancelIgnored,
    /// Agents are not told of leases that are over.
    RevocationForgotten,
    /// Agents are not told that they were declared lost.
    DismissalForgotten,
    /// A decision that comes back once more counts for the one in flight.
    RepeatBelieved,
    /// A joining or an election that comes late counts, whatever came before it.
    BidUnconditional,
    /// A new incarnation keeps what the earlier one had.
    LeaseSurvivesRejoin,
    /// Questions that nobody answers wait for ever.
    ExpiryForgotten,
    /// An answer that was told is told again.
    AnswerNotForgotten,
    /// A question that was withdrawn stays open.
    WithdrawalIgnored,
    /// What was asked and said under a lease is there after it.
    TalkSurvivesLease,
    /// Waiting for people counts as running.
    WaitCountsAsRunning,
    /// Namespaces may spend anything.
    BudgetIgnored,
    /// Tasks fail for a budget that they should wait for.
    BudgetWaitFails,
    /// A budget that is used up is noted again and again.
    BudgetNotedAgain,
    /// What people allow a namespace to spend is not remembered.
    GrantForgotten,
    /// Named workspaces are entered wherever.
    WorkspaceAnywhere,
    /// Named workspaces are entered while they are on their way out.
    RemovalIgnored,
    /// Agents are not told that a workspace of theirs is to go.
    RemovalForgotten,
    /// Work that is nowhere else keeps no workspace from being removed.
    UnpushedIgnored,
    /// Attempts are not told that what they submitted has ended.
    SubtaskEndForgotten,
    /// What was told of a subtask is told again.
    NewsNotForgotten,
    /// Subtasks go on when their parent is cancelled.
    SubtasksOutliveCancel,
    /// More subtasks than a task may submit.
    SubtasksUnlimited,
}

/// Whether this bug is planted.
#[cfg(not(feature = "planted-bugs"))]
#[inline]
pub const fn is_planted(_: Bug) -> bool {
    false
}

#[cfg(feature = "planted-bugs")]
thread_local! {
    static PLANTED: std::cell::Cell<Option<Bug>> = const { std::cell::Cell::new(None) };
}

/// Whether this bug is planted in this thread.
#[cfg(feature = "planted-bugs")]
pub fn is_planted(bug: Bug) -> bool {
    PLANTED.with(|planted| planted.get() == Some(bug))
}

/// Plants a bug in this thread, or takes it out.
#[cfg(feature = "planted-bugs")]
pub fn plant(bug: Option<Bug>) {
    PLANTED.with(|planted| planted.set(bug));
}
