//! What happened, kept apart from the state under test: the checkers' own books.
//!
//! It believes the fold's verdicts about which events counted, and nothing else: who holds
//! which lease, what runs where, what has ended is worked out here once more, from the
//! events alone.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use conductor_domain::record::Content;
use conductor_domain::state::Outcome;
use conductor_domain::{Decoded, Verdict};
use conductor_protocol::event::Event;
use conductor_protocol::ids::{AgentId, Lease, Namespace, Position, QueueName};
use conductor_protocol::subject::Role;
use conductor_protocol::{Control, OutcomeClass, TaskId, TaskSpec};

use crate::books::{Shared, Talk};
use crate::filings::Filings;

/// One event of a record, or a control command, with what became of it.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// Where it stands.
    pub at: Position,
    /// The record's time, as the state takes it: never going back.
    pub time_ms: u64,
    /// Who said it.
    pub by: By<'a>,
    /// What was said.
    pub what: What<'a>,
    /// What became of it.
    pub verdict: Verdict,
    /// Whether the record repeats an earlier one: the same append, stored twice.
    pub is_repeat: bool,
}

impl Seen<'_> {
    /// Whether it counted.
    pub fn is_applied(&self) -> bool {
        self.verdict == Verdict::Applied
    }
}

/// Who said something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By<'a> {
    /// A leader, under this epoch, to this agent if it is the scheduler.
    Leader(Role, Option<u64>, Option<&'a AgentId>),
    /// An agent, under this incarnation.
    Agent(&'a AgentId, Option<u64>),
    /// Whoever takes a role.
    Candidate(Role),
    /// The operator.
    Operator,
}

/// What was said.
#[derive(Clone, Copy, Debug)]
pub enum What<'a> {
    /// An event.
    Event(&'a Event),
    /// A command.
    Control(&'a Control),
}

/// A task that was accepted.
#[derive(Clone, Debug)]
pub struct Task {
    /// What it is.
    pub spec: Arc<TaskSpec>,
    /// How it ended, unless it has not or was run again.
    pub outcome: Option<Outcome>,
    /// Every way it has ended so far.
    pub outcomes: BTreeSet<Outcome>,
    /// How often it was run again by hand.
    pub redriven: u32,
    /// The lease in force, and whose it is.
    pub lease: Option<(Lease, AgentId)>,
    /// Attempts assigned.
    pub attempts: u32,
    /// Of them since it was accepted or run again.
    pub attempts_now: u32,
    /// Whether somebody asked to cancel it.
    pub is_cancelled: bool,
    /// Until when the model service has no more, as its attempt says.
    pub throttled_ms: Option<u64>,
}

/// An agent.
#[derive(Clone, Debug, Default)]
pub struct Agent {
    /// Sequence of its `agent.joined`.
    pub incarnation: u64,
    /// Slots it offers.
    pub slots: u32,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Whether its reports count.
    pub is_there: bool,
    /// Whether it said that it takes nothing more.
    pub is_draining: bool,
    /// Whether the operator wants nothing more assigned to it.
    pub is_drained: bool,
    /// What it was given and has not said to be over.
    pub busy: BTreeMap<Position, u32>,
}

/// The books.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    /// Tasks.
    pub tasks: BTreeMap<TaskId, Task>,
    /// Submissions, with how often each was decided.
    pub submissions: BTreeMap<Position, u32>,
    /// Submissions that are not decided.
    pub undecided: BTreeSet<Position>,
    /// How long a key is remembered; nothing else was said until the first setting.
    pub window_ms: Option<u64>,
    /// Idempotency keys: the task, and until when it is remembered.
    pub keys: BTreeMap<(Namespace, Arc<str>), (TaskId, u64)>,
    /// Agents.
    pub agents: BTreeMap<AgentId, Agent>,
    /// Paused queues.
    pub paused: BTreeSet<QueueName>,
    /// Sequence of the newest election, by role.
    pub epochs: BTreeMap<Role, u64>,
    /// Sequence of the last record.
    pub seq: u64,
    /// Tasks that have not ended.
    pub open: BTreeSet<TaskId>,
    /// What attempts and people say to each other.
    pub talk: Talk,
    /// What attempts submit.
    pub filings: Filings,
    /// What namespaces spend, who has which workspace and which session.
    pub shared: Shared,
}

/// The named workspace that a task works in.
pub fn workspace_of(spec: &TaskSpec) -> Option<(Namespace, String)> {
    let workspace = spec.terms.as_ref()?.workspace.as_ref()?;
    Some((spec.namespace.clone(), workspace.name.clone()?))
}

impl Ledger {
    /// Notes the submissions of a record.
    pub fn submitted(&mut self, record: &Decoded) {
        self.seq = record.seq;
        if let Content::Submit(submit) = &record.content {
            for index in 0..submit.count {
                let at = Position::new(record.seq, index);
                self.submissions.insert(at, 0);
                self.undecided.insert(at);
            }
        }
    }

    /// How many leases are in force under a concurrency key.
    pub fn running_under(&self, key: &str) -> u32 {
        let under = |t: &&Task| {
            let its_key = t.spec.concurrency.as_ref().map(|c| c.key.as_str());
            t.lease.is_some() && its_key == Some(key)
        };
        self.tasks.values().filter(under).count() as u32
    }

    /// Notes what was said, if it counted.
    pub fn note(&mut self, seen: &Seen<'_>) {
        if !seen.is_applied() {
            return;
        }
        match seen.what {
            What::Control(control) => self.note_control(seen.at, control),
            What::Event(event) => {
                self.note_intake(seen, event);
                self.note_task(seen, event);
                self.note_agent(seen, event);
                self.talk.note(event);
                self.note_filing(seen, event);
                self.note_shared(seen, event);
            }
        }
    }

    fn note_filing(&mut self, seen: &Seen<'_>, event: &Event) {
        if let Event::AttemptSubmitted(_) = event {
            self.submissions.insert(seen.at, 0);
            self.undecided.insert(seen.at);
        }
        let tasks = &self.tasks;
        let is_over = |id| tasks.get(&id).is_none_or(|t| t.outcome.is_some());
        self.filings.note(seen.at, event, is_over);
    }

    /// Somebody asked to cancel a task, and with it those below it that have not ended.
    fn cancel(&mut self, id: TaskId) {
        let mut below = vec![id];
        while let Some(id) = below.pop() {
            let child = |t: &Task| t.spec.terms.as_ref().and_then(|t| t.parent) == Some(id);
            below.extend(
                self.tasks
                    .iter()
                    .filter(|(_, t)| child(t))
                    .map(|(id, _)| *id),
            );
            if let Some(task) = self.tasks.get_mut(&id) {
                task.is_cancelled |= task.outcome.is_none();
            }
        }
    }

    fn note_control(&mut self, at: Position, control: &Control) {
        let lease = |task| {
            let task = self.tasks.get(task)?;
            task.lease.as_ref().map(|(lease, _)| lease.assigned)
        };
        match control {
            Control::Cancel { task, .. } => self.cancel(*task),
            Control::PauseQueue { queue } => {
                self.paused.insert(queue.clone());
            }
            Control::ResumeQueue { queue } => {
                self.paused.remove(queue);
            }
            Control::DrainAgent { agent } | Control::ResumeAgent { agent } => {
                let is_drained = matches!(control, Control::DrainAgent { .. });
                if let Some(agent) = self.agents.get_mut(agent) {
                    agent.is_drained = is_drained;
                }
            }
            Control::PutConfig(change) => {
                self.window_ms = change.idempotency_window.map(|w| w.0).or(self.window_ms);
                self.shared.budgets.put(change);
            }
            Control::Decide {
                task,
                approval,
                answer,
                ..
            } => {
                if let Some(lease) = lease(task) {
                    self.talk.answered(at, lease, *approval, *answer);
                }
            }
            Control::Tell { task, .. } => {
                if let Some(lease) = lease(task) {
                    self.talk.said(at, lease);
                }
            }
            Control::ReleaseWorkspace { namespace, name } => {
                let key = (namespace.clone(), name.clone());
                self.shared.forget(&key);
            }
            Control::RemoveWorkspace {
                namespace, name, ..
            } => {
                let key = (namespace.clone(), name.clone());
                self.shared.removals.insert(key, at);
            }
            Control::DecideBudget {
                namespace, answer, ..
            } => self.shared.budgets.answered(namespace, *answer),
            Control::Retry { .. } => {}
        }
    }

    fn note_intake(&mut self, seen: &Seen<'_>, event: &Event) {
        let submission = match event {
            Event::TaskAccepted(e) => {
                let task = Task {
                    spec: e.spec.clone(),
                    outcome: None,
                    outcomes: BTreeSet::new(),
                    redriven: 0,
                    lease: None,
                    attempts: 0,
                    attempts_now: 0,
                    is_cancelled: false,
                    throttled_ms: None,
                };
                self.tasks.insert(e.task, task);
                self.open.insert(e.task);
                if let Some(key) = &e.spec.key {
                    let key = (e.spec.namespace.clone(), key.clone());
                    let window_ms = self.window_ms.unwrap_or(24 * 3_600_000);
                    self.keys.insert(key, (e.task, seen.time_ms + window_ms));
                }
                e.submission
            }
            Event::TaskRejected(e) => e.submission,
            Event::TaskDuplicate(e) => e.submission,
            Event::LeaderElected(_) => {
                if let By::Candidate(role) = seen.by {
                    self.epochs.insert(role, seen.at.seq);
                }
                return;
            }
            _ => return,
        };
        *self.submissions.entry(submission).or_default() += 1;
        self.undecided.remove(&submission);
    }

    fn note_task(&mut self, seen: &Seen<'_>, event: &Event) {
        match event {
            Event::AttemptAssigned(e) => {
                let By::Leader(_, _, Some(agent)) = seen.by else {
                    return;
                };
                let lease = Lease {
                    task: e.task,
                    attempt: e.attempt,
                    assigned: seen.at,
                };
                if let Some(task) = self.tasks.get_mut(&e.task) {
                    task.lease = Some((lease, agent.clone()));
                    task.attempts += 1;
                    task.attempts_now += 1;
                }
                if let Some(agent) = self.agents.get_mut(agent) {
                    agent.busy.insert(seen.at, e.slots);
                }
            }
            Event::AttemptSucceeded(e) => {
                self.freed(e.lease);
                self.ended(e.lease.task, Outcome::Succeeded);
            }
            Event::AttemptThrottled(e) => {
                if let Some(task) = self.tasks.get_mut(&e.lease.task) {
                    task.throttled_ms = e.until_ms.or(task.throttled_ms);
                }
            }
            Event::AttemptFailed(e) => {
                let task = self.tasks.get(&e.lease.task);
                let until = task.and_then(|t| t.throttled_ms);
                let is_why = e.class == OutcomeClass::RateLimited;
                self.freed(e.lease);
                self.lease_over(e.lease);
                if let Some(task) = self.tasks.get_mut(&e.lease.task) {
                    task.throttled_ms = until.filter(|u| is_why && *u > seen.time_ms);
                }
            }
            // Waiting for the model service is no try of the task's.
            Event::TaskRetrySet(e) => {
                if let Some(task) = self.tasks.get_mut(&e.task)
                    && task.throttled_ms.take().is_some()
                {
                    task.attempts_now -= 1;
                }
            }
            Event::AttemptStopped(e) => {
                self.freed(e.lease);
                self.lease_over(e.lease);
            }
            Event::AttemptTimedOut(e) => self.lease_over(e.lease),
            Event::TaskFailed(e) => self.ended(e.task, Outcome::Failed),
            Event::TaskTimedOut(e) => self.ended(e.task, Outcome::TimedOut),
            Event::TaskCancelled(e) => self.ended(e.task, Outcome::Cancelled),
            Event::TaskRedriven(e) => {
                if let Some(task) = self.tasks.get_mut(&e.task) {
                    task.outcome = None;
                    task.redriven += 1;
                    task.attempts_now = 0;
                    task.is_cancelled = false;
                    self.open.insert(e.task);
                }
            }
            _ => {}
        }
    }

    fn note_agent(&mut self, seen: &Seen<'_>, event: &Event) {
        match (event, seen.by) {
            (Event::AgentJoined(e), By::Agent(id, _)) => {
                self.gone(id);
                let agent = self.agents.entry(id.clone()).or_default();
                agent.incarnation = seen.at.seq;
                agent.slots = e.slots;
                agent.labels.clone_from(&e.labels);
                agent.is_there = true;
                agent.is_draining = false;
            }
            (Event::AgentDraining(_), By::Agent(id, _)) => {
                if let Some(agent) = self.agents.get_mut(id) {
                    agent.is_draining = true;
                }
            }
            (Event::AgentLeft(_), By::Agent(id, _)) => self.gone(id),
            (Event::AgentLost(e), _) => self.gone(&e.agent),
            _ => {}
        }
    }

    fn note_shared(&mut self, seen: &Seen<'_>, event: &Event) {
        match (event, seen.by) {
            (Event::LogFormat(e), _) => self.shared.format = e.format,
            (Event::AttemptStarted(e), By::Agent(id, _)) => {
                if let Some(session) = &e.session {
                    self.shared.sessions.insert(session.clone(), id.clone());
                }
            }
            (Event::AttemptAssigned(e), By::Leader(_, _, Some(agent))) => {
                let task = self.tasks.get(&e.task);
                let entered = task.and_then(|t| workspace_of(&t.spec));
                if let Some(key) = entered.filter(|_| self.shared.format >= 2) {
                    self.shared.unpushed.insert(key.clone());
                    self.shared.workspaces.insert(key, agent.clone());
                }
            }
            (Event::AttemptChanged(e), _) => {
                let task = self.tasks.get(&e.lease.task);
                let entered = task.and_then(|t| workspace_of(&t.spec));
                if let Some(key) = entered.filter(|_| e.unpushed == Some(false)) {
                    self.shared.unpushed.remove(&key);
                }
            }
            (Event::WorkspaceRemoved(e), _) => {
                self.shared.forget(&(e.namespace.clone(), e.name.clone()));
            }
            (Event::BudgetReached(e), _) => {
                self.shared.budgets.reached(&e.namespace, e.on_reached);
            }
            (Event::AttemptUsage(e), _) => {
                if let Some(task) = self.tasks.get(&e.lease.task) {
                    let namespace = task.spec.namespace.clone();
                    let budgets = &mut self.shared.budgets;
                    budgets.used(e.lease.task, namespace, &e.usage);
                }
            }
            _ => {}
        }
    }

    fn gone(&mut self, id: &AgentId) {
        if let Some(agent) = self.agents.get_mut(id) {
            agent.is_there = false;
            agent.busy.clear();
        }
        for task in self.tasks.values_mut() {
            if task.lease.as_ref().is_some_and(|(_, of)| of == id) {
                task.lease = None;
                task.throttled_ms = None;
            }
        }
    }

    fn ended(&mut self, id: TaskId, outcome: Outcome) {
        if let Some(task) = self.tasks.get_mut(&id) {
            task.outcome = Some(outcome);
            task.outcomes.insert(outcome);
            task.lease = None;
            self.open.remove(&id);
            self.filings.ended(id);
        }
    }

    fn lease_over(&mut self, lease: Lease) {
        // An agent names the lease by where it was assigned; the rest is for people.
        for task in self.tasks.values_mut() {
            if task
                .lease
                .as_ref()
                .is_some_and(|(l, _)| l.assigned == lease.assigned)
            {
                task.lease = None;
                task.throttled_ms = None;
            }
        }
    }

    fn freed(&mut self, lease: Lease) {
        for agent in self.agents.values_mut() {
            agent.busy.remove(&lease.assigned);
        }
    }
}
