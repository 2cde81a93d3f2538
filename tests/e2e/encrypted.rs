//! What the server keeps on disk, encrypted: with a key, with another, and with the wrong one.

use std::path::Path;
use std::time::Duration;

use conductor_domain::state::Outcome;
use conductor_harness::process::{self, Process};
use conductor_harness::server::TestCluster;
use conductor_harness::system::sh;
use conductor_harness::{PATIENCE, System};
use conductor_nats::StoreKeys;
use conductor_protocol::TaskId;

/// What a task says that must not be read on the disk.
const SECRET: &str = "a-word-that-nobody-else-says";

/// Writes a key; where it is.
fn key(dir: &Path, name: &str, key: &str) -> String {
    let path = dir.join(name);
    std::fs::write(&path, format!("{key}\n")).unwrap();
    path.display().to_string()
}

fn args<'a>(data: &'a str, keys: &[&'a str]) -> Vec<&'a str> {
    let up = ["up", "--data-dir", data, "--nats-port", "0"];
    [&up[..], keys].concat()
}

/// Starts with these keys, finds what was done before, runs one more task, and stops.
async fn run(dir: &Path, keys: &[&str], done: &mut Vec<TaskId>) {
    let data = dir.join("data");
    let mut up = Process::start(&args(&data.display().to_string(), keys), &[], dir);
    up.says("conductor is up").await;
    let system = System::of_up(&data).await;
    let mut story = system.story().await;
    done.push(system.submit(sh(&format!("echo {SECRET}"))).await);
    for id in done {
        assert_eq!(story.outcome(*id).await, Outcome::Succeeded);
        // What stands beside the log is there too.
        let printed = system.cli(&["task", "logs", &id.to_string()]).await.ok();
        assert!(printed.contains(SECRET), "{printed}");
    }
    system.assert_replay_agrees().await;
    assert!(up.terminate().await.success(), "{}", up.said());
}

/// Files below a directory that hold the secret.
fn leaks(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(leaks(&path));
            continue;
        }
        let bytes = std::fs::read(&path).unwrap();
        let is_leak = bytes.windows(SECRET.len()).any(|w| w == SECRET.as_bytes());
        found.extend(is_leak.then(|| path.display().to_string()));
    }
    found
}

#[tokio::test]
async fn a_store_is_encrypted_and_its_key_can_be_changed() {
    let dir = tempfile::tempdir().unwrap();
    // Digits alone would be a number to the server, were they not quoted.
    let old = key(dir.path(), "old", "00012345678901234567890123456789");
    let new = key(dir.path(), "new", "a key with \"quotes\", \\ and $signs");
    let with_old = ["--store-key-file", old.as_str()];
    let with_new = ["--store-key-file", new.as_str()];
    let change = ["--store-key-file", &new, "--previous-store-key-file", &old];
    let store = dir.path().join("data/nats/store");
    let (dir, mut done) = (dir.path(), Vec::new());
    run(dir, &with_old, &mut done).await;
    assert_eq!(leaks(&store), [""; 0]);
    refused(dir, &with_new).await;
    run(dir, &change, &mut done).await;
    refused(dir, &with_old).await;
    refused(dir, &[]).await;
    run(dir, &with_new, &mut done).await;
    assert_eq!(leaks(&store), [""; 0]);
}

#[tokio::test]
async fn a_store_that_can_be_read_is_encrypted_once_there_is_a_key() {
    let dir = tempfile::tempdir().unwrap();
    let key = key(dir.path(), "key", "k");
    let store = dir.path().join("data/nats/store");
    let mut done = Vec::new();
    run(dir.path(), &[], &mut done).await;
    assert_ne!(leaks(&store), [""; 0]);
    run(dir.path(), &["--store-key-file", &key], &mut done).await;
    assert_eq!(leaks(&store), [""; 0]);
    refused(dir.path(), &[]).await;
}

/// A start without the key of the store says so, and leaves everything as it is.
async fn refused(dir: &Path, keys: &[&str]) {
    let data = dir.join("data").display().to_string();
    let given: Vec<String> = args(&data, keys).into_iter().map(str::to_owned).collect();
    let ran = process::run(&given, &[], b"").await;
    assert_eq!(ran.code, 1, "{}", ran.stderr);
    assert!(ran.stderr.contains("--store-key-file"), "{}", ran.stderr);
}

#[tokio::test]
async fn key_files_that_are_of_no_use_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let good = key(dir.path(), "good", "k");
    let empty = key(dir.path(), "empty", " ");
    let lines = key(dir.path(), "lines", "a\nb");
    let absent = dir.path().join("absent").display().to_string();
    for (keys, said) in [
        (vec!["--store-key-file", &empty], "is empty"),
        (vec!["--store-key-file", &lines], "several lines"),
        (vec!["--store-key-file", &absent], "absent"),
        (vec!["--previous-store-key-file", &good], "--store-key-file"),
        (
            vec![
                "--store-key-file",
                &good,
                "--previous-store-key-file",
                &empty,
            ],
            "--previous-store-key-file",
        ),
    ] {
        let data = dir.path().join("data").display().to_string();
        let given: Vec<String> = args(&data, &keys).into_iter().map(str::to_owned).collect();
        let ran = process::run(&given, &[], b"").await;
        assert_eq!(ran.code, 2, "{keys:?}: {}", ran.stderr);
        assert!(ran.stderr.contains(said), "{keys:?}: {}", ran.stderr);
    }
}

fn keys(current: &str) -> StoreKeys {
    StoreKeys {
        current: current.to_owned(),
        previous: None,
    }
}

/// One server after the other, each with an empty store that the two others fill: a node of a cluster
/// that is given both keys removes what it has (2.15.1).
#[tokio::test]
async fn a_cluster_changes_its_key_while_tasks_run() {
    let mut cluster = TestCluster::start_with(|_, config| config.store_keys = Some(keys("old")));
    let mut system = System::at(cluster.urls()).await;
    for role in ["orchestrator", "scheduler"] {
        system.start(role, &[role, "--lock-ttl", "2s", "--replicas", "3"]);
    }
    system.start_agent("a1");
    system.wait_ready(1).await;
    let mut story = system.story().await;
    let mut ids = Vec::new();
    for node in &mut cluster.nodes {
        for _ in 0..5 {
            ids.push(system.submit(sh(&format!("echo {SECRET}"))).await);
        }
        node.stop(Duration::from_secs(10));
        ids.push(system.submit(sh("true")).await);
        std::fs::remove_dir_all(&node.config_mut().store_dir).unwrap();
        node.config_mut().store_keys = Some(keys("new"));
        node.start_again(PATIENCE).unwrap();
    }
    for id in &ids {
        assert_eq!(story.outcome(*id).await, Outcome::Succeeded);
    }
    system.assert_replay_agrees().await;
    assert_eq!(leaks(cluster.dir()), [""; 0]);
}
