//! What a decider looks like to the replica that hosts it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use conductor_domain::fold::Folded;
use conductor_domain::record::Submissions;
use conductor_domain::{Decoded, Record, State};
use conductor_eventlog::jetstream::presence::Beat;
use conductor_protocol::frame::Elements;
use conductor_protocol::subject::Role as Name;
use conductor_protocol::{TaskId, UnixMs};

/// What a role wants appended.
pub enum Draft {
    /// Events, encoded.
    Events {
        /// The subject.
        subject: String,
        /// In this order.
        events: Elements,
    },
    /// An event that needs a submission whose body was too large for the state.
    WithBody {
        /// Sequence of the submit record.
        seq: u64,
        /// The task that the event is about.
        task: TaskId,
        /// Makes subject and event from it.
        complete: Complete,
    },
    /// An event that needs several records.
    WithRecords(Gather),
}

/// A decision that needs records of the log to be complete.
pub struct Gather {
    /// Their sequences.
    pub seqs: BTreeSet<u64>,
    /// The one that it cannot do without.
    pub required: Option<u64>,
    /// The task that is meant.
    pub task: TaskId,
    /// Makes subject and event from them.
    pub complete: CompleteAll,
}

/// Makes subject and event from records by their sequence, if they are of any use.
pub type CompleteAll = Box<dyn FnOnce(&BTreeMap<u64, Record>) -> Option<(String, Elements)> + Send>;

/// Makes subject and event from a submit record, if the record is of any use.
pub type Complete = Box<dyn FnOnce(&Submissions) -> Option<(String, Elements)> + Send>;

impl std::fmt::Debug for Gather {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gather")
            .field("seqs", &self.seqs)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Draft {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Events { subject, events } => {
                write!(f, "Events({subject}, {})", events.len())
            }
            Self::WithBody { seq, task, .. } => write!(f, "WithBody({seq}, {task})"),
            Self::WithRecords(gather) => write!(f, "WithRecords({gather:?})"),
        }
    }
}

/// The time, twice.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// By the server's clock, as far as it is known.
    pub server_ms: UnixMs,
    /// By a clock that only goes on.
    pub instant: Instant,
}

/// A decider. Everything here is synchronous: effects are what it returns.
pub trait Role: Send + 'static {
    /// Which role it is.
    fn name(&self) -> Name;

    /// It leads from now on: nothing of an earlier term is in flight any more.
    fn on_elected(&mut self, now: Instant);

    /// A record was folded. Called only while leading.
    fn on_folded(&mut self, record: &Decoded, folded: &Folded);

    /// Decides what is due.
    fn decide(&mut self, state: &State, now: Now) -> Vec<Draft>;

    /// When it has something to decide, should nothing happen before.
    fn next_wake(&self, state: &State, now: Now) -> Option<UnixMs>;

    /// On how many subjects it may have an append in flight at once.
    fn in_flight_max(&self) -> usize;

    /// A sign of life of an agent.
    fn on_beat(&mut self, _beat: &Beat, _now: Instant) {}

    /// Signs of life could not be heard until now.
    fn on_presence_restored(&mut self, _now: Instant) {}
}
