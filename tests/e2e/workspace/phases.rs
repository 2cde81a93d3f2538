//! Setup programs, checks, and being stopped on the way.

use std::net::TcpListener;

use conductor_harness::process::{descendants, gone};
use conductor_harness::until;
use conductor_protocol::OutcomeClass;
use serde_json::{Value, json};

use super::*;

fn run(script: &str) -> Value {
    json!(["sh", "-c", script])
}

#[tokio::test]
async fn setup_comes_before_and_checks_after_in_the_same_workspace() {
    let mut world = World::up().await;
    let fields = json!({
        "setup": [run("echo 1 > order; echo from setup"), run("echo 2 >> order")],
        "checks": [run("test \"$(tr -d '\\n' < order)\" = 123; echo from check")],
    });
    let id = world
        .submit("echo 3 >> order; echo the result", fields)
        .await;
    world.succeeded(id).await;
    let Some(Event::AttemptSucceeded(e)) = world.story.find(id, "attempt.succeeded").unwrap().event
    else {
        panic!("it succeeded")
    };
    assert_eq!(e.result.as_deref(), Some("the result"));
    let logs = world
        .system
        .cli(&["task", "logs", &id.to_string()])
        .await
        .ok();
    for line in [
        "[setup 1/2: sh -c",
        "from setup",
        "[setup 2/2:",
        "[check 1/1:",
        "from check",
    ] {
        assert!(logs.contains(line), "{line} in {logs}");
    }
}

#[tokio::test]
async fn a_check_that_fails_counts_more_than_what_the_program_said() {
    let mut world = World::up().await;
    let checks = json!([
        run("true"),
        run("echo the tests are red >&2; exit 3"),
        run("touch /never")
    ]);
    let fields = json!({"checks": checks, "workspace": {}});
    let id = world.submit("echo all is well; echo x > x", fields).await;
    let message = world.failed(id, OutcomeClass::CheckFailed).await;
    for words in ["check 2/3", "exit code 3", "the tests are red"] {
        assert!(message.contains(words), "{words} in {message}");
    }
    assert_eq!(
        world.failure(id).unwrap().result.as_deref(),
        Some("all is well")
    );
    assert_eq!(
        world.changed(id).files,
        1,
        "what it changed is of interest all the same"
    );
}

#[tokio::test]
async fn a_setup_that_fails_starts_nothing() {
    let mut world = World::up().await;
    let marker = world.system.dir.path().join("ran");
    let fields = json!({"setup": [run("true"), run("echo no compiler >&2; exit 1")]});
    let id = world
        .submit(&format!("touch {}", marker.display()), fields)
        .await;
    let message = world.failed(id, OutcomeClass::NotStarted).await;
    for words in ["setup 2/2", "exit code 1", "no compiler"] {
        assert!(message.contains(words), "{words} in {message}");
    }
    assert!(!marker.exists());
}

#[tokio::test]
async fn the_time_of_all_its_programs_counts_together() {
    let mut world = World::up().await;
    let fields = json!({
        "setup": [run("sleep 1")], "checks": [run("sleep 60")], "timeouts": {"run": "2s"},
    });
    let id = world.submit("true", fields).await;
    let outcome = world.outcome(id).await;
    assert_eq!(outcome.1, Some(OutcomeClass::Timeout), "{outcome:?}");
    let failure = world.failure(id).unwrap();
    assert!(
        failure.message.contains("ran longer than 2s"),
        "{}",
        failure.message
    );
}

#[tokio::test]
async fn an_attempt_can_be_cancelled_in_every_phase() {
    let mut world = World::up().await;
    let dir = world.system.dir.path().to_owned();
    // A remote that takes connections and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/r.git", silent.local_addr().unwrap());
    let wait = |name: &str| {
        run(&format!(
            "echo $$ > {}; exec sleep 300",
            dir.join(name).display()
        ))
    };
    for (phase, fields) in [
        ("clone", json!({"workspace": {"git": {"url": url}}})),
        ("setup", json!({"setup": [wait("setup")]})),
        ("check", json!({"checks": [wait("check")]})),
    ] {
        let id = world.submit("true", fields).await;
        let up = world.system.process("up").pid();
        let is_there = |pid: &u32| {
            let line = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            line.contains("git-remote-http") || line.starts_with("sleep\0")
        };
        let running = until(|| {
            let found: Vec<u32> = descendants(up).into_iter().filter(is_there).collect();
            if found.is_empty() {
                Err(format!("the {phase}"))
            } else {
                Ok(found)
            }
        })
        .await;
        world
            .system
            .cli(&["task", "cancel", &id.to_string()])
            .await
            .ok();
        assert_eq!(world.story.outcome(id).await, Outcome::Cancelled, "{phase}");
        for pid in running {
            gone(pid).await;
        }
        // Its slots are free again, and what it worked in has gone.
        world
            .story
            .until("the end of what was cancelled", |s| {
                let agent = s.state().agents.values().next()?;
                agent.slots.is_empty().then_some(())
            })
            .await;
    }
    let attempts = dir.join("data/attempts");
    until(|| {
        let agents = std::fs::read_dir(&attempts).unwrap().flatten();
        let left: Vec<_> = agents
            .flat_map(|agent| std::fs::read_dir(agent.path()).unwrap().flatten())
            .map(|entry| entry.path())
            .collect();
        if left.is_empty() {
            Ok(())
        } else {
            Err(format!("the end of {left:?}"))
        }
    })
    .await;
}

#[tokio::test]
async fn commits_outlive_the_agent_that_was_killed() {
    let mut world = World::split().await;
    let marker = world.system.dir.path().join("committed");
    let script = format!(
        "[ $CONDUCTOR_ATTEMPT = 1 ] || exit 0
         echo precious > p; git add p; git commit -q -m precious
         git rev-parse HEAD > {0}.part; mv {0}.part {0}; sleep 300",
        marker.display()
    );
    let fields = json!({
        "workspace": {"git": {"url": world.remote}},
        "retry": {"max_attempts": 2, "backoff": "10ms"},
    });
    let id = world.submit(&script, fields).await;
    let head = until(|| std::fs::read_to_string(&marker).map_err(|e| e.to_string())).await;
    let assigned = world.story.told(id, "attempt.started").await;
    assert!(assigned.task == Some(id));
    let agent = world.story.state().tasks[&id]
        .assigned()
        .unwrap()
        .agent
        .to_string();
    world.system.process(&agent).kill9();
    world.system.start_agent(&agent);
    assert_eq!(world.story.outcome(id).await, Outcome::Succeeded);
    let kept = world
        .system
        .dir
        .path()
        .join("data/kept")
        .join(&agent)
        .join("git");
    let mut caches = std::fs::read_dir(kept).unwrap().flatten().map(|e| e.path());
    let cache = caches.find(|path| path.is_dir()).unwrap();
    let name = format!("refs/conductor/{id}/1");
    assert_eq!(git(&cache, &["rev-parse", &name]), head.trim());
    assert_eq!(git(&cache, &["show", &format!("{name}:p")]), "precious");
}

#[tokio::test]
async fn commits_outlive_an_attempt_that_is_cancelled() {
    let mut world = World::up().await;
    let marker = world.system.dir.path().join("committed");
    let script = format!(
        "echo p > p; git add p; git commit -q -m p
         git rev-parse HEAD > {0}.part; mv {0}.part {0}; sleep 300",
        marker.display()
    );
    let fields = json!({"workspace": {"git": {"url": world.remote}}});
    let id = world.submit(&script, fields).await;
    let head = until(|| std::fs::read_to_string(&marker).map_err(|e| e.to_string())).await;
    world
        .system
        .cli(&["task", "cancel", &id.to_string()])
        .await
        .ok();
    assert_eq!(world.story.outcome(id).await, Outcome::Cancelled);
    let kept = world.system.dir.path().join("data/kept/a1/git");
    let caches = std::fs::read_dir(kept).unwrap().flatten();
    let cache = caches.map(|e| e.path()).find(|p| p.is_dir()).unwrap();
    let name = format!("refs/conductor/{id}/1");
    until(|| {
        let refs = git(
            &cache,
            &["for-each-ref", "--format=%(objectname) %(refname)"],
        );
        let kept = format!("{} {name}", head.trim());
        if refs.contains(&kept) {
            Ok(())
        } else {
            Err(format!("{kept} among {refs}"))
        }
    })
    .await;
}
