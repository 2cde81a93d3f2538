//! The attempts and tasks that failed last.

use std::collections::VecDeque;

use conductor_domain::State;
use conductor_domain::fold::Passed;
use conductor_domain::state::{Outcome, Phase};
use conductor_protocol::ids::{AgentId, QueueName};
use conductor_protocol::{OutcomeClass, TaskId, UnixMs};

/// How many are remembered.
pub(crate) const KEPT: usize = 10;

/// An attempt that failed, a task, or both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failed {
    /// When, in Unix milliseconds of the log.
    pub(crate) time_ms: UnixMs,
    /// The task.
    pub(crate) task: TaskId,
    /// Its queue, where the state still knows.
    pub(crate) queue: Option<QueueName>,
    /// Why.
    pub(crate) class: OutcomeClass,
    /// The agent of the attempt, where it was one and is known.
    pub(crate) agent: Option<AgentId>,
    /// Which try, from 1; `None` for a task that failed without one.
    pub(crate) attempt: Option<u32>,
    /// Whether the task failed for good.
    pub(crate) ends_task: bool,
}

/// The last [`KEPT`] of them.
#[derive(Debug, Default)]
pub(crate) struct Failures {
    /// Newest last.
    list: VecDeque<Failed>,
}

impl Failures {
    /// Those of a state: tasks alone, since it keeps no attempts. Looks through the ended tasks
    /// it keeps, from the newest, until there are enough.
    pub(crate) fn begin(state: &State) -> Self {
        let newest_first = state.index.ended.iter().rev();
        let failed = newest_first.filter_map(|(_, task)| of_state(state, *task));
        let mut list: VecDeque<Failed> = failed.take(KEPT).collect();
        list.make_contiguous().reverse();
        Self { list }
    }

    /// Something ended in the record after which `state` is.
    pub(crate) fn saw(&mut self, passed: &Passed, state: &State) {
        let Some(class) = passed.class else {
            return;
        };
        let ends_task = match passed.end.as_ref().map(|end| end.outcome) {
            Some(Outcome::Cancelled | Outcome::Succeeded) => return,
            end => end.is_some(),
        };
        if passed.attempt.is_none() && self.ended(passed.task, class) {
            return;
        }
        if self.list.len() >= KEPT {
            self.list.pop_front();
        }
        let attempt = passed.attempt.as_ref();
        self.list.push_back(Failed {
            time_ms: state.time_ms,
            task: passed.task,
            queue: state.tasks.get(&passed.task).map(|t| t.spec.queue.clone()),
            class,
            agent: attempt.map(|a| a.agent.clone()),
            attempt: attempt.map(|a| a.number),
            ends_task,
        });
    }

    /// The task failed for good because of an attempt that is there already: that is one
    /// failure, not two. Says whether it is.
    fn ended(&mut self, task: TaskId, class: OutcomeClass) -> bool {
        let is_it = |f: &&mut Failed| f.task == task && f.class == class && !f.ends_task;
        let attempt = self.list.iter_mut().rev().find(is_it);
        attempt.map(|f| f.ends_task = true).is_some()
    }

    /// Newest first.
    pub(crate) fn newest_first(&self) -> impl Iterator<Item = &Failed> {
        self.list.iter().rev()
    }
}

fn of_state(state: &State, id: TaskId) -> Option<Failed> {
    let task = state.tasks.get(&id)?;
    let Phase::Ended(ended) = &task.phase else {
        return None;
    };
    if !task.is_dead_letter() {
        return None;
    }
    Some(Failed {
        time_ms: ended.at_ms,
        task: id,
        queue: Some(task.spec.queue.clone()),
        class: ended.class?,
        agent: None,
        attempt: Some(task.attempts).filter(|n| *n > 0),
        ends_task: true,
    })
}

#[cfg(test)]
mod tests {
    use super::super::world::World;
    use super::*;
    use serde_json::json;

    /// As `class agent/attempt`, with a `!` where the task ended; newest first.
    fn shown(failures: &Failures) -> Vec<String> {
        let shown = |f: &Failed| {
            let agent = f.agent.as_ref().map_or("-", AgentId::as_str);
            let attempt = f.attempt.unwrap_or(0);
            let end = if f.ends_task { "!" } else { "" };
            format!("{} {agent}/{attempt}{end}", f.class)
        };
        failures.newest_first().map(shown).collect()
    }

    #[test]
    fn an_attempt_and_the_task_that_it_ends_are_one() {
        let mut world = World::new();
        world.join("a1", 4);
        let task = world.submit(json!({}));
        world.start(task, "a1");
        world.fail(task, "a1");
        assert_eq!(shown(&world.seen.failures), ["failed a1/1!"]);
        assert_eq!(shown(&Failures::begin(&world.state)), ["failed -/1!"]);
    }

    #[test]
    fn attempts_lost_with_their_agent_and_tasks_without_attempts_are_there() {
        let mut world = World::new();
        world.join("a1", 4);
        let task = world.submit(json!({}));
        let needs_it = world.submit(json!({"needs": [task]}));
        world.start(task, "a1");
        // It comes back as another incarnation: what it ran is lost, and tried again.
        world.join("a1", 4);
        assert_eq!(shown(&world.seen.failures), ["agent_lost a1/1"]);
        world.later(60_000);
        world.start(task, "a1");
        world.fail(task, "a1");
        let want = ["need_failed -/0!", "failed a1/2!", "agent_lost a1/1"];
        assert_eq!(shown(&world.seen.failures), want);
        assert!(world.state.tasks[&needs_it].is_dead_letter());
    }

    #[test]
    fn what_was_cancelled_did_not_fail_and_only_the_last_are_kept() {
        let mut world = World::new();
        let task = world.submit(json!({}));
        world.cancel(task);
        assert!(shown(&world.seen.failures).is_empty());
        world.join("a1", 4);
        for _ in 0..KEPT + 5 {
            let task = world.submit(json!({}));
            world.start(task, "a1");
            world.fail(task, "a1");
        }
        assert_eq!(shown(&world.seen.failures).len(), KEPT);
    }
}
