//! Whose turn it is: lanes in the order of fairness, then of rank.

use std::collections::btree_set::Iter;
use std::collections::{BTreeMap, BTreeSet};
use std::iter::{Flatten, Peekable};
use std::option::IntoIter;

use conductor_protocol::ids::{Namespace, QueueName};
use conductor_protocol::{TaskId, UnixMs};

use super::Overlay;
use crate::planted::{Bug, is_planted};
use crate::state::index::{Lane, ReadyKey};
use crate::state::{State, Task, Workspace, needs_a_model};

/// Shares are compared in millionths of a slot per weight.
const SCALE: u64 = 1_000_000;

/// The next task of the lane whose turn it is.
#[derive(Clone, Copy)]
pub(super) struct Pick<'s> {
    pub(super) key: ReadyKey,
    pub(super) task: &'s Task,
    lane: usize,
}

impl Pick<'_> {
    pub(super) fn id(&self) -> TaskId {
        self.key.2
    }
}

struct Head<'s> {
    lane: &'s Lane,
    ready: Peekable<Iter<'s, ReadyKey>>,
    /// Those of them that are in flight, in the same order.
    in_flight: Peekable<Flatten<IntoIter<&'s BTreeSet<ReadyKey>>>>,
}

impl Head<'_> {
    /// The first that is not in flight.
    fn first(&mut self, overlay: &Overlay) -> Option<ReadyKey> {
        loop {
            let key = **self.ready.peek()?;
            match self.in_flight.peek() {
                Some(planned) if **planned < key => {
                    self.in_flight.next();
                }
                Some(planned) if **planned == key => {
                    self.in_flight.next();
                    self.ready.next();
                }
                // It stands elsewhere than when it was planned: it is ready anew, or the
                // aging interval is another.
                _ if overlay.tasks.contains_key(&key.2) => {
                    self.ready.next();
                }
                _ => return Some(key),
            }
        }
    }
}

/// How much somebody has, and weighs: whose share is smallest is next.
#[derive(Clone, Copy)]
struct Claim {
    load: u64,
    weight: u64,
}

impl Claim {
    fn share(self) -> u64 {
        self.load.saturating_mul(SCALE) / self.weight
    }
}

struct QueueTurn {
    claim: Claim,
    heads: BTreeSet<(ReadyKey, usize)>,
}

struct NamespaceTurn<'s> {
    claim: Claim,
    turns: BTreeSet<(u64, &'s QueueName)>,
    queues: BTreeMap<&'s QueueName, QueueTurn>,
}

/// Lanes with something ready, during one planning.
pub(super) struct Lanes<'s> {
    heads: Vec<Head<'s>>,
    turns: BTreeSet<(u64, &'s Namespace)>,
    namespaces: BTreeMap<&'s Namespace, NamespaceTurn<'s>>,
}

impl<'s> Lanes<'s> {
    pub(super) fn of(
        state: &'s State,
        overlay: &Overlay,
        in_flight: &'s BTreeMap<Lane, BTreeSet<ReadyKey>>,
        now_ms: UnixMs,
    ) -> Self {
        let mut lanes = Self {
            heads: Vec::new(),
            turns: BTreeSet::new(),
            namespaces: BTreeMap::new(),
        };
        for (lane, ready) in &state.index.ready {
            let is_paused = state.paused.contains(&lane.queue) && !is_planted(Bug::PauseIgnored);
            let is_spent = needs_a_model(lane.runtime) && state.is_spent(&lane.namespace, now_ms);
            if is_paused || is_spent || is_saturated(state, overlay, lane) {
                continue;
            }
            lanes.heads.push(Head {
                lane,
                ready: ready.iter().peekable(),
                in_flight: in_flight.get(lane).into_iter().flatten().peekable(),
            });
            lanes.open(state, overlay, lanes.heads.len() - 1);
        }
        lanes
    }

    /// Puts a lane's next task into its queue's order.
    fn open(&mut self, state: &'s State, overlay: &Overlay, number: usize) {
        let Some(head) = self.heads.get_mut(number) else {
            return;
        };
        let Some(key) = head.first(overlay) else {
            return;
        };
        let lane = head.lane;
        let namespace = self
            .namespaces
            .entry(&lane.namespace)
            .or_insert_with(|| NamespaceTurn {
                claim: Claim {
                    load: load_of(state, overlay, &lane.namespace, None),
                    weight: state.config.weight_of_namespace(lane.namespace.as_str()),
                },
                turns: BTreeSet::new(),
                queues: BTreeMap::new(),
            });
        let queue = namespace
            .queues
            .entry(&lane.queue)
            .or_insert_with(|| QueueTurn {
                claim: Claim {
                    load: load_of(state, overlay, &lane.namespace, Some(&lane.queue)),
                    weight: state.config.weight_of_queue(lane.queue.as_str()),
                },
                heads: BTreeSet::new(),
            });
        queue.heads.insert((key, number));
        namespace.turns.insert((queue.claim.share(), &lane.queue));
        self.turns
            .insert((namespace.claim.share(), &lane.namespace));
    }

    /// The task whose turn it is.
    pub(super) fn next(&mut self, state: &'s State) -> Option<Pick<'s>> {
        loop {
            let turn = *self.turns.first()?;
            let namespace = self.namespaces.get_mut(turn.1)?;
            let Some(queue_turn) = namespace.turns.first().copied() else {
                self.turns.remove(&turn);
                continue;
            };
            let queue = namespace.queues.get(queue_turn.1);
            let Some((key, lane)) = queue.and_then(|q| q.heads.first()) else {
                namespace.turns.remove(&queue_turn);
                continue;
            };
            let task = state.tasks.get(&key.2)?;
            return Some(Pick {
                key: *key,
                task,
                lane: *lane,
            });
        }
    }

    /// The picked lane.
    pub(super) fn lane(&self, pick: Pick<'s>) -> Option<&'s Lane> {
        self.heads.get(pick.lane).map(|h| h.lane)
    }

    /// Whether the picked lane's concurrency key is at its limit.
    pub(super) fn is_blocked(&self, state: &State, overlay: &Overlay, pick: Pick<'s>) -> bool {
        self.heads
            .get(pick.lane)
            .is_some_and(|h| is_saturated(state, overlay, h.lane))
    }

    /// Takes the picked lane out: nobody can run its head now.
    pub(super) fn close(&mut self, pick: Pick<'s>) {
        self.pop(pick, 0);
    }

    /// Moves on after the picked task was assigned.
    pub(super) fn taken(&mut self, state: &'s State, overlay: &Overlay, pick: Pick<'s>) {
        self.pop(pick, u64::from(pick.task.spec.slots));
        let Some(head) = self.heads.get_mut(pick.lane) else {
            return;
        };
        head.ready.next();
        if !is_saturated(state, overlay, head.lane) {
            self.open(state, overlay, pick.lane);
        }
    }

    /// Takes the picked head out of its queue's order and adds to the shares.
    fn pop(&mut self, pick: Pick<'s>, load: u64) {
        let Some(lane) = self.heads.get(pick.lane).map(|h| h.lane) else {
            return;
        };
        let Some(namespace) = self.namespaces.get_mut(&lane.namespace) else {
            return;
        };
        if let Some(queue) = namespace.queues.get_mut(&lane.queue) {
            queue.heads.pop_first();
            namespace.turns.remove(&(queue.claim.share(), &lane.queue));
            queue.claim.load += load;
            if !queue.heads.is_empty() {
                namespace.turns.insert((queue.claim.share(), &lane.queue));
            }
        }
        self.turns
            .remove(&(namespace.claim.share(), &lane.namespace));
        namespace.claim.load += load;
        if !namespace.turns.is_empty() {
            self.turns
                .insert((namespace.claim.share(), &lane.namespace));
        }
    }
}

fn load_of(
    state: &State,
    overlay: &Overlay,
    namespace: &Namespace,
    queue: Option<&QueueName>,
) -> u64 {
    [&state.index.load, &overlay.load]
        .into_iter()
        .filter_map(|load| load.get(namespace))
        .map(|queues| match queue {
            Some(queue) => queues.get(queue).copied().unwrap_or(0),
            None => queues.values().sum(),
        })
        .sum()
}

/// Whether nothing more of a lane may run now: its concurrency key is at its limit, or nobody may
/// enter its workspace.
fn is_saturated(state: &State, overlay: &Overlay, lane: &Lane) -> bool {
    let is_entered = lane.workspace().is_some_and(|key| {
        let held = state.workspaces.get(key);
        held.is_some_and(Workspace::is_taken) || overlay.workspaces.contains(key)
    });
    if is_entered {
        return true;
    }
    lane.special
        .as_ref()
        .and_then(|s| s.key.as_ref())
        .is_some_and(|(key, limit)| {
            let running = state.key_running.get(key).copied().unwrap_or(0);
            let in_flight = overlay.keys.get(key).copied().unwrap_or(0);
            running + in_flight >= *limit
        })
}
