//! The whole system without servers: the synchronous machines that the actors run, handing
//! each other records in memory on one thread. What remains is the cost of the rules.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use conductor_agent::duty::{self, Duty, words_of};
use conductor_domain::{Record, State, fold, record};
use conductor_eventlog::{Appended, GroupCommit};
use conductor_orchestrator::Orchestrator;
use conductor_protocol::event::{AgentJoined, Event, LeaderElected};
use conductor_protocol::frame::{self, Elements, FrameHead};
use conductor_protocol::spec::{NoopSpec, Runtime};
use conductor_protocol::subject::{Role as RoleName, Subject};
use conductor_protocol::submission::Submission;
use conductor_protocol::{AgentId, CellId, RunSpec, TaskId};
use conductor_replica::follow::Batch;
use conductor_replica::host::{Effect, Host, Input};
use conductor_replica::role::{Draft, Role};
use conductor_scheduler::Scheduler;

/// What to push through.
#[derive(Debug, clap::Args)]
pub(crate) struct PipelineArgs {
    /// How many tasks
    #[arg(long, default_value_t = 200_000)]
    tasks: u64,
    /// Tasks of one submit record
    #[arg(long, default_value_t = 500)]
    per_record: u64,
    /// Bytes of each submission, about
    #[arg(long, default_value_t = 256)]
    bytes: usize,
    /// How many agents
    #[arg(long, default_value_t = 4)]
    agents: u32,
    /// Tasks submitted before the first agent joins
    #[arg(long, default_value_t = 0)]
    backlog: u64,
}

/// Time spent in each machine.
#[derive(Debug, Default)]
struct Spent {
    host: Duration,
    agents: Duration,
    commit: Duration,
}

struct Pipeline {
    cell: CellId,
    records: Vec<Record>,
    host: Host,
    /// How far the host has read.
    read: usize,
    writers: BTreeMap<RoleName, GroupCommit>,
    agents: BTreeMap<String, Member>,
    time_ms: u64,
    spent: Spent,
}

/// An agent.
struct Member {
    duty: Duty,
    commit: GroupCommit,
    subject: String,
}

impl Pipeline {
    fn new() -> Self {
        let cell = CellId::default();
        let roles: Vec<Box<dyn Role>> = vec![
            Box::new(Orchestrator::new(&cell, 1)),
            Box::new(Scheduler::new(&cell)),
        ];
        let mut pipeline = Self {
            host: Host::new(State::new(cell.clone()), roles, 0),
            cell,
            records: Vec::new(),
            read: 0,
            writers: BTreeMap::new(),
            agents: BTreeMap::new(),
            time_ms: 1_700_000_000_000,
            spent: Spent::default(),
        };
        for role in RoleName::ALL {
            let elected = Event::from(LeaderElected {
                holder: "pipeline".to_owned(),
                version: String::new(),
            });
            let payload = frame::join(FrameHead::default(), &[elected.encode()]);
            let epoch = pipeline.append(Subject::Leader(role).render(&pipeline.cell), payload);
            pipeline.step(Input::Elected(role, epoch));
        }
        pipeline.settle();
        pipeline
    }

    fn join(&mut self, number: u32, slots: u32) {
        let id = AgentId::from_log(&format!("a{number}"));
        let subject = Subject::Agent(id.clone()).render(&self.cell);
        let joined = Event::from(AgentJoined {
            slots,
            runtimes: [(Runtime::Noop, String::new())].into(),
            ..AgentJoined::default()
        });
        let payload = frame::join(FrameHead::default(), &[joined.encode()]);
        let incarnation = self.append(subject.clone(), payload);
        let now = Instant::now();
        let mut duty = Duty::new(id.clone(), slots, now);
        let _ = duty.step(duty::Input::Rejoin, now);
        let _ = duty.step(duty::Input::Joined(incarnation), now);
        let head = FrameHead::incarnation(incarnation);
        let commit = GroupCommit::new(head, id.as_str(), 1);
        let hears = Subject::Scheduler(id).render(&self.cell);
        let member = Member {
            duty,
            commit,
            subject,
        };
        self.agents.insert(hears, member);
    }

    fn append(&mut self, subject: String, payload: impl Into<Vec<u8>>) -> u64 {
        self.time_ms += 1;
        let seq = self.records.len() as u64 + 1;
        self.records.push(Record {
            seq,
            time_ms: self.time_ms,
            subject,
            content_type: None,
            reply: None,
            traceparent: None,
            payload: payload.into().into(),
        });
        seq
    }

    /// Lets everybody read and answer until nobody has anything to say.
    fn settle(&mut self) {
        while self.read < self.records.len() {
            let fresh: Vec<Record> = self.records.get(self.read..).unwrap_or_default().to_vec();
            self.read = self.records.len();
            let start = Instant::now();
            let batch = Batch {
                records: fresh
                    .iter()
                    .map(|r| record::decode(&self.cell, r))
                    .collect(),
                ..Batch::default()
            };
            self.spent.host += start.elapsed();
            self.step(Input::Records(&batch));
            for record in &fresh {
                self.tell_agent(record);
            }
            self.commit();
        }
    }

    fn step(&mut self, input: Input<'_>) {
        let start = Instant::now();
        let effects = self.host.step(input, start, |_| 0);
        for effect in effects {
            match effect {
                Effect::Begin { role, epoch, .. } => {
                    let commit = GroupCommit::new(FrameHead::epoch(epoch), role.as_str(), 16);
                    self.writers.insert(role, commit);
                }
                Effect::Append(role, drafts) => {
                    let Some(writer) = self.writers.get_mut(&role) else {
                        continue;
                    };
                    for draft in drafts {
                        if let Draft::Events { subject, events } = draft {
                            writer.push(&subject, events);
                        }
                    }
                }
                _ => {}
            }
        }
        self.spent.host += start.elapsed();
    }

    fn tell_agent(&mut self, record: &Record) {
        let start = Instant::now();
        let Some(member) = self.agents.get_mut(&record.subject) else {
            return;
        };
        let words = words_of(&self.cell, record.seq, &record.subject, &record.payload);
        for effect in member.duty.step(duty::Input::Heard(words), start) {
            if let duty::Effect::Report(events) = effect {
                for event in events {
                    member.commit.push(&member.subject, Elements::from(&event));
                }
            }
        }
        self.spent.agents += start.elapsed();
    }

    fn commit(&mut self) {
        let start = Instant::now();
        let mut appends = Vec::new();
        let writers = self.writers.values_mut();
        for commit in writers.chain(self.agents.values_mut().map(|m| &mut m.commit)) {
            let appended = Appended {
                seq: 1,
                is_duplicate: false,
            };
            while let Some(append) = commit.next_append() {
                let _ = commit.answered(&append.subject, Ok(appended));
                appends.push((append.subject, append.payload));
            }
        }
        for (subject, payload) in appends {
            self.append(subject, payload);
        }
        self.spent.commit += start.elapsed();
    }
}

/// A record of no-op tasks, as the client library writes it.
fn submission(first: u64, count: u64, bytes: usize) -> Vec<u8> {
    let mut events = Vec::new();
    for n in first..first + count {
        let mut random = [0_u8; 10];
        // The first bits are the version's and the variant's.
        let counter = random.iter_mut().skip(2).zip(n.to_be_bytes());
        counter.for_each(|(to, from)| *to = from);
        let task = Submission {
            id: Some(TaskId::from_parts(1_699_999_900_000 + n / 40, random)),
            run: Some(RunSpec::Noop(NoopSpec {})),
            metadata: [("pad".to_owned(), "x".repeat(bytes.saturating_sub(48)))].into(),
            ..Submission::default()
        };
        events.push(task.encode().unwrap_or_default());
    }
    let mut out = vec![0xdd];
    out.extend_from_slice(&(count as u32).to_be_bytes());
    out.extend(events.concat());
    out
}

/// The log of so many no-op tasks, all submitted before the first agent is there.
pub(crate) fn log_of(tasks: u64) -> Vec<Record> {
    let mut pipeline = Pipeline::new();
    let subject = "conductor.local.submit.default";
    for first in (0..tasks).step_by(500) {
        let payload = submission(first, 500.min(tasks - first), 256);
        pipeline.append(subject.to_owned(), payload);
    }
    for number in 1..=4 {
        pipeline.join(number, 2_048);
    }
    pipeline.settle();
    pipeline.records
}

#[expect(clippy::print_stdout, reason = "it is what the command is for")]
pub(crate) fn main(args: &PipelineArgs) -> ExitCode {
    let mut pipeline = Pipeline::new();
    let subject = "conductor.local.submit.default";
    let mut submitted = 0;
    while submitted < args.backlog {
        pipeline.append(
            subject.to_owned(),
            submission(submitted, args.per_record, args.bytes),
        );
        submitted += args.per_record;
        pipeline.settle();
    }
    for number in 1..=args.agents {
        pipeline.join(number, 2_048);
    }
    pipeline.settle();
    pipeline.spent = Spent::default();
    while submitted < args.tasks {
        let payload = submission(submitted, args.per_record, args.bytes);
        pipeline.append(subject.to_owned(), payload);
        submitted += args.per_record;
        pipeline.settle();
    }
    let state = pipeline.host.state();
    let us = |spent: Duration| spent.as_secs_f64() * 1e6 / args.tasks as f64;
    let bytes: usize = pipeline.records.iter().map(|r| r.payload.len()).sum();
    println!(
        "ended {:?}, void {:?}",
        state.counters.ended, state.counters.void
    );
    println!(
        "{} records, {} bytes per task",
        pipeline.records.len(),
        bytes as u64 / args.tasks
    );
    println!(
        "µs per task: host {:.2}, agents {:.2}, commit {:.2}",
        us(pipeline.spent.host),
        us(pipeline.spent.agents),
        us(pipeline.spent.commit)
    );
    let mut fresh = State::new(pipeline.cell.clone());
    let (mut decoding, mut folding, mut events) = (Duration::ZERO, Duration::ZERO, 0);
    for r in &pipeline.records {
        let start = Instant::now();
        let decoded = record::decode(&pipeline.cell, r);
        let between = Instant::now();
        let folded = fold::apply(&mut fresh, &decoded);
        decoding += between - start;
        folding += between.elapsed();
        events += folded.verdicts.len();
    }
    println!(
        "replay: {events} verdicts, µs per task: decode {:.2}, fold {:.2}; same state: {}",
        us(decoding),
        us(folding),
        fresh.digest() == pipeline.host.state().digest()
    );
    ExitCode::SUCCESS
}
