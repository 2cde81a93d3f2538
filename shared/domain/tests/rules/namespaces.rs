//! Submissions on the subject of a namespace: they are of it, whoever says what.

use conductor_domain::decide::{self, Input};
use conductor_domain::state::State;
use conductor_domain::{Verdict, fold, record};
use conductor_protocol::TaskId;
use conductor_protocol::event::Event;
use conductor_protocol::subject::Subject;
use serde_json::{Value, json};

use super::world::World;

/// Submits to queue `q` on the subject of namespace `team`.
fn submit(world: &mut World, payload: &Value) {
    let subject = Subject::SubmitIn("q".parse().unwrap(), "team".parse().unwrap());
    let subject = subject.render(&world.state.cell);
    let verdicts = world.raw(subject, payload.to_string().into_bytes());
    assert_eq!(verdicts, [Verdict::Applied]);
}

/// What is wrong with the submissions that are refused now, field by field.
fn refusals(world: &World) -> Vec<String> {
    let rejected = world.decisions().into_iter().filter_map(|e| match e {
        Event::TaskRejected(e) => Some(e.errors),
        _ => None,
    });
    rejected.flatten().map(|e| e.to_string()).collect()
}

fn namespace_of(world: &World, task: TaskId) -> &str {
    world.of(task).spec.namespace.as_str()
}

#[test]
fn a_task_is_of_the_namespace_of_its_subject() {
    let mut world = World::new();
    let (silent, same) = (world.new_id(), world.new_id());
    let tasks = json!([
        {"id": silent, "run": {"noop": {}}},
        {"id": same, "namespace": "team", "key": "k", "run": {"noop": {}}},
        {"namespace": "other", "run": {"noop": {}}},
    ]);
    submit(&mut world, &tasks);
    expect_test::expect![[r#"namespace: is "other" but the subject says "team"; expected "team", or absent; or submit on the subject of "other""#]]
        .assert_eq(&refusals(&world).join("\n"));
    world.settle();
    assert_eq!(namespace_of(&world, silent), "team");
    assert_eq!(namespace_of(&world, same), "team");
    assert_eq!(world.state.counters.rejected, 1);
    // Keys are those of the namespace, too: others have a `k` of their own.
    let other = world.task(json!({"key": "k", "namespace": "other"}));
    assert_eq!(namespace_of(&world, other), "other");
    submit(&mut world, &json!({"key": "k", "run": {"noop": {}}}));
    world.settle();
    assert_eq!(world.state.counters.duplicates, 1);
}

#[test]
fn it_needs_no_task_of_another_namespace() {
    let mut world = World::new();
    let foreign = world.task(json!({"namespace": "other"}));
    let own = world.task(json!({"namespace": "team"}));
    let unknown = world.new_id();
    let tasks = json!([
        {"needs": [own, foreign], "run": {"noop": {}}},
        {"needs": [unknown], "run": {"noop": {}}},
        {"needs": [own, "beside"], "run": {"noop": {}}},
        {"name": "beside", "run": {"noop": {}}},
    ]);
    submit(&mut world, &tasks);
    let said = refusals(&world);
    let expected = "is not a task this cell knows; expected a task accepted before, or in the \
                    same submission";
    assert_eq!(
        said,
        [
            format!("needs[1]: {foreign} {expected}"),
            format!("needs[0]: {unknown} {expected}"),
        ],
        "the same words, whether there is one or not"
    );
    world.settle();
    assert_eq!(world.state.counters.rejected, 2);
    assert_eq!(world.state.counters.accepted, 4);
    // Whoever may submit in any namespace may have a task need any.
    world.task(json!({"namespace": "team", "needs": [foreign]}));
    assert_eq!(world.state.counters.rejected, 2);
}

#[test]
fn it_needs_none_whose_acceptance_is_in_flight_either() {
    let mut world = World::new();
    let (foreign, own) = (world.new_id(), world.new_id());
    world.submit(&json!({"id": foreign, "namespace": "other", "key": "f", "run": {"noop": {}}}));
    world.submit(&json!({"id": own, "namespace": "team", "run": {"noop": {}}}));
    let mut overlay = decide::Overlay::default();
    let mut decided = |world: &World| {
        let input = Input {
            now_ms: world.now_ms,
            silent_agents: &[],
            silent_leases: &[],
            events_max: 1_000,
        };
        decide::decide(&world.state, &mut overlay, input, &mut || 0)
    };
    assert_eq!(decided(&world).len(), 2, "on their way into the log");
    submit(
        &mut world,
        &json!({"needs": [foreign], "run": {"noop": {}}}),
    );
    submit(&mut world, &json!({"needs": [own], "run": {"noop": {}}}));
    let kinds: Vec<_> = decided(&world).iter().map(Event::kind).collect();
    assert_eq!(kinds, ["task.rejected", "task.accepted"]);
}

#[test]
fn the_log_alone_says_so_again() {
    let mut world = World::new();
    submit(&mut world, &json!({"run": {"noop": {}}}));
    // Not decided yet: the subject's namespace is part of the state.
    let intake = world.state.intake.values().next().unwrap();
    assert_eq!(intake.namespace.as_ref().unwrap().as_str(), "team");
    let mut again = State::new(world.state.cell.clone());
    for record in &world.log {
        fold::apply(&mut again, &record::decode(&world.state.cell, record));
    }
    assert_eq!(again.digest(), world.state.digest());
    assert_eq!(again, world.state);
}
