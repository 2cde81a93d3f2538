//! A small world to fold in. Everything goes through bytes, as it would through the log,
//! and after every record the state must equal what its own snapshot gives back.

use conductor_domain::decide::{self, Input};
use conductor_domain::plan;
use conductor_domain::state::{Phase, State, Task};
use conductor_domain::{Decoded, Record, Verdict, fold, record};
use conductor_protocol::event::{
    AgentJoined, ApprovalRequested, AttemptAssigned, AttemptFailed, AttemptStarted,
    AttemptSubmitted, AttemptSucceeded, Event, LeaderElected, LogFormat, Question, TaskReady,
};
use conductor_protocol::frame::{self, FrameHead};
use conductor_protocol::human::DurationMs;
use conductor_protocol::ids::{AgentId, CellId, Lease, Position, TaskId};
use conductor_protocol::spec::{RunSpec, Runtime};
use conductor_protocol::subject::{Role, Subject};
use conductor_protocol::terms::Answer;
use conductor_protocol::{Control, OutcomeClass, limits::FORMAT_KNOWN};
use serde_json::{Value, json};

pub(super) const START_MS: u64 = 1_800_000_000_000;

/// A state, and the log that made it.
#[derive(Clone, Debug)]
pub(super) struct World {
    pub(super) state: State,
    pub(super) now_ms: u64,
    pub(super) log: Vec<Record>,
    ids: u8,
}

/// So many assignments in flight, to as many agents as the scheduler allows.
pub(super) fn bounds(assignments: usize) -> plan::Bounds {
    plan::Bounds {
        assignments,
        now_ms: START_MS,
        agents: 16,
    }
}

pub(super) fn agent(name: &str) -> AgentId {
    name.parse().unwrap()
}

impl World {
    /// Nothing yet.
    pub(super) fn empty() -> Self {
        let cell: CellId = "test".parse().unwrap();
        Self {
            state: State::new(cell),
            now_ms: START_MS,
            log: Vec::new(),
            ids: 0,
        }
    }

    /// Both roles led, and an agent `a1` of four slots; the format is the newest.
    pub(super) fn new() -> Self {
        let mut world = Self::empty();
        world.elect(Role::Orchestrator);
        world.elect(Role::Scheduler);
        world.join("a1", 4);
        let format = FORMAT_KNOWN;
        world.orchestrator(LogFormat { format });
        world
    }

    pub(super) fn elect(&mut self, role: Role) -> Verdict {
        let event = LeaderElected {
            holder: "h".into(),
            version: "1".into(),
        };
        self.frame(
            &Subject::Leader(role),
            FrameHead::default(),
            &[event.into()],
        )[0]
    }

    pub(super) fn join(&mut self, name: &str, slots: u32) -> Verdict {
        self.join_on(name, slots, "linux")
    }

    /// An agent with another label.
    pub(super) fn join_on(&mut self, name: &str, slots: u32, os: &str) -> Verdict {
        let runtimes = [
            (Runtime::Command, "1".to_owned()),
            (Runtime::Noop, "1".to_owned()),
            (Runtime::Claude, "1".to_owned()),
        ];
        let joined = AgentJoined {
            version: "1".into(),
            host: "h".into(),
            process: String::new(),
            slots,
            labels: [("os".to_owned(), os.to_owned())].into(),
            runtimes: runtimes.into(),
            format: FORMAT_KNOWN,
            ..AgentJoined::default()
        };
        self.agent_says(name, joined)
    }

    /// A record of any bytes.
    pub(super) fn raw(&mut self, subject: String, payload: Vec<u8>) -> Vec<Verdict> {
        let record = Record {
            seq: self.state.seq + 1,
            time_ms: self.now_ms,
            subject,
            content_type: None,
            reply: None,
            traceparent: None,
            payload: payload.into(),
        };
        self.fold(record)
    }

    pub(super) fn fold(&mut self, record: Record) -> Vec<Verdict> {
        let decoded: Decoded = record::decode(&self.state.cell, &record);
        let folded = fold::apply(&mut self.state, &decoded);
        self.log.push(record);
        let again = State::from_snapshot(&self.state.to_snapshot()).unwrap();
        assert_eq!(
            again, self.state,
            "what is derived does not follow from what is stored"
        );
        folded.verdicts
    }

    fn frame(&mut self, subject: &Subject, head: FrameHead, events: &[Event]) -> Vec<Verdict> {
        let encoded: Vec<Vec<u8>> = events.iter().map(Event::encode).collect();
        let subject = subject.render(&self.state.cell);
        self.raw(subject, frame::join(head, &encoded))
    }

    /// The leading orchestrator decides something.
    pub(super) fn orchestrator(&mut self, event: impl Into<Event>) -> Verdict {
        let head = FrameHead::epoch(self.state.epoch(Role::Orchestrator));
        self.frame(&Subject::Orchestrator, head, &[event.into()])[0]
    }

    /// The same under an epoch of the test's choosing.
    pub(super) fn orchestrator_at(&mut self, epoch: u64, event: impl Into<Event>) -> Verdict {
        self.frame(
            &Subject::Orchestrator,
            FrameHead::epoch(epoch),
            &[event.into()],
        )[0]
    }

    /// The leading scheduler says something to an agent.
    pub(super) fn scheduler(&mut self, to: &str, event: impl Into<Event>) -> Verdict {
        let head = FrameHead::epoch(self.state.epoch(Role::Scheduler));
        self.frame(&Subject::Scheduler(agent(to)), head, &[event.into()])[0]
    }

    /// An agent reports something, in its current incarnation.
    pub(super) fn agent_says(&mut self, name: &str, event: impl Into<Event>) -> Verdict {
        let incarnation = self
            .state
            .agents
            .get(&agent(name))
            .map_or(0, |a| a.incarnation);
        self.agent_says_as(name, incarnation, event)
    }

    pub(super) fn agent_says_as(
        &mut self,
        name: &str,
        incarnation: u64,
        event: impl Into<Event>,
    ) -> Verdict {
        let head = FrameHead::incarnation(incarnation);
        self.frame(&Subject::Agent(agent(name)), head, &[event.into()])[0]
    }

    pub(super) fn control(&mut self, control: &Control) -> Verdict {
        let subject = Subject::Control.render(&self.state.cell);
        self.raw(subject, serde_json::to_vec(control).unwrap())[0]
    }

    /// An id of its own for every task, made now.
    pub(super) fn new_id(&mut self) -> TaskId {
        self.ids += 1;
        TaskId::from_parts(self.now_ms, [self.ids; 10])
    }

    /// Submits JSON to queue `q`.
    pub(super) fn submit(&mut self, payload: &Value) -> u64 {
        let subject = Subject::Submit("q".parse().unwrap()).render(&self.state.cell);
        self.raw(subject, payload.to_string().into_bytes());
        self.state.seq
    }

    /// What the orchestrator would decide now.
    pub(super) fn decisions(&self) -> Vec<Event> {
        let mut overlay = decide::Overlay::default();
        let input = Input {
            now_ms: self.now_ms,
            silent_agents: &[],
            silent_leases: &[],
            events_max: 1_000,
        };
        decide::decide(&self.state, &mut overlay, input, &mut || 0)
    }

    /// Has the orchestrator decide until nothing is left to decide.
    pub(super) fn settle(&mut self) {
        for _ in 0..100 {
            let decisions = self.decisions();
            if decisions.is_empty() {
                return;
            }
            for event in decisions {
                self.orchestrator(event);
            }
        }
        panic!("it decides for ever: {:?}", self.decisions());
    }

    /// What the scheduler would assign now, as task and agent.
    pub(super) fn planned(&self) -> Vec<plan::Assignment> {
        plan::plan(&self.state, &mut plan::Overlay::default(), bounds(1_000))
    }

    /// Submits a task and has it decided; fields are added to a no-op.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "reads better where it is called"
    )]
    pub(super) fn task(&mut self, fields: Value) -> TaskId {
        let id = self.new_id();
        let mut task = json!({"id": id, "run": {"noop": {}}});
        for (field, value) in fields.as_object().unwrap() {
            task[field] = value.clone();
        }
        self.submit(&task);
        self.settle();
        id
    }

    pub(super) fn of(&self, task: TaskId) -> &Task {
        &self.state.tasks[&task]
    }

    pub(super) fn phase(&self, task: TaskId) -> &'static str {
        match &self.of(task).phase {
            Phase::Undecided => "undecided",
            _ => self.of(task).state_name(),
        }
    }

    /// The assignment of a task's next attempt to an agent.
    pub(super) fn assignment(&self, task: TaskId, to: &str) -> AttemptAssigned {
        let of = self.state.tasks.get(&task);
        AttemptAssigned {
            task,
            attempt: of.map_or(0, |t| t.attempts) + 1,
            incarnation: self
                .state
                .agents
                .get(&agent(to))
                .map_or(0, |a| a.incarnation),
            slots: of.map_or(1, |t| t.spec.slots),
            run: std::sync::Arc::new(RunSpec::Noop(conductor_protocol::spec::NoopSpec {})),
            timeouts: of.map(|t| t.spec.timeouts.clone()).unwrap_or_default(),
            queue: "q".parse().unwrap(),
            namespace: of.map(|t| t.spec.namespace.clone()).unwrap_or_default(),
            name: None,
            metadata: conductor_protocol::compact::Pairs::default(),
            traceparent: None,
            terms: None,
            before: None,
            inputs: Vec::new(),
        }
    }

    /// Assigns a task's next attempt, and returns the lease.
    pub(super) fn assign(&mut self, task: TaskId, to: &str) -> Lease {
        let assignment = self.assignment(task, to);
        let attempt = assignment.attempt;
        assert_eq!(self.scheduler(to, assignment), Verdict::Applied);
        Lease {
            task,
            attempt,
            assigned: Position::new(self.state.seq, 0),
        }
    }

    /// Assigns and starts.
    pub(super) fn run(&mut self, task: TaskId, on: &str) -> Lease {
        let lease = self.assign(task, on);
        assert_eq!(
            self.agent_says(on, AttemptStarted::new(lease, None)),
            Verdict::Applied
        );
        lease
    }

    /// The attempt of a lease asks its next question, to be answered within a minute.
    pub(super) fn ask(&mut self, lease: Lease, on: &str) -> Verdict {
        let approval = self.of(lease.task).aside.asked + 1;
        self.agent_says(on, question(lease, approval))
    }

    /// Somebody answers.
    pub(super) fn answer(&mut self, task: TaskId, approval: u32, answer: Answer) -> Verdict {
        self.control(&Control::Decide {
            task,
            approval,
            answer,
            text: None,
        })
    }

    /// Somebody says something to a task.
    pub(super) fn tell(&mut self, task: TaskId, text: &str) -> Verdict {
        let text = text.to_owned();
        self.control(&Control::Tell { task, text })
    }

    /// What the scheduler would tell attempts now.
    pub(super) fn words(&self) -> Vec<(AgentId, Event)> {
        let words = plan::words(&self.state, &mut plan::Overlay::default(), 100);
        let said = words.into_iter().map(|t| (t.agent.clone(), t.event()));
        said.collect()
    }

    pub(super) fn succeed(&mut self, lease: Lease, on: &str) -> Verdict {
        self.agent_says(on, succeeded(lease))
    }

    pub(super) fn fail(&mut self, lease: Lease, on: &str, class: OutcomeClass) -> Verdict {
        self.agent_says(on, failed(lease, class))
    }

    pub(super) fn ready(&mut self, task: TaskId) -> Verdict {
        self.orchestrator(TaskReady { task })
    }
}

/// A question of an attempt, to be answered within a minute.
pub(super) fn question(lease: Lease, approval: u32) -> ApprovalRequested {
    ApprovalRequested {
        lease,
        approval,
        question: Question::Tool,
        summary: "Bash: make".into(),
        expires: DurationMs(60_000),
        default: Answer::Deny,
    }
}

/// What an attempt submits.
pub(super) fn filing(lease: Lease, number: u32, body: &str) -> AttemptSubmitted {
    AttemptSubmitted {
        lease,
        number,
        body: body.to_owned(),
    }
}

pub(super) fn succeeded(lease: Lease) -> AttemptSucceeded {
    AttemptSucceeded {
        lease,
        result: None,
        exit_code: Some(0),
        usage: None,
        output: None,
    }
}

pub(super) fn failed(lease: Lease, class: OutcomeClass) -> AttemptFailed {
    AttemptFailed {
        lease,
        class,
        message: "it did".into(),
        result: None,
        exit_code: Some(1),
        signal: None,
        usage: None,
        output: None,
    }
}
