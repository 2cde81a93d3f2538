//! What attempts are to be told of what people say, and of the tasks that they submitted.

use conductor_protocol::TaskId;
use conductor_protocol::event::{AttemptTold, Event, SubtaskNews, Word};
use conductor_protocol::ids::{AgentId, Lease, Position};

use super::{Overlay, Told};
use crate::state::{News, State, Submitted, Task};

/// A word for an attempt.
#[derive(Clone, Debug, PartialEq)]
pub struct Telling {
    /// The agent that runs it.
    pub agent: AgentId,
    /// The word.
    pub told: AttemptTold,
    /// The event whose result belongs into it, and its task.
    pub result: Option<(TaskId, Position)>,
}

impl Telling {
    /// As the event that is said.
    pub fn event(self) -> Event {
        self.told.into()
    }
}

/// Answers, words and news that the attempts they are for have not been told. Noted in the overlay.
pub fn words(state: &State, overlay: &mut Overlay, max: usize) -> Vec<Telling> {
    let mut out = Vec::new();
    for id in &state.index.to_tell {
        if out.len() >= max {
            break;
        }
        let Some(task) = state.tasks.get(id) else {
            continue;
        };
        tell(state, overlay, *id, task, &mut out);
    }
    out
}

fn tell(state: &State, overlay: &mut Overlay, id: TaskId, task: &Task, out: &mut Vec<Telling>) {
    let (Some(lease), Some(assigned)) = (task.lease(id), task.assigned()) else {
        return;
    };
    let Some(agent) = state.agents.get(&assigned.agent) else {
        return;
    };
    for (word, result) in words_for(task) {
        let told = (assigned.agent.clone(), Told::Word(key(&lease, &word)));
        if overlay.said.insert(told) {
            let told = AttemptTold {
                lease,
                incarnation: agent.incarnation,
                word,
            };
            out.push(Telling {
                agent: assigned.agent.clone(),
                told,
                result,
            });
        }
    }
}

/// What an attempt is to be told: what it waits for first, then in the order it was said.
fn words_for(task: &Task) -> Vec<(Word, Option<(TaskId, Position)>)> {
    let decided = task.aside.approvals.iter().filter(|(_, a)| a.is_decided);
    let answers = decided.filter_map(|(number, approval)| {
        let reply = approval.reply.as_ref()?;
        Some(Word::Decision {
            approval: *number,
            answer: reply.answer,
            text: reply.text.clone(),
        })
    });
    let texts = task.aside.words.iter().map(|(at, text)| Word::Text {
        control: *at,
        text: text.clone(),
    });
    let due = task.aside.submitted.iter().filter(|(_, s)| s.is_due());
    let news = due.filter_map(|(number, submitted)| news(*number, submitted));
    let plain = answers.chain(texts).map(|word| (word, None));
    plain.chain(news).collect()
}

fn news(number: u32, submitted: &Submitted) -> Option<(Word, Option<(TaskId, Position)>)> {
    let (news, result) = match submitted.news.as_ref()? {
        News::Accepted(task) => (SubtaskNews::Accepted { task: *task }, None),
        News::Rejected(errors) => {
            let errors = errors.clone();
            (SubtaskNews::Rejected { errors }, None)
        }
        News::Ended {
            task,
            outcome,
            class,
            at,
        } => {
            let news = SubtaskNews::Ended {
                task: *task,
                outcome: *outcome,
                class: *class,
                result: None,
            };
            (news, at.map(|at| (*task, at)))
        }
    };
    Some((Word::Subtask { number, news }, result))
}

/// By what a word is known among those in flight.
pub(super) fn key(lease: &Lease, word: &Word) -> WordKey {
    match word {
        Word::Decision { approval, .. } => WordKey::Answer(lease.assigned, *approval),
        Word::Text { control, .. } => WordKey::Text(lease.assigned, *control),
        Word::Subtask { number, news } => {
            let is_end = matches!(news, SubtaskNews::Ended { .. });
            WordKey::News(lease.assigned, *number, is_end)
        }
    }
}

/// A word for the attempt assigned there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum WordKey {
    /// The answer to its question of this number.
    Answer(Position, u32),
    /// What somebody said here.
    Text(Position, Position),
    /// What became of its submission of this number, and whether that is its end.
    News(Position, u32, bool),
}
