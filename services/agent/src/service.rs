//! The agent's actor around its [`Duty`]: joins, hears the scheduler, runs attempts, reports.

mod feed;
mod join;
mod removal;

pub use join::hostname;

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use conductor_eventlog::jetstream::Connection;
use conductor_eventlog::jetstream::presence::Beat;
use conductor_protocol::event::{AttemptAssigned, Event, Word};
use conductor_protocol::frame::Elements;
use conductor_protocol::ids::{Lease, Position};
use conductor_protocol::subject::Subject;
use conductor_protocol::{AgentId, TraceContext};
use conductor_replica::appender::AppenderMsg;
use conductor_telemetry::{live, metrics};
use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};
use tokio::sync::{mpsc, watch};

use crate::attempt::{Attempt, Stop};
use crate::duty::{Duty, Effect, Input};
use crate::mask::Masks;
use crate::output::{Joiner, Output};
use crate::people::People;
use crate::runtime::{self, Host};
use crate::sandbox::Boxes;
use crate::subtasks::Subtasks;
use crate::workspace::collect::ArtifactStore;

/// How often a process that runs agents alone probes a silent link. Its beats notice a dead one long
/// before (within 15 s and two acknowledgements' time, before leases of 45 s end), so that a thousand
/// idle agents need not cost the server a probe every few seconds each (loadtest).
pub const PROBE_EVERY: Duration = Duration::from_secs(40);

/// How to run an agent.
#[derive(Clone, Debug)]
pub struct AgentOptions {
    /// Its name, stable across restarts.
    pub id: AgentId,
    /// How many slots it offers.
    pub slots: u32,
    /// Labels tasks may require.
    pub labels: BTreeMap<String, String>,
    /// Below here attempts have their directories; what is left there goes at its start.
    pub data: PathBuf,
    /// What it boxes attempts in by.
    pub boxes: Boxes,
    /// Below here is what outlives attempts: mirrors of repositories, named workspaces.
    pub kept: PathBuf,
    /// What it lends its attempts.
    pub host: Host,
    /// How long attempts may go on after it was asked to drain.
    pub drain_timeout: Duration,
    /// Set when another process joined under the same name: starting again would only
    /// take the name back and forth.
    pub is_superseded: Arc<AtomicBool>,
    /// Set once it has joined.
    pub has_joined: Arc<AtomicBool>,
}

/// What the actor is told.
#[derive(Debug)]
pub enum AgentMsg {
    /// Something its duty has to know.
    Told(Input),
    /// Finish what runs, take nothing more, leave.
    Drain(RpcReplyPort<()>),
}

/// The actor's state.
#[derive(Debug)]
pub struct AgentState {
    connection: Arc<Connection>,
    options: AgentOptions,
    subject: String,
    duty: Duty,
    membership: Option<join::Membership>,
    stops: BTreeMap<Position, watch::Sender<Stop>>,
    /// Where attempts are told what people say.
    words: BTreeMap<Position, mpsc::UnboundedSender<Word>>,
    /// Attempts whose reports are traced.
    traced: BTreeMap<Position, TraceContext>,
    drained: Option<RpcReplyPort<()>>,
}

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
        join::clear_leftovers(&options).await;
        let subject = Subject::Agent(options.id.clone()).render(connection.cell());
        myself.cast(AgentMsg::Told(Input::Rejoin))?;
        Ok(AgentState {
            connection,
            subject,
            duty: Duty::new(options.id.clone(), options.slots, Instant::now()),
            options,
            membership: None,
            stops: BTreeMap::new(),
            words: BTreeMap::new(),
            traced: BTreeMap::new(),
            drained: None,
        })
    }

    async fn handle(
        &self,
        myself: ActorRef<AgentMsg>,
        msg: AgentMsg,
        state: &mut AgentState,
    ) -> Result<(), ActorProcessingErr> {
        let input = match msg {
            AgentMsg::Told(input) => input,
            AgentMsg::Drain(done) => {
                state.drained = Some(done);
                Input::Drain(state.options.drain_timeout)
            }
        };
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            if let Input::Ended(at) = &input {
                state.stops.remove(at);
                state.words.remove(at);
                state.traced.remove(at);
            }
            for effect in state.duty.step(input, Instant::now()) {
                inputs.extend(state.perform(&myself, effect).await?);
            }
        }
        Ok(())
    }
}

impl AgentState {
    /// Does what its duty says; returns what its duty is to be told of it at once.
    async fn perform(
        &mut self,
        myself: &ActorRef<AgentMsg>,
        effect: Effect,
    ) -> Result<Option<Input>, ActorProcessingErr> {
        match effect {
            Effect::Join => return Ok(Some(self.join(myself).await?)),
            Effect::Report(events) => self.report(&events),
            Effect::Run(lease, assigned) => self.run(myself, lease, *assigned),
            Effect::Stop(at, stop) => {
                if let Some(told) = self.stops.get(&at) {
                    told.send_replace(stop);
                }
            }
            Effect::Tell(at, word) => {
                if let Some(words) = self.words.get(&at) {
                    // One that has just ended needs telling nothing.
                    let _ = words.send(word);
                }
            }
            Effect::Remove(dropped) => self.remove_workspace(myself, dropped),
            Effect::Beat(beat) => self.send_beat(myself, beat),
            Effect::Leave => self.leave(myself).await,
            Effect::Superseded => {
                self.options.is_superseded.store(true, Ordering::Release);
                myself.stop(Some("superseded".to_owned()));
            }
        }
        Ok(None)
    }

    /// Has reports appended, in order.
    fn report(&self, events: &[Event]) {
        let Some(membership) = &self.membership else {
            return;
        };
        let encoded = Elements::of_events(events);
        let of_traced = |e: &Event| self.traced.get(&e.lease()?.assigned).copied();
        let traced: Vec<TraceContext> = if live::is_on() {
            events.iter().filter_map(of_traced).collect()
        } else {
            Vec::new()
        };
        membership.load.mark_busy();
        // The appender only ends with us.
        let push = AppenderMsg::Push(vec![(self.subject.clone(), encoded)]);
        if !traced.is_empty() {
            let trace = AppenderMsg::Trace(self.subject.clone(), traced);
            let _ = membership.appender.cast(trace);
        }
        let _ = membership.appender.cast(push);
    }

    fn send_beat(&self, myself: &ActorRef<AgentMsg>, mut beat: Beat) {
        if let Some(membership) = &self.membership {
            beat.hearing = membership.hears.now();
        }
        let (connection, myself) = (Arc::clone(&self.connection), myself.clone());
        tokio::spawn(async move {
            let arrived = connection.beat(&beat).await.is_ok();
            // An actor that is gone needs no answer.
            let _ = myself.cast(AgentMsg::Told(Input::BeatDone(arrived)));
        });
    }

    fn run(&mut self, myself: &ActorRef<AgentMsg>, lease: Lease, assigned: AttemptAssigned) {
        let context = TraceContext::of(lease.task, assigned.traceparent.as_deref());
        if live::wants(&context) {
            self.traced.insert(lease.assigned, context);
        }
        let (trace, agent) = (context.trace_hex(), self.options.id.clone());
        let (stop, stopped) = watch::channel(Stop::No);
        self.stops.insert(lease.assigned, stop);
        let masks = Masks::default();
        let (output, pieces) = Output::masked(masks.clone());
        let (facts, mut told) = mpsc::unbounded_channel();
        tokio::spawn(publish(
            Arc::clone(&self.connection),
            self.options.id.clone(),
            lease,
            trace.clone(),
            Joiner::new(pieces),
        ));
        let (say, words) = mpsc::unbounded_channel();
        self.words.insert(lease.assigned, say);
        let approvals = assigned.terms.as_ref().and_then(|t| t.approvals.as_ref());
        let people = People::new(lease, approvals, facts.clone());
        let trace_below = runtime::trace_below(&lease, &assigned, self.options.host.otlp.as_ref());
        let subtasks = Subtasks::new(lease, &assigned, Some(trace_below), facts.clone());
        let attempt = Attempt {
            lease,
            people,
            subtasks,
            words,
            assigned,
            base: self.options.data.clone(),
            kept: self.options.kept.clone(),
            artifacts: Arc::new(Artifacts {
                connection: Arc::clone(&self.connection),
                agent: self.options.id.clone(),
            }),
            host: self.options.host.clone(),
            boxes: self.options.boxes.clone(),
            output,
            masks: masks.clone(),
            facts,
            stop: stopped,
        };
        let myself = myself.clone();
        tokio::spawn(async move {
            let forward = async {
                while let Some(fact) = told.recv().await {
                    // An agent that is gone has nobody left to report to.
                    let _ = myself.cast(AgentMsg::Told(Input::Fact(masks.fact(fact))));
                }
            };
            tracing::debug!(task = %lease.task, attempt = lease.attempt, trace, %agent, "attempt begins");
            metrics().attempts_running.inc();
            tokio::join!(attempt.run(), forward);
            metrics().attempts_running.dec();
            tracing::debug!(task = %lease.task, attempt = lease.attempt, trace, %agent, "attempt ended");
            let _ = myself.cast(AgentMsg::Told(Input::Ended(lease.assigned)));
        });
    }

    /// Waits until what was reported is in the log, then ends.
    async fn leave(&mut self, myself: &ActorRef<AgentMsg>) {
        let limit = Instant::now() + Duration::from_secs(3);
        let is_busy = |m: &join::Membership| m.load.is_busy();
        while self.membership.as_ref().is_some_and(is_busy) && Instant::now() < limit {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        if let Some(done) = self.drained.take() {
            // Whoever asked may have given up waiting.
            let _ = done.send(());
        }
        if let Some(membership) = self.membership.take() {
            membership.end();
        }
        myself.stop(None);
    }
}

/// Artifacts go into their stream.
#[derive(Debug)]
struct Artifacts {
    connection: Arc<Connection>,
    agent: AgentId,
}

#[async_trait]
impl ArtifactStore for Artifacts {
    async fn store(&self, sha256: &str, size: u64, mut file: File) -> Result<(), String> {
        file.seek(SeekFrom::Start(0)).map_err(|e| e.to_string())?;
        let stored = self
            .connection
            .store_artifact(&self.agent, sha256, size, &mut file);
        stored.await.map_err(|e| e.to_string())
    }
}

/// Brings an attempt's output into the stream; what does not get there is gone, and no
/// fact waits for it.
async fn publish(
    connection: Arc<Connection>,
    agent: AgentId,
    lease: Lease,
    trace: String,
    mut pieces: Joiner,
) {
    while let Some(piece) = pieces.next().await {
        let place = (piece.channel.as_str(), piece.offset);
        let sent = connection
            .publish_output(&agent, lease, place, piece.bytes)
            .await;
        if let Err(e) = sent {
            tracing::warn!(task = %lease.task, attempt = lease.attempt, trace, error = %e, "output was lost");
        }
    }
}
