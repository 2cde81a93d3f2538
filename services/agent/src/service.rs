//! The agent's actor: joins, hears the scheduler, runs attempts, reports.

mod beat;
mod hear;
mod join;

pub use join::hostname;

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use conductor_eventlog::jetstream::Connection;
use conductor_protocol::event::{
    AgentDraining, AgentLeft, AttemptAssigned, AttemptStarted, AttemptStopped, AttemptSucceeded,
    Event,
};
use conductor_protocol::ids::{Lease, Position};
use conductor_protocol::subject::Subject;
use conductor_protocol::{AgentId, RunSpec, TaskId};
use conductor_replica::appender::{AppenderMsg, Load};
use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};
use tokio::sync::{mpsc, watch};

use crate::attempt::{Attempt, Stop};
use crate::output::{Joiner, Output};
use crate::process::ReaperProgram;
use crate::runtime::Host;

/// How to run an agent.
#[derive(Clone, Debug)]
pub struct AgentOptions {
    /// Its name, stable across restarts.
    pub id: AgentId,
    /// How many slots it offers.
    pub slots: u32,
    /// Labels tasks may require.
    pub labels: BTreeMap<String, String>,
    /// Below here attempts have their directories.
    pub data: PathBuf,
    /// How the reaper is started.
    pub reaper: ReaperProgram,
    /// What it lends its attempts.
    pub host: Host,
    /// How long attempts may go on after it was asked to drain.
    pub drain_timeout: Duration,
    /// Set when another process joined under the same name: starting again would only
    /// take the name back and forth.
    pub is_superseded: Arc<AtomicBool>,
}

/// What the actor is told.
#[derive(Debug)]
pub enum AgentMsg {
    /// The scheduler said this to us: position, epoch, event.
    Heard(Vec<(Position, u64, Event)>),
    /// A scheduler was elected.
    Elected(u64),
    /// An attempt has this to report.
    Fact(Event),
    /// The attempt assigned there is over.
    Ended(Position),
    /// Time for a sign of life.
    Beat,
    /// Whether the last sign of life arrived.
    BeatDone(bool),
    /// Time to look whether leases are over.
    Tick,
    /// Stop what runs and join anew.
    Rejoin,
    /// Finish what runs, take nothing more, leave.
    Drain(RpcReplyPort<()>),
}

/// The actor's state.
#[derive(Debug)]
pub struct AgentState {
    connection: Arc<Connection>,
    options: AgentOptions,
    subject: String,
    membership: Option<join::Membership>,
    running: BTreeMap<Position, Running>,
    waiting: VecDeque<(Lease, AttemptAssigned)>,
    /// Where each attempt was first assigned to us, newest last: a second assignment of
    /// the same attempt is refused.
    seen: BTreeMap<(TaskId, u32), Position>,
    seen_order: VecDeque<(TaskId, u32)>,
    heard_beat: Instant,
    is_beating: bool,
    next_beat: Instant,
    is_rejoining: bool,
    draining: Option<(Instant, Option<RpcReplyPort<()>>)>,
}

/// An attempt that runs.
#[derive(Debug)]
struct Running {
    lease: Lease,
    cost: u32,
    lease_length: Duration,
    started: Instant,
    stop: watch::Sender<Stop>,
}

/// Attempts remembered against being assigned twice.
const SEEN_MAX: usize = 10_000;

/// The actor.
#[derive(Debug)]
pub struct Agent;

impl Agent {
    /// Starts an agent under nobody's supervision; the handle ends when it does.
    pub async fn start(
        connection: Arc<Connection>,
        options: AgentOptions,
    ) -> Result<(ActorRef<AgentMsg>, tokio::task::JoinHandle<()>), ractor::SpawnErr> {
        Actor::spawn(None, Self, (connection, options)).await
    }
}

impl Actor for Agent {
    type Msg = AgentMsg;
    type State = AgentState;
    type Arguments = (Arc<Connection>, AgentOptions);

    async fn pre_start(
        &self,
        myself: ActorRef<AgentMsg>,
        (connection, options): (Arc<Connection>, AgentOptions),
    ) -> Result<AgentState, ActorProcessingErr> {
        join::clear_leftovers(&options);
        let subject = Subject::Agent(options.id.clone()).render(connection.cell());
        myself.cast(AgentMsg::Rejoin)?;
        Ok(AgentState {
            connection,
            options,
            subject,
            membership: None,
            running: BTreeMap::new(),
            waiting: VecDeque::new(),
            seen: BTreeMap::new(),
            seen_order: VecDeque::new(),
            heard_beat: Instant::now(),
            is_beating: false,
            next_beat: Instant::now(),
            is_rejoining: false,
            draining: None,
        })
    }

    async fn handle(
        &self,
        myself: ActorRef<AgentMsg>,
        msg: AgentMsg,
        state: &mut AgentState,
    ) -> Result<(), ActorProcessingErr> {
        match msg {
            AgentMsg::Heard(words) => {
                let mut reports = Vec::new();
                for (at, epoch, event) in words {
                    state.hear(&myself, at, epoch, event, &mut reports);
                }
                state.report(&reports);
            }
            AgentMsg::Elected(epoch) => state.elected(epoch),
            AgentMsg::Fact(event) => state.report(&[event]),
            AgentMsg::Ended(at) => {
                state.ended(at);
                state.start_waiting(&myself);
            }
            AgentMsg::Beat => state.beat(&myself),
            AgentMsg::BeatDone(arrived) => state.beat_done(arrived),
            AgentMsg::Tick => state.on_tick(&myself),
            AgentMsg::Rejoin => {
                state.is_rejoining = true;
                state.stop_all(Stop::Revoked);
            }
            AgentMsg::Drain(done) => state.drain(done),
        }
        if state.is_rejoining && state.running.is_empty() && state.draining.is_none() {
            state.join(&myself).await?;
        }
        state.leave_if_drained(&myself).await;
        Ok(())
    }
}

impl AgentState {
    fn slots_used(&self) -> u32 {
        self.running
            .values()
            .map(|r| r.cost)
            .fold(0, u32::saturating_add)
    }

    /// Has reports appended, in order.
    fn report(&self, events: &[Event]) {
        let Some(membership) = &self.membership else {
            return;
        };
        if events.is_empty() {
            return;
        }
        let encoded = events
            .iter()
            .map(|e| (self.subject.clone(), e.encode()))
            .collect();
        membership.load.mark_busy();
        // The appender only ends with us.
        let _ = membership.appender.cast(AppenderMsg::Push(encoded));
    }

    fn load(&self) -> Option<&Load> {
        self.membership.as_ref().map(|m| m.load.as_ref())
    }

    /// Starts what waits for slots, as far as they suffice.
    fn start_waiting(&mut self, myself: &ActorRef<AgentMsg>) {
        while let Some((lease, assigned)) = self.waiting.pop_front() {
            if !self.has_room_for(&assigned) {
                self.waiting.push_front((lease, assigned));
                break;
            }
            self.start(myself, lease, assigned);
        }
    }

    fn has_room_for(&self, assigned: &AttemptAssigned) -> bool {
        self.running.is_empty()
            || self.slots_used().saturating_add(assigned.slots) <= self.options.slots
    }

    /// Takes an assignment that is meant for us.
    fn take(
        &mut self,
        myself: &ActorRef<AgentMsg>,
        lease: Lease,
        assigned: AttemptAssigned,
        reports: &mut Vec<Event>,
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
        self.seen.insert(attempt, lease.assigned);
        self.seen_order.push_back(attempt);
        if self.seen_order.len() > SEEN_MAX
            && let Some(oldest) = self.seen_order.pop_front()
        {
            self.seen.remove(&oldest);
        }
        if matches!(assigned.run, RunSpec::Noop(_)) {
            reports.push(
                AttemptStarted {
                    lease,
                    session: None,
                }
                .into(),
            );
            let (result, exit_code, usage, output) = (None, None, None, None);
            reports.push(
                AttemptSucceeded {
                    lease,
                    result,
                    exit_code,
                    usage,
                    output,
                }
                .into(),
            );
        } else if self.waiting.is_empty() && self.has_room_for(&assigned) {
            self.start(myself, lease, assigned);
        } else {
            self.waiting.push_back((lease, assigned));
        }
    }

    fn start(&mut self, myself: &ActorRef<AgentMsg>, lease: Lease, assigned: AttemptAssigned) {
        let (stop, stopped) = watch::channel(Stop::No);
        let running = Running {
            lease,
            cost: assigned.slots,
            lease_length: Duration::from_millis(assigned.timeouts.heartbeat_ms()),
            started: Instant::now(),
            stop,
        };
        self.running.insert(lease.assigned, running);
        // The lease begins to be heard of at once: it may be shorter than the usual interval.
        self.next_beat = Instant::now();
        let (output, pieces) = Output::new();
        let (facts, mut told) = mpsc::unbounded_channel();
        tokio::spawn(publish(
            Arc::clone(&self.connection),
            self.options.id.clone(),
            lease,
            Joiner::new(pieces),
        ));
        let attempt = Attempt {
            lease,
            assigned,
            base: self.options.data.clone(),
            host: self.options.host.clone(),
            reaper: self.options.reaper.clone(),
            output,
            facts,
            stop: stopped,
        };
        let myself = myself.clone();
        tokio::spawn(async move {
            let forward = async {
                while let Some(fact) = told.recv().await {
                    // An agent that is gone has nobody left to report to.
                    let _ = myself.cast(AgentMsg::Fact(fact));
                }
            };
            tokio::join!(attempt.run(), forward);
            let _ = myself.cast(AgentMsg::Ended(lease.assigned));
        });
    }

    /// An attempt is over, with everything it started. One whose lease was taken back has
    /// reported nothing that counts, whatever it was doing then: its slots are freed here.
    fn ended(&mut self, at: Position) {
        let Some(running) = self.running.remove(&at) else {
            return;
        };
        if *running.stop.borrow() == Stop::Revoked {
            let lease = running.lease;
            self.report(&[AttemptStopped { lease }.into()]);
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

    fn stop_all(&mut self, stop: Stop) {
        self.waiting.clear();
        for running in self.running.values() {
            running.stop.send_replace(stop);
        }
    }

    fn drain(&mut self, done: RpcReplyPort<()>) {
        self.report(&[AgentDraining {}.into()]);
        let patience = self.options.drain_timeout;
        self.draining = Some((Instant::now() + patience, Some(done)));
    }

    /// Leaves once nothing runs any more, or there is no more time.
    async fn leave_if_drained(&mut self, myself: &ActorRef<AgentMsg>) {
        let Some((deadline, _)) = self.draining else {
            return;
        };
        if !self.running.is_empty() {
            if Instant::now() >= deadline {
                self.stop_all(Stop::Shutdown);
            }
            return;
        }
        self.report(&[AgentLeft {}.into()]);
        let limit = Instant::now() + Duration::from_secs(3);
        while self.load().is_some_and(Load::is_busy) && Instant::now() < limit {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        if let Some((_, Some(done))) = self.draining.take() {
            // Whoever asked may have given up waiting.
            let _ = done.send(());
        }
        if let Some(membership) = self.membership.take() {
            membership.end();
        }
        myself.stop(None);
    }
}

/// Brings an attempt's output into the stream; what does not get there is gone, and no
/// fact waits for it.
async fn publish(connection: Arc<Connection>, agent: AgentId, lease: Lease, mut pieces: Joiner) {
    while let Some((channel, bytes)) = pieces.next().await {
        let sent = connection
            .publish_output(&agent, lease, channel.as_str(), bytes)
            .await;
        if let Err(e) = sent {
            tracing::warn!(task = %lease.task, error = %e, "output was lost");
        }
    }
}
