//! The Claude Code CLI, headless, with the safe flags of agent-facts 2.1.

mod control;
mod decode;

use std::collections::BTreeMap;
use std::time::Duration;

use conductor_protocol::ids::Lease;
use conductor_protocol::spec::{ClaudeSpec, PermissionMode};
use serde_json::json;
use sha2::{Digest, Sha256};

use super::stream::JsonLines;
use super::{Job, Runtime, Signal, Step, Verdict, asks_for_tools, base_env, cwd};
use crate::input::Input;
use crate::output::Channel;
use crate::people::Reply;
use crate::process::Launch;
use crate::reaper::Status;
use crate::tools::{self, Endpoint};
use crate::usage::Meter;
use decode::Decoder;

/// Tools that reach other agents, outlive the attempt, or leave the workspace.
const NEVER: [&str; 10] = [
    "SendMessage",
    "ListAgents",
    "CronCreate",
    "CronDelete",
    "CronList",
    "ScheduleWakeup",
    "EnterWorktree",
    "ExitWorktree",
    "Workflow",
    "RemoteTrigger",
];

pub(super) struct ClaudeRuntime {
    spec: ClaudeSpec,
    silence: Duration,
    lines: JsonLines,
    decoder: Decoder,
}

impl ClaudeRuntime {
    pub(super) fn new(spec: ClaudeSpec, silence: Duration) -> Self {
        let decoder = Decoder::new(spec.allow_denials);
        Self {
            spec,
            silence,
            lines: JsonLines::default(),
            decoder,
        }
    }

    /// Its arguments; `asks` says whether people are asked before tools are used. Tools of the agent's
    /// own are not asked about: what they may is decided there.
    fn args(
        &self,
        session: &str,
        resumes: bool,
        asks: bool,
        tools: Option<&Endpoint>,
    ) -> Vec<String> {
        let spec = &self.spec;
        let mut args: Vec<String> = [
            "-p",
            "--input-format",
            "stream-json",
            "--output-format",
            "stream-json",
            "--verbose",
            "--include-partial-messages",
            // So that it is known which words the model has read.
            "--replay-user-messages",
            // Hooks and servers of the repository would run otherwise (finding 4).
            "--setting-sources",
            "user",
            "--strict-mcp-config",
            "--settings",
            r#"{"crossSessionInbound":"refuse"}"#,
        ]
        .map(str::to_owned)
        .to_vec();
        let mut add = |flag: &str, value: Option<String>| {
            if let Some(value) = value {
                args.extend([flag.to_owned(), value]);
            }
        };
        let flag = if resumes { "--resume" } else { "--session-id" };
        add(flag, Some(session.to_owned()));
        add("--model", spec.model.clone());
        add("--max-turns", spec.max_turns.map(|n| n.to_string()));
        add(
            "--max-budget-usd",
            spec.max_budget_usd.map(|usd| usd.to_string()),
        );
        add("--append-system-prompt", spec.append_system_prompt.clone());
        add("--json-schema", spec.json_schema.clone());
        add("--mcp-config", tools.map(mcp_config));
        let usual = if asks {
            add("--permission-prompt-tool", Some("stdio".to_owned()));
            PermissionMode::Default
        } else {
            PermissionMode::DontAsk
        };
        let mode = spec.permission_mode.unwrap_or(usual);
        add("--permission-mode", Some(mode.as_str().to_owned()));
        let own = tools.map(|_| format!("mcp__{}__*", tools::NAME));
        if own.is_some() || !spec.allowed_tools.is_empty() {
            args.push("--allowedTools".to_owned());
            args.extend(own);
            args.extend(spec.allowed_tools.clone());
        }
        args.push("--disallowedTools".to_owned());
        args.extend(NEVER.map(str::to_owned));
        args.extend(spec.disallowed_tools.clone());
        args
    }
}

/// Where the CLI finds the agent's tools. The token stays in its environment, since others can see
/// its arguments.
fn mcp_config(tools: &Endpoint) -> String {
    let token = format!("Bearer ${{{}}}", tools::TOKEN_VARIABLE);
    let server = json!({
        "type": "http", "url": tools.url, "headers": {"Authorization": token},
    });
    json!({"mcpServers": {tools::NAME: server}}).to_string()
}

/// The session of an attempt: known before it starts, and the same whoever derives it.
pub fn session_id(lease: &Lease) -> String {
    let mut hash = Sha256::new();
    hash.update(lease.task.to_bytes());
    hash.update(lease.attempt.to_be_bytes());
    hash.update(lease.assigned.seq.to_be_bytes());
    hash.update(lease.assigned.index.to_be_bytes());
    let mut bytes = [0_u8; 16];
    bytes.copy_from_slice(hash.finalize().get(..16).unwrap_or(&[0; 16]));
    uuid::Builder::from_random_bytes(bytes)
        .into_uuid()
        .to_string()
}

impl Runtime for ClaudeRuntime {
    fn prepare(&mut self, job: &Job<'_>) -> Result<Launch, String> {
        let earlier = self.spec.resume.as_deref().or(job.session);
        let meter = Meter::new(job.assigned.before.as_deref(), earlier);
        self.decoder.begin(meter);
        let session = earlier.map_or_else(|| session_id(&job.lease), str::to_owned);
        let asks = asks_for_tools(job.assigned);
        let args = self.args(&session, earlier.is_some(), asks, job.tools);
        let mut env = base_env(job);
        env.extend(job.host.claude_env.clone());
        for (name, value) in [
            ("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1"),
            ("CLAUDE_CODE_DISABLE_BACKGROUND_TASKS", "1"),
            ("CLAUDE_CODE_DISABLE_AUTO_MEMORY", "1"),
            ("CLAUDE_CODE_MAX_RETRIES", "4"),
            ("API_TIMEOUT_MS", "600000"),
            ("DISABLE_AUTOUPDATER", "1"),
        ] {
            env.insert(name.to_owned(), value.to_owned());
        }
        if job.tools.is_some() {
            let patience = tools::PATIENCE.as_millis().to_string();
            // The second is that of a call that says nothing: five minutes else, signs of life or not.
            for name in ["MCP_TOOL_TIMEOUT", "CLAUDE_CODE_MCP_TOOL_IDLE_TIMEOUT"] {
                env.insert(name.to_owned(), patience.clone());
            }
        }
        // As root this mode is refused unless the CLI is told that it is boxed in: the
        // task asked for it by name.
        if self.spec.permission_mode == Some(PermissionMode::BypassPermissions) {
            env.insert("IS_SANDBOX".to_owned(), "1".to_owned());
        }
        env.extend(self.spec.env.clone());
        Ok(Launch {
            program: job.host.claude.display().to_string(),
            args,
            env,
            stdin: Input::Open(control::first_words(asks, &self.spec.prompt)),
            cwd: cwd(job, self.spec.cwd.as_ref()),
            files: BTreeMap::new(),
        })
    }

    fn read(&mut self, channel: Channel, bytes: &[u8]) -> Vec<Signal> {
        self.lines.read(channel, bytes, &mut self.decoder)
    }

    fn end(&mut self, channel: Channel) -> Vec<Signal> {
        self.lines.end(channel, &mut self.decoder)
    }

    fn answered(&mut self, name: &str, reply: &Reply) -> Vec<Signal> {
        self.decoder.answered(name, reply)
    }

    fn told(&mut self, text: &str) -> Option<Vec<Signal>> {
        Some(self.decoder.told(text))
    }

    fn interrupt(&mut self) -> Option<Vec<u8>> {
        Some(control::interrupt())
    }

    fn ladder(&self) -> &'static [Step] {
        // SIGTERM first would lose the result event, and with it the cost.
        const LADDER: &[Step] = &[
            Step::Say(Duration::from_secs(5)),
            Step::Interrupt(Duration::from_secs(5)),
            Step::Terminate(Duration::from_secs(5)),
        ];
        LADDER
    }

    fn silence(&self) -> Option<Duration> {
        Some(self.silence)
    }

    fn judge(&mut self, status: &Status) -> Verdict {
        let last_words = self.lines.last_words();
        self.decoder.judge(status, last_words)
    }
}

#[cfg(test)]
mod tests;
