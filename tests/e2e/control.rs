//! What operators say: cancel, retry, pause, drain, and questions.

use conductor_domain::state::Outcome;
use conductor_harness::system::sh;
use conductor_harness::{PlainClient, System};
use conductor_protocol::Control;
use serde_json::json;

#[tokio::test]
async fn cancel_ends_what_waits_and_what_runs_with_all_its_processes() {
    let system = System::up().await;
    let mut story = system.story().await;
    let running = system
        .submit(sh("trap '' TERM; sleep 300 & echo $!; wait; sleep 300"))
        .await;
    let mut later = sh("true");
    later["delay"] = json!("1h");
    let waiting = system.submit(later).await;
    let dependent = system
        .submit(json!({"run": {"noop": {}}, "needs": [waiting]}))
        .await;
    story.told(running, "attempt.started").await;
    story.told(waiting, "task.accepted").await;
    let watched = running.to_string();
    let arguments = ["task", "logs", "--follow", &watched];
    let follow = system.cli(&arguments);
    let cancel = async {
        for id in [running, waiting] {
            system
                .cli(&["task", "cancel", &id.to_string(), "--reason", "enough"])
                .await
                .ok();
        }
    };
    let (logs, ()) = tokio::join!(follow, cancel);
    for id in [running, waiting, dependent] {
        let want = if id == dependent {
            Outcome::Failed
        } else {
            Outcome::Cancelled
        };
        assert_eq!(story.outcome(id).await, want);
    }
    story.told(running, "attempt.stopped").await;
    conductor_harness::process::gone(logs.ok().trim().parse().unwrap()).await;
    let again = system.cli(&["task", "cancel", &running.to_string()]).await;
    assert_eq!(again.code, 5, "{again:?}");
}

#[tokio::test]
async fn an_ended_task_is_retried_by_hand_and_dead_letters_are_redriven() {
    let system = System::up().await;
    let mut story = system.story().await;
    let flag = system.dir.path().join("flag");
    let script = format!("[ -e {} ]", flag.display());
    let ids = [
        system.submit(sh(&script)).await,
        system.submit(sh(&script)).await,
    ];
    for id in ids {
        assert_eq!(story.outcome(id).await, Outcome::Failed);
    }
    let queues = system.cli(&["queue", "list", "-o", "json"]).await.json();
    assert_eq!(queues[0]["dead"], 2, "{queues:#}");
    std::fs::write(&flag, "").unwrap();
    let done = system
        .cli(&["task", "retry", "--wait", &ids[0].to_string()])
        .await;
    assert_eq!(done.code, 0, "{done:?}");
    let redriven = system
        .cli(&["queue", "redrive", "default", "-o", "json"])
        .await
        .json();
    assert_eq!(redriven["redriven"], 1);
    story.told(ids[1], "attempt.succeeded").await;
    assert_eq!(story.outcome(ids[1]).await, Outcome::Succeeded);
    system.assert_replay_agrees().await;
}

#[tokio::test]
async fn a_paused_queue_holds_its_tasks_and_why_says_so() {
    let system = System::up().await;
    let mut story = system.story().await;
    system.cli(&["queue", "pause", "default"]).await.ok();
    let id = system.submit(sh("true")).await;
    story.told(id, "task.accepted").await;
    let why = system.cli(&["why", &id.to_string()]).await.ok();
    assert!(why.contains("paused"), "{why}");
    let queues = system.cli(&["queue", "list"]).await.ok();
    assert!(queues.contains("true"), "{queues}");
    system.cli(&["queue", "resume", "default"]).await.ok();
    assert_eq!(story.outcome(id).await, Outcome::Succeeded);
}

#[tokio::test]
async fn a_drained_agent_gets_nothing_more_and_goes_on_when_resumed() {
    let system = System::split().await;
    let mut story = system.story().await;
    system.cli(&["agent", "drain", "a1"]).await.ok();
    let mut ids = Vec::new();
    for _ in 0..6 {
        ids.push(system.submit(json!({"run": {"command": ["true"]}})).await);
    }
    for id in ids {
        assert_eq!(story.outcome(id).await, Outcome::Succeeded);
    }
    let agents = system.cli(&["agent", "list", "-o", "json"]).await.json();
    assert_eq!(agents[0]["status"], "drained", "{agents:#}");
    let shown = system.cli(&["agent", "show", "a1"]).await.ok();
    assert!(shown.contains("drained"), "{shown}");
    system.cli(&["agent", "drain", "a2"]).await.ok();
    let stuck = system.submit(sh("true")).await;
    story.told(stuck, "task.accepted").await;
    assert!(
        system
            .cli(&["why", &stuck.to_string()])
            .await
            .ok()
            .contains("drain")
    );
    system.cli(&["agent", "resume", "a1"]).await.ok();
    assert_eq!(story.outcome(stuck).await, Outcome::Succeeded);
    let on_a1 = story
        .told
        .iter()
        .filter(|t| t.kind == "attempt.assigned")
        .count();
    assert_eq!(on_a1, 7);
}

#[tokio::test]
async fn labels_slots_and_concurrency_keys_are_kept() {
    let system = System::up_with(&["--agents", "1", "--slots", "4", "--label", "os=linux"]).await;
    let mut story = system.story().await;
    // Two at once under the key, though four slots are free.
    let mut keyed = sh("sleep 0.2");
    keyed["concurrency"] = json!({"key": "db", "limit": 2});
    let mut ids = Vec::new();
    for _ in 0..4 {
        ids.push(system.submit(keyed.clone()).await);
    }
    // One that takes all the slots.
    let mut wide = sh("true");
    wide["slots"] = json!(4);
    ids.push(system.submit(wide).await);
    let mut picky = sh("true");
    picky["labels"] = json!({"os": "plan9"});
    let never = system.submit(picky).await;
    for id in &ids {
        assert_eq!(story.outcome(*id).await, Outcome::Succeeded);
    }
    let why = system.cli(&["why", &never.to_string()]).await.ok();
    assert!(why.contains("os=plan9"), "{why}");
    // From the log alone: how many leases of the key were open at once.
    let (mut open, mut most) = (0_i32, 0);
    for told in &story.told {
        if told.task.is_some_and(|t| ids[..4].contains(&t)) {
            match told.kind {
                "attempt.assigned" => open += 1,
                "attempt.succeeded" => open -= 1,
                _ => {}
            }
            most = most.max(open);
        }
    }
    assert_eq!(most, 2);
}

#[tokio::test]
async fn settings_are_changed_in_the_log() {
    let system = System::up().await;
    system.cli(&["queue", "pause", "default"]).await.ok();
    system
        .cli(&["config", "put", r#"{"backlog_max": 2}"#])
        .await
        .ok();
    for _ in 0..3 {
        system.submit(sh("true")).await;
    }
    let mut story = system.story().await;
    let told = story
        .until("a rejection", |s| {
            s.told.iter().find(|t| t.kind == "task.rejected").cloned()
        })
        .await;
    assert!(format!("{:?}", told.event).contains("is full"), "{told:?}");
    let wrong = system.cli(&["config", "put", r#"{"backlog": 2}"#]).await;
    assert_eq!(wrong.code, 2, "{wrong:?}");
}

#[tokio::test]
async fn a_replica_whose_state_differs_is_found_out() {
    let system = System::up().await;
    let mut client = PlainClient::connect(&system.url);
    let cell = conductor_harness::system::cell();
    client.subscribe(&conductor_protocol::subject::inspect(&cell));
    let liar = tokio::task::spawn_blocking(move || {
        let question = client.receive();
        let answer = json!({
            "instance": "liar", "roles": ["scheduler"], "leads": [], "seq": 3,
            "digest": "0".repeat(64), "gaps": [],
        });
        client.publish(&question.reply.unwrap(), answer.to_string().as_bytes());
        client.flush();
    });
    let ran = system.cli(&["replay", "--compare-live"]).await;
    liar.await.unwrap();
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.stdout.contains("liar at 3 DIFFERS"), "{}", ran.stdout);
    assert!(
        ran.stdout.contains("agrees"),
        "the real one does: {}",
        ran.stdout
    );
}

#[tokio::test]
async fn log_tail_and_replay_show_what_happened_and_when() {
    let system = System::up().await;
    let mut story = system.story().await;
    let id = system.submit(sh("true")).await;
    story.ended(id).await;
    // A cancel that comes too late is void, and stays visible.
    system
        .control(&Control::Cancel {
            task: id,
            reason: None,
        })
        .await;
    let tail = system.cli(&["log", "tail", "-n", "50"]).await.ok();
    for kind in [
        "leader.elected",
        "agent.joined",
        "task.accepted",
        "attempt.succeeded",
        "VOID (already_final)",
    ] {
        assert!(tail.contains(kind), "{kind} is not in\n{tail}");
    }
    let started = story.find(id, "attempt.started").unwrap().seq;
    let as_of = system
        .cli(&["replay", "--as-of", &started.to_string(), "-o", "json"])
        .await
        .json();
    assert_eq!(as_of["tasks"]["running"], 1, "{as_of:#}");
    let time_ms = story.find(id, "attempt.started").unwrap().time_ms;
    let time = conductor_protocol::human::format_time(time_ms);
    let as_of = system
        .cli(&["replay", "--as-of", &time, "-o", "json"])
        .await
        .json();
    assert!(as_of["seq"].as_u64().unwrap() >= started, "{as_of:#}");
    assert!(
        as_of["time"].as_str().unwrap() <= time.as_str(),
        "{as_of:#}"
    );
    let watched = system.cli(&["task", "watch", &id.to_string()]).await.ok();
    assert!(watched.contains("attempt.succeeded"), "{watched}");
    let now = system
        .cli(&["replay", "-o", "json", "--task", &id.to_string()])
        .await
        .json();
    assert_eq!(now["task"]["state"], "succeeded");
    assert_eq!(
        now["timeline"].as_array().unwrap().len(),
        5,
        "with the void one: {now:#}"
    );
    let void = system.cli(&["replay", "--void"]).await.ok();
    assert!(void.contains("VOID (already_final)"), "{void}");
    system.assert_replay_agrees().await;
}
