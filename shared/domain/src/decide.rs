//! What the leading orchestrator decides, given the state, the time and some entropy.

mod budgets;
pub mod due;
mod intake;
mod overlay;
mod subtasks;

use conductor_protocol::event::{
    AgentLost, ApprovalDecided, AttemptTimedOut, AttemptTimeout, CancelCause, Event, LogFormat,
    TaskCancelled, TaskFailed, TaskReady, TaskRedriven, TaskRetrySet, TaskTimedOut, TaskTimeout,
};
use conductor_protocol::ids::{AgentId, Lease};
use conductor_protocol::limits::FORMAT_KNOWN;
use conductor_protocol::{OutcomeClass, TaskId, UnixMs};

pub use overlay::Overlay;

use crate::planted::{Bug, is_planted};
use crate::state::{Agent, State, Task};
use due::Due;

/// Longest that is waited for a model service, in milliseconds: their limits are by the week.
const THROTTLED_MS_MAX: u64 = 8 * 24 * 3_600_000;

/// What one call to [`decide`] is given besides the state.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a> {
    /// Now, by the server's clock as far as it is known.
    pub now_ms: UnixMs,
    /// Agents that gave no sign of life, with the incarnation that fell silent.
    pub silent_agents: &'a [(AgentId, u64)],
    /// Leases whose agents live but no longer name them.
    pub silent_leases: &'a [Lease],
    /// Most events to decide now.
    pub events_max: usize,
}

/// Decides all that is due. What is returned is noted in the overlay and not decided
/// again until its record comes back.
pub fn decide(
    state: &State,
    overlay: &mut Overlay,
    input: Input<'_>,
    entropy: &mut dyn FnMut() -> u64,
) -> Vec<Event> {
    let mut out = Vec::new();
    if let Some(format) = format_due(state).filter(|format| *format > overlay.format) {
        overlay.format = format;
        out.push(LogFormat { format }.into());
    }
    intake::decide(state, overlay, input, &mut out);
    subtasks::decide(state, overlay, input.events_max, &mut out);
    for (agent, incarnation) in input.silent_agents {
        let is_there = state
            .agents
            .get(agent)
            .is_some_and(|a| a.incarnation == *incarnation && a.status.is_there());
        if is_there && overlay.agents.insert(agent.clone()) {
            out.push(
                AgentLost {
                    agent: agent.clone(),
                    incarnation: *incarnation,
                }
                .into(),
            );
        }
    }
    for lease in input.silent_leases {
        let is_current = state
            .tasks
            .get(&lease.task)
            .and_then(|t| t.lease(lease.task));
        if is_current == Some(*lease) && !overlay.tasks.contains_key(&lease.task) {
            let event = Event::from(AttemptTimedOut {
                lease: *lease,
                timeout: AttemptTimeout::Heartbeat,
            });
            overlay.tasks.insert(lease.task, event.clone());
            out.push(event);
        }
    }
    for (due_ms, id) in &state.index.agenda {
        if *due_ms > input.now_ms || out.len() >= input.events_max {
            break;
        }
        if overlay.tasks.contains_key(id) {
            continue;
        }
        let Some(task) = state.tasks.get(id) else {
            continue;
        };
        if let Some(event) = on_task(*id, task, input.now_ms, entropy) {
            if !is_planted(Bug::DecidedWithoutOverlay) {
                overlay.tasks.insert(*id, event.clone());
            }
            out.push(event);
        }
    }
    // Last: of what shall end for another reason that is the better one.
    budgets::decide(state, overlay, input.events_max, &mut out);
    out
}

/// The format that the log can be raised to: the newest that we know, once no agent is there that
/// would stop at it.
fn format_due(state: &State) -> Option<u32> {
    let is_behind = |a: &Agent| a.status.is_there() && a.joined.format < FORMAT_KNOWN;
    (state.format < FORMAT_KNOWN && !state.agents.values().any(is_behind)).then_some(FORMAT_KNOWN)
}

/// When [`decide`] has something to do again, should nothing happen before. Budgets of the day need
/// no time: with a record they are used up, and after midnight there is nothing to decide about
/// them, since what waits is ready.
pub fn next_wake(state: &State, overlay: &Overlay) -> Option<UnixMs> {
    state
        .index
        .agenda
        .iter()
        .find(|(_, id)| !overlay.tasks.contains_key(id))
        .map(|(at, _)| *at)
}

/// The decision a task needs now, if any.
fn on_task(
    id: TaskId,
    task: &Task,
    now_ms: UnixMs,
    entropy: &mut dyn FnMut() -> u64,
) -> Option<Event> {
    let (at, due) = due::next(task)?;
    if at > now_ms {
        return None;
    }
    Some(match due {
        Due::Redrive(control) => TaskRedriven { task: id, control }.into(),
        Due::Cancel(control) => TaskCancelled {
            task: id,
            cause: CancelCause::Control(control),
        }
        .into(),
        Due::AfterFailure(class) => after_failure(id, task, class, now_ms, entropy),
        Due::FailForNeed(need) => TaskFailed {
            task: id,
            class: OutcomeClass::NeedFailed,
            reason: format!("needs {need}, which did not succeed"),
        }
        .into(),
        Due::SkipForNeed(need) => TaskCancelled {
            task: id,
            cause: CancelCause::NeedFailed(need),
        }
        .into(),
        Due::Ready => TaskReady { task: id }.into(),
        Due::TimeOut(timeout) => TaskTimedOut { task: id, timeout }.into(),
        Due::RunTimeout => {
            let lease = task.lease(id)?;
            AttemptTimedOut {
                lease,
                timeout: AttemptTimeout::Run,
            }
            .into()
        }
        Due::Answer(number) | Due::Expire(number) => answer(id, task, number)?.into(),
    })
}

/// What was answered, or what holds when nobody did in time.
fn answer(id: TaskId, task: &Task, number: u32) -> Option<ApprovalDecided> {
    let asked = task.aside.approvals.get(&number)?;
    let reply = asked.reply.clone();
    Some(ApprovalDecided {
        lease: task.lease(id)?,
        approval: number,
        answer: reply.as_ref().map_or(asked.default, |r| r.answer),
        control: reply.as_ref().and_then(|r| r.control),
        text: reply.and_then(|r| r.text),
    })
}

/// Another try, or the end.
fn after_failure(
    id: TaskId,
    task: &Task,
    class: OutcomeClass,
    now_ms: UnixMs,
    entropy: &mut dyn FnMut() -> u64,
) -> Event {
    if let Some(until_ms) = task.aside.throttled_ms {
        return after_throttle(id, task, until_ms, now_ms);
    }
    let policy = &task.spec.retry;
    let made = task.attempts_now();
    let allowed = policy.max_attempts + u32::from(is_planted(Bug::RetriedTooOften));
    if made < allowed && policy.retries(class) {
        let delay_ms = jittered(policy.delay_ms(made), policy.jitter, entropy());
        let at_ms = now_ms.saturating_add(delay_ms);
        return TaskRetrySet {
            task: id,
            attempt: task.attempts,
            at_ms,
            delay_ms,
        }
        .into();
    }
    match class {
        OutcomeClass::Timeout => TaskTimedOut {
            task: id,
            timeout: TaskTimeout::Run,
        }
        .into(),
        OutcomeClass::HeartbeatLost => TaskTimedOut {
            task: id,
            timeout: TaskTimeout::Heartbeat,
        }
        .into(),
        _ => {
            let of = policy.max_attempts;
            let why = if made >= of {
                "no attempt is left"
            } else {
                "its policy does not retry this"
            };
            let reason = format!("attempt {made} of {of} ended as {class}; {why}");
            TaskFailed {
                task: id,
                class,
                reason,
            }
            .into()
        }
    }
}

/// Another try once the model service has more, whatever the policy says of tries.
fn after_throttle(id: TaskId, task: &Task, until_ms: UnixMs, now_ms: UnixMs) -> Event {
    let delay_ms = until_ms.saturating_sub(now_ms).min(THROTTLED_MS_MAX);
    TaskRetrySet {
        task: id,
        attempt: task.attempts,
        at_ms: now_ms.saturating_add(delay_ms),
        delay_ms,
    }
    .into()
}

/// A delay of which the share `jitter` is random: between `delay × (1 - jitter)` and `delay`.
fn jittered(delay_ms: u64, jitter: f64, entropy: u64) -> u64 {
    let spread = (delay_ms as f64 * jitter.clamp(0.0, 1.0)) as u64;
    delay_ms - spread
        + if spread == 0 {
            0
        } else {
            entropy % (spread + 1)
        }
}
