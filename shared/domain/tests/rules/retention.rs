//! What is forgotten, and what is not forgotten with it.

use conductor_domain::Verdict;
use conductor_domain::state::Outcome;
use conductor_protocol::Control;
use conductor_protocol::event::Event;
use serde_json::json;

use super::world::World;

const HOUR_MS: u64 = 3600 * 1000;

#[test]
fn finished_tasks_leave_the_state_but_not_their_ids_until_the_window_is_over() {
    let mut world = World::new();
    let change = json!({"finished_retention": "1h", "idempotency_window": "10h"});
    world.control(&Control::PutConfig(serde_json::from_value(change).unwrap()));
    let task = world.task(json!({}));
    let lease = world.run(task, "a1");
    world.succeed(lease, "a1");
    world.now_ms += HOUR_MS;
    world.control(&Control::PauseQueue {
        queue: "x".parse().unwrap(),
    });
    assert!(!world.state.tasks.contains_key(&task));
    assert_eq!(world.state.outcome_of(task), Some(Outcome::Succeeded));
    // A task that needs it still learns how it ended.
    let dependent = world.task(json!({"needs": [task]}));
    assert_eq!(world.phase(dependent), "ready");
    world.submit(&json!({"id": task, "run": {"noop": {}}}));
    assert!(matches!(
        world.decisions().as_slice(),
        [Event::TaskDuplicate(_)]
    ));
    world.settle();
    world.now_ms += 10 * HOUR_MS;
    world.control(&Control::ResumeQueue {
        queue: "x".parse().unwrap(),
    });
    assert!(!world.state.knows(task));
    // Forgotten, and therefore refused: it must not run twice.
    world.submit(&json!({"id": task, "run": {"noop": {}}}));
    assert!(matches!(
        world.decisions().as_slice(),
        [Event::TaskRejected(_)]
    ));
}

#[test]
fn the_number_of_finished_tasks_is_bounded() {
    let mut world = World::new();
    let change = json!({"finished_max": 3, "tombstones_max": 4});
    world.control(&Control::PutConfig(serde_json::from_value(change).unwrap()));
    for _ in 0..12 {
        world.now_ms += 1;
        let task = world.task(json!({}));
        let lease = world.run(task, "a1");
        assert_eq!(world.succeed(lease, "a1"), Verdict::Applied);
    }
    assert_eq!(
        (world.state.tasks.len(), world.state.tombstones.len()),
        (3, 4)
    );
    assert_eq!(world.state.counters.ended[&Outcome::Succeeded], 12);
}

#[test]
fn a_key_is_free_again_after_the_window() {
    let mut world = World::new();
    let change = json!({"idempotency_window": "1h"});
    world.control(&Control::PutConfig(serde_json::from_value(change).unwrap()));
    world.task(json!({"key": "nightly"}));
    world.now_ms += HOUR_MS + 1;
    world.control(&Control::PauseQueue {
        queue: "x".parse().unwrap(),
    });
    world.submit(&json!({"key": "nightly", "run": {"noop": {}}}));
    assert!(matches!(
        world.decisions().as_slice(),
        [Event::TaskAccepted(_)]
    ));
}

#[test]
fn time_in_the_log_never_goes_back() {
    let mut world = World::new();
    let task = world.task(json!({"timeouts": {"total": "1s"}}));
    let before = world.state.time_ms;
    // The server's clock was set back by an hour.
    world.now_ms -= HOUR_MS;
    world.task(json!({}));
    assert_eq!(world.state.time_ms, before);
    assert!(!world.of(task).is_final());
}
