//! `conductor up`: start, continue, refuse, stop, and leave nothing behind.

use std::path::Path;

use conductor_domain::state::Outcome;
use conductor_harness::process::{self, Process, descendants, gone};
use conductor_harness::system::sh;
use conductor_harness::{Story, System};
use serde_json::json;

/// Starts `conductor up` with a server of its own in `dir`.
async fn up(dir: &Path) -> Process {
    let data = dir.join("data").display().to_string();
    let process = Process::start(&["up", "--data-dir", &data, "--nats-port", "0"], &[], dir);
    process.says("conductor is up").await;
    process
}

async fn attach(dir: &Path) -> (System, Story) {
    let system = System::of_up(&dir.join("data")).await;
    let story = system.story().await;
    (system, story)
}

#[tokio::test]
async fn a_second_start_continues_where_the_first_stopped() {
    let dir = tempfile::tempdir().unwrap();
    let mut first = up(dir.path()).await;
    let (system, mut story) = attach(dir.path()).await;
    let done = system.submit(sh("true")).await;
    assert_eq!(story.outcome(done).await, Outcome::Succeeded);
    let mut later = sh("true");
    later["delay"] = json!("1500ms");
    let later = system.submit(later).await;
    story.told(later, "task.accepted").await;
    let status = first.terminate().await;
    assert!(status.success(), "{}", first.said());
    let second = up(dir.path()).await;
    assert!(
        second.said().contains("continued at record"),
        "{}",
        second.said()
    );
    let (system, mut story) = attach(dir.path()).await;
    assert_eq!(story.outcome(done).await, Outcome::Succeeded);
    assert_eq!(story.outcome(later).await, Outcome::Succeeded);
    system.assert_replay_agrees().await;
}

#[tokio::test]
async fn a_start_after_kill_9_does_not_wait_for_the_dead_ones_lock() {
    let dir = tempfile::tempdir().unwrap();
    let mut first = up(dir.path()).await;
    first.kill9();
    let second = up(dir.path()).await;
    let said = second.said();
    let line = said.lines().find(|l| l.contains("is up after")).unwrap();
    let seconds: f64 = line.split(' ').nth_back(1).unwrap().parse().unwrap();
    // The lock outlives its holder by five seconds.
    assert!(seconds < 4.0, "{line}");
}

#[tokio::test]
async fn a_relative_data_directory_works() {
    let dir = tempfile::tempdir().unwrap();
    let args = ["up", "--data-dir", "data", "--nats-port", "0"];
    let process = Process::start_in(&args, &[], dir.path(), dir.path());
    process.says("conductor is up").await;
    let (system, mut story) = attach(dir.path()).await;
    let id = system.submit(sh("true")).await;
    assert_eq!(story.outcome(id).await, Outcome::Succeeded);
}

#[tokio::test]
async fn a_data_directory_in_use_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let first = up(dir.path()).await;
    let data = dir.path().join("data").display().to_string();
    let ran = process::run(&["up".into(), "--data-dir".into(), data.clone()], &[], b"").await;
    assert_ne!(ran.code, 0);
    assert!(
        ran.stderr.contains(&data) && ran.stderr.contains(&first.pid().to_string()),
        "{}",
        ran.stderr
    );
}

#[tokio::test]
async fn an_unwritable_data_directory_is_a_clear_error() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    let data = file.join("data").display().to_string();
    let ran = process::run(&["up".into(), "--data-dir".into(), data.clone()], &[], b"").await;
    assert_eq!(ran.code, 1);
    assert!(ran.stderr.contains(&data), "{}", ran.stderr);
}

#[tokio::test]
async fn neither_sigterm_nor_kill_9_leaves_a_child_behind() {
    for is_killed in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let mut process = up(dir.path()).await;
        let (system, mut story) = attach(dir.path()).await;
        let id = system
            .submit(sh("setsid sleep 300 & sleep 300; true"))
            .await;
        story.told(id, "attempt.started").await;
        // The server, the shim, the shell and its two sleeps.
        let children = process::descendants_at_least(process.pid(), 5).await;
        if is_killed {
            process.kill9();
        } else {
            system.cli(&["task", "cancel", &id.to_string()]).await.ok();
            assert!(process.terminate().await.success(), "{}", process.said());
        }
        for child in children {
            gone(child).await;
        }
    }
}

#[tokio::test]
async fn the_server_it_started_is_started_again_when_it_dies() {
    let dir = tempfile::tempdir().unwrap();
    let process = up(dir.path()).await;
    let (system, mut story) = attach(dir.path()).await;
    let server = descendants(process.pid())
        .into_iter()
        .find(|pid| {
            let line = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            line.contains("nats-server")
        })
        .unwrap();
    let killed = std::process::Command::new("kill")
        .args(["-9", &server.to_string()])
        .status();
    assert!(killed.unwrap().success());
    gone(server).await;
    let id = system.submit(sh("true")).await;
    assert_eq!(story.outcome(id).await, Outcome::Succeeded);
}
