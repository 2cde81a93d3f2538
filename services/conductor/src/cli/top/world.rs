//! A small world for tests: records as bytes, folded, and seen.

use conductor_domain::decide::{self, Input};
use conductor_domain::{Record, State, fold, record};
use conductor_protocol::event::{
    AgentJoined, AttemptAssigned, AttemptFailed, AttemptStarted, Event, LeaderElected,
};
use conductor_protocol::frame::{self, FrameHead};
use conductor_protocol::ids::{AgentId, Lease, Position};
use conductor_protocol::spec::{NoopSpec, RunSpec, Runtime};
use conductor_protocol::subject::{Role, Subject};
use conductor_protocol::{Control, OutcomeClass, TaskId, UnixMs};
use serde_json::{Value, json};

use super::seen::Seen;

/// When every world begins.
pub(crate) const START_MS: UnixMs = 1_800_000_000_000;

/// A state, and what was seen on the way to it.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) state: State,
    pub(crate) seen: Seen,
    now_ms: UnixMs,
    tasks: u64,
}

fn agent(name: &str) -> AgentId {
    name.parse().unwrap()
}

impl World {
    /// Both roles led, and no agent.
    pub(crate) fn new() -> Self {
        let mut world = Self {
            state: State::new("test".parse().unwrap()),
            seen: Seen::default(),
            now_ms: START_MS,
            tasks: 0,
        };
        for role in Role::ALL {
            let elected = LeaderElected {
                holder: "host-1".into(),
                version: "1".into(),
            };
            world.say(&Subject::Leader(role), FrameHead::default(), elected);
        }
        world
    }

    /// Time passes.
    pub(crate) fn later(&mut self, by_ms: u64) {
        self.now_ms += by_ms;
    }

    fn record(&mut self, subject: &Subject, payload: Vec<u8>) {
        let record = Record {
            seq: self.state.seq + 1,
            time_ms: self.now_ms,
            subject: subject.render(&self.state.cell),
            content_type: None,
            reply: None,
            traceparent: None,
            payload: payload.into(),
        };
        let decoded = record::decode(&self.state.cell, &record);
        let folded = fold::apply(&mut self.state, &decoded);
        self.seen.saw(&decoded, &folded, &self.state);
    }

    fn say(&mut self, subject: &Subject, head: FrameHead, event: impl Into<Event>) {
        self.record(subject, frame::join(head, &[event.into().encode()]));
    }

    /// The orchestrator decides all that is due.
    fn settle(&mut self) {
        let input = Input {
            now_ms: self.now_ms,
            silent_agents: &[],
            silent_leases: &[],
            events_max: 1_000,
        };
        loop {
            let mut overlay = decide::Overlay::default();
            let due = decide::decide(&self.state, &mut overlay, input, &mut || 0);
            if due.is_empty() {
                return;
            }
            let head = FrameHead::epoch(self.state.epoch(Role::Orchestrator));
            for event in due {
                self.say(&Subject::Orchestrator, head, event);
            }
        }
    }

    /// A no-op with these fields, submitted to queue `q` and decided.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "reads better where it is called"
    )]
    pub(crate) fn submit(&mut self, fields: Value) -> TaskId {
        self.tasks += 1;
        let mut random = [0; 10];
        random[2..].copy_from_slice(&self.tasks.to_be_bytes());
        let id = TaskId::from_parts(self.now_ms, random);
        let mut task = json!({"id": id, "run": {"noop": {}}});
        for (field, value) in fields.as_object().unwrap() {
            task[field] = value.clone();
        }
        let subject = Subject::Submit("q".parse().unwrap());
        self.record(&subject, task.to_string().into_bytes());
        self.settle();
        id
    }

    /// Somebody says something, and it is decided.
    pub(crate) fn control(&mut self, control: &Control) {
        self.record(&Subject::Control, serde_json::to_vec(control).unwrap());
        self.settle();
    }

    pub(crate) fn cancel(&mut self, task: TaskId) {
        self.control(&Control::Cancel { task, reason: None });
    }

    fn report(&mut self, name: &str, event: impl Into<Event>) {
        let known = self.state.agents.get(&agent(name));
        let head = FrameHead::incarnation(known.map_or(0, |a| a.incarnation));
        self.say(&Subject::Agent(agent(name)), head, event);
        self.settle();
    }

    pub(crate) fn join(&mut self, name: &str, slots: u32) {
        let joined = AgentJoined {
            slots,
            runtimes: [(Runtime::Noop, "1".to_owned())].into(),
            ..AgentJoined::default()
        };
        self.report(name, joined);
    }

    /// Assigns a ready task, and the agent starts it.
    pub(crate) fn start(&mut self, task: TaskId, on: &str) {
        self.settle();
        let of = &self.state.tasks[&task];
        let assigned = AttemptAssigned {
            task,
            attempt: of.attempts + 1,
            incarnation: self.state.agents[&agent(on)].incarnation,
            slots: of.spec.slots,
            run: std::sync::Arc::new(RunSpec::Noop(NoopSpec {})),
            timeouts: of.spec.timeouts.clone(),
            queue: of.spec.queue.clone(),
            namespace: of.spec.namespace.clone(),
            name: None,
            metadata: conductor_protocol::compact::Pairs::default(),
            traceparent: None,
            terms: None,
            before: None,
            inputs: Vec::new(),
        };
        let head = FrameHead::epoch(self.state.epoch(Role::Scheduler));
        self.say(&Subject::Scheduler(agent(on)), head, assigned);
        let lease = self.state.tasks[&task].lease(task).unwrap();
        let session = None;
        self.report(on, AttemptStarted::new(lease, session));
    }

    /// Its attempt fails; once more, that is of a lease that is over.
    pub(crate) fn fail(&mut self, task: TaskId, on: &str) {
        let over = Lease {
            task,
            attempt: 1,
            assigned: Position::new(1, 0),
        };
        let failed = AttemptFailed {
            lease: self.state.tasks[&task].lease(task).unwrap_or(over),
            class: OutcomeClass::Failed,
            message: String::new(),
            result: None,
            exit_code: Some(1),
            signal: None,
            usage: None,
            output: None,
        };
        self.report(on, failed);
    }
}
