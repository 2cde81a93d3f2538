//! Who runs what, and in which order.

use std::collections::BTreeMap;

use conductor_domain::Verdict;
use conductor_domain::plan::{self, Overlay};
use conductor_protocol::event::AgentDraining;
use conductor_protocol::subject::Role;
use conductor_protocol::{Control, TaskId};
use serde_json::{Value, json};

use super::world::{World, agent, bounds};

/// Tasks in the order in which one slot after the other is given to them.
fn order(world: &World, n: usize) -> Vec<TaskId> {
    let mut overlay = Overlay::default();
    plan::plan(&world.state, &mut overlay, bounds(n))
        .iter()
        .map(|a| a.task)
        .collect()
}

fn world_with_slots(slots: u32) -> World {
    let mut world = World::new();
    world.join("a1", slots);
    world
}

#[test]
fn planning_twice_changes_nothing() {
    let mut world = world_with_slots(10);
    for _ in 0..5 {
        world.task(json!({}));
    }
    let mut overlay = Overlay::default();
    assert_eq!(plan::plan(&world.state, &mut overlay, bounds(100)).len(), 5);
    assert_eq!(plan::plan(&world.state, &mut overlay, bounds(100)), []);
}

#[test]
fn higher_priority_goes_first_and_waiting_makes_up_for_it() {
    let mut world = world_with_slots(1);
    let low = world.task(json!({"priority": 1}));
    let high = world.task(json!({"priority": 9}));
    assert_eq!(order(&world, 1), [high]);
    // One level for every minute: after nine minutes a newcomer's eight levels are outweighed.
    world.now_ms += 9 * 60_000;
    let newcomer = world.task(json!({"priority": 9}));
    let lease = world.run(high, "a1");
    world.succeed(lease, "a1");
    assert_eq!(order(&world, 1), [low]);
    assert!(world.of(newcomer).is_waiting());
}

#[test]
fn equal_ones_go_in_the_order_they_became_ready() {
    let mut world = world_with_slots(10);
    let ids: Vec<TaskId> = (0..5).map(|_| world.task(json!({}))).collect();
    assert_eq!(order(&world, 5), ids);
}

#[test]
fn namespaces_and_queues_share_fairly_by_weight() {
    let mut world = world_with_slots(12);
    let change = json!({"namespace_weight": {"big": 2}});
    world.control(&Control::PutConfig(serde_json::from_value(change).unwrap()));
    let mut of: BTreeMap<TaskId, &str> = BTreeMap::new();
    for _ in 0..20 {
        of.insert(world.task(json!({"namespace": "big"})), "big");
    }
    for _ in 0..20 {
        of.insert(world.task(json!({"namespace": "small"})), "small");
    }
    let mut shares: BTreeMap<&str, usize> = BTreeMap::new();
    for task in order(&world, 12) {
        *shares.entry(of[&task]).or_default() += 1;
    }
    assert_eq!(shares, [("big", 8), ("small", 4)].into());
}

#[test]
fn only_agents_with_the_labels_the_runtime_and_the_slots_are_asked() {
    let mut world = world_with_slots(2);
    let agents = |world: &World| -> Vec<String> {
        world
            .planned()
            .iter()
            .map(|a| a.agent.to_string())
            .collect()
    };
    for cannot in [
        json!({"labels": {"os": "plan9"}}),
        json!({"run": {"codex": {"prompt": "hi"}}}),
        json!({"slots": 3}),
    ] {
        world.task(cannot.clone());
        assert!(agents(&world).is_empty(), "{cannot}");
    }
    world.join("a2", 4);
    assert_eq!(agents(&world), ["a2"], "the one with room for three slots");
}

#[test]
fn drained_draining_and_gone_agents_get_nothing() {
    let mut world = world_with_slots(4);
    world.task(json!({}));
    assert_eq!(world.planned().len(), 1);
    world.control(&Control::DrainAgent { agent: agent("a1") });
    assert_eq!(world.planned(), []);
    world.control(&Control::ResumeAgent { agent: agent("a1") });
    assert_eq!(world.planned().len(), 1);
    world.agent_says("a1", AgentDraining {});
    assert_eq!(world.planned(), []);
}

#[test]
fn a_key_never_exceeds_its_limit_even_within_one_plan() {
    let mut world = world_with_slots(20);
    let keyed: Value = json!({"concurrency": {"key": "db", "limit": 3}});
    for _ in 0..10 {
        world.task(keyed.clone());
    }
    let mut overlay = Overlay::default();
    assert_eq!(plan::plan(&world.state, &mut overlay, bounds(100)).len(), 3);
    assert_eq!(
        plan::plan(&world.state, &mut overlay, bounds(100)).len(),
        0,
        "in flight counts"
    );
}

#[test]
fn paused_queues_are_passed_over() {
    let mut world = world_with_slots(4);
    world.task(json!({}));
    world.control(&Control::PauseQueue {
        queue: "q".parse().unwrap(),
    });
    assert_eq!(world.planned(), []);
    world.control(&Control::ResumeQueue {
        queue: "q".parse().unwrap(),
    });
    assert_eq!(world.planned().len(), 1);
}

#[test]
fn large_tasks_are_not_starved_by_small_ones() {
    let mut world = world_with_slots(4);
    let running: Vec<_> = (0..4).map(|_| world.task(json!({}))).collect();
    let leases: Vec<_> = running.iter().map(|t| world.run(*t, "a1")).collect();
    let wide = world.task(json!({"slots": 4, "priority": 9}));
    let mut rounds = 0;
    for lease in leases {
        // A stream of small ones keeps coming.
        world.task(json!({"priority": 0}));
        world.now_ms += 60_000;
        world.succeed(lease, "a1");
        for assignment in world.planned() {
            if assignment.task == wide {
                return;
            }
            world.run(assignment.task, "a1");
            rounds += 1;
        }
    }
    assert_eq!(
        order(&world, 1),
        [wide],
        "after {rounds} small ones went first"
    );
}

#[test]
fn a_task_too_large_for_any_agent_holds_up_no_smaller_one() {
    let mut world = world_with_slots(4);
    let large = world.task(json!({"slots": 8, "priority": 9}));
    let small = world.task(json!({}));
    assert_eq!(order(&world, 10), [small]);
    assert_eq!(world.phase(large), "ready");
}

/// The agents that one planning binds tasks to.
fn bound(world: &World, overlay: &mut Overlay) -> BTreeMap<String, usize> {
    let mut bound = BTreeMap::new();
    for a in plan::plan(&world.state, overlay, bounds(1_000)) {
        *bound.entry(a.agent.to_string()).or_default() += 1;
    }
    bound
}

#[test]
fn no_more_agents_are_bound_to_than_can_be_told_at_once() {
    let mut world = World::new();
    for n in 0..40 {
        world.join(&format!("a{n}"), 2);
    }
    for _ in 0..60 {
        world.task(json!({}));
    }
    let mut overlay = Overlay::default();
    let first = bound(&world, &mut overlay);
    assert_eq!((first.len(), first.values().sum::<usize>()), (16, 32));
    assert_eq!(
        bound(&world, &mut overlay),
        BTreeMap::new(),
        "all are in flight"
    );
    let second = bound(&world, &mut Overlay::default());
    assert_eq!(second, first, "planned anew it is the same");
}

/// A large agent for which something is always in flight, since more is planned for it before
/// the log has what was; and a second one.
fn with_words_in_flight(slots: u32, other_os: &str) -> (World, Overlay) {
    let mut world = World::empty();
    world.elect(Role::Orchestrator);
    world.elect(Role::Scheduler);
    world.join("a1", slots);
    let mut overlay = Overlay::default();
    world.task(json!({}));
    assert_eq!(bound(&world, &mut overlay).len(), 1);
    world.join_on("a2", slots, other_os);
    (world, overlay)
}

#[test]
fn an_agent_that_is_told_something_all_the_time_keeps_no_other_from_its_work() {
    let (mut world, mut overlay) = with_words_in_flight(1_024, "plan9");
    world.task(json!({"labels": {"os": "plan9"}}));
    world.task(json!({"labels": {"os": "linux"}}));
    let both = [("a1".to_owned(), 1), ("a2".to_owned(), 1)].into();
    assert_eq!(bound(&world, &mut overlay), both);
}

#[test]
fn an_agent_that_is_told_something_all_the_time_does_not_do_everything() {
    let (mut world, mut overlay) = with_words_in_flight(160, "linux");
    // Three steps of twenty slots: then the other has two more of them free.
    for _ in 0..100 {
        world.task(json!({}));
    }
    let shares: Vec<usize> = bound(&world, &mut overlay).into_values().collect();
    assert_eq!(
        shares,
        [59, 41],
        "59 and the one in flight, until the other was better"
    );
}

#[test]
fn few_tasks_are_spread_over_the_agents() {
    let mut world = World::new();
    for n in 0..8 {
        world.join(&format!("a{n}"), 8);
        world.task(json!({}));
    }
    assert_eq!(bound(&world, &mut Overlay::default()).len(), 8);
}

#[test]
fn an_agent_of_many_slots_is_given_an_eighth_of_them_at_a_time() {
    let mut world = World::new();
    world.join("a1", 100);
    world.join("a2", 100);
    for _ in 0..12 {
        world.task(json!({}));
    }
    let at_once = bound(&world, &mut Overlay::default());
    assert_eq!(at_once.into_values().collect::<Vec<_>>(), [12]);
    for _ in 0..188 {
        world.task(json!({}));
    }
    let all = bound(&world, &mut Overlay::default());
    assert_eq!(all.into_values().collect::<Vec<_>>(), [100, 100]);
}

#[test]
fn a_body_that_must_be_read_first_keeps_no_other_task_waiting() {
    let mut world = World::new();
    for n in 0..40 {
        world.join(&format!("a{n}"), 1);
    }
    let long = "x".repeat(2_000);
    for _ in 0..20 {
        world.task(json!({"run": {"command": ["echo", long]}}));
    }
    for _ in 0..20 {
        world.task(json!({}));
    }
    let mut overlay = Overlay::default();
    let counts = [0; 5].map(|_| bound(&world, &mut overlay).len());
    assert_eq!(counts, [16, 16, 4, 0, 0], "20 with a body to read, and 16");
}

#[test]
fn what_is_in_flight_is_not_planned_again_in_another_order() {
    let mut world = world_with_slots(10);
    for priority in [1, 9, 5] {
        world.task(json!({"priority": priority}));
    }
    let mut overlay = Overlay::default();
    assert_eq!(bound(&world, &mut overlay).values().sum::<usize>(), 3);
    let change = serde_json::from_value(json!({"aging": "1s"})).unwrap();
    assert_eq!(world.control(&Control::PutConfig(change)), Verdict::Applied);
    assert_eq!(bound(&world, &mut overlay), BTreeMap::new());
}
