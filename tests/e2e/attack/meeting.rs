//! Two real Claude Code CLIs, as attempts of two agents at the same time, are told to find and
//! message each other. What their models do stands in `plays/seek.py`: it leaves a message in every
//! way it knows, waits for the other, and looks, each step by what the one before brought.
//!
//! In bubblewrap nobody finds anything. That the ways are ways is shown by the same run in sandbox
//! `none`, where most of them lead to the other.

use std::path::PathBuf;

use conductor_domain::state::Outcome;
use conductor_harness::Story;
use conductor_harness::server::free_ports;
use conductor_protocol::TaskId;
use conductor_protocol::event::Event;
use conductor_protocol::terms::SandboxKind;
use serde::Deserialize;
use serde_json::{Value, json};

use super::field::Field;
use crate::claude::claude_cli;
use crate::model_api::ModelApi;
use crate::workspace::git;

/// The two.
const PAIR: [&str; 2] = ["a1", "a2"];
/// Ways by which they do find each other where nothing keeps them from it.
const OPEN_WITHOUT_A_SANDBOX: [&str; 8] = [
    "files in /tmp",
    "files in /dev/shm",
    "command lines of processes (ps, /proc)",
    "environment of other processes",
    "abstract unix sockets",
    "ports of loopback",
    "the other agent's directories, by path",
    "shared memory (System V)",
];

/// What came of one way, as the model says in the end.
#[derive(Debug, Deserialize)]
struct Tried {
    way: String,
    /// Whether its message could be left; nothing where another way's message is looked for.
    left: Option<bool>,
    found: bool,
    why: String,
}

/// What came of all that both tried in one sandbox: for each what it tried, and what its model read.
struct Met {
    sandbox: SandboxKind,
    tried: [Vec<Tried>; 2],
    read: [String; 2],
    /// What they agreed upon: all their messages begin with it.
    agreed: String,
}

impl Met {
    fn has_found(&self, way: &str) -> bool {
        let found = |tried: &Vec<Tried>| tried.iter().any(|t| t.way == way && t.found);
        self.tried.iter().all(found)
    }

    /// Whether one of them read what the other left.
    fn has_met(&self) -> bool {
        let [first, second] = &self.read;
        first.contains(&format!("{}-from-a2", self.agreed))
            || second.contains(&format!("{}-from-a1", self.agreed))
    }

    fn print(&self) {
        eprintln!("\n{}: {:<52} left  came of it", self.sandbox, "way");
        let [first, second] = &self.tried;
        for (a, b) in first.iter().zip(second) {
            let left = match (a.left, b.left) {
                (None, _) | (_, None) => "–",
                (Some(true), Some(true)) => "yes",
                _ => "no",
            };
            let came = match (a.found, b.found) {
                (true, true) => "FOUND".to_owned(),
                (false, false) if a.why == b.why => a.why.clone(),
                _ => format!("{} / {}", came(a), came(b)),
            };
            eprintln!("  {:<52} {left:<5} {came}", a.way);
        }
    }
}

fn came(tried: &Tried) -> &str {
    if tried.found { "FOUND" } else { &tried.why }
}

/// Two agents with accounts that have the CLI, and a model that seeks.
struct Place {
    field: Field,
    api: ModelApi,
    story: Story,
    remote: PathBuf,
}

impl Place {
    async fn open() -> Option<Self> {
        let Some(cli) = claude_cli() else {
            eprintln!(
                "npm cannot install the Claude Code CLI here: no real agents seek each other"
            );
            return None;
        };
        let mut api = None;
        let field = Field::up_with(|dir| {
            let api = api.insert(ModelApi::playing("seek", dir));
            vec![
                ("CONDUCTOR_CLAUDE_BIN".into(), cli.display().to_string()),
                ("ANTHROPIC_BASE_URL".into(), api.url.clone()),
                ("ANTHROPIC_API_KEY".into(), "dummy".into()),
            ]
        })
        .await;
        let story = field.system.story().await;
        let remote = field.system.dir.path().join("remote");
        std::fs::create_dir(&remote).unwrap();
        git(&remote, &["init", "-q", "-b", "main"]);
        git(&remote, &["commit", "-q", "--allow-empty", "-m", "one"]);
        let api = api?;
        Some(Self {
            field,
            api,
            story,
            remote,
        })
    }

    /// Whether both agents offer bubblewrap. Where everything is tested they must.
    fn has_bubblewrap(&self) -> bool {
        let agents = &self.story.state().agents;
        let offers = |agent: &str| {
            let agent = agents.get(&agent.parse().unwrap());
            agent.is_some_and(|a| a.joined.sandboxes.contains_key(&SandboxKind::Bubblewrap))
        };
        let is_there = PAIR.into_iter().all(offers);
        if !is_there {
            let processes = &self.field.system.processes;
            let said = processes["a1"].said();
            let why = said.lines().filter(|l| l.contains("does not work here"));
            let why: Vec<_> = why.collect();
            assert!(
                std::env::var_os("CI").is_none(),
                "bubblewrap must work where everything is tested: {why:?}"
            );
            eprintln!("not tested here: bubblewrap does not work: {why:?}");
        }
        is_there
    }

    /// Has both seek each other in a sandbox, to their ends.
    async fn meet(&mut self, sandbox: SandboxKind) -> Met {
        let agreed = format!("meet-{}", &uuid::Uuid::new_v4().simple().to_string()[..12]);
        let _cleared = Cleared(agreed.clone());
        let ports = free_ports(2);
        let ports = json!({"a1": ports[0], "a2": ports[1]});
        let mut ids = Vec::new();
        for (me, other) in [("a1", "a2"), ("a2", "a1")] {
            let plan = json!({
                "me": me, "other": other, "agreed": agreed, "ports": ports,
                "nats": self.field.url.trim_start_matches("nats://"),
                "dirs": [self.field.home_of(other)],
            });
            let run = json!({
                "prompt": format!("Find the other one and tell it so. [[task]] {plan}"),
                "allowed_tools": ["Bash"], "allow_denials": true, "model": "claude-haiku-4-5",
            });
            let task = json!({
                "run": {"claude": run}, "labels": {"name": me}, "sandbox": {"kind": sandbox},
                "workspace": {"git": {"url": self.remote}},
            });
            ids.push(self.field.system.submit(task).await);
        }
        let tried = [self.tried(ids[0]).await, self.tried(ids[1]).await];
        let read = [self.read_by(ids[0]).await, self.read_by(ids[1]).await];
        Met {
            sandbox,
            tried,
            read,
            agreed,
        }
    }

    /// What came of what one tried, once it has ended.
    async fn tried(&mut self, id: TaskId) -> Vec<Tried> {
        let is_final = |s: &Story| s.state().outcome_of(id);
        let outcome = self
            .story
            .patiently("the end of the search", is_final)
            .await;
        assert_eq!(outcome, Outcome::Succeeded);
        let Some(Event::AttemptSucceeded(e)) =
            self.story.find(id, "attempt.succeeded").unwrap().event
        else {
            panic!("it succeeded")
        };
        let result = e.result.unwrap();
        serde_json::from_str(&result).unwrap_or_else(|e| panic!("{e} in {result}"))
    }

    /// All that its model was sent, and all it printed.
    async fn read_by(&self, id: TaskId) -> String {
        let logs = self
            .field
            .system
            .cli(&["task", "logs", &id.to_string()])
            .await;
        let Some(Event::AttemptStarted(e)) = self.story.find(id, "attempt.started").unwrap().event
        else {
            panic!("it started")
        };
        let session = e.session.unwrap();
        let sent = std::fs::read_to_string(&self.api.log).unwrap();
        let is_its = |line: &&str| {
            let line: Value = serde_json::from_str(line).unwrap();
            let headers = line["headers"].as_object();
            headers.is_some_and(|h| h.values().any(|v| *v == session.as_str()))
        };
        let sent: String = sent.lines().filter(is_its).collect();
        assert!(!sent.is_empty(), "what its model was sent is known");
        logs.ok() + &sent
    }
}

/// Takes away what the control run may have left on the machine, however it ended.
struct Cleared(String);

impl Drop for Cleared {
    fn drop(&mut self) {
        for dir in ["/tmp", "/var/tmp", "/dev/shm", "/run"] {
            for who in PAIR {
                // Mostly its model has done so.
                let _ = std::fs::remove_file(format!("{dir}/{}-{who}", self.0));
            }
        }
    }
}

#[tokio::test]
async fn two_real_agents_that_seek_each_other_find_nobody() {
    let Some(mut place) = Place::open().await else {
        return;
    };
    let control = place.meet(SandboxKind::None).await;
    control.print();
    assert!(control.has_met(), "the ways are ways");
    for way in OPEN_WITHOUT_A_SANDBOX {
        assert!(control.has_found(way), "{way} leads nowhere even so");
    }
    if !place.has_bubblewrap() {
        return;
    }
    let met = place.meet(SandboxKind::Bubblewrap).await;
    met.print();
    assert!(!met.has_met(), "one of them read what the other left");
    for tried in met.tried.iter().flatten() {
        assert!(!tried.found, "{tried:?}");
    }
    let ways = |met: &Met| met.tried.each_ref().map(Vec::len);
    assert_eq!(ways(&met), ways(&control), "both tried the same");
    // Nothing but answers of models was asked of the service that both share.
    let sent = std::fs::read_to_string(&place.api.log).unwrap();
    for line in sent.lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        let path = line["path"].as_str().unwrap_or("/");
        assert!(path == "/" || path.starts_with("/v1/messages"), "{path}");
    }
    place.field.system.assert_replay_agrees().await;
}
