//! Models without keys: the real Claude Code CLI behind the agent's proxy, where npm can install
//! it; and secrets that are granted.

use std::path::PathBuf;
use std::time::Instant;

use conductor_domain::state::Outcome;
use conductor_eventlog::EventLog;
use conductor_harness::process::descendants;
use conductor_harness::{Story, System, until};
use conductor_protocol::event::{Event, Usage};
use conductor_protocol::{OutcomeClass, TaskId};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::claude::claude_cli;
use crate::model_api::{ANTHROPIC, ModelApi};

/// What the agent knows and nobody else may see.
pub(crate) const KEY: &str = "sk-ant-api03-R3alKey-0123456789abcdef";

pub(crate) struct Models {
    pub(crate) system: System,
    pub(crate) story: Story,
    _api: ModelApi,
    pub(crate) api_log: PathBuf,
}

impl Models {
    /// A system whose agents have the CLI, and a key for it.
    pub(crate) async fn up() -> Option<Self> {
        Self::up_with(&[]).await
    }

    /// The same, with more arguments for `conductor up`.
    pub(crate) async fn up_with(args: &[&str]) -> Option<Self> {
        let Some(cli) = claude_cli() else {
            eprintln!(
                "npm cannot install the Claude Code CLI here: the proxy is tested with clients of our own only"
            );
            return None;
        };
        let mut system = System::bare().await;
        let api = ModelApi::start(ANTHROPIC, system.dir.path());
        system.env = vec![
            ("CONDUCTOR_CLAUDE_BIN".into(), cli.display().to_string()),
            ("ANTHROPIC_BASE_URL".into(), api.url.clone()),
            ("ANTHROPIC_API_KEY".into(), KEY.into()),
        ];
        system.start_up(args).await;
        let (story, api_log) = (system.story().await, system.dir.path().join("api.log"));
        Some(Self {
            system,
            story,
            _api: api,
            api_log,
        })
    }

    pub(crate) async fn submit(&self, prompt: &str, fields: Value) -> TaskId {
        let run = json!({"prompt": prompt, "allowed_tools": ["Bash"], "model": "claude-haiku-4-5"});
        let mut task = json!({"run": {"claude": run}});
        for (field, value) in fields.as_object().unwrap() {
            task[field] = value.clone();
        }
        self.system.submit(task).await
    }

    /// Which headers the provider got for what was asked of a model.
    fn asked(&self) -> Vec<Value> {
        let log = std::fs::read_to_string(&self.api_log).unwrap_or_default();
        let lines = log
            .lines()
            .map(|l| serde_json::from_str::<Value>(l).unwrap());
        let posts = lines.filter(|l| l["method"] == "POST");
        posts.map(|mut l| l["headers"].take()).collect()
    }

    /// How a task ended: its class and message, and what it used.
    pub(crate) async fn end(
        &mut self,
        id: TaskId,
    ) -> (Outcome, Option<(OutcomeClass, String)>, Option<Usage>) {
        let outcome = self.story.outcome(id).await;
        let failed = self.story.find(id, "attempt.failed").and_then(|t| t.event);
        let failure = match failed {
            Some(Event::AttemptFailed(e)) => Some((e.class, e.message)),
            _ => None,
        };
        let usage = self.story.state().tasks[&id].aside.usage.clone();
        (outcome, failure, usage)
    }
}

/// Every byte of the log.
pub(crate) async fn log_bytes(system: &System) -> Vec<u8> {
    let log = system.connection.as_ref();
    let mut all = Vec::new();
    for seq in 1..=log.last_seq().await.unwrap() {
        all.extend_from_slice(&log.read(seq).await.unwrap().unwrap().payload);
    }
    all
}

pub(crate) fn holds(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|w| w == text.as_bytes())
}

/// Arguments and environment of a process, as others of its user see them.
pub(crate) fn seen_of(pid: u32) -> Vec<u8> {
    let read = |what: &str| std::fs::read(format!("/proc/{pid}/{what}")).unwrap_or_default();
    [read("cmdline"), read("environ")].concat()
}

#[tokio::test]
async fn test_12_the_key_is_in_no_log_output_argument_or_environment() {
    let Some(mut models) = Models::up().await else {
        return;
    };
    // One tells its environment; another runs for as long as it takes to look at its processes.
    let told = models.submit("[[bash]] look around", json!({})).await;
    assert_eq!(models.end(told).await.0, Outcome::Succeeded);
    let running = models.submit("[[bashlong]]", json!({})).await;
    models.story.told(running, "attempt.started").await;
    let up = models.system.process("up").pid();
    let is_sleep = |pid: &u32| seen_of(*pid).starts_with(b"sleep\0");
    let inside = until(|| {
        let inside = descendants(up);
        if inside.iter().any(is_sleep) {
            Ok(inside)
        } else {
            Err("its tool's command".into())
        }
    })
    .await;
    let all = inside
        .iter()
        .flat_map(|pid| seen_of(*pid))
        .collect::<Vec<u8>>();
    assert!(
        holds(&all, "ANTHROPIC_API_KEY=conductor-"),
        "there is a placeholder"
    );
    assert!(
        !holds(&all, KEY),
        "the key is in an argument or environment"
    );
    models
        .system
        .cli(&["task", "cancel", &running.to_string()])
        .await
        .ok();
    assert_eq!(models.end(running).await.0, Outcome::Cancelled);

    let asked = models.asked();
    assert!(
        asked.len() >= 3 && asked.iter().all(|h| h["x-api-key"] == KEY),
        "{asked:?}"
    );
    assert!(
        !holds(&log_bytes(&models.system).await, KEY),
        "the key is in the log"
    );
    for id in [told, running] {
        let logs = models
            .system
            .cli(&["task", "logs", &id.to_string()])
            .await
            .ok();
        assert!(!logs.contains(KEY), "the key is in the output: {logs}");
    }
}

#[tokio::test]
async fn usage_is_metered_and_summed() {
    let Some(mut models) = Models::up().await else {
        return;
    };
    let mut ids = Vec::new();
    for queue in ["default", "default", "other"] {
        let id = conductor_harness::system::new_id();
        let run = json!({"claude": {"prompt": "[[plain]] hi", "model": "claude-haiku-4-5"}});
        let task = json!({"id": id.to_string(), "run": run});
        models
            .system
            .submit_raw(queue, task.to_string().into_bytes())
            .await;
        ids.push(id);
    }
    for id in &ids {
        let (outcome, _, usage) = models.end(*id).await;
        assert_eq!(outcome, Outcome::Succeeded);
        let usage = usage.expect("usage is recorded");
        assert!(usage.session.is_some(), "{usage:?}");
        let tokens = (
            usage.turns,
            usage.input_tokens,
            usage.cached_tokens,
            usage.output_tokens,
        );
        assert_eq!(tokens, (1, 1_500, 8_000, 42));
        assert!((usage.cost_usd - 0.002_76).abs() < 1e-9, "{usage:?}");
    }
    let args = ["usage", "--by", "queue", "-o", "json"];
    let rows = models.system.cli(&args).await.json();
    let figures = |row: &Value| {
        (
            row["queue"].clone(),
            row["attempts"].clone(),
            row["cost_usd"].clone(),
        )
    };
    let rows: Vec<_> = rows.as_array().unwrap().iter().map(figures).collect();
    let expected = [("default", 2, 0.005_52), ("other", 1, 0.002_76)];
    assert_eq!(
        rows,
        expected.map(|(q, n, usd)| (json!(q), json!(n), json!(usd)))
    );
    let shown = models.system.cli(&["usage"]).await.ok();
    assert!(
        shown.contains("claude-haiku-4-5") && shown.contains("total"),
        "{shown}"
    );
}

#[tokio::test]
async fn a_budget_stops_what_would_go_on() {
    let Some(mut models) = Models::up().await else {
        return;
    };
    let turns = models
        .submit("[[loop]]", json!({"budget": {"turns": 3}}))
        .await;
    let (outcome, failure, usage) = models.end(turns).await;
    assert_eq!(outcome, Outcome::Failed);
    let (class, message) = failure.unwrap();
    assert_eq!(class, OutcomeClass::Budget, "{message}");
    assert!(message.contains("3 of 3 turns"), "{message}");
    assert_eq!(usage.unwrap().turns, 3);
    assert_eq!(models.asked().len(), 3, "nothing was asked beyond it");

    let money = models
        .submit("[[loopbig]]", json!({"budget": {"usd": 0.5}}))
        .await;
    let (_, failure, usage) = models.end(money).await;
    assert_eq!(failure.unwrap().0, OutcomeClass::Budget);
    // Two answers of 0.351 dollars each: the second began below the limit.
    let usd = usage.unwrap().cost_usd;
    assert!((usd - 0.702_1).abs() < 0.001, "{usd}");

    let time = models
        .submit("[[bashlong]]", json!({"budget": {"time": "3s"}}))
        .await;
    let (_, failure, _) = models.end(time).await;
    let (class, message) = failure.unwrap();
    assert_eq!(class, OutcomeClass::Budget, "{message}");
}

#[tokio::test]
async fn a_key_that_is_refused_ends_it_at_once_and_is_not_tried_again() {
    let Some(mut models) = Models::up().await else {
        return;
    };
    let began = Instant::now();
    let retry = json!({"max_attempts": 3, "backoff": "1ms"});
    let id = models.submit("[[err401]]", json!({"retry": retry})).await;
    let (outcome, failure, _) = models.end(id).await;
    let (class, message) = failure.unwrap();
    assert_eq!((outcome, class), (Outcome::Failed, OutcomeClass::Auth));
    assert!(message.contains("refused the agent's key"), "{message}");
    // By itself the CLI goes on for three minutes.
    assert!(began.elapsed().as_secs() < 90, "{:?}", began.elapsed());
    assert_eq!(models.asked().len(), 1, "it was asked once");
    assert_eq!(models.story.state().tasks[&id].attempts, 1);
}

#[tokio::test]
async fn a_provider_that_has_no_more_is_a_fact_and_others_of_its_models_are_refused() {
    let Some(mut models) = Models::up().await else {
        return;
    };
    let throttled = models.submit("[[err429x1]]", json!({})).await;
    assert_eq!(models.end(throttled).await.0, Outcome::Succeeded);
    let Some(Event::AttemptThrottled(e)) = models
        .story
        .find(throttled, "attempt.throttled")
        .unwrap()
        .event
    else {
        panic!("it is a fact")
    };
    assert!(e.until_ms.is_some());
    let asked = models.asked().len();
    // The CLI's own default model is another.
    let run = json!({"prompt": "[[plain]]"});
    let task = json!({"run": {"claude": run}, "models": ["claude-haiku-3-x"]});
    let id = models.system.submit(task).await;
    let (_, failure, _) = models.end(id).await;
    let (class, message) = failure.unwrap();
    assert_eq!(class, OutcomeClass::Denied, "{message}");
    assert!(message.contains("it may use claude-haiku-3-x"), "{message}");
    assert_eq!(models.asked().len(), asked, "it was not asked");
}

#[tokio::test]
async fn models_are_reached_from_every_sandbox() {
    let Some(mut models) = Models::up_with(&["--sandbox", "none"]).await else {
        return;
    };
    for kind in sandboxes(&models.system).await {
        let id = models
            .submit("[[bash]] look", json!({"sandbox": kind}))
            .await;
        let (outcome, failure, usage) = models.end(id).await;
        assert_eq!(outcome, Outcome::Succeeded, "{kind}: {failure:?}");
        assert_eq!(usage.unwrap().turns, 2, "{kind}");
        let Some(Event::AttemptStarted(e)) =
            models.story.find(id, "attempt.started").unwrap().event
        else {
            panic!("it started")
        };
        assert_eq!(e.sandbox.unwrap().kind.as_str(), kind);
    }
    assert!(models.asked().iter().all(|h| h["x-api-key"] == KEY));
}

/// Sandboxes that the agents offer, containers left out: their images hold no CLI.
pub(crate) async fn sandboxes(system: &System) -> Vec<&'static str> {
    let mut story = system.story().await;
    let find = |s: &Story| s.state().agents.values().next().map(|a| a.joined.clone());
    let joined = story.until("an agent", find).await;
    let kinds = joined.sandboxes.keys().map(|kind| kind.as_str());
    let kinds: Vec<_> = kinds
        .filter(|k| ["none", "landlock", "bubblewrap"].contains(k))
        .collect();
    eprintln!("sandboxes here: {kinds:?}");
    assert!(kinds.contains(&"none"));
    kinds
}

#[tokio::test]
async fn hosts_that_are_allowed_are_reached_through_the_agent_from_every_sandbox() {
    let mut system = System::bare().await;
    system.start_up(&["--sandbox", "none"]).await;
    let mut story = system.story().await;
    let (port, other) = (answering("it is reached").await, answering("never").await);
    // As any client of an HTTP proxy would.
    let ask = |port| {
        format!(
            "exec 3<>/dev/tcp/127.0.0.1/${{HTTP_PROXY##*:}}; \
             printf 'GET http://127.0.0.1:{port}/ HTTP/1.1\\r\\nconnection: close\\r\\n\\r\\n' >&3; cat <&3"
        )
    };
    for kind in sandboxes(&system).await {
        let script = format!("{}; {}", ask(port), ask(other));
        let sandbox = json!({"kind": kind, "network": {"hosts": [format!("127.0.0.1:{port}")]}});
        let run = json!({"command": ["bash", "-c", script]});
        let id = system.submit(json!({"run": run, "sandbox": sandbox})).await;
        let outcome = story.outcome(id).await;
        let logs = system.cli(&["task", "logs", &id.to_string()]).await.ok();
        assert_eq!(outcome, Outcome::Succeeded, "{kind}: {logs}");
        assert!(logs.contains("it is reached"), "{kind}: {logs}");
        assert!(
            logs.contains("may not reach") && !logs.contains("never"),
            "{kind}: {logs}"
        );
    }
}

/// The port of a server that says this to whoever asks.
async fn answering(text: &'static str) -> u16 {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut asked = [0; 1024];
            let _ = stream.read(&mut asked).await;
            let head = format!(
                "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{text}",
                text.len()
            );
            let _ = stream.write_all(head.as_bytes()).await;
        }
    });
    port
}

#[tokio::test]
async fn secrets_are_files_of_those_who_were_granted_them_and_are_shown_nowhere() {
    const TOKEN: &str = "t0ken/with+signs&more-0123456789";
    const FROM_ENV: &str = "from-the-environment-42";
    let mut system = System::bare().await;
    let secrets = system.dir.path().join("secrets");
    std::fs::create_dir(&secrets).unwrap();
    std::fs::write(secrets.join("TOKEN"), format!("{TOKEN}\n")).unwrap();
    system.env = vec![("CONDUCTOR_SECRET_OTHER".into(), FROM_ENV.into())];
    system
        .start_up(&["--secrets-dir", &secrets.display().to_string()])
        .await;
    let mut story = system.story().await;
    let script = "cd $CONDUCTOR_SECRETS_DIR || exit 3; stat -c '%a %n' *; cat TOKEN; base64 TOKEN; \
                  xxd -p -c 99 TOKEN 2>/dev/null; printf before-; sleep 0.1; cat OTHER >&2; \
                  wc -c < OTHER; env | grep -c t0ken/; cat TOKEN >&2; exit 7";
    let run = json!({"command": ["sh", "-c", script]});
    let granted = system
        .submit(json!({"run": run, "secrets": ["TOKEN", "OTHER"]}))
        .await;
    let unknown = system
        .submit(json!({"run": {"command": ["true"]}, "secrets": ["MISSING"]}))
        .await;
    let plain = json!({"run": {"command": ["sh", "-c", "echo ${CONDUCTOR_SECRETS_DIR-none}"]}});
    let plain = system.submit(plain).await;
    for id in [granted, unknown, plain] {
        story.outcome(id).await;
    }
    let failed = |id| match story.find(id, "attempt.failed").unwrap().event {
        Some(Event::AttemptFailed(e)) => e,
        other => panic!("{other:?}"),
    };
    let said = failed(granted);
    assert_eq!(said.exit_code, Some(7), "{said:?}");
    assert!(said.message.contains("***") && said.result.as_ref().unwrap().contains("***"));
    let logs = system
        .cli(&["task", "logs", &granted.to_string()])
        .await
        .ok();
    assert!(logs.contains("400 OTHER\n400 TOKEN\n***\n"), "{logs}");
    assert!(logs.contains("before-"), "{logs}");
    let log = log_bytes(&system).await;
    for secret in [TOKEN, FROM_ENV] {
        assert!(
            !logs.contains(secret) && !holds(&log, secret),
            "{secret} in {logs}"
        );
    }
    let missing = failed(unknown);
    assert_eq!(missing.class, OutcomeClass::NotStarted);
    assert!(
        missing.message.contains("CONDUCTOR_SECRET_MISSING"),
        "{}",
        missing.message
    );
    let logs = system.cli(&["task", "logs", &plain.to_string()]).await.ok();
    assert_eq!(logs, "none\n");
}
