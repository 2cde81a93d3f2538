//! Programs that agents run: made up, with times and ends that chance decides.

use std::collections::BTreeSet;

use conductor_agent::attempt::Stop;
use conductor_agent::duty::Input;
use conductor_protocol::event::{
    AttemptAssigned, AttemptStarted, AttemptThrottled, AttemptUsage, Event, Usage,
};
use conductor_protocol::ids::{Lease, Namespace, Position};
use conductor_protocol::{OutcomeClass, RunSpec};

use super::reports::{failed, succeeded};
use super::talk::Talk;
use super::workspaces::entered;
use super::{Life, Next, World};
use crate::checkers::{self, Violation};
use crate::scenario::Node;

/// Longest run of a program.
const RUN_MS_MAX: u64 = 60_000;

/// A program that runs.
pub(super) struct Program {
    pub(super) lease: Lease,
    pub(super) stop: Stop,
    pub(super) talk: Talk,
    /// What became of what it submitted, as it was told.
    pub(super) news: BTreeSet<(u32, bool)>,
    /// The named workspace it works in.
    pub(super) workspace: Option<(Namespace, String)>,
    /// Its model's session, where it has one.
    session: Option<String>,
    /// What its task has used so far.
    used: Usage,
}

#[derive(Debug)]
pub(super) enum Step {
    /// It began.
    Started,
    /// It used something.
    Used,
    /// It submits a task, the how-manieth.
    Submits(u32),
    /// It asks people something.
    Asks,
    /// It asks again what nobody reacted to.
    Reminds(u32),
    /// It does not want to know any more what it asked.
    Withdraws(u32),
    /// It ends by itself, so.
    Ends(Option<OutcomeClass>),
    /// It is gone because it was stopped.
    Killed,
}

impl World {
    pub(super) fn run_program(
        &mut self,
        n: usize,
        life: Life,
        lease: Lease,
        assigned: &AttemptAssigned,
    ) -> Result<(), Violation> {
        let o = &self.scenario.options;
        let (run_ms, failing, hanging) = (o.run_ms, o.failing, o.hanging);
        let run_timeout = assigned.timeouts.run.map(|t| t.0);
        let mut luck = self.luck(&format!("{} {}", lease.task, lease.attempt));
        let begins = luck.around(50);
        let takes = luck.around(run_ms).min(RUN_MS_MAX);
        let fails = luck.chance(failing);
        let class = [
            OutcomeClass::Failed,
            OutcomeClass::Crashed,
            OutcomeClass::RateLimited,
        ];
        let class = luck.pick(&class).copied().filter(|_| fails);
        let hangs = luck.chance(hanging) && run_timeout.is_some();
        let is_watched = luck.chance(700);
        let spends = luck.chance(200);
        let Some(agent) = self.agent(n) else {
            return Ok(());
        };
        let attempt = |l: &Lease| (l.task, l.attempt);
        if agent
            .programs
            .values()
            .any(|p| attempt(&p.lease) == attempt(&lease))
        {
            return Err(Violation {
                rule: checkers::RUN_ONCE,
                seq: lease.assigned.seq,
                what: format!("process {n} runs {lease:?} again"),
            });
        }
        let before = assigned.before.as_deref();
        let is_model = matches!(*assigned.run, RunSpec::Claude(_));
        let session = before.and_then(|b| b.session.clone());
        let session = session.unwrap_or_else(|| format!("session of {}", lease.assigned));
        let session = is_model.then_some(session);
        let used = before.and_then(|b| b.usage.clone()).unwrap_or_default();
        let program = Program {
            lease,
            stop: Stop::No,
            talk: Talk::default(),
            news: BTreeSet::new(),
            workspace: entered(assigned),
            session,
            used,
        };
        agent.programs.insert(lease.assigned, program);
        self.say(|| format!("process {n} runs {} of {}", lease.attempt, lease.task));
        let at = lease.assigned;
        let then = |world: &mut Self, ms: u64, step: Step| {
            world.push_in(ms, Next::Program(life, at, Box::new(step)));
        };
        then(self, begins, Step::Started);
        if spends {
            then(self, begins + 1, Step::Used);
        }
        let timeout = run_timeout.filter(|t| hangs || *t < takes);
        match timeout {
            // The agent ends it in time, or else the orchestrator has to.
            Some(limit) if is_watched => {
                then(
                    self,
                    begins + limit,
                    Step::Ends(Some(OutcomeClass::Timeout)),
                );
            }
            Some(_) if hangs => {}
            _ => then(self, begins + takes, Step::Ends(class)),
        }
        self.plan_questions(life, lease, begins, takes);
        self.plan_subtasks(life, lease, assigned, begins, takes);
        Ok(())
    }

    /// Some services say until when they have no more.
    fn throttled(&mut self, lease: Lease, class: OutcomeClass) -> Option<Event> {
        let mut luck = self.luck(&format!("throttled {}", lease.assigned));
        if class != OutcomeClass::RateLimited || !luck.chance(600) {
            return None;
        }
        let until_ms = luck
            .chance(900)
            .then(|| self.server_ms() + luck.around(20_000).min(RUN_MS_MAX));
        Some(AttemptThrottled { lease, until_ms }.into())
    }

    pub(super) fn program(
        &mut self,
        life: Life,
        at: Position,
        step: Step,
    ) -> Result<(), Violation> {
        let Node::Agent(n) = life.node else {
            return Ok(());
        };
        let Some(program) = self.agent(n).and_then(|a| a.programs.get_mut(&at)) else {
            return Ok(());
        };
        let (lease, reason) = (program.lease, program.stop);
        let step = match step {
            Step::Submits(_) if reason != Stop::No => return Ok(()),
            Step::Submits(number) => return self.submits(life, lease, number),
            Step::Asks => return self.asks(life, at),
            Step::Reminds(number) => return self.ask(life, at, number),
            Step::Withdraws(number) => return self.withdraws(life, at, number),
            // Whoever waits for people does not run: it ends after that.
            end @ Step::Ends(_) if reason == Stop::No => match program.talk.puts_off(end) {
                Some(end) => end,
                None => return Ok(()),
            },
            step => step,
        };
        let (fact, is_over) = match step {
            Step::Submits(_) | Step::Asks | Step::Reminds(_) | Step::Withdraws(_) => (None, false),
            Step::Started => {
                let session = program.session.clone();
                (Some(AttemptStarted::new(lease, session).into()), false)
            }
            Step::Used => {
                program.used.input_tokens += 500;
                program.used.turns += 1;
                let usage = program.used.clone();
                (Some(AttemptUsage { lease, usage }.into()), false)
            }
            // Stopped already: its end comes from that.
            Step::Ends(_) if reason != Stop::No => (None, false),
            Step::Ends(Some(class)) => {
                self.says_what_changed(life, at)?;
                if let Some(throttled) = self.throttled(lease, class) {
                    self.tell_agent(life, Input::Fact(throttled))?;
                }
                (Some(failed(lease, class)), true)
            }
            Step::Ends(None) => {
                self.says_what_changed(life, at)?;
                (Some(succeeded(lease)), true)
            }
            Step::Killed => match reason {
                Stop::No | Stop::Revoked => (None, true),
                Stop::LeaseExpired => (Some(failed(lease, OutcomeClass::LeaseExpired)), true),
                Stop::Shutdown => (Some(failed(lease, OutcomeClass::AgentLost)), true),
            },
        };
        if let Some(fact) = fact {
            self.tell_agent(life, Input::Fact(fact))?;
        }
        if is_over && self.is_alive(life) {
            if let Some(agent) = self.agent(n) {
                agent.programs.remove(&at);
            }
            self.tell_agent(life, Input::Ended(at))?;
        }
        Ok(())
    }
}
