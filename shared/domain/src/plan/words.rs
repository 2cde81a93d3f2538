//! What attempts are to be told of what people say.

use conductor_protocol::TaskId;
use conductor_protocol::event::{AttemptTold, Event, Word};
use conductor_protocol::ids::{AgentId, Lease, Position};

use super::{Overlay, Told};
use crate::state::{State, Task};

/// Answers and words that the attempts they are for have not been told. Noted in the overlay.
pub fn words(state: &State, overlay: &mut Overlay, max: usize) -> Vec<(AgentId, Event)> {
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

fn tell(
    state: &State,
    overlay: &mut Overlay,
    id: TaskId,
    task: &Task,
    out: &mut Vec<(AgentId, Event)>,
) {
    let (Some(lease), Some(assigned)) = (task.lease(id), task.assigned()) else {
        return;
    };
    let Some(agent) = state.agents.get(&assigned.agent) else {
        return;
    };
    for word in words_for(task) {
        let told = (assigned.agent.clone(), Told::Word(key(&lease, &word)));
        if overlay.said.insert(told) {
            let told = AttemptTold {
                lease,
                incarnation: agent.incarnation,
                word,
            };
            out.push((assigned.agent.clone(), told.into()));
        }
    }
}

/// What an attempt is to be told: what it waits for first, then in the order it was said.
fn words_for(task: &Task) -> Vec<Word> {
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
    answers.chain(texts).collect()
}

/// By what a word is known among those in flight.
pub(super) fn key(lease: &Lease, word: &Word) -> WordKey {
    match word {
        Word::Decision { approval, .. } => WordKey::Answer(lease.assigned, *approval),
        Word::Text { control, .. } => WordKey::Text(lease.assigned, *control),
    }
}

/// A word for the attempt assigned there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum WordKey {
    /// The answer to its question of this number.
    Answer(Position, u32),
    /// What somebody said here.
    Text(Position, Position),
}
