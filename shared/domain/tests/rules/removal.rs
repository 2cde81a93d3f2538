//! Removing named workspaces: asked for, told to the agent that has it, done.

use conductor_domain::plan::{Overlay, removals};
use conductor_domain::{Verdict, VoidReason, explain};
use conductor_protocol::event::{
    AgentLeft, AttemptChanged, Event, WorkspaceDropped, WorkspaceRemoved,
};
use conductor_protocol::ids::{AgentId, Lease, Position};
use conductor_protocol::subject::Role;
use conductor_protocol::{Control, Namespace, TaskId};
use serde_json::json;

use super::world::{World, agent};

const UNPUSHED: Verdict = Verdict::Void(VoidReason::WorkspaceUnpushed);
const BUSY: Verdict = Verdict::Void(VoidReason::WorkspaceBusy);
const NOT_REQUESTED: Verdict = Verdict::Void(VoidReason::NotRequested);

fn task(world: &mut World) -> TaskId {
    world.task(json!({"workspace": {"name": "site"}}))
}

fn remove(world: &mut World, discard: Option<&str>) -> Verdict {
    world.control(&Control::RemoveWorkspace {
        namespace: Namespace::default(),
        name: "site".into(),
        discard: discard.map(str::to_owned),
    })
}

fn release(world: &mut World) -> Verdict {
    world.control(&Control::ReleaseWorkspace {
        namespace: Namespace::default(),
        name: "site".into(),
    })
}

fn changed(lease: Lease, unpushed: Option<bool>) -> AttemptChanged {
    AttemptChanged {
        lease,
        files: 1,
        insertions: 1,
        deletions: 0,
        patch: None,
        base: None,
        head: None,
        pushed: None,
        unpushed,
    }
}

/// A task works in the workspace, and its agent says this of what it leaves.
fn works(world: &mut World, unpushed: Option<bool>) {
    let id = task(world);
    let lease = world.run(id, "a1");
    let verdict = world.agent_says("a1", changed(lease, unpushed));
    assert_eq!(verdict, Verdict::Applied);
    world.succeed(lease, "a1");
}

/// What the scheduler would tell.
fn told(world: &World) -> Vec<(AgentId, Event)> {
    removals(&world.state, &mut Overlay::default(), 100)
}

/// The scheduler tells the one thing there is to tell.
fn tells(world: &mut World) -> WorkspaceDropped {
    let words = told(world);
    let [(to, Event::WorkspaceDropped(dropped))] = &words[..] else {
        panic!("{words:?}")
    };
    assert_eq!(*to, agent("a1"));
    let verdict = world.scheduler("a1", dropped.clone());
    assert_eq!(verdict, Verdict::Applied);
    dropped.clone()
}

fn removed(dropped: &WorkspaceDropped) -> WorkspaceRemoved {
    WorkspaceRemoved {
        namespace: dropped.namespace.clone(),
        name: dropped.name.clone(),
        control: dropped.control,
    }
}

#[test]
fn what_is_nowhere_else_is_not_removed_unless_it_is_given_up_by_name() {
    let mut world = World::new();
    let first = task(&mut world);
    let lease = world.run(first, "a1");
    assert_eq!(remove(&mut world, Some("site")), BUSY);
    world.succeed(lease, "a1");
    // Nobody said that it holds nothing.
    assert_eq!(remove(&mut world, None), UNPUSHED);
    for unpushed in [None, Some(true)] {
        works(&mut world, unpushed);
        assert_eq!(remove(&mut world, None), UNPUSHED, "{unpushed:?}");
        assert_eq!(remove(&mut world, Some("sites")), UNPUSHED, "another name");
    }
    let mut given_up = world.clone();
    assert_eq!(remove(&mut given_up, Some("site")), Verdict::Applied);
    works(&mut world, Some(false));
    let mut pushed = world.clone();
    assert_eq!(remove(&mut pushed, None), Verdict::Applied);
    let again = Verdict::Void(VoidReason::Duplicate);
    assert_eq!(remove(&mut pushed, Some("site")), again);
    // Whoever enters it may make more of it.
    let next = task(&mut world);
    let lease = world.run(next, "a1");
    world.succeed(lease, "a1");
    assert_eq!(remove(&mut world, None), UNPUSHED);
    // What an attempt says that is over says nothing of the one that runs.
    let later = task(&mut world);
    world.run(later, "a1");
    let late = world.agent_says("a1", changed(lease, Some(false)));
    assert_eq!(late, Verdict::Void(VoidReason::LeaseNotCurrent));
    let unknown = world.control(&Control::RemoveWorkspace {
        namespace: Namespace::default(),
        name: "other".into(),
        discard: None,
    });
    assert_eq!(unknown, Verdict::Void(VoidReason::NoChange));
}

#[test]
fn nobody_enters_a_workspace_until_its_agent_has_removed_it() {
    let mut world = World::new();
    works(&mut world, Some(false));
    world.join("a2", 16);
    let next = task(&mut world);
    assert_eq!(remove(&mut world, None), Verdict::Applied);
    assert_eq!(world.planned(), []);
    let assignment = world.assignment(next, "a1");
    assert_eq!(world.clone().scheduler("a1", assignment), BUSY);
    let why = explain::why(&world.state, next).unwrap();
    expect_test::expect![[
        r#"its workspace "site" is being removed by a1; after that it begins anew"#
    ]]
    .assert_eq(&why);
    assert_eq!(release(&mut world), BUSY, "its agent is about to remove it");
    let dropped = tells(&mut world);
    assert_eq!(told(&world), [], "once");
    let again = world.scheduler("a1", dropped.clone());
    assert_eq!(again, Verdict::Void(VoidReason::Duplicate));
    let other = WorkspaceRemoved {
        control: Position::new(1, 0),
        ..removed(&dropped)
    };
    assert_eq!(world.agent_says("a1", other), NOT_REQUESTED);
    let verdict = world.agent_says("a2", removed(&dropped));
    assert_eq!(verdict, NOT_REQUESTED, "another agent");
    let verdict = world.agent_says("a1", removed(&dropped));
    assert_eq!(verdict, Verdict::Applied);
    assert!(world.state.workspaces.is_empty());
    // The next begins anew, wherever there is most room.
    assert_eq!(world.planned()[0].agent, agent("a2"));
    world.run(next, "a2");
    let late = world.agent_says("a1", removed(&dropped));
    assert_eq!(late, NOT_REQUESTED, "it speaks of another");
    let late = world.scheduler("a1", dropped);
    assert_eq!(late, NOT_REQUESTED);
}

#[test]
fn an_agent_that_comes_back_is_told_again() {
    let mut world = World::new();
    works(&mut world, Some(false));
    remove(&mut world, None);
    let dropped = tells(&mut world);
    world.join("a1", 16);
    let verdict = world.scheduler("a1", dropped.clone());
    assert_eq!(verdict, Verdict::Void(VoidReason::StaleIncarnation));
    // It has not heard of it, and what the life before says does not count.
    assert_eq!(world.agent_says("a1", removed(&dropped)), NOT_REQUESTED);
    let again = tells(&mut world);
    assert_eq!(again.control, dropped.control);
    assert!(again.incarnation > dropped.incarnation);
    let verdict = world.agent_says("a1", removed(&again));
    assert_eq!(verdict, Verdict::Applied);
}

#[test]
fn a_removal_waits_for_an_agent_that_is_gone_until_somebody_releases_it() {
    let mut world = World::new();
    works(&mut world, Some(false));
    world.agent_says("a1", AgentLeft {});
    assert_eq!(remove(&mut world, None), Verdict::Applied);
    assert_eq!(told(&world), []);
    let mut back = world.clone();
    back.join("a1", 16);
    tells(&mut back);
    assert_eq!(release(&mut world), Verdict::Applied);
    assert!(world.state.index.removals.is_empty());
    world.join("a1", 16);
    assert_eq!(told(&world), []);
}

#[test]
fn words_on_their_way_are_not_said_again() {
    let mut world = World::new();
    works(&mut world, Some(false));
    remove(&mut world, None);
    let mut overlay = Overlay::default();
    let words = removals(&world.state, &mut overlay, 100);
    assert_eq!(removals(&world.state, &mut overlay, 100), []);
    // It came back without effect: the leader's words were those of an earlier one.
    world.elect(Role::Scheduler);
    let (to, dropped) = words[0].clone();
    overlay.on_folded(&to, &dropped);
    assert_eq!(removals(&world.state, &mut overlay, 100), words);
    assert_eq!(removals(&world.state, &mut Overlay::default(), 0), []);
}
