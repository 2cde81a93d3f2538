//! All that is shown: a function of a state, of what was seen beside it, and of a time.

use std::collections::{BTreeMap, BTreeSet};

use conductor_domain::State;
use conductor_domain::state::{Agent, Leader, LeaseState, Outcome};
use conductor_protocol::UnixMs;
use conductor_protocol::ids::{AgentId, CellId, QueueName};
use conductor_protocol::subject::Role;

use super::failures::Failed;
use super::pace::Rates;
use super::seen::Seen;

/// Agents that are gone are shown for this long, in milliseconds.
const GONE_SHOWN_MS: u64 = 10 * 60_000;

/// What is known from elsewhere than the records.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Asked {
    /// Now, in Unix milliseconds, by the server's clock as far as it is known.
    pub(crate) now_ms: UnixMs,
    /// Sequence of the log's last record; `None` where the log did not say.
    pub(crate) last_seq: Option<u64>,
    /// Over how many seconds rates are means.
    pub(crate) over_s: u64,
    /// What is wrong with the log, for people.
    pub(crate) problem: Option<String>,
}

/// One picture of a cell.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct View {
    /// The cell.
    pub(crate) cell: CellId,
    /// When, in Unix milliseconds; see [`Asked::now_ms`].
    pub(crate) now_ms: UnixMs,
    /// Sequence of the last record read.
    pub(crate) seq: u64,
    /// Records in the log that are not read yet; `None` where that is not known.
    pub(crate) lag: Option<u64>,
    /// Time of the last record read, in Unix milliseconds; `None` before the first.
    pub(crate) last_record_ms: Option<UnixMs>,
    /// Who leads each role; `None` before its first election.
    pub(crate) leaders: Vec<(Role, Option<Leader>)>,
    /// Tasks since the first record.
    pub(crate) tasks: Tasks,
    /// How fast it goes.
    pub(crate) rates: Rates,
    /// Tasks ended in each of the last 60 whole seconds, oldest first.
    pub(crate) ended: Vec<u64>,
    /// Queues that are in use or paused, by name.
    pub(crate) queues: Vec<QueueRow>,
    /// Agents that are there, and those that went lately, by name.
    pub(crate) agents: Vec<AgentRow>,
    /// What failed last, newest first.
    pub(crate) failures: Vec<Failed>,
    /// What is wrong with the log, for people.
    pub(crate) problem: Option<String>,
}

/// How many tasks, since the first record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tasks {
    /// Submissions that the orchestrator has not looked into yet.
    pub(crate) undecided: u64,
    /// Submissions that became tasks.
    pub(crate) accepted: u64,
    /// Tasks that succeeded.
    pub(crate) succeeded: u64,
    /// Tasks that failed for good.
    pub(crate) failed: u64,
    /// Tasks ended by a timeout.
    pub(crate) timed_out: u64,
    /// Tasks that were cancelled, or skipped.
    pub(crate) cancelled: u64,
    /// Tasks whose attempts wait for people to answer.
    pub(crate) asking: u64,
}

/// A queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct QueueRow {
    /// Its name.
    pub(crate) name: QueueName,
    /// Whether nothing is assigned from it.
    pub(crate) is_paused: bool,
    /// Tasks that are neither assigned nor ended: ready ones, and those that wait for their
    /// time, for other tasks or for their next try.
    pub(crate) waiting: u64,
    /// Tasks that are assigned, or run.
    pub(crate) running: u64,
    /// For how many milliseconds the task that has been ready longest is; `None` where all
    /// that wait have something else to wait for than an agent.
    pub(crate) oldest_ready_ms: Option<u64>,
}

/// An agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AgentRow {
    /// Its name.
    pub(crate) name: AgentId,
    /// `up`, `drained`, `draining`, `left` or `lost`.
    pub(crate) status: &'static str,
    /// Slots in use.
    pub(crate) used: u32,
    /// Slots it offers.
    pub(crate) slots: u32,
    /// For how many milliseconds it is up, draining or gone.
    pub(crate) for_ms: u64,
}

impl View {
    /// The picture. What it costs: a step for each queue and each agent, and one search for each
    /// task that is *assigned*, of which there are no more than slots. Tasks that wait, or have
    /// ended, are counted by the state's index and counters and cost nothing.
    pub(crate) fn of(state: &State, seen: &Seen, asked: Asked) -> Self {
        let now_ms = asked.now_ms;
        Self {
            cell: state.cell.clone(),
            now_ms,
            seq: state.seq,
            lag: asked.last_seq.map(|last| last.saturating_sub(state.seq)),
            last_record_ms: (state.seq > 0).then_some(state.time_ms),
            leaders: Role::ALL
                .map(|role| (role, state.leaders.get(&role).cloned()))
                .into(),
            tasks: Tasks::of(state),
            rates: seen.pace.rates(now_ms, asked.over_s),
            ended: seen.pace.ended(now_ms),
            queues: queues(state, seen, now_ms),
            agents: agents(state, now_ms),
            failures: seen.failures.newest_first().cloned().collect(),
            problem: asked.problem,
        }
    }
}

impl Tasks {
    fn of(state: &State) -> Self {
        let c = &state.counters;
        let ended = |outcome| c.ended.get(&outcome).copied().unwrap_or(0);
        Self {
            undecided: c
                .submitted
                .saturating_sub(c.accepted + c.rejected + c.duplicates),
            accepted: c.accepted,
            succeeded: ended(Outcome::Succeeded),
            failed: ended(Outcome::Failed),
            timed_out: ended(Outcome::TimedOut),
            cancelled: ended(Outcome::Cancelled),
            asking: state.index.asking.len() as u64,
        }
    }
}

fn queues(state: &State, seen: &Seen, now_ms: UnixMs) -> Vec<QueueRow> {
    let running = running(state);
    let mut names: BTreeSet<&QueueName> = state.index.backlog.keys().collect();
    names.extend(&state.paused);
    names.extend(running.keys());
    names.extend(seen.waits.queues());
    let row = |name: &QueueName| QueueRow {
        name: name.clone(),
        is_paused: state.paused.contains(name),
        waiting: state.backlog(name),
        running: running.get(name).copied().unwrap_or(0),
        oldest_ready_ms: seen
            .waits
            .oldest(state, name)
            .map(|since_ms| now_ms.saturating_sub(since_ms)),
    };
    names.into_iter().map(row).collect()
}

/// How many tasks of each queue are assigned. The index knows their slots only.
fn running(state: &State) -> BTreeMap<&QueueName, u64> {
    let mut running = BTreeMap::new();
    for used in state.agents.values().flat_map(|a| a.slots.values()) {
        if used.lease == LeaseState::Current
            && let Some(task) = state.tasks.get(&used.task)
        {
            *running.entry(&task.spec.queue).or_default() += 1;
        }
    }
    running
}

fn agents(state: &State, now_ms: UnixMs) -> Vec<AgentRow> {
    let is_shown =
        |a: &Agent| a.status.is_there() || a.since_ms.saturating_add(GONE_SHOWN_MS) > now_ms;
    let shown = state.agents.iter().filter(|(_, a)| is_shown(a));
    let row = |(name, a): (&AgentId, &Agent)| AgentRow {
        name: name.clone(),
        status: if a.is_drained && a.status.is_there() {
            "drained"
        } else {
            a.status.as_str()
        },
        used: a.slots_used(),
        slots: a.joined.slots,
        for_ms: now_ms.saturating_sub(a.since_ms),
    };
    shown.map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::super::world::{START_MS, World};
    use super::*;
    use conductor_protocol::Control;
    use serde_json::json;

    fn view(world: &World) -> View {
        let asked = Asked {
            now_ms: START_MS + 90_000,
            last_seq: Some(world.state.seq + 3),
            over_s: 1,
            problem: None,
        };
        View::of(&world.state, &world.seen, asked)
    }

    #[test]
    fn a_cell_is_counted_without_looking_at_what_waits() {
        let mut world = World::new();
        world.join("a1", 4);
        world.join("a2", 2);
        let (runs, fails) = (world.submit(json!({})), world.submit(json!({})));
        world.submit(json!({"delay": "1h"}));
        world.start(runs, "a1");
        world.start(fails, "a1");
        world.fail(fails, "a1");
        world.later(30_000);
        world.submit(json!({}));
        let drain = "a2".parse().unwrap();
        world.control(&Control::DrainAgent { agent: drain });
        world.control(&Control::PauseQueue {
            queue: "held".parse().unwrap(),
        });
        let view = view(&world);
        assert_eq!((view.lag, view.queues.len()), (Some(3), 2));
        let (held, q) = (&view.queues[0], &view.queues[1]);
        assert!(held.is_paused && !q.is_paused);
        assert_eq!((q.waiting, q.running), (2, 1));
        assert_eq!(q.oldest_ready_ms, Some(60_000));
        assert_eq!((view.tasks.accepted, view.tasks.failed), (4, 1));
        assert_eq!(view.tasks.undecided, 0);
        let agents = view.agents.iter().map(|a| (a.status, a.used, a.slots));
        assert_eq!(
            agents.collect::<Vec<_>>(),
            [("up", 1, 4), ("drained", 0, 2)]
        );
        assert_eq!(view.agents[0].for_ms, 90_000);
        assert_eq!(view.failures.len(), 1);
        assert!(view.leaders.iter().all(|(_, l)| l.is_some()));
    }

    #[test]
    fn nothing_yet_is_a_picture_too() {
        let state = State::new("empty".parse().unwrap());
        let view = View::of(&state, &Seen::default(), Asked::default());
        assert_eq!((view.seq, view.lag, view.last_record_ms), (0, None, None));
        assert!(view.queues.is_empty() && view.agents.is_empty());
    }
}
