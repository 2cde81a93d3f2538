//! What a program asks people by its tools. A question outlives the call that asked it: clients give
//! up, and ask the same again; people answer once.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use conductor_protocol::event::{FieldError, Question};
use futures::FutureExt;
use futures::future::Shared;
use tokio::sync::oneshot;
use tokio::task::unconstrained;

use crate::people::{People, Reply};

/// Questions of its tools that may be open: fewer than the log takes of one attempt, so that its
/// runtime and its budget can be asked about as well.
const OPEN_MAX: usize = 8;
/// Questions of its tools in all: each is a record, and somebody's time.
const ASKED_MAX: usize = 256;

type Answer = Shared<oneshot::Receiver<Reply>>;

/// The questions of one attempt.
#[derive(Debug, Default)]
pub(super) struct Questions(Mutex<Book>);

#[derive(Debug, Default)]
struct Book {
    /// Those that are open, and those whose answer nobody has heard yet.
    open: BTreeMap<(bool, String), Answer>,
    asked: usize,
}

/// A question that was asked.
#[derive(Debug)]
pub(super) struct Asked {
    key: (bool, String),
    answer: Answer,
}

impl Questions {
    /// Asks, unless the same is asked already; `is_open` says that more than yes or no is wanted.
    pub(super) fn ask(
        &self,
        people: &People,
        text: String,
        is_open: bool,
    ) -> Result<Asked, FieldError> {
        let mut book = self.book();
        let key = (is_open, text);
        if let Some(answer) = book.open.get(&key) {
            let answer = answer.clone();
            return Ok(Asked { key, answer });
        }
        book.admit(is_open)?;
        let question = if is_open {
            Question::Human
        } else {
            Question::Tool
        };
        let answer = people.ask(question, &key.1).shared();
        book.asked += 1;
        book.open.insert(key.clone(), answer.clone());
        Ok(Asked { key, answer })
    }

    /// Waits for the answer; whoever hears it first closes the question. `None` when the attempt is
    /// over.
    pub(super) async fn answer(&self, asked: Asked) -> Option<Reply> {
        let Asked { key, answer } = asked;
        let reply = answer.clone().await.ok();
        let mut book = self.book();
        if book.open.get(&key).is_some_and(|open| open.ptr_eq(&answer)) {
            book.open.remove(&key);
        }
        reply
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Book {
    fn admit(&mut self, is_open: bool) -> Result<(), FieldError> {
        let field = field(is_open);
        if self.asked >= ASKED_MAX {
            let problem = format!("is beyond the {ASKED_MAX} questions an attempt may ask");
            return Err(FieldError::new(
                field,
                problem,
                "that you go on without asking",
            ));
        }
        if self.open.len() >= OPEN_MAX {
            // An answer that nobody came back for is not kept at the cost of new questions.
            let is_open = |answer: &Answer| unconstrained(answer.clone()).now_or_never().is_none();
            self.open.retain(|_, answer| is_open(answer));
        }
        if self.open.len() >= OPEN_MAX {
            let problem = format!("is one more than the {OPEN_MAX} questions that may be open");
            let expected = "that you wait for an answer to one of those first";
            return Err(FieldError::new(field, problem, expected));
        }
        Ok(())
    }
}

/// The field in which a tool takes its question.
pub(super) fn field(is_open: bool) -> &'static str {
    if is_open { "question" } else { "summary" }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tools::testing::{allow, lease};
    use conductor_protocol::event::Event;
    use tokio::sync::mpsc;

    fn people() -> (People, mpsc::UnboundedReceiver<Event>) {
        let (facts, told) = mpsc::unbounded_channel();
        (People::new(lease(), None, facts), told)
    }

    fn asked(told: &mut mpsc::UnboundedReceiver<Event>) -> Vec<(Question, String)> {
        let mut out = Vec::new();
        while let Ok(Event::ApprovalRequested(e)) = told.try_recv() {
            out.push((e.question, e.summary));
        }
        out
    }

    #[tokio::test]
    async fn what_is_asked_again_is_the_same_question() {
        let (people, mut told) = people();
        let questions = Questions::default();
        let ask = |text: &str| questions.ask(&people, text.to_owned(), true).unwrap();
        // Its caller gives up, and comes back.
        drop(ask("which branch?"));
        let (first, second) = (ask("which branch?"), ask("which branch?"));
        assert_eq!(
            asked(&mut told),
            [(Question::Human, "which branch?".into())]
        );
        people.hear(allow(1, "main"));
        for waiting in [first, second] {
            let reply = questions.answer(waiting).await.unwrap();
            assert_eq!(reply.text.as_deref(), Some("main"));
        }
        drop(ask("which branch?"));
        assert_eq!(asked(&mut told).len(), 1, "it was answered: asked anew");
    }

    #[tokio::test]
    async fn an_answer_waits_for_whoever_comes_back() {
        let (people, mut told) = people();
        let questions = Questions::default();
        drop(questions.ask(&people, "may I?".into(), false).unwrap());
        people.hear(allow(1, "yes"));
        let again = questions.ask(&people, "may I?".into(), false).unwrap();
        let reply = questions.answer(again).await.unwrap();
        assert_eq!(reply.text.as_deref(), Some("yes"));
        assert_eq!(asked(&mut told), [(Question::Tool, "may I?".into())]);
    }

    #[tokio::test]
    async fn no_more_are_open_or_asked_than_may_be() {
        let (people, _told) = people();
        let questions = Questions::default();
        let ask = |n: usize| questions.ask(&people, n.to_string(), false).map(drop);
        (0..OPEN_MAX).for_each(|n| ask(n).unwrap());
        let most = ask(OPEN_MAX).unwrap_err().to_string();
        assert!(
            most.starts_with("summary: is one more than the 8 questions"),
            "{most}"
        );
        // Answered, and heard by nobody: forgotten for the next.
        people.hear(allow(1, ""));
        ask(OPEN_MAX).unwrap();
        for n in OPEN_MAX + 1..ASKED_MAX {
            people.hear(allow(u32::try_from(n).unwrap() - 7, ""));
            ask(n).unwrap();
        }
        people.hear(allow(249, ""));
        let most = ask(ASKED_MAX).unwrap_err().to_string();
        assert!(most.contains("beyond the 256 questions"), "{most}");
    }
}
