//! An agent that is killed in the middle of edits: the next attempt goes on in the same workspace,
//! and what is told of it covers both. The program is a fake; the real one is in `agents_at_work`.

use conductor_harness::binary;
use conductor_protocol::terms::SandboxKind;
use serde_json::json;

use super::*;
use crate::sandbox::small_image;

/// What is tried, as far as it works here.
const KINDS: [SandboxKind; 5] = [
    SandboxKind::None,
    SandboxKind::Landlock,
    SandboxKind::Bubblewrap,
    SandboxKind::Podman,
    SandboxKind::Docker,
];

/// Each role in a process of its own, and one agent whose Claude Code CLI is played.
async fn world() -> World {
    let mut system = System::bare().await;
    // Where it can be seen from within every sandbox.
    let programs = system.dir.path().join("programs");
    std::fs::create_dir(&programs).unwrap();
    let script = binary::workspace().join("tests/e2e/conformance/fake-agent.py");
    let cli = programs.join("claude");
    std::fs::copy(script, &cli).unwrap();
    let shown = format!("/usr:{}", programs.display());
    system.env = vec![
        ("CONDUCTOR_CLAUDE_BIN".into(), cli.display().to_string()),
        ("CONDUCTOR_SANDBOX_RO".into(), shown),
        ("CONDUCTOR_CONTAINER_IMAGE".into(), small_image(&system)),
    ];
    for role in ["orchestrator", "scheduler"] {
        system.start_role(role, role);
    }
    start(&mut system);
    system.wait_ready(1).await;
    World::over(system).await
}

fn start(system: &mut System) {
    let data = system.dir.path().join("data").display().to_string();
    let agent = ["agent", "--name", "a1", "--slots", "12"];
    system.start("a1", &[&agent[..], &["--data-dir", &data]].concat());
}

impl World {
    /// The sandboxes that work here, of those that are tried.
    async fn kinds(&mut self) -> Vec<SandboxKind> {
        let agents = |s: &Story| s.state().agents.values().next().cloned();
        let agent = self.story.until("an agent", agents).await;
        let (offered, missing): (Vec<_>, Vec<_>) = KINDS
            .into_iter()
            .partition(|kind| agent.joined.sandboxes.contains_key(kind));
        for kind in missing {
            eprintln!("not tested here: {kind} does not work");
        }
        offered
    }

    async fn says(&self, id: TaskId, what: &str) {
        until_asked(async || {
            let logs = self.system.cli(&["task", "logs", &id.to_string()]).await;
            if logs.stdout.contains(what) {
                Ok(())
            } else {
                Err(format!("{what:?} of {id} in {}", logs.stdout))
            }
        })
        .await;
    }

    fn result(&self, id: TaskId) -> String {
        match self.story.find(id, "attempt.succeeded").unwrap().event {
            Some(Event::AttemptSucceeded(e)) => e.result.unwrap(),
            other => panic!("{other:?}"),
        }
    }

    /// The patch of the same edits, made by hand where `f` has this text.
    fn by_hand(&self, name: &str, f: &str) -> String {
        let clone = self.system.dir.path().join(name);
        for (file, text) in [
            ("f", format!("{f}4\n5\n")),
            ("new", "n\n".into()),
            ("late", "l\n".into()),
        ] {
            std::fs::write(clone.join(file), text).unwrap();
        }
        git(&clone, &["add", "-N", "."]);
        git(&clone, &["diff", "--binary"])
    }
}

#[tokio::test]
async fn edits_of_an_attempt_that_was_killed_are_gone_on_with_in_every_sandbox() {
    let mut world = world().await;
    let empty = world.system.dir.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    git(&empty, &["init", "-q"]);
    git(
        world.system.dir.path(),
        &["clone", "-q", "remote.git", "clone"],
    );
    let by_hand = [
        world.by_hand("clone", "1\n2\n3\n"),
        world.by_hand("empty", ""),
    ];
    let mut tasks = Vec::new();
    for kind in world.kinds().await {
        for (workspace, n) in [(json!({"git": {"url": world.remote}}), 0), (json!({}), 1)] {
            let run = json!({"claude": {"prompt": "please [[edit]]"}});
            let task = json!({"run": run, "workspace": workspace, "sandbox": {"kind": kind}});
            tasks.push((kind, n, world.system.submit(task).await));
        }
    }
    for (_, _, id) in &tasks {
        world.says(*id, "half of it").await;
    }
    world.system.process("a1").kill9();
    start(&mut world.system);
    let found = ["[\"1\", \"2\", \"3\", \"4\"]", "[\"4\"]"].map(|lines| lines.replace('"', "'"));
    for (kind, n, id) in tasks {
        world.succeeded(id).await;
        assert_eq!(
            world.result(id),
            format!("found {} and True", found[n]),
            "{kind}"
        );
        let patch = world.artifact(id, "changes.patch").await;
        assert_eq!(patch.trim(), by_hand[n], "{kind}");
        assert_eq!(world.changed(id).files, 3, "{kind}");
        let attempts = world.story.state().tasks[&id].attempts;
        assert_eq!(attempts, 2, "{kind}");
    }
    // What was kept for them is kept no longer.
    let kept = world.system.dir.path().join("data/kept/a1/sessions");
    assert!(!kept.exists());
    world.system.assert_replay_agrees().await;
}

/// The node is gone, and its volume is restored on another, where the agent is started again: nothing
/// but the bytes that were stored counts.
#[tokio::test]
async fn test_10_after_moving_nodes_the_session_is_gone_on_with() {
    let mut world = world().await;
    let mut tasks = Vec::new();
    for kind in world.kinds().await {
        let run = json!({"claude": {"prompt": "please [[edit]]"}});
        let task = json!({
            "run": run, "workspace": {"git": {"url": world.remote}}, "sandbox": {"kind": kind},
        });
        tasks.push((kind, world.system.submit(task).await));
    }
    for (_, id) in &tasks {
        world.says(*id, "half of it").await;
    }
    world.system.process("a1").kill9();
    let dir = world.system.dir.path();
    let (data, volume) = (dir.join("data"), dir.join("volume"));
    let copy = std::process::Command::new("cp")
        .arg("--archive")
        .args([&data, &volume])
        .status();
    assert!(copy.unwrap().success());
    std::fs::remove_dir_all(&data).unwrap();
    std::fs::rename(&volume, &data).unwrap();
    start(&mut world.system);
    for (kind, id) in tasks {
        world.succeeded(id).await;
        let found = "found ['1', '2', '3', '4'] and True";
        assert_eq!(world.result(id), found, "{kind}");
        assert_eq!(world.story.state().tasks[&id].attempts, 2, "{kind}");
    }
    world.system.assert_replay_agrees().await;
}
