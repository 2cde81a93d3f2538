//! An attempt and people: what it asks, what it is told, and its result, where somebody has to
//! accept it.

use bytes::Bytes;
use conductor_protocol::event::{Question, Word};
use conductor_protocol::terms::Answer;

use super::{Attempt, Stop, Watch};
use crate::output::Channel;
use crate::people::{Heard, Reply, cut};
use crate::runtime::Runtime;

/// So much of a result is shown to whoever is to accept it, in bytes.
const RESULT_SHOWN: usize = 1_024;

/// What became of a result that was shown to somebody.
pub(super) enum Acceptance {
    /// It counts.
    Accepted,
    /// It does not, and this was said about it.
    Denied(Option<String>),
    /// The attempt had to stop before anybody answered.
    Stopped(Stop),
}

impl Attempt {
    /// Takes in what the scheduler says, and hands on what it means to the runtime.
    pub(super) fn hear(&self, runtime: &mut dyn Runtime, word: Word, watch: &mut Watch) {
        let signals = match self.people.hear(word) {
            None => return,
            Some(Heard::Answer(name, reply)) => runtime.answered(&name, &reply),
            Some(Heard::Text(text)) => match runtime.told(&text) {
                Some(signals) => signals,
                None => {
                    self.note("[somebody said something, but this runtime cannot be told]\n");
                    return;
                }
            },
        };
        self.act(signals, watch);
    }

    /// Says something of our own in its output.
    pub(super) fn note(&self, text: &str) {
        let text = Bytes::copy_from_slice(text.as_bytes());
        self.output.write(Channel::Stderr, text);
    }

    /// Whether somebody has to accept its result.
    fn is_to_be_accepted(&self) -> bool {
        let terms = self.assigned.terms.as_deref();
        let approvals = terms.and_then(|t| t.approvals.as_ref());
        approvals.is_some_and(|a| a.acceptance)
    }

    /// Shows a result to somebody, where the task says so, and waits for the answer.
    pub(super) async fn accept(&mut self, result: Option<&str>) -> Acceptance {
        if !self.is_to_be_accepted() {
            return Acceptance::Accepted;
        }
        let result = cut(result.unwrap_or("no result"), RESULT_SHOWN);
        let summary = format!("accept its result? {result}");
        let mut answer = self.people.ask(Question::Acceptance, &summary);
        let mut stop = self.stop.clone();
        loop {
            tokio::select! {
                reply = &mut answer => return accepted(reply.ok()),
                Some(word) = self.words.recv() => {
                    // Nothing runs that could be told anything else.
                    let _ = self.people.hear(word);
                }
                changed = stop.changed() => {
                    let reason = if changed.is_ok() { *stop.borrow_and_update() } else { Stop::Shutdown };
                    if reason != Stop::No {
                        return Acceptance::Stopped(reason);
                    }
                }
            }
        }
    }
}

fn accepted(reply: Option<Reply>) -> Acceptance {
    match reply {
        Some(reply) if reply.answer == Answer::Allow => Acceptance::Accepted,
        reply => Acceptance::Denied(reply.and_then(|r| r.text)),
    }
}
