//! The real Codex CLI against a model API of our own on loopback, where npm can install it. What
//! it prints is also recorded, and tested everywhere, in `services/agent`.

use conductor_domain::state::{Outcome, Phase};
use conductor_harness::{Story, System, binary};
use conductor_protocol::event::{Event, Usage};
use conductor_protocol::{OutcomeClass, TaskId};
use serde_json::{Value, json};

use crate::model_api::{ModelApi, OPENAI};
use crate::people::asks;

/// A model of which it knows the tools that the fake service calls.
const MODEL: &str = "gpt-5.1-codex";

struct Codex {
    system: System,
    story: Story,
    _api: ModelApi,
}

impl Codex {
    /// A system whose agents have the pinned CLI.
    async fn up() -> Option<Self> {
        Self::up_with(&[]).await
    }

    /// The same, with more arguments for `conductor up`.
    async fn up_with(args: &[&str]) -> Option<Self> {
        let Some(packages) = binary::npm_packages("tests/e2e/codex-cli") else {
            eprintln!("npm cannot install the Codex CLI here: tested on recorded streams only");
            return None;
        };
        let cli = packages.join("node_modules/.bin/codex");
        let mut system = System::bare().await;
        let api = ModelApi::start(OPENAI, system.dir.path());
        system.env = vec![
            ("CONDUCTOR_CODEX_BIN".into(), cli.display().to_string()),
            ("OPENAI_BASE_URL".into(), api.url.clone()),
            ("OPENAI_API_KEY".into(), "the-only-key".into()),
        ];
        system.start_up(args).await;
        let story = system.story().await;
        Some(Self {
            system,
            story,
            _api: api,
        })
    }

    async fn submit(&self, prompt: &str, fields: Value) -> TaskId {
        let mut codex = json!({"prompt": prompt, "model": MODEL});
        for (field, value) in fields.as_object().unwrap() {
            codex[field] = value.clone();
        }
        self.system.submit(json!({"run": {"codex": codex}})).await
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
async fn a_prompt_runs_and_its_thread_and_tokens_are_recorded() {
    let Some(mut codex) = Codex::up().await else {
        return;
    };
    let id = codex.submit("[[plain]] say something", json!({})).await;
    let (outcome, class, usage) = codex.end(id).await;
    assert_eq!((outcome, class), (Outcome::Succeeded, None));
    let usage = usage.expect("usage is recorded");
    let tokens = (
        usage.turns,
        usage.input_tokens,
        usage.cached_tokens,
        usage.output_tokens,
    );
    assert_eq!(tokens, (1, 500, 1_000, 42), "{usage:?}");
    assert!(usage.session.is_some());
    let Some(Event::AttemptStarted(e)) = codex.story.find(id, "attempt.started").unwrap().event
    else {
        panic!("it started")
    };
    assert_eq!(e.version.as_deref(), Some("0.169.0"));
    let Some(Event::AttemptSucceeded(e)) = codex.story.find(id, "attempt.succeeded").unwrap().event
    else {
        panic!("it succeeded")
    };
    assert!(e.result.unwrap().starts_with("Hello"));
}

#[tokio::test]
async fn test_14_its_tools_run_in_its_own_sandbox_without_our_key() {
    let Some(mut codex) = Codex::up().await else {
        return;
    };
    let workspace = codex.system.dir.path().join("w");
    std::fs::create_dir(&workspace).unwrap();
    let id = codex
        .submit("[[sh]] make a file", json!({"cwd": workspace}))
        .await;
    let (outcome, class, _) = codex.end(id).await;
    let logs = codex
        .system
        .cli(&["task", "logs", &id.to_string()])
        .await
        .ok();
    assert_eq!((outcome, class), (Outcome::Succeeded, None), "{logs}");
    // With a home below the directory of temporary files every command fails, and the run ends well.
    let made = std::fs::read_to_string(workspace.join("made.txt"));
    assert_eq!(made.expect(&logs), "hi\n");
    assert_eq!(
        std::fs::read_to_string(workspace.join("patched.txt")).unwrap(),
        "hello\n"
    );
    // Its commands print their environment, which goes to the model with the next request.
    let asked = std::fs::read_to_string(codex.system.dir.path().join("api.log")).unwrap();
    let said: String = asked
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["body"].to_string())
        .collect();
    assert!(said.contains("CODEX_THREAD_ID"), "the environment is there");
    assert!(!said.contains("the-only-key"), "the key is not");
}

/// It finds the agent's tools, is let in, and asks nobody whether it may use them.
#[tokio::test]
async fn it_gives_its_result_by_a_tool() {
    for args in [&[][..], &["--sandbox", "none"]] {
        let Some(mut codex) = Codex::up_with(args).await else {
            return;
        };
        let id = codex.submit("[[mcpcomplete]]", json!({})).await;
        let (outcome, class, _) = codex.end(id).await;
        let id_text = id.to_string();
        let logs = codex.system.cli(&["task", "logs", &id_text]).await.ok();
        assert_eq!((outcome, class), (Outcome::Succeeded, None), "{logs}");
        let succeeded = codex.story.find(id, "attempt.succeeded").unwrap().event;
        let Some(Event::AttemptSucceeded(e)) = succeeded else {
            panic!("it succeeded")
        };
        assert_eq!(e.result.as_deref(), Some("by a tool"), "{logs}");
    }
}

/// Its model asks people, and reads what they answer.
#[tokio::test]
async fn it_asks_people_by_a_tool() {
    let Some(mut codex) = Codex::up().await else {
        return;
    };
    let id = codex.submit("[[mcpask]]", json!({})).await;
    assert_eq!(asks(&mut codex.story, id).await, 1);
    let id_text = id.to_string();
    let answer = ["approvals", "approve", &id_text, "--text", "the red one"];
    codex.system.cli(&answer).await.ok();
    let (outcome, class, _) = codex.end(id).await;
    assert_eq!((outcome, class), (Outcome::Succeeded, None));
    let asked = std::fs::read_to_string(codex.system.dir.path().join("api.log")).unwrap();
    assert!(asked.contains("the red one"), "the model was told");
}

#[tokio::test]
async fn what_the_service_refuses_has_its_class() {
    let Some(mut codex) = Codex::up().await else {
        return;
    };
    let bad = codex.submit("[[err400]]", json!({})).await;
    let auth = codex.submit("[[err401]]", json!({})).await;
    let limit = codex.submit("[[err429]]", json!({})).await;
    for (id, expected) in [
        (bad, OutcomeClass::ModelError),
        (auth, OutcomeClass::Auth),
        (limit, OutcomeClass::RateLimited),
    ] {
        let (outcome, class, _) = codex.end(id).await;
        assert_eq!((outcome, class), (Outcome::Failed, Some(expected)));
    }
    assert!(codex.story.find(limit, "attempt.throttled").is_some());
}
