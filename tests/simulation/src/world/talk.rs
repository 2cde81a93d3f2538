//! What attempts ask people, what people say, and what attempts hear of it.

use std::collections::{BTreeMap, BTreeSet};

use conductor_agent::attempt::Stop;
use conductor_agent::duty::Input;
use conductor_domain::record::Content;
use conductor_protocol::Control;
use conductor_protocol::control::OnReached;
use conductor_protocol::event::{
    ApprovalRequested, ApprovalWithdrawn, BudgetReached, Event, Question, SubtaskNews, Word,
};
use conductor_protocol::human::DurationMs;
use conductor_protocol::ids::{Lease, Position};
use conductor_protocol::terms::Answer;

use super::programs::Step;
use super::{Life, Next, World};
use crate::checkers::{self, Violation};
use crate::scenario::Node;

/// A question that nobody reacted to, not even by letting it expire, is asked again so much later.
const REMIND_MS: u64 = 30_000;
/// Longest that an answer is waited for: everything is done half an hour after trouble.
const EXPIRES_MS_MAX: u64 = 60_000;

/// A program's side of it.
#[derive(Default)]
pub(super) struct Talk {
    asked: u32,
    open: BTreeMap<u32, (u64, Answer)>,
    /// What it withdrew: of that it may still be told once.
    withdrawn: BTreeSet<u32>,
    heard: BTreeSet<Position>,
    /// How it ends once it was answered.
    ends: Option<Step>,
}

impl Talk {
    /// Whether it waits for an answer; then it ends later, so.
    pub(super) fn puts_off(&mut self, end: Step) -> Option<Step> {
        if self.open.is_empty() {
            return Some(end);
        }
        self.ends = Some(end);
        None
    }

    /// How it ends now, where it waited for answers before and does no longer.
    fn goes_on(&mut self) -> Option<Step> {
        self.open.is_empty().then(|| self.ends.take()).flatten()
    }
}

impl World {
    /// Draws what the program of an attempt asks while it runs.
    pub(super) fn plan_questions(&mut self, life: Life, lease: Lease, begins: u64, takes: u64) {
        let asking = self.scenario.options.asking;
        let mut luck = self.luck(&format!("talk {} {}", lease.task, lease.attempt));
        if !luck.chance(asking) {
            return;
        }
        for _ in 0..luck.between(1, 3) {
            let at = begins + 1 + luck.below(takes.max(1));
            let step = Box::new(Step::Asks);
            self.push_in(at, Next::Program(life, lease.assigned, step));
        }
    }

    /// A program asks something.
    pub(super) fn asks(&mut self, life: Life, at: Position) -> Result<(), Violation> {
        let mut luck = self.luck(&format!("question {at}"));
        let expires = luck.around(20_000).clamp(500, EXPIRES_MS_MAX);
        let default = if luck.chance(500) {
            Answer::Allow
        } else {
            Answer::Deny
        };
        let Node::Agent(n) = life.node else {
            return Ok(());
        };
        let Some(program) = self.agent(n).and_then(|a| a.programs.get_mut(&at)) else {
            return Ok(());
        };
        if program.stop != Stop::No {
            return Ok(());
        }
        program.talk.asked += 1;
        let number = program.talk.asked;
        program.talk.open.insert(number, (expires, default));
        let withdrawing = self.scenario.options.withdrawing;
        let mut luck = self.luck(&format!("withdraw {at} {number}"));
        if luck.chance(withdrawing) {
            let step = Box::new(Step::Withdraws(number));
            self.push_in(luck.around(4_000), Next::Program(life, at, step));
        }
        self.ask(life, at, number)
    }

    /// It does not want to know any more what it asked.
    pub(super) fn withdraws(
        &mut self,
        life: Life,
        at: Position,
        number: u32,
    ) -> Result<(), Violation> {
        let Node::Agent(n) = life.node else {
            return Ok(());
        };
        let Some(program) = self.agent(n).and_then(|a| a.programs.get_mut(&at)) else {
            return Ok(());
        };
        if program.stop != Stop::No || program.talk.open.remove(&number).is_none() {
            return Ok(());
        }
        program.talk.withdrawn.insert(number);
        let (lease, approval) = (program.lease, number);
        let ends = program.talk.goes_on();
        self.end_soon(life, at, ends);
        let fact = ApprovalWithdrawn { lease, approval };
        self.tell_agent(life, Input::Fact(fact.into()))
    }

    fn end_soon(&mut self, life: Life, at: Position, end: Option<Step>) {
        if let Some(end) = end {
            let soon = self.luck(&format!("goes on {at}")).around(200);
            self.push_in(soon, Next::Program(life, at, Box::new(end)));
        }
    }

    /// It says what it asks, and once more later should nobody have reacted.
    pub(super) fn ask(&mut self, life: Life, at: Position, number: u32) -> Result<(), Violation> {
        let Node::Agent(n) = life.node else {
            return Ok(());
        };
        let Some(program) = self.agent(n).and_then(|a| a.programs.get(&at)) else {
            return Ok(());
        };
        let Some((expires, default)) = program.talk.open.get(&number).copied() else {
            return Ok(());
        };
        let fact = ApprovalRequested {
            lease: program.lease,
            approval: number,
            question: Question::Tool,
            summary: "may I?".into(),
            expires: DurationMs(expires),
            default,
        };
        let again = Box::new(Step::Reminds(number));
        self.push_in(expires + REMIND_MS, Next::Program(life, at, again));
        self.tell_agent(life, Input::Fact(fact.into()))
    }

    /// The agent hands on what people said.
    pub(super) fn program_hears(
        &mut self,
        n: usize,
        life: Life,
        at: Position,
        word: &Word,
    ) -> Result<(), Violation> {
        let is_liar = self.liars.contains(&n);
        let seq = at.seq;
        let Some(program) = self.agent(n).and_then(|a| a.programs.get_mut(&at)) else {
            return Ok(());
        };
        let talk = &mut program.talk;
        let is_news = match word {
            Word::Subtask { number, news } => {
                let is_end = matches!(news, SubtaskNews::Ended { .. });
                program.news.insert((*number, is_end))
            }
            Word::Decision { approval, .. } => {
                talk.open.remove(approval).is_some() || talk.withdrawn.remove(approval)
            }
            Word::Text { control, .. } => talk.heard.insert(*control),
        };
        let ends = talk.goes_on();
        self.end_soon(life, at, ends);
        if is_news || is_liar {
            return Ok(());
        }
        Err(Violation {
            rule: checkers::TOLD_ONCE,
            seq,
            what: format!("process {n} tells {at} again, or what it never asked: {word:?}"),
        })
    }

    /// People read the log, too: some answer what is asked, some have something to say.
    pub(super) fn people_read(&mut self) {
        let Some(decoded) = self.referee.decoded.last() else {
            return;
        };
        let (Content::Agent { items, .. } | Content::Leader { items, .. }) = &decoded.content
        else {
            return;
        };
        let events: Vec<Event> = items.iter().flatten().cloned().collect();
        for event in events {
            match event {
                Event::ApprovalRequested(e) => self.person_answers(e.lease, e.approval),
                Event::BudgetReached(e) => self.person_decides(&e),
                Event::AttemptStarted(e) => self.person_speaks(e.lease),
                Event::AttemptSucceeded(e) => self.person_tidies(e.lease),
                Event::AttemptFailed(e) => self.person_tidies(e.lease),
                _ => {}
            }
        }
    }

    fn person_answers(&mut self, lease: Lease, approval: u32) {
        let answering = self.scenario.options.answering;
        let mut luck = self.luck(&format!("answer {} {approval}", lease.assigned));
        if !luck.chance(answering) {
            return;
        }
        // Two people may answer, and not alike.
        let people = if luck.chance(150) { 2 } else { 1 };
        for _ in 0..people {
            let answer = if luck.chance(500) {
                Answer::Allow
            } else {
                Answer::Deny
            };
            let said = Control::Decide {
                task: lease.task,
                approval,
                answer,
                text: luck.chance(300).then(|| "so be it".to_owned()),
            };
            self.push_in(luck.around(8_000), Next::Person(Box::new(said)));
        }
    }

    /// Somebody says whether a namespace may spend as much again, asked or not.
    fn person_decides(&mut self, reached: &BudgetReached) {
        let answering = self.scenario.options.answering;
        let mut luck = self.luck(&format!("budget {}", reached.namespace));
        let is_asked = reached.on_reached == OnReached::Ask || luck.chance(100);
        while is_asked && luck.chance(answering.min(900)) {
            let answer = if luck.chance(500) {
                Answer::Allow
            } else {
                Answer::Deny
            };
            let said = Control::DecideBudget {
                namespace: reached.namespace.clone(),
                answer,
                text: luck.chance(300).then(|| "so be it".to_owned()),
            };
            self.push_in(luck.around(8_000), Next::Person(Box::new(said)));
        }
    }

    fn person_speaks(&mut self, lease: Lease) {
        let telling = self.scenario.options.telling;
        let mut luck = self.luck(&format!("tell {}", lease.assigned));
        while luck.chance(telling) {
            let said = Control::Tell {
                task: lease.task,
                text: format!("remark {}", luck.below(100)),
            };
            self.push_in(luck.around(2_000), Next::Person(Box::new(said)));
        }
    }
}
