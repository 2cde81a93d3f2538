//! The Claude Code CLI, headless, with the safe flags of agent-facts 2.1.

mod control;
mod decode;

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use conductor_protocol::ids::Lease;
use conductor_protocol::spec::{ClaudeSpec, PermissionMode};
use sha2::{Digest, Sha256};

use super::{Job, Runtime, Signal, Step, Verdict, base_env, cwd};
use crate::input::Input;
use crate::lines::{Line, Lines};
use crate::output::{Channel, Tail};
use crate::people::Reply;
use crate::process::Launch;
use crate::reaper::Status;
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
    lines: Lines,
    decoder: Decoder,
    last_words: Tail,
}

impl ClaudeRuntime {
    pub(super) fn new(spec: ClaudeSpec, silence: Duration) -> Self {
        let decoder = Decoder::new(spec.allow_denials);
        Self {
            spec,
            silence,
            lines: Lines::default(),
            decoder,
            last_words: Tail::default(),
        }
    }

    /// Its arguments; `asks` says whether people are asked before tools are used.
    fn args(&self, lease: &Lease, asks: bool) -> Vec<String> {
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
        match &spec.resume {
            Some(session) => add("--resume", Some(session.clone())),
            None => add("--session-id", Some(session_id(lease))),
        }
        add("--model", spec.model.clone());
        add("--max-turns", spec.max_turns.map(|n| n.to_string()));
        add(
            "--max-budget-usd",
            spec.max_budget_usd.map(|usd| usd.to_string()),
        );
        add("--append-system-prompt", spec.append_system_prompt.clone());
        add("--json-schema", spec.json_schema.clone());
        let usual = if asks {
            add("--permission-prompt-tool", Some("stdio".to_owned()));
            PermissionMode::Default
        } else {
            PermissionMode::DontAsk
        };
        let mode = spec.permission_mode.unwrap_or(usual);
        add("--permission-mode", Some(mode.as_str().to_owned()));
        if !spec.allowed_tools.is_empty() {
            args.push("--allowedTools".to_owned());
            args.extend(spec.allowed_tools.clone());
        }
        args.push("--disallowedTools".to_owned());
        args.extend(NEVER.map(str::to_owned));
        args.extend(spec.disallowed_tools.clone());
        args
    }
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

/// The version of the CLI, if it is there.
pub async fn probe(binary: &Path, path: &str) -> Option<String> {
    let mut command = tokio::process::Command::new(binary);
    command
        .arg("--version")
        .env_clear()
        .env("PATH", path)
        .env("HOME", "/nonexistent");
    command
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    let output = tokio::time::timeout(Duration::from_secs(10), command.output())
        .await
        .ok()?
        .ok()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let version = text.split_whitespace().next()?.to_owned();
    (output.status.success() && version.starts_with(|c: char| c.is_ascii_digit()))
        .then_some(version)
}

impl Runtime for ClaudeRuntime {
    fn prepare(&self, job: &Job<'_>) -> Result<Launch, String> {
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
        // As root this mode is refused unless the CLI is told that it is boxed in: the
        // task asked for it by name.
        if self.spec.permission_mode == Some(PermissionMode::BypassPermissions) {
            env.insert("IS_SANDBOX".to_owned(), "1".to_owned());
        }
        env.extend(self.spec.env.clone());
        let asks = control::asks_for_tools(job.assigned.terms.as_deref());
        Ok(Launch {
            program: job.host.claude.display().to_string(),
            args: self.args(&job.lease, asks),
            env,
            stdin: Input::Open(control::first_words(asks, &self.spec.prompt)),
            cwd: cwd(job, self.spec.cwd.as_ref()),
        })
    }

    fn read(&mut self, channel: Channel, bytes: &[u8]) -> Vec<Signal> {
        if channel == Channel::Stderr {
            self.last_words.push(bytes, 512);
            return vec![Signal::Text(channel, bytes.to_vec())];
        }
        let (decoder, mut out) = (&mut self.decoder, Vec::new());
        self.lines
            .push(bytes, |line| read_line(decoder, line, &mut out));
        out
    }

    fn end(&mut self, channel: Channel) -> Vec<Signal> {
        let mut out = Vec::new();
        if channel == Channel::Stdout
            && let Some(line) = self.lines.finish()
        {
            read_line(&mut self.decoder, line, &mut out);
        }
        out
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
        self.decoder
            .judge(status, std::mem::take(&mut self.last_words).text())
    }
}

fn read_line(decoder: &mut Decoder, line: Line, out: &mut Vec<Signal>) {
    match line {
        Line::Whole(line) => decoder.line(&line, out),
        Line::TooLong { bytes, .. } => {
            let text = format!("[a line of {bytes} bytes was left out]\n");
            out.push(Signal::Text(Channel::Stdout, text.into_bytes()));
        }
    }
}

#[cfg(test)]
mod tests;
