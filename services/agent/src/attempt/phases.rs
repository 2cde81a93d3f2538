//! The phases of an attempt, in their order.

use bytes::Bytes;
use conductor_protocol::OutcomeClass;
use conductor_protocol::human::ByteSize;
use conductor_protocol::spec::CommandSpec;

use super::Course;
use super::end::{End, Limits};
use super::program::{Ended, stopped};
use super::watch::Why;
use crate::dirs::lease_name;
use crate::files::cut_end;
use crate::inside::Inside;
use crate::models::time_limit;
use crate::output::Channel;
use crate::reaper::Status;
use crate::runtime::{self, Runtime};
use crate::workspace::{Ground, Workspace};

/// Longest command line that is shown beside the output of a setup program or check.
const SHOWN_BYTES_MAX: usize = 200;

impl Course {
    /// All phases; returns how it ended.
    pub(super) async fn go(&mut self, runtime: &mut dyn Runtime) -> End {
        let mut inside = Inside::of(&self.of.lease, &self.of.assigned);
        let workspace = match self.make_ready().await {
            Ok(workspace) => workspace,
            Err(end) => return *end,
        };
        self.start_clock();
        if let Err(mut end) = self.set_up().await {
            self.close_reach().await;
            self.keep(&workspace, &mut end).await;
            return *end;
        }
        let ended = self.run_program(runtime, &mut inside).await;
        let is_known = ended.why != Why::Stopped(super::Stop::Revoked);
        inside.ended(&ended.status, is_known);
        let mut end = self.judged(runtime, &ended);
        self.settle(&mut end).await;
        if end.is_success() {
            self.check(&mut end).await;
        }
        if end.is_success() {
            self.accept(&mut end).await;
        }
        let changed = self.keep(&workspace, &mut end).await;
        self.hand_over(&workspace, changed, &mut end).await;
        end
    }

    /// Makes its directories, and what it works on.
    async fn make_ready(&mut self) -> Result<Workspace, Box<End>> {
        let attempt = &self.of;
        let ground = Ground {
            lease: attempt.lease,
            assigned: &attempt.assigned,
            base: &attempt.base,
            kept: &attempt.kept,
            path: &attempt.host.path,
        };
        if let Some(problem) = runtime::refusal(&attempt.assigned) {
            return Err(Box::new(End::before(Why::Ended, problem)));
        }
        let terms = attempt.assigned.terms.as_deref();
        let schema = terms.and_then(|t| t.result_schema.as_deref());
        if let Some(Err(problem)) = schema.map(crate::schema::check_schema) {
            return Err(Box::new(End::before(Why::Ended, problem)));
        }
        let name = lease_name(&attempt.lease);
        let boxed = match attempt.boxes.choose(terms, name).await {
            Ok(boxing) => self.plan_reach(boxing).await,
            Err(problem) => Err(problem),
        };
        let plan = match boxed {
            Ok((boxing, plan)) => {
                self.boxing = Some(boxing);
                plan
            }
            Err(problem) => return Err(Box::new(End::before(Why::Ended, problem))),
        };
        self.session = ground.session().map(str::to_owned);
        let mut stop = attempt.stop.clone();
        let (why, problem) = tokio::select! {
            made = Workspace::make(&ground, &mut self.dirs) => {
                let open = || plan.open(attempt, &self.dirs, &self.keeper);
                let opened = made.and_then(|made| Ok((open()?, made)));
                match opened {
                    Ok((reach, workspace)) => {
                        self.reach = reach;
                        // It begins anew where what was left turned out not to be good.
                        self.session = workspace.session().map(str::to_owned);
                        return Ok(workspace);
                    }
                    Err(problem) => (Why::Ended, problem),
                }
            }
            reason = stopped(&mut stop) => (Why::Stopped(reason), String::new()),
        };
        Err(Box::new(End::before(why, problem)))
    }

    /// Runs the setup programs; one that fails ends the attempt.
    async fn set_up(&mut self) -> Result<(), Box<End>> {
        let commands = self.commands(|terms| &terms.setup);
        for (i, command) in commands.iter().enumerate() {
            let mut end = self.run_beside("setup", (i, commands.len()), command).await;
            let is_own = end.why == Why::Ended;
            if let Some((class, _)) = end.failure.as_mut().filter(|_| is_own) {
                *class = OutcomeClass::NotStarted;
            }
            if !end.is_success() {
                // What it printed is no result of the task.
                end.result = None;
                return Err(Box::new(end));
            }
        }
        Ok(())
    }

    /// Runs the checks; one that fails makes the attempt fail, whatever its program said.
    async fn check(&mut self, end: &mut End) {
        let commands = self.commands(|terms| &terms.checks);
        for (i, command) in commands.iter().enumerate() {
            let check = self.run_beside("check", (i, commands.len()), command).await;
            let is_own = check.why == Why::Ended;
            if let Some((class, message)) = check.failure {
                let class = if is_own {
                    OutcomeClass::CheckFailed
                } else {
                    class
                };
                end.why = check.why;
                end.fail(class, message);
                return;
            }
        }
    }

    /// Runs a program that stands beside the attempt's own.
    async fn run_beside(
        &mut self,
        what: &str,
        (i, of): (usize, usize),
        command: &CommandSpec,
    ) -> End {
        let name = format!("{what} {}/{of}", i + 1);
        let shown = cut_end(command.argv.join(" "), SHOWN_BYTES_MAX).replace('\n', " ");
        self.note(&format!("[{name}: {shown}]"));
        let mut runtime = runtime::command(command.clone());
        let ended = self.run_program(&mut runtime, &mut Inside::default()).await;
        let mut end = self.judged(&mut runtime, &ended);
        if let Some((_, message)) = &mut end.failure {
            *message = format!("{name} ({shown}) failed: {message}");
        }
        end
    }

    fn commands(
        &self,
        of: impl Fn(&conductor_protocol::terms::Terms) -> &Vec<CommandSpec>,
    ) -> Vec<CommandSpec> {
        let terms = self.of.assigned.terms.as_ref();
        terms.map(|terms| of(terms).clone()).unwrap_or_default()
    }

    fn judged(&self, runtime: &mut dyn Runtime, ended: &Ended) -> End {
        let disk = self.boxing.as_ref().and_then(|b| b.limits.disk);
        let limits = Limits {
            run: self.of.assigned.timeouts.run.unwrap_or_default(),
            silence: runtime.silence().unwrap_or_default(),
            disk: ByteSize(disk.unwrap_or_default()),
        };
        // What did not end by itself after its last word was ended by us: that says nothing of it.
        let status = match ended.why {
            Why::Lingering => &Status::Exited(0),
            _ => &ended.status,
        };
        let mut end = End::of(ended, runtime.judge(status), limits);
        if let Some(limit) = time_limit(&self.of.assigned).filter(|_| end.why == Why::RunTimeout) {
            end.failure = Some((limit.class, limit.message));
        }
        end
    }

    /// Puts a line of our own into its output.
    pub(super) fn note(&self, line: &str) {
        let bytes = Bytes::from(format!("{line}\n"));
        self.of.output.write(Channel::Stdout, bytes);
    }
}
