//! Whatever comes, the fold folds it, and what must hold holds.

use std::collections::BTreeMap;

use conductor_domain::state::{LeaseState, Phase, State};
use conductor_domain::{Record, fold, plan, record};
use conductor_protocol::event::{AgentJoined, AgentLeft, ApprovalWithdrawn, Event};
use conductor_protocol::ids::Lease;
use conductor_protocol::subject::Role;
use conductor_protocol::terms::Answer;
use conductor_protocol::{Control, OutcomeClass, TaskId};
use proptest::prelude::*;
use serde_json::json;

use super::world::{World, failed, question, succeeded};

const SUBJECTS: [&str; 9] = [
    "submit.q",
    "control",
    "orchestrator",
    "scheduler.a1",
    "agent.a1",
    "leader.orchestrator",
    "leader.scheduler",
    "checkpoint",
    "nothing.of.ours",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_break_the_fold(
        subject in 0..SUBJECTS.len(),
        payload in proptest::collection::vec(any::<u8>(), 0..200),
        content_type in proptest::option::of("[a-z/]{0,12}"),
    ) {
        let mut world = World::new();
        let record = Record {
            seq: world.state.seq + 1,
            time_ms: world.now_ms,
            subject: format!("conductor.test.{}", SUBJECTS[subject]),
            content_type,
            reply: Some("_INBOX.x".into()),
            traceparent: None,
            payload: payload.into(),
        };
        prop_assert!(!world.fold(record).is_empty(), "every record has a verdict");
        world.settle();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    /// Real frames with a few bytes changed get further than noise does.
    #[test]
    fn no_damaged_record_breaks_the_fold(
        at in any::<prop::sample::Index>(),
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let log = story();
        let mut world = World::empty();
        let victim = at.index(log.len());
        for (i, mut record) in log.into_iter().enumerate() {
            if i == victim {
                let mut bytes = record.payload.to_vec();
                for (position, byte) in &damage {
                    if !bytes.is_empty() {
                        let position = position.index(bytes.len());
                        bytes[position] = *byte;
                    }
                }
                record.payload = bytes.into();
            }
            world.fold(record);
        }
        check(&world.state);
    }

    #[test]
    fn random_histories_keep_every_promise(steps in proptest::collection::vec(any::<(u8, u8)>(), 1..120)) {
        let world = history(&steps);
        check(&world.state);
        // A snapshot anywhere and the tail after it give the same bytes.
        let middle = world.log.len() / 2;
        let mut state = State::new(world.state.cell.clone());
        for (i, entry) in world.log.iter().enumerate() {
            if i == middle {
                state = State::from_snapshot(&state.to_snapshot()).unwrap();
            }
            let decoded = record::decode(&state.cell, entry);
            fold::apply(&mut state, &decoded);
        }
        prop_assert_eq!(state.to_bytes(), world.state.to_bytes());
    }
}

/// A history of what may happen in any order, chosen by bytes.
fn history(steps: &[(u8, u8)]) -> World {
    let mut world = World::new();
    let mut ids: Vec<TaskId> = Vec::new();
    for (step, choice) in steps {
        let pick = ids.get(usize::from(*choice) % ids.len().max(1)).copied();
        let lease = pick.and_then(|id| world.state.tasks.get(&id)?.lease(id));
        let holder = pick
            .and_then(|id| Some(world.state.tasks.get(&id)?.assigned()?.agent.to_string()))
            .unwrap_or_else(|| "a1".into());
        match step % 17 {
            0 | 1 => {
                let needs: Vec<TaskId> = pick.into_iter().filter(|_| choice % 3 == 0).collect();
                let fields = json!({
                    "needs": needs, "priority": choice % 10, "slots": 1 + choice % 3,
                    "retry": {"max_attempts": 3, "backoff": "1s", "on": ["failed", "agent_lost"]},
                    "on_need_failed": (["fail", "skip", "run"][usize::from(choice % 3)]),
                    "concurrency": {"key": "k", "limit": 2},
                });
                ids.push(world.task(fields));
            }
            2 => world.settle(),
            3 | 4 => {
                for assignment in world.planned().into_iter().take(2) {
                    let event = world.assignment(assignment.task, assignment.agent.as_str());
                    world.scheduler(assignment.agent.as_str(), event);
                }
            }
            5 => {
                if let Some(lease) = lease {
                    let started = conductor_protocol::event::AttemptStarted::new(lease, None);
                    world.agent_says(&holder, started);
                }
            }
            6 | 7 => {
                if let Some(lease) = lease {
                    world.agent_says(&holder, succeeded(lease));
                    // And once more, as a network may have it.
                    world.agent_says(&holder, succeeded(lease));
                }
            }
            8 => {
                if let Some(lease) = lease {
                    world.agent_says(&holder, failed(lease, OutcomeClass::Failed));
                }
            }
            9 => {
                if let Some(task) = pick {
                    world.control(&Control::Cancel { task, reason: None });
                }
            }
            10 => {
                if let Some(task) = pick {
                    world.control(&Control::Retry { task });
                }
            }
            11 => {
                let name = if choice % 2 == 0 { "a1" } else { "a2" };
                world.join(name, 4);
            }
            12 => {
                let event: Event = if choice % 2 == 0 {
                    AgentLeft {}.into()
                } else {
                    AgentJoined::default().into()
                };
                world.agent_says("a2", event);
            }
            13..=15 => talk(&mut world, lease.map(|l| (l, holder.as_str())), *choice),
            _ => {
                world.now_ms += u64::from(*choice) * 100;
                world.elect(if choice % 2 == 0 {
                    Role::Orchestrator
                } else {
                    Role::Scheduler
                });
            }
        }
        tell_agents(&mut world);
    }
    world
}

/// An attempt asks, or somebody answers and says something.
fn talk(world: &mut World, running: Option<(Lease, &str)>, choice: u8) {
    let Some((lease, holder)) = running else {
        return;
    };
    let number = u32::from(choice % 4);
    if choice.is_multiple_of(3) {
        world.agent_says(holder, question(lease, number));
        return;
    }
    if choice.is_multiple_of(5) {
        let approval = number;
        world.agent_says(holder, ApprovalWithdrawn { lease, approval });
        return;
    }
    let answer = if choice.is_multiple_of(2) {
        Answer::Allow
    } else {
        Answer::Deny
    };
    world.answer(lease.task, number, answer);
    world.tell(lease.task, "go on");
}

/// The scheduler's other words, and the agents' answers to them.
fn tell_agents(world: &mut World) {
    let mut overlay = plan::Overlay::default();
    let told = plan::revocations(&world.state, &mut overlay, 100);
    let words = plan::words(&world.state, &mut overlay, 100);
    let words = words.into_iter().map(|t| (t.agent.clone(), t.event()));
    for (to, event) in told.into_iter().chain(words) {
        world.scheduler(to.as_str(), event.clone());
        if let Event::AttemptRevoked(e) = event {
            let stopped = conductor_protocol::event::AttemptStopped { lease: e.lease };
            world.agent_says(to.as_str(), stopped);
        }
    }
}

/// The log of a history with everything in it.
fn story() -> Vec<Record> {
    let steps: Vec<(u8, u8)> = (0..60_u8)
        .map(|n| (n.wrapping_mul(5), n.wrapping_mul(7)))
        .collect();
    history(&steps).log
}

/// What must hold in every state.
fn check(state: &State) {
    let mut keys: BTreeMap<&str, u32> = BTreeMap::new();
    for (id, task) in &state.tasks {
        let aside = &task.aside;
        let is_talking = !aside.approvals.is_empty() || !aside.words.is_empty();
        assert!(
            !is_talking || matches!(task.phase, Phase::Running { .. }),
            "what is asked and said is of the attempt that runs"
        );
        assert_eq!(aside.paused_since.is_some(), !aside.approvals.is_empty());
        if let Some(lease) = task.lease(*id) {
            let assigned = task.assigned().unwrap();
            let slot = &state.agents[&assigned.agent]
                .slots
                .get(&lease.assigned)
                .unwrap();
            assert_eq!((slot.task, slot.lease), (*id, LeaseState::Current));
            if let Some(c) = &task.spec.concurrency {
                *keys.entry(&c.key).or_default() += 1;
            }
        }
        let open = task
            .spec
            .needs
            .iter()
            .filter(|n| state.tasks.get(n).is_some_and(|t| !t.is_final()));
        if !task.is_final() && matches!(task.phase, Phase::Pending { .. }) {
            // A need that was run again by hand is no longer waited for: fewer, never more.
            assert!(
                task.aside.open_needs.len() <= open.count(),
                "{id} would wait for ever"
            );
        }
    }
    for (id, agent) in &state.agents {
        let current = agent
            .slots
            .iter()
            .filter(|(_, s)| s.lease == LeaseState::Current);
        for (position, slot) in current {
            let lease = state.tasks.get(&slot.task).and_then(|t| t.lease(slot.task));
            assert_eq!(lease.map(|l| l.assigned), Some(*position), "{id}");
        }
    }
    let counted: BTreeMap<&str, u32> = state
        .key_running
        .iter()
        .map(|(k, n)| (k.as_str(), *n))
        .collect();
    assert_eq!(counted, keys);
    assert!(keys.values().all(|n| *n <= 2), "a key beyond its limit");
    let accepted = state.counters.accepted;
    let known = state.tasks.len() + state.tombstones.len();
    assert_eq!(accepted as usize, known, "no accepted task is lost");
}
