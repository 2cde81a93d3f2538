//! Every reason for an event to be void, shown once on its own.

use conductor_domain::{Verdict, VoidReason};
use conductor_protocol::control::OnReached;
use conductor_protocol::event::{
    AgentDraining, AgentLeft, AgentLost, AttemptRevoked, AttemptStarted, BudgetReached, DayLimit,
    DaySpent, RevokeReason, TaskCancelled, TaskReady, TaskRejected, TaskRetrySet,
};
use conductor_protocol::ids::Position;
use conductor_protocol::terms::Answer;
use conductor_protocol::{Control, OutcomeClass};
use serde_json::json;

use super::sharing::DAY_MS;
use super::world::{World, agent, filing, succeeded};

type Case = fn(&mut World) -> Verdict;

/// One case for each reason.
#[expect(clippy::too_many_lines, reason = "a table")]
fn case(reason: VoidReason) -> Case {
    match reason {
        VoidReason::Malformed => |w| w.raw("conductor.test.orchestrator".into(), vec![0xc1])[0],
        VoidReason::UnknownKind => |w| {
            let event = b"\x82\xa4type\xaatask.novel\xa1v\x01".to_vec();
            let head = conductor_protocol::frame::FrameHead::epoch(1);
            let frame = conductor_protocol::frame::join(head, &[event]);
            w.raw("conductor.test.orchestrator".into(), frame)[0]
        },
        VoidReason::FormatNotReached => |w| {
            w.state.format = 0;
            let task = w.new_id();
            w.ready(task)
        },
        VoidReason::WrongWriter => |w| {
            w.agent_says(
                "a1",
                TaskReady {
                    task: conductor_protocol::TaskId::from_parts(0, [0; 10]),
                },
            )
        },
        VoidReason::StaleEpoch => |w| {
            let task = w.task(json!({"delay": "1h"}));
            w.orchestrator_at(99, TaskReady { task })
        },
        VoidReason::StaleIncarnation => |w| w.agent_says_as("a1", 1, AgentDraining {}),
        VoidReason::UnknownAgent => |w| w.agent_says("a9", AgentDraining {}),
        VoidReason::AgentGone => |w| {
            w.agent_says("a1", AgentLeft {});
            w.agent_says("a1", AgentDraining {})
        },
        VoidReason::AgentDraining => |w| {
            let task = w.task(json!({}));
            w.agent_says("a1", AgentDraining {});
            let assignment = w.assignment(task, "a1");
            w.scheduler("a1", assignment)
        },
        VoidReason::UnknownTask => |w| {
            let task = w.new_id();
            w.ready(task)
        },
        VoidReason::SubmissionDecided => |w| {
            let submission = Position::new(1, 0);
            w.orchestrator(TaskRejected {
                submission,
                errors: Vec::new(),
            })
        },
        VoidReason::Duplicate => |w| {
            let task = w.task(json!({}));
            let lease = w.run(task, "a1");
            w.agent_says("a1", AttemptStarted::new(lease, None))
        },
        VoidReason::AlreadyFinal => |w| {
            let task = w.task(json!({}));
            let lease = w.run(task, "a1");
            w.succeed(lease, "a1");
            w.control(&Control::Cancel { task, reason: None })
        },
        VoidReason::NotFinal => |w| {
            let task = w.task(json!({}));
            w.control(&Control::Retry { task })
        },
        VoidReason::NotPending => |w| {
            let task = w.task(json!({}));
            w.ready(task)
        },
        VoidReason::NotReady => |w| {
            let task = w.task(json!({"delay": "1h"}));
            let assignment = w.assignment(task, "a1");
            w.scheduler("a1", assignment)
        },
        VoidReason::WrongAttempt => |w| {
            let task = w.task(json!({}));
            let lease = w.run(task, "a1");
            w.fail(lease, "a1", OutcomeClass::Failed);
            w.orchestrator(TaskRetrySet {
                task,
                attempt: 7,
                at_ms: 0,
                delay_ms: 0,
            })
        },
        VoidReason::NeedsUnmet => |w| {
            let need = w.task(json!({}));
            let task = w.task(json!({"needs": [need]}));
            w.ready(task)
        },
        VoidReason::CancelRequested => |w| {
            let task = w.task(json!({"delay": "1h"}));
            w.control(&Control::Cancel { task, reason: None });
            w.ready(task)
        },
        VoidReason::NotRequested => |w| {
            let task = w.task(json!({}));
            let cause = conductor_protocol::event::CancelCause::Control(Position::new(1, 0));
            w.orchestrator(TaskCancelled { task, cause })
        },
        VoidReason::QueuePaused => |w| {
            let task = w.task(json!({}));
            w.control(&Control::PauseQueue {
                queue: "q".parse().unwrap(),
            });
            let assignment = w.assignment(task, "a1");
            w.scheduler("a1", assignment)
        },
        VoidReason::NoCapacity => |w| {
            let task = w.task(json!({"slots": 5}));
            let assignment = w.assignment(task, "a1");
            w.scheduler("a1", assignment)
        },
        VoidReason::NotAllowed => |w| {
            let task = w.task(json!({}));
            let lease = w.run(task, "a1");
            w.agent_says("a1", filing(lease, 1, r#"{"run":{"noop":{}}}"#))
        },
        VoidReason::NotCapable => |w| {
            let task = w.task(json!({"labels": {"os": "plan9"}}));
            let assignment = w.assignment(task, "a1");
            w.scheduler("a1", assignment)
        },
        VoidReason::KeySaturated => |w| {
            let keyed = json!({"concurrency": {"key": "db", "limit": 1}});
            let (first, second) = (w.task(keyed.clone()), w.task(keyed));
            w.run(first, "a1");
            let assignment = w.assignment(second, "a1");
            w.scheduler("a1", assignment)
        },
        VoidReason::BudgetReached => |w| {
            let change = json!({"namespace_budget": {"default": {"tokens_per_day": 0}}});
            w.control(&Control::PutConfig(serde_json::from_value(change).unwrap()));
            let task = w.task(json!({"run": {"claude": {"prompt": "p"}}}));
            let assignment = w.assignment(task, "a1");
            w.scheduler("a1", assignment)
        },
        VoidReason::BudgetNotReached => |w| {
            w.orchestrator(BudgetReached {
                namespace: conductor_protocol::Namespace::default(),
                day: w.now_ms / DAY_MS,
                spent: DaySpent::default(),
                limit: DayLimit::default(),
                on_reached: OnReached::Wait,
            })
        },
        VoidReason::WorkspaceElsewhere => |w| {
            let named = json!({"workspace": {"name": "site"}});
            let (first, second) = (w.task(named.clone()), w.task(named));
            let lease = w.run(first, "a1");
            w.succeed(lease, "a1");
            w.join("a2", 1);
            let assignment = w.assignment(second, "a2");
            w.scheduler("a2", assignment)
        },
        VoidReason::WorkspaceBusy => |w| {
            let named = json!({"workspace": {"name": "site"}});
            let (first, second) = (w.task(named.clone()), w.task(named));
            w.run(first, "a1");
            let assignment = w.assignment(second, "a1");
            w.scheduler("a1", assignment)
        },
        VoidReason::WorkspaceUnpushed => |w| {
            let task = w.task(json!({"workspace": {"name": "site"}}));
            let lease = w.run(task, "a1");
            w.succeed(lease, "a1");
            w.control(&Control::RemoveWorkspace {
                namespace: conductor_protocol::Namespace::default(),
                name: "site".into(),
                discard: None,
            })
        },
        VoidReason::LeaseNotCurrent => |w| {
            let task =
                w.task(json!({"retry": {"max_attempts": 2, "on": ["failed"], "backoff": "1ms"}}));
            let lease = w.run(task, "a1");
            w.fail(lease, "a1", OutcomeClass::Failed);
            w.agent_says("a1", succeeded(lease))
        },
        VoidReason::LeaseUnknown => |w| {
            let task = w.task(json!({}));
            let lease = w.run(task, "a1");
            let incarnation = w.state.agents[&agent("a1")].incarnation;
            let reason = RevokeReason::LeaseOver;
            w.scheduler(
                "a1",
                AttemptRevoked {
                    lease,
                    incarnation,
                    reason,
                },
            )
        },
        VoidReason::NotAsked => |w| {
            let task = w.task(json!({}));
            w.run(task, "a1");
            w.answer(task, 1, Answer::Allow)
        },
        VoidReason::Answered => |w| {
            let task = w.task(json!({}));
            let lease = w.run(task, "a1");
            w.ask(lease, "a1");
            w.answer(task, 1, Answer::Allow);
            w.answer(task, 1, Answer::Deny)
        },
        VoidReason::NoChange => |w| {
            w.control(&Control::ResumeQueue {
                queue: "q".parse().unwrap(),
            })
        },
    }
}

#[test]
fn every_void_reason_has_its_case() {
    for reason in VoidReason::ALL {
        let mut world = World::new();
        assert_eq!(case(*reason)(&mut world), Verdict::Void(*reason));
        assert_eq!(world.state.counters.void[reason], 1, "{reason} is counted");
    }
}

#[test]
fn what_is_void_for_one_event_of_a_frame_does_not_touch_the_next() {
    use conductor_protocol::event::Event;
    use conductor_protocol::frame::{FrameHead, join};
    use conductor_protocol::subject::Role;
    let mut world = World::new();
    let (first, second) = (
        world.task(json!({"delay": "1h"})),
        world.task(json!({"delay": "1h"})),
    );
    let ready = |task| Event::from(TaskReady { task }).encode();
    let events = [ready(first), ready(first), vec![0x80], ready(second)];
    let head = FrameHead::epoch(world.state.epoch(Role::Orchestrator));
    let verdicts = world.raw("conductor.test.orchestrator".into(), join(head, &events));
    let void = Verdict::Void;
    let want = [
        Verdict::Applied,
        void(VoidReason::NotPending),
        void(VoidReason::Malformed),
        Verdict::Applied,
    ];
    assert_eq!(verdicts, want);
}

#[test]
fn an_agent_lost_twice_or_in_another_life_is_void() {
    let mut world = World::new();
    let incarnation = world.state.agents[&agent("a1")].incarnation;
    let lost = |incarnation| AgentLost {
        agent: agent("a1"),
        incarnation,
    };
    assert_eq!(
        world.orchestrator(lost(1)),
        Verdict::Void(VoidReason::StaleIncarnation)
    );
    assert_eq!(world.orchestrator(lost(incarnation)), Verdict::Applied);
    assert_eq!(
        world.orchestrator(lost(incarnation)),
        Verdict::Void(VoidReason::AgentGone)
    );
}
