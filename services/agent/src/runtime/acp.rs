//! Any agent that speaks the Agent Client Protocol, version 1, over its standard input and output:
//! JSON-RPC, a message a line, in both directions (agent-facts 2.4).

mod client;
mod talk;
mod update;

use std::time::Duration;

use conductor_protocol::spec::AcpSpec;

use super::stream::JsonLines;
use super::{Job, Runtime, Signal, Step, Verdict, asks_for_tools, base_env, cwd};
use crate::input::Input;
use crate::output::Channel;
use crate::people::Reply;
use crate::process::Launch;
use crate::reaper::Status;
use crate::usage::Meter;
use client::{Client, Plan};
use talk::Consent;

pub(super) struct AcpRuntime {
    spec: AcpSpec,
    silence: Duration,
    lines: JsonLines,
    client: Client,
}

impl AcpRuntime {
    pub(super) fn new(spec: AcpSpec, silence: Duration) -> Self {
        Self {
            spec,
            silence,
            lines: JsonLines::default(),
            client: Client::default(),
        }
    }
}

impl Runtime for AcpRuntime {
    fn prepare(&mut self, job: &Job<'_>) -> Result<Launch, String> {
        let (program, args) = self.spec.argv.split_first().ok_or("it names no program")?;
        let mut env = base_env(job);
        // Whoever names an agent knows which service it asks.
        env.extend(job.host.claude_env.clone());
        env.extend(job.host.codex_env.clone());
        env.extend(self.spec.env.clone());
        let begin = cwd(job, self.spec.cwd.as_ref());
        let named = self.spec.resume.clone();
        let session = named.as_deref().or(job.session);
        let plan = Plan {
            prompt: self.spec.prompt.clone(),
            cwd: begin.display().to_string(),
            allows_tools: self.spec.allow_tools,
            consent: consent(&self.spec, job),
            must_resume: named.is_some(),
            meter: Meter::new(job.assigned.before.as_deref(), session),
            session: session.map(str::to_owned),
            tools: job.tools.cloned(),
        };
        let (client, first) = Client::begin(plan);
        self.client = client;
        Ok(Launch {
            program: program.clone(),
            args: args.to_vec(),
            env,
            stdin: Input::Open(first),
            cwd: begin,
            files: std::collections::BTreeMap::new(),
        })
    }

    fn read(&mut self, channel: Channel, bytes: &[u8]) -> Vec<Signal> {
        self.lines.read(channel, bytes, &mut self.client)
    }

    fn end(&mut self, channel: Channel) -> Vec<Signal> {
        self.lines.end(channel, &mut self.client)
    }

    fn answered(&mut self, name: &str, reply: &Reply) -> Vec<Signal> {
        self.client.decided(name, reply)
    }

    fn told(&mut self, text: &str) -> Option<Vec<Signal>> {
        Some(self.client.told(text))
    }

    fn interrupt(&mut self) -> Option<Vec<u8>> {
        self.client.cancel()
    }

    fn ladder(&self) -> &'static [Step] {
        const LADDER: &[Step] = &[
            Step::Say(Duration::from_secs(5)),
            Step::Terminate(Duration::from_secs(5)),
        ];
        LADDER
    }

    fn silence(&self) -> Option<Duration> {
        Some(self.silence)
    }

    fn judge(&mut self, status: &Status) -> Verdict {
        let last_words = self.lines.last_words();
        self.client.judge(status, last_words)
    }
}

/// Who decides about its tools. Where people are to be asked, that counts more than that the task
/// would allow them.
fn consent(spec: &AcpSpec, job: &Job<'_>) -> Consent {
    match (asks_for_tools(job.assigned), spec.allow_tools) {
        (true, _) => Consent::Asked,
        (false, true) => Consent::Allowed,
        (false, false) => Consent::Denied,
    }
}

#[cfg(test)]
mod tests;
