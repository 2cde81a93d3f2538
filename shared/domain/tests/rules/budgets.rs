//! Budgets of namespaces that are used up: what is said of it, who is asked, and which tasks fail.

use conductor_domain::decide::{self, Input, Overlay};
use conductor_domain::state::State;
use conductor_domain::{Verdict, VoidReason, fold, record};
use conductor_protocol::control::OnReached;
use conductor_protocol::event::{BudgetReached, DayLimit, DaySpent, Event, TaskFailed};
use conductor_protocol::ids::Lease;
use conductor_protocol::terms::Answer;
use conductor_protocol::{Control, Namespace, OutcomeClass, TaskId};
use serde_json::json;

use super::sharing::{DAY_MS, model, put, uses};
use super::world::{START_MS, World};

pub(super) fn team() -> Namespace {
    "team".parse().unwrap()
}

pub(super) fn void(reason: VoidReason) -> Verdict {
    Verdict::Void(reason)
}

/// A namespace that may spend a thousand tokens a day, and then this happens.
fn world(on_reached: &str) -> World {
    let mut world = World::new();
    let budget = json!({"tokens_per_day": 1_000, "on_reached": on_reached});
    let verdict = put(&mut world, json!({"namespace_budget": {"team": budget}}));
    assert_eq!(verdict, Verdict::Applied);
    world
}

/// The same, with all of it spent by an attempt that goes on.
pub(super) fn spent(on_reached: &str) -> (World, Lease) {
    let mut world = world(on_reached);
    let first = model(&mut world, "team");
    let lease = world.run(first, "a1");
    uses(&mut world, lease, 0.0, 1_000);
    (world, lease)
}

/// What the orchestrator has to say of it.
pub(super) fn reached(world: &World) -> BudgetReached {
    match world.decisions().as_slice() {
        [Event::BudgetReached(e)] => e.clone(),
        other => panic!("{other:?}"),
    }
}

pub(super) fn answer(world: &mut World, answer: Answer, text: Option<&str>) -> Verdict {
    world.control(&Control::DecideBudget {
        namespace: team(),
        answer,
        text: text.map(str::to_owned),
    })
}

/// What the log says of how a task failed.
pub(super) fn failure(world: &World, task: TaskId) -> (OutcomeClass, String) {
    let events = world.log.iter().flat_map(|r| {
        let decoded = record::decode(&world.state.cell, r);
        match decoded.content {
            record::Content::Leader { items, .. } => items,
            _ => Vec::new(),
        }
    });
    let failed = events.flatten().filter_map(|event| match event {
        Event::TaskFailed(e) if e.task == task => Some((e.class, e.reason)),
        _ => None,
    });
    failed.last().unwrap()
}

fn failed(task: TaskId, class: OutcomeClass) -> TaskFailed {
    TaskFailed {
        task,
        class,
        reason: "no".into(),
    }
}

pub(super) fn is_planned(world: &World, task: TaskId) -> bool {
    world.planned().iter().any(|a| a.task == task)
}

pub(super) fn tomorrow(world: &World) -> u64 {
    (world.now_ms / DAY_MS + 1) * DAY_MS
}

/// The whole log, folded once more.
pub(super) fn assert_replay_agrees(world: &World) {
    let mut state = State::new(world.state.cell.clone());
    for entry in &world.log {
        let decoded = record::decode(&state.cell, entry);
        fold::apply(&mut state, &decoded);
    }
    assert_eq!(state.to_bytes(), world.state.to_bytes());
}

#[test]
fn a_budget_that_is_used_up_is_said_once() {
    let mut early = world("wait");
    assert_eq!(early.decisions(), []);
    let (mut world, _) = spent("wait");
    let said = reached(&world);
    let expected = BudgetReached {
        namespace: team(),
        day: START_MS / DAY_MS,
        spent: DaySpent {
            tokens: 1_000,
            ..DaySpent::default()
        },
        limit: DayLimit {
            tokens: Some(1_000),
            ..DayLimit::default()
        },
        on_reached: OnReached::Wait,
    };
    assert_eq!(said, expected);
    let untrue = void(VoidReason::BudgetNotReached);
    assert_eq!(early.orchestrator(said.clone()), untrue, "not spent");
    let yesterday = BudgetReached {
        day: said.day - 1,
        ..said.clone()
    };
    assert_eq!(world.orchestrator(yesterday), untrue);
    let other = BudgetReached {
        on_reached: OnReached::Fail,
        ..said.clone()
    };
    assert_eq!(world.orchestrator(other), untrue, "another policy");
    let nobody = BudgetReached {
        namespace: "other".parse().unwrap(),
        ..said.clone()
    };
    assert_eq!(world.orchestrator(nobody), untrue, "no budget");
    assert_eq!(world.orchestrator(said.clone()), Verdict::Applied);
    let noted = world.state.budget_reached(&team(), world.now_ms).unwrap();
    assert_eq!((noted.at_ms, noted.on_reached), (START_MS, OnReached::Wait));
    assert_eq!(world.decisions(), []);
    let again = void(VoidReason::Duplicate);
    assert_eq!(world.orchestrator(said), again);
    // Whoever waits, waits.
    let second = model(&mut world, "team");
    assert_eq!(world.phase(second), "ready");
    assert_eq!(world.state.budget_questions(world.now_ms), []);
    assert_replay_agrees(&world);
}

#[test]
fn a_log_of_the_first_format_knows_nothing_of_it() {
    let (mut world, _) = spent("ask");
    let said = reached(&world);
    world.state.format = 1;
    let unknown = void(VoidReason::FormatNotReached);
    assert_eq!(world.orchestrator(said), unknown);
    assert_eq!(answer(&mut world, Answer::Allow, None), unknown);
}

#[test]
fn what_is_on_its_way_is_not_said_again_until_it_came_back() {
    let (mut world, _) = spent("fail");
    let mut overlay = Overlay::default();
    let input = |events_max| Input {
        now_ms: START_MS,
        silent_agents: &[],
        silent_leases: &[],
        events_max,
    };
    let decide = |world: &World, overlay: &mut Overlay, most| {
        decide::decide(&world.state, overlay, input(most), &mut || 0)
    };
    let first = decide(&world, &mut overlay, 10);
    assert!(matches!(first.as_slice(), [Event::BudgetReached(_)]));
    assert_eq!(overlay.len(), 1);
    assert_eq!(decide(&world, &mut overlay, 10), []);
    // An earlier one that comes back once more says nothing of the one in flight.
    let Event::BudgetReached(said) = first[0].clone() else {
        unreachable!()
    };
    let earlier = BudgetReached {
        day: said.day - 1,
        ..said
    };
    let untrue = void(VoidReason::BudgetNotReached);
    overlay.on_folded(&earlier.into(), untrue);
    assert_eq!(decide(&world, &mut overlay, 10), []);
    overlay.on_folded(&first[0], void(VoidReason::StaleEpoch));
    assert_eq!(decide(&world, &mut overlay, 10), first, "nobody has heard");
    assert_eq!(decide(&world, &mut Overlay::default(), 0), [], "no room");
    // Tasks fail as many at a time as there is room for.
    world.orchestrator(first[0].clone());
    overlay.on_folded(&first[0], Verdict::Applied);
    let run = json!({"claude": {"prompt": "p"}});
    let task = json!({"namespace": "team", "run": run});
    world.submit(&json!([task, task, task]));
    for event in world.decisions() {
        world.orchestrator(event);
    }
    for event in world.decisions() {
        if matches!(event, Event::TaskReady(_)) {
            world.orchestrator(event);
        }
    }
    let some = decide(&world, &mut overlay, 2);
    let rest = decide(&world, &mut overlay, 2);
    assert_eq!((some.len(), rest.len()), (2, 1));
    let mut all: Vec<_> = some.iter().chain(&rest).filter_map(Event::task).collect();
    all.sort();
    all.dedup();
    assert_eq!(all.len(), 3, "each once");
    assert_eq!(decide(&world, &mut overlay, 10), []);
    overlay.on_folded(&some[0], Verdict::Applied);
    assert_eq!(decide(&world, &mut overlay, 10), [some[0].clone()]);
}

#[test]
fn tasks_that_wait_fail_where_the_policy_says_so() {
    let (mut world, lease) = spent("fail");
    let second = {
        let mut before = world.clone();
        // Nobody has said yet that it is used up.
        let id = before.new_id();
        before.submit(&json!({
            "id": id, "namespace": "team", "run": {"claude": {"prompt": "p"}},
        }));
        world = before;
        id
    };
    world.settle();
    assert_eq!(world.phase(second), "failed");
    let (class, reason) = failure(&world, second);
    assert_eq!(class, OutcomeClass::Budget);
    expect_test::expect!["namespace team has used up its budget of the day (1000 of 1000 tokens); tasks that need a model do not wait for the next"].assert_eq(&reason);
    assert!(world.of(second).is_dead_letter());
    // What runs goes on; what needs no model, and other namespaces, are not meant.
    assert_eq!(world.phase(lease.task), "running");
    let program = world.task(json!({"namespace": "team"}));
    let other = model(&mut world, "other");
    let neighbour = model(&mut world, "teams");
    for task in [program, other, neighbour] {
        assert_eq!(world.phase(task), "ready");
        assert!(is_planned(&world, task));
    }
    // Nor is it an end for what the program is told to end for.
    let not_so = void(VoidReason::NotPending);
    for task in [program, other, lease.task] {
        assert_eq!(
            world.orchestrator(failed(task, OutcomeClass::Budget)),
            not_so
        );
    }
    // What becomes ready later fails likewise: new, delayed, tried again, run again by hand.
    let third = model(&mut world, "team");
    assert_eq!(world.phase(third), "failed");
    let delayed = world.task(json!({
        "namespace": "team", "run": {"codex": {"prompt": "p"}}, "delay": "1h",
    }));
    assert_eq!(world.phase(delayed), "pending");
    world.now_ms += 3_600_000;
    world.settle();
    assert_eq!(world.phase(delayed), "failed");
    world.control(&Control::Retry { task: third });
    world.settle();
    assert_eq!(world.phase(third), "failed");
    // And whoever needs what failed does not wait for ever.
    let need = world.task(json!({
        "namespace": "team", "run": {"claude": {"prompt": "p"}}, "delay": "1h",
    }));
    let dependent = world.task(json!({"needs": [need]}));
    world.now_ms += 3_600_000;
    world.settle();
    assert_eq!(world.phase(dependent), "failed");
    assert_replay_agrees(&world);
}

#[test]
fn an_attempt_that_failed_is_followed_by_no_other_where_the_policy_says_so() {
    let mut world = world("fail");
    let task = world.task(json!({
        "namespace": "team", "run": {"claude": {"prompt": "p"}},
        "retry": {"max_attempts": 3, "on": ["failed"], "backoff": "1ms", "jitter": 0.0},
    }));
    let lease = world.run(task, "a1");
    uses(&mut world, lease, 0.0, 1_000);
    world.settle();
    assert_eq!(world.phase(task), "running");
    world.fail(lease, "a1", OutcomeClass::Failed);
    world.settle();
    world.now_ms += 10;
    world.settle();
    assert_eq!(world.phase(task), "failed");
    assert_eq!(failure(&world, task).0, OutcomeClass::Budget);
}

#[test]
fn what_shall_be_cancelled_is_cancelled() {
    let (mut world, _) = spent("ask");
    let second = model(&mut world, "team");
    answer(&mut world, Answer::Deny, None);
    world.control(&Control::Cancel {
        task: second,
        reason: None,
    });
    world.settle();
    assert_eq!(world.phase(second), "cancelled");
}

#[test]
fn nothing_fails_for_a_budget_without_reason() {
    let not_so = void(VoidReason::NotPending);
    for (policy, may_fail) in [("wait", false), ("ask", false), ("fail", true)] {
        let (mut world, _) = spent(policy);
        let second = world.new_id();
        world.submit(&json!({
            "id": second, "namespace": "team", "run": {"claude": {"prompt": "p"}},
        }));
        let accepted = world.decisions().remove(0);
        world.orchestrator(accepted);
        world.ready(second);
        let budget = failed(second, OutcomeClass::Budget);
        assert_eq!(world.orchestrator(budget.clone()), not_so, "not noted");
        let said = BudgetReached {
            on_reached: policy.parse().unwrap(),
            ..reached_among(&world)
        };
        assert_eq!(world.orchestrator(said), Verdict::Applied);
        let for_another_reason = failed(second, OutcomeClass::Failed);
        assert_eq!(world.orchestrator(for_another_reason), not_so);
        // Not on another day, nor with another budget, that is not used up.
        let mut later = world.clone();
        later.now_ms = tomorrow(&later);
        assert_eq!(later.orchestrator(budget.clone()), not_so);
        let mut richer = world.clone();
        put(
            &mut richer,
            json!({"namespace_budget": {"team": {"tokens_per_day": 1_001, "on_reached": policy}}}),
        );
        assert_eq!(richer.orchestrator(budget.clone()), not_so);
        let verdict = world.orchestrator(budget);
        let expected = if may_fail { Verdict::Applied } else { not_so };
        assert_eq!(verdict, expected, "{policy}");
    }
}

fn reached_among(world: &World) -> BudgetReached {
    let decisions = world.decisions();
    let mut said = decisions.iter().filter_map(|e| match e {
        Event::BudgetReached(e) => Some(e.clone()),
        _ => None,
    });
    said.next().unwrap()
}
