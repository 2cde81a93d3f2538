//! The books about what attempts and people say to each other, and about what tasks share.

use std::collections::{BTreeMap, BTreeSet};

use conductor_protocol::TaskId;
use conductor_protocol::event::{Event, Word};
use conductor_protocol::ids::{AgentId, Namespace, Position};
use conductor_protocol::terms::Answer;

use crate::budgets::Budgets;

/// A question that counted.
#[derive(Clone, Debug)]
pub struct Question {
    /// The task whose attempt asked.
    pub task: TaskId,
    /// What an answer that does not come means.
    pub default: Answer,
    /// What somebody answered first, and where.
    pub given: Option<(Answer, Position)>,
    /// What was decided.
    pub decided: Option<Answer>,
    /// How often its attempt was told.
    pub told: u32,
    /// Whether its attempt withdrew it.
    pub is_withdrawn: bool,
}

impl Question {
    /// Whether its attempt waits for an answer.
    pub fn is_waited_for(&self) -> bool {
        self.told == 0 && !self.is_withdrawn
    }
}

/// Something that people said to an attempt.
#[derive(Clone, Debug)]
pub struct Said {
    /// Where the attempt was assigned.
    pub lease: Position,
    /// How often it was told.
    pub told: u32,
}

/// What was asked and said, by where the attempt was assigned.
#[derive(Clone, Debug, Default)]
pub struct Talk {
    /// Questions, by the attempt and their number.
    pub questions: BTreeMap<(Position, u32), Question>,
    /// Words, by where they were said.
    pub words: BTreeMap<Position, Said>,
}

impl Talk {
    /// Whether the attempt assigned there has asked something, wants to know it and was not told.
    pub fn is_asking(&self, lease: Position) -> bool {
        let all = self.questions.range((lease, 0)..=(lease, u32::MAX));
        all.into_iter().any(|(_, q)| q.is_waited_for())
    }

    /// Somebody answers a question of the attempt assigned there.
    pub fn answered(&mut self, at: Position, lease: Position, number: u32, answer: Answer) {
        if let Some(question) = self.questions.get_mut(&(lease, number)) {
            question.given.get_or_insert((answer, at));
        }
    }

    /// Somebody says something to the attempt assigned there.
    pub fn said(&mut self, at: Position, lease: Position) {
        self.words.insert(at, Said { lease, told: 0 });
    }

    /// Notes an event that counted.
    pub fn note(&mut self, event: &Event) {
        match event {
            Event::ApprovalRequested(e) => {
                let question = Question {
                    task: e.lease.task,
                    default: e.default,
                    given: None,
                    decided: None,
                    told: 0,
                    is_withdrawn: false,
                };
                self.questions
                    .insert((e.lease.assigned, e.approval), question);
            }
            Event::ApprovalWithdrawn(e) => {
                let key = (e.lease.assigned, e.approval);
                if let Some(question) = self.questions.get_mut(&key) {
                    question.is_withdrawn = true;
                }
            }
            Event::ApprovalDecided(e) => {
                let key = (e.lease.assigned, e.approval);
                if let Some(question) = self.questions.get_mut(&key) {
                    question.decided = Some(e.answer);
                }
            }
            Event::AttemptTold(e) => match &e.word {
                Word::Decision { approval, .. } => {
                    let key = (e.lease.assigned, *approval);
                    if let Some(question) = self.questions.get_mut(&key) {
                        question.told += 1;
                    }
                }
                // See `Filings`.
                Word::Subtask { .. } => {}
                Word::Text { control, .. } => {
                    if let Some(said) = self.words.get_mut(control) {
                        said.told += 1;
                    }
                }
            },
            _ => {}
        }
    }
}

/// What tasks share.
#[derive(Clone, Debug, Default)]
pub struct Shared {
    /// The log's format; 0 before it was raised.
    pub format: u32,
    /// What namespaces may spend in a day, and have spent.
    pub budgets: Budgets,
    /// Who has a named workspace.
    pub workspaces: BTreeMap<(Namespace, String), AgentId>,
    /// Named workspaces that hold work which is nowhere else.
    pub unpushed: BTreeSet<(Namespace, String)>,
    /// Named workspaces that are on their way out, by where that was asked for.
    pub removals: BTreeMap<(Namespace, String), Position>,
    /// Who has a model's session.
    pub sessions: BTreeMap<String, AgentId>,
}

impl Shared {
    /// Nobody has a workspace any more.
    pub fn forget(&mut self, key: &(Namespace, String)) {
        self.workspaces.remove(key);
        self.unpushed.remove(key);
        self.removals.remove(key);
    }
}
