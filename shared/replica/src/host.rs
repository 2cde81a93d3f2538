//! What a replica does with what it is told: folds, begins and ends terms, lets roles decide.
//!
//! A synchronous machine: it is told things and returns effects. The actor in
//! [`crate::replica`] runs it against the log of record, the simulation against a log in
//! memory.

use std::time::{Duration, Instant};

use conductor_domain::fold::{self, Notice, Passed};
use conductor_domain::planted::{Bug, is_planted};
use conductor_domain::{Decoded, State};
use conductor_eventlog::jetstream::presence::Beat;
use conductor_protocol::subject::Role as RoleName;

use crate::clock::ServerClock;
use crate::follow::Batch;
use crate::role::{Draft, Now, Role};

/// A role decides no more while this many bytes of its events wait for a frame.
const WAITING_BYTES_MAX: usize = 4 << 20;
/// How long a role rests after the log refused what it decided.
const REST_AFTER_REFUSAL: Duration = Duration::from_secs(1);

/// What the host is told.
#[derive(Debug, Clone, Copy)]
pub enum Input<'a> {
    /// Records came in.
    Records(&'a Batch),
    /// The log has lost what was read of it, in these words.
    Lost(&'a str),
    /// The role was taken, under this epoch.
    Elected(RoleName, u64),
    /// The role is led no longer.
    Deposed(RoleName),
    /// The log refused a frame of the term of this epoch.
    Refused(RoleName, u64),
    /// An agent lives.
    Beat(&'a Beat),
    /// Signs of life could not be heard until now.
    PresenceRestored,
    /// Something is due.
    Tick,
}

/// What is to be done, in this order.
#[derive(Debug)]
pub enum Effect {
    /// A term begins: what is appended for this role carries this epoch.
    Begin {
        /// The role.
        role: RoleName,
        /// Its epoch.
        epoch: u64,
        /// On how many subjects it may have an append in flight at once.
        in_flight_max: usize,
    },
    /// The role's term of this epoch is over: what it had in flight no longer matters.
    End(RoleName, u64),
    /// Have this appended in the role's term.
    Append(RoleName, Vec<Draft>),
    /// Tell submitters who asked for it.
    Notify(Vec<Notice>),
    /// Count what ended. Only the leading orchestrator does: others would count it again.
    Count(Vec<Passed>),
    /// Store a snapshot: its sequence and its bytes.
    Save(u64, Vec<u8>),
}

/// A role, and the term under which it is led.
struct Seat {
    role: Box<dyn Role>,
    term: Option<Term>,
}

/// A time of leading.
#[derive(Debug, Clone, Copy)]
struct Term {
    epoch: u64,
    /// Whether our own election came back in the tail: nothing is decided before.
    has_begun: bool,
    rests_until: Option<Instant>,
}

impl Seat {
    fn leads(&self) -> bool {
        self.term.is_some_and(|t| t.has_begun)
    }

    fn end_term(&mut self, effects: &mut Vec<Effect>) {
        if let Some(term) = self.term.take() {
            let role = self.role.name();
            tracing::info!(%role, epoch = term.epoch, "leads no longer");
            effects.push(Effect::End(role, term.epoch));
        }
    }
}

/// The folded state, and the roles that decide from it.
pub struct Host {
    state: State,
    clock: ServerClock,
    seats: Vec<Seat>,
    snapshot_every: u64,
    snapshot_seq: u64,
    stopped: Option<String>,
}

impl std::fmt::Debug for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Host")
            .field("seq", &self.state.seq)
            .field("leads", &self.leading())
            .finish_non_exhaustive()
    }
}

impl Host {
    /// A host that goes on from `state`. While it leads as orchestrator it has a snapshot
    /// stored every `snapshot_every` records; 0 for none.
    pub fn new(state: State, roles: Vec<Box<dyn Role>>, snapshot_every: u64) -> Self {
        let seat = |role| Seat { role, term: None };
        Self {
            snapshot_seq: state.seq,
            state,
            clock: ServerClock::default(),
            seats: roles.into_iter().map(seat).collect(),
            snapshot_every,
            stopped: None,
        }
    }

    /// The folded state.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Why it stopped folding, if it did.
    pub fn stopped(&self) -> Option<&str> {
        self.stopped.as_deref()
    }

    /// The server's time; `None` before anything was read.
    pub fn server_now_ms(&self, now: Instant) -> Option<u64> {
        self.clock.now_ms(now)
    }

    /// Roles it stands for.
    pub fn names(&self) -> Vec<RoleName> {
        self.seats.iter().map(|s| s.role.name()).collect()
    }

    /// Roles it leads.
    pub fn leading(&self) -> Vec<RoleName> {
        let leads = self.seats.iter().filter(|s| s.leads());
        leads.map(|s| s.role.name()).collect()
    }

    /// Whether it leads this role.
    pub fn leads(&self, name: RoleName) -> bool {
        let seat = self.seats.iter().find(|s| s.role.name() == name);
        seat.is_some_and(Seat::leads)
    }

    /// Takes in what it is told, then lets every role that leads decide. `waiting_bytes`
    /// says how much of a role's earlier decisions still waits for a frame.
    pub fn step(
        &mut self,
        input: Input<'_>,
        now: Instant,
        waiting_bytes: impl Fn(RoleName) -> usize,
    ) -> Vec<Effect> {
        let mut effects = Vec::new();
        match input {
            Input::Records(batch) => self.fold(batch, now, &mut effects),
            Input::Lost(problem) => {
                let problem = format!("{problem}; start this process anew");
                self.stop(problem, &mut effects);
            }
            Input::Elected(name, epoch) => self.elected(name, epoch, now, &mut effects),
            Input::Deposed(name) => {
                if let Some(seat) = self.seat(name) {
                    seat.end_term(&mut effects);
                }
            }
            Input::Refused(name, epoch) => self.refused(name, epoch, now),
            Input::Beat(beat) => {
                // Life alone makes nothing due.
                self.each_leading(|role| role.on_beat(beat, now));
                return effects;
            }
            Input::PresenceRestored => self.each_leading(|role| role.on_presence_restored(now)),
            Input::Tick => {}
        }
        self.decide(now, waiting_bytes, &mut effects);
        self.save_if_due(&mut effects);
        effects
    }

    /// How long until it has something to decide, should nothing happen before.
    pub fn next_wake(&self, now: Instant) -> Option<Duration> {
        let now = self.now(now)?;
        let leading = self.seats.iter().filter(|s| s.leads());
        let wait = |seat: &Seat| {
            // What was refused is decided again after the rest, whatever else is due.
            if let Some(until) = seat.term.and_then(|t| t.rests_until)
                && now.instant < until
            {
                return Some(until - now.instant);
            }
            let due_ms = seat.role.next_wake(&self.state, now)?;
            // Not at once even when overdue: what is overdue waits for something in flight.
            let wait_ms = due_ms.saturating_sub(now.server_ms).max(5);
            Some(Duration::from_millis(wait_ms))
        };
        leading.filter_map(wait).min()
    }

    /// A last snapshot before it goes, where one saves a start some work.
    pub fn last_snapshot(&self) -> Option<(u64, Vec<u8>)> {
        const WORTH_RECORDS: u64 = 1_000;
        let is_worth_it = self.snapshot_every > 0
            && self.state.seq >= self.snapshot_seq.saturating_add(WORTH_RECORDS)
            && self.leads(RoleName::Orchestrator);
        is_worth_it.then(|| (self.state.seq, self.state.to_snapshot()))
    }

    /// Ends every term.
    pub fn end_terms(&mut self) -> Vec<Effect> {
        let mut effects = Vec::new();
        for seat in &mut self.seats {
            seat.end_term(&mut effects);
        }
        effects
    }

    fn seat(&mut self, name: RoleName) -> Option<&mut Seat> {
        self.seats.iter_mut().find(|s| s.role.name() == name)
    }

    fn now(&self, instant: Instant) -> Option<Now> {
        let server_ms = self.clock.now_ms(instant)?;
        Some(Now { server_ms, instant })
    }

    fn each_leading(&mut self, mut f: impl FnMut(&mut dyn Role)) {
        for seat in self.seats.iter_mut().filter(|s| s.leads()) {
            f(seat.role.as_mut());
        }
    }

    fn elected(&mut self, name: RoleName, epoch: u64, now: Instant, effects: &mut Vec<Effect>) {
        let (seq, newest) = (self.state.seq, self.state.epoch(name));
        let is_stopped = self.stopped.is_some();
        let Some(seat) = self.seat(name) else { return };
        seat.end_term(effects);
        if is_stopped {
            effects.push(Effect::End(name, epoch));
            return;
        }
        // Read past, without being met: the election itself is lost.
        if newest > epoch || (newest < epoch && seq >= epoch) {
            effects.push(Effect::End(name, epoch));
            return;
        }
        seat.role.on_elected(now);
        seat.term = Some(Term {
            epoch,
            has_begun: seq >= epoch && newest == epoch,
            rests_until: None,
        });
        effects.push(Effect::Begin {
            role: name,
            epoch,
            in_flight_max: seat.role.in_flight_max(),
        });
        tracing::info!(role = %name, epoch, "elected");
    }

    /// What was refused is decided again: nothing is in flight as far as the role knows.
    /// What of it is in the log nevertheless turns the second decision void.
    fn refused(&mut self, name: RoleName, epoch: u64, now: Instant) {
        let Some(seat) = self.seat(name) else { return };
        let Some(term) = seat.term.as_mut().filter(|t| t.epoch == epoch) else {
            return;
        };
        term.rests_until = Some(now + REST_AFTER_REFUSAL);
        seat.role.on_elected(now);
    }

    fn fold(&mut self, batch: &Batch, now: Instant, effects: &mut Vec<Effect>) {
        if self.stopped.is_some() {
            return;
        }
        for gap in &batch.gaps {
            tracing::error!(%gap, "the log has lost records: see `conductor replay`");
        }
        if !batch.gaps.is_empty() {
            // What was in flight may be among them: it is decided again.
            self.each_leading(|role| role.on_elected(now));
        }
        for record in &batch.records {
            let folded = fold::apply(&mut self.state, record);
            if let Some(format) = folded.stop {
                self.stop_at(record.seq, format, effects);
                return;
            }
            self.on_folded(record, &folded, now, effects);
            if !self.leads(RoleName::Orchestrator) {
                continue;
            }
            if !folded.notices.is_empty() {
                effects.push(Effect::Notify(folded.notices));
            }
            if !folded.passed.is_empty() {
                effects.push(Effect::Count(folded.passed));
            }
        }
        if let Some(last) = batch.records.last().filter(|_| batch.pending == 0) {
            self.clock.saw(last.time_ms, now);
        }
    }

    /// A record was folded: terms begin and end by it, and roles see it.
    fn on_folded(
        &mut self,
        record: &Decoded,
        folded: &fold::Folded,
        now: Instant,
        effects: &mut Vec<Effect>,
    ) {
        for seat in &mut self.seats {
            let newest = self.state.epoch(seat.role.name());
            // A newer leader is there, or our own election is lost.
            let is_over =
                |t: Term| newest > t.epoch || (newest < t.epoch && self.state.seq >= t.epoch);
            if seat.term.is_some_and(is_over) {
                seat.end_term(effects);
            }
            if let Some(term) = &mut seat.term
                && !term.has_begun
                && term.epoch == newest
            {
                term.has_begun = true;
                seat.role.on_elected(now);
            }
            if seat.leads() {
                seat.role.on_folded(record, folded);
            }
        }
    }

    fn stop_at(&mut self, seq: u64, format: u32, effects: &mut Vec<Effect>) {
        let problem = format!(
            "record {seq} raises the log to format {format}, which this version does not know; \
             use a newer conductor"
        );
        self.stop(problem, effects);
    }

    fn stop(&mut self, problem: String, effects: &mut Vec<Effect>) {
        tracing::error!(problem, "stopped reading the log");
        self.stopped = Some(problem);
        effects.extend(self.end_terms());
    }

    fn decide(
        &mut self,
        now: Instant,
        waiting_bytes: impl Fn(RoleName) -> usize,
        effects: &mut Vec<Effect>,
    ) {
        let Some(time) = self.now(now) else { return };
        for seat in self.seats.iter_mut().filter(|s| s.leads()) {
            let name = seat.role.name();
            let rests = seat
                .term
                .and_then(|t| t.rests_until)
                .is_some_and(|until| now < until);
            if rests || waiting_bytes(name) > WAITING_BYTES_MAX {
                continue;
            }
            let drafts = seat.role.decide(&self.state, time);
            if !drafts.is_empty() {
                effects.push(Effect::Append(name, drafts));
            }
        }
    }

    /// Only the leading orchestrator saves: one is enough, and it is never behind.
    fn save_if_due(&mut self, effects: &mut Vec<Effect>) {
        let is_due = self.snapshot_every > 0
            && self.state.seq >= self.snapshot_seq.saturating_add(self.snapshot_every);
        if is_due && self.leads(RoleName::Orchestrator) {
            self.snapshot_seq = self.state.seq;
            if is_planted(Bug::SnapshotAhead) {
                let mut ahead = self.state.clone();
                ahead.seq += 1;
                effects.push(Effect::Save(ahead.seq, ahead.to_snapshot()));
                return;
            }
            effects.push(Effect::Save(self.state.seq, self.state.to_snapshot()));
        }
    }
}
