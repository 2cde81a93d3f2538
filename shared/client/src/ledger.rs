//! Who is told what of a record: calls in the order in which their submissions were pushed.

use std::collections::{BTreeMap, VecDeque};

use conductor_eventlog::AppendError;
use conductor_protocol::Position;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

/// What became of the submissions of one call.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    /// Where each stands, in the call's order; `None` for those the log refused.
    pub(crate) positions: Vec<Option<Position>>,
    /// Why it refused the last of those.
    pub(crate) refused: Option<AppendError>,
}

/// One who waits for an answer.
#[derive(Debug)]
pub(crate) struct Caller {
    /// How many submissions the call has; at least one.
    pub(crate) len: usize,
    /// Where the answer goes.
    pub(crate) reply: oneshot::Sender<Answer>,
    /// The room they take, given back with the answer.
    pub(crate) room: OwnedSemaphorePermit,
}

#[derive(Debug)]
struct Open {
    caller: Caller,
    answer: Answer,
}

/// Calls that wait for an answer, by subject, the oldest first.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    open: BTreeMap<String, VecDeque<Open>>,
}

impl Ledger {
    /// Notes a call whose submissions were pushed after those of all calls before it.
    pub(crate) fn note(&mut self, subject: String, caller: Caller) {
        let answer = Answer {
            positions: Vec::with_capacity(caller.len),
            refused: None,
        };
        let open = self.open.entry(subject).or_default();
        open.push_back(Open { caller, answer });
    }

    /// The next record on `subject` held `len` submissions and is stored at a sequence, or
    /// refused. A call is answered when the last of its submissions is.
    pub(crate) fn settle(&mut self, subject: &str, len: usize, fate: &Result<u64, AppendError>) {
        let Some(calls) = self.open.get_mut(subject) else {
            return;
        };
        let mut index = 0;
        while let Some(call) = calls.front_mut().filter(|_| index < len) {
            let missing = call.caller.len - call.answer.positions.len();
            let end = index + missing.min(len - index);
            let places = (index..end).map(|i| fate.as_ref().ok().map(|seq| at(*seq, i)));
            call.answer.positions.extend(places);
            if let Err(e) = fate {
                call.answer.refused = Some(e.clone());
            }
            let is_whole = end - index == missing;
            if let Some(call) = calls.pop_front_if(|_| is_whole) {
                call.close();
            }
            index = end;
        }
        if calls.is_empty() {
            self.open.remove(subject);
        }
    }
}

impl Open {
    fn close(self) {
        // Whoever asked may have gone.
        let _ = self.caller.reply.send(self.answer);
        drop(self.caller.room);
    }
}

/// A record holds fewer submissions than 2^32.
fn at(seq: u64, index: usize) -> Position {
    Position::new(seq, index as u32)
}
