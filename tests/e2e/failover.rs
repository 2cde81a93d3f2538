//! Leaders that die, freeze and wake; a cluster that loses its leader.

use std::time::{Duration, Instant};

use conductor_domain::state::Outcome;
use conductor_eventlog::jetstream::locks::Tried;
use conductor_harness::server::LOCK_TTL;
use conductor_harness::system::sh;
use conductor_harness::{PlainClient, Story, System, TestCluster, until_asked};
use conductor_protocol::subject::Role;

fn epoch(story: &Story, role: Role) -> u64 {
    story.state().epoch(role)
}

async fn succeeds(system: &System, story: &mut Story) {
    let id = system.submit(sh("true")).await;
    assert_eq!(story.outcome(id).await, Outcome::Succeeded);
}

#[tokio::test]
async fn a_standby_takes_over_from_a_killed_leader_within_the_locks_ttl() {
    for (role, name) in [
        (Role::Orchestrator, "orchestrator"),
        (Role::Scheduler, "scheduler"),
    ] {
        let mut system = System::split().await;
        let mut story = system.story().await;
        succeeds(&system, &mut story).await;
        system.start_role("standby", name);
        system.process("standby").says("on nats://").await;
        let before = epoch(&story, role);
        system.process(name).kill9();
        let killed = Instant::now();
        story
            .until("a new leader", |s| (epoch(s, role) > before).then_some(()))
            .await;
        let took = killed.elapsed();
        assert!(took < LOCK_TTL + Duration::from_secs(1), "{name}: {took:?}");
        succeeds(&system, &mut story).await;
        system.assert_replay_agrees().await;
    }
}

#[tokio::test]
async fn a_lock_that_nobody_holds_and_nothing_expires_does_not_stop_a_role() {
    let mut system = System::split().await;
    let mut story = system.story().await;
    succeeds(&system, &mut story).await;
    let before = epoch(&story, Role::Orchestrator);
    system.process("orchestrator").kill9();
    // Without a TTL, as a client library or a server's bug may leave one.
    let mut client = PlainClient::connect(&system.url);
    client.publish("$KV.LOCKS_local.orchestrator", b"a ghost");
    client.flush();
    system.start_role("orchestrator", "orchestrator");
    story
        .until("a new leader", |s| {
            (epoch(s, Role::Orchestrator) > before).then_some(())
        })
        .await;
    succeeds(&system, &mut story).await;
}

/// A renewal counts though its answer was lost: the lock that stands there is still ours.
#[tokio::test]
async fn a_lock_whose_renewal_was_not_heard_of_is_not_taken_for_anothers() {
    let system = System::bare().await;
    let (connection, ttl) = (&system.connection, Duration::from_secs(60));
    let take = async |holder: &str| {
        let tried = connection
            .try_lock(Role::Scheduler, holder, ttl, None)
            .await;
        match tried.unwrap() {
            Tried::Taken(lock) => Some(lock),
            Tried::Held(_) => None,
        }
    };
    let mut lock = take("us").await.unwrap();
    // The same holder has renewed it; what we know of it is older.
    let mut stale = take("us").await.unwrap();
    assert!(connection.renew(&mut lock).await.unwrap(), "it is ours");
    assert!(connection.renew(&mut lock).await.unwrap(), "and stays so");
    assert!(take("them").await.is_none());
    connection.unlock(lock).await.unwrap();
    assert!(take("them").await.is_some());
    assert!(!connection.renew(&mut stale).await.unwrap(), "theirs now");
}

#[tokio::test]
async fn a_frozen_leader_that_wakes_up_does_no_harm() {
    let mut system = System::split().await;
    let mut story = system.story().await;
    for name in ["orchestrator", "scheduler"] {
        system.start_role(&format!("{name}-2"), name);
        system
            .process(&format!("{name}-2"))
            .says("on nats://")
            .await;
    }
    let running = system.submit(sh("sleep 4; echo one")).await;
    story.told(running, "attempt.started").await;
    let before = (
        epoch(&story, Role::Orchestrator),
        epoch(&story, Role::Scheduler),
    );
    for name in ["orchestrator", "scheduler"] {
        system.process(name).freeze();
    }
    story
        .until("new leaders", |s| {
            let now = (epoch(s, Role::Orchestrator), epoch(s, Role::Scheduler));
            (now.0 > before.0 && now.1 > before.1).then_some(())
        })
        .await;
    let mut ids = Vec::new();
    for _ in 0..20 {
        ids.push(system.submit(sh("true")).await);
    }
    for name in ["orchestrator", "scheduler"] {
        system.process(name).thaw();
    }
    for id in ids {
        assert_eq!(story.outcome(id).await, Outcome::Succeeded);
        assert_eq!(story.state().tasks[&id].attempts, 1);
    }
    assert_eq!(story.outcome(running).await, Outcome::Succeeded);
    assert_eq!(
        story.state().tasks[&running].attempts,
        1,
        "the change of leaders cost it nothing"
    );
    system.assert_replay_agrees().await;
}

#[tokio::test]
async fn any_number_of_replicas_agree() {
    let mut system = System::split().await;
    for n in 0..2 {
        system.start_role(&format!("o{n}"), "orchestrator");
        system.start_role(&format!("s{n}"), "scheduler");
    }
    let mut story = system.story().await;
    for _ in 0..10 {
        succeeds(&system, &mut story).await;
    }
    for name in ["o0", "o1", "s0", "s1"] {
        system.process(name).says("on nats://").await;
    }
    until_asked(async || {
        let report = system
            .cli(&["replay", "--compare-live", "-o", "json"])
            .await
            .json();
        let live = report["live"].as_array().unwrap();
        assert!(live.iter().all(|l| l["agrees"] == true), "{report:#}");
        if live.len() == 6 {
            Ok(())
        } else {
            Err(format!("6 answers, not {}", live.len()))
        }
    })
    .await;
}

#[tokio::test]
async fn a_cluster_of_three_that_loses_its_leader_loses_nothing() {
    let mut cluster = TestCluster::start();
    let mut system = System::at(cluster.urls()).await;
    for (name, role) in [("orchestrator", "orchestrator"), ("scheduler", "scheduler")] {
        system.start(name, &[role, "--lock-ttl", "2s", "--replicas", "3"]);
    }
    system.start_agent("a1");
    system.wait_ready(1).await;
    let mut story = system.story().await;
    succeeds(&system, &mut story).await;
    let leader = cluster
        .leader_of("LOG_local")
        .expect("the log has a leader");
    let mut ids = Vec::new();
    for n in 0..60 {
        if n == 20 {
            cluster.nodes[leader].kill();
        }
        ids.push(system.submit(sh("true")).await);
    }
    for id in &ids {
        assert_eq!(story.outcome(*id).await, Outcome::Succeeded);
        assert_eq!(story.state().tasks[id].attempts, 1);
    }
    cluster.nodes[leader]
        .start_again(conductor_harness::PATIENCE)
        .unwrap();
    succeeds(&system, &mut story).await;
    system.assert_replay_agrees().await;
}

#[tokio::test]
async fn a_snapshot_makes_no_difference_but_time() {
    use conductor_eventlog::SnapshotStore;
    let mut system = System::bare().await;
    system.start_up(&["--snapshot-every", "40"]).await;
    let mut story = system.story().await;
    for _ in 0..30 {
        succeeds(&system, &mut story).await;
    }
    let digest = |report: &serde_json::Value| report["digest"].as_str().unwrap().to_owned();
    until_asked(async || {
        let snapshots = system.connection.list().await.unwrap_or_default();
        if snapshots.is_empty() {
            Err("a snapshot".into())
        } else {
            Ok(())
        }
    })
    .await;
    let full = system.cli(&["replay", "-o", "json"]).await.json();
    let seq = full["seq"].as_u64().unwrap().to_string();
    let short = system
        .cli(&["replay", "--from-snapshot", "--as-of", &seq, "-o", "json"])
        .await
        .json();
    assert!(
        short["from"].as_str().unwrap().starts_with("the snapshot"),
        "{short:#}"
    );
    assert!(short["records"].as_u64() < full["records"].as_u64());
    assert_eq!(digest(&full), digest(&short));
    // Damaged ones only cost time.
    for name in system.connection.list().await.unwrap() {
        system
            .connection
            .save(name, b"damaged".as_slice().into())
            .await
            .unwrap();
    }
    let damaged = system
        .cli(&["replay", "--from-snapshot", "--as-of", &seq, "-o", "json"])
        .await
        .json();
    assert_eq!(damaged["from"], "the first record");
    assert_eq!(digest(&full), digest(&damaged));
}
