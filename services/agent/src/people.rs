//! What an attempt asks people, and waits for.
//!
//! Whoever asks within an attempt does so here: its runtime, its proxy, its server of tools. The
//! agent never answers by itself, and never gives up waiting: that a question has expired is
//! decided by the orchestrator like every answer, and said by the scheduler.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use conductor_protocol::event::{ApprovalRequested, ApprovalWithdrawn, Event, Question, Word};
use conductor_protocol::human::DurationMs;
use conductor_protocol::ids::Lease;
use conductor_protocol::limits::WORD_BYTES_MAX;
use conductor_protocol::terms::{APPROVAL_EXPIRY_MS_DEFAULT, Answer, ApprovalSpec};
use tokio::sync::{mpsc, oneshot, watch};

/// Questions that are open at once: the log takes no more of one attempt.
const OPEN_MAX: usize = 16;
/// How long after it should have expired a question is asked again: it was void for a log that
/// had not reached its format.
const REMIND_AFTER: Duration = Duration::from_secs(30);

/// What was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// Yes or no.
    pub answer: Answer,
    /// What was said with it.
    pub text: Option<String>,
}

/// What an attempt heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// What its runtime asked under this name was answered.
    Answer(String, Reply),
    /// Whether its models may go on though a budget is used up.
    Budget(Answer),
    /// Somebody says this to it.
    Text(String),
}

/// An attempt's questions to people; one for all who ask. Clones share it.
#[derive(Clone, Debug)]
pub struct People(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    lease: Lease,
    expires: DurationMs,
    default: Answer,
    facts: mpsc::UnboundedSender<Event>,
    desk: Mutex<Desk>,
    /// How many questions wait for an answer.
    waiting: watch::Sender<usize>,
}

#[derive(Debug, Default)]
struct Desk {
    last: u32,
    open: BTreeMap<u32, (ApprovalRequested, Asker)>,
    /// What is asked once fewer are open.
    queue: VecDeque<(Question, String, Asker)>,
}

/// Who waits for an answer.
#[derive(Debug)]
enum Asker {
    /// The runtime, which knows its question by this name.
    Runtime(String),
    /// Its way to models, whose budget is used up.
    Budget,
    /// Somebody else.
    Other(oneshot::Sender<Reply>),
}

impl People {
    /// The people of an attempt, who are asked as its task says.
    pub fn new(
        lease: Lease,
        spec: Option<&ApprovalSpec>,
        facts: mpsc::UnboundedSender<Event>,
    ) -> Self {
        let expires = spec.and_then(|s| s.expires);
        Self(Arc::new(Shared {
            lease,
            expires: expires.unwrap_or(DurationMs(APPROVAL_EXPIRY_MS_DEFAULT)),
            default: spec.map(|s| s.default).unwrap_or_default(),
            facts,
            desk: Mutex::default(),
            waiting: watch::Sender::new(0),
        }))
    }

    /// Asks; the answer comes whenever it does.
    pub fn ask(&self, question: Question, summary: &str) -> oneshot::Receiver<Reply> {
        let (answer, reply) = oneshot::channel();
        self.put(question, summary, Asker::Other(answer));
        reply
    }

    /// Asks for the runtime, which is told the answer by [`Heard::Answer`].
    pub fn ask_for_runtime(&self, name: String, question: Question, summary: &str) {
        self.put(question, summary, Asker::Runtime(name));
    }

    /// Asks whether its models may go on; whoever watches over them is told by [`Heard::Budget`].
    pub fn ask_for_budget(&self, summary: &str) {
        self.put(Question::Budget, summary, Asker::Budget);
    }

    /// The runtime does not want to know any more what it asked under this name.
    pub fn withdraw(&self, name: &str) {
        self.withdraw_all(|asker| matches!(asker, Asker::Runtime(of) if of == name));
    }

    /// The program is gone, and with it whoever asked: its runtime, its models, its tools.
    pub fn program_ended(&self) {
        self.withdraw_all(|_| true);
    }

    /// How many questions wait for an answer: while any does, the attempt does not run.
    pub fn waiting(&self) -> watch::Receiver<usize> {
        self.0.waiting.subscribe()
    }

    /// Takes in what the scheduler says.
    pub fn hear(&self, word: Word) -> Option<Heard> {
        let (approval, answer, text) = match word {
            Word::Text { text, .. } => return Some(Heard::Text(text)),
            // Nobody asked people about it.
            Word::Subtask { .. } => return None,
            Word::Decision {
                approval,
                answer,
                text,
            } => (approval, answer, text),
        };
        let mut desk = self.0.desk();
        let (_, asker) = desk.open.remove(&approval)?;
        self.fill(&mut desk);
        drop(desk);
        let reply = Reply { answer, text };
        match asker {
            Asker::Runtime(name) => Some(Heard::Answer(name, reply)),
            Asker::Budget => Some(Heard::Budget(answer)),
            Asker::Other(asker) => {
                // Whoever asked may have gone meanwhile.
                let _ = asker.send(reply);
                None
            }
        }
    }

    fn put(&self, question: Question, summary: &str, asker: Asker) {
        let summary = cut(summary, WORD_BYTES_MAX);
        let mut desk = self.0.desk();
        desk.queue.push_back((question, summary, asker));
        self.fill(&mut desk);
    }

    /// Asks what waited until fewer are open.
    fn fill(&self, desk: &mut Desk) {
        while desk.open.len() < OPEN_MAX
            && let Some((question, summary, asker)) = desk.queue.pop_front()
        {
            let number = self.0.open(desk, question, summary, asker);
            let reminder = remind(Arc::downgrade(&self.0), number, self.0.expires);
            tokio::spawn(reminder);
        }
        self.0.waiting.send_replace(desk.open.len());
    }

    fn withdraw_all(&self, is_its: impl Fn(&Asker) -> bool) {
        let mut desk = self.0.desk();
        desk.queue.retain(|(.., asker)| !is_its(asker));
        let withdrawn = desk.open.extract_if(.., |_, (_, asker)| is_its(asker));
        for (approval, _) in withdrawn {
            let lease = self.0.lease;
            self.0.say(ApprovalWithdrawn { lease, approval });
        }
        self.fill(&mut desk);
    }
}

impl Shared {
    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open(&self, desk: &mut Desk, question: Question, summary: String, asker: Asker) -> u32 {
        desk.last += 1;
        let request = ApprovalRequested {
            lease: self.lease,
            approval: desk.last,
            question,
            summary,
            expires: self.expires,
            default: self.default,
        };
        self.say(request.clone());
        desk.open.insert(desk.last, (request, asker));
        desk.last
    }

    fn say(&self, fact: impl Into<Event>) {
        // The service lives longer than its attempts; when it is killed nobody reports.
        let _ = self.facts.send(fact.into());
    }
}

/// Asks again for as long as nobody has said anything, not even that it has expired.
async fn remind(shared: Weak<Shared>, number: u32, expires: DurationMs) {
    let pause = Duration::from_millis(expires.0).saturating_add(REMIND_AFTER);
    loop {
        tokio::time::sleep(pause).await;
        let Some(shared) = shared.upgrade() else {
            return;
        };
        let desk = shared.desk();
        let Some((asked, _)) = desk.open.get(&number) else {
            return;
        };
        shared.say(asked.clone());
    }
}

/// The beginning of a text, its cut marked.
pub(crate) fn cut(text: &str, max: usize) -> String {
    if text.len() <= max {
        return text.to_owned();
    }
    let fits = |end: &usize| text.is_char_boundary(*end);
    let end = (0..=max.saturating_sub(4)).rev().find(fits).unwrap_or(0);
    format!("{}…", text.get(..end).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use conductor_protocol::TaskId;
    use conductor_protocol::ids::Position;

    fn people() -> (People, mpsc::UnboundedReceiver<Event>) {
        let (facts, told) = mpsc::unbounded_channel();
        let lease = Lease {
            task: TaskId::from_parts(0, [1; 10]),
            attempt: 1,
            assigned: Position::new(1, 0),
        };
        let spec = ApprovalSpec {
            expires: Some(DurationMs(1_000)),
            ..ApprovalSpec::default()
        };
        (People::new(lease, Some(&spec), facts), told)
    }

    fn asked(told: &mut mpsc::UnboundedReceiver<Event>) -> Vec<(u32, String)> {
        let mut out = Vec::new();
        while let Ok(Event::ApprovalRequested(e)) = told.try_recv() {
            out.push((e.approval, e.summary));
        }
        out
    }

    fn allow(approval: u32) -> Word {
        Word::Decision {
            approval,
            answer: Answer::Allow,
            text: None,
        }
    }

    #[tokio::test]
    async fn whoever_asks_hears_the_answer_once() {
        let (people, mut told) = people();
        people.ask_for_runtime("r".into(), Question::Tool, "Bash: make");
        let other = people.ask(Question::Human, "which branch?");
        assert_eq!(
            asked(&mut told),
            [(1, "Bash: make".into()), (2, "which branch?".into())]
        );
        assert_eq!(*people.waiting().borrow(), 2);
        let reply = Reply {
            answer: Answer::Allow,
            text: None,
        };
        let heard = people.hear(allow(1));
        assert_eq!(heard, Some(Heard::Answer("r".into(), reply.clone())));
        assert_eq!(people.hear(allow(1)), None, "the same words again");
        assert_eq!(people.hear(allow(2)), None);
        assert_eq!(other.await, Ok(reply));
        assert_eq!(*people.waiting().borrow(), 0);
    }

    #[tokio::test]
    async fn more_than_the_log_takes_wait_for_their_turn() {
        let (people, mut told) = people();
        for n in 0..=OPEN_MAX {
            people.ask_for_runtime(n.to_string(), Question::Tool, &n.to_string());
        }
        assert_eq!(asked(&mut told).len(), OPEN_MAX);
        people.hear(allow(3));
        assert_eq!(asked(&mut told), [(17, "16".into())]);
    }

    fn withdrawn(told: &mut mpsc::UnboundedReceiver<Event>) -> Vec<u32> {
        let mut out = Vec::new();
        while let Ok(Event::ApprovalWithdrawn(e)) = told.try_recv() {
            out.push(e.approval);
        }
        out
    }

    #[tokio::test]
    async fn what_is_withdrawn_is_open_no_longer_and_makes_room() {
        let (people, mut told) = people();
        for n in 0..=OPEN_MAX + 1 {
            people.ask_for_runtime(n.to_string(), Question::Tool, &n.to_string());
        }
        asked(&mut told);
        // One that waited for room was never asked.
        people.withdraw("16");
        assert_eq!(withdrawn(&mut told), Vec::<u32>::new());
        people.withdraw("2");
        let Ok(Event::ApprovalWithdrawn(first)) = told.try_recv() else {
            panic!("it says so first");
        };
        assert_eq!(first.approval, 3);
        assert_eq!(asked(&mut told), [(17, "17".into())]);
        assert_eq!(people.hear(allow(3)), None, "an answer that came late");
        people.withdraw("2");
        people.withdraw("never asked");
        assert_eq!(withdrawn(&mut told), Vec::<u32>::new());
    }

    #[tokio::test]
    async fn a_program_that_is_gone_asks_nothing_and_others_still_do() {
        let (people, mut told) = people();
        people.ask_for_runtime("r".into(), Question::Tool, "Bash: make");
        people.ask_for_budget("100 turns");
        let tool = people.ask(Question::Human, "which branch?");
        asked(&mut told);
        people.program_ended();
        assert_eq!(withdrawn(&mut told), [1, 2, 3]);
        assert!(tool.await.is_err());
        assert_eq!(*people.waiting().borrow(), 0);
        let other = people.ask(Question::Acceptance, "accept it?");
        assert_eq!(people.hear(allow(3)), None, "an answer that came late");
        people.hear(allow(4));
        assert_eq!(other.await.unwrap().answer, Answer::Allow);
    }

    #[tokio::test]
    async fn no_name_of_a_runtimes_question_makes_it_one_of_a_budget() {
        let (people, _told) = people();
        people.ask_for_runtime("conductor-budget".into(), Question::Tool, "Bash: make");
        people.ask_for_budget("100 turns");
        assert!(matches!(people.hear(allow(1)), Some(Heard::Answer(..))));
        assert_eq!(people.hear(allow(2)), Some(Heard::Budget(Answer::Allow)));
    }

    #[tokio::test(start_paused = true)]
    async fn what_nobody_reacts_to_is_asked_again_until_the_attempt_is_over() {
        let (people, mut told) = people();
        people.ask_for_runtime("r".into(), Question::Tool, "Bash: make");
        asked(&mut told);
        tokio::time::sleep(Duration::from_secs(32)).await;
        assert_eq!(asked(&mut told), [(1, "Bash: make".into())]);
        drop(people);
        tokio::time::sleep(Duration::from_secs(100)).await;
        assert_eq!(asked(&mut told), []);
    }
}
