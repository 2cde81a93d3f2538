//! What a replica says of the cell to those who watch: read from its state when they ask.

use std::collections::BTreeMap;
use std::time::Duration;

use conductor_domain::State;
use conductor_domain::fold::Passed;
use conductor_domain::state::{AgentStatus, Outcome};
use conductor_protocol::ids::QueueName;
use conductor_protocol::subject::Role;
use conductor_protocol::{OutcomeClass, TraceContext};
use conductor_telemetry::{Sample, metrics};

use super::ReplicaState;

/// Most queues shown one by one: the longest of them.
const QUEUES_MAX: usize = 100;
/// The queue under which the others are shown together.
const OTHER_QUEUES: &str = "_other";
/// How many of each lane are looked at for the one that has waited longest. Within a lane they
/// stand by rank: what is not among them waits behind so many.
const LANE_LOOK: usize = 1_000;
/// How many of all lanes: whoever decides does nothing else meanwhile.
const LOOK_MAX: usize = 20_000;

/// What a replica says of itself and the cell.
#[derive(Clone, Debug, Default)]
pub struct Measured {
    /// Figures.
    pub samples: Vec<Sample>,
    /// Last record folded.
    pub seq: u64,
    /// Its time.
    pub time_ms: u64,
    /// Roles it stands for.
    pub roles: Vec<Role>,
}

/// Everything, as of now.
pub(super) fn measure(replica: &ReplicaState) -> Measured {
    let state = replica.host.state();
    let mut samples = leaders(replica);
    // What is counted while it catches up is what was, not what is.
    if replica.status.borrow().is_caught_up {
        samples.extend(tasks(state));
        samples.extend(queues(state, replica.server_now_ms()));
        samples.extend(agents(state));
    }
    samples.extend(saved(replica));
    samples.extend(silence(replica));
    Measured {
        samples,
        seq: state.seq,
        time_ms: state.time_ms,
        roles: replica.host.names(),
    }
}

fn tasks(state: &State) -> Vec<Sample> {
    let counters = &state.counters;
    let counter = Sample::counter;
    let ended = |outcome| counters.ended.get(&outcome).copied().unwrap_or(0);
    let failed = ended(Outcome::Failed) + ended(Outcome::TimedOut);
    let kept = state.index.ended.iter();
    let is_dead = |id| state.tasks.get(id).is_some_and(|t| t.is_dead_letter());
    let dead = kept.filter(|(_, id)| is_dead(id)).count();
    let waiting: u64 = state.index.backlog.values().sum();
    let gauge = |name, help, n: u64| Sample::gauge(name, help, n as f64);
    let mut samples = vec![
        counter("tasks", "Tasks accepted", counters.accepted),
        gauge(
            "tasks_completed",
            "Tasks that succeeded so far",
            ended(Outcome::Succeeded),
        ),
        gauge(
            "tasks_failed",
            "Tasks that failed or timed out so far",
            failed,
        ),
        gauge(
            "pending_tasks",
            "Tasks that wait, for whatever reason",
            waiting,
        ),
        counter(
            "conductor_tasks_submitted",
            "Submissions seen",
            counters.submitted,
        ),
        counter(
            "conductor_tasks_rejected",
            "Submissions refused",
            counters.rejected,
        ),
        counter(
            "conductor_tasks_duplicate",
            "Submissions that already were tasks",
            counters.duplicates,
        ),
        counter("conductor_attempts", "Attempts assigned", counters.attempts),
        counter("conductor_retries", "Retries set", counters.retries),
        gauge(
            "conductor_dead_letters",
            "Ended tasks that can be run again and are still kept",
            dead as u64,
        ),
    ];
    for outcome in [
        Outcome::Succeeded,
        Outcome::Failed,
        Outcome::Cancelled,
        Outcome::TimedOut,
    ] {
        let n = ended(outcome);
        let sample = counter("conductor_tasks_finished", "Tasks that ended", n);
        samples.push(sample.label("outcome", outcome.as_str()));
    }
    for reason in conductor_domain::VoidReason::ALL {
        let n = counters.void.get(reason).copied().unwrap_or(0);
        let sample = counter("conductor_void_events", "Events without effect", n);
        samples.push(sample.label("reason", reason.as_str()));
    }
    samples
}

/// Backlog, age and pause of each queue; of very many the longest, and the rest together.
fn queues(state: &State, now_ms: u64) -> Vec<Sample> {
    let mut oldest: BTreeMap<&QueueName, u64> = BTreeMap::new();
    let mut left = LOOK_MAX;
    for (lane, ready) in &state.index.ready {
        let look = ready.len().min(LANE_LOOK).min(left);
        left -= look;
        let looked = ready.iter().take(look);
        let since = looked.filter_map(|(_, _, id)| match state.tasks.get(id)?.phase {
            conductor_domain::state::Phase::Ready { since_ms, .. } => Some(since_ms),
            _ => None,
        });
        if let Some(since) = since.min() {
            let oldest = oldest.entry(&lane.queue).or_insert(since);
            *oldest = since.min(*oldest);
        }
    }
    let mut queues: Vec<(&QueueName, u64)> =
        state.index.backlog.iter().map(|(q, n)| (q, *n)).collect();
    let paused = state.paused.iter();
    queues.extend(
        paused
            .filter(|q| !state.index.backlog.contains_key(*q))
            .map(|q| (q, 0)),
    );
    queues.sort_by_key(|(_, n)| std::cmp::Reverse(*n));
    let rest = queues.split_off(queues.len().min(QUEUES_MAX));
    let age = |queue| {
        let since = oldest.get(queue).copied().unwrap_or(now_ms);
        now_ms.saturating_sub(since) as f64 / 1_000.0
    };
    let mut samples = Vec::new();
    let mut show = |queue: &str, waiting: u64, seconds: f64, is_paused: bool| {
        let of = |name, help, value| Sample::gauge(name, help, value).label("queue", queue);
        samples.extend([
            of("conductor_queue_backlog", "Tasks that wait", waiting as f64),
            of(
                "conductor_queue_oldest_seconds",
                "How long the one has been ready that has waited longest",
                seconds,
            ),
            of(
                "conductor_queue_paused",
                "Whether it is paused",
                f64::from(u8::from(is_paused)),
            ),
        ]);
    };
    for (queue, waiting) in &queues {
        show(
            queue.as_str(),
            *waiting,
            age(queue),
            state.paused.contains(*queue),
        );
    }
    if !rest.is_empty() {
        let waiting = rest.iter().map(|(_, n)| n).sum();
        let seconds = rest.iter().map(|(q, _)| age(q)).fold(0.0, f64::max);
        show(OTHER_QUEUES, waiting, seconds, false);
    }
    samples
}

fn agents(state: &State) -> Vec<Sample> {
    let mut by_status: BTreeMap<&str, u32> = [
        AgentStatus::Up,
        AgentStatus::Draining,
        AgentStatus::Left,
        AgentStatus::Lost,
    ]
    .map(|s| (s.as_str(), 0))
    .into();
    let (mut slots, mut used) = (0, 0);
    for agent in state.agents.values() {
        *by_status.entry(agent.status.as_str()).or_default() += 1;
        if agent.status == AgentStatus::Up {
            slots += agent.joined.slots;
            used += agent.slots_used();
        }
    }
    let up = by_status
        .get(AgentStatus::Up.as_str())
        .copied()
        .unwrap_or(0);
    let mut samples = vec![
        Sample::gauge("workers_active", "Agents that are up", up.into()),
        Sample::gauge(
            "conductor_slots",
            "Slots of agents that are up",
            slots.into(),
        ),
        Sample::gauge("conductor_slots_used", "Slots of them in use", used.into()),
        Sample::counter(
            "conductor_agents_lost",
            "Agents declared lost",
            state.counters.agents_lost,
        ),
    ];
    samples.extend(by_status.into_iter().map(|(status, n)| {
        Sample::gauge("conductor_agents", "Agents that are remembered", n.into())
            .label("status", status)
    }));
    samples
}

fn leaders(replica: &ReplicaState) -> Vec<Sample> {
    let state = replica.host.state();
    let mut samples = Vec::new();
    for role in Role::ALL {
        let epoch = state.epoch(role) as f64;
        let help = "Epoch of the role's leader, 0 before the first";
        samples.push(
            Sample::gauge("conductor_leader_epoch", help, epoch).label("role", role.as_str()),
        );
    }
    for role in replica.host.names() {
        let leads = f64::from(u8::from(replica.host.leads(role)));
        let help = "Whether this process leads the role";
        samples
            .push(Sample::gauge("conductor_is_leader", help, leads).label("role", role.as_str()));
    }
    samples
}

fn saved(replica: &ReplicaState) -> Vec<Sample> {
    let saved = *replica
        .saved
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    let Some((at, bytes)) = saved else {
        return Vec::new();
    };
    vec![
        Sample::gauge(
            "conductor_snapshot_age_seconds",
            "How long ago this process saved a snapshot",
            at.elapsed().as_secs_f64(),
        ),
        Sample::gauge("conductor_snapshot_bytes", "Its size", bytes as f64),
    ]
}

/// Only whoever hears heartbeats can tell.
fn silence(replica: &ReplicaState) -> Option<Sample> {
    let state = replica.host.state();
    let up = replica.beats.iter().filter(|(id, _)| {
        let agent = state.agents.get(*id);
        agent.is_some_and(|a| a.status == AgentStatus::Up)
    });
    let longest = up.map(|(_, at)| at.elapsed()).max()?;
    Some(Sample::gauge(
        "conductor_presence_age_seconds",
        "Longest silence of an agent that is up",
        longest.as_secs_f64(),
    ))
}

/// Counts what ended. Of each record one is an example of its trace.
pub(super) fn count(state: &State, ended: &[Passed]) {
    let between = |from: u64, to: u64| Duration::from_millis(to.saturating_sub(from));
    for (n, passed) in ended.iter().enumerate() {
        let now = passed.time_ms;
        let trace = (n == 0).then(|| {
            let task = state.tasks.get(&passed.task);
            let caller = task.and_then(|t| t.spec.traceparent.as_deref());
            TraceContext::of(passed.task, caller).trace_hex()
        });
        let trace = trace.as_deref();
        if let Some(end) = &passed.end {
            let took = between(end.accepted_ms, now);
            metrics().task_ended(end.outcome.as_str(), took, trace);
        }
        let Some(attempt) = &passed.attempt else {
            continue;
        };
        match passed.class {
            Some(OutcomeClass::AgentLost) if attempt.agent_was_leaving => {
                metrics().attempts_given_up.inc();
            }
            Some(class) if class.is_infrastructure() => {
                metrics().leases_lost.inc();
            }
            _ => {}
        }
        if let Some(started) = attempt.started_ms {
            let outcome = passed.class.map_or("succeeded", OutcomeClass::as_str);
            let waited = between(attempt.ready_ms, started);
            metrics().attempt_ended(outcome, waited, between(started, now), trace);
        }
    }
}
