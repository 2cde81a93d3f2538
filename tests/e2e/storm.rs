//! A storm of submissions from a client that knows nothing of Conductor, and of kills.

use std::collections::BTreeSet;
use std::process::{Child, Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use conductor_domain::Verdict;
use conductor_domain::state::Outcome;
use conductor_harness::{Story, System, binary};
use conductor_protocol::TaskId;

const TASKS: usize = 1_000;
const TWICE: usize = 200;

/// Starts the Python client.
fn storm(url: &str) -> Child {
    let script = binary::workspace().join("tests/e2e/storm.py");
    Command::new("python3")
        .arg(script)
        .args([url, &TASKS.to_string(), &TWICE.to_string()])
        .env(
            "PYTHONPATH",
            binary::python_packages("tests/e2e/requirements.txt"),
        )
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3 runs")
}

/// Waits for the client, and returns the ids that were acknowledged to it.
async fn acknowledged(child: Child) -> BTreeSet<TaskId> {
    let done = tokio::task::spawn_blocking(move || child.wait_with_output());
    let output = done.await.unwrap().unwrap();
    assert!(output.status.success());
    let ids: Vec<String> = serde_json::from_slice(&output.stdout).unwrap();
    ids.iter().map(|id| id.parse().unwrap()).collect()
}

fn ended(story: &Story) -> usize {
    story.state().counters.ended.values().sum::<u64>() as usize
}

/// Checks that every task was accepted once and ended once, by one attempt's result.
async fn settle(system: &System, story: &mut Story, ids: &BTreeSet<TaskId>) {
    assert_eq!(ids.len(), TASKS);
    story
        .until("all to end", |s| (ended(s) >= TASKS).then_some(()))
        .await;
    // Submissions that came twice may still be undecided.
    story
        .until("an empty intake", |s| {
            s.state().intake.is_empty().then_some(())
        })
        .await;
    let applied = |id: TaskId, kind: &str| {
        let is = |t: &&conductor_harness::Told| t.kind == kind && t.verdict == Verdict::Applied;
        story
            .told
            .iter()
            .filter(|t| t.task == Some(id))
            .filter(is)
            .count()
    };
    for id in ids {
        assert_eq!(applied(*id, "task.accepted"), 1, "{id}");
        assert_eq!(applied(*id, "attempt.succeeded"), 1, "{id}");
        assert_eq!(
            story.state().outcome_of(*id),
            Some(Outcome::Succeeded),
            "{id}"
        );
    }
    let counters = &story.state().counters;
    assert_eq!(counters.accepted as usize, TASKS);
    assert!(
        counters.duplicates as usize >= TWICE,
        "{}",
        counters.duplicates
    );
    assert_eq!(ended(story), TASKS);
    system.assert_replay_agrees().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_tasks_from_a_python_client_end_once_each() {
    let system = System::split().await;
    let client = storm(&system.url);
    let mut story = system.story().await;
    let ids = acknowledged(client).await;
    settle(&system, &mut story, &ids).await;
    assert_eq!(story.state().counters.duplicates as usize, TWICE);
    assert!(story.state().tasks.values().all(|t| t.attempts == 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_tasks_survive_kill_9_of_every_process_at_random_moments() {
    let seed = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .subsec_nanos();
    eprintln!("seed {seed}");
    let mut random = seed;
    let mut system = System::split().await;
    let client = storm(&system.url);
    let mut story = system.story().await;
    for (n, victim) in ["orchestrator", "scheduler", "a1", "nats-server"]
        .into_iter()
        .enumerate()
    {
        // xorshift: a moment somewhere in this victim's quarter of the run.
        random ^= random << 13;
        random ^= random >> 17;
        random ^= random << 5;
        let moment = n * 200 + random as usize % 200;
        story
            .until("the moment", |s| (ended(s) >= moment).then_some(()))
            .await;
        match victim {
            "nats-server" => {
                let server = system.server.as_mut().unwrap();
                server.server.kill();
                server.start_again();
            }
            "a1" => {
                system.process("a1").kill9();
                system.start_agent("a1");
            }
            role => {
                system.process(role).kill9();
                system.start_role(role, role);
            }
        }
    }
    let ids = acknowledged(client).await;
    settle(&system, &mut story, &ids).await;
}
