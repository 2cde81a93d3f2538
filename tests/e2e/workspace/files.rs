//! Artifacts, results and progress.

use conductor_harness::PlainClient;
use conductor_harness::process::{Process, Ran};
use conductor_protocol::event::{AttemptArtifact, AttemptSucceeded};
use serde_json::json;
use sha2::{Digest, Sha256};

use super::*;

impl World {
    fn artifacts(&self, id: TaskId) -> Vec<AttemptArtifact> {
        let told = self.story.applied(id).filter_map(|t| t.event.clone());
        let artifact = |e| match e {
            Event::AttemptArtifact(e) => Some(e),
            _ => None,
        };
        told.filter_map(artifact).collect()
    }

    fn success(&self, id: TaskId) -> AttemptSucceeded {
        match self.story.find(id, "attempt.succeeded").unwrap().event {
            Some(Event::AttemptSucceeded(e)) => e,
            other => panic!("{other:?}"),
        }
    }

    async fn get(&self, id: TaskId, name: &str) -> Ran {
        let args = ["artifact", "get", &id.to_string(), name, "-"];
        self.system.cli(&args).await
    }
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect()
}

#[tokio::test]
async fn declared_files_are_kept_under_the_hash_of_their_bytes() {
    let mut world = World::up().await;
    // More than one piece, and not a whole number of them.
    let script =
        "mkdir out; seq 1 300000 > out/numbers.txt; echo a > out/a.log; echo b > out/b.log";
    let fields = json!({"artifacts": ["out/numbers.txt", "out/*.log", "none/*"]});
    let id = world.submit(script, fields).await;
    world.succeeded(id).await;
    let artifacts = world.artifacts(id);
    let names: Vec<&str> = artifacts.iter().map(|a| a.name.as_str()).collect();
    assert_eq!(names, ["out/numbers.txt", "out/a.log", "out/b.log"]);
    let numbers: String = (1..=300_000).map(|n| format!("{n}\n")).collect();
    assert_eq!(artifacts[0].sha256, sha256(numbers.as_bytes()));
    assert_eq!(artifacts[0].size, numbers.len() as u64);
    assert_eq!(artifacts[0].media_type.as_deref(), Some("text/plain"));
    assert_eq!(world.artifact(id, "out/numbers.txt").await, numbers);
    let file = world.system.dir.path().join("got");
    let args = [
        "artifact",
        "get",
        &id.to_string(),
        "out/a.log",
        &file.display().to_string(),
    ];
    world.system.cli(&args).await.ok();
    assert_eq!(std::fs::read_to_string(file).unwrap(), "a\n");
    let listed = world
        .system
        .cli(&["artifact", "list", &id.to_string()])
        .await
        .ok();
    assert_eq!(listed.lines().count(), 4, "{listed}");
    let missing = world.get(id, "other").await;
    assert_eq!(missing.code, 3, "{}", missing.stderr);
    assert!(
        missing.stderr.contains("out/numbers.txt"),
        "{}",
        missing.stderr
    );
}

#[tokio::test]
async fn what_was_changed_in_the_store_is_found_out() {
    let mut world = World::up().await;
    let id = world
        .submit("echo true > a", json!({"artifacts": ["a"]}))
        .await;
    world.succeeded(id).await;
    assert_eq!(world.artifact(id, "a").await, "true\n");
    let artifact = world.artifacts(id).remove(0);
    let mut anybody = PlainClient::connect(&world.system.url);
    let subject = |agent: &str| format!("conductor.local.artifact.{agent}.{}", artifact.sha256);
    // Another's copy under the same hash does no harm.
    let piece = [("Conductor-Chunk", "1/1")];
    anybody.publish_with(&subject("mallory"), &piece, b"false\n");
    anybody.flush();
    assert_eq!(world.artifact(id, "a").await, "true\n");
    let agents = world
        .story
        .state()
        .agents
        .keys()
        .next()
        .unwrap()
        .to_string();
    anybody.publish_with(&subject(&agents), &piece, b"false\n");
    anybody.flush();
    let got = world.get(id, "a").await;
    assert_eq!((got.code, got.stdout.as_str()), (1, ""));
    assert!(got.stderr.contains("was changed"), "{}", got.stderr);
}

#[tokio::test]
async fn files_that_are_missing_or_lead_out_are_no_success() {
    let mut world = World::up().await;
    let secret = world.system.dir.path().join("secret");
    std::fs::write(&secret, "s").unwrap();
    let link = format!("ln -s {} out; echo here > here", secret.display());
    for (script, artifact, words) in [
        ("true", "gone", "\"gone\" is not there"),
        (link.as_str(), "out", "leads out of the workspace"),
        ("mkdir out", "out", "is a directory"),
        ("mkfifo out", "out", "no regular file"),
    ] {
        let fields = json!({"artifacts": [artifact, "here*"]});
        let id = world.submit(script, fields).await;
        let message = world.failed(id, OutcomeClass::BadOutput).await;
        assert!(message.contains(words), "{message}");
        assert!(world.artifacts(id).iter().all(|a| a.name == "here"));
    }
    // Of an attempt that failed anyway that is told as it is.
    let id = world
        .submit(
            "echo no > here; exit 7",
            json!({"artifacts": ["gone", "here"]}),
        )
        .await;
    let message = world.failed(id, OutcomeClass::Failed).await;
    assert!(message.contains("exit code 7"), "{message}");
    assert_eq!(world.artifacts(id).len(), 1);
}

#[tokio::test]
async fn a_result_that_is_too_long_for_an_event_is_an_artifact() {
    let mut world = World::up().await;
    let id = world.submit("seq 1 20000", json!({})).await;
    world.succeeded(id).await;
    let result = world.success(id).result.unwrap();
    assert!(
        result.len() <= 32 * 1024 && result.starts_with('…'),
        "{}",
        result.len()
    );
    assert!(result.ends_with("20000"));
    let whole: String = (1..=20_000).map(|n| format!("{n}\n")).collect();
    assert_eq!(world.artifact(id, "result.txt").await, whole.trim_end());
    let short = world.submit("echo short", json!({})).await;
    world.succeeded(short).await;
    assert!(world.artifacts(short).is_empty());
}

#[tokio::test]
async fn a_structured_result_is_checked_by_its_schema() {
    let mut world = World::up().await;
    let schema = json!({"type": "object", "required": ["n"],
        "properties": {"n": {"type": "integer"}}});
    let schema = json!({"result_schema": schema.to_string()});
    let leave = |result: &str| {
        format!(
            "echo words; echo '{result}' > .conductor/r; mv .conductor/r .conductor/result.json"
        )
    };
    let good = world.submit(&leave(r#"{"n": 1}"#), schema.clone()).await;
    world.succeeded(good).await;
    assert_eq!(world.success(good).result.as_deref(), Some(r#"{"n": 1}"#));
    for (script, words) in [
        (leave(r#"{"n": "one"}"#), "at /n"),
        (leave("{"), "is not JSON"),
        ("echo no json".to_owned(), "is not JSON"),
    ] {
        let bad = world.submit(&script, schema.clone()).await;
        let message = world.failed(bad, OutcomeClass::BadOutput).await;
        assert!(message.contains(words), "{message}");
    }
    // What a program prints will do, where it is JSON.
    let printed = world.submit(r#"echo '{"n": 2}'"#, schema).await;
    world.succeeded(printed).await;
}

#[tokio::test]
async fn a_program_says_how_far_it_is_and_is_told_what_its_task_is() {
    let mut world = World::up().await;
    let go = world.system.dir.path().join("go");
    let script = format!(
        r#"set -e
        cat .conductor/task.json
        say() {{ echo "$1" >> .conductor/progress.jsonl; }}
        say '{{"percent": 10, "message": "begun"}}'
        until [ -e {} ]; do sleep 0.05; done
        say 'nonsense'
        say '{{"percent": 20}}'
        say '{{"percent": 99, "message": "nearly"}}'"#,
        go.display()
    );
    let fields = json!({"name": "it", "metadata": {"ticket": "7"}});
    let id = world.submit(&script, fields).await;
    let told = world.story.told(id, "attempt.progress").await;
    let Some(Event::AttemptProgress(first)) = told.event else {
        panic!("it is progress")
    };
    assert_eq!(
        (first.percent, first.message.as_deref()),
        (Some(10.0), Some("begun"))
    );
    std::fs::write(&go, "").unwrap();
    world.succeeded(id).await;
    let last = world.story.applied(id).filter_map(|t| match &t.event {
        Some(Event::AttemptProgress(e)) => Some(e.clone()),
        _ => None,
    });
    let all: Vec<_> = last.collect();
    assert_eq!(
        all.last().unwrap().message.as_deref(),
        Some("nearly"),
        "{all:?}"
    );
    assert_eq!(all.len(), 2, "the newest wins: {all:?}");
    let logs = world
        .system
        .cli(&["task", "logs", &id.to_string()])
        .await
        .ok();
    assert!(
        logs.contains("[1 lines of its progress could not be read]"),
        "{logs}"
    );
    for words in [
        &format!("\"task\": \"{id}\""),
        "\"ticket\": \"7\"",
        "\"name\": \"it\"",
    ] {
        assert!(logs.contains(words), "{words} in {logs}");
    }
}

#[tokio::test]
async fn agents_that_may_speak_on_subjects_of_their_own_alone_store_artifacts_too() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let args = [
        "up",
        "--data-dir",
        &data.display().to_string(),
        "--nats-port",
        "0",
    ];
    let up = Process::start(&args, &[], dir.path());
    up.says("conductor is up").await;
    let system = System::of_up(&data).await;
    assert!(system.credentials.is_some(), "agents have accounts");
    let mut story = system.story().await;
    let mut task = sh("seq 1 200000 > numbers");
    task["artifacts"] = json!(["numbers"]);
    let id = system.submit(task).await;
    assert_eq!(story.outcome(id).await, Outcome::Succeeded);
    let args = ["artifact", "get", &id.to_string(), "numbers", "-"];
    let numbers = system.cli(&args).await.ok();
    assert_eq!(numbers.lines().count(), 200_000);
}
