//! The real Claude Code CLI in the middle of edits in bubblewrap, with no network and no key, when its
//! agent is killed: another attempt goes on in its session and its files.

use std::fs;
use std::path::Path;

use conductor_harness::process::{descendants, gone};
use conductor_harness::until;
use conductor_protocol::event::Usage;
use conductor_protocol::terms::SandboxKind;
use serde_json::json;

use super::*;
use crate::claude::{claude_cli, is_sleep};
use crate::model_api::ModelApi;
use crate::models::{KEY, holds, log_bytes, seen_of};

/// What one answer of the model costs, as the proxy reckons it for this model, and its tokens.
const MODEL: &str = "claude-haiku-4-5";
const ANSWER_USD: f64 = 0.002_76;
const ANSWER_TOKENS: u64 = 42;
/// Answers before it is killed: it looks, reads, edits, and is held up.
const ANSWERS_BEFORE: u32 = 4;
/// And after: it looks at its edit, makes a file, and ends.
const ANSWERS_AFTER: u32 = 3;

/// Each role in a process of its own, one agent that has the CLI, and a model that edits.
async fn place() -> Option<(World, ModelApi)> {
    let Some(cli) = claude_cli() else {
        eprintln!("npm cannot install the Claude Code CLI here: tested with a fake one only");
        return None;
    };
    let mut system = System::bare().await;
    let api = ModelApi::playing("edits", system.dir.path());
    system.env = vec![
        ("CONDUCTOR_CLAUDE_BIN".into(), cli.display().to_string()),
        ("ANTHROPIC_BASE_URL".into(), api.url.clone()),
        ("ANTHROPIC_API_KEY".into(), KEY.into()),
    ];
    for role in ["orchestrator", "scheduler"] {
        system.start_role(role, role);
    }
    system.start_agent("a1");
    system.wait_ready(1).await;
    let mut world = World::over(system).await;
    if !has_bubblewrap(&mut world).await {
        return None;
    }
    Some((world, api))
}

/// Where everything is tested it must work; elsewhere it is said why it does not.
async fn has_bubblewrap(world: &mut World) -> bool {
    let agents = |s: &Story| s.state().agents.values().next().cloned();
    let agent = world.story.until("an agent", agents).await;
    let is_there = agent
        .joined
        .sandboxes
        .contains_key(&SandboxKind::Bubblewrap);
    if !is_there {
        let said = world.system.process("a1").said();
        let why: Vec<_> = said
            .lines()
            .filter(|line| line.contains("does not work here"))
            .collect();
        assert!(
            std::env::var_os("CI").is_none(),
            "bubblewrap must work where everything is tested: {why:?}"
        );
        eprintln!("not tested here: bubblewrap does not work: {why:?}");
    }
    is_there
}

impl World {
    async fn submit_edits(&self, api: &ModelApi) -> TaskId {
        let port = api.url.rsplit(':').next().unwrap().to_owned();
        let task = json!({"port": port});
        let run = json!({
            "prompt": format!("Put f right, and make new. [[task]] {task}"), "model": MODEL,
            "allowed_tools": ["Bash", "Read", "Edit", "Write"],
        });
        let task = json!({
            "run": {"claude": run}, "sandbox": {"kind": "bubblewrap"},
            "workspace": {"git": {"url": self.remote}},
        });
        self.system.submit(task).await
    }

    /// Waits until it is held up after its first edit, and all by then is on disk: what it used, and
    /// the CLI's own transcript, which it writes a little later. Its processes.
    async fn held_up(&mut self, id: TaskId) -> Vec<u32> {
        let agent = self.system.process("a1").pid();
        let own = self
            .system
            .dir
            .path()
            .join(format!("data/attempts/a1/{id}"));
        until(|| {
            let all = descendants(agent);
            let used = fs::read(own.join("usage.json")).unwrap_or_default();
            let turns = serde_json::from_slice::<Usage>(&used).map(|u| u.turns);
            let is_known = turns.is_ok_and(|turns| turns == ANSWERS_BEFORE);
            let is_written = transcript(&own).contains("sleep 97");
            if is_known && is_written && all.iter().copied().any(is_sleep) {
                Ok(all)
            } else {
                let used = String::from_utf8_lossy(&used);
                Err(format!("its tool's command, {is_written}, {used}"))
            }
        })
        .await
    }

    fn sessions(&self, id: TaskId) -> Vec<Option<String>> {
        let started = self.story.applied(id).filter_map(|told| match &told.event {
            Some(Event::AttemptStarted(e)) => Some(e.session.clone()),
            _ => None,
        });
        started.collect()
    }

    fn result_of(&self, id: TaskId) -> String {
        match self.story.find(id, "attempt.succeeded").unwrap().event {
            Some(Event::AttemptSucceeded(e)) => e.result.unwrap(),
            other => panic!("{other:?}"),
        }
    }
}

/// What the CLI has written of its session, below the directory of its attempt.
fn transcript(own: &Path) -> String {
    let projects = fs::read_dir(own.join("home/.claude/projects"));
    let within = |project: fs::DirEntry| fs::read_dir(project.path()).into_iter().flatten();
    let files = projects.into_iter().flatten().flatten().flat_map(within);
    let text = |file: fs::DirEntry| fs::read_to_string(file.path()).unwrap_or_default();
    files.flatten().map(text).collect()
}

/// Arguments and environment of its processes hold a placeholder, and none the key; none is in the
/// machine's network.
fn assert_boxed_in(processes: &[u32]) {
    let seen: Vec<u8> = processes.iter().flat_map(|pid| seen_of(*pid)).collect();
    assert!(holds(&seen, "ANTHROPIC_API_KEY=conductor-"));
    assert!(!holds(&seen, KEY), "the key is within");
    let network = |of: &str| fs::read_link(Path::new("/proc").join(of).join("ns/net")).unwrap();
    let tool = processes.iter().copied().find(|pid| is_sleep(*pid));
    let tool = tool.unwrap().to_string();
    assert_ne!(network(&tool), network("self"));
}

#[tokio::test]
async fn the_real_cli_goes_on_with_its_edits_after_a_sigkill_of_its_agent_and_costs_count_once() {
    let Some((mut world, api)) = place().await else {
        return;
    };
    let id = world.submit_edits(&api).await;
    let processes = world.held_up(id).await;
    assert_boxed_in(&processes);
    world.system.process("a1").kill9();
    for pid in processes {
        gone(pid).await;
    }
    world.system.start_agent("a1");
    world.succeeded(id).await;

    // It looked around inside, and went on from there: its session has the four calls of before, the
    // one that was cut off among them, and the two of after.
    let result = world.result_of(id);
    assert!(result.starts_with("done after 6 results"), "{result}");
    for seen in ["ANTHROPIC_API_KEY=conductor-", "no way to the service"] {
        assert!(result.contains(seen), "{seen} in {result}");
    }
    let interfaces: Vec<_> = result.lines().filter(|l| l.trim() == "lo").collect();
    assert!(
        !interfaces.is_empty() && !result.contains("eth"),
        "{result}"
    );
    let sessions = world.sessions(id);
    assert_eq!(sessions.len(), 2, "it was resumed once");
    assert_eq!(sessions[0], sessions[1], "the same session");

    // Each answer of the model was paid once.
    let sent = fs::read_to_string(&api.log).unwrap();
    let sent = sent.lines().filter(|l| l.contains("\"POST\"")).count();
    let answers = ANSWERS_BEFORE + ANSWERS_AFTER;
    assert_eq!(sent, answers as usize);
    let usage = world.story.state().tasks[&id].aside.usage.clone().unwrap();
    assert_eq!(usage.turns, answers, "{usage:?}");
    assert_eq!(usage.output_tokens, u64::from(answers) * ANSWER_TOKENS);
    let usd = f64::from(answers) * ANSWER_USD;
    assert!((usage.cost_usd - usd).abs() < 1e-9, "{usage:?}");

    // The patch is that of the same edits made by hand.
    let patch = world.artifact(id, "changes.patch").await;
    git(
        world.system.dir.path(),
        &["clone", "-q", "remote.git", "by-hand"],
    );
    let by_hand = world.system.dir.path().join("by-hand");
    fs::write(by_hand.join("f"), "1\ntwo\n3\n").unwrap();
    fs::write(by_hand.join("new"), "n\n").unwrap();
    git(&by_hand, &["add", "-N", "."]);
    assert_eq!(patch.trim(), git(&by_hand, &["diff", "--binary"]));
    assert!(
        !holds(&log_bytes(&world.system).await, KEY),
        "the key is in the log"
    );
    world.system.assert_replay_agrees().await;
}
