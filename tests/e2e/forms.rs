//! Every form a submission may take, and what comes back.

use conductor_domain::state::Outcome;
use conductor_harness::system::{new_id, sh};
use conductor_harness::{PlainClient, Story, System};
use conductor_protocol::TaskId;
use serde_json::{Value, json};

const SUBJECT: &str = "conductor.local.submit.default";

/// Waits for a task with this name to be there, and returns its id.
async fn named(story: &mut Story, name: &str) -> TaskId {
    let find = |s: &Story| {
        let mut tasks = s.state().tasks.iter();
        tasks
            .find(|(_, t)| t.spec.name.as_deref() == Some(name))
            .map(|(id, _)| *id)
    };
    story.until(&format!("a task named {name}"), find).await
}

#[tokio::test]
async fn a_bare_publish_is_a_complete_submission() {
    let system = System::up().await;
    let mut client = PlainClient::connect(&system.url);
    client.publish(SUBJECT, br#"{"run":{"command":["sh","-c","echo hi"]}}"#);
    client.flush();
    let mut story = system.story().await;
    let id = story
        .until("a task", |s| s.state().tasks.keys().next().copied())
        .await;
    let task = story.ended(id).await;
    assert_eq!(task.outcome(), Some(Outcome::Succeeded));
    assert_eq!(
        story.kinds(id),
        [
            "task.accepted",
            "attempt.assigned",
            "attempt.started",
            "attempt.succeeded"
        ]
    );
    let shown = system
        .cli(&["task", "show", &id.to_string(), "-o", "json"])
        .await
        .json();
    assert_eq!(shown["result"], "hi");
    assert_eq!(
        system.cli(&["task", "logs", &id.to_string()]).await.ok(),
        "hi\n"
    );
}

#[tokio::test]
async fn an_array_and_messagepack_are_as_good() {
    let system = System::up().await;
    let mut story = system.story().await;
    let array = json!([
        {"name": "one", "run": {"noop": {}}},
        {"name": "two", "run": {"noop": {}}, "needs": ["one"]},
    ]);
    system
        .submit_raw("default", array.to_string().into_bytes())
        .await;
    let packed = rmp_serde::to_vec_named(&json!({"name": "three", "run": {"noop": {}}})).unwrap();
    system.submit_raw("builds", packed).await;
    for name in ["one", "two", "three"] {
        let id = named(&mut story, name).await;
        assert_eq!(story.outcome(id).await, Outcome::Succeeded, "{name}");
    }
    let three = named(&mut story, "three").await;
    assert_eq!(story.state().tasks[&three].spec.queue.as_str(), "builds");
}

#[tokio::test]
async fn a_wrong_submission_is_answered_with_every_bad_field() {
    let system = System::up().await;
    let mut client = PlainClient::connect(&system.url);
    client.subscribe("_INBOX.me");
    let wrong = json!({"run": {"command": []}, "priority": 12, "retry": {"max_attempts": 0}, "prioritty": 3});
    let reply = [("Conductor-Reply", "_INBOX.me")];
    client.publish_with(SUBJECT, &reply, wrong.to_string().as_bytes());
    let answer = client.receive().json();
    assert_eq!(answer["type"], "rejected", "{answer:#}");
    let errors = answer["errors"].as_array().unwrap();
    let fields: Vec<&str> = errors
        .iter()
        .map(|e| e["field"].as_str().unwrap())
        .collect();
    for field in ["run.command", "priority", "retry.max_attempts", "prioritty"] {
        assert!(
            fields.iter().any(|f| f.starts_with(field)),
            "{field} is not in {fields:?}"
        );
    }
    assert!(
        errors
            .iter()
            .all(|e| !e["expected"].as_str().unwrap().is_empty()),
        "{errors:#?}"
    );
    let mut story = system.story().await;
    let rejected = story.until("the rejection", |s| {
        s.told.iter().find(|t| t.kind == "task.rejected").cloned()
    });
    assert!(rejected.await.task.is_none());
    assert_eq!(story.state().tasks.len(), 0);
    assert_eq!(story.state().counters.rejected, 1);
}

#[tokio::test]
async fn a_reply_subject_hears_acceptance_and_outcome() {
    let system = System::up().await;
    let mut client = PlainClient::connect(&system.url);
    client.subscribe("_INBOX.me");
    let reply = [("Conductor-Reply", "_INBOX.me")];
    client.publish_with(SUBJECT, &reply, sh("echo done").to_string().as_bytes());
    let accepted = client.receive().json();
    assert_eq!(accepted["type"], "accepted", "{accepted:#}");
    let ended = client.receive().json();
    assert_eq!(ended["task"], accepted["task"]);
    assert_eq!(
        (&ended["type"], &ended["outcome"]),
        (&"ended".into(), &"succeeded".into())
    );
    assert_eq!(ended["result"], "done", "{ended:#}");
}

#[tokio::test]
async fn what_cannot_be_read_at_all_is_answered_too() {
    let system = System::up().await;
    let mut client = PlainClient::connect(&system.url);
    client.subscribe("_INBOX.me");
    let reply = [("Conductor-Reply", "_INBOX.me")];
    client.publish_with(SUBJECT, &reply, br#"{"run": {"command": ["ech"#);
    let answer = client.receive().json();
    assert_eq!(answer["type"], "rejected", "{answer:#}");
    assert_eq!(answer["errors"][0]["field"], "payload");
}

#[tokio::test]
async fn a_reply_subject_that_could_hit_something_else_is_refused() {
    let system = System::up().await;
    let mut client = PlainClient::connect(&system.url);
    let reply = [("Conductor-Reply", "conductor.local.control")];
    client.publish_with(SUBJECT, &reply, sh("true").to_string().as_bytes());
    client.flush();
    let mut story = system.story().await;
    let find = |s: &Story| s.told.iter().find(|t| t.kind == "task.rejected").cloned();
    let told = story.until("a rejection", find).await;
    assert!(format!("{told:?}").contains("Conductor-Reply"), "{told:?}");
}

#[tokio::test]
async fn the_same_id_or_key_is_one_task_and_the_second_learns_which() {
    let system = System::up().await;
    let mut client = PlainClient::connect(&system.url);
    client.subscribe("_INBOX.me");
    let reply = [("Conductor-Reply", "_INBOX.me")];
    let id = new_id().to_string();
    let with_id = json!({"id": id, "run": {"noop": {}}}).to_string();
    let with_key = json!({"key": "build-42", "run": {"noop": {}}}).to_string();
    client.publish(SUBJECT, with_id.as_bytes());
    client.publish(SUBJECT, with_key.as_bytes());
    client.flush();
    client.publish_with(SUBJECT, &reply, with_id.as_bytes());
    let duplicate = client.receive().json();
    assert_eq!(
        (duplicate["type"].as_str(), duplicate["task"].as_str()),
        (Some("duplicate"), Some(id.as_str()))
    );
    client.publish_with(SUBJECT, &reply, with_key.as_bytes());
    let duplicate = client.receive().json();
    assert_eq!(duplicate["type"], "duplicate", "{duplicate:#}");
    let mut story = system.story().await;
    story
        .until("two duplicates", |s| {
            (s.state().counters.duplicates == 2).then_some(())
        })
        .await;
    assert_eq!(story.state().tasks.len(), 2);
    let keyed = story
        .state()
        .tasks
        .iter()
        .find(|(_, t)| t.spec.key.is_some())
        .unwrap();
    assert_eq!(
        duplicate["task"].as_str(),
        Some(keyed.0.to_string().as_str())
    );
}

#[tokio::test]
async fn the_cli_submits_from_flags_and_waits() {
    let system = System::up().await;
    let done = system
        .cli(&[
            "submit", "--wait", "-o", "json", "--", "sh", "-c", "echo hi",
        ])
        .await;
    assert_eq!(done.json()[0]["state"], "succeeded");
    let failed = system
        .cli(&["submit", "--wait", "--", "sh", "-c", "exit 3"])
        .await;
    assert_eq!(failed.code, 10, "{failed:?}");
    let wrong = system
        .cli(&["submit", "--priority", "11", "--", "true"])
        .await;
    assert_eq!(wrong.code, 2);
    assert!(wrong.stderr.contains("priority"), "{wrong:?}");
    let late = system
        .cli(&[
            "submit",
            "--wait",
            "--wait-timeout",
            "300ms",
            "--",
            "sleep",
            "60",
        ])
        .await;
    assert_eq!(late.code, 6, "{late:?}");
}

#[tokio::test]
async fn the_cli_says_what_became_of_a_submission() {
    let system = System::up().await;
    let first = system.cli(&["submit", "--noop", "--key", "k"]).await.ok();
    let again = system.cli(&["submit", "--noop", "--key", "k"]).await;
    assert_eq!(
        again.stdout, first,
        "the second submitter learns the first's id"
    );
    let ghost = new_id().to_string();
    let refused = system.cli(&["submit", "--noop", "--need", &ghost]).await;
    assert_eq!((refused.code, refused.stdout.as_str()), (1, ""));
    assert!(refused.stderr.contains("needs[0]"), "{}", refused.stderr);
    let flags = system
        .cli_with(
            &["submit", "-f", "-", "--priority", "9"],
            b"run: {noop: {}}",
        )
        .await;
    assert_eq!(flags.code, 2, "{flags:?}");
    let nothing = system.cli(&["submit", "--noop", "--", "true"]).await;
    assert_eq!(nothing.code, 2, "{nothing:?}");
}

#[tokio::test]
async fn the_cli_submits_files_of_every_kind() {
    let system = System::up().await;
    let yaml =
        "- {name: d, needs: [c], run: {noop: {}}}\n- {name: c, queue: other, run: {noop: {}}}\n";
    let done = system
        .cli_with(
            &["submit", "-f", "-", "--wait", "-o", "json"],
            yaml.as_bytes(),
        )
        .await;
    let rows = done.json();
    assert_eq!(rows.as_array().unwrap().len(), 2);
    assert!(
        rows.as_array()
            .unwrap()
            .iter()
            .all(|r| r["state"] == "succeeded"),
        "{rows:#}"
    );
    let lines: String = (0..1_200)
        .map(|n| format!("{{\"name\":\"t{n}\",\"run\":{{\"noop\":{{}}}}}}\n"))
        .collect();
    let file = system.dir.path().join("tasks.jsonl");
    std::fs::write(&file, lines).unwrap();
    let file = file.display().to_string();
    let done = system
        .cli(&["submit", "-f", &file, "--wait", "-o", "json"])
        .await;
    assert_eq!(done.json().as_array().unwrap().len(), 1_200);
    let bad = system
        .cli_with(&["submit", "-f", "-"], b"- {run: {noop: {}}}\n- {run: 7}\n")
        .await;
    assert_eq!(bad.code, 2);
    assert!(bad.stderr.contains("task 2: run"), "{}", bad.stderr);
    let story = system.cli(&["replay", "-o", "json"]).await.json();
    assert_eq!(
        story["accepted"], 1_202,
        "nothing of the bad file was submitted"
    );
}

#[tokio::test]
async fn what_a_command_is_given_is_what_it_gets() {
    let system = System::up().await;
    let mut story = system.story().await;
    let task = json!({"run": {"command": {
        "argv": ["sh", "-c", "cat; echo; echo $GREETING; pwd | sed 's|.*/||'; echo ${HOME:+home}; echo $SECRET"],
        "env": {"GREETING": "moin"}, "stdin": "from stdin", "cwd": "sub/dir"}}});
    let id = system.submit(task).await;
    assert_eq!(story.outcome(id).await, Outcome::Succeeded);
    let logs = system.cli(&["task", "logs", &id.to_string()]).await.ok();
    assert_eq!(
        logs.lines().collect::<Vec<_>>(),
        ["from stdin", "moin", "dir", "home", ""]
    );
}

#[tokio::test]
async fn every_task_field_is_kept() {
    let system = System::up_with(&["--label", "arch=x86"]).await;
    let task: Value = json!({
        "key": "k-1", "name": "all", "run": {"command": ["true"]}, "queue": "default",
        "namespace": "team", "priority": 7, "labels": {"arch": "x86"}, "slots": 2,
        "retry": {"max_attempts": 4, "backoff": "2s", "factor": 3.0, "max_backoff": "1m", "jitter": 0.0, "on": ["failed", "oom"]},
        "timeouts": {"queue": "10m", "run": "5m", "heartbeat": "45s", "total": "1h"},
        "delay": "1s", "concurrency": {"key": "db", "limit": 2}, "metadata": {"pr": "17"},
    });
    let id = system.submit(task).await;
    let mut story = system.story().await;
    let ended = story.ended(id).await;
    assert_eq!(ended.outcome(), Some(Outcome::Succeeded));
    let spec = serde_json::to_value(&ended.spec).unwrap();
    for (field, value) in [
        ("/namespace", json!("team")),
        ("/priority", json!(7)),
        ("/labels/arch", json!("x86")),
        ("/slots", json!(2)),
        ("/retry/max_attempts", json!(4)),
        ("/retry/on", json!(["failed", "oom"])),
        ("/timeouts/run", json!(300_000)),
        ("/concurrency/limit", json!(2)),
        ("/metadata/pr", json!("17")),
        ("/key", json!("k-1")),
        ("/name", json!("all")),
    ] {
        assert_eq!(spec.pointer(field), Some(&value), "{field} of {spec:#}");
    }
    assert_eq!(
        story.kinds(id)[..2],
        ["task.accepted", "task.ready"],
        "it was delayed"
    );
}
