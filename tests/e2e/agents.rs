//! Agents that die, leave, freeze and come back.

use conductor_domain::state::Outcome;
use conductor_harness::process::{descendants, gone};
use conductor_harness::system::sh;
use conductor_harness::{Story, System, until};
use conductor_protocol::TaskId;
use serde_json::json;

async fn running_on(story: &mut Story, id: TaskId) -> String {
    story.told(id, "attempt.started").await;
    story.state().tasks[&id]
        .assigned()
        .unwrap()
        .agent
        .to_string()
}

#[tokio::test]
async fn a_killed_agent_leaves_no_process_and_its_task_runs_elsewhere_once_it_is_back() {
    let mut system = System::split().await;
    let mut story = system.story().await;
    let marker = system.dir.path().join("second");
    let script = format!(
        "[ $CONDUCTOR_ATTEMPT -ge 2 ] && touch {} && exit 0; sleep 300",
        marker.display()
    );
    let mut task = sh(&script);
    task["retry"] = json!({"max_attempts": 3, "backoff": "10ms"});
    let id = system.submit(task).await;
    let agent = running_on(&mut story, id).await;
    let children = descendants(system.process(&agent).pid());
    assert!(!children.is_empty());
    system.process(&agent).kill9();
    for child in children {
        gone(child).await;
    }
    // Its new incarnation ends the lease of the old one; nobody waits 45 s for silence.
    system.start_agent(&agent);
    assert_eq!(story.outcome(id).await, Outcome::Succeeded);
    assert_eq!(story.state().tasks[&id].attempts, 2);
    assert!(marker.exists());
    // What ended its first attempt does not speak of it, and is shown all the same.
    for command in [["task", "show"], ["replay", "--task"]] {
        let shown = system
            .cli(&[command[0], command[1], &id.to_string()])
            .await
            .ok();
        assert_eq!(shown.matches("agent.joined").count(), 1, "{shown}");
    }
    system.assert_replay_agrees().await;
}

#[tokio::test]
async fn an_agent_that_never_comes_back_is_lost_and_its_task_runs_elsewhere() {
    let mut system = System::split().await;
    let mut story = system.story().await;
    let id = system
        .submit(sh("[ $CONDUCTOR_ATTEMPT -ge 2 ] || sleep 300"))
        .await;
    let agent = running_on(&mut story, id).await;
    system.process(&agent).kill9();
    // With the defaults: 45 s without a sign of life.
    assert_eq!(story.outcome(id).await, Outcome::Succeeded);
    let lost: Vec<_> = story
        .told
        .iter()
        .filter(|t| t.kind == "agent.lost")
        .collect();
    assert_eq!(lost.len(), 1);
    let silent_ms = lost[0].time_ms - story.find(id, "attempt.started").unwrap().time_ms;
    assert!((40_000..60_000).contains(&silent_ms), "{silent_ms}");
    assert_eq!(story.state().tasks[&id].attempts, 2);
    system.assert_replay_agrees().await;
}

#[tokio::test]
async fn an_agent_told_to_stop_finishes_what_it_has_and_leaves() {
    let mut system = System::split().await;
    let mut story = system.story().await;
    let id = system.submit(sh("sleep 1; echo finished")).await;
    let agent = running_on(&mut story, id).await;
    let status = system.process(&agent).terminate().await;
    assert!(
        status.success(),
        "{status:?}: {}",
        system.process(&agent).said()
    );
    assert_eq!(story.outcome(id).await, Outcome::Succeeded);
    assert_eq!(story.state().tasks[&id].attempts, 1);
    story
        .until("the agent to have left", |s| {
            let agent = s
                .state()
                .agents
                .iter()
                .find(|(id, _)| id.as_str() == agent)?;
            (agent.1.status.as_str() == "left").then_some(())
        })
        .await;
}

#[tokio::test]
async fn a_second_process_of_the_same_name_takes_over_and_the_first_stops() {
    let mut system = System::split().await;
    let mut first = system.processes.remove("a1").unwrap();
    system.start_agent("a1");
    let mut story = system.story().await;
    let joins = |s: &Story| s.told.iter().filter(|t| t.kind == "agent.joined").count();
    story
        .until("the second to join", |s| (joins(s) == 3).then_some(()))
        .await;
    let status = first.ended().await;
    assert_eq!(status.code(), Some(5), "{}", first.said());
    assert!(first.said().contains("same agent name"), "{}", first.said());
}

#[tokio::test]
async fn an_agent_works_through_an_outage_of_nats_and_its_result_counts() {
    let mut system = System::split().await;
    let mut story = system.story().await;
    let done = system.dir.path().join("done");
    let id = system
        .submit(sh(&format!(
            "sleep 1; touch {}; echo worked",
            done.display()
        )))
        .await;
    story.told(id, "attempt.started").await;
    system.server.as_mut().unwrap().server.kill();
    until(|| {
        if done.exists() {
            Ok(())
        } else {
            Err("the end of its work".into())
        }
    })
    .await;
    system.server.as_mut().unwrap().start_again();
    assert_eq!(story.outcome(id).await, Outcome::Succeeded);
    assert_eq!(story.state().tasks[&id].attempts, 1, "the same attempt");
    system.assert_replay_agrees().await;
}

#[tokio::test]
async fn an_outage_longer_than_the_lease_ends_the_attempt_and_another_follows() {
    let mut system = System::split().await;
    let mut story = system.story().await;
    let file = system.dir.path().join("pid");
    let mut task = sh(&format!(
        "[ $CONDUCTOR_ATTEMPT -ge 2 ] && exit 0; echo $$ > {}; sleep 300",
        file.display()
    ));
    task["timeouts"] = json!({"heartbeat": "2s"});
    let id = system.submit(task).await;
    story.told(id, "attempt.started").await;
    let pid: u32 = until(|| {
        let written = std::fs::read_to_string(&file).unwrap_or_default();
        written
            .trim()
            .parse()
            .map_err(|_| format!("a process id, not {written:?}"))
    })
    .await;
    system.server.as_mut().unwrap().server.kill();
    // Nobody can tell the agent: it knows by itself when its lease is over.
    gone(pid).await;
    system.server.as_mut().unwrap().start_again();
    assert_eq!(story.outcome(id).await, Outcome::Succeeded);
    assert_eq!(story.state().tasks[&id].attempts, 2);
    system.assert_replay_agrees().await;
}

#[tokio::test]
async fn nothing_is_left_of_an_attempt_however_it_ends() {
    let system = System::up().await;
    let mut story = system.story().await;
    // Two that would outlive their parent: one in the background, one in its own session.
    let leave = "sleep 300 & echo $!; setsid sleep 300 & echo $!; exec 1>&-; ";
    for (end, outcome) in [
        ("exit 0", Outcome::Succeeded),
        ("exit 3", Outcome::Failed),
        ("kill -9 $$", Outcome::Failed),
    ] {
        let id = system.submit(sh(&format!("{leave}{end}"))).await;
        assert_eq!(story.outcome(id).await, outcome, "{end}");
        let pids = system.cli(&["task", "logs", &id.to_string()]).await.ok();
        assert_eq!(pids.lines().count(), 2, "{pids}");
        for pid in pids.lines() {
            gone(pid.parse().unwrap()).await;
        }
    }
    let attempts = system.dir.path().join("data/attempts");
    let left: Vec<_> = std::fs::read_dir(attempts)
        .unwrap()
        .flatten()
        .flat_map(|agent| std::fs::read_dir(agent.path()).unwrap().flatten())
        .filter(|entry| entry.path().is_dir())
        .map(|entry| entry.path())
        .collect();
    assert!(left.is_empty(), "directories are left: {left:?}");
}

#[tokio::test]
async fn attempts_are_isolated_in_directories_and_environment() {
    let system = System::up().await;
    let mut story = system.story().await;
    let a = system
        .submit(sh(
            "pwd; touch mine; ls; env | cut -d= -f1 | sort | tr '\\n' ' '",
        ))
        .await;
    let b = system.submit(sh("pwd; ls")).await;
    for id in [a, b] {
        assert_eq!(story.outcome(id).await, Outcome::Succeeded);
    }
    let logs_a = system.cli(&["task", "logs", &a.to_string()]).await.ok();
    let logs_b = system.cli(&["task", "logs", &b.to_string()]).await.ok();
    let lines: Vec<&str> = logs_a.lines().collect();
    assert_eq!(lines[1], "mine");
    assert_eq!(
        logs_b.lines().count(),
        1,
        "its directory is empty: {logs_b}"
    );
    assert_ne!(lines[0], logs_b.lines().next().unwrap());
    assert!(
        !lines[2].contains("CARGO"),
        "the environment leaks: {}",
        lines[2]
    );
    assert!(lines[2].contains("CONDUCTOR_TASK") && lines[2].contains("PATH"));
}

#[tokio::test]
async fn output_of_any_shape_survives_within_limits() {
    let system = System::up().await;
    let mut story = system.story().await;
    let long = system
        .submit(sh("head -c 300000 /dev/zero | tr '\\0' x; echo; echo end"))
        .await;
    let binary = system
        .submit(sh("printf 'a\\377\\000b\\n'; echo err >&2"))
        .await;
    let flood = system.submit(sh("yes | head -c 80000000; echo last")).await;
    for id in [long, binary, flood] {
        assert_eq!(story.outcome(id).await, Outcome::Succeeded);
    }
    let logs = system.cli(&["task", "logs", &long.to_string()]).await.ok();
    assert_eq!(logs.matches('x').count(), 300_000);
    assert!(logs.ends_with("end\n"));
    let logs = system
        .cli(&["task", "logs", &binary.to_string()])
        .await
        .ok();
    assert!(
        logs.contains("a\u{fffd}\0b") && logs.contains("err"),
        "{logs:?}"
    );
    let dropped = match story.find(flood, "attempt.succeeded").unwrap().event {
        Some(conductor_protocol::event::Event::AttemptSucceeded(e)) => e.output.unwrap(),
        other => panic!("{other:?}"),
    };
    assert!(
        dropped.dropped > 0 && dropped.bytes >= 80_000_000,
        "{dropped:?}"
    );
}

#[tokio::test]
async fn a_short_heartbeat_does_not_kill_a_healthy_attempt() {
    let system = System::up().await;
    let mut story = system.story().await;
    let mut task = sh("sleep 5; echo healthy");
    task["timeouts"] = json!({"heartbeat": "1s"});
    // The agents have been idle for a while: their usual beat is seconds away.
    let idle = system.submit(sh("sleep 2")).await;
    assert_eq!(story.outcome(idle).await, Outcome::Succeeded);
    let id = system.submit(task).await;
    assert_eq!(
        story.outcome(id).await,
        Outcome::Succeeded,
        "{}",
        story.text()
    );
    assert_eq!(story.state().tasks[&id].attempts, 1);
}

#[tokio::test]
async fn a_program_that_kills_its_reaper_is_ended_all_the_same() {
    let system = System::up().await;
    let mut story = system.story().await;
    let killed = system
        .submit(sh("echo $$; kill -9 $PPID; exec sleep 300"))
        .await;
    assert_eq!(story.outcome(killed).await, Outcome::Failed);
    let mut task = sh("echo $$; kill -STOP $PPID; exec sleep 300");
    task["timeouts"] = json!({"run": "1s"});
    let stopped = system.submit(task).await;
    assert_eq!(story.outcome(stopped).await, Outcome::TimedOut);
    for id in [killed, stopped] {
        let pid = system.cli(&["task", "logs", &id.to_string()]).await.ok();
        gone(pid.trim().parse().unwrap()).await;
    }
    no_slot_is_used(&mut story).await;
}

#[tokio::test]
async fn a_revocation_that_comes_while_an_attempt_is_being_stopped_frees_its_slots() {
    let system = System::up().await;
    let mut story = system.story().await;
    let mut task = sh("trap '' TERM; sleep 300; sleep 300");
    task["timeouts"] = json!({"run": "300ms"});
    let id = system.submit(task).await;
    let started = story.told(id, "attempt.started").await;
    // Into the pause between SIGTERM and SIGKILL: later than the run timeout by half a second.
    let due = started.time_ms + 800;
    until(|| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let now = now.unwrap().as_millis() as u64;
        if now > due {
            Ok(())
        } else {
            Err("its run timeout".into())
        }
    })
    .await;
    system.cli(&["task", "cancel", &id.to_string()]).await.ok();
    assert_eq!(story.outcome(id).await, Outcome::Cancelled);
    no_slot_is_used(&mut story).await;
}

/// Waits until every agent has all its slots back.
async fn no_slot_is_used(story: &mut Story) {
    story
        .until("all slots to be free", |s| {
            s.state()
                .agents
                .values()
                .all(|a| a.slots_used() == 0)
                .then_some(())
        })
        .await;
}

/// Tasks of a named workspace go on where it is; when that agent is gone they wait until somebody
/// says that they may begin anew.
#[tokio::test]
async fn a_named_workspace_stays_with_its_agent_until_it_is_released() {
    let mut system = System::split().await;
    let mut story = system.story().await;
    let mut task = sh("true");
    task["workspace"] = json!({"name": "site"});
    let first = system.submit(task.clone()).await;
    assert_eq!(story.outcome(first).await, Outcome::Succeeded);
    let keeper = |story: &Story| {
        let held = story.state().workspaces.values().next();
        held.map(|w| w.agent.to_string()).unwrap()
    };
    let agent = keeper(&story);
    let other = if agent == "a1" { "a2" } else { "a1" };
    let list = system
        .cli(&["workspace", "list", "-o", "json"])
        .await
        .json();
    assert_eq!(
        (&list[0]["name"], &list[0]["agent"]),
        (&json!("site"), &json!(agent))
    );
    for _ in 0..3 {
        let next = system.submit(task.clone()).await;
        assert_eq!(story.outcome(next).await, Outcome::Succeeded);
        assert_eq!(keeper(&story), agent);
    }
    system.process(&agent).terminate().await;
    let waits = system.submit(task).await;
    let is_ready = |s: &Story| (s.state().tasks.get(&waits)?.state_name() == "ready").then_some(());
    story.until("a task that waits", is_ready).await;
    let why = system.cli(&["why", &waits.to_string()]).await.ok();
    let expected = format!("its workspace \"site\" is on {agent}, which is left");
    assert!(why.contains(&expected), "{why}");
    system.cli(&["workspace", "release", "site"]).await.ok();
    assert_eq!(story.outcome(waits).await, Outcome::Succeeded);
    assert_eq!(keeper(&story), other);
    system.assert_replay_agrees().await;
}
