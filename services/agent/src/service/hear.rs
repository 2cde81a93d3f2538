//! What the scheduler says, and which of it is meant for us.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use conductor_eventlog::EventLog;
use conductor_eventlog::jetstream::Connection;
use conductor_protocol::event::{AttemptStopped, Event};
use conductor_protocol::frame;
use conductor_protocol::ids::{Lease, Position};
use conductor_protocol::subject::{Role, Subject};
use ractor::ActorRef;

use super::join::position;
use super::{AgentMsg, AgentState};
use crate::attempt::Stop;

impl AgentState {
    /// A newer scheduler: what an older one still says is not meant.
    pub(super) fn elected(&mut self, epoch: u64) {
        if let Some(membership) = &mut self.membership {
            membership.scheduler = membership.scheduler.max(epoch);
        }
    }

    pub(super) fn hear(
        &mut self,
        myself: &ActorRef<AgentMsg>,
        at: Position,
        epoch: u64,
        event: Event,
        reports: &mut Vec<Event>,
    ) {
        let Some(membership) = &self.membership else {
            return;
        };
        if epoch < membership.scheduler {
            tracing::debug!(%at, epoch, "words of an earlier scheduler");
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
                self.take(myself, lease, assigned, reports);
            }
            Event::AttemptAssigned(assigned) if assigned.incarnation > ours => {
                self.superseded(myself);
            }
            Event::AgentDismissed(e) if e.incarnation == ours && e.replaced => {
                self.superseded(myself);
            }
            Event::AttemptRevoked(e) if e.incarnation == ours => self.revoked(e.lease, reports),
            Event::AgentDismissed(e) if e.incarnation == ours => {
                tracing::warn!(agent = %self.options.id, "declared lost; joining anew");
                // Answered by the handler's own rejoin step.
                self.is_rejoining = true;
                self.stop_all(Stop::Revoked);
            }
            _ => {}
        }
    }

    /// Another process has our name now.
    fn superseded(&mut self, myself: &ActorRef<AgentMsg>) {
        tracing::error!(agent = %self.options.id, "another process joined under our name; stopping");
        self.options.is_superseded.store(true, Ordering::Release);
        self.stop_all(Stop::Revoked);
        myself.stop(Some("superseded".to_owned()));
    }

    fn revoked(&mut self, lease: Lease, reports: &mut Vec<Event>) {
        if let Some(running) = self.running.get(&lease.assigned) {
            running.stop.send_replace(Stop::Revoked);
            return;
        }
        self.waiting.retain(|(waiting, _)| *waiting != lease);
        self.forget(lease);
        reports.push(AttemptStopped { lease }.into());
    }
}

/// Hands the scheduler's words to the actor, for as long as it lives.
pub(super) async fn feed_words(
    connection: Arc<Connection>,
    subjects: Vec<String>,
    mut next: u64,
    actor: ActorRef<AgentMsg>,
) {
    loop {
        let tail = connection.tail(next, subjects.clone()).await;
        let Ok(mut tail) = tail else {
            tokio::time::sleep(Duration::from_millis(200)).await;
            continue;
        };
        while let Ok(batch) = tail.next().await {
            let mut words = Vec::new();
            for record in batch.records {
                // A consumer that was made anew may begin with what was heard before.
                if record.seq < next {
                    continue;
                }
                next = record.seq + 1;
                match Subject::parse(connection.cell(), &record.subject) {
                    // The same rule as the fold's: rubbish on this subject elects nobody.
                    Some(Subject::Leader(Role::Scheduler)) if is_election(&record.payload) => {
                        // In order: words before the election are heard before it.
                        let before = std::mem::take(&mut words);
                        if actor.cast(AgentMsg::Heard(before)).is_err()
                            || actor.cast(AgentMsg::Elected(record.seq)).is_err()
                        {
                            return;
                        }
                    }
                    Some(Subject::Scheduler(_)) => words.extend(read(record.seq, &record.payload)),
                    _ => {}
                }
            }
            if !words.is_empty() && actor.cast(AgentMsg::Heard(words)).is_err() {
                return;
            }
        }
    }
}

fn is_election(payload: &[u8]) -> bool {
    let mut events = read(0, payload).into_iter();
    events.any(|(_, _, event)| matches!(event, Event::LeaderElected(_)))
}

/// The events of a scheduler's frame that can be read.
fn read(seq: u64, payload: &[u8]) -> Vec<(Position, u64, Event)> {
    let Ok(frame) = frame::split(payload) else {
        return Vec::new();
    };
    let epoch = frame.head.epoch.unwrap_or(0);
    let events = frame.events.into_iter().enumerate();
    events
        .filter_map(|(i, bytes)| Some((position(seq, i), epoch, Event::decode(bytes).ok()?)))
        .collect()
}
