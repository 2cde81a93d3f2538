//! What to run, how to read it, and what its end means.
//!
//! A runtime is pure: it prepares a launch, decodes what the program says, and judges the
//! end. Starting, stopping and cleaning up are the same for all of them.

mod acp;
mod claude;
mod codex;
mod command;
mod probe;
#[cfg(test)]
mod robust;
mod stream;
#[cfg(test)]
pub(crate) mod testing;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use conductor_modelproxy::policy::is_allowed;
use conductor_protocol::event::{AttemptAssigned, Question, Usage};
use conductor_protocol::human::parse_duration;
use conductor_protocol::ids::{Lease, UnixMs};
use conductor_protocol::spec::{CommandSpec, Runtime as Kind};
use conductor_protocol::trace::SpanKind;
use conductor_protocol::{OutcomeClass, RunSpec, TraceContext};
use conductor_telemetry::Otlp;

use crate::dirs::Paths;
use crate::inside::Moment;
use crate::models::Models;
use crate::output::Channel;
use crate::people::Reply;
use crate::process::Launch;
use crate::reaper::Status;
use crate::secrets::Secrets;
use crate::tools::Endpoint;

pub use claude::session_id;
pub use probe::probe;

/// Most of a result that a runtime keeps; what is too long for an event becomes an artifact.
pub const RESULT_KEPT_MAX: usize = 1 << 20;

/// So much of a tool and its input is shown to people, in bytes (agent-facts 5.2).
const SUMMARY_MAX: usize = 512;

/// What an attempt may take from the agent's own environment, and where tools are.
#[derive(Clone, Debug)]
pub struct Host {
    /// `PATH` of programs.
    pub path: String,
    /// Variables handed to the claude runtime: its endpoint, and a placeholder for its key.
    pub claude_env: BTreeMap<String, String>,
    /// Variables handed to the codex runtime: its endpoint, and a placeholder for its key.
    pub codex_env: BTreeMap<String, String>,
    /// The Claude Code CLI.
    pub claude: PathBuf,
    /// The Codex CLI.
    pub codex: PathBuf,
    /// Runtimes that were found, and their versions.
    pub versions: BTreeMap<Kind, String>,
    /// Longest silence of a model.
    pub silence: Duration,
    /// Which traces are recorded, where any are.
    pub otlp: Option<Otlp>,
    /// How models are reached.
    pub models: Arc<Models>,
    /// What tasks can be granted.
    pub secrets: Secrets,
}

/// Variables the claude runtime gets of the agent's own, where the agent has no key for it. Keys are
/// never among them.
pub const CLAUDE_ENV: [&str; 4] = [
    "ANTHROPIC_BASE_URL",
    "ANTHROPIC_UNIX_SOCKET",
    "NODE_EXTRA_CA_CERTS",
    "HTTPS_PROXY",
];

/// Variables the codex runtime needs to reach its service; never its key.
pub const CODEX_ENV: [&str; 2] = ["SSL_CERT_FILE", "HTTPS_PROXY"];

/// Longest silence of a model where the agent's environment names no other.
const SILENCE: Duration = Duration::from_secs(300);

impl Host {
    /// Takes what is allowed from the agent's environment.
    pub fn from_env() -> Result<Self, String> {
        let taken = |names: &[&str]| {
            let names = names.iter();
            let set = names.filter_map(|n| Some(((*n).to_owned(), std::env::var(n).ok()?)));
            set.collect::<BTreeMap<_, _>>()
        };
        let program = |variable: &str, name: &str| {
            std::env::var_os(variable).map_or(PathBuf::from(name), PathBuf::from)
        };
        let silence = std::env::var("CONDUCTOR_MODEL_SILENCE").ok();
        let silence = silence.and_then(|text| parse_duration(&text));
        let path = std::env::var("PATH").unwrap_or_else(|_| "/usr/bin:/bin".to_owned());
        Ok(Self {
            path,
            claude_env: taken(&CLAUDE_ENV),
            codex_env: taken(&CODEX_ENV),
            claude: program("CONDUCTOR_CLAUDE_BIN", "claude"),
            codex: program("CONDUCTOR_CODEX_BIN", "codex"),
            versions: BTreeMap::new(),
            silence: silence.map_or(SILENCE, |d| Duration::from_millis(d.0)),
            // Whoever starts the agent says what is wrong with it.
            otlp: Otlp::from_env().ok().flatten(),
            models: Arc::new(Models::from_env()?),
            secrets: Secrets::default(),
        })
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
    /// Whether a sandbox boxes it in, so that its own would only be in the way.
    pub is_boxed: bool,
    /// The model's session of an earlier attempt to go on with, where what it needs is here.
    pub session: Option<&'a str>,
    /// Where its program finds its tools, where it has any. The token stands in its environment.
    pub tools: Option<&'a Endpoint>,
}

/// What a program said, as far as it matters.
#[derive(Clone, Debug, PartialEq)]
pub enum Signal {
    /// Text for the output stream.
    Text(Channel, Vec<u8>),
    /// What the task has used so far.
    Usage(Usage),
    /// It waits for its model service: said again and again, that is no progress.
    Waiting,
    /// The model service has no more for now; until when, where it says so.
    Throttled(Option<UnixMs>),
    /// Bytes for its standard input, where that is open.
    Say(Vec<u8>),
    /// A question to people, under a name of the runtime's; see [`Runtime::answered`].
    Ask(String, Question, String),
    /// It does not want to know any more what it asked under this name.
    Withdraw(String),
    /// It does without something it should have, and goes on: for its output, and for operators.
    Warning(String),
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
    /// What the task has used.
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
    fn prepare(&mut self, job: &Job<'_>) -> Result<Launch, String>;

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
        RunSpec::Codex(spec) => Some(Box::new(codex::CodexRuntime::new(
            (**spec).clone(),
            host.silence,
        ))),
        RunSpec::Acp(spec) => Some(Box::new(acp::AcpRuntime::new(
            (**spec).clone(),
            host.silence,
        ))),
        RunSpec::Noop(_) => None,
    }
}

/// Why an assignment may not be run at all: it names a model that its terms do not allow. Its proxy
/// would say the same of every request, by the same rule.
pub fn refusal(assigned: &AttemptAssigned) -> Option<String> {
    let model = match assigned.run.as_ref() {
        RunSpec::Claude(spec) => spec.model.as_ref(),
        RunSpec::Codex(spec) => spec.model.as_ref(),
        RunSpec::Command(_) | RunSpec::Acp(_) | RunSpec::Noop(_) => None,
    }?;
    let allowed = &assigned.terms.as_ref()?.models;
    (!is_allowed(allowed, model)).then(|| {
        let allowed = allowed.join(", ");
        format!("the model {model} is not one its terms allow ({allowed}); name one of those")
    })
}

/// Whether people are asked before tools are used that are not allowed by name.
fn asks_for_tools(assigned: &AttemptAssigned) -> bool {
    let approvals = assigned.terms.as_ref().and_then(|t| t.approvals.as_ref());
    approvals.is_some_and(|a| a.tools)
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
    // Git ends where there is a file of the machine that it may not read.
    set("GIT_CONFIG_NOSYSTEM", "1".to_owned());
    set("CONDUCTOR_TASK", job.lease.task.to_string());
    set("CONDUCTOR_ATTEMPT", job.lease.attempt.to_string());
    set("CONDUCTOR_QUEUE", assigned.queue.to_string());
    set("CONDUCTOR_NAMESPACE", assigned.namespace.to_string());
    set("CONDUCTOR_WORKSPACE", dirs.workspace.display().to_string());
    if let Some(name) = &assigned.name {
        set("CONDUCTOR_NAME", name.to_string());
    }
    let trace = trace_below(&job.lease, assigned, job.host.otlp.as_ref());
    set("TRACEPARENT", trace);
    env
}

/// The `traceparent` of what an attempt does: it belongs below what we say of it.
pub fn trace_below(lease: &Lease, assigned: &AttemptAssigned, otlp: Option<&Otlp>) -> String {
    let mut trace = TraceContext::of(lease.task, assigned.traceparent.as_deref());
    if let Some(otlp) = otlp {
        trace.is_sampled = Some(otlp.records(&trace));
    }
    trace.traceparent(trace.span(SpanKind::Run, lease.attempt.into()))
}

/// Where the program starts: relative to the workspace.
fn cwd(job: &Job<'_>, cwd: Option<&String>) -> PathBuf {
    let workspace = &job.paths.workspace;
    cwd.map_or_else(|| workspace.clone(), |cwd| workspace.join(cwd))
}

#[cfg(test)]
mod tests {
    use super::*;
    use conductor_protocol::spec::{ClaudeSpec, CodexSpec};
    use conductor_protocol::terms::Terms;
    use std::sync::Arc;

    fn asking(run: RunSpec, models: &[&str]) -> Option<String> {
        let models = models.iter().map(|m| (*m).to_owned()).collect();
        let terms = Terms {
            models,
            ..Terms::default()
        };
        refusal(&AttemptAssigned {
            terms: Some(Arc::new(terms)),
            ..testing::assigned(run)
        })
    }

    #[test]
    fn a_model_that_the_terms_do_not_allow_is_refused() {
        let model = || Some("big".to_owned());
        let claude = |model| {
            RunSpec::Claude(Box::new(ClaudeSpec {
                model,
                ..ClaudeSpec::default()
            }))
        };
        let codex = |model| {
            RunSpec::Codex(Box::new(CodexSpec {
                model,
                ..CodexSpec::default()
            }))
        };
        for run in [claude(model()), codex(model())] {
            assert_eq!(asking(run.clone(), &[]), None, "none named means any");
            assert_eq!(asking(run.clone(), &["small", "big"]), None);
            let reason = asking(run, &["small", "tiny"]).unwrap();
            assert!(
                reason.contains("the model big") && reason.contains("small, tiny"),
                "{reason}"
            );
        }
        // By the rule of the proxy, which sees each request.
        let named = |name: &str| claude(Some(name.to_owned()));
        for (name, allowed) in [
            ("claude-haiku-4-5-20251001", "claude-haiku-4-5"),
            ("claude-haiku-4-5[1m]", "claude-haiku-4-5"),
            ("claude-sonnet-4-5", "claude-sonnet-*"),
        ] {
            assert_eq!(asking(named(name), &[allowed]), None, "{name}");
        }
        for (name, allowed) in [
            ("claude-haiku-4-5", "claude-haiku-4-5-20251001"),
            ("claude-haiku-4-5-turbo", "claude-haiku-4-5"),
        ] {
            assert!(asking(named(name), &[allowed]).is_some(), "{name}");
        }
        assert_eq!(
            asking(claude(None), &["small"]),
            None,
            "the proxy sees what the CLI asks for"
        );
    }

    #[test]
    fn people_are_asked_about_tools_where_the_terms_say_so() {
        use conductor_protocol::terms::ApprovalSpec;
        let with = |tools| {
            let approvals = Some(ApprovalSpec {
                tools,
                ..ApprovalSpec::default()
            });
            let terms = Terms {
                approvals,
                ..Terms::default()
            };
            asks_for_tools(&AttemptAssigned {
                terms: Some(Arc::new(terms)),
                ..testing::assigned(RunSpec::Acp(Box::default()))
            })
        };
        assert!(with(true) && !with(false));
        assert!(!asks_for_tools(&testing::assigned(RunSpec::Acp(
            Box::default()
        ))));
    }
}
