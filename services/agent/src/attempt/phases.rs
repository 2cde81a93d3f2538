//! The phases of an attempt, in their order.

use std::path::Path;

use bytes::Bytes;
use conductor_protocol::OutcomeClass;
use conductor_protocol::spec::CommandSpec;

use super::Course;
use super::end::{End, Limits, cut};
use super::program::Ended;
use super::watch::Why;
use crate::inside::Inside;
use crate::kept;
use crate::output::Channel;
use crate::reaper::Status;
use crate::runtime::{self, Runtime};

/// Longest command line that is shown beside the output of a setup program or check.
const SHOWN_BYTES_MAX: usize = 200;

impl Course {
    /// All phases; returns how it ended.
    pub(super) async fn go(&mut self, runtime: &mut dyn Runtime) -> End {
        let mut inside = Inside::of(&self.of.lease, &self.of.assigned);
        if let Err(problem) = self.make_ready() {
            return End::before(Why::Ended, problem);
        }
        self.start_clock();
        if let Err(end) = self.set_up().await {
            return *end;
        }
        let ended = self.run_program(runtime, &mut inside).await;
        let is_known = ended.why != Why::Stopped(super::Stop::Revoked);
        inside.ended(&ended.status, is_known);
        let mut end = self.judged(runtime, &ended);
        if end.is_success() {
            self.check(&mut end).await;
        }
        if end.is_success() {
            self.accept(&mut end).await;
        }
        end
    }

    /// Makes its directories, with what an earlier attempt left in them.
    fn make_ready(&mut self) -> Result<(), String> {
        let (base, assigned) = (&self.of.base, &self.of.assigned);
        if let Some(reason) = runtime::refusal(assigned) {
            return Err(reason);
        }
        let before = assigned.before.as_ref().and_then(|b| b.session.as_ref());
        let session = before.filter(|s| kept::can_go_on(base, assigned, s));
        let made = self.dirs.create().and_then(|()| {
            if session.is_some() {
                kept::take(base, assigned.task, &self.dirs)?;
            }
            kept::mark(&self.dirs, assigned)
        });
        self.session = session.cloned();
        made.map_err(|e| no_room(&self.of.base, &e))
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
        let shown = cut(command.argv.join(" "), SHOWN_BYTES_MAX).replace('\n', " ");
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
        let limits = Limits {
            run: self.of.assigned.timeouts.run.unwrap_or_default(),
            silence: runtime.silence().unwrap_or_default(),
        };
        // What did not end by itself after its last word was ended by us: that says nothing of it.
        let status = match ended.why {
            Why::Lingering => &Status::Exited(0),
            _ => &ended.status,
        };
        End::of(ended, runtime.judge(status), limits)
    }

    /// Puts a line of our own into its output.
    pub(super) fn note(&self, line: &str) {
        let bytes = Bytes::from(format!("{line}\n"));
        self.of.output.write(Channel::Stdout, bytes);
    }
}

pub(super) fn no_room(base: &Path, e: &std::io::Error) -> String {
    format!(
        "cannot make its directories below {}: {e}; free some space there or name another --data-dir",
        base.display()
    )
}
