//! Dependencies, and what becomes of dependents.

use conductor_domain::state::Outcome;
use conductor_harness::System;
use conductor_protocol::class::OutcomeClass;
use serde_json::json;

#[tokio::test]
async fn a_diamond_runs_in_order() {
    let system = System::up().await;
    let a = system.submit(json!({"run": {"command": ["true"]}})).await;
    let b = system
        .submit(json!({"run": {"command": ["true"]}, "needs": [a]}))
        .await;
    let c = system
        .submit(json!({"run": {"command": ["true"]}, "needs": [a]}))
        .await;
    let d = system
        .submit(json!({"run": {"command": ["true"]}, "needs": [b, c]}))
        .await;
    let mut story = system.story().await;
    for id in [a, b, c, d] {
        assert_eq!(story.outcome(id).await, Outcome::Succeeded);
    }
    let started = |id| story.find(id, "attempt.started").unwrap().seq;
    let ended = |id| story.find(id, "attempt.succeeded").unwrap().seq;
    assert!(ended(a) < started(b) && ended(a) < started(c));
    assert!(ended(b) < started(d) && ended(c) < started(d));
}

#[tokio::test]
async fn a_failed_need_fails_skips_or_runs_its_dependents() {
    let system = System::up().await;
    let bad = system.submit(json!({"run": {"command": ["false"]}})).await;
    let by = |policy: &str| json!({"run": {"noop": {}}, "needs": [bad], "on_need_failed": policy});
    let fails = system.submit(by("fail")).await;
    let skips = system.submit(by("skip")).await;
    let runs = system.submit(by("run")).await;
    let after = system
        .submit(json!({"run": {"noop": {}}, "needs": [fails]}))
        .await;
    let mut story = system.story().await;
    assert_eq!(story.outcome(bad).await, Outcome::Failed);
    let failed = story.ended(fails).await;
    let how = failed.phase;
    let conductor_domain::state::Phase::Ended(ended) = how else {
        panic!("{how:?}")
    };
    assert_eq!(
        (ended.outcome, ended.class),
        (Outcome::Failed, Some(OutcomeClass::NeedFailed))
    );
    assert_eq!(story.outcome(skips).await, Outcome::Cancelled);
    assert_eq!(story.outcome(runs).await, Outcome::Succeeded);
    assert_eq!(
        story.outcome(after).await,
        Outcome::Failed,
        "it follows all the way down"
    );
}

#[tokio::test]
async fn a_need_that_never_was_is_refused_by_name() {
    let system = System::up().await;
    let ghost = conductor_harness::system::new_id();
    system
        .submit(json!({"run": {"noop": {}}, "needs": [ghost]}))
        .await;
    let mut story = system.story().await;
    let told = story
        .until("a rejection", |s| {
            s.told.iter().find(|t| t.kind == "task.rejected").cloned()
        })
        .await;
    let text = format!("{:?}", told.event);
    assert!(
        text.contains("needs") && text.contains(&ghost.to_string()),
        "{text}"
    );
}

/// Results are read from the log, also beside a body that is too large for the state, and cut
/// where all of them together are too much.
#[tokio::test]
async fn a_task_is_given_the_results_of_what_it_needed() {
    use conductor_harness::system::sh;
    use conductor_protocol::event::Event;
    let system = System::up().await;
    let mut words = sh("echo first words");
    words["name"] = "words".into();
    let words = system.submit(words).await;
    // Three results as large as they get are more than one task is given.
    let mut needs = vec![words];
    for _ in 0..3 {
        let much = sh("head -c 40000 /dev/zero | tr '\\0' x; echo end");
        needs.push(system.submit(much).await);
    }
    let mut large = sh("true");
    large["run"]["command"] = json!({"argv": ["true"], "stdin": "x".repeat(5_000)});
    large["needs"] = json!(needs);
    let id = system.submit(large).await;
    let mut story = system.story().await;
    assert_eq!(story.outcome(id).await, Outcome::Succeeded);
    let Some(Event::AttemptAssigned(e)) = story.find(id, "attempt.assigned").unwrap().event else {
        panic!("it was assigned")
    };
    assert_eq!(e.inputs.len(), 4);
    assert_eq!(
        (e.inputs[0].task, e.inputs[0].name.as_deref()),
        (words, Some("words"))
    );
    let results: Vec<&str> = e
        .inputs
        .iter()
        .map(|i| i.result.as_deref().unwrap())
        .collect();
    assert_eq!(results[0], "first words");
    assert!(results[1].ends_with("end") && results[1].len() > 30_000);
    assert!(
        results[3].contains("[cut by conductor: "),
        "{:.100}",
        results[3]
    );
    let all: usize = results.iter().map(|r| r.len()).sum();
    assert!(all <= 64 * 1024, "{all}");
}
