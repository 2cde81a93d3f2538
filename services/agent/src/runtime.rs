//! What to run, how to read it, and what its end means.
//!
//! A runtime is pure: it prepares a launch, decodes what the program says, and judges the
//! end. Starting, stopping and cleaning up are the same for all of them.

mod claude;
mod command;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use conductor_protocol::event::{AttemptAssigned, Question, Usage};
use conductor_protocol::ids::Lease;
use conductor_protocol::spec::CommandSpec;
use conductor_protocol::trace::SpanKind;
use conductor_protocol::{OutcomeClass, RunSpec, TraceContext};
use conductor_telemetry::Otlp;

use crate::dirs::Paths;
use crate::inside::Moment;
use crate::output::Channel;
use crate::people::Reply;
use crate::process::Launch;
use crate::reaper::Status;

pub use claude::{probe as probe_claude, session_id};

/// What an attempt may take from the agent's own environment, and where tools are.
#[derive(Clone, Debug)]
pub struct Host {
    /// `PATH` of programs.
    pub path: String,
    /// Variables handed to the claude runtime: its key and endpoint.
    pub claude_env: BTreeMap<String, String>,
    /// The Claude Code CLI.
    pub claude: PathBuf,
    /// Longest silence of a model.
    pub silence: Duration,
    /// Which traces are recorded, where any are.
    pub otlp: Option<Otlp>,
}

/// Variables the claude runtime needs to reach its service.
pub const CLAUDE_ENV: [&str; 7] = [
    "ANTHROPIC_API_KEY",
    "ANTHROPIC_AUTH_TOKEN",
    "ANTHROPIC_BASE_URL",
    "ANTHROPIC_UNIX_SOCKET",
    "CLAUDE_CODE_OAUTH_TOKEN",
    "NODE_EXTRA_CA_CERTS",
    "HTTPS_PROXY",
];

impl Host {
    /// Takes what is allowed from the agent's environment.
    pub fn from_env() -> Self {
        let claude_env = CLAUDE_ENV
            .iter()
            .filter_map(|name| Some(((*name).to_owned(), std::env::var(name).ok()?)))
            .collect();
        let path = std::env::var("PATH").unwrap_or_else(|_| "/usr/bin:/bin".to_owned());
        let claude =
            std::env::var_os("CONDUCTOR_CLAUDE_BIN").map_or("claude".into(), PathBuf::from);
        Self {
            path,
            claude_env,
            claude,
            silence: Duration::from_secs(300),
            // Whoever starts the agent says what is wrong with it.
            otlp: Otlp::from_env().ok().flatten(),
        }
    }
}

/// What an attempt is told of itself.
#[derive(Debug)]
pub struct Job<'a> {
    /// The lease.
    pub lease: Lease,
    /// The assignment.
    pub assigned: &'a AttemptAssigned,
    /// Where its program finds its directories.
    pub paths: &'a Paths,
    /// What the agent lends it.
    pub host: &'a Host,
}

/// What a program said, as far as it matters.
#[derive(Clone, Debug, PartialEq)]
pub enum Signal {
    /// Text for the output stream.
    Text(Channel, Vec<u8>),
    /// What was used so far.
    Usage(Usage),
    /// Bytes for its standard input, where that is open.
    Say(Vec<u8>),
    /// A question to people, under a name of the runtime's; see [`Runtime::answered`].
    Ask(String, Question, String),
    /// It said its last word: its input is closed, and the process is expected to end soon.
    Final,
    /// Something that takes time began or ended; for those who watch, no fact.
    Moment(Moment),
}

/// How an attempt ended, in the terms of the log.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// `None` for success.
    pub failure: Option<(OutcomeClass, String)>,
    /// Its result.
    pub result: Option<String>,
    /// What it used.
    pub usage: Option<Usage>,
}

/// A step of the ladder that stops a program, and how long to wait after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// What its protocol has for it: see [`Runtime::interrupt`].
    Say(Duration),
    /// SIGINT: yields a result with its cost, where the program has such a thing.
    Interrupt(Duration),
    /// SIGTERM.
    Terminate(Duration),
}

/// Reads and judges one attempt.
pub trait Runtime: Send {
    /// What to start.
    fn prepare(&self, job: &Job<'_>) -> Result<Launch, String>;

    /// Bytes came in.
    fn read(&mut self, channel: Channel, bytes: &[u8]) -> Vec<Signal>;

    /// An output is over.
    fn end(&mut self, channel: Channel) -> Vec<Signal>;

    /// What it asked under this name was answered.
    fn answered(&mut self, _name: &str, _reply: &Reply) -> Vec<Signal> {
        Vec::new()
    }

    /// Somebody says something to it; `None` where it cannot be told.
    fn told(&mut self, _text: &str) -> Option<Vec<Signal>> {
        None
    }

    /// What is said to it to interrupt it, where its protocol has words for that.
    fn interrupt(&mut self) -> Option<Vec<u8>> {
        None
    }

    /// How it is stopped before its tree is killed.
    fn ladder(&self) -> &'static [Step];

    /// Longest silence.
    fn silence(&self) -> Option<Duration>;

    /// What its end means.
    fn judge(&mut self, status: &Status) -> Verdict;
}

/// The runtime of a command: a setup program, a check.
pub(crate) fn command(spec: CommandSpec) -> impl Runtime {
    command::CommandRuntime::new(spec)
}

/// The runtime for what an assignment runs; `None` for nothing.
pub fn of(run: &RunSpec, host: &Host) -> Option<Box<dyn Runtime>> {
    match run {
        RunSpec::Command(spec) => Some(Box::new(command::CommandRuntime::new((**spec).clone()))),
        RunSpec::Claude(spec) => Some(Box::new(claude::ClaudeRuntime::new(
            (**spec).clone(),
            host.silence,
        ))),
        RunSpec::Codex(_) | RunSpec::Acp(_) | RunSpec::Noop(_) => None,
    }
}

/// The environment every program gets: an allow-list, never the agent's own.
fn base_env(job: &Job<'_>) -> BTreeMap<String, String> {
    let (dirs, assigned) = (job.paths, job.assigned);
    let mut env: BTreeMap<String, String> = BTreeMap::new();
    let mut set = |name: &str, value: String| {
        env.insert(name.to_owned(), value);
    };
    set("PATH", job.host.path.clone());
    set("HOME", dirs.home.display().to_string());
    set("TMPDIR", dirs.tmp.display().to_string());
    set("LANG", "C.UTF-8".to_owned());
    set("TERM", "dumb".to_owned());
    set("CONDUCTOR_TASK", job.lease.task.to_string());
    set("CONDUCTOR_ATTEMPT", job.lease.attempt.to_string());
    set("CONDUCTOR_QUEUE", assigned.queue.to_string());
    set("CONDUCTOR_NAMESPACE", assigned.namespace.to_string());
    set("CONDUCTOR_WORKSPACE", dirs.workspace.display().to_string());
    if let Some(name) = &assigned.name {
        set("CONDUCTOR_NAME", name.to_string());
    }
    // What the program does belongs below what we say of it.
    let mut trace = TraceContext::of(job.lease.task, assigned.traceparent.as_deref());
    if let Some(otlp) = &job.host.otlp {
        trace.is_sampled = Some(otlp.records(&trace));
    }
    let run = trace.span(SpanKind::Run, job.lease.attempt.into());
    set("TRACEPARENT", trace.traceparent(run));
    env
}

/// Where the program starts: relative to the workspace.
fn cwd(job: &Job<'_>, cwd: Option<&String>) -> PathBuf {
    let workspace = &job.paths.workspace;
    cwd.map_or_else(|| workspace.clone(), |cwd| workspace.join(cwd))
}
