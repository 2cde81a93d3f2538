//! An attempt and people: what it is told, and its result, where somebody has to accept it.

use conductor_protocol::OutcomeClass;
use conductor_protocol::event::{Question, Word};
use conductor_protocol::terms::Answer;

use super::Course;
use super::end::End;
use super::program::stopped;
use super::watch::Watch;
use crate::inside::Inside;
use crate::people::{Heard, Reply, cut};
use crate::runtime::Runtime;

/// So much of a result is shown to whoever is to accept it, in bytes.
const RESULT_SHOWN: usize = 1_024;

impl Course {
    /// Takes in what the scheduler says, and hands on to the runtime what is for it.
    pub(super) fn hear(
        &mut self,
        runtime: &mut dyn Runtime,
        word: Word,
        watch: &mut Watch,
        inside: &mut Inside,
    ) {
        let signals = match self.heed(word) {
            None => return,
            Some(Heard::Budget(answer)) => {
                self.reach.line.decide(answer);
                return;
            }
            Some(Heard::Answer(name, reply)) => runtime.answered(&name, &reply),
            Some(Heard::Text(text)) => match runtime.told(&text) {
                Some(signals) => signals,
                None => {
                    self.note("[somebody says something that this runtime cannot be told]");
                    return;
                }
            },
        };
        self.act(signals, watch, inside);
    }

    /// Hands a word to whoever waits for it.
    fn heed(&self, word: Word) -> Option<Heard> {
        if let Word::Subtask { number, news } = word {
            self.of.subtasks.hear(number, news);
            return None;
        }
        self.of.people.hear(word)
    }

    /// Whether somebody has to accept its result.
    fn is_to_be_accepted(&self) -> bool {
        let terms = self.of.assigned.terms.as_deref();
        let approvals = terms.and_then(|t| t.approvals.as_ref());
        approvals.is_some_and(|a| a.acceptance)
    }

    /// Shows its result to somebody, where the task says so, and waits for the answer.
    pub(super) async fn accept(&mut self, end: &mut End) {
        if !self.is_to_be_accepted() {
            return;
        }
        let result = cut(end.result.as_deref().unwrap_or("nothing"), RESULT_SHOWN);
        let summary = format!("accept its result? {result}");
        let mut answer = self.of.people.ask(Question::Acceptance, &summary);
        let mut stop = self.of.stop.clone();
        loop {
            tokio::select! {
                reply = &mut answer => {
                    if let Some(problem) = denied(reply.ok()) {
                        end.fail(OutcomeClass::Denied, problem);
                    }
                    return;
                }
                Some(word) = self.of.words.recv() => {
                    // Nothing runs that could be told anything else.
                    let _ = self.heed(word);
                }
                reason = stopped(&mut stop) => {
                    end.stop(reason);
                    return;
                }
            }
        }
    }
}

/// Why a result does not count, if it does not.
fn denied(reply: Option<Reply>) -> Option<String> {
    match reply {
        Some(reply) if reply.answer == Answer::Allow => None,
        reply => {
            let said = reply.and_then(|r| r.text);
            let said = said.map_or_else(String::new, |text| format!(": {text}"));
            Some(format!("its result was not accepted{said}"))
        }
    }
}
