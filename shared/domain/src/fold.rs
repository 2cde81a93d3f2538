//! The fold: what a record does to the state. One function for every reader.

mod agent;
mod budgets;
mod control;
mod end;
mod intake;
mod notice;
mod orchestrator;
mod passed;
mod people;
mod scheduler;
mod subtasks;

pub(crate) use scheduler::is_capable;
pub(crate) use subtasks::is_wanted;

use conductor_protocol::event::Event;
use conductor_protocol::ids::Position;
use conductor_protocol::subject::{Role, is_allowed_reply};
use conductor_protocol::{UnixMs, limits};

pub use notice::{Notice, Word};
pub use passed::{Passed, PastAttempt, PastTask};

use crate::planted::{Bug, is_planted};
use crate::record::{Content, Decoded, Item};
use crate::state::{Leader, State};
use crate::void::{Verdict, VoidReason};

/// What the fold made of a record.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Folded {
    /// One per event; one for all submissions of a record.
    pub verdicts: Vec<Verdict>,
    /// What submitters who asked for replies are to be told.
    pub notices: Vec<Notice>,
    /// Attempts and tasks that ended, in order.
    pub passed: Vec<Passed>,
    /// The log goes beyond the format this software knows: the record was not folded,
    /// and nothing after it may be.
    pub stop: Option<u32>,
}

/// Where and when an event stands.
#[derive(Clone, Copy, Debug)]
pub(crate) struct At {
    pub(crate) position: Position,
    pub(crate) time_ms: UnixMs,
}

/// The verdict of a rule: what it changed was changed, or nothing was.
pub(crate) type Ruling = Result<(), VoidReason>;

/// Folds a record. Total: never fails, reads no clock, and any bytes are welcome.
pub fn apply(state: &mut State, record: &Decoded) -> Folded {
    let mut folded = Folded::default();
    if let Some(format) = unknown_format(state, record) {
        folded.stop = Some(format);
        return folded;
    }
    state.seq = record.seq;
    state.time_ms = state.time_ms.max(record.time_ms);
    state.counters.records += 1;
    content(state, record, &mut folded);
    for verdict in &folded.verdicts {
        if let Verdict::Void(reason) = verdict {
            *state.counters.void.entry(*reason).or_default() += 1;
        }
    }
    folded.passed = std::mem::take(&mut state.passed);
    end::expire(state);
    folded
}

/// The format that a record of the leading orchestrator raises the log to, if unknown.
fn unknown_format(state: &State, record: &Decoded) -> Option<u32> {
    let Content::Leader {
        role: Role::Orchestrator,
        head,
        items,
        ..
    } = &record.content
    else {
        return None;
    };
    if head.epoch != Some(state.epoch(Role::Orchestrator)) {
        return None;
    }
    items.iter().find_map(|item| match item {
        Ok(Event::LogFormat(f)) if f.format > limits::FORMAT_KNOWN => Some(f.format),
        _ => None,
    })
}

fn content(state: &mut State, record: &Decoded, folded: &mut Folded) {
    // Time within the log never goes back, whatever the server's clock does.
    let time_ms = state.time_ms;
    let at = |index: usize| At {
        position: Position::new(record.seq, index as u32),
        time_ms,
    };
    match &record.content {
        Content::Void { reason, reply } => {
            let allowed = reply.as_ref().filter(|r| is_allowed_reply(&state.cell, r));
            if let Some(reply) = allowed.cloned() {
                let at = at(0).position;
                let word = Word::Unreadable { at };
                folded.notices.push(Notice { reply, word });
            }
            folded.verdicts.push(Verdict::Void(*reason));
        }
        Content::Submit(submit) => {
            intake::submitted(state, record.seq, time_ms, submit);
            folded.verdicts.push(Verdict::Applied);
        }
        Content::Control { items, reply } => {
            let reply = reply
                .as_ref()
                .filter(|r| is_allowed_reply(&state.cell, r))
                .cloned();
            for (i, item) in items.iter().enumerate() {
                let ruling = ruling(item, |c| control::apply(state, at(i), c));
                if let Some(reply) = &reply {
                    let word = Word::Control {
                        at: at(i).position,
                        ruling,
                    };
                    folded.notices.push(Notice {
                        reply: reply.clone(),
                        word,
                    });
                }
                folded.push(ruling);
            }
        }
        Content::Leader {
            role,
            agent,
            head,
            items,
        } => {
            let is_current = state.epoch(*role) != 0 && head.epoch == Some(state.epoch(*role));
            let is_current = is_current || is_planted(Bug::EpochUnchecked);
            for (i, item) in items.iter().enumerate() {
                let ruling = if is_current {
                    ruling(item, |event| {
                        let notices = &mut folded.notices;
                        match agent {
                            None => orchestrator::apply(state, at(i), event, notices),
                            Some(agent) => scheduler::apply(state, at(i), agent, event),
                        }
                    })
                } else {
                    Err(VoidReason::StaleEpoch)
                };
                folded.push(ruling);
            }
        }
        Content::Agent { agent, head, items } => {
            for (i, item) in items.iter().enumerate() {
                let notices = &mut folded.notices;
                let ruling = ruling(item, |e| {
                    agent::apply(state, at(i), agent, head.incarnation, e, notices)
                });
                folded.push(ruling);
            }
        }
        Content::Election { role, items } => {
            for item in items {
                folded.push(ruling(item, |event| elect(state, record.seq, *role, event)));
            }
        }
    }
}

fn ruling<T>(item: &Item<T>, rule: impl FnOnce(&T) -> Ruling) -> Ruling {
    match item {
        Ok(event) => rule(event),
        Err(reason) => Err(*reason),
    }
}

impl Folded {
    fn push(&mut self, ruling: Ruling) {
        self.verdicts.push(match ruling {
            Ok(()) => Verdict::Applied,
            Err(reason) => Verdict::Void(reason),
        });
    }
}

/// Whoever appends to the role's subject leads from there on: the compare-and-set on
/// that subject decides who can.
fn elect(state: &mut State, seq: u64, role: Role, event: &Event) -> Ruling {
    let Event::LeaderElected(e) = event else {
        return Err(VoidReason::WrongWriter);
    };
    let leader = Leader {
        epoch: seq,
        holder: e.holder.clone(),
        version: e.version.clone(),
    };
    state.leaders.insert(role, leader);
    Ok(())
}
