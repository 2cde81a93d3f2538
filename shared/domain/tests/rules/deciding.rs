//! What the orchestrator decides, and when.

use conductor_domain::decide::{self, Input, Overlay};
use conductor_domain::{Verdict, explain};
use conductor_protocol::event::{Event, TaskTimeout};
use conductor_protocol::{Control, OutcomeClass, TaskId};
use serde_json::json;

use super::world::{START_MS, World, agent};

fn input(now_ms: u64) -> Input<'static> {
    Input {
        now_ms,
        silent_agents: &[],
        silent_leases: &[],
        events_max: 1_000,
    }
}

/// The errors of the only rejection there is to decide.
fn rejection(world: &World) -> String {
    match world.decisions().as_slice() {
        [Event::TaskRejected(e)] => e
            .errors
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join("; "),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_in_flight_is_not_decided_again_until_it_came_back() {
    let mut world = World::new();
    world.submit(&json!([{"run": {"noop": {}}}, {"run": {"noop": {}}, "delay": "0s"}]));
    let mut overlay = Overlay::default();
    let first = decide::decide(&world.state, &mut overlay, input(world.now_ms), &mut || 0);
    assert_eq!(first.len(), 2);
    let again = decide::decide(&world.state, &mut overlay, input(world.now_ms), &mut || 0);
    assert_eq!(again, []);
    // One that turned out void is in nobody's way any more: its submission is looked at anew.
    overlay.on_folded(
        &first[0],
        Verdict::Void(conductor_domain::VoidReason::StaleEpoch),
    );
    let redone = decide::decide(&world.state, &mut overlay, input(world.now_ms), &mut || 0);
    assert_eq!(redone[0], first[0]);
}

/// Simulation, seed 128012: the acceptance of a need may turn out void after that of the task
/// that needs it was decided, in the same frame.
#[test]
fn a_task_is_not_accepted_without_what_it_needs() {
    let mut world = World::new();
    world.submit(&json!([{"name": "b", "needs": ["a"], "run": {"noop": {}}}, {"name": "a", "run": {"noop": {}}}]));
    let decisions = world.decisions();
    let [_, Event::TaskAccepted(b)] = decisions.as_slice() else {
        panic!("{decisions:?}");
    };
    let unknown = Verdict::Void(conductor_domain::VoidReason::UnknownTask);
    assert_eq!(world.orchestrator(b.clone()), unknown);
    world.settle();
    assert!(world.state.intake.is_empty());
    assert_eq!(world.state.counters.accepted, 2);
}

/// A frame was lost, and with it the acceptance of a need; that of the task itself came back
/// void. Decided anew, the need comes first.
#[test]
fn a_task_whose_needs_acceptance_was_lost_is_not_rejected() {
    let mut world = World::new();
    world.submit(&json!([{"name": "b", "needs": ["a"], "run": {"noop": {}}}, {"name": "a", "run": {"noop": {}}}]));
    let decisions = world.decisions();
    let mut overlay = Overlay::default();
    let unknown = Verdict::Void(conductor_domain::VoidReason::UnknownTask);
    overlay.on_folded(&decisions[1], unknown);
    let anew = decide::decide(&world.state, &mut overlay, input(world.now_ms), &mut || 0);
    assert_eq!(anew, decisions);
}

#[test]
fn a_new_leader_decides_the_same() {
    let mut world = World::new();
    world.submit(&json!([{"name": "b", "needs": ["a"], "run": {"noop": {}}}, {"name": "a", "run": {"noop": {}}}]));
    let decisions = world.decisions();
    assert_eq!(
        decisions,
        world.decisions(),
        "ids too are a function of the log"
    );
    let names: Vec<_> = decisions
        .iter()
        .map(|e| match e {
            Event::TaskAccepted(e) => e.spec.name.as_deref().unwrap().to_owned(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(names, ["a", "b"], "what is needed comes first");
}

#[test]
fn needs_in_a_circle_and_unknown_needs_are_refused() {
    let mut world = World::new();
    world.submit(&json!([
        {"name": "a", "needs": ["b"], "run": {"noop": {}}},
        {"name": "b", "needs": ["a"], "run": {"noop": {}}},
    ]));
    assert!(
        world
            .decisions()
            .iter()
            .all(|e| matches!(e, Event::TaskRejected(_)))
    );
    world.settle();
    let stranger = world.new_id();
    world.submit(&json!({"needs": [stranger], "run": {"noop": {}}}));
    assert!(rejection(&world).contains("needs[0]"));
}

#[test]
fn a_full_queue_refuses_with_the_reason() {
    let mut world = World::new();
    let change = serde_json::from_value(json!({"backlog_max": 1})).unwrap();
    world.control(&Control::PutConfig(change));
    world.task(json!({}));
    world.submit(&json!({"run": {"noop": {}}}));
    assert!(
        rejection(&world).contains("q is full: 1 tasks wait"),
        "{}",
        rejection(&world)
    );
}

#[test]
fn ids_too_old_to_be_remembered_and_from_the_future_are_refused() {
    const DAY_MS: u64 = 24 * 3600 * 1000;
    for (made_ms, what) in [
        (START_MS - 2 * DAY_MS, "before the oldest"),
        (START_MS + 2 * DAY_MS, "in the future"),
    ] {
        let mut world = World::new();
        let id = TaskId::from_parts(made_ms, [7; 10]);
        world.submit(&json!({"id": id, "run": {"noop": {}}}));
        assert!(rejection(&world).contains(what), "{}", rejection(&world));
    }
}

#[test]
fn a_second_submission_of_the_same_id_or_key_is_a_duplicate_even_in_flight() {
    let mut world = World::new();
    let id = world.new_id();
    world.submit(&json!([
        {"id": id, "run": {"noop": {}}}, {"id": id, "run": {"noop": {}}},
        {"key": "k", "run": {"noop": {}}}, {"key": "k", "run": {"noop": {}}},
        {"key": "k", "namespace": "other", "run": {"noop": {}}},
    ]));
    let kinds: Vec<_> = world.decisions().iter().map(Event::kind).collect();
    assert_eq!(
        kinds,
        [
            "task.accepted",
            "task.duplicate",
            "task.accepted",
            "task.duplicate",
            "task.accepted"
        ]
    );
    world.settle();
    world.submit(&json!({"key": "k", "run": {"noop": {}}}));
    assert_eq!(world.decisions()[0].kind(), "task.duplicate");
}

#[test]
fn retries_grow_are_capped_and_their_jitter_is_bounded() {
    let mut world = World::new();
    let retry = json!({"max_attempts": 9, "backoff": "1s", "factor": 2.0, "max_backoff": "5s", "jitter": 0.5, "on": ["failed"]});
    let task = world.task(json!({"retry": retry}));
    let mut delays = Vec::new();
    for _ in 0..5 {
        let lease = world.run(task, "a1");
        world.fail(lease, "a1", OutcomeClass::Failed);
        let mut bounds = Vec::new();
        for entropy in [0, u64::MAX, 12_345] {
            let mut overlay = Overlay::default();
            let decided =
                decide::decide(&world.state, &mut overlay, input(world.now_ms), &mut || {
                    entropy
                });
            let [Event::TaskRetrySet(set)] = decided.as_slice() else {
                panic!("{decided:?}")
            };
            assert_eq!(set.at_ms, world.now_ms + set.delay_ms);
            bounds.push(set.delay_ms);
        }
        let whole: u64 = [1_000, 2_000, 4_000, 5_000, 5_000][delays.len()];
        assert!(
            bounds.iter().all(|d| (whole / 2..=whole).contains(d)),
            "{bounds:?} of {whole}"
        );
        delays.push(bounds[0]);
        let decisions = world.decisions();
        world.orchestrator(decisions[0].clone());
        world.now_ms += 10_000;
        world.settle();
    }
    assert_eq!(delays, [500, 1_000, 2_000, 2_500, 2_500]);
}

#[test]
fn each_timeout_is_due_when_it_is_due_and_not_before() {
    for (phase, timeout, due_ms) in [
        ("ready", TaskTimeout::Queue, 1_000),
        ("leased", TaskTimeout::Queue, 1_000),
        ("ready", TaskTimeout::Total, 3_000),
        ("running", TaskTimeout::Total, 3_000),
        ("pending", TaskTimeout::Total, 3_000),
    ] {
        let mut world = World::new();
        let field = if timeout == TaskTimeout::Queue {
            "queue"
        } else {
            "total"
        };
        let delay = if phase == "pending" { "1h" } else { "0s" };
        let span = format!("{due_ms}ms");
        let task = world.task(json!({"timeouts": {field: span}, "delay": delay}));
        match phase {
            "leased" => drop(world.assign(task, "a1")),
            "running" => drop(world.run(task, "a1")),
            _ => {}
        }
        assert_eq!(
            decide::next_wake(&world.state, &Overlay::default()),
            Some(START_MS + due_ms)
        );
        world.now_ms += due_ms - 1;
        assert_eq!(world.decisions(), [], "{phase} {timeout:?}");
        world.now_ms += 1;
        let decided = world.decisions();
        let [Event::TaskTimedOut(e)] = decided.as_slice() else {
            panic!("{decided:?}")
        };
        assert_eq!((e.task, e.timeout), (task, timeout));
    }
}

#[test]
fn the_orchestrator_steps_in_where_an_agent_does_not_enforce_the_run_timeout() {
    let mut world = World::new();
    let task = world.task(json!({"timeouts": {"run": "2s"}}));
    let lease = world.run(task, "a1");
    world.now_ms += 2_000 + decide::due::RUN_TIMEOUT_GRACE_MS - 1;
    assert_eq!(world.decisions(), []);
    world.now_ms += 1;
    let decided = world.decisions();
    let [Event::AttemptTimedOut(e)] = decided.as_slice() else {
        panic!("{decided:?}")
    };
    assert_eq!(e.lease, lease);
    world.settle();
    assert_eq!(world.phase(task), "timed_out");
}

#[test]
fn silent_agents_are_lost_once_and_silent_leases_time_out() {
    let mut world = World::new();
    let task = world.task(json!({}));
    let lease = world.run(task, "a1");
    let incarnation = world.state.agents[&agent("a1")].incarnation;
    let silent = [(agent("a1"), incarnation), (agent("a1"), incarnation - 1)];
    let leases = [lease];
    let mut overlay = Overlay::default();
    let both = Input {
        silent_agents: &silent,
        silent_leases: &leases,
        ..input(world.now_ms)
    };
    let decided = decide::decide(&world.state, &mut overlay, both, &mut || 0);
    let kinds: Vec<_> = decided.iter().map(Event::kind).collect();
    assert_eq!(kinds, ["agent.lost", "attempt.timed_out"]);
    assert_eq!(
        decide::decide(&world.state, &mut overlay, both, &mut || 0),
        []
    );
}

#[test]
fn why_says_what_a_task_waits_for() {
    let mut world = World::new();
    let need = world.task(json!({"name": "build", "delay": "1h"}));
    let dependent = world.task(json!({"needs": [need]}));
    let picky = world.task(json!({"labels": {"os": "plan9"}}));
    let wide = world.task(json!({"slots": 9}));
    let keyed = json!({"concurrency": {"key": "db", "limit": 1}});
    let (first, second) = (world.task(keyed.clone()), world.task(keyed));
    world.run(first, "a1");
    let why = |w: &World, task| explain::why(&w.state, task).unwrap();
    assert!(why(&world, need).starts_with("its start is set for"));
    assert!(
        why(&world, dependent).contains("needs 1 task(s)")
            && why(&world, dependent).contains("build")
    );
    assert!(why(&world, picky).contains("os=plan9"));
    assert!(why(&world, wide).contains('9'), "{}", why(&world, wide));
    assert!(why(&world, first).starts_with("it does not wait"));
    assert!(why(&world, second).contains("concurrency key \"db\""));
    world.control(&Control::PauseQueue {
        queue: "q".parse().unwrap(),
    });
    assert!(why(&world, second).contains("queue q is paused"));
    let stranger = world.new_id();
    assert_eq!(explain::why(&world.state, stranger), None);
}

#[test]
fn a_need_run_again_by_hand_neither_holds_up_nor_starts_its_dependents() {
    let mut world = World::new();
    let (a, b) = (world.task(json!({})), world.task(json!({})));
    let dependent = world.task(json!({"needs": [a, b]}));
    for _ in 0..2 {
        let lease = world.run(a, "a1");
        world.succeed(lease, "a1");
        // A snapshot taken now and the live state must go on alike: `fold` compares them.
        world.control(&Control::Retry { task: a });
        world.settle();
    }
    assert_eq!(
        world.phase(dependent),
        "pending",
        "the other need has not run"
    );
    let lease = world.run(b, "a1");
    world.succeed(lease, "a1");
    world.settle();
    assert_eq!(world.phase(dependent), "ready");
}

#[test]
fn a_rejection_always_fits_into_the_log() {
    let mut world = World::new();
    let needs: Vec<String> = (0..250)
        .map(|n| format!("{n}-{}", "x".repeat(1_000)))
        .collect();
    for submission in [
        json!({"run": {"noop": {}}, "needs": needs}),
        json!({"run": {"noop": {}}, "needs": vec!["x"; 20_000]}),
        json!({"run": {"noop": {}}, "name": "y".repeat(100_000), "queue": "z".repeat(100_000)}),
    ] {
        world.submit(&submission);
        let decisions = world.decisions();
        let [rejected @ Event::TaskRejected(_)] = decisions.as_slice() else {
            panic!("{decisions:?}")
        };
        assert!(
            rejected.encode().len() < 64 * 1024,
            "{}",
            rejected.encode().len()
        );
        world.settle();
    }
}

#[test]
fn a_decision_stored_twice_is_not_decided_again() {
    let mut world = World::new();
    world.submit(&json!([{"run": {"noop": {}}}, {"run": {"noop": {}}}]));
    let mut overlay = Overlay::default();
    let decided = decide::decide(&world.state, &mut overlay, input(world.now_ms), &mut || 0);
    let first = decided[0].clone();
    let verdict = world.orchestrator(first.clone());
    overlay.on_folded(&first, verdict);
    let again = world.orchestrator(first.clone());
    assert_eq!(
        again,
        Verdict::Void(conductor_domain::VoidReason::SubmissionDecided)
    );
    overlay.on_folded(&first, again);
    // The second one is still in flight.
    let more = decide::decide(&world.state, &mut overlay, input(world.now_ms), &mut || 0);
    assert_eq!(more, []);
}

#[test]
fn trace_context_of_any_length_is_no_burden() {
    let mut world = World::new();
    let record = conductor_domain::Record {
        seq: world.state.seq + 1,
        time_ms: world.now_ms,
        subject: "conductor.test.submit.q".into(),
        content_type: None,
        reply: None,
        traceparent: Some("t".repeat(60_000)),
        payload: br#"{"run":{"noop":{}}}"#.as_slice().into(),
    };
    world.fold(record);
    let decisions = world.decisions();
    let [Event::TaskAccepted(e)] = decisions.as_slice() else {
        panic!("{decisions:?}")
    };
    assert_eq!(e.spec.traceparent, None);
}
