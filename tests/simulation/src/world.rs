//! The simulated world: one thread, one queue of things to come, no clock but its own.

mod actions;
mod agents;
mod elections;
mod joining;
mod lies;
mod network;
mod programs;
mod replicas;
mod reports;
mod subtasks;
mod talk;
mod workspaces;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use conductor_agent::duty;
use conductor_domain::State;
use conductor_eventlog::jetstream::presence::Beat;
use conductor_eventlog::memory::MemoryLog;
use conductor_protocol::CellId;
use conductor_protocol::ids::Position;
use conductor_protocol::subject::Role;

use crate::checkers::{self, Violation};
use crate::random::Random;
use crate::referee::Referee;
use crate::scenario::{Node, START_MS, Scenario};
use crate::shelf::Shelf;
use agents::{Agent, AgentProcess};
use network::{Answer, Letter};
use programs::Step;
use replicas::ReplicaProcess;

/// How long the system may take to finish everything once trouble has ceased: the longest total
/// timeout of a task, ten minutes, and as long again for those that wait for it.
pub(crate) const BOUND_MS: u64 = 30 * 60 * 1_000;
/// How often it is looked whether it has.
const LOOK_EVERY_MS: u64 = 2_000;
/// How long after trouble has ceased no command of before can be on its way any more.
const COMMANDS_LAST_MS: u64 = 70_000;

/// A life of a process: what was meant for an earlier one is not meant for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Life {
    node: Node,
    number: u32,
}

/// Something to come.
enum Next {
    /// An action of the scenario.
    Act(usize),
    /// An append sets out.
    Send(Letter),
    /// An append reaches the log.
    Arrive(Letter),
    /// What the log says of an append reaches its writer.
    Hear(Letter, Answer),
    /// The tail brings something.
    Deliver(Life),
    /// A replica has something to decide.
    Wake(Life),
    /// A candidate looks after its role.
    Stand(Life, Role),
    /// The body of a submission was read.
    Fetched(Life, Box<replicas::Fetch>),
    /// A sign of life reaches a replica.
    Beat(Life, Box<Beat>),
    /// An agent is told something.
    Tell(Life, Box<duty::Input>),
    /// Time for an agent to look at its leases.
    Tick(Life),
    /// A program goes on.
    Program(Life, Position, Box<Step>),
    /// An agent removes a workspace, if nobody uses it.
    Remove(Life, Box<conductor_protocol::event::WorkspaceDropped>),
    /// Somebody says something about what they read.
    Person(Box<conductor_protocol::Control>),
    /// A process starts.
    Start(Node),
    /// Trouble ceases.
    Calm,
    /// The operator lets everything go on.
    Resume,
    /// Signs of life can be heard again.
    Presence,
    /// Is everything done?
    Look,
}

impl Next {
    /// Whose life it belongs to.
    fn life(&self) -> Option<Life> {
        match self {
            Self::Send(letter) | Self::Hear(letter, _) => letter.from,
            Self::Deliver(life)
            | Self::Wake(life)
            | Self::Stand(life, _)
            | Self::Fetched(life, _)
            | Self::Beat(life, _)
            | Self::Tell(life, _)
            | Self::Tick(life)
            | Self::Remove(life, _)
            | Self::Program(life, ..) => Some(*life),
            Self::Act(_)
            | Self::Person(_)
            | Self::Arrive(_)
            | Self::Start(_)
            | Self::Calm
            | Self::Resume
            | Self::Presence
            | Self::Look => None,
        }
    }
}

/// The world.
pub(crate) struct World {
    scenario: Scenario,
    cell: CellId,
    now_ms: u64,
    base: Instant,
    to_come: BTreeMap<(u64, u64), Next>,
    ordinal: u64,
    log: MemoryLog,
    ids: BTreeSet<String>,
    server_offset_ms: i64,
    down_until_ms: u64,
    shelf: Shelf,
    locks: BTreeMap<Role, (String, u64)>,
    replicas: Vec<ReplicaProcess>,
    agents: Vec<AgentProcess>,
    unacked: BTreeSet<usize>,
    /// How often somebody has said something that no action of the scenario is.
    remarks: usize,
    /// Agents' processes that lied: nobody believes what such a one still runs.
    liars: BTreeSet<usize>,
    is_calm: bool,
    is_done: bool,
    asked: BTreeMap<String, u32>,
    pub(crate) referee: Referee,
    pub(crate) story: Option<Vec<String>>,
}

impl World {
    /// The world of a scenario, before anything happens.
    pub(crate) fn new(scenario: &Scenario, tells_story: bool) -> Self {
        let options = &scenario.options;
        let cell = CellId::default();
        let mut world = Self {
            cell: cell.clone(),
            now_ms: 0,
            base: Instant::now(),
            to_come: BTreeMap::new(),
            ordinal: 0,
            log: MemoryLog::new(options.dedup_window_ms, options.dedups_first),
            ids: BTreeSet::new(),
            server_offset_ms: 0,
            down_until_ms: 0,
            shelf: Shelf::default(),
            locks: BTreeMap::new(),
            replicas: Vec::new(),
            agents: Vec::new(),
            unacked: BTreeSet::new(),
            remarks: 0,
            liars: BTreeSet::new(),
            is_calm: false,
            is_done: false,
            asked: BTreeMap::new(),
            referee: Referee::new(cell, options.refused > 0),
            story: tells_story.then(Vec::new),
            scenario: scenario.clone(),
        };
        world.people();
        for (n, (at, _)) in scenario.actions.iter().enumerate() {
            world.push(*at, Next::Act(n));
        }
        world.push(options.trouble_ms, Next::Calm);
        world
    }

    /// Brings in the processes.
    fn people(&mut self) {
        let mut r = Random::stream(self.scenario.options.seed, "people");
        let drift = self.scenario.options.drift;
        let pace = |r: &mut Random| 1_000 - drift + r.below(2 * drift + 1);
        for roles in self.scenario.replicas() {
            let pace = pace(&mut r);
            self.replicas
                .push(ReplicaProcess::new(roles, r.draw(), pace));
        }
        for n in 0..self.scenario.options.agents {
            let slots = r.between(1, self.scenario.options.slots_max) as u32;
            let pace = pace(&mut r);
            let id = format!("a{n}");
            self.agents.push(AgentProcess::new(&id, slots, n % 2, pace));
        }
        for n in 0..self.replicas.len() {
            self.push(r.below(500), Next::Start(Node::Replica(n)));
        }
        for n in 0..self.agents.len() {
            self.push(r.below(2_000), Next::Start(Node::Agent(n)));
        }
    }

    /// Runs to the end, or to the first broken rule.
    pub(crate) fn run(&mut self) -> Result<(), Violation> {
        while !self.is_done {
            let Some(((at, _), next)) = self.to_come.pop_first() else {
                break;
            };
            self.now_ms = at;
            if let Some(life) = next.life() {
                if !self.is_alive(life) {
                    continue;
                }
                let until = self.paused_until(life.node);
                if until > at {
                    self.push(until, next);
                    continue;
                }
            }
            self.happen(next)?;
        }
        self.referee.end()?;
        self.agents_return()?;
        self.compare_all()
    }

    fn happen(&mut self, next: Next) -> Result<(), Violation> {
        match next {
            Next::Act(n) => self.act(n),
            Next::Send(letter) => self.send(letter),
            Next::Arrive(letter) => self.arrive(letter),
            Next::Hear(letter, answer) => self.hear(letter, answer),
            Next::Deliver(life) => match life.node {
                Node::Replica(n) => self.deliver_to_replica(n),
                Node::Agent(n) => self.deliver_to_agent(n),
            },
            Next::Wake(life) => self.wake(life),
            Next::Stand(life, role) => self.stand(life, role),
            Next::Fetched(life, fetch) => self.fetched(life, *fetch),
            Next::Beat(life, beat) => self.beat_arrives(life, &beat),
            Next::Tell(life, input) => self.tell_agent(life, *input),
            Next::Tick(life) => self.tick(life),
            Next::Person(control) => {
                self.person_says(&control);
                Ok(())
            }
            Next::Program(life, at, step) => self.program(life, at, *step),
            Next::Remove(life, dropped) => self.remove_workspace(life, *dropped),
            Next::Start(Node::Replica(n)) => self.start_replica(n),
            Next::Start(Node::Agent(n)) => self.start_agent(n),
            Next::Calm => self.calm(),
            Next::Resume => self.resume(),
            Next::Presence => self.presence_restored(),
            Next::Look => self.look(),
        }
    }

    /// Something comes at a time.
    fn push(&mut self, at_ms: u64, next: Next) {
        self.ordinal += 1;
        self.to_come.insert((at_ms, self.ordinal), next);
    }

    /// Something comes after a while.
    fn push_in(&mut self, ms: u64, next: Next) {
        self.push(self.now_ms + ms, next);
    }

    fn is_alive(&self, life: Life) -> bool {
        let number = match life.node {
            Node::Replica(n) => self
                .replicas
                .get(n)
                .filter(|p| p.up.is_some())
                .map(|p| p.life),
            Node::Agent(n) => self
                .agents
                .get(n)
                .filter(|p| p.up.is_some())
                .map(|p| p.life),
        };
        number == Some(life.number)
    }

    fn paused_until(&self, node: Node) -> u64 {
        match node {
            Node::Replica(n) => self.replicas.get(n).map_or(0, |p| p.paused_until_ms),
            Node::Agent(n) => self.agents.get(n).map_or(0, |p| p.paused_until_ms),
        }
    }

    /// What a process's own clock shows.
    fn instant(&self, node: Node) -> Instant {
        let pace = match node {
            Node::Replica(n) => self.replicas.get(n).map_or(1_000, |p| p.pace),
            Node::Agent(n) => self.agents.get(n).map_or(1_000, |p| p.pace),
        };
        self.base + Duration::from_micros(self.now_ms * pace)
    }

    /// What the server's clock shows.
    fn server_ms(&self) -> u64 {
        (START_MS + self.now_ms).saturating_add_signed(self.server_offset_ms)
    }

    fn is_down(&self) -> bool {
        self.now_ms < self.down_until_ms
    }

    /// Chance about one thing: what happens to it depends on nothing but its name and how
    /// often it was asked about before, so that a run stays much the same when something is
    /// left out of it.
    fn luck(&mut self, about: &str) -> Random {
        let times = self.asked.entry(about.to_owned()).or_default();
        *times += 1;
        Random::stream(self.scenario.options.seed, &format!("{about} {times}"))
    }

    /// How long something is on its way.
    fn latency(&mut self, about: &str) -> u64 {
        let usual = self.scenario.options.latency_ms;
        self.luck(about).around(usual)
    }

    fn say(&mut self, line: impl FnOnce() -> String) {
        if let Some(story) = &mut self.story {
            story.push(format!("{:>9.3} {}", self.now_ms as f64 / 1_000.0, line()));
        }
    }

    /// How long after trouble had ceased the run ended.
    pub(crate) fn settled_ms(&self) -> u64 {
        self.now_ms.saturating_sub(self.scenario.options.trouble_ms)
    }

    /// The log's bytes: the same for the same seed.
    pub(crate) fn log_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for record in self.log.from(1) {
            bytes.extend_from_slice(&record.seq.to_be_bytes());
            bytes.extend_from_slice(&record.time_ms.to_be_bytes());
            bytes.extend_from_slice(record.subject.as_bytes());
            bytes.extend_from_slice(&record.payload);
        }
        bytes
    }

    fn look(&mut self) -> Result<(), Violation> {
        let is_late = self.now_ms >= self.scenario.options.trouble_ms + BOUND_MS;
        let last = self.log.last_seq();
        let mut readers = self.replicas.iter().filter_map(|p| p.up.as_ref());
        let are_readers_there = readers.all(|r| r.host.state().seq == last);
        let mut agents = self.agents.iter().filter_map(|p| p.up.as_ref());
        let are_agents_idle = agents.all(Agent::is_idle);
        let is_settled = self.unacked.is_empty()
            && self.referee.is_settled()
            && are_readers_there
            && are_agents_idle
            && self.agents_return().is_ok();
        if is_settled {
            self.is_done = true;
            self.say(|| "everything is done".to_owned());
            return Ok(());
        }
        if !is_late {
            self.release_workspaces();
            self.push_in(LOOK_EVERY_MS, Next::Look);
            return Ok(());
        }
        self.say(|| "time is over".to_owned());
        // Whichever rule can say more says it.
        self.referee.end()?;
        self.agents_return()?;
        let seqs: Vec<_> = self.replicas.iter().map(ReplicaProcess::seq).collect();
        Err(Violation {
            rule: checkers::SETTLES,
            seq: last,
            what: format!(
                "not done in time: unacknowledged {:?}, replicas at {seqs:?} of {last}, agents idle \
                 {are_agents_idle}",
                self.unacked
            ),
        })
    }

    /// Every reader there is, and two more, have come to the same state.
    fn compare_all(&mut self) -> Result<(), Violation> {
        for (n, process) in self.replicas.iter().enumerate() {
            if let Some(replica) = &process.up {
                self.referee
                    .compare(&format!("replica {n}"), replica.host.state())?;
            }
        }
        self.replay(false)?;
        self.replay(true)
    }

    /// An auditor replays the log as it is now.
    fn replay(&mut self, is_from_snapshot: bool) -> Result<(), Violation> {
        let snapshot = self.shelf.newest().filter(|_| is_from_snapshot);
        let mut state = snapshot.unwrap_or_else(|| State::new(self.cell.clone()));
        if state.seq > self.log.last_seq() {
            return self
                .referee
                .compare("a snapshot from beyond the log", &state);
        }
        self.referee.compare("a snapshot", &state)?;
        for record in self.log.from(state.seq + 1) {
            let decoded = conductor_domain::record::decode(&self.cell, record);
            conductor_domain::fold::apply(&mut state, &decoded);
        }
        let from = if is_from_snapshot {
            "a snapshot"
        } else {
            "the first record"
        };
        self.referee.compare(&format!("replay from {from}"), &state)
    }
}
