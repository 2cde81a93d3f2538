//! Agents: the real duty and the real group commit, running programs that are made up.

use std::collections::BTreeMap;

use conductor_agent::duty::{Duty, Effect, Input, words_of};
use conductor_eventlog::{Fate, GroupCommit};
use conductor_protocol::event::Event;
use conductor_protocol::frame::Elements;
use conductor_protocol::ids::{AgentId, Position};
use conductor_protocol::subject::{Role, Subject};
use conductor_replica::Bid;

use super::network::{Answer, Letter, Tag};
use super::programs::{Program, Step};
use super::{Life, Next, World};
use crate::checkers::{self, Violation};
use crate::scenario::Node;

/// How often an agent looks at its leases.
const TICK_MS: u64 = 1_000;

/// An agent's process.
pub(super) struct AgentProcess {
    pub(super) id: AgentId,
    pub(super) slots: u32,
    pub(super) zone: u64,
    /// How fast its clock runs, in thousandths.
    pub(super) pace: u64,
    pub(super) life: u32,
    pub(super) paused_until_ms: u64,
    pub(super) stalled_until_ms: u64,
    /// Whether it never comes back.
    pub(super) has_vanished: bool,
    pub(super) up: Option<Agent>,
}

/// What such a process has while it is up.
pub(super) struct Agent {
    pub(super) duty: Duty,
    pub(super) commit: Option<(u64, GroupCommit)>,
    pub(super) programs: BTreeMap<Position, Program>,
    pub(super) joins: u32,
    pub(super) bid: Option<Bid>,
    pub(super) next: u64,
    pub(super) is_expecting: bool,
    pub(super) is_leaving: bool,
}

impl Agent {
    /// Whether it runs nothing and has nothing to say.
    pub(super) fn is_idle(&self) -> bool {
        let has_said_all = self.commit.as_ref().is_some_and(|(_, c)| c.is_idle());
        self.duty.running().next().is_none() && has_said_all
    }
}

/// What a program does next.
impl AgentProcess {
    pub(super) fn new(id: &str, slots: u32, zone: u64, pace: u64) -> Self {
        Self {
            id: AgentId::from_log(id),
            slots,
            zone,
            pace,
            life: 0,
            paused_until_ms: 0,
            stalled_until_ms: 0,
            has_vanished: false,
            up: None,
        }
    }

    /// Another process of the same name.
    pub(super) fn twin(&self) -> Self {
        Self::new(self.id.as_str(), self.slots, self.zone, self.pace)
    }

    /// Whose delivery is to be set out, unless one is on its way.
    pub(super) fn expects(&mut self, n: usize) -> Option<Life> {
        let up = self.up.as_mut().filter(|up| !up.is_expecting)?;
        up.is_expecting = true;
        let node = Node::Agent(n);
        Some(Life {
            node,
            number: self.life,
        })
    }
}

impl World {
    pub(super) fn agent(&mut self, n: usize) -> Option<&mut Agent> {
        self.agents.get_mut(n)?.up.as_mut()
    }

    fn agent_life(&self, n: usize) -> Life {
        Life {
            node: Node::Agent(n),
            number: self.agents.get(n).map_or(0, |p| p.life),
        }
    }

    pub(super) fn start_agent(&mut self, n: usize) -> Result<(), Violation> {
        let now = self.instant(Node::Agent(n));
        let next = self.log.last_seq() + 1;
        let can_start = |p: &&mut AgentProcess| p.up.is_none() && !p.has_vanished;
        let Some(process) = self.agents.get_mut(n).filter(can_start) else {
            return Ok(());
        };
        process.life += 1;
        process.up = Some(Agent {
            duty: Duty::new(process.id.clone(), process.slots, now),
            commit: None,
            programs: BTreeMap::new(),
            joins: 0,
            bid: None,
            next,
            is_expecting: false,
            is_leaving: false,
        });
        let id = process.id.clone();
        self.say(|| format!("{id} starts (process {n})"));
        let life = self.agent_life(n);
        self.push_in(TICK_MS, Next::Tick(life));
        self.tell_agent(life, Input::Rejoin)
    }

    /// The process of an agent ends, and everything it runs with it.
    pub(super) fn end_agent(&mut self, n: usize) {
        if let Some(process) = self.agents.get_mut(n) {
            process.up = None;
        }
    }

    /// Every agent that is there takes work in the end, whatever was thought of it before.
    pub(super) fn agents_return(&self) -> Result<(), Violation> {
        let up = |p: &&AgentProcess| p.up.is_some();
        for process in self.agents.iter().filter(up) {
            let known = self.referee.state.agents.get(&process.id);
            let is_it = |p: &AgentProcess| {
                let incarnation =
                    p.up.as_ref()
                        .and_then(|a| a.commit.as_ref())
                        .map(|(i, _)| *i);
                p.id == process.id && known.map(|k| k.incarnation) == incarnation
            };
            let takes_work = known.is_some_and(conductor_domain::state::Agent::takes_work);
            if !takes_work || !self.agents.iter().any(is_it) {
                return Err(Violation {
                    rule: checkers::AGENTS_RETURN,
                    seq: self.referee.state.seq,
                    what: format!("{} is there, but is known as {known:?}", process.id),
                });
            }
        }
        Ok(())
    }

    pub(super) fn tick(&mut self, life: Life) -> Result<(), Violation> {
        self.push_in(TICK_MS, Next::Tick(life));
        self.tell_agent(life, Input::Tick)
    }

    pub(super) fn deliver_to_agent(&mut self, n: usize) -> Result<(), Violation> {
        let life = self.agent_life(n);
        let Some(process) = self.agents.get_mut(n) else {
            return Ok(());
        };
        let until = process.stalled_until_ms.max(self.down_until_ms);
        let ours = [
            Subject::Scheduler(process.id.clone()),
            Subject::Leader(Role::Scheduler),
        ]
        .map(|s| s.render(&self.cell));
        let Some(agent) = process.up.as_mut() else {
            return Ok(());
        };
        agent.is_expecting = false;
        if self.now_ms < until {
            self.expect_delivery(Node::Agent(n));
            return Ok(());
        }
        let mut words = Vec::new();
        for record in self.log.from(agent.next) {
            if ours.contains(&record.subject) {
                let (seq, payload) = (record.seq, &record.payload);
                words.extend(words_of(&self.cell, seq, &record.subject, payload));
            }
        }
        agent.next = self.log.last_seq() + 1;
        // Before it has joined it hears nothing.
        if words.is_empty() || agent.commit.is_none() {
            return Ok(());
        }
        self.tell_agent(life, Input::Heard(words))
    }

    /// Tells the duty something, and does what it says.
    pub(super) fn tell_agent(&mut self, life: Life, input: Input) -> Result<(), Violation> {
        let Node::Agent(n) = life.node else {
            return Ok(());
        };
        let now = self.instant(life.node);
        let Some(agent) = self.agent(n) else {
            return Ok(());
        };
        let effects = agent.duty.step(input, now);
        for effect in effects {
            self.obey(n, life, effect)?;
        }
        Ok(())
    }

    fn obey(&mut self, n: usize, life: Life, effect: Effect) -> Result<(), Violation> {
        match effect {
            Effect::Join => self.join(n, life),
            Effect::Report(events) => self.report(n, &events),
            Effect::Run(lease, assigned) => return self.run_program(n, life, lease, &assigned),
            Effect::Stop(at, stop) => {
                if let Some(program) = self.agent(n).and_then(|a| a.programs.get_mut(&at)) {
                    program.stop = stop;
                    let dying = self.luck(&format!("end {at}")).around(500);
                    self.push_in(dying, Next::Program(life, at, Box::new(Step::Killed)));
                }
            }
            Effect::Tell(at, word) => return self.program_hears(n, life, at, &word),
            Effect::Remove(dropped) => {
                let takes = self
                    .luck(&format!("remove {}", dropped.control))
                    .around(1_000);
                self.push_in(takes, Next::Remove(life, Box::new(dropped)));
            }
            Effect::Beat(beat) => {
                let lost = if self.is_calm {
                    0
                } else {
                    self.scenario.options.lost_beats
                };
                let is_lost = self.luck(&format!("beat of {n}")).chance(lost);
                let arrives = !self.is_down() && !is_lost;
                for r in 0..self.replicas.len() {
                    let way = self.latency(&format!("beat of {n} to {r}"));
                    let to = Life {
                        node: Node::Replica(r),
                        number: self.replicas.get(r).map_or(0, |p| p.life),
                    };
                    if arrives {
                        self.push_in(way, Next::Beat(to, Box::new(beat.clone())));
                    }
                }
                let way = self.latency(&format!("beat of {n}"));
                let told = Box::new(Input::BeatDone(arrives));
                self.push_in(way, Next::Tell(life, told));
            }
            Effect::Leave => {
                if let Some(agent) = self.agent(n) {
                    agent.is_leaving = true;
                }
                self.leave_if_said(n);
            }
            Effect::Superseded => {
                self.say(|| format!("process {n} ends: another has its name"));
                self.end_agent(n);
            }
        }
        Ok(())
    }

    fn report(&mut self, n: usize, events: &[Event]) {
        let Some(process) = self.agents.get_mut(n) else {
            return;
        };
        let subject = Subject::Agent(process.id.clone()).render(&self.cell);
        if let Some((_, commit)) = process.up.as_mut().and_then(|a| a.commit.as_mut()) {
            for event in events {
                commit.push(&subject, Elements::from(event));
            }
        }
        self.send_reports(n);
    }

    fn send_reports(&mut self, n: usize) {
        let from = Some(self.agent_life(n));
        let Some((incarnation, commit)) = self.agent(n).and_then(|a| a.commit.as_mut()) else {
            return;
        };
        let tag = Tag::Report(*incarnation);
        if let Some(append) = commit.next_append() {
            let letter = Letter {
                from,
                tag,
                append,
                tries: 0,
            };
            self.push_in(0, Next::Send(letter));
        }
    }

    pub(super) fn report_hears(
        &mut self,
        life: Life,
        incarnation: u64,
        subject: &str,
        answer: Answer,
    ) {
        let Node::Agent(n) = life.node else {
            return;
        };
        let Some((current, commit)) = self.agent(n).and_then(|a| a.commit.as_mut()) else {
            return;
        };
        if *current != incarnation {
            return;
        }
        if let Fate::Repeat(append, pause) = commit.answered(subject, answer) {
            let letter = Letter {
                from: Some(life),
                tag: Tag::Report(incarnation),
                append,
                tries: 0,
            };
            self.push_in(pause.as_millis() as u64, Next::Send(letter));
        }
        self.send_reports(n);
        self.leave_if_said(n);
    }

    /// An agent that leaves does so when all it said is in the log; it comes back later.
    fn leave_if_said(&mut self, n: usize) {
        let has_said_all = |a: &Agent| a.commit.as_ref().is_none_or(|(_, c)| c.is_idle());
        if !self
            .agent(n)
            .is_some_and(|a| a.is_leaving && has_said_all(a))
        {
            return;
        }
        self.say(|| format!("process {n} has left"));
        self.end_agent(n);
        let back = self.luck(&format!("back {n}")).around(5_000);
        self.push_in(back, Next::Start(Node::Agent(n)));
    }
}
