//! What the scheduler says, and which of it is meant for us.

use std::time::Instant;

use conductor_domain::planted::{Bug, is_planted};
use conductor_protocol::CellId;
use conductor_protocol::event::{
    AttemptStopped, AttemptTold, Event, SubtaskNews, Word as Told, WorkspaceDropped,
};
use conductor_protocol::frame;
use conductor_protocol::ids::{Lease, Position};
use conductor_protocol::subject::{Role, Subject};

use super::{Duty, Effect, SEEN_MAX};
use crate::attempt::Stop;

/// One thing heard on the subjects an agent follows.
#[derive(Clone, Debug, PartialEq)]
pub enum Word {
    /// A scheduler was elected, under this epoch.
    Elected(u64),
    /// The scheduler of this epoch said this, there in the log.
    Said(Position, u64, Event),
}

/// What an attempt was told: by this it is known should it come again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Heard {
    /// The answer to its question of this number.
    Answer(u32),
    /// What somebody said there.
    Text(Position),
    /// What became of its submission of this number, and whether that is its end.
    News(u32, bool),
}

/// What a record on one of those subjects says, as far as it can be read.
pub fn words_of(cell: &CellId, seq: u64, subject: &str, payload: &[u8]) -> Vec<Word> {
    match Subject::parse(cell, subject) {
        // The same rule as the fold's: rubbish on this subject elects nobody.
        Some(Subject::Leader(Role::Scheduler)) if is_election(payload) => vec![Word::Elected(seq)],
        Some(Subject::Scheduler(_)) => said(seq, payload),
        _ => Vec::new(),
    }
}

fn is_election(payload: &[u8]) -> bool {
    let is_elected = |word| matches!(word, Word::Said(_, _, Event::LeaderElected(_)));
    said(0, payload).into_iter().any(is_elected)
}

/// The events of a scheduler's frame that can be read.
fn said(seq: u64, payload: &[u8]) -> Vec<Word> {
    let Ok(frame) = frame::split(payload) else {
        return Vec::new();
    };
    let epoch = frame.head.epoch.unwrap_or(0);
    let word = |(i, bytes)| {
        let at = Position::new(seq, i as u32);
        Some(Word::Said(at, epoch, Event::decode(bytes).ok()?))
    };
    frame
        .events
        .into_iter()
        .enumerate()
        .filter_map(word)
        .collect()
}

impl Duty {
    pub(super) fn hear(&mut self, words: Vec<Word>, now: Instant, effects: &mut Vec<Effect>) {
        let mut reports = Vec::new();
        for word in words {
            match word {
                // What an older scheduler still says is not meant.
                Word::Elected(epoch) => {
                    if let Some(membership) = &mut self.membership {
                        membership.scheduler = membership.scheduler.max(epoch);
                    }
                }
                Word::Said(at, epoch, event) => {
                    self.told(at, epoch, event, now, &mut reports, effects);
                }
            }
        }
        self.report(reports, effects);
    }

    fn told(
        &mut self,
        at: Position,
        epoch: u64,
        event: Event,
        now: Instant,
        reports: &mut Vec<Event>,
        effects: &mut Vec<Effect>,
    ) {
        let Some(membership) = self.membership else {
            return;
        };
        // None ever led under no epoch.
        if epoch == 0 || epoch < membership.scheduler {
            let task = event.task().map(tracing::field::display);
            tracing::debug!(%at, epoch, task, "words of an earlier scheduler");
            return;
        }
        let ours = membership.incarnation;
        match event {
            Event::AttemptAssigned(assigned) if assigned.incarnation == ours => {
                let lease = Lease {
                    task: assigned.task,
                    attempt: assigned.attempt,
                    assigned: at,
                };
                self.take(lease, assigned, now, reports, effects);
            }
            Event::AttemptAssigned(assigned) if assigned.incarnation > ours => {
                self.superseded(effects);
            }
            Event::AgentDismissed(e) if e.incarnation == ours && e.replaced => {
                self.superseded(effects);
            }
            Event::AttemptRevoked(e) if e.incarnation == ours => {
                self.revoked(e.lease, reports, effects);
            }
            Event::AttemptTold(e) if e.incarnation == ours => self.hand_on(e, effects),
            Event::WorkspaceDropped(e) if e.incarnation == ours => {
                self.drop_workspace(e, effects);
            }
            Event::AgentDismissed(e) if e.incarnation == ours => {
                tracing::warn!(agent = %self.id, "declared lost; joining anew");
                self.is_rejoining = true;
                self.stop_all(Stop::Revoked, effects);
            }
            _ => {}
        }
    }

    /// Hands what people said on to the attempt it is for, once.
    fn hand_on(&mut self, told: AttemptTold, effects: &mut Vec<Effect>) {
        let at = told.lease.assigned;
        let Some(running) = self.running.get_mut(&at) else {
            return;
        };
        let heard = match &told.word {
            Told::Decision { approval, .. } => Heard::Answer(*approval),
            Told::Text { control, .. } => Heard::Text(*control),
            Told::Subtask { number, news } => {
                Heard::News(*number, matches!(news, SubtaskNews::Ended { .. }))
            }
        };
        let is_new = running.told.insert(heard) || is_planted(Bug::SeenForgotten);
        if running.lease == told.lease && is_new {
            effects.push(Effect::Tell(at, told.word));
        }
    }

    /// A workspace of ours is to go. The same word may come again when another workspace has the
    /// name already: only the first counts.
    fn drop_workspace(&mut self, dropped: WorkspaceDropped, effects: &mut Vec<Effect>) {
        let is_new = self.dropped.insert(dropped.control) || is_planted(Bug::SeenForgotten);
        if self.dropped.len() > SEEN_MAX {
            self.dropped.pop_first();
        }
        if is_new {
            effects.push(Effect::Remove(dropped));
        }
    }

    /// Another process has our name now.
    pub(super) fn superseded(&mut self, effects: &mut Vec<Effect>) {
        tracing::error!(agent = %self.id, "another process joined under our name; stopping");
        self.stop_all(Stop::Revoked, effects);
        effects.push(Effect::Superseded);
        self.is_gone = true;
    }

    fn revoked(&mut self, lease: Lease, reports: &mut Vec<Event>, effects: &mut Vec<Effect>) {
        if self.running.contains_key(&lease.assigned) {
            self.stop(lease.assigned, Stop::Revoked, effects);
            return;
        }
        self.waiting.retain(|(waiting, _)| *waiting != lease);
        self.forget(lease);
        reports.push(AttemptStopped { lease }.into());
    }
}
