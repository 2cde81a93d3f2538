//! The actor around a [`Host`]: it hears the log, elections and agents, and does what the
//! host says.

mod bodies;
mod ears;
mod gather;
mod inside;
mod inspect;
mod measure;
mod terms;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use conductor_domain::{State, fold::Notice};
use conductor_eventlog::jetstream::Connection;
use conductor_eventlog::jetstream::presence::Beat;
use conductor_eventlog::jetstream::requests::Question;
use conductor_eventlog::{EventLog, SnapshotStore};
use conductor_protocol::AgentId;
use conductor_protocol::subject::Role as RoleName;
use conductor_telemetry::live;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::sync::{OwnedSemaphorePermit, watch};

use crate::election::Outcome;
use crate::follow::{Batch, Gap, add_gaps};
use crate::host::{Effect, Host, Input};
use crate::role::Role;
use crate::snapshot;
use ears::Ears;
pub use inspect::Answer;
pub use measure::Measured;
use terms::Terms;

/// Batches that may wait between the tail and the fold.
const BATCHES_AHEAD: usize = 16;

/// How to run a replica.
#[derive(Debug, Clone)]
pub struct ReplicaOptions {
    /// Who it is: host, process and a random part.
    pub instance: String,
    /// How long a lock outlives its holder, and with it the longest stall when a leader dies.
    pub lock_ttl: Duration,
    /// Whether it is alone by its nature, so that locks it finds are a dead predecessor's.
    pub takes_over: bool,
    /// Records between snapshots; 0 for none.
    pub snapshot_every: u64,
}

impl ReplicaOptions {
    /// A name that no other process has.
    pub fn new_instance(host: &str) -> String {
        let random = uuid::Uuid::new_v4().simple().to_string();
        let short = random.get(..8).unwrap_or(&random).to_owned();
        format!("{host}-{}-{short}", std::process::id())
    }
}

/// What a replica shows of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReplicaStatus {
    /// Last record folded.
    pub seq: u64,
    /// Whether it has read everything there was.
    pub is_caught_up: bool,
    /// Roles it leads.
    pub leads: Vec<RoleName>,
    /// Sequences found missing.
    pub gaps: Vec<Gap>,
    /// Why it stopped folding, if it did.
    pub stopped: Option<String>,
}

/// What the replica is told.
pub enum ReplicaMsg {
    /// Records came in.
    Records(Batch, OwnedSemaphorePermit),
    /// The log has lost what was read of it.
    Lost(String),
    /// An election went this way.
    Election(RoleName, Outcome),
    /// The log refused a frame of the term of this epoch.
    Refused(RoleName, u64),
    /// An agent lives.
    Beat(Beat),
    /// Signs of life could not be heard until now.
    PresenceRestored,
    /// Somebody asks.
    Question(Question),
    /// Somebody watches.
    Measure(ractor::RpcReplyPort<Measured>),
    /// Something is due.
    Tick,
    /// Finish what is in flight, save a snapshot, give the roles back.
    Drain(ractor::RpcReplyPort<()>),
}

impl std::fmt::Debug for ReplicaMsg {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Records(..) => "Records",
            Self::Lost(_) => "Lost",
            Self::Election(..) => "Election",
            Self::Refused(..) => "Refused",
            Self::Beat(_) => "Beat",
            Self::PresenceRestored => "PresenceRestored",
            Self::Question(_) => "Question",
            Self::Measure(_) => "Measure",
            Self::Tick => "Tick",
            Self::Drain(_) => "Drain",
        })
    }
}

/// How to start the actor.
pub struct ReplicaArgs {
    /// The servers.
    pub connection: Arc<Connection>,
    /// Roles to stand for.
    pub roles: Vec<Box<dyn Role>>,
    /// Options.
    pub options: ReplicaOptions,
    /// Where it shows itself.
    pub status: watch::Sender<ReplicaStatus>,
}

/// The actor's state.
pub struct ReplicaState {
    connection: Arc<Connection>,
    options: ReplicaOptions,
    status: watch::Sender<ReplicaStatus>,
    host: Host,
    terms: Terms,
    wake: Option<(Instant, tokio::task::JoinHandle<()>)>,
    sources: tokio::task::JoinSet<()>,
    /// When each agent was last heard of.
    beats: BTreeMap<AgentId, Instant>,
    ears: Ears,
    /// When this process last saved a snapshot, and how large it was.
    saved: Arc<Mutex<Option<(Instant, usize)>>>,
}

impl std::fmt::Debug for ReplicaArgs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ReplicaArgs")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for ReplicaState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ReplicaState")
            .field("host", &self.host)
            .finish_non_exhaustive()
    }
}

/// The actor.
#[derive(Debug)]
pub struct Replica;

impl Replica {
    /// Starts a replica under nobody's supervision; the handle ends when it does.
    pub async fn start(
        args: ReplicaArgs,
    ) -> Result<(ActorRef<ReplicaMsg>, tokio::task::JoinHandle<()>), ractor::SpawnErr> {
        Actor::spawn(None, Self, args).await
    }
}

impl Actor for Replica {
    type Msg = ReplicaMsg;
    type State = ReplicaState;
    type Arguments = ReplicaArgs;

    async fn pre_start(
        &self,
        myself: ActorRef<ReplicaMsg>,
        args: ReplicaArgs,
    ) -> Result<ReplicaState, ActorProcessingErr> {
        let ReplicaArgs {
            connection,
            roles,
            options,
            status,
        } = args;
        let begun = snapshot::begin(connection.as_ref(), connection.as_ref(), u64::MAX).await;
        let state = begun
            .state
            .unwrap_or_else(|| State::new(connection.cell().clone()));
        let mut sources = tokio::task::JoinSet::new();
        let log: Arc<dyn EventLog> = Arc::clone(&connection) as Arc<dyn EventLog>;
        sources.spawn(feed_records(log, state.seq + 1, myself.clone()));
        sources.spawn(inspect::feed_questions(
            Arc::clone(&connection),
            myself.clone(),
        ));
        if !roles.is_empty() {
            sources.spawn(feed_beats(Arc::clone(&connection), myself.clone()));
        }
        let host = Host::new(state, roles, options.snapshot_every);
        let terms = Terms::stand(&host.names(), &connection, &options, &myself);
        let seq = host.state().seq;
        let is_empty = connection.last_seq().await.is_ok_and(|last| last <= seq);
        status.send_modify(|s| {
            s.gaps.extend(begun.lost);
            s.seq = seq;
            s.is_caught_up = is_empty;
        });
        Ok(ReplicaState {
            connection,
            options,
            status,
            host,
            terms,
            wake: None,
            sources,
            beats: BTreeMap::new(),
            ears: Ears::default(),
            saved: Arc::default(),
        })
    }

    async fn handle(
        &self,
        myself: ActorRef<ReplicaMsg>,
        msg: ReplicaMsg,
        replica: &mut ReplicaState,
    ) -> Result<(), ActorProcessingErr> {
        let input = match &msg {
            ReplicaMsg::Records(batch, _permit) => Input::Records(batch),
            ReplicaMsg::Election(role, Outcome::Elected(epoch)) => Input::Elected(*role, *epoch),
            ReplicaMsg::Election(role, Outcome::Deposed) => Input::Deposed(*role),
            ReplicaMsg::Refused(role, epoch) => Input::Refused(*role, *epoch),
            ReplicaMsg::Lost(problem) => Input::Lost(problem),
            ReplicaMsg::Beat(beat) => Input::Beat(beat),
            ReplicaMsg::PresenceRestored => Input::PresenceRestored,
            ReplicaMsg::Tick => {
                replica.wake = None;
                Input::Tick
            }
            ReplicaMsg::Question(_) | ReplicaMsg::Measure(_) | ReplicaMsg::Drain(_) => {
                match msg {
                    ReplicaMsg::Measure(watcher) if watcher.is_closed() => {}
                    ReplicaMsg::Measure(watcher) => {
                        // Whoever asked may have given up waiting.
                        let _ = watcher.send(measure::measure(replica));
                    }
                    ReplicaMsg::Question(question) => inspect::answer(replica, question),
                    ReplicaMsg::Drain(done) => {
                        replica.drain().await;
                        // Whoever asked may have given up waiting.
                        let _ = done.send(());
                        myself.stop(None);
                    }
                    _ => {}
                }
                return Ok(());
            }
        };
        if let Input::Beat(beat) = input {
            replica.heard(&beat.agent);
            if beat.hearing.is_deaf && replica.is_to_hear(beat) {
                replica.ears.make(&replica.connection, beat);
            }
        }
        replica.step(input).await?;
        match &msg {
            ReplicaMsg::Records(batch, _) => replica.show_records(batch),
            ReplicaMsg::Lost(_) => replica.show_stopped(),
            _ => {}
        }
        if !matches!(msg, ReplicaMsg::Beat(_)) {
            replica.show_leads();
            replica.set_wake(&myself, Instant::now());
        }
        Ok(())
    }
}

impl ReplicaState {
    /// Tells the host, and does what it says.
    async fn step(&mut self, input: Input<'_>) -> Result<(), ractor::SpawnErr> {
        let since_ns = if live::is_on() { live::now_ns() } else { 0 };
        let terms = &self.terms;
        let effects = self
            .host
            .step(input, Instant::now(), |role| terms.waiting_bytes(role));
        for effect in effects {
            match effect {
                Effect::Begin {
                    role,
                    epoch,
                    in_flight_max,
                } => self.terms.begin(role, epoch, in_flight_max).await?,
                Effect::End(role, epoch) => self.terms.end(role, epoch),
                Effect::Append(role, drafts) => {
                    self.terms.append(role, drafts, self.host.state(), since_ns);
                }
                Effect::Notify(notices) => self.tell_submitters(notices),
                Effect::Count(ended) => measure::count(self.host.state(), &ended),
                Effect::Save(seq, bytes) => {
                    let (connection, saved) =
                        (Arc::clone(&self.connection), Arc::clone(&self.saved));
                    tokio::spawn(
                        async move { save(connection.as_ref(), seq, bytes, &saved).await },
                    );
                }
            }
        }
        Ok(())
    }

    /// Shows how far it has read, and what it found.
    fn show_records(&mut self, batch: &Batch) {
        self.terms.show_epochs(self.host.state());
        if self.host.stopped().is_some() {
            self.show_stopped();
            return;
        }
        let is_caught_up = batch.pending == 0;
        let seq = self.host.state().seq;
        self.status.send_if_modified(|status| {
            let has_changed = (is_caught_up && !status.is_caught_up) || !batch.gaps.is_empty();
            status.seq = seq;
            status.is_caught_up |= is_caught_up;
            add_gaps(&mut status.gaps, batch.gaps.iter().copied());
            has_changed
        });
    }

    /// Stands for nothing any more, and says why.
    fn show_stopped(&self) {
        self.terms.stop();
        let problem = self.host.stopped().map(str::to_owned);
        self.status.send_modify(|status| status.stopped = problem);
    }

    /// Whether it is ours to have an agent hear. One that was replaced by another process of its
    /// name learns that from the other's consumer.
    fn is_to_hear(&self, beat: &Beat) -> bool {
        let known = self.host.state().agents.get(&beat.agent);
        let is_replaced = known.is_some_and(|a| a.incarnation > beat.incarnation);
        self.host.leads(RoleName::Scheduler) && !is_replaced
    }

    /// An agent lives. Those that are forgotten are forgotten here, too.
    fn heard(&mut self, agent: &AgentId) {
        self.beats.insert(agent.clone(), Instant::now());
        let known = &self.host.state().agents;
        if self.beats.len() > 2 * known.len() + 16 {
            self.beats.retain(|id, _| known.contains_key(id));
        }
    }

    /// The server's time as far as it is known, else that of the last record.
    fn server_now_ms(&self) -> u64 {
        let now = self.host.server_now_ms(Instant::now());
        now.unwrap_or(self.host.state().time_ms)
    }

    /// Says which roles it leads: that can change with a record as well as with an
    /// election that is only then known to be ours.
    fn show_leads(&mut self) {
        let leads = self.host.leading();
        self.status.send_if_modified(|status| {
            let has_changed = status.leads != leads;
            status.leads = leads;
            has_changed
        });
    }

    fn tell_submitters(&self, notices: Vec<Notice>) {
        let connection = Arc::clone(&self.connection);
        tokio::spawn(async move {
            for notice in notices {
                let body = notice.word.to_json().to_string();
                connection.notify(notice.reply, body.into()).await;
            }
        });
    }

    /// Wakes up when the next thing is due, should nothing happen before.
    fn set_wake(&mut self, myself: &ActorRef<ReplicaMsg>, now: Instant) {
        let Some(wait) = self.host.next_wake(now) else {
            return;
        };
        let at = now + wait;
        if self.wake.as_ref().is_some_and(|(set, _)| *set <= at) {
            return;
        }
        if let Some((_, timer)) = self.wake.take() {
            timer.abort();
        }
        let myself = myself.clone();
        let timer = tokio::spawn(async move {
            tokio::time::sleep(wait).await;
            let _ = myself.cast(ReplicaMsg::Tick);
        });
        self.wake = Some((at, timer));
    }

    /// Finishes what is in flight, saves a snapshot, gives the roles back.
    async fn drain(&mut self) {
        self.terms.finish(Duration::from_secs(2)).await;
        if let Some((seq, bytes)) = self.host.last_snapshot() {
            save(self.connection.as_ref(), seq, bytes, &self.saved).await;
        }
        for effect in self.host.end_terms() {
            if let Effect::End(role, epoch) = effect {
                self.terms.end(role, epoch);
            }
        }
        self.terms.give_back(Duration::from_secs(2)).await;
        self.sources.abort_all();
        self.connection.flush().await;
    }
}

async fn save(
    store: &dyn SnapshotStore,
    seq: u64,
    bytes: Vec<u8>,
    saved: &Mutex<Option<(Instant, usize)>>,
) {
    let size = bytes.len();
    match snapshot::save(store, seq, bytes.into()).await {
        Ok(()) => {
            let now = Some((Instant::now(), size));
            *saved.lock().unwrap_or_else(PoisonError::into_inner) = now;
            tracing::info!(seq, size, "snapshot saved");
        }
        Err(e) => tracing::warn!(seq, error = %e, "snapshot not saved; it would only save time"),
    }
}

/// Hands records to the actor, never more than a few batches ahead of it.
async fn feed_records(log: Arc<dyn EventLog>, next: u64, actor: ActorRef<ReplicaMsg>) {
    let mut follower = crate::Follower::new(log, next);
    let ahead = Arc::new(tokio::sync::Semaphore::new(BATCHES_AHEAD));
    loop {
        let Ok(permit) = Arc::clone(&ahead).acquire_owned().await else {
            return;
        };
        let next = match follower.next().await {
            Ok(batch) => ReplicaMsg::Records(batch, permit),
            Err(e) => ReplicaMsg::Lost(e.to_string()),
        };
        let is_lost = matches!(next, ReplicaMsg::Lost(_));
        if actor.cast(next).is_err() || is_lost {
            return;
        }
    }
}

/// Hands signs of life to the actor, for as long as it lives.
async fn feed_beats(connection: Arc<Connection>, actor: ActorRef<ReplicaMsg>) {
    use futures::StreamExt;
    let mut up = connection.is_up();
    loop {
        if let Ok(mut beats) = connection.beats().await {
            if actor.cast(ReplicaMsg::PresenceRestored).is_err() {
                return;
            }
            loop {
                tokio::select! {
                    beat = beats.next() => {
                        let Some(beat) = beat else { break };
                        if actor.cast(ReplicaMsg::Beat(beat)).is_err() {
                            return;
                        }
                    }
                    changed = up.changed() => {
                        if changed.is_err() {
                            return;
                        }
                        break;
                    }
                }
            }
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
