//! The actor that folds the log and lets its roles decide.

mod inspect;
mod terms;

use std::sync::Arc;
use std::time::{Duration, Instant};

use conductor_domain::{State, fold};
use conductor_eventlog::jetstream::Connection;
use conductor_eventlog::jetstream::presence::Beat;
use conductor_eventlog::jetstream::requests::Question;
use conductor_eventlog::{EventLog, SnapshotStore};
use conductor_protocol::subject::Role as RoleName;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::sync::{OwnedSemaphorePermit, watch};

use crate::clock::ServerClock;
use crate::election::Outcome;
use crate::follow::{Batch, Gap};
use crate::role::{Now, Role};
use crate::snapshot;
pub use inspect::Answer;
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
    /// An election went this way.
    Election(RoleName, Outcome),
    /// An agent lives.
    Beat(Beat),
    /// Signs of life could not be heard until now.
    PresenceRestored,
    /// Somebody asks.
    Question(Question),
    /// Something is due.
    Tick,
    /// Finish what is in flight, save a snapshot, give the roles back.
    Drain(ractor::RpcReplyPort<()>),
}

impl std::fmt::Debug for ReplicaMsg {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Records(..) => "Records",
            Self::Election(..) => "Election",
            Self::Beat(_) => "Beat",
            Self::PresenceRestored => "PresenceRestored",
            Self::Question(_) => "Question",
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
    state: State,
    clock: ServerClock,
    terms: Terms,
    snapshot_seq: u64,
    wake: Option<(Instant, tokio::task::JoinHandle<()>)>,
    sources: tokio::task::JoinSet<()>,
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
            .field("seq", &self.state.seq)
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
        let loaded = snapshot::load_newest(connection.as_ref(), u64::MAX).await;
        let state = loaded.unwrap_or_else(|| State::new(connection.cell().clone()));
        let snapshot_seq = state.seq;
        let mut sources = tokio::task::JoinSet::new();
        let log: Arc<dyn EventLog> = Arc::clone(&connection) as Arc<dyn EventLog>;
        sources.spawn(feed_records(log, state.seq + 1, myself.clone()));
        sources.spawn(inspect::feed_questions(
            Arc::clone(&connection),
            myself.clone(),
        ));
        if roles.iter().any(|r| r.name() == RoleName::Orchestrator) {
            sources.spawn(feed_beats(Arc::clone(&connection), myself.clone()));
        }
        let terms = Terms::stand(roles, &connection, &options, &myself);
        let is_empty = connection
            .last_seq()
            .await
            .is_ok_and(|last| last <= state.seq);
        status.send_modify(|s| {
            s.seq = state.seq;
            s.is_caught_up = is_empty;
        });
        Ok(ReplicaState {
            connection,
            options,
            status,
            state,
            clock: ServerClock::default(),
            terms,
            snapshot_seq,
            wake: None,
            sources,
        })
    }

    async fn handle(
        &self,
        myself: ActorRef<ReplicaMsg>,
        msg: ReplicaMsg,
        replica: &mut ReplicaState,
    ) -> Result<(), ActorProcessingErr> {
        let now = Instant::now();
        match msg {
            ReplicaMsg::Records(batch, _permit) => replica.fold(&batch, now),
            ReplicaMsg::Election(role, outcome) => {
                replica
                    .terms
                    .on_election(role, outcome, replica.state.seq)
                    .await?;
            }
            ReplicaMsg::Beat(beat) => {
                replica.terms.each_leading(|role| role.on_beat(&beat, now));
                return Ok(());
            }
            ReplicaMsg::PresenceRestored => {
                replica
                    .terms
                    .each_leading(|role| role.on_presence_restored(now));
            }
            ReplicaMsg::Question(question) => {
                inspect::answer(replica, question);
                return Ok(());
            }
            ReplicaMsg::Tick => replica.wake = None,
            ReplicaMsg::Drain(done) => {
                replica.drain().await;
                // Whoever asked may have given up waiting.
                let _ = done.send(());
                myself.stop(None);
                return Ok(());
            }
        }
        replica.show_leads();
        replica.decide(now);
        replica.set_wake(&myself, Instant::now());
        replica.save_snapshot_if_due();
        Ok(())
    }
}

impl ReplicaState {
    fn fold(&mut self, batch: &Batch, now: Instant) {
        if self.status.borrow().stopped.is_some() {
            return;
        }
        for gap in &batch.gaps {
            tracing::error!(%gap, "the log has lost records: see `conductor replay`");
        }
        for record in &batch.records {
            let folded = fold::apply(&mut self.state, record);
            if let Some(format) = folded.stop {
                self.stop_at(record.seq, format);
                return;
            }
            self.terms.on_folded(&self.state, record, &folded, now);
            if self.terms.leads(RoleName::Orchestrator) {
                self.tell_submitters(folded.notices);
            }
        }
        let is_caught_up = batch.pending == 0;
        if let Some(last) = batch.records.last().filter(|_| is_caught_up) {
            self.clock.saw(last.time_ms, now);
        }
        self.status.send_if_modified(|status| {
            let has_changed = (is_caught_up && !status.is_caught_up) || !batch.gaps.is_empty();
            status.seq = self.state.seq;
            status.is_caught_up |= is_caught_up;
            status.gaps.extend(&batch.gaps);
            has_changed
        });
    }

    /// Says which roles it leads: that can change with a record as well as with an
    /// election that is only then known to be ours.
    fn show_leads(&mut self) {
        let leads = self.terms.leading();
        self.status.send_if_modified(|status| {
            let has_changed = status.leads != leads;
            status.leads = leads;
            has_changed
        });
    }

    fn stop_at(&mut self, seq: u64, format: u32) {
        let problem = format!(
            "record {seq} raises the log to format {format}, which this version does not know; \
             use a newer conductor"
        );
        tracing::error!(problem, "stopped reading the log");
        self.terms.stop();
        self.status
            .send_modify(|status| status.stopped = Some(problem));
    }

    fn tell_submitters(&self, notices: Vec<fold::Notice>) {
        if notices.is_empty() {
            return;
        }
        let connection = Arc::clone(&self.connection);
        tokio::spawn(async move {
            for notice in notices {
                let body = notice.word.to_json().to_string();
                connection.notify(notice.reply, body.into()).await;
            }
        });
    }

    fn decide(&mut self, now: Instant) {
        let Some(server_ms) = self.clock.now_ms(now) else {
            return;
        };
        let now = Now {
            server_ms,
            instant: now,
        };
        self.terms.decide(&self.state, now, &self.connection);
    }

    /// Wakes up when the next thing is due, should nothing happen before.
    fn set_wake(&mut self, myself: &ActorRef<ReplicaMsg>, now: Instant) {
        let Some(server_ms) = self.clock.now_ms(now) else {
            return;
        };
        let time = Now {
            server_ms,
            instant: now,
        };
        let Some(due_ms) = self.terms.next_wake(&self.state, time) else {
            return;
        };
        // Not at once even when overdue: what is overdue waits for something in flight.
        let wait = Duration::from_millis(due_ms.saturating_sub(server_ms).max(5));
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

    /// Only the leading orchestrator saves: one is enough, and it is never behind.
    fn save_snapshot_if_due(&mut self) {
        let every = self.options.snapshot_every;
        let is_due = every > 0 && self.state.seq >= self.snapshot_seq.saturating_add(every);
        if !is_due || !self.terms.leads(RoleName::Orchestrator) {
            return;
        }
        self.snapshot_seq = self.state.seq;
        let (seq, bytes) = (self.state.seq, self.state.to_snapshot());
        let connection = Arc::clone(&self.connection);
        tokio::spawn(async move { save(connection.as_ref(), seq, bytes).await });
    }

    /// Finishes what is in flight, saves a snapshot, gives the roles back.
    async fn drain(&mut self) {
        self.terms.finish(Duration::from_secs(2)).await;
        let is_worth_it = self.state.seq >= self.snapshot_seq.saturating_add(1_000);
        if is_worth_it
            && self.options.snapshot_every > 0
            && self.terms.leads(RoleName::Orchestrator)
        {
            save(
                self.connection.as_ref(),
                self.state.seq,
                self.state.to_snapshot(),
            )
            .await;
        }
        self.terms.give_back(Duration::from_secs(2)).await;
        self.sources.abort_all();
        self.connection.flush().await;
    }
}

async fn save(store: &dyn SnapshotStore, seq: u64, bytes: Vec<u8>) {
    let size = bytes.len();
    match snapshot::save(store, seq, bytes.into()).await {
        Ok(()) => tracing::info!(seq, size, "snapshot saved"),
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
        let batch = follower.next().await;
        if actor.cast(ReplicaMsg::Records(batch, permit)).is_err() {
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
