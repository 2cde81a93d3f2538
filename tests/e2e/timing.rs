//! Retries, the four timeouts, delayed starts.

use conductor_domain::state::{Outcome, Phase};
use conductor_harness::System;
use conductor_harness::system::sh;
use conductor_protocol::class::OutcomeClass;
use conductor_protocol::event::Event;
use serde_json::json;

#[tokio::test]
async fn what_fails_is_retried_with_growing_recorded_delays() {
    let system = System::up().await;
    let mut task = sh("[ $CONDUCTOR_ATTEMPT -ge 3 ]");
    task["retry"] = json!({"max_attempts": 5, "backoff": "40ms", "factor": 2.0, "jitter": 0.0, "on": ["failed"]});
    let id = system.submit(task).await;
    let mut story = system.story().await;
    let ended = story.ended(id).await;
    assert_eq!(
        (ended.outcome(), ended.attempts),
        (Some(Outcome::Succeeded), 3)
    );
    let delays: Vec<u64> = story
        .applied(id)
        .filter_map(|t| match &t.event {
            Some(Event::TaskRetrySet(set)) => Some(set.delay_ms),
            _ => None,
        })
        .collect();
    assert_eq!(delays, [40, 80]);
}

#[tokio::test]
async fn classes_that_are_not_named_are_not_retried_and_attempts_are_bounded() {
    let system = System::up().await;
    let mut task = sh("exit 1");
    task["retry"] = json!({"max_attempts": 5, "backoff": "10ms", "on": ["oom", "crashed"]});
    let once = system.submit(task.clone()).await;
    task["retry"] = json!({"max_attempts": 3, "backoff": "10ms", "on": ["failed"]});
    let thrice = system.submit(task).await;
    let mut crash = sh("kill -9 $$");
    crash["retry"] = json!({"max_attempts": 2, "backoff": "10ms", "on": ["crashed"]});
    let crashed = system.submit(crash).await;
    let mut story = system.story().await;
    for (id, attempts, class) in [
        (once, 1, OutcomeClass::Failed),
        (thrice, 3, OutcomeClass::Failed),
        (crashed, 2, OutcomeClass::Crashed),
    ] {
        let task = story.ended(id).await;
        assert_eq!(
            (task.outcome(), task.attempts),
            (Some(Outcome::Failed), attempts)
        );
        let Phase::Ended(ended) = task.phase else {
            unreachable!()
        };
        assert_eq!(ended.class, Some(class));
    }
}

#[tokio::test]
async fn a_run_timeout_ends_the_attempt_and_all_its_processes() {
    let system = System::up().await;
    let mut task = sh("sleep 300 & echo $!; wait");
    task["timeouts"] = json!({"run": "400ms"});
    let id = system.submit(task).await;
    let mut story = system.story().await;
    let ended = story.ended(id).await;
    assert_eq!(ended.outcome(), Some(Outcome::TimedOut));
    let pid = system.cli(&["task", "logs", &id.to_string()]).await.ok();
    conductor_harness::process::gone(pid.trim().parse().unwrap()).await;
}

#[tokio::test]
async fn queue_and_total_timeouts_end_tasks_that_wait_or_take_too_long() {
    let system = System::up().await;
    let mut nobody = sh("true");
    nobody["labels"] = json!({"gpu": "yes"});
    nobody["timeouts"] = json!({"queue": "300ms"});
    let queued = system.submit(nobody).await;
    let mut slow = sh("sleep 300");
    slow["timeouts"] = json!({"total": "500ms"});
    slow["retry"] = json!({"max_attempts": 9, "on": ["timeout"]});
    let total = system.submit(slow).await;
    let mut story = system.story().await;
    assert_eq!(story.outcome(queued).await, Outcome::TimedOut);
    assert_eq!(story.outcome(total).await, Outcome::TimedOut);
    let timeout = |id, kind: &str| format!("{:?}", story.find(id, kind).unwrap().event);
    assert!(timeout(queued, "task.timed_out").contains("Queue"));
    assert!(timeout(total, "task.timed_out").contains("Total"));
}

#[tokio::test]
async fn a_heartbeat_timeout_ends_an_attempt_whose_agent_fell_silent() {
    let mut system = System::split().await;
    let mut task = sh("sleep 300");
    task["timeouts"] = json!({"heartbeat": "2s"});
    task["retry"] = json!({"max_attempts": 2, "backoff": "10ms", "on": ["heartbeat_lost"]});
    let id = system.submit(task).await;
    let mut story = system.story().await;
    let assigned = story.told(id, "attempt.assigned").await;
    story.told(id, "attempt.started").await;
    let Some(Event::AttemptAssigned(_)) = assigned.event else {
        panic!("{assigned:?}")
    };
    let agent = story.state().tasks[&id]
        .assigned()
        .unwrap()
        .agent
        .to_string();
    system.process(&agent).freeze();
    let out = story.told(id, "attempt.timed_out").await;
    assert!(format!("{:?}", out.event).contains("Heartbeat"), "{out:?}");
    story
        .until("a second attempt elsewhere", |s| {
            let assigned = s.state().tasks[&id].assigned()?;
            (assigned.agent.as_str() != agent).then_some(())
        })
        .await;
    system.process(&agent).thaw();
    system
        .control(&conductor_protocol::Control::Cancel {
            task: id,
            reason: None,
        })
        .await;
    assert_eq!(story.outcome(id).await, Outcome::Cancelled);
}

#[tokio::test]
async fn a_task_does_not_start_before_its_time() {
    let system = System::up().await;
    let mut task = sh("true");
    task["delay"] = json!("700ms");
    let id = system.submit(task).await;
    let mut story = system.story().await;
    assert_eq!(story.outcome(id).await, Outcome::Succeeded);
    let accepted = story.find(id, "task.accepted").unwrap();
    let started = story.find(id, "attempt.started").unwrap();
    assert!(
        started.time_ms >= accepted.time_ms + 600,
        "{} ms",
        started.time_ms - accepted.time_ms
    );
}
