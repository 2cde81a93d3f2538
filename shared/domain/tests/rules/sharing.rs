//! What tasks share beyond agents: what their namespace may spend, and named workspaces.

use conductor_domain::{Verdict, VoidReason, explain};
use conductor_protocol::event::{AgentLeft, ApprovalWithdrawn, AttemptUsage, Usage};
use conductor_protocol::ids::Lease;
use conductor_protocol::{Control, OutcomeClass, TaskId};
use serde_json::{Value, json};

use super::world::{START_MS, World, agent};

pub(super) const DAY_MS: u64 = 24 * 3_600_000;

pub(super) fn put(world: &mut World, change: Value) -> Verdict {
    world.control(&Control::PutConfig(serde_json::from_value(change).unwrap()))
}

pub(super) fn model(world: &mut World, namespace: &str) -> TaskId {
    world.task(json!({"namespace": namespace, "run": {"claude": {"prompt": "p"}}}))
}

pub(super) fn uses(world: &mut World, lease: Lease, cost_usd: f64, input_tokens: u64) {
    let usage = Usage {
        cost_usd,
        input_tokens,
        cached_tokens: 1_000_000,
        ..Usage::default()
    };
    let verdict = world.agent_says("a1", AttemptUsage { lease, usage });
    assert_eq!(verdict, Verdict::Applied);
}

/// Would be assigned, and would count.
fn may_run(world: &World, task: TaskId) -> bool {
    let is_planned = world.planned().iter().any(|a| a.task == task);
    let mut world = world.clone();
    let assignment = world.assignment(task, "a1");
    let counts = world.scheduler("a1", assignment) == Verdict::Applied;
    assert_eq!(is_planned, counts, "what is planned is what counts");
    counts
}

#[test]
fn a_namespace_that_has_spent_its_budget_waits_for_the_next_day() {
    let mut world = World::new();
    let budget = json!({"namespace_budget": {"team": {"usd_per_day": 1.0}}});
    assert_eq!(put(&mut world, budget), Verdict::Applied);
    let first = model(&mut world, "team");
    let lease = world.run(first, "a1");
    uses(&mut world, lease, 0.4, 0);
    uses(&mut world, lease, 0.9, 0);
    let second = model(&mut world, "team");
    assert!(may_run(&world, second), "0.9 of 1.0, counted once");
    uses(&mut world, lease, 1.25, 0);
    assert!(!may_run(&world, second));
    let why = explain::why(&world.state, second).unwrap();
    expect_test::expect!["namespace team has used up its budget of the day (1.25 of 1.00 USD); it goes on at 2027-01-16T00:00:00.000Z, or with a higher budget"].assert_eq(&why);
    // What runs goes on; others, and what needs no model, are not held up.
    assert_eq!(world.phase(first), "running");
    let other = model(&mut world, "other");
    assert!(may_run(&world, other));
    let program = world.task(json!({"namespace": "team"}));
    assert!(may_run(&world, program));
    // A higher budget, or none.
    let mut richer = world.clone();
    put(
        &mut richer,
        json!({"namespace_budget": {"team": {"usd_per_day": 2}}}),
    );
    assert!(may_run(&richer, second));
    put(
        &mut richer,
        json!({"namespace_budget": {"team": {"usd_per_day": -1}}}),
    );
    assert!(!may_run(&richer, second));
    put(&mut richer, json!({"namespace_budget": {"team": {}}}));
    assert!(may_run(&richer, second));
    // Another day. The record says which it is; the scheduler plans by its own clock.
    world.now_ms = START_MS - START_MS % DAY_MS + DAY_MS;
    let mut overlay = conductor_domain::plan::Overlay::default();
    let mut bounds = super::world::bounds(100);
    bounds.now_ms = world.now_ms;
    let planned = conductor_domain::plan::plan(&world.state, &mut overlay, bounds);
    assert!(planned.iter().any(|a| a.task == second));
    let assignment = world.assignment(second, "a1");
    assert_eq!(world.scheduler("a1", assignment), Verdict::Applied);
    // What the first uses today counts today.
    uses(&mut world, lease, 1.5, 0);
    let spent = world.state.spent(&"team".parse().unwrap(), world.now_ms);
    assert_eq!(spent.usd_micros, 250_000);
}

#[test]
fn tokens_are_counted_without_those_from_a_cache() {
    let mut world = World::new();
    put(
        &mut world,
        json!({"namespace_budget": {"team": {"tokens_per_day": 1000}}}),
    );
    let first = model(&mut world, "team");
    let lease = world.run(first, "a1");
    uses(&mut world, lease, 0.0, 999);
    let second = model(&mut world, "team");
    assert!(may_run(&world, second));
    uses(&mut world, lease, 0.0, 1_000);
    assert!(!may_run(&world, second));
}

#[test]
fn turns_are_counted_over_all_attempts() {
    let mut world = World::new();
    put(
        &mut world,
        json!({"namespace_budget": {"team": {"turns_per_day": 5}}}),
    );
    let first = model(&mut world, "team");
    let lease = world.run(first, "a1");
    let says = |world: &mut World, turns| {
        let usage = Usage {
            turns,
            ..Usage::default()
        };
        world.agent_says("a1", AttemptUsage { lease, usage });
    };
    let second = model(&mut world, "team");
    says(&mut world, 3);
    says(&mut world, 4);
    assert!(may_run(&world, second), "4 of 5, counted once");
    says(&mut world, 5);
    assert!(!may_run(&world, second));
    let why = explain::why(&world.state, second).unwrap();
    assert!(why.contains("(5 of 5 turns)"), "{why}");
}

#[test]
fn time_is_counted_while_attempts_run_and_not_while_they_wait_for_people() {
    let mut world = World::new();
    put(
        &mut world,
        json!({"namespace_budget": {"team": {"time_per_day": "1m"}}}),
    );
    let spent = |world: &World| world.state.spent(&"team".parse().unwrap(), world.now_ms);
    // What needs no model has all the time it wants.
    let program = world.task(json!({"namespace": "team"}));
    let lease = world.run(program, "a1");
    world.now_ms += 500_000;
    world.succeed(lease, "a1");
    let first = model(&mut world, "team");
    let second = model(&mut world, "team");
    let lease = world.run(first, "a1");
    world.now_ms += 20_000;
    uses(&mut world, lease, 0.0, 1);
    uses(&mut world, lease, 0.0, 2);
    assert_eq!(spent(&world).ran_ms, 20_000, "once");
    world.ask(lease, "a1");
    world.now_ms += 400_000;
    uses(&mut world, lease, 0.0, 3);
    assert_eq!(spent(&world).ran_ms, 20_000, "people are asked");
    let withdrawn = ApprovalWithdrawn { lease, approval: 1 };
    world.agent_says("a1", withdrawn);
    world.now_ms += 39_999;
    uses(&mut world, lease, 0.0, 4);
    assert!(may_run(&world, second));
    world.now_ms += 5_000;
    world.succeed(lease, "a1");
    assert_eq!(spent(&world).ran_ms, 64_999, "the rest at its end");
    assert!(!may_run(&world, second));
    let why = explain::why(&world.state, second).unwrap();
    assert!(why.contains("(1m 4s of 1m of running)"), "{why}");
    // An attempt that fails has run, too, and the next begins to count anew.
    put(&mut world, json!({"namespace_budget": {"team": {}}}));
    let third = world.task(json!({
        "namespace": "team", "run": {"claude": {"prompt": "p"}},
        "retry": {"max_attempts": 2, "on": ["failed"], "backoff": "1ms", "jitter": 0.0},
    }));
    for _ in 0..2 {
        let before = spent(&world).ran_ms;
        let lease = world.run(third, "a1");
        world.now_ms += 1_000;
        uses(&mut world, lease, 0.0, 5);
        world.now_ms += 1_000;
        world.fail(lease, "a1", OutcomeClass::Failed);
        assert_eq!(spent(&world).ran_ms, before + 2_000);
        world.settle();
        world.now_ms += 1_000;
        world.settle();
    }
}

fn in_workspace(world: &mut World, name: &str) -> TaskId {
    world.task(json!({
        "workspace": {"name": name}, "namespace": "team",
        "retry": {"max_attempts": 3, "on": ["failed"], "backoff": "1ms", "jitter": 0.0},
    }))
}

#[test]
fn tasks_of_a_workspace_run_one_by_one_where_it_is() {
    let mut world = World::new();
    let first = in_workspace(&mut world, "site");
    let second = in_workspace(&mut world, "site");
    let lease = world.run(first, "a1");
    world.join("a2", 16);
    // Nobody enters it while somebody works in it, and others are not held up.
    let other = in_workspace(&mut world, "docs");
    let planned = world.planned();
    assert_eq!(planned.len(), 1);
    assert_eq!((planned[0].task, &planned[0].agent), (other, &agent("a2")));
    let assignment = world.assignment(second, "a2");
    let verdict = world.scheduler("a2", assignment);
    assert_eq!(verdict, Verdict::Void(VoidReason::WorkspaceBusy));
    let why = explain::why(&world.state, second).unwrap();
    assert!(why.contains("works in its workspace \"site\""), "{why}");
    world.succeed(lease, "a1");
    let assignment = world.assignment(second, "a2");
    let verdict = world.scheduler("a2", assignment);
    assert_eq!(verdict, Verdict::Void(VoidReason::WorkspaceElsewhere));
    let planned = world.planned();
    let of_second = planned.iter().find(|a| a.task == second).unwrap();
    assert_eq!(of_second.agent, agent("a1"));
    let lease = world.run(second, "a1");
    // A task that is tried again goes back to it.
    world.fail(lease, "a1", OutcomeClass::Failed);
    world.settle();
    world.now_ms += 1_000;
    world.settle();
    assert_eq!(
        world
            .planned()
            .iter()
            .find(|a| a.task == second)
            .unwrap()
            .agent,
        agent("a1")
    );
}

#[test]
fn two_tasks_of_a_workspace_are_not_planned_at_once() {
    let mut world = World::new();
    let (first, _) = (
        in_workspace(&mut world, "site"),
        in_workspace(&mut world, "site"),
    );
    let mut overlay = conductor_domain::plan::Overlay::default();
    let plan = |world: &World, overlay: &mut _| {
        conductor_domain::plan::plan(&world.state, overlay, super::world::bounds(100))
    };
    assert_eq!(plan(&world, &mut overlay).len(), 1);
    assert_eq!(plan(&world, &mut overlay).len(), 0, "one is on its way");
    let assignment = world.assignment(first, "a1");
    overlay.on_folded(&agent("a1"), &assignment.clone().into());
    world.scheduler("a1", assignment);
    assert_eq!(plan(&world, &mut overlay).len(), 0, "one is in it");
}

#[test]
fn a_workspace_whose_agent_is_gone_is_waited_for_until_somebody_releases_it() {
    let mut world = World::new();
    let first = in_workspace(&mut world, "site");
    let lease = world.run(first, "a1");
    let release = Control::ReleaseWorkspace {
        namespace: "team".parse().unwrap(),
        name: "site".into(),
    };
    let busy = Verdict::Void(VoidReason::WorkspaceBusy);
    assert_eq!(world.control(&release), busy);
    world.succeed(lease, "a1");
    let second = in_workspace(&mut world, "site");
    world.agent_says("a1", AgentLeft {});
    world.join("a2", 4);
    assert_eq!(world.planned(), []);
    let why = explain::why(&world.state, second).unwrap();
    expect_test::expect![[r#"its workspace "site" is on a1, which is left; `conductor workspace release site --namespace team` has it begin anew elsewhere"#]].assert_eq(&why);
    // It may come back.
    let mut back = world.clone();
    back.join("a1", 4);
    assert_eq!(back.planned()[0].agent, agent("a1"));
    assert_eq!(world.control(&release), Verdict::Applied);
    assert_eq!(world.planned()[0].agent, agent("a2"));
    let nothing = Verdict::Void(VoidReason::NoChange);
    assert_eq!(world.control(&release), nothing);
}

#[test]
fn a_workspace_that_nobody_works_in_for_long_is_forgotten() {
    let mut world = World::new();
    let first = in_workspace(&mut world, "site");
    let lease = world.run(first, "a1");
    world.now_ms += 40 * DAY_MS;
    world.tell(first, "still there?");
    assert_eq!(world.state.workspaces.len(), 1, "somebody works in it");
    world.succeed(lease, "a1");
    world.now_ms += 29 * DAY_MS;
    world.elect(conductor_protocol::subject::Role::Scheduler);
    assert_eq!(world.state.workspaces.len(), 1);
    world.now_ms += 2 * DAY_MS;
    world.elect(conductor_protocol::subject::Role::Scheduler);
    assert_eq!(world.state.workspaces.len(), 0);
}

/// A task whose sandbox nobody gives holds up none that asks for less.
#[test]
fn a_sandbox_that_nobody_gives_holds_up_no_other_task() {
    let mut world = World::new();
    let strict = world.task(json!({"sandbox": "strict"}));
    let plain = world.task(json!({}));
    let planned: Vec<TaskId> = world.planned().iter().map(|a| a.task).collect();
    assert_eq!(planned, [plain]);
    assert!(!may_run(&world, strict));
}

/// Nor does one whose network no agent allows.
#[test]
fn a_task_runs_only_where_its_network_may_go_so_far() {
    use conductor_protocol::event::AgentJoined;
    use conductor_protocol::spec::Runtime;
    use conductor_protocol::terms::Reach;
    let mut world = World::empty();
    world.elect(conductor_protocol::subject::Role::Orchestrator);
    world.elect(conductor_protocol::subject::Role::Scheduler);
    let joined = AgentJoined {
        slots: 8,
        runtimes: [(Runtime::Noop, "1".to_owned())].into(),
        network_max: Some(Reach::Hosts),
        ..AgentJoined::default()
    };
    world.agent_says("a1", joined.clone());
    let open = world.task(json!({"sandbox": {"network": "full"}}));
    let hosts = world.task(json!({"sandbox": {"network": {"hosts": ["example.org"]}}}));
    let plain = world.task(json!({}));
    let planned: Vec<TaskId> = world.planned().iter().map(|a| a.task).collect();
    assert_eq!(planned, [hosts, plain]);
    let assignment = world.assignment(open, "a1");
    let void = Verdict::Void(VoidReason::NotCapable);
    assert_eq!(world.scheduler("a1", assignment), void);
    expect_test::expect!["none of 1 agent(s) lets a task have the network full; the most is hosts"]
        .assert_eq(&explain::why(&world.state, open).unwrap());
    let network_max = None;
    world.agent_says(
        "a2",
        AgentJoined {
            network_max,
            ..joined
        },
    );
    let planned = world.planned();
    let is_there =
        |a: &conductor_domain::plan::Assignment| a.task == open && a.agent == agent("a2");
    assert!(planned.iter().any(is_there), "absent means full");
}
