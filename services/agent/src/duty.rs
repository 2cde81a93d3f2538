//! What an agent does with what it is told: takes assignments, keeps its leases, reports.
//!
//! A synchronous machine: it is told things and returns effects. The actor in
//! [`crate::service`] runs it against the log of record and real programs, the simulation
//! against a log in memory and programs that are made up.

mod beat;
mod hear;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use conductor_domain::planted::{Bug, is_planted};
use conductor_eventlog::jetstream::presence::Beat;
use conductor_protocol::event::{
    AgentDraining, AgentLeft, AttemptAssigned, AttemptStarted, AttemptStopped, AttemptSucceeded,
    Event, Word as Told, WorkspaceDropped, WorkspaceRemoved,
};
use conductor_protocol::ids::{Lease, Position};
use conductor_protocol::{AgentId, RunSpec, TaskId, TraceContext};

use crate::attempt::Stop;
pub use hear::{Word, words_of};

/// Attempts remembered against being assigned twice.
const SEEN_MAX: usize = 10_000;

/// What the agent is told.
#[derive(Clone, Debug)]
pub enum Input {
    /// The scheduler said this, in this order.
    Heard(Vec<Word>),
    /// An attempt has this to report.
    Fact(Event),
    /// The attempt assigned there is over, with everything it started.
    Ended(Position),
    /// The log can be reached again: a sign of life is due at once.
    LinkRestored,
    /// Another process has its name: what is said to it cannot be heard here any more.
    Replaced,
    /// Nothing can be heard: a sign of life is to say so at once.
    Deaf,
    /// Whether the last sign of life arrived.
    BeatDone(bool),
    /// Time has passed.
    Tick,
    /// The workspace that was to go is gone.
    Removed(WorkspaceDropped),
    /// Stop what runs and join anew.
    Rejoin,
    /// It joined, as this incarnation. Everything that is said after it in the log is heard.
    Joined(u64),
    /// Take nothing more, and leave when nothing runs any more or this time is over.
    Drain(Duration),
}

/// What is to be done, in this order.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Append `agent.joined`, and say so by [`Input::Joined`]. The incarnation before is
    /// over.
    Join,
    /// Append these.
    Report(Vec<Event>),
    /// Run this attempt.
    Run(Lease, Box<AttemptAssigned>),
    /// Stop the attempt assigned there.
    Stop(Position, Stop),
    /// Tell the attempt assigned there what people said.
    Tell(Position, Told),
    /// Remove this workspace once nobody uses it, and say so by [`Input::Removed`].
    Remove(WorkspaceDropped),
    /// Send a sign of life, and say by [`Input::BeatDone`] whether it arrived.
    Beat(Beat),
    /// End, once what was reported is in the log.
    Leave,
    /// End at once: another process has our name.
    Superseded,
}

/// What belongs to one incarnation.
#[derive(Clone, Copy, Debug)]
struct Membership {
    incarnation: u64,
    /// Epoch of the newest scheduler elected since.
    scheduler: u64,
}

/// An attempt that runs.
#[derive(Clone, Debug)]
struct Running {
    lease: Lease,
    cost: u32,
    lease_length: Duration,
    started: Instant,
    stop: Stop,
    /// What it was told already: the same words may come again.
    told: BTreeSet<hear::Heard>,
    /// Its trace, for lines about it.
    context: TraceContext,
}

/// The agent's side of its leases.
#[derive(Clone, Debug)]
pub struct Duty {
    id: AgentId,
    slots: u32,
    membership: Option<Membership>,
    running: BTreeMap<Position, Running>,
    waiting: VecDeque<(Lease, AttemptAssigned)>,
    /// Where each attempt was first assigned to us, newest last: a second assignment of
    /// the same attempt is refused.
    seen: BTreeMap<(TaskId, u32), Position>,
    seen_order: VecDeque<(TaskId, u32)>,
    /// Removals of workspaces that this incarnation was told of, by where they were asked for.
    dropped: BTreeSet<Position>,
    heard_beat: Instant,
    is_beating: bool,
    next_beat: Instant,
    is_rejoining: bool,
    leaves_at: Option<Instant>,
    is_gone: bool,
}

impl Duty {
    /// An agent that has not joined yet; it does on [`Input::Rejoin`].
    pub fn new(id: AgentId, slots: u32, now: Instant) -> Self {
        Self {
            id,
            slots,
            membership: None,
            running: BTreeMap::new(),
            waiting: VecDeque::new(),
            seen: BTreeMap::new(),
            seen_order: VecDeque::new(),
            dropped: BTreeSet::new(),
            heard_beat: now,
            is_beating: false,
            next_beat: now,
            is_rejoining: false,
            leaves_at: None,
            is_gone: false,
        }
    }

    /// The attempts it runs.
    pub fn running(&self) -> impl Iterator<Item = Lease> + '_ {
        self.running.values().map(|r| r.lease)
    }

    /// Takes in what it is told.
    pub fn step(&mut self, input: Input, now: Instant) -> Vec<Effect> {
        let mut effects = Vec::new();
        if self.is_gone {
            return effects;
        }
        match input {
            Input::Heard(words) => self.hear(words, now, &mut effects),
            Input::Fact(event) => self.report(vec![event], &mut effects),
            Input::Ended(at) => {
                self.ended(at, &mut effects);
                self.start_waiting(now, &mut effects);
            }
            Input::Removed(dropped) => self.removed(dropped, &mut effects),
            Input::Replaced => self.superseded(&mut effects),
            Input::LinkRestored | Input::Deaf => self.beat(now, &mut effects),
            Input::BeatDone(arrived) => self.beat_done(arrived, now),
            Input::Tick => self.tick(now, &mut effects),
            Input::Rejoin => {
                self.is_rejoining = true;
                self.stop_all(Stop::Revoked, &mut effects);
            }
            Input::Joined(incarnation) => {
                // Who speaks to this incarnation has read of it, and therefore of every election
                // before: only those after it can make words old.
                self.membership = Some(Membership {
                    incarnation,
                    scheduler: 0,
                });
                self.dropped.clear();
                self.heard_beat = now;
                self.is_beating = false;
                self.beat(now, &mut effects);
            }
            Input::Drain(patience) => {
                self.report(vec![AgentDraining {}.into()], &mut effects);
                self.leaves_at = Some(now + patience);
            }
        }
        if self.is_rejoining && self.running.is_empty() && self.leaves_at.is_none() {
            self.is_rejoining = false;
            self.membership = None;
            effects.push(Effect::Join);
        }
        self.leave_if_drained(now, &mut effects);
        effects
    }

    fn slots_used(&self) -> u32 {
        self.running
            .values()
            .map(|r| r.cost)
            .fold(0, u32::saturating_add)
    }

    /// Has reports appended, in order. Outside of a membership nothing can be reported.
    fn report(&self, events: Vec<Event>, effects: &mut Vec<Effect>) {
        if self.membership.is_some() && !events.is_empty() {
            effects.push(Effect::Report(events));
        }
    }

    /// A workspace is gone. What an earlier incarnation of ours was told says nothing of now.
    fn removed(&self, dropped: WorkspaceDropped, effects: &mut Vec<Effect>) {
        if self.membership.map(|m| m.incarnation) != Some(dropped.incarnation) {
            return;
        }
        let removed = WorkspaceRemoved {
            namespace: dropped.namespace,
            name: dropped.name,
            control: dropped.control,
        };
        self.report(vec![removed.into()], effects);
    }

    /// Starts what waits for slots, as far as they suffice.
    fn start_waiting(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        while let Some((lease, assigned)) = self.waiting.pop_front() {
            if !self.has_room_for(&assigned) {
                self.waiting.push_front((lease, assigned));
                break;
            }
            self.start(lease, assigned, now, effects);
        }
    }

    fn has_room_for(&self, assigned: &AttemptAssigned) -> bool {
        self.running.is_empty() || self.slots_used().saturating_add(assigned.slots) <= self.slots
    }

    /// Takes an assignment that is meant for us.
    fn take(
        &mut self,
        lease: Lease,
        assigned: AttemptAssigned,
        now: Instant,
        reports: &mut Vec<Event>,
        effects: &mut Vec<Effect>,
    ) {
        let attempt = (lease.task, lease.attempt);
        match self.seen.get(&attempt) {
            // The same words again, from a consumer that was made anew.
            Some(before) if *before == lease.assigned => return,
            Some(_) => {
                reports.push(AttemptStopped { lease }.into());
                return;
            }
            None => {}
        }
        self.remember(attempt, lease.assigned);
        if matches!(*assigned.run, RunSpec::Noop(_)) {
            reports.push(AttemptStarted::new(lease, None).into());
            let (result, exit_code, usage, output) = (None, None, None, None);
            let succeeded = AttemptSucceeded {
                lease,
                result,
                exit_code,
                usage,
                output,
            };
            reports.push(succeeded.into());
        } else if self.waiting.is_empty() && self.has_room_for(&assigned) {
            self.start(lease, assigned, now, effects);
        } else {
            self.waiting.push_back((lease, assigned));
        }
    }

    fn remember(&mut self, attempt: (TaskId, u32), at: Position) {
        if is_planted(Bug::SeenForgotten) {
            return;
        }
        self.seen.insert(attempt, at);
        self.seen_order.push_back(attempt);
        if self.seen_order.len() > SEEN_MAX
            && let Some(oldest) = self.seen_order.pop_front()
        {
            self.seen.remove(&oldest);
        }
    }

    fn start(
        &mut self,
        lease: Lease,
        assigned: AttemptAssigned,
        now: Instant,
        effects: &mut Vec<Effect>,
    ) {
        let running = Running {
            lease,
            cost: assigned.slots,
            lease_length: Duration::from_millis(assigned.timeouts.heartbeat_ms()),
            started: now,
            stop: Stop::No,
            told: BTreeSet::new(),
            context: TraceContext::of(lease.task, assigned.traceparent.as_deref()),
        };
        self.running.insert(lease.assigned, running);
        // The lease begins to be heard of at once: it may be shorter than the usual interval.
        self.next_beat = now;
        effects.push(Effect::Run(lease, Box::new(assigned)));
    }

    /// An attempt is over, with everything it started. One whose lease was taken back has
    /// reported nothing that counts, whatever it was doing then: its slots are freed here.
    fn ended(&mut self, at: Position, effects: &mut Vec<Effect>) {
        let Some(running) = self.running.remove(&at) else {
            return;
        };
        if running.stop == Stop::Revoked {
            let lease = running.lease;
            self.report(vec![AttemptStopped { lease }.into()], effects);
            self.forget(lease);
        }
    }

    /// A lease that was taken back: its attempt may be assigned to us again, because an
    /// assignment that did not count uses up no attempt.
    fn forget(&mut self, lease: Lease) {
        let attempt = (lease.task, lease.attempt);
        if self.seen.get(&attempt) == Some(&lease.assigned) {
            self.seen.remove(&attempt);
        }
    }

    fn stop(&mut self, at: Position, stop: Stop, effects: &mut Vec<Effect>) {
        if let Some(running) = self.running.get_mut(&at) {
            running.stop = stop;
            effects.push(Effect::Stop(at, stop));
        }
    }

    fn stop_all(&mut self, stop: Stop, effects: &mut Vec<Effect>) {
        self.waiting.clear();
        let all: Vec<Position> = self.running.keys().copied().collect();
        for at in all {
            self.stop(at, stop, effects);
        }
    }

    /// Leaves once nothing runs any more, or there is no more time.
    fn leave_if_drained(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        let Some(deadline) = self.leaves_at else {
            return;
        };
        if !self.running.is_empty() {
            if now >= deadline {
                self.stop_all(Stop::Shutdown, effects);
            }
            return;
        }
        self.report(vec![AgentLeft {}.into()], effects);
        effects.push(Effect::Leave);
        self.is_gone = true;
    }
}
