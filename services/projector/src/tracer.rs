//! From records to traces: a fold beside the state's.

mod live;

use std::collections::BTreeMap;

use conductor_domain::fold::{Folded, Passed};
use conductor_domain::record::{Content, Item};
use conductor_domain::state::Outcome;
use conductor_domain::{Decoded, State, Verdict};
use conductor_protocol::event::Event;
use conductor_protocol::ids::{AgentId, Position, QueueName};
use conductor_protocol::{Control, TaskId, TraceContext, UnixMs};
use conductor_telemetry::Span;
use serde::{Deserialize, Serialize};

use live::Live;

/// The finished trace of a task, or of what it did since it was run again.
#[derive(Clone, Debug, PartialEq)]
pub struct Trace {
    /// Whose.
    pub task: TaskId,
    /// Where it hangs, and whether it is recorded.
    pub context: TraceContext,
    /// Whether it failed: such a trace is exported whatever the sampler says.
    pub has_failed: bool,
    /// The root last.
    pub spans: Vec<Span>,
}

/// A submit record some of whose submissions are not decided.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Submitted {
    time_ms: UnixMs,
    undecided: u32,
}

/// Makes traces of what the state's fold says of each record.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Tracer {
    submitted: BTreeMap<u64, Submitted>,
    live: BTreeMap<TaskId, Live>,
    paused: BTreeMap<QueueName, UnixMs>,
}

/// Where an event stands.
#[derive(Clone, Copy)]
struct At {
    position: Position,
    time_ms: UnixMs,
}

impl Tracer {
    /// Takes in a record and what the fold made of it; `state` is the one after it. Returns the
    /// traces that it finished.
    pub fn apply(&mut self, record: &Decoded, folded: &Folded, state: &State) -> Vec<Trace> {
        // As in the fold: time within the log never goes back.
        let time_ms = state.time_ms;
        let (mut finished, mut passed) = (Vec::new(), folded.passed.iter().peekable());
        for (index, verdict) in folded.verdicts.iter().enumerate() {
            let at = At {
                position: Position::new(record.seq, index as u32),
                time_ms,
            };
            if *verdict == Verdict::Applied {
                self.applied(at, &record.content, index, state);
            }
            while let Some(p) = passed.next_if(|p| p.at == at.position) {
                finished.extend(self.passed(at, p, state));
            }
        }
        finished
    }

    /// Tasks that have not ended.
    pub fn live(&self) -> usize {
        self.live.len()
    }

    fn applied(&mut self, at: At, content: &Content, index: usize, state: &State) {
        match content {
            Content::Submit(submit) => {
                let submitted = Submitted {
                    time_ms: at.time_ms,
                    undecided: submit.count,
                };
                self.submitted.insert(at.position.seq, submitted);
            }
            Content::Control { items, .. } => {
                if let Some(Ok(control)) = items.get(index) {
                    self.controlled(at, control);
                }
            }
            Content::Leader { agent, items, .. } => {
                if let Some(event) = event(items, index) {
                    self.decided(at, agent.as_ref(), event, state);
                }
            }
            Content::Agent { items, .. } => {
                if let Some(event) = event(items, index) {
                    self.reported(event);
                }
            }
            Content::Election { .. } | Content::Void { .. } => {}
        }
    }

    fn controlled(&mut self, at: At, control: &Control) {
        match control {
            Control::PauseQueue { queue } => {
                self.paused.insert(queue.clone(), at.time_ms);
            }
            Control::ResumeQueue { queue } => {
                if let Some(since_ms) = self.paused.remove(queue) {
                    let waiting = self.live.values_mut().filter(|l| l.queue() == queue);
                    waiting.for_each(|live| live.resumed(at.position, since_ms, at.time_ms));
                }
            }
            _ => {}
        }
    }

    fn decided(&mut self, at: At, agent: Option<&AgentId>, event: &Event, state: &State) {
        match event {
            Event::TaskAccepted(e) => {
                let submitted_ms = self.settle(e.submission.seq).unwrap_or(at.time_ms);
                let live = Live::accepted(e, &state.cell, at.position, submitted_ms, at.time_ms);
                let links = e.spec.needs.iter().filter_map(|n| context_of(*n, state));
                let live = live.following(links);
                self.live.insert(e.task, live);
            }
            Event::TaskRejected(e) => drop(self.settle(e.submission.seq)),
            Event::TaskDuplicate(e) => drop(self.settle(e.submission.seq)),
            Event::TaskRedriven(e) => {
                if let Some(task) = state.tasks.get(&e.task) {
                    let live = Live::redriven(e.task, task, &state.cell, at.position, at.time_ms);
                    self.live.insert(e.task, live);
                }
            }
            Event::TaskReady(e) => self.with(e.task, |live| live.ready(at.time_ms)),
            Event::TaskRetrySet(e) => self.with(e.task, |live| live.retry_set(e.delay_ms)),
            Event::AttemptAssigned(e) => {
                if let Some(agent) = agent {
                    self.with(e.task, |live| live.assigned(e, agent, at.time_ms));
                }
            }
            _ => {}
        }
    }

    fn reported(&mut self, event: &Event) {
        match event {
            Event::AttemptStarted(e) => {
                self.with(e.lease.task, |live| live.started(e.session.as_deref()));
            }
            Event::AttemptUsage(e) => {
                self.with(e.lease.task, |live| live.said(Some(e.usage.clone()), None));
            }
            Event::AttemptSucceeded(e) => {
                let used = e.usage.clone();
                self.with(e.lease.task, |live| live.said(used, e.exit_code));
            }
            Event::AttemptFailed(e) => {
                let used = e.usage.clone();
                self.with(e.lease.task, |live| live.said(used, e.exit_code));
            }
            _ => {}
        }
    }

    fn passed(&mut self, at: At, passed: &Passed, state: &State) -> Option<Trace> {
        let live = self.live.get_mut(&passed.task)?;
        if let Some(attempt) = &passed.attempt {
            live.attempt_ended(attempt, passed.class, at.time_ms);
        }
        let end = passed.end.as_ref()?;
        let mut live = self.live.remove(&passed.task)?;
        let paused_ms = self.paused.get(live.queue()).copied();
        let attempts = state.tasks.get(&passed.task).map_or(0, |t| t.attempts);
        live.ended(
            at.position,
            paused_ms,
            end.outcome,
            passed.class,
            attempts,
            at.time_ms,
        );
        Some(Trace {
            task: passed.task,
            context: live.context(passed.task),
            has_failed: matches!(end.outcome, Outcome::Failed | Outcome::TimedOut),
            spans: live.into_spans(),
        })
    }

    /// A submission of this record was decided: when it was submitted.
    fn settle(&mut self, seq: u64) -> Option<UnixMs> {
        let submitted = self.submitted.get_mut(&seq)?;
        let time_ms = submitted.time_ms;
        submitted.undecided = submitted.undecided.saturating_sub(1);
        if submitted.undecided == 0 {
            self.submitted.remove(&seq);
        }
        Some(time_ms)
    }

    fn with(&mut self, task: TaskId, change: impl FnOnce(&mut Live)) {
        if let Some(live) = self.live.get_mut(&task) {
            change(live);
        }
    }
}

/// The context of a task that is still known.
fn context_of(task: TaskId, state: &State) -> Option<TraceContext> {
    let spec = &state.tasks.get(&task)?.spec;
    Some(TraceContext::of(task, spec.traceparent.as_deref()))
}

fn event(items: &[Item<Event>], index: usize) -> Option<&Event> {
    items.get(index)?.as_ref().ok()
}
