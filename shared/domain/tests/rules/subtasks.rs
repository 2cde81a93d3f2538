//! Tasks that attempts submit.

use conductor_domain::state::Phase;
use conductor_domain::{Verdict, VoidReason, plan};
use conductor_protocol::event::{AttemptTold, Event, SubtaskNews, Word};
use conductor_protocol::ids::{Lease, Position};
use conductor_protocol::limits::SUBMITTED_MAX;
use conductor_protocol::{Control, Outcome, OutcomeClass, TaskId};
use serde_json::json;

use super::world::{World, filing};

const NOOP: &str = r#"{"run":{"noop":{}}}"#;

/// A task that runs and may submit two.
fn parent() -> (World, TaskId, Lease) {
    let mut world = World::new();
    let task =
        world.task(json!({"subtasks": {"max": 2}, "retry": {"max_attempts": 2, "backoff": 0}}));
    let lease = world.run(task, "a1");
    (world, task, lease)
}

/// Has an attempt submit something, and that decided; the news of it.
fn submit(world: &mut World, lease: Lease, number: u32, body: &str) -> SubtaskNews {
    let said = world.agent_says("a1", filing(lease, number, body));
    assert_eq!(said, Verdict::Applied);
    world.settle();
    news(world).pop().expect("there is news")
}

/// Has the scheduler tell what is to be told.
fn news(world: &mut World) -> Vec<SubtaskNews> {
    let mut told = Vec::new();
    for (to, event) in world.words() {
        assert_eq!(
            world.scheduler(to.as_str(), event.clone()),
            Verdict::Applied
        );
        if let Event::AttemptTold(AttemptTold {
            word: Word::Subtask { news, .. },
            ..
        }) = event
        {
            told.push(news);
        }
    }
    told
}

fn accepted(world: &mut World, lease: Lease, number: u32, body: &str) -> TaskId {
    match submit(world, lease, number, body) {
        SubtaskNews::Accepted { task } => task,
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_attempt_is_told_that_its_subtask_is_one_and_how_it_ended() {
    let (mut world, task, lease) = parent();
    let child = accepted(&mut world, lease, 1, NOOP);
    assert_eq!(world.of(child).parent(), Some(task));
    assert_eq!(news(&mut world), [], "it was told");
    let run = world.run(child, "a1");
    assert_eq!(world.succeed(run, "a1"), Verdict::Applied);
    let at = Position::new(world.state.seq, 0);
    let telling = plan::words(&world.state, &mut plan::Overlay::default(), 9).remove(0);
    assert_eq!(telling.result, Some((child, at)), "its result stands there");
    let ended = SubtaskNews::Ended {
        task: child,
        outcome: Outcome::Succeeded,
        class: None,
        result: None,
    };
    assert_eq!(news(&mut world), [ended]);
    assert_eq!(news(&mut world), [], "it was told");
}

#[test]
fn what_a_parent_may_not_have_is_refused_with_reasons() {
    let (mut world, _, lease) = parent();
    let other = world.task(json!({}));
    for (number, body, field) in [
        (
            1,
            json!({"run": {"noop": {}}, "sandbox": "none"}),
            "sandbox",
        ),
        (
            2,
            json!({"run": {"noop": {}}, "needs": [other]}),
            "needs[0]",
        ),
        (3, json!({}), "run"),
    ] {
        match submit(&mut world, lease, number, &body.to_string()) {
            SubtaskNews::Rejected { errors } => assert_eq!(errors[0].field, field),
            news => panic!("{body} is {news:?}"),
        }
    }
}

#[test]
fn no_task_submits_more_than_it_may() {
    let (mut world, task, lease) = parent();
    accepted(&mut world, lease, 1, NOOP);
    // Both before either is decided.
    for number in [2, 3] {
        world.agent_says("a1", filing(lease, number, NOOP));
    }
    world.settle();
    let is_refused = |news: &SubtaskNews| matches!(news, SubtaskNews::Rejected { .. });
    let news = news(&mut world);
    assert_eq!(news.iter().filter(|n| is_refused(n)).count(), 1, "{news:?}");
    assert_eq!(world.of(task).aside.subtasks.len(), 2);
    // Nor does its next attempt.
    world.fail(lease, "a1", OutcomeClass::Failed);
    world.settle();
    let again = world.run(task, "a1");
    let news = submit(&mut world, again, 1, NOOP);
    assert!(is_refused(&news), "{news:?}");
}

#[test]
fn the_same_key_is_the_same_subtask_for_its_parent_alone() {
    let (mut world, task, lease) = parent();
    let body = r#"{"run":{"noop":{}},"key":"k"}"#;
    let foreign = world.task(json!({"key": "k"}));
    let child = accepted(&mut world, lease, 1, body);
    assert_ne!(child, foreign);
    let run = world.run(child, "a1");
    world.succeed(run, "a1");
    world.fail(lease, "a1", OutcomeClass::Failed);
    world.settle();
    let again = world.run(task, "a1");
    let ended = SubtaskNews::Ended {
        task: child,
        outcome: Outcome::Succeeded,
        class: None,
        result: None,
    };
    assert_eq!(submit(&mut world, again, 1, body), ended);
    assert_eq!(world.of(task).aside.subtasks.len(), 1);
}

#[test]
fn what_an_attempt_submitted_becomes_nothing_once_it_is_over() {
    let (mut world, _, lease) = parent();
    world.agent_says("a1", filing(lease, 1, NOOP));
    let acceptance = world.decisions().remove(0);
    assert!(matches!(acceptance, Event::TaskAccepted(_)));
    world.fail(lease, "a1", OutcomeClass::Failed);
    let late = world.orchestrator(acceptance);
    assert_eq!(late, Verdict::Void(VoidReason::LeaseNotCurrent));
    let tasks = world.state.tasks.len();
    world.settle();
    assert_eq!(world.state.tasks.len(), tasks);
    assert!(world.state.subtasks.is_empty(), "it is decided");
}

#[test]
fn whoever_cancels_a_task_cancels_those_below_it() {
    let mut world = World::new();
    let task = world.task(json!({"subtasks": {"depth": 2}}));
    let lease = world.run(task, "a1");
    let body = r#"{"run":{"noop":{}},"subtasks":{"max":1}}"#;
    let child = accepted(&mut world, lease, 1, body);
    let done = accepted(&mut world, lease, 2, NOOP);
    let run = world.run(done, "a1");
    world.succeed(run, "a1");
    let run = world.run(child, "a1");
    world.agent_says("a1", filing(run, 1, NOOP));
    world.settle();
    let grandchild = *world.of(child).aside.subtasks.first().unwrap();
    let cancel = Control::Cancel { task, reason: None };
    assert_eq!(world.control(&cancel), Verdict::Applied);
    world.settle();
    let outcomes = [task, child, grandchild, done].map(|id| world.state.outcome_of(id).unwrap());
    use Outcome::{Cancelled, Succeeded};
    assert_eq!(outcomes, [Cancelled, Cancelled, Cancelled, Succeeded]);
}

#[test]
fn an_attempt_cannot_fill_the_state() {
    let (mut world, task, lease) = parent();
    for number in 1..=SUBMITTED_MAX {
        assert_eq!(
            world.agent_says("a1", filing(lease, number, "{")),
            Verdict::Applied
        );
    }
    let more = world.agent_says("a1", filing(lease, 600, NOOP));
    assert_eq!(more, Verdict::Void(VoidReason::NoCapacity));
    let again = world.agent_says("a1", filing(lease, 1, NOOP));
    assert_eq!(again, Verdict::Void(VoidReason::Duplicate));
    world.settle();
    assert!(world.state.subtasks.is_empty());
    assert!(matches!(world.of(task).phase, Phase::Running { .. }));
}
