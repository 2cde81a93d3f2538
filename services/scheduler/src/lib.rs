//! The scheduler: decides which agent runs what, when.
//!
//! The rules are `conductor_domain::plan`; this turns what they planned into the words
//! that agents hear.
//!
//! # Invariants
//! - Its subjects carry the only words an agent ever hears.
//! - It plans only while it leads, and only from folded state.

mod inputs;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use conductor_domain::fold::Folded;
use conductor_domain::plan::{self, Assignment, Bounds, Overlay, Telling};
use conductor_domain::record::{Content, Submissions};
use conductor_domain::state::Task;
use conductor_domain::{Decoded, Record, State, Verdict, VoidReason};
use conductor_protocol::compact::Pairs;
use conductor_protocol::event::{AttemptAssigned, Event, Input, Word};
use conductor_protocol::frame::Elements;
use conductor_protocol::subject::{Role as Name, Subject};
use conductor_protocol::{AgentId, CellId, Position, RunSpec, UnixMs};
use conductor_replica::role::{Draft, Gather, Now, Role};

/// Most words other than assignments at once.
const TOLD_MAX: usize = 4_096;
/// Subjects with an append in flight at once: each agent has its own, and its order
/// holds within it.
const SUBJECTS_IN_FLIGHT_MAX: usize = 16;
/// Assignments in flight at once.
const ASSIGNMENTS_MAX: usize = 16_384;

/// The scheduler's role.
#[derive(Debug)]
pub struct Scheduler {
    cell: CellId,
    overlay: Overlay,
}

impl Scheduler {
    /// A scheduler of `cell`.
    pub fn new(cell: &CellId) -> Self {
        Self {
            cell: cell.clone(),
            overlay: Overlay::default(),
        }
    }

    fn subject(&self, agent: &AgentId) -> String {
        Subject::Scheduler(agent.clone()).render(&self.cell)
    }

    /// Adds a word to what its agent is told, or has the result read first that belongs into it.
    fn tell(&self, telling: Telling, words: &mut Words) {
        let Some((task, at)) = telling.result else {
            words.say(&telling.agent, &telling.told.into());
            return;
        };
        let subject = self.subject(&telling.agent);
        let mut told = telling.told;
        words.to_read.push(Draft::WithRecords(Gather {
            seqs: [at.seq].into(),
            // Where the log has forgotten it, it is said without.
            required: None,
            task,
            complete: Box::new(move |records| {
                if let Word::Subtask { news, .. } = &mut told.word {
                    inputs::add_result(news, task, at, records);
                }
                Some((subject, Elements::from(&Event::from(told))))
            }),
        }));
    }

    /// Adds an assignment to what its agent is told, or has its body read first.
    fn assign(&self, state: &State, assignment: &Assignment, words: &mut Words) {
        let Some(task) = state.tasks.get(&assignment.task) else {
            return;
        };
        let needs = inputs::needs(state, task);
        if let Some(run) = task.spec.run.as_ref().filter(|_| needs.is_empty()) {
            let body = (Arc::clone(run), task.spec.metadata.clone());
            let event = assigned(assignment, task, body, Vec::new());
            words.say(&assignment.agent, &event);
            return;
        }
        let subject = self.subject(&assignment.agent);
        let (assignment, task) = (assignment.clone(), task.clone());
        let at = task.submission;
        words.to_read.push(if needs.is_empty() {
            Draft::WithBody {
                seq: at.seq,
                task: assignment.task,
                complete: Box::new(move |record| {
                    let body = body_in(record, at)?;
                    let event = assigned(&assignment, &task, body, Vec::new());
                    Some((subject, Elements::from(&event)))
                }),
            }
        } else {
            let required = task.spec.run.is_none().then_some(at.seq);
            let seqs = needs.iter().filter_map(inputs::Need::seq);
            Draft::WithRecords(Gather {
                seqs: seqs.chain(required).collect(),
                required,
                task: assignment.task,
                complete: Box::new(move |records| {
                    let body = body_of(&task, records)?;
                    let inputs = inputs::inputs(&needs, records);
                    let event = assigned(&assignment, &task, body, inputs);
                    Some((subject, Elements::from(&event)))
                }),
            })
        });
    }
}

/// What a task runs, and its notes.
type Body = (Arc<RunSpec>, Pairs);

fn body_in(record: &Submissions, at: Position) -> Option<Body> {
    let submission = record.get(at.index)?;
    Some((Arc::new(submission.run?), submission.metadata))
}

/// A task's body, from the state or from the records that were read.
fn body_of(task: &Task, records: &BTreeMap<u64, Record>) -> Option<Body> {
    match &task.spec.run {
        Some(run) => Some((Arc::clone(run), task.spec.metadata.clone())),
        None => {
            let record = records.get(&task.submission.seq)?;
            body_in(&Submissions::of(record)?, task.submission)
        }
    }
}

/// What agents are to be told.
#[derive(Default)]
struct Words {
    said: BTreeMap<AgentId, Elements>,
    /// What needs a body from the log to be complete.
    to_read: Vec<Draft>,
}

impl Words {
    fn say(&mut self, agent: &AgentId, event: &Event) {
        match self.said.get_mut(agent) {
            Some(said) => said.push_event(event),
            None => {
                self.said.insert(agent.clone(), Elements::from(event));
            }
        }
    }
}

fn assigned(
    assignment: &Assignment,
    task: &Task,
    (run, metadata): Body,
    inputs: Vec<Input>,
) -> Event {
    let spec = &task.spec;
    AttemptAssigned {
        task: assignment.task,
        attempt: assignment.attempt,
        incarnation: assignment.incarnation,
        slots: spec.slots,
        run,
        timeouts: spec.timeouts.clone(),
        queue: spec.queue.clone(),
        namespace: spec.namespace.clone(),
        name: spec.name.clone(),
        metadata,
        traceparent: spec.traceparent.clone(),
        terms: spec.terms.clone(),
        before: task.before(&assignment.agent).map(Box::new),
        inputs,
    }
    .into()
}

impl Role for Scheduler {
    fn name(&self) -> Name {
        Name::Scheduler
    }

    fn on_elected(&mut self, _: Instant) {
        self.overlay = Overlay::default();
    }

    fn on_folded(&mut self, record: &Decoded, folded: &Folded) {
        let Content::Leader {
            agent: Some(agent),
            items,
            ..
        } = &record.content
        else {
            return;
        };
        for (item, verdict) in items.iter().zip(&folded.verdicts) {
            let Ok(event) = item else { continue };
            // Words of an earlier leader say nothing about what we have in flight.
            if *verdict != Verdict::Void(VoidReason::StaleEpoch) {
                self.overlay.on_folded(agent, event);
            }
        }
    }

    fn decide(&mut self, state: &State, now: Now) -> Vec<Draft> {
        // No more agents than appends: what cannot be sent yet is not bound to an agent yet.
        let bounds = Bounds {
            assignments: ASSIGNMENTS_MAX,
            now_ms: now.server_ms,
            agents: SUBJECTS_IN_FLIGHT_MAX,
        };
        let mut words = Words::default();
        for (agent, event) in plan::revocations(state, &mut self.overlay, TOLD_MAX) {
            words.say(&agent, &event);
        }
        for (agent, event) in plan::removals(state, &mut self.overlay, TOLD_MAX) {
            words.say(&agent, &event);
        }
        for telling in plan::words(state, &mut self.overlay, TOLD_MAX) {
            self.tell(telling, &mut words);
        }
        for assignment in plan::plan(state, &mut self.overlay, bounds) {
            self.assign(state, &assignment, &mut words);
        }
        let said = words.said.into_iter().map(|(agent, events)| Draft::Events {
            subject: self.subject(&agent),
            events,
        });
        said.chain(words.to_read).collect()
    }

    /// Nothing becomes due for the scheduler by time alone, but for a large task that
    /// has waited long enough to have slots kept free for it, and for what waits for a budget of
    /// the day.
    fn next_wake(&self, state: &State, now: Now) -> Option<UnixMs> {
        if state.index.ready.is_empty() {
            return None;
        }
        let aged = now.server_ms + state.config.aging_ms.max(1_000);
        let renewed = state.budgets_renewed_ms(now.server_ms);
        Some(renewed.map_or(aged, |at| at.min(aged)))
    }

    fn in_flight_max(&self) -> usize {
        SUBJECTS_IN_FLIGHT_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use conductor_domain::state::index::Lane;
    use conductor_protocol::control::{ConfigChange, NamespaceBudget};
    use conductor_protocol::human::DurationMs;
    use conductor_protocol::spec::Runtime;
    use conductor_protocol::{Namespace, TaskId};
    use std::collections::BTreeSet;

    const DAY_MS: u64 = 24 * 3_600_000;

    /// However long it takes to age: what waits for the next day's budget goes on when it begins.
    #[test]
    fn it_looks_again_when_budgets_are_renewed() {
        let cell: CellId = "test".parse().unwrap();
        let scheduler = Scheduler::new(&cell);
        let mut state = State::new(cell);
        let at = |server_ms| Now {
            instant: Instant::now(),
            server_ms,
        };
        let aging = Some(DurationMs(2 * DAY_MS));
        let budget = NamespaceBudget {
            turns_per_day: Some(1),
            ..NamespaceBudget::default()
        };
        state.config.change(&ConfigChange {
            aging,
            ..ConfigChange::default()
        });
        assert_eq!(scheduler.next_wake(&state, at(5)), None, "nothing waits");
        let lane = Lane {
            namespace: Namespace::default(),
            queue: "q".parse().unwrap(),
            runtime: Runtime::Claude,
            special: None,
        };
        let task = TaskId::from_parts(0, [0; 10]);
        let key = (0, Position::new(1, 0), task);
        state.index.ready.insert(lane, BTreeSet::from([key]));
        let wake = |state: &State, now| scheduler.next_wake(state, at(now));
        assert_eq!(wake(&state, 5), Some(5 + 2 * DAY_MS));
        state.config.change(&ConfigChange {
            namespace_budget: [("team".to_owned(), budget)].into(),
            ..ConfigChange::default()
        });
        assert_eq!(wake(&state, 5), Some(DAY_MS));
        assert_eq!(wake(&state, DAY_MS - 1), Some(DAY_MS));
        assert_eq!(wake(&state, DAY_MS), Some(2 * DAY_MS));
    }
}
