//! The real Claude Code CLI against a model API of our own on loopback, where npm can
//! install it. What it prints is also recorded, and tested everywhere, in `services/agent`.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use conductor_domain::state::{Outcome, Phase};
use conductor_harness::process::{descendants, gone};
use conductor_harness::{Story, System, binary, until};
use conductor_protocol::event::{Event, Usage};
use conductor_protocol::{OutcomeClass, TaskId};
use serde_json::{Value, json};

/// The model API. Dropped, it ends.
pub(super) struct FakeApi {
    child: Child,
    pub(super) url: String,
    /// Every request, a line each.
    pub(super) log: PathBuf,
}

impl FakeApi {
    /// Starts it; its log is in `dir`, and that is where its model wants to write files.
    pub(super) fn start(dir: &std::path::Path) -> Self {
        let log = dir.join("api.log");
        let script =
            binary::workspace().join("services/agent/tests/fixtures/fake-anthropic-server.py");
        let mut child = Command::new("python3")
            .arg(script)
            .arg("0")
            .env("FAKE_LOG", &log)
            .env("FAKE_WD", dir)
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3 runs");
        let mut line = String::new();
        let stdout = child.stdout.take().unwrap();
        BufReader::new(stdout).read_line(&mut line).unwrap();
        let port = line.trim().rsplit(' ').next().unwrap();
        Self {
            child,
            url: format!("http://127.0.0.1:{port}"),
            log,
        }
    }
}

impl Drop for FakeApi {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The pinned CLI, installed once; `None` where npm cannot.
fn claude() -> Option<PathBuf> {
    let Some(packages) = binary::npm_packages("tests/e2e/claude-cli") else {
        eprintln!("npm cannot install the Claude Code CLI here: tested on recorded streams only");
        return None;
    };
    Some(packages.join("node_modules/.bin/claude"))
}

/// A server and no process of ours yet; agents that are started find the CLI and the model API.
/// `None` where npm cannot install the CLI.
pub(super) async fn system() -> Option<(System, FakeApi)> {
    let cli = claude()?;
    let mut system = System::bare().await;
    let api = FakeApi::start(system.dir.path());
    system.env = vec![
        ("CONDUCTOR_CLAUDE_BIN".into(), cli.display().to_string()),
        ("ANTHROPIC_BASE_URL".into(), api.url.clone()),
        ("ANTHROPIC_API_KEY".into(), "dummy".into()),
    ];
    Some((system, api))
}

struct Claude {
    system: System,
    story: Story,
    _api: FakeApi,
}

impl Claude {
    /// A system whose agents have the CLI.
    async fn up() -> Option<Self> {
        let (mut system, api) = system().await?;
        system.start_up(&[]).await;
        let story = system.story().await;
        Some(Self {
            system,
            story,
            _api: api,
        })
    }

    async fn submit(&self, prompt: &str, fields: Value) -> TaskId {
        let mut claude = json!({"prompt": prompt});
        for (field, value) in fields.as_object().unwrap() {
            claude[field] = value.clone();
        }
        self.system.submit(json!({"run": {"claude": claude}})).await
    }

    /// How a task ended: outcome, class, and the usage that was recorded.
    async fn end(&mut self, id: TaskId) -> (Outcome, Option<OutcomeClass>, Option<Usage>) {
        let task = self.story.ended(id).await;
        let Phase::Ended(ended) = task.phase else {
            unreachable!()
        };
        (ended.outcome, ended.class, task.aside.usage.clone())
    }
}

#[tokio::test]
async fn a_prompt_runs_and_its_session_turns_tokens_and_cost_are_recorded() {
    let Some(mut claude) = Claude::up().await else {
        return;
    };
    let id = claude.submit("[[plain]] say something", json!({})).await;
    let (outcome, class, usage) = claude.end(id).await;
    assert_eq!((outcome, class), (Outcome::Succeeded, None));
    let usage = usage.expect("usage is recorded");
    assert!(usage.session.is_some() && usage.turns == 1, "{usage:?}");
    assert!(
        usage.input_tokens > 0 && usage.output_tokens > 0 && usage.cost_usd > 0.0,
        "{usage:?}"
    );
    let Some(Event::AttemptSucceeded(e)) =
        claude.story.find(id, "attempt.succeeded").unwrap().event
    else {
        panic!("it succeeded")
    };
    assert!(!e.result.unwrap().is_empty());
}

#[tokio::test]
async fn tools_run_where_they_are_allowed_and_their_denial_is_a_class_of_its_own() {
    let Some(mut claude) = Claude::up().await else {
        return;
    };
    let allowed = claude
        .submit("[[bash]] look around", json!({"allowed_tools": ["Bash"]}))
        .await;
    let denied = claude.submit("[[bash]] look around", json!({})).await;
    assert_eq!(claude.end(allowed).await.0, Outcome::Succeeded);
    let (outcome, class, _) = claude.end(denied).await;
    assert_eq!(
        (outcome, class),
        (Outcome::Failed, Some(OutcomeClass::Denied))
    );
}

#[tokio::test]
async fn what_the_service_refuses_and_limits_that_are_reached_have_their_classes() {
    let Some(mut claude) = Claude::up().await else {
        return;
    };
    let auth = claude.submit("[[err401]]", json!({})).await;
    let turns = claude
        .submit(
            "[[loop]]",
            json!({"max_turns": 2, "allowed_tools": ["Bash"]}),
        )
        .await;
    let (outcome, class, _) = claude.end(auth).await;
    assert_eq!(
        (outcome, class),
        (Outcome::Failed, Some(OutcomeClass::Auth))
    );
    let (outcome, class, _) = claude.end(turns).await;
    assert_eq!(
        (outcome, class),
        (Outcome::Failed, Some(OutcomeClass::MaxTurns))
    );
}

#[tokio::test]
async fn a_cancelled_session_leaves_no_process_behind() {
    let Some(mut claude) = Claude::up().await else {
        return;
    };
    let id = claude
        .submit("[[bashlong]]", json!({"allowed_tools": ["Bash"]}))
        .await;
    claude.story.told(id, "attempt.started").await;
    let up = claude.system.process("up").pid();
    // The shim, the CLI, its shell, and the command of its tool.
    let is_sleep = |pid: &u32| {
        let line = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.starts_with("sleep\0")
    };
    let children = until(|| {
        let children = descendants(up);
        if children.iter().any(is_sleep) {
            Ok(children)
        } else {
            Err("its tool's command".into())
        }
    })
    .await;
    claude
        .system
        .cli(&["task", "cancel", &id.to_string()])
        .await
        .ok();
    assert_eq!(claude.end(id).await.0, Outcome::Cancelled);
    for child in children {
        gone(child).await;
    }
}
