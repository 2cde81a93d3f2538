//! What somebody untrue writes: an agent's process gone bad, on the agent's own subject, since
//! the server lets it write nowhere else; or the frames of a leader long deposed.

use conductor_protocol::event::{
    AttemptFailed, AttemptStarted, AttemptStopped, AttemptSucceeded, Event, TaskReady,
};
use conductor_protocol::frame::{self, FrameHead};
use conductor_protocol::ids::{Lease, Position};
use conductor_protocol::subject::{Role, Subject};
use conductor_protocol::{OutcomeClass, TaskId};

use super::World;
use crate::checkers::Violation;
use crate::scenario::Lie;

impl World {
    /// Somebody lies as agent number `agent`.
    pub(super) fn lie(&mut self, lie: Lie, agent: usize, about: u64) -> Result<(), Violation> {
        let Some(id) = self.agents.get(agent).map(|p| p.id.clone()) else {
            return Ok(());
        };
        self.liars.insert(agent);
        let incarnation = self
            .referee
            .ledger
            .agents
            .get(&id)
            .map_or(0, |a| a.incarnation);
        let held = |is_ours: bool| -> Vec<Lease> {
            let tasks = self.referee.ledger.tasks.values();
            let leases = tasks.filter_map(|t| t.lease.as_ref());
            leases
                .filter(|(_, by)| (*by == id) == is_ours)
                .map(|(l, _)| *l)
                .collect()
        };
        let pick = |leases: Vec<Lease>| leases.get(about as usize % leases.len().max(1)).copied();
        let any_task = || {
            let ids: Vec<TaskId> = self.referee.ledger.tasks.keys().copied().collect();
            ids.get(about as usize % ids.len().max(1)).copied()
        };
        let invented = || {
            any_task().map(|task| Lease {
                task,
                attempt: 1,
                assigned: Position::new(about % 97, 0),
            })
        };
        let mut authority = FrameHead::incarnation(incarnation);
        let events: Vec<Event> = match lie {
            Lie::ForeignSuccess => pick(held(false))
                .or_else(invented)
                .into_iter()
                .map(succeeded)
                .collect(),
            Lie::Contradiction => pick(held(true))
                .or_else(invented)
                .into_iter()
                .flat_map(|l| [succeeded(l), failed(l), succeeded(l), started(l)])
                .collect(),
            Lie::Stopped => pick(held(true))
                .into_iter()
                .map(|lease| AttemptStopped { lease }.into())
                .collect(),
            Lie::OldIncarnation => {
                authority = FrameHead::incarnation(incarnation.saturating_sub(1 + about % 7));
                pick(held(true)).into_iter().map(succeeded).collect()
            }
            Lie::StartedTwice => pick(held(true))
                .into_iter()
                .flat_map(|l| [started(l), started(l)])
                .collect(),
            Lie::WrongWriter => {
                let ready = any_task().map(|task| TaskReady { task }.into());
                ready.into_iter().collect()
            }
            Lie::UnknownKind | Lie::Garbage => Vec::new(),
            Lie::OldEpoch => {
                let ready = any_task().map(|task| TaskReady { task }.into());
                let epoch = self.referee.ledger.epochs.get(&Role::Orchestrator);
                authority = FrameHead::epoch(epoch.copied().unwrap_or(0).saturating_sub(1));
                ready.into_iter().collect()
            }
        };
        let subject = match lie {
            Lie::OldEpoch => Subject::Orchestrator,
            Lie::Garbage if about.is_multiple_of(3) => Subject::Control,
            _ => Subject::Agent(id),
        };
        let Some(payload) = payload(lie, about, authority, &events) else {
            return Ok(());
        };
        let subject = subject.render(&self.cell);
        self.publish(subject, payload)
    }
}

/// The bytes of a lie; none if there is nothing to lie about.
fn payload(lie: Lie, about: u64, authority: FrameHead, events: &[Event]) -> Option<Vec<u8>> {
    match lie {
        Lie::UnknownKind => {
            let unknown = [
                &[0x82, 0xa4][..],
                b"type",
                &[0xa3],
                b"new",
                &[0xa1],
                b"v",
                &[1],
            ];
            Some(frame::join(authority, &[unknown.concat()]))
        }
        Lie::Garbage => Some(about.to_be_bytes().to_vec()),
        _ if events.is_empty() => None,
        _ => {
            let encoded: Vec<Vec<u8>> = events.iter().map(Event::encode).collect();
            Some(frame::join(authority, &encoded))
        }
    }
}

fn started(lease: Lease) -> Event {
    AttemptStarted {
        lease,
        session: None,
    }
    .into()
}

fn succeeded(lease: Lease) -> Event {
    AttemptSucceeded {
        lease,
        result: None,
        exit_code: None,
        usage: None,
        output: None,
    }
    .into()
}

fn failed(lease: Lease) -> Event {
    AttemptFailed {
        lease,
        class: OutcomeClass::Failed,
        message: String::new(),
        result: None,
        exit_code: None,
        signal: None,
        usage: None,
        output: None,
    }
    .into()
}
