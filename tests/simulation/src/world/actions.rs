//! What the scenario does to the world.

use conductor_agent::duty::Input;
use conductor_eventlog::Append;
use conductor_protocol::Control;
use conductor_protocol::control::{ConfigChange, NamespaceBudget};
use conductor_protocol::subject::Subject;
use serde_json::Value;

use super::network::{Letter, Tag};
use super::{Life, Next, World};
use crate::checkers::Violation;
use crate::scenario::{Action, Node};

/// How long a draining agent's attempts may go on, in milliseconds.
const DRAIN_MS: u64 = 20_000;
/// Numbers of what people say begin so far behind the actions.
const REMARKS_FROM: usize = 1_000;

impl World {
    /// An action of the scenario.
    pub(super) fn act(&mut self, n: usize) -> Result<(), Violation> {
        let Some((_, action)) = self.scenario.actions.get(n).cloned() else {
            return Ok(());
        };
        if !matches!(action, Action::Submit { .. } | Action::Replay { .. }) {
            self.say(|| format!("    ** {action:?}"));
        }
        // Commands and submissions may come after trouble has ceased; faults may not.
        let is_fault = !matches!(action, Action::Submit { .. } | Action::Say(_));
        if is_fault && self.is_calm {
            return Ok(());
        }
        let now_ms = self.now_ms;
        match action {
            Action::Submit {
                queue,
                items,
                is_msgpack,
            } => self.submit(n, &queue, items, is_msgpack),
            Action::Say(control) => self.say_control(n, &control),
            Action::Crash(node, down_ms) => self.crash(node, down_ms),
            Action::Pause(node, ms) => *self.times(node).0 = now_ms + ms,
            Action::Stall(node, ms) => *self.times(node).1 = now_ms + ms,
            Action::Outage(ms) => {
                self.down_until_ms = self.down_until_ms.max(self.now_ms + ms);
                self.push_in(ms + 1, Next::Presence);
                // Everybody's link comes back when the servers do.
                for n in 0..self.agents.len() {
                    let life = self.life(Node::Agent(n));
                    let told = Box::new(Input::LinkRestored);
                    self.push_in(ms + 1, Next::Tell(life, told));
                }
            }
            Action::Forget => self.log.forget_ids(),
            Action::Unlock(role) => {
                self.locks.remove(&role);
            }
            Action::Jump(by_ms) => self.server_offset_ms += by_ms,
            Action::Spoil(how) => self.shelf.spoil(how),
            Action::Lie(lie, agent, about) => return self.lie(lie, agent, about),
            Action::Twin(agent) => {
                if let Some(twin) = self.agents.get(agent).map(super::AgentProcess::twin) {
                    self.agents.push(twin);
                    let n = self.agents.len() - 1;
                    self.push_in(0, Next::Start(Node::Agent(n)));
                }
            }
            Action::Vanish(agent) => {
                self.end_agent(agent);
                if let Some(process) = self.agents.get_mut(agent) {
                    process.has_vanished = true;
                }
            }
            Action::Drain(agent) => {
                let patience = std::time::Duration::from_millis(DRAIN_MS);
                let life = self.life(Node::Agent(agent));
                let told = Box::new(Input::Drain(patience));
                self.push_in(0, Next::Tell(life, told));
            }
            Action::Replay { is_from_snapshot } => return self.replay(is_from_snapshot),
        }
        Ok(())
    }

    /// Until when a process stands still, and until when its tail brings nothing.
    fn times(&mut self, node: Node) -> (&mut u64, &mut u64) {
        match node {
            Node::Replica(n) => {
                let process = &mut self.replicas[n];
                (&mut process.paused_until_ms, &mut process.stalled_until_ms)
            }
            Node::Agent(n) => {
                let process = &mut self.agents[n];
                (&mut process.paused_until_ms, &mut process.stalled_until_ms)
            }
        }
    }

    fn life(&self, node: Node) -> Life {
        let number = match node {
            Node::Replica(n) => self.replicas.get(n).map_or(0, |p| p.life),
            Node::Agent(n) => self.agents.get(n).map_or(0, |p| p.life),
        };
        Life { node, number }
    }

    fn submit(&mut self, n: usize, queue: &str, mut items: Vec<Value>, is_msgpack: bool) {
        let Ok(queue) = queue.parse() else { return };
        let body = if items.len() == 1 {
            items.pop().unwrap_or_default()
        } else {
            Value::Array(items)
        };
        let payload = if is_msgpack {
            msgpack(&body)
        } else {
            body.to_string().into_bytes()
        };
        self.post(n, Subject::Submit(queue), payload);
    }

    /// Somebody says something about what they read.
    pub(super) fn person_says(&mut self, control: &Control) {
        self.remarks += 1;
        // Behind all that the scenario says, and what the operator says at the end.
        let n = self.scenario.actions.len() + REMARKS_FROM + self.remarks;
        self.say_control(n, control);
    }

    fn say_control(&mut self, n: usize, control: &Control) {
        let payload = serde_json::to_vec(control).unwrap_or_default();
        self.post(n, Subject::Control, payload);
    }

    /// A client posts something, and repeats it until it is told that it is stored.
    fn post(&mut self, n: usize, subject: Subject, payload: Vec<u8>) {
        let subject = subject.render(&self.cell);
        // Not its number, which changes when other actions are left out.
        let id = format!("client-{}-{:x}", self.now_ms, crate::random::hash(&payload));
        let append = Append {
            subject,
            payload: payload.into(),
            id,
            expected_last: None,
        };
        self.unacked.insert(n);
        let letter = Letter {
            from: None,
            tag: Tag::Client(n),
            append,
            tries: 0,
        };
        self.push_in(0, Next::Send(letter));
    }

    fn crash(&mut self, node: Node, down_ms: u64) {
        match node {
            Node::Replica(n) => {
                if let Some(process) = self.replicas.get_mut(n) {
                    process.up = None;
                    process.paused_until_ms = 0;
                }
            }
            Node::Agent(n) => {
                self.end_agent(n);
                if let Some(process) = self.agents.get_mut(n) {
                    process.paused_until_ms = 0;
                }
            }
        }
        self.push_in(down_ms, Next::Start(node));
    }

    /// Trouble ceases: everybody is there, nothing is lost any more, nothing is paused.
    pub(super) fn calm(&mut self) -> Result<(), Violation> {
        self.say(|| "    ** trouble ceases".to_owned());
        self.is_calm = true;
        self.down_until_ms = self.down_until_ms.min(self.now_ms);
        for process in &mut self.replicas {
            process.paused_until_ms = 0;
            process.stalled_until_ms = 0;
        }
        for process in &mut self.agents {
            process.paused_until_ms = 0;
            process.stalled_until_ms = 0;
        }
        for n in 0..self.replicas.len() {
            self.start_replica(n)?;
            self.expect_delivery(Node::Replica(n));
        }
        self.presence_restored()?;
        // Whoever lied did so in the name of all processes of that name.
        self.update_agents()?;
        let liars = std::mem::take(&mut self.liars);
        let names: Vec<_> = liars.iter().map(|n| self.agents[*n].id.clone()).collect();
        for n in 0..self.agents.len() {
            if names.contains(&self.agents[n].id) {
                self.end_agent(n);
            }
        }
        for n in 0..self.agents.len() {
            let Some(id) = self.agents.get(n).map(|p| p.id.clone()) else {
                continue;
            };
            // Of processes that quarrel over a name one is enough.
            let is_there = self.agents.iter().any(|p| p.id == id && p.up.is_some());
            let has_vanished = self.agents.get(n).is_some_and(|p| p.has_vanished);
            if !is_there && !has_vanished {
                self.start_agent(n)?;
            }
            self.expect_delivery(Node::Agent(n));
        }
        self.push_in(super::COMMANDS_LAST_MS, Next::Resume);
        Ok(())
    }

    /// Agents that know the first format alone are started anew, and know more then.
    fn update_agents(&mut self) -> Result<(), Violation> {
        for n in 0..self.agents.len() {
            let is_old = |p: &super::AgentProcess| p.life <= 1 && p.up.is_some();
            let is_old = self.agents.get(n).is_some_and(is_old);
            if is_old && self.scenario.options.are_agents_old {
                self.end_agent(n);
                self.start_agent(n)?;
            }
        }
        Ok(())
    }

    /// The operator releases workspaces whose agents are gone.
    pub(super) fn release_workspaces(&mut self) {
        let state = &self.referee.state;
        let is_lost = |w: &&conductor_domain::state::Workspace| {
            let agent = state.agents.get(&w.agent);
            let is_up = agent.is_some_and(conductor_domain::state::Agent::takes_work);
            w.task.is_none() && !is_up
        };
        let lost = state.workspaces.iter().filter(|(_, w)| is_lost(w));
        let lost: Vec<_> = lost.map(|(key, _)| key.clone()).collect();
        for (namespace, name) in lost {
            self.person_says(&Control::ReleaseWorkspace { namespace, name });
        }
    }

    /// The operator lets everything go on that was paused.
    pub(super) fn resume(&mut self) -> Result<(), Violation> {
        let queues = ["default", "fast", "slow"].map(str::parse);
        let resumed = queues
            .into_iter()
            .flatten()
            .map(|queue| Control::ResumeQueue { queue });
        let agents = self.agents.iter().map(|p| Control::ResumeAgent {
            agent: p.id.clone(),
        });
        // And nobody has to save any more.
        let unlimited =
            ["default", "ns0", "ns1"].map(|n| (n.to_owned(), NamespaceBudget::default()));
        let change = ConfigChange {
            namespace_budget: unlimited.into(),
            ..ConfigChange::default()
        };
        let rest = [Control::PutConfig(change)];
        let controls: Vec<Control> = resumed.chain(agents).chain(rest).collect();
        for (i, control) in controls.iter().enumerate() {
            let n = self.scenario.actions.len() + i;
            self.say_control(n, control);
        }
        self.push_in(super::LOOK_EVERY_MS, Next::Look);
        Ok(())
    }
}

/// JSON as MessagePack. Ids stay text, which is as good.
fn msgpack(value: &Value) -> Vec<u8> {
    conductor_protocol::submission::from_json_value(value.clone()).map_or_else(
        // What cannot be a submission goes as it is, to be refused.
        |_| value.to_string().into_bytes(),
        |submission| submission.encode().unwrap_or_default(),
    )
}
