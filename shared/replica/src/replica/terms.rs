//! The roles of a replica and, while it leads one, its term.

use std::sync::Arc;
use std::time::{Duration, Instant};

use conductor_domain::fold::Folded;
use conductor_domain::{Decoded, State};
use conductor_eventlog::EventLog;
use conductor_eventlog::jetstream::Connection;
use conductor_protocol::UnixMs;
use conductor_protocol::frame::FrameHead;
use conductor_protocol::subject::Role as RoleName;
use ractor::{Actor, ActorRef, SpawnErr};
use tokio::sync::watch;

use super::{ReplicaMsg, ReplicaOptions};
use crate::appender::{Appender, AppenderArgs, AppenderMsg, Load};
use crate::election::{Candidate, Outcome};
use crate::role::{Draft, Now, Role};

/// A role decides no more while this many bytes of its events wait for a frame.
const WAITING_BYTES_MAX: usize = 4 << 20;

/// The roles of a replica.
pub(super) struct Terms {
    seats: Vec<Seat>,
    stop: watch::Sender<bool>,
    candidates: tokio::task::JoinSet<()>,
    log: Arc<dyn EventLog>,
    instance: String,
}

/// A role, and the term under which it is led.
struct Seat {
    role: Box<dyn Role>,
    newest_epoch: watch::Sender<u64>,
    term: Option<Term>,
}

/// A time of leading.
struct Term {
    epoch: u64,
    /// Whether our own election came back in the tail: nothing is decided before.
    has_begun: bool,
    appender: ActorRef<AppenderMsg>,
    load: Arc<Load>,
}

impl Seat {
    fn leading(&mut self) -> Option<(&mut Box<dyn Role>, &Term)> {
        let term = self.term.as_ref().filter(|t| t.has_begun)?;
        Some((&mut self.role, term))
    }

    fn leads(&self) -> bool {
        self.term.as_ref().is_some_and(|t| t.has_begun)
    }

    fn end_term(&mut self) {
        if let Some(term) = self.term.take() {
            tracing::info!(role = %self.role.name(), epoch = term.epoch, "leads no longer");
            term.appender.kill();
        }
    }
}

impl Terms {
    /// Stands for every role.
    pub(super) fn stand(
        roles: Vec<Box<dyn Role>>,
        connection: &Arc<Connection>,
        options: &ReplicaOptions,
        actor: &ActorRef<ReplicaMsg>,
    ) -> Self {
        let (stop, stopped) = watch::channel(false);
        let mut candidates = tokio::task::JoinSet::new();
        let mut seats = Vec::new();
        for role in roles {
            let (newest_epoch, epochs) = watch::channel(0);
            let candidate = Candidate {
                connection: Arc::clone(connection),
                role: role.name(),
                holder: options.instance.clone(),
                ttl: options.lock_ttl,
                takes_over: options.takes_over,
            };
            let (actor, name) = (actor.clone(), role.name());
            let tell = move |outcome| {
                // An actor that is gone no longer decides anyway.
                let _ = actor.cast(ReplicaMsg::Election(name, outcome));
            };
            candidates.spawn(candidate.stand(stopped.clone(), epochs, tell));
            seats.push(Seat {
                role,
                newest_epoch,
                term: None,
            });
        }
        let log = Arc::clone(connection) as Arc<dyn EventLog>;
        Self {
            seats,
            stop,
            candidates,
            log,
            instance: options.instance.clone(),
        }
    }

    /// An election went one way or the other.
    pub(super) async fn on_election(
        &mut self,
        name: RoleName,
        outcome: Outcome,
        seq: u64,
    ) -> Result<(), SpawnErr> {
        let Some(seat) = self.seats.iter_mut().find(|s| s.role.name() == name) else {
            return Ok(());
        };
        seat.end_term();
        let Outcome::Elected(epoch) = outcome else {
            return Ok(());
        };
        if *seat.newest_epoch.borrow() > epoch {
            return Ok(());
        }
        let load = Arc::new(Load::default());
        let args = AppenderArgs {
            log: Arc::clone(&self.log),
            head: FrameHead::epoch(epoch),
            writer: format!("{}-{name}-{epoch}", self.instance),
            in_flight_max: seat.role.in_flight_max(),
            load: Arc::clone(&load),
        };
        let (appender, _) = Actor::spawn(None, Appender, args).await?;
        let has_begun = seq >= epoch;
        seat.role.on_elected(Instant::now());
        seat.term = Some(Term {
            epoch,
            has_begun,
            appender,
            load,
        });
        tracing::info!(role = %name, epoch, "elected");
        Ok(())
    }

    /// A record was folded: terms begin and end by it, and roles see it.
    pub(super) fn on_folded(
        &mut self,
        state: &State,
        record: &Decoded,
        folded: &Folded,
        now: Instant,
    ) {
        for seat in &mut self.seats {
            let newest = state.epoch(seat.role.name());
            seat.newest_epoch.send_if_modified(|seen| {
                let is_newer = *seen < newest;
                *seen = newest.max(*seen);
                is_newer
            });
            if seat.term.as_ref().is_some_and(|t| newest > t.epoch) {
                seat.end_term();
            }
            if let Some(term) = seat
                .term
                .as_mut()
                .filter(|t| !t.has_begun && t.epoch <= state.seq)
            {
                term.has_begun = true;
                seat.role.on_elected(now);
            }
            if let Some((role, _)) = seat.leading() {
                role.on_folded(record, folded);
            }
        }
    }

    /// Lets every role that leads decide, and has it appended.
    pub(super) fn decide(&mut self, state: &State, now: Now, connection: &Arc<Connection>) {
        for seat in &mut self.seats {
            let Some((role, term)) = seat.leading() else {
                continue;
            };
            if term.load.bytes() > WAITING_BYTES_MAX {
                continue;
            }
            let mut events = Vec::new();
            for draft in role.decide(state, now) {
                match draft {
                    Draft::Event { subject, event } => events.push((subject, event)),
                    Draft::WithRecord { seq, complete } => {
                        let appender = term.appender.clone();
                        tokio::spawn(fetch(Arc::clone(connection), seq, complete, appender));
                    }
                }
            }
            if !events.is_empty() {
                term.load.mark_busy();
                // A term that has just ended needs nothing appended.
                let _ = term.appender.cast(AppenderMsg::Push(events));
            }
        }
    }

    pub(super) fn next_wake(&self, state: &State, now: Now) -> Option<UnixMs> {
        let leading = self.seats.iter().filter(|s| s.leads());
        leading.filter_map(|s| s.role.next_wake(state, now)).min()
    }

    pub(super) fn each_leading(&mut self, mut f: impl FnMut(&mut dyn Role)) {
        for seat in &mut self.seats {
            if let Some((role, _)) = seat.leading() {
                f(role.as_mut());
            }
        }
    }

    pub(super) fn leads(&self, name: RoleName) -> bool {
        self.seats
            .iter()
            .any(|s| s.role.name() == name && s.leads())
    }

    pub(super) fn leading(&self) -> Vec<RoleName> {
        self.seats
            .iter()
            .filter(|s| s.leads())
            .map(|s| s.role.name())
            .collect()
    }

    pub(super) fn names(&self) -> Vec<RoleName> {
        self.seats.iter().map(|s| s.role.name()).collect()
    }

    /// Ends every term at once and stands for nothing more.
    pub(super) fn stop(&mut self) {
        self.stop.send_replace(true);
        self.seats.iter_mut().for_each(Seat::end_term);
    }

    /// Waits until what was decided is in the log.
    pub(super) async fn finish(&mut self, at_most: Duration) {
        let deadline = Instant::now() + at_most;
        let is_busy = |s: &Seat| s.term.as_ref().is_some_and(|t| t.load.is_busy());
        while self.seats.iter().any(is_busy) && Instant::now() < deadline {
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

/// Reads the record that a decision needs, however long that takes, then appends it.
async fn fetch(
    connection: Arc<Connection>,
    seq: u64,
    complete: Box<dyn FnOnce(&conductor_domain::Record) -> Option<(String, Vec<u8>)> + Send>,
    appender: ActorRef<AppenderMsg>,
) {
    let mut pause = Duration::from_millis(20);
    loop {
        match connection.read(seq).await {
            Ok(Some(record)) => {
                match complete(&record) {
                    Some(event) => {
                        let _ = appender.cast(AppenderMsg::Push(vec![event]));
                    }
                    None => tracing::error!(seq, "a submission's body cannot be read"),
                }
                return;
            }
            Ok(None) => tracing::error!(
                seq,
                "the log has lost a record that is needed to run a task"
            ),
            Err(e) => tracing::warn!(seq, error = %e, "a record cannot be read yet"),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(5));
        if appender.get_status() as u8 >= ractor::ActorStatus::Stopping as u8 {
            return;
        }
    }
}
