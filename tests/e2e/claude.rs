//! The real Claude Code CLI against a model API of our own on loopback, where npm can
//! install it. What it prints is also recorded, and tested everywhere, in `services/agent`.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use conductor_domain::state::{Outcome, Phase};
use conductor_harness::process::{descendants, gone};
use conductor_harness::{Story, System, binary, until};
use conductor_protocol::event::{Event, Usage};
use conductor_protocol::{OutcomeClass, TaskId};
use serde_json::{Value, json};

use crate::model_api::{ANTHROPIC, ModelApi};

/// The pinned CLI, installed once; `None` where npm cannot.
pub(crate) fn claude_cli() -> Option<PathBuf> {
    let packages = binary::npm_packages("tests/e2e/claude-cli")?;
    Some(packages.join("node_modules/.bin/claude"))
}

/// A server and no process of ours yet; agents that are started find the CLI and the model API.
/// `None` where npm cannot install the CLI.
pub(super) async fn system() -> Option<(System, ModelApi)> {
    let Some(cli) = claude_cli() else {
        eprintln!("npm cannot install the Claude Code CLI here: tested on recorded streams only");
        return None;
    };
    let mut system = System::bare().await;
    let api = ModelApi::start(ANTHROPIC, system.dir.path());
    system.env = vec![
        ("CONDUCTOR_CLAUDE_BIN".into(), cli.display().to_string()),
        ("ANTHROPIC_BASE_URL".into(), api.url.clone()),
        ("ANTHROPIC_API_KEY".into(), "dummy".into()),
    ];
    Some((system, api))
}

struct Claude {
    system: System,
    story: Option<Story>,
    api: ModelApi,
}

impl Claude {
    /// A system whose agents have the CLI.
    async fn up() -> Option<Self> {
        let mut claude = Self::bare().await?;
        claude.system.start_up(&[]).await;
        Some(claude)
    }

    /// The same without any process yet.
    async fn bare() -> Option<Self> {
        let (system, api) = system().await?;
        Some(Self {
            system,
            story: None,
            api,
        })
    }

    /// The log, read from its first record.
    async fn story(&mut self) -> &mut Story {
        if self.story.is_none() {
            self.story = Some(self.system.story().await);
        }
        self.story.as_mut().unwrap()
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
        let task = self.story().await.ended(id).await;
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
    let Some(Event::AttemptSucceeded(e)) = claude
        .story()
        .await
        .find(id, "attempt.succeeded")
        .unwrap()
        .event
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
    claude.story().await.told(id, "attempt.started").await;
    let up = claude.system.process("up").pid();
    // The shim, the CLI, its shell, and the command of its tool.
    let children = until(|| {
        let children = descendants(up);
        if children.iter().copied().any(is_sleep) {
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

/// What a repository would have run: a hook, and a server for tools.
fn lay_traps(repository: &Path) {
    let touch = |name: &str| format!("touch {}", repository.join(name).display());
    let hook = json!([{"hooks": [{"type": "command", "command": touch("hooked")}]}]);
    let settings = json!({"hooks": {"SessionStart": hook, "UserPromptSubmit": hook}});
    std::fs::create_dir_all(repository.join(".claude")).unwrap();
    std::fs::write(
        repository.join(".claude/settings.json"),
        settings.to_string(),
    )
    .unwrap();
    let server = json!({"command": "sh", "args": ["-c", touch("served")]});
    let servers = json!({"mcpServers": {"trap": server}});
    std::fs::write(repository.join(".mcp.json"), servers.to_string()).unwrap();
}

#[tokio::test]
async fn test_3_hooks_and_servers_of_a_repository_do_not_run() {
    let Some(mut claude) = Claude::up().await else {
        return;
    };
    let repository = claude.system.dir.path().join("repository");
    lay_traps(&repository);
    let sprung = || ["hooked", "served"].map(|name| repository.join(name).exists());
    // The CLI by itself runs both.
    let alone = Command::new(claude_cli().unwrap())
        .args(["-p", "[[plain]] hi"])
        .current_dir(&repository)
        .env("HOME", claude.system.dir.path())
        .env("ANTHROPIC_BASE_URL", &claude.api.url)
        .env("ANTHROPIC_API_KEY", "dummy")
        .env("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(alone.status.success(), "{alone:?}");
    assert_eq!(sprung(), [true, true], "the traps work");
    for name in ["hooked", "served"] {
        std::fs::remove_file(repository.join(name)).unwrap();
    }
    let id = claude
        .submit("[[plain]] hi", json!({"cwd": repository}))
        .await;
    assert_eq!(claude.end(id).await.0, Outcome::Succeeded);
    assert_eq!(sprung(), [false, false]);
}

#[tokio::test]
async fn test_13_refused_credentials_end_it_soon_and_not_after_its_own_ten_retries() {
    let Some(mut claude) = Claude::up().await else {
        return;
    };
    let id = claude.submit("[[err401]]", json!({})).await;
    let (outcome, class, _) = claude.end(id).await;
    assert_eq!(
        (outcome, class),
        (Outcome::Failed, Some(OutcomeClass::Auth))
    );
    let at = |kind| {
        claude
            .story
            .as_ref()
            .unwrap()
            .find(id, kind)
            .unwrap()
            .time_ms
    };
    let took_ms = at("attempt.failed") - at("attempt.started");
    // By itself it took 178 s.
    assert!(took_ms < 60_000, "{took_ms} ms");
}

#[tokio::test]
async fn test_10_a_session_goes_on_after_a_sigkill_of_its_agent_and_costs_are_counted_once() {
    let Some(mut claude) = Claude::bare().await else {
        return;
    };
    for role in ["orchestrator", "scheduler"] {
        claude.system.start_role(role, role);
    }
    claude.system.start_agent("a1");
    claude.system.wait_ready(1).await;
    let id = claude
        .submit("[[longonce]] work", json!({"allowed_tools": ["Bash"]}))
        .await;
    claude.story().await.told(id, "attempt.started").await;
    let agent = claude.system.process("a1").pid();
    let children = until(|| {
        let children = descendants(agent);
        if children.iter().copied().any(is_sleep) {
            Ok(children)
        } else {
            Err("its tool's command".into())
        }
    })
    .await;
    claude.system.process("a1").kill9();
    for child in children {
        gone(child).await;
    }
    claude.system.start_agent("a1");
    let (outcome, class, usage) = claude.end(id).await;
    assert_eq!((outcome, class), (Outcome::Succeeded, None));
    let story = claude.story.as_ref().unwrap();
    let sessions: Vec<Option<String>> = story
        .applied(id)
        .filter_map(|told| match &told.event {
            Some(Event::AttemptStarted(e)) => Some(e.session.clone()),
            _ => None,
        })
        .collect();
    assert_eq!(sessions.len(), 2);
    assert_eq!(sessions[0], sessions[1], "the same session");
    let Some(Event::AttemptSucceeded(e)) = story.find(id, "attempt.succeeded").unwrap().event
    else {
        panic!("it succeeded")
    };
    let result = e.result.unwrap();
    // Anew it would have been the first message, or its first two with what the CLI adds.
    let messages = result.strip_prefix("went on after ").expect(&result);
    let messages: u32 = messages.split(' ').next().unwrap().parse().unwrap();
    assert!(messages > 2, "{result}");
    // Two answers were given, of 42 tokens each.
    let usage = usage.unwrap();
    assert_eq!(usage.output_tokens, 84, "{usage:?}");
}

/// Whether a process is the command that a tool of the CLI is held up by.
pub(crate) fn is_sleep(pid: u32) -> bool {
    let line = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    line.starts_with("sleep\0")
}
