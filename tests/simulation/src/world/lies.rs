//! What somebody untrue writes: an agent's process gone bad, on the agent's own subject, since
//! the server lets it write nowhere else; or the frames of a leader long deposed.

use conductor_protocol::event::{AttemptStopped, Event, TaskReady};
use conductor_protocol::frame::{self, FrameHead};
use conductor_protocol::ids::{AgentId, Lease, Position};
use conductor_protocol::subject::{Role, Subject};
use conductor_protocol::{OutcomeClass, TaskId};

use super::World;
use super::reports::{failed, started, succeeded};
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
        let mut authority = FrameHead::incarnation(incarnation);
        let events: Vec<Event> = match lie {
            Lie::ForeignSuccess => self
                .held(&id, false, about)
                .or_else(|| self.invented(about))
                .into_iter()
                .map(succeeded)
                .collect(),
            Lie::Contradiction => self
                .held(&id, true, about)
                .or_else(|| self.invented(about))
                .into_iter()
                .flat_map(|l| {
                    [
                        succeeded(l),
                        failed(l, OutcomeClass::Failed),
                        succeeded(l),
                        started(l),
                    ]
                })
                .collect(),
            Lie::Stopped => self
                .held(&id, true, about)
                .into_iter()
                .map(|lease| AttemptStopped { lease }.into())
                .collect(),
            Lie::OldIncarnation => {
                authority = FrameHead::incarnation(incarnation.saturating_sub(1 + about % 7));
                self.held(&id, true, about)
                    .into_iter()
                    .map(succeeded)
                    .collect()
            }
            Lie::StartedTwice => self
                .held(&id, true, about)
                .into_iter()
                .flat_map(|l| [started(l), started(l)])
                .collect(),
            Lie::WrongWriter => {
                let ready = self.any_task(about).map(|task| TaskReady { task }.into());
                ready.into_iter().collect()
            }
            Lie::UnknownKind | Lie::Garbage => Vec::new(),
            Lie::OldEpoch => {
                let ready = self.any_task(about).map(|task| TaskReady { task }.into());
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

    /// A lease that the agent holds, or that another does.
    fn held(&self, id: &AgentId, is_theirs: bool, about: u64) -> Option<Lease> {
        let tasks = self.referee.ledger.tasks.values();
        let held = tasks.filter_map(|t| t.lease.as_ref());
        let leases: Vec<Lease> = held
            .filter(|(_, by)| (by == id) == is_theirs)
            .map(|(lease, _)| *lease)
            .collect();
        leases.get(about as usize % leases.len().max(1)).copied()
    }

    fn any_task(&self, about: u64) -> Option<TaskId> {
        let ids: Vec<TaskId> = self.referee.ledger.tasks.keys().copied().collect();
        ids.get(about as usize % ids.len().max(1)).copied()
    }

    /// A lease that nobody ever gave.
    fn invented(&self, about: u64) -> Option<Lease> {
        self.any_task(about).map(|task| Lease {
            task,
            attempt: 1,
            assigned: Position::new(about % 97, 0),
        })
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
