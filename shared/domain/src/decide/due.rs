//! What a task needs next, and when: the one place that knows.
//!
//! The same function sets the agenda (so that nothing is searched for), decides, and
//! after a restart finds everything in motion again.

use conductor_protocol::event::TaskTimeout;
use conductor_protocol::ids::Position;
use conductor_protocol::spec::NeedPolicy;
use conductor_protocol::{OutcomeClass, TaskId, UnixMs};

use crate::planted::{Bug, is_planted};
use crate::state::{Phase, Task};

/// The agent enforces the run timeout itself and reports what the program left; the
/// orchestrator steps in this much later, in milliseconds.
pub const RUN_TIMEOUT_GRACE_MS: u64 = 10_000;

/// A decision that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// Somebody asked to run it again.
    Redrive(Position),
    /// Somebody asked to cancel it.
    Cancel(Position),
    /// An attempt ended so: another, or the end.
    AfterFailure(OutcomeClass),
    /// A need did not succeed: fail.
    FailForNeed(TaskId),
    /// A need did not succeed: skip.
    SkipForNeed(TaskId),
    /// It may be assigned.
    Ready,
    /// A timeout ends it.
    TimeOut(TaskTimeout),
    /// A timeout ends its attempt.
    RunTimeout,
    /// Somebody answered this question of its attempt.
    Answer(u32),
    /// Nobody answered this question of its attempt in time.
    Expire(u32),
}

/// What `task` needs next and from when on; 0 for at once.
pub fn next(task: &Task) -> Option<(UnixMs, Due)> {
    if task.is_final() {
        return task.aside.redrive.map(|at| (0, Due::Redrive(at)));
    }
    if let Some(at) = task.aside.cancel {
        return Some((0, Due::Cancel(at)));
    }
    let total = task.spec.timeouts.total.map(|t| {
        (
            task.accepted_ms.saturating_add(t.0),
            Due::TimeOut(TaskTimeout::Total),
        )
    });
    soonest(in_phase(task), total)
}

fn in_phase(task: &Task) -> Option<(UnixMs, Due)> {
    let timeouts = &task.spec.timeouts;
    let queue = |since: UnixMs| {
        timeouts
            .queue
            .map(|t| (since.saturating_add(t.0), Due::TimeOut(TaskTimeout::Queue)))
    };
    match &task.phase {
        Phase::Pending { not_before_ms } => {
            match (task.aside.failed_need, task.spec.on_need_failed) {
                (Some(need), NeedPolicy::Fail) => Some((0, Due::FailForNeed(need))),
                (Some(need), NeedPolicy::Skip) => Some((0, Due::SkipForNeed(need))),
                _ => task
                    .aside
                    .open_needs
                    .is_empty()
                    .then_some((*not_before_ms, Due::Ready)),
            }
        }
        Phase::Undecided => {
            let class = task
                .aside
                .last_failure
                .as_ref()
                .map_or(OutcomeClass::AgentLost, |f| f.class);
            Some((0, Due::AfterFailure(class)))
        }
        Phase::Ready { since_ms, .. } => queue(*since_ms),
        Phase::Leased(assigned) => queue(assigned.ready_ms),
        Phase::Running { started_ms, .. } => {
            let run = run_timeout(task, *started_ms).map(|at| (at, Due::RunTimeout));
            soonest(people(task), run)
        }
        Phase::Ended(_) => None,
    }
}

/// When the attempt has run too long; not while it waits for people.
fn run_timeout(task: &Task, started_ms: UnixMs) -> Option<UnixMs> {
    let limit = task.spec.timeouts.run?;
    let allowed = [limit.0, RUN_TIMEOUT_GRACE_MS, task.aside.paused_ms];
    let at = allowed.into_iter().fold(started_ms, u64::saturating_add);
    task.aside.paused_since.is_none().then_some(at)
}

/// What the questions of an attempt need next.
fn people(task: &Task) -> Option<(UnixMs, Due)> {
    let undecided = task.aside.approvals.iter().filter(|(_, a)| !a.is_decided);
    let due = undecided.map(|(number, approval)| match approval.reply {
        Some(_) => (0, Due::Answer(*number)),
        None if is_planted(Bug::ExpiryForgotten) => (UnixMs::MAX, Due::Expire(*number)),
        None => (approval.expires_ms, Due::Expire(*number)),
    });
    due.min_by_key(|(at, _)| *at)
}

fn soonest(a: Option<(UnixMs, Due)>, b: Option<(UnixMs, Due)>) -> Option<(UnixMs, Due)> {
    match (a, b) {
        (Some(a), Some(b)) => Some(if b.0 < a.0 { b } else { a }),
        (a, b) => a.or(b),
    }
}
