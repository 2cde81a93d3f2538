//! What a task's next attempt goes on from: its model's session, what was used, how long it ran;
//! and when that is, after the model service had no more.

use conductor_domain::Verdict;
use conductor_protocol::OutcomeClass;
use conductor_protocol::event::{
    AttemptFailed, AttemptStarted, AttemptThrottled, AttemptUsage, Event, Usage,
};
use conductor_protocol::human::DurationMs;
use conductor_protocol::ids::Lease;
use conductor_protocol::{Control, TaskId};
use serde_json::json;

use super::world::{World, agent, failed};

/// A task of the claude runtime that is retried whatever happens.
fn claude(world: &mut World) -> TaskId {
    world.task(json!({
        "run": {"claude": {"prompt": "p"}},
        "retry": {"max_attempts": 9, "backoff": "1s", "factor": 1.0, "jitter": 0.0,
                  "on": ["failed", "crashed", "stalled", "auth", "agent_lost"]},
    }))
}

/// Assigns the next attempt, which says in which session it works.
fn run_in(world: &mut World, task: TaskId, on: &str, session: &str) -> Lease {
    world.settle();
    world.now_ms += 60_000;
    world.settle();
    let lease = world.assign(task, on);
    let session = Some(session.to_owned());
    let started = AttemptStarted::new(lease, session);
    assert_eq!(world.agent_says(on, started), Verdict::Applied);
    lease
}

fn session_before(world: &World, task: TaskId, on: &str) -> Option<String> {
    world.of(task).before(&agent(on))?.session
}

fn usage(input_tokens: u64, cost_usd: f64) -> Usage {
    Usage {
        input_tokens,
        cost_usd,
        ..Usage::default()
    }
}

#[test]
fn a_first_attempt_goes_on_from_nothing() {
    let mut world = World::new();
    let task = claude(&mut world);
    assert_eq!(world.of(task).before(&agent("a1")), None);
}

#[test]
fn a_session_goes_on_where_it_was_after_what_interrupted_it() {
    for (class, goes_on) in [
        (OutcomeClass::Crashed, true),
        (OutcomeClass::Stalled, true),
        (OutcomeClass::Failed, false),
        (OutcomeClass::Auth, false),
    ] {
        let mut world = World::new();
        world.join("a2", 4);
        let task = claude(&mut world);
        let lease = run_in(&mut world, task, "a1", "s1");
        world.fail(lease, "a1", class);
        let expected = goes_on.then(|| "s1".to_owned());
        assert_eq!(session_before(&world, task, "a1"), expected, "{class}");
        assert_eq!(
            session_before(&world, task, "a2"),
            None,
            "its files are on a1"
        );
    }
}

#[test]
fn the_agent_that_has_the_session_is_taken_if_it_can_be() {
    let mut world = World::new();
    let task = claude(&mut world);
    let lease = run_in(&mut world, task, "a1", "s1");
    // Another has more room, and would be taken otherwise.
    world.join("a2", 16);
    world.fail(lease, "a1", OutcomeClass::Crashed);
    world.settle();
    world.now_ms += 60_000;
    world.settle();
    assert_eq!(world.planned()[0].agent, agent("a1"));
    world.control(&Control::DrainAgent { agent: agent("a1") });
    assert_eq!(world.planned()[0].agent, agent("a2"), "nobody waits for it");
}

#[test]
fn after_two_failures_in_a_row_that_went_on_a_session_begins_anew() {
    let mut world = World::new();
    let task = claude(&mut world);
    for offered in [None, Some("s1"), Some("s1")] {
        assert_eq!(session_before(&world, task, "a1").as_deref(), offered);
        let lease = run_in(&mut world, task, "a1", "s1");
        world.fail(lease, "a1", OutcomeClass::Crashed);
    }
    assert_eq!(session_before(&world, task, "a1"), None);
    // What is not its fault is not counted.
    let lost = [OutcomeClass::Crashed, OutcomeClass::AgentLost];
    for class in lost.into_iter().chain([OutcomeClass::AgentLost; 3]) {
        let lease = run_in(&mut world, task, "a1", "s2");
        world.fail(lease, "a1", class);
        assert_eq!(session_before(&world, task, "a1").as_deref(), Some("s2"));
    }
}

/// A runtime that learns its session while it runs says it with what it used.
#[test]
fn a_session_is_known_from_what_was_used_as_well() {
    let mut world = World::new();
    let task = claude(&mut world);
    let lease = world.run(task, "a1");
    let used = Usage {
        session: Some("thread-1".into()),
        ..usage(10, 0.1)
    };
    for _ in 0..2 {
        let usage = used.clone();
        world.agent_says("a1", AttemptUsage { lease, usage });
    }
    world.fail(lease, "a1", OutcomeClass::Crashed);
    assert_eq!(
        session_before(&world, task, "a1").as_deref(),
        Some("thread-1")
    );
}

#[test]
fn what_was_used_never_goes_back_and_is_handed_on() {
    let mut world = World::new();
    let task = claude(&mut world);
    let lease = run_in(&mut world, task, "a1", "s1");
    let mut says = |usage| world.agent_says("a1", AttemptUsage { lease, usage });
    says(usage(100, 0.5));
    // Somebody who did not know what was before, and what is no number.
    says(usage(30, 0.7));
    says(usage(40, f64::NAN));
    says(usage(50, -1.0));
    world.now_ms += 7_000;
    let end = AttemptFailed {
        usage: Some(usage(120, 0.6)),
        ..failed(lease, OutcomeClass::Crashed)
    };
    world.agent_says("a1", end);
    let before = world.of(task).before(&agent("a1")).unwrap();
    assert_eq!(before.usage, Some(usage(120, 0.7)));
    assert_eq!(before.ran, Some(DurationMs(7_000)));
}

fn throttled(world: &mut World, lease: Lease, until_ms: Option<u64>) {
    let event = AttemptThrottled { lease, until_ms };
    assert_eq!(world.agent_says("a1", event), Verdict::Applied);
}

#[test]
fn a_usage_limit_pauses_until_its_time_and_counts_as_no_try() {
    let mut world = World::new();
    // Its policy retries nothing at all.
    let task = world.task(json!({"run": {"claude": {"prompt": "p"}}}));
    for n in 1..=3 {
        let lease = run_in(&mut world, task, "a1", "s1");
        let until = world.now_ms + 3_600_000;
        throttled(&mut world, lease, Some(until));
        world.fail(lease, "a1", OutcomeClass::RateLimited);
        let decisions = world.decisions();
        let [Event::TaskRetrySet(set)] = decisions.as_slice() else {
            panic!("{decisions:?}")
        };
        assert_eq!((set.at_ms, set.delay_ms), (until, 3_600_000));
        world.settle();
        assert_eq!(world.of(task).attempts_now(), 0, "{n}");
        world.now_ms = until;
    }
    let lease = run_in(&mut world, task, "a1", "s1");
    world.fail(lease, "a1", OutcomeClass::Failed);
    world.settle();
    assert_eq!(world.phase(task), "failed");
}

#[test]
fn a_limit_without_a_time_or_that_is_not_why_it_ended_is_no_pause() {
    for (until_in, class) in [
        (None, OutcomeClass::RateLimited),
        (Some(0), OutcomeClass::RateLimited),
        (Some(3_600_000), OutcomeClass::Failed),
    ] {
        let mut world = World::new();
        let task = world.task(json!({"run": {"claude": {"prompt": "p"}}}));
        let lease = run_in(&mut world, task, "a1", "s1");
        let until = until_in.map(|ms| world.now_ms + ms);
        throttled(&mut world, lease, until);
        world.fail(lease, "a1", class);
        world.settle();
        assert_eq!(world.phase(task), "failed", "{until_in:?} {class}");
    }
}
