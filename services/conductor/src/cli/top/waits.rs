//! Which task of each queue has been ready longest.
//!
//! The index of the state orders ready tasks by priority, so the oldest may stand anywhere in
//! it. Here they stand in the order in which they became ready, which is that of the log, and
//! those that are not ready any more are left behind until they are met: a step for each that
//! becomes ready, and as much memory as the ready ones take, times two.

use std::collections::{BTreeMap, VecDeque};

use conductor_domain::State;
use conductor_domain::state::Phase;
use conductor_protocol::ids::QueueName;
use conductor_protocol::{TaskId, UnixMs};

/// A queue stays on the screen for this long after it was last used, in milliseconds, so that
/// one that is empty now and then does not come and go.
const REMEMBERED_MS: u64 = 60_000;
/// So many entries are kept before any is looked through for those that are over.
const ROOM_MIN: usize = 1_024;

/// Ready tasks by queue, in the order in which they became ready.
#[derive(Debug, Default)]
pub(crate) struct Waits {
    queues: BTreeMap<QueueName, Line>,
}

#[derive(Debug)]
struct Line {
    /// Since when, and which; some are not ready any more.
    ready: VecDeque<(UnixMs, TaskId)>,
    /// With more entries than these it is looked through.
    room: usize,
    /// When anything last became ready.
    used_ms: UnixMs,
}

impl Waits {
    /// What is ready in a state: a step for each, once.
    pub(crate) fn begin(state: &State) -> Self {
        let mut waits = Self::default();
        for (_, _, task) in state.index.ready.values().flatten() {
            waits.add(state, *task);
        }
        for line in waits.queues.values_mut() {
            line.ready.make_contiguous().sort_unstable();
        }
        waits
    }

    /// A task may have become ready.
    pub(crate) fn add(&mut self, state: &State, task: TaskId) {
        let Some(queue) = state.tasks.get(&task).map(|t| &t.spec.queue) else {
            return;
        };
        let line = match self.queues.get_mut(queue) {
            Some(line) => line,
            None => self.queues.entry(queue.clone()).or_insert_with(Line::new),
        };
        line.used_ms = state.time_ms;
        if let Some(since_ms) = ready_since(state, task) {
            line.push(state, since_ms, task);
        }
    }

    /// Drops what stands first and is over, and queues not used for a while.
    pub(crate) fn trim(&mut self, state: &State) {
        for line in self.queues.values_mut() {
            while line.ready.front().is_some_and(|e| !is_ready(state, *e)) {
                line.ready.pop_front();
            }
        }
        self.queues.retain(|_, line| {
            !line.ready.is_empty() || line.used_ms.saturating_add(REMEMBERED_MS) > state.time_ms
        });
    }

    /// Queues with something ready, or used in the last minute.
    pub(crate) fn queues(&self) -> impl Iterator<Item = &QueueName> {
        self.queues.keys()
    }

    /// Since when, in Unix milliseconds, the task of a queue that has been ready longest is.
    pub(crate) fn oldest(&self, state: &State, queue: &QueueName) -> Option<UnixMs> {
        let ready = &self.queues.get(queue)?.ready;
        let oldest = ready.iter().find(|e| is_ready(state, **e));
        oldest.map(|(since_ms, _)| *since_ms)
    }
}

impl Line {
    fn new() -> Self {
        Self {
            ready: VecDeque::new(),
            room: ROOM_MIN,
            used_ms: 0,
        }
    }

    fn push(&mut self, state: &State, since_ms: UnixMs, task: TaskId) {
        self.ready.push_back((since_ms, task));
        if self.ready.len() > self.room {
            self.ready.retain(|e| is_ready(state, *e));
            // As many again have to come before the next look: a step for each, in the mean.
            self.room = (self.ready.len() * 2).max(ROOM_MIN);
        }
    }
}

fn ready_since(state: &State, task: TaskId) -> Option<UnixMs> {
    match state.tasks.get(&task)?.phase {
        Phase::Ready { since_ms, .. } => Some(since_ms),
        _ => None,
    }
}

/// Whether it still is, and has not become so anew.
fn is_ready(state: &State, (since_ms, task): (UnixMs, TaskId)) -> bool {
    ready_since(state, task) == Some(since_ms)
}

#[cfg(test)]
mod tests {
    use super::super::world::{START_MS, World};
    use super::*;
    use serde_json::json;

    fn queue() -> QueueName {
        "q".parse().unwrap()
    }

    #[test]
    fn the_oldest_is_found_behind_more_urgent_ones() {
        let mut world = World::new();
        let low = world.submit(json!({"priority": 0}));
        world.later(5_000);
        world.submit(json!({"priority": 9}));
        let oldest = |world: &World| world.seen.waits.oldest(&world.state, &queue());
        assert_eq!(oldest(&world), Some(START_MS));
        let from_state = Waits::begin(&world.state);
        assert_eq!(from_state.oldest(&world.state, &queue()), Some(START_MS));
        world.cancel(low);
        assert_eq!(oldest(&world), Some(START_MS + 5_000));
    }

    #[test]
    fn what_is_over_is_dropped() {
        let mut world = World::new();
        for _ in 0..3_000 {
            let task = world.submit(json!({}));
            world.cancel(task);
        }
        let line = &world.seen.waits.queues[&queue()];
        assert!(line.ready.len() <= ROOM_MIN, "{}", line.ready.len());
        world.seen.waits.trim(&world.state);
        assert!(world.seen.waits.queues[&queue()].ready.is_empty());
        world.later(REMEMBERED_MS);
        world.join("a1", 1);
        world.seen.waits.trim(&world.state);
        assert_eq!(world.seen.waits.queues().count(), 0);
    }

    #[test]
    fn a_task_that_waits_for_its_time_is_not_ready() {
        let mut world = World::new();
        world.submit(json!({"delay": "1h"}));
        assert_eq!(world.seen.waits.oldest(&world.state, &queue()), None);
        assert_eq!(world.seen.waits.queues().count(), 1);
    }
}
