//! Candidacies for the roles of a replica and, while it leads one, its term's appender.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use conductor_domain::State;
use conductor_eventlog::EventLog;
use conductor_eventlog::jetstream::Connection;
use conductor_protocol::frame::FrameHead;
use conductor_protocol::subject::Role as RoleName;
use conductor_telemetry::live;
use ractor::{Actor, ActorRef, SpawnErr};
use tokio::sync::watch;

use super::bodies::Bodies;
use super::{ReplicaMsg, ReplicaOptions};
use crate::appender::{Appender, AppenderArgs, AppenderMsg, Load};
use crate::election::Candidate;
use crate::role::Draft;

/// The terms of a replica, and what goes on beside them.
pub(super) struct Terms {
    connection: Arc<Connection>,
    actor: ActorRef<ReplicaMsg>,
    instance: String,
    /// The newest epoch seen in the tail, by role: a candidate that leads under an older one
    /// steps down.
    newest_epochs: BTreeMap<RoleName, watch::Sender<u64>>,
    running: BTreeMap<RoleName, Term>,
    stop: watch::Sender<bool>,
    candidates: tokio::task::JoinSet<()>,
}

/// What a term has while it lasts.
struct Term {
    appender: ActorRef<AppenderMsg>,
    load: Arc<Load>,
    bodies: Bodies,
}

impl Terms {
    /// Stands for every role.
    pub(super) fn stand(
        roles: &[RoleName],
        connection: &Arc<Connection>,
        options: &ReplicaOptions,
        actor: &ActorRef<ReplicaMsg>,
    ) -> Self {
        let (stop, stopped) = watch::channel(false);
        let mut candidates = tokio::task::JoinSet::new();
        let mut newest_epochs = BTreeMap::new();
        for name in roles.iter().copied() {
            let (newest_epoch, epochs) = watch::channel(0);
            let candidate = Candidate {
                connection: Arc::clone(connection),
                role: name,
                holder: options.instance.clone(),
                ttl: options.lock_ttl,
                takes_over: options.takes_over,
            };
            let actor = actor.clone();
            let tell = move |outcome| {
                // An actor that is gone no longer decides anyway.
                let _ = actor.cast(ReplicaMsg::Election(name, outcome));
            };
            candidates.spawn(candidate.stand(stopped.clone(), epochs, tell));
            newest_epochs.insert(name, newest_epoch);
        }
        Self {
            connection: Arc::clone(connection),
            actor: actor.clone(),
            instance: options.instance.clone(),
            newest_epochs,
            running: BTreeMap::new(),
            stop,
            candidates,
        }
    }

    /// Shows candidates who leads by the log.
    pub(super) fn show_epochs(&self, state: &State) {
        for (role, shown) in &self.newest_epochs {
            let newest = state.epoch(*role);
            shown.send_if_modified(|seen| {
                let is_newer = *seen < newest;
                *seen = newest.max(*seen);
                is_newer
            });
        }
    }

    /// A term begins: it gets an appender of its own.
    pub(super) async fn begin(
        &mut self,
        role: RoleName,
        epoch: u64,
        in_flight_max: usize,
    ) -> Result<(), SpawnErr> {
        let load = Arc::new(Load::default());
        let actor = self.actor.clone();
        let args = AppenderArgs {
            log: Arc::clone(&self.connection) as Arc<dyn EventLog>,
            head: FrameHead::epoch(epoch),
            kind: role.as_str(),
            writer: format!("{}-{role}-{epoch}", self.instance),
            in_flight_max,
            load: Arc::clone(&load),
            on_refused: Arc::new(move || {
                let _ = actor.cast(ReplicaMsg::Refused(role, epoch));
            }),
        };
        let (appender, _) = Actor::spawn(None, Appender, args).await?;
        let log = Arc::clone(&self.connection) as Arc<dyn EventLog>;
        let term = Term {
            bodies: Bodies::new(log, appender.clone()),
            appender,
            load,
        };
        self.running.insert(role, term);
        Ok(())
    }

    /// A term is over: the candidate stands anew, should it not know yet.
    pub(super) fn end(&mut self, role: RoleName, epoch: u64) {
        if let Some(term) = self.running.remove(&role) {
            term.appender.kill();
        }
        if let Some(shown) = self.newest_epochs.get(&role) {
            shown.send_modify(|seen| *seen = (*seen).max(epoch + 1));
        }
    }

    /// Has what a role decided appended.
    pub(super) fn append(&self, role: RoleName, drafts: Vec<Draft>, state: &State, since_ns: u64) {
        // A term that has just ended needs nothing appended.
        let Some(term) = self.running.get(&role) else {
            return;
        };
        if live::is_on() {
            super::inside::trace(role, &drafts, state, since_ns, &term.appender);
        }
        let (mut events, mut bodies) = (Vec::new(), BTreeMap::new());
        for draft in drafts {
            match draft {
                Draft::Events {
                    subject,
                    events: elements,
                } => events.push((subject, elements)),
                Draft::WithBody {
                    seq,
                    task,
                    complete,
                } => {
                    let of_record = bodies.entry(seq).or_insert_with(Vec::new);
                    of_record.push((task, complete));
                }
                Draft::WithRecords(gather) => term.bodies.gather(gather),
            }
        }
        if !events.is_empty() {
            term.load.mark_busy();
            let _ = term.appender.cast(AppenderMsg::Push(events));
        }
        for (seq, decisions) in bodies {
            term.bodies.complete(seq, decisions);
        }
    }

    /// Bytes of a role's events that wait for a frame.
    pub(super) fn waiting_bytes(&self, role: RoleName) -> usize {
        self.running.get(&role).map_or(0, |t| t.load.bytes())
    }

    /// Stands for nothing more.
    pub(super) fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// Waits until what was decided is in the log.
    pub(super) async fn finish(&self, at_most: Duration) {
        let deadline = Instant::now() + at_most;
        while self.running.values().any(|t| t.load.is_busy()) && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Gives the locks back, so that others take over at once.
    pub(super) async fn give_back(&mut self, at_most: Duration) {
        self.stop();
        let all = async { while self.candidates.join_next().await.is_some() {} };
        if tokio::time::timeout(at_most, all).await.is_err() {
            tracing::warn!("a lock was not given back; it runs out by itself");
        }
    }
}
