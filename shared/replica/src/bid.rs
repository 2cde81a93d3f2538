//! An append that counts only if nothing came between: for a role, or for an agent's name.

use conductor_domain::Record;
use conductor_domain::planted::{Bug, is_planted};
use conductor_eventlog::Append;
use conductor_protocol::event::Event;
use conductor_protocol::frame::{self, FrameHead};

/// A record with a compare-and-set on its subject, which must be a literal one (nats-facts:
/// with a wildcard filter stale writes get through on R3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bid {
    /// The append.
    pub append: Append,
    before: u64,
}

impl Bid {
    /// A bid to have `event` follow the record that is `last` on the subject. The event must
    /// be like nobody else's; `id` is made unique to what the bid follows.
    pub fn new(subject: String, event: &Event, id: &str, last: Option<&Record>) -> Self {
        Self::after(subject, event, id, last.map_or(0, |r| r.seq))
    }

    /// The same, by the sequence of the last record on the subject; 0 for none.
    pub fn after(subject: String, event: &Event, id: &str, before: u64) -> Self {
        let append = Append {
            payload: frame::join(FrameHead::default(), &[event.encode()]).into(),
            id: format!("{id}-{before}"),
            expected_last: (!is_planted(Bug::BidUnconditional)).then_some(before),
            subject,
        };
        Self { append, before }
    }

    /// Its sequence, should the record that is `last` after a conflict be the bid itself: on
    /// one node a repeated append meets the check before the dedup (nats-facts 2).
    pub fn seq_if_won(&self, last: &Record) -> Option<u64> {
        let is_ours = last.seq > self.before && last.payload == self.append.payload;
        is_ours.then_some(last.seq)
    }
}
