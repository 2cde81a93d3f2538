//! Any program.

use std::time::Duration;

use conductor_protocol::OutcomeClass;
use conductor_protocol::spec::CommandSpec;

use super::{Job, RESULT_KEPT_MAX, Runtime, Signal, Step, Verdict, base_env, cwd};
use crate::input::Input;
use crate::output::{Channel, Tail};
use crate::process::Launch;
use crate::reaper::Status;

/// How much of what it said last goes into the message of a failure.
const LAST_WORDS: usize = 512;

pub(super) struct CommandRuntime {
    spec: CommandSpec,
    result: Tail,
    last_words: Tail,
}

impl CommandRuntime {
    pub(super) fn new(spec: CommandSpec) -> Self {
        Self {
            spec,
            result: Tail::default(),
            last_words: Tail::default(),
        }
    }
}

impl Runtime for CommandRuntime {
    fn prepare(&mut self, job: &Job<'_>) -> Result<Launch, String> {
        let (program, args) = self.spec.argv.split_first().ok_or("it names no program")?;
        let mut env = base_env(job);
        env.extend(self.spec.env.clone());
        Ok(Launch {
            program: program.clone(),
            args: args.to_vec(),
            env,
            stdin: Input::Closed(self.spec.stdin.clone().unwrap_or_default().into_bytes()),
            cwd: cwd(job, self.spec.cwd.as_ref()),
            files: std::collections::BTreeMap::new(),
        })
    }

    fn read(&mut self, channel: Channel, bytes: &[u8]) -> Vec<Signal> {
        match channel {
            Channel::Stdout => self.result.push(bytes, RESULT_KEPT_MAX),
            _ => self.last_words.push(bytes, LAST_WORDS),
        }
        vec![Signal::Text(channel, bytes.to_vec())]
    }

    fn end(&mut self, _: Channel) -> Vec<Signal> {
        Vec::new()
    }

    fn ladder(&self) -> &'static [Step] {
        const LADDER: &[Step] = &[Step::Terminate(Duration::from_secs(5))];
        LADDER
    }

    fn silence(&self) -> Option<Duration> {
        None
    }

    fn judge(&mut self, status: &Status) -> Verdict {
        let last_words = std::mem::take(&mut self.last_words).text();
        let with_words = |what: String| match &last_words {
            Some(words) => format!("{what}: {words}"),
            None => what,
        };
        let failure = match status {
            Status::Exited(0) => None,
            Status::Exited(code) => Some((
                OutcomeClass::Failed,
                with_words(format!("exit code {code}")),
            )),
            Status::Signalled(signal) => Some((
                OutcomeClass::Crashed,
                with_words(format!("ended by signal {signal}")),
            )),
            Status::NotStarted(problem) => Some((OutcomeClass::NotStarted, problem.clone())),
        };
        Verdict {
            failure,
            result: std::mem::take(&mut self.result).text(),
            usage: None,
        }
    }
}
