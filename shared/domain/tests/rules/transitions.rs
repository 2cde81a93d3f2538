//! Every event against a task in every phase: the whole table, to be read.

use conductor_domain::Verdict;
use conductor_protocol::event::{
    AgentJoined, AgentLeft, AgentLost, ApprovalDecided, ApprovalWithdrawn, AttemptChanged,
    AttemptProgress, AttemptRevoked, AttemptStarted, AttemptStopped, AttemptTimedOut,
    AttemptTimeout, AttemptTold, AttemptUsage, CancelCause, RevokeReason, TaskCancelled,
    TaskFailed, TaskReady, TaskRedriven, TaskRetrySet, TaskTimedOut, TaskTimeout, Usage, Word,
};
use conductor_protocol::ids::{Lease, Position, TaskId};
use conductor_protocol::terms::Answer;
use conductor_protocol::{Control, OutcomeClass};
use expect_test::expect;
use serde_json::json;

use super::world::{World, agent, failed, question, succeeded};

/// A world with one task of interest, and the lease it has or last had.
struct Given {
    world: World,
    task: TaskId,
    lease: Lease,
}

const PHASES: [&str; 15] = [
    "unknown",
    "waits for need",
    "need failed",
    "delayed",
    "ready",
    "cancel asked",
    "leased",
    "running",
    "asking",
    "answered",
    "told something",
    "undecided",
    "succeeded",
    "failed",
    "retry asked",
];

fn given(phase: &str) -> Given {
    let mut world = World::new();
    let nowhere = |task| Lease {
        task,
        attempt: 1,
        assigned: Position::new(1, 0),
    };
    let task = match phase {
        "unknown" => {
            let task = world.new_id();
            return Given {
                world,
                task,
                lease: nowhere(task),
            };
        }
        "waits for need" | "need failed" => {
            let need = world.task(json!({"delay": "1h"}));
            let task = world.task(json!({"needs": [need]}));
            if phase == "need failed" {
                world.control(&Control::Cancel {
                    task: need,
                    reason: None,
                });
                let cause = CancelCause::Control(Position::new(world.state.seq, 0));
                world.orchestrator(TaskCancelled { task: need, cause });
            }
            return Given {
                world,
                task,
                lease: nowhere(task),
            };
        }
        "delayed" => world.task(json!({"delay": "1h"})),
        _ => world.task(json!({"retry": {"max_attempts": 3, "on": ["agent_lost"]}})),
    };
    let mut lease = nowhere(task);
    match phase {
        "cancel asked" => {
            world.control(&Control::Cancel { task, reason: None });
        }
        "leased" => lease = world.assign(task, "a1"),
        "running" => lease = world.run(task, "a1"),
        "asking" | "answered" | "told something" => {
            lease = world.run(task, "a1");
            talk(&mut world, lease, phase);
        }
        "undecided" | "failed" | "retry asked" => {
            lease = world.run(task, "a1");
            world.fail(lease, "a1", OutcomeClass::Failed);
        }
        "succeeded" => {
            lease = world.run(task, "a1");
            world.succeed(lease, "a1");
        }
        _ => {}
    }
    if ["failed", "retry asked"].contains(&phase) {
        world.settle();
    }
    if phase == "retry asked" {
        world.control(&Control::Retry { task });
    }
    Given { world, task, lease }
}

fn talk(world: &mut World, lease: Lease, phase: &str) {
    if phase == "told something" {
        assert_eq!(world.tell(lease.task, "be quick"), Verdict::Applied);
        return;
    }
    assert_eq!(world.ask(lease, "a1"), Verdict::Applied);
    if phase == "answered" {
        let answered = world.answer(lease.task, 1, Answer::Allow);
        assert_eq!(answered, Verdict::Applied);
        world.settle();
    }
}

type When = fn(&mut Given) -> Verdict;

/// Everything that can be said of a task.
const EVENTS: [(&str, When); 36] = [
    ("task.ready", |g| {
        g.world.orchestrator(TaskReady { task: g.task })
    }),
    ("task.retry_set", |g| {
        let attempt = g.lease.attempt;
        let set = TaskRetrySet {
            task: g.task,
            attempt,
            at_ms: g.world.now_ms,
            delay_ms: 0,
        };
        g.world.orchestrator(set)
    }),
    ("task.failed", |g| {
        let (class, reason) = (OutcomeClass::Failed, String::new());
        g.world.orchestrator(TaskFailed {
            task: g.task,
            class,
            reason,
        })
    }),
    ("timed_out queue", |g| timed_out(g, TaskTimeout::Queue)),
    ("timed_out run", |g| timed_out(g, TaskTimeout::Run)),
    ("timed_out heartbeat", |g| {
        timed_out(g, TaskTimeout::Heartbeat)
    }),
    ("timed_out total", |g| timed_out(g, TaskTimeout::Total)),
    ("cancelled, asked", |g| {
        let cause = CancelCause::Control(Position::new(1, 0));
        g.world.orchestrator(TaskCancelled {
            task: g.task,
            cause,
        })
    }),
    ("cancelled, need", |g| {
        let cause = CancelCause::NeedFailed(g.task);
        g.world.orchestrator(TaskCancelled {
            task: g.task,
            cause,
        })
    }),
    ("task.redriven", |g| {
        let control = Position::new(1, 0);
        g.world.orchestrator(TaskRedriven {
            task: g.task,
            control,
        })
    }),
    ("attempt.timed_out", |g| {
        let timeout = AttemptTimeout::Run;
        g.world.orchestrator(AttemptTimedOut {
            lease: g.lease,
            timeout,
        })
    }),
    ("attempt.assigned", |g| {
        let assignment = g.world.assignment(g.task, "a1");
        g.world.scheduler("a1", assignment)
    }),
    ("attempt.revoked", |g| {
        let incarnation = g.world.state.agents[&agent("a1")].incarnation;
        let reason = RevokeReason::LeaseOver;
        g.world.scheduler(
            "a1",
            AttemptRevoked {
                lease: g.lease,
                incarnation,
                reason,
            },
        )
    }),
    ("attempt.started", |g| {
        g.world.agent_says("a1", AttemptStarted::new(g.lease, None))
    }),
    ("attempt.progress", |g| {
        g.world.agent_says(
            "a1",
            AttemptProgress {
                lease: g.lease,
                percent: None,
                message: None,
            },
        )
    }),
    ("attempt.usage", |g| {
        g.world.agent_says(
            "a1",
            AttemptUsage {
                lease: g.lease,
                usage: Usage::default(),
            },
        )
    }),
    ("attempt.changed", |g| {
        g.world.agent_says(
            "a1",
            AttemptChanged {
                lease: g.lease,
                files: 1,
                insertions: 1,
                deletions: 0,
                patch: None,
                base: None,
                head: None,
                pushed: None,
                unpushed: Some(false),
            },
        )
    }),
    ("approval.requested", |g| {
        g.world.agent_says("a1", question(g.lease, 2))
    }),
    ("same question", |g| {
        g.world.agent_says("a1", question(g.lease, 1))
    }),
    ("approval.withdrawn", |g| {
        let (lease, approval) = (g.lease, 1);
        let withdrawn = ApprovalWithdrawn { lease, approval };
        g.world.agent_says("a1", withdrawn)
    }),
    ("decided as given", |g| decided(g, Answer::Allow, true)),
    ("decided otherwise", |g| decided(g, Answer::Deny, true)),
    ("expired", |g| decided(g, Answer::Deny, false)),
    ("told the answer", |g| {
        let (approval, answer, text) = (1, Answer::Allow, None);
        told(
            g,
            Word::Decision {
                approval,
                answer,
                text,
            },
        )
    }),
    ("told a text", |g| {
        let (control, text) = (Position::new(g.world.state.seq, 0), "be quick".to_owned());
        told(g, Word::Text { control, text })
    }),
    ("attempt.succeeded", |g| {
        g.world.agent_says("a1", succeeded(g.lease))
    }),
    ("attempt.failed", |g| {
        g.world
            .agent_says("a1", failed(g.lease, OutcomeClass::Failed))
    }),
    ("attempt.stopped", |g| {
        g.world.agent_says("a1", AttemptStopped { lease: g.lease })
    }),
    ("succeeded elsewhere", |g| {
        g.world.join("a2", 4);
        g.world.agent_says("a2", succeeded(g.lease))
    }),
    ("agent.lost", |g| {
        let incarnation = g.world.state.agents[&agent("a1")].incarnation;
        g.world.orchestrator(AgentLost {
            agent: agent("a1"),
            incarnation,
        })
    }),
    ("agent.joined anew", |g| {
        g.world.agent_says("a1", AgentJoined::default())
    }),
    ("agent.left", |g| g.world.agent_says("a1", AgentLeft {})),
    ("control cancel", |g| {
        g.world.control(&Control::Cancel {
            task: g.task,
            reason: None,
        })
    }),
    ("control retry", |g| {
        g.world.control(&Control::Retry { task: g.task })
    }),
    ("control decide", |g| {
        g.world.answer(g.task, 1, Answer::Deny)
    }),
    ("control tell", |g| g.world.tell(g.task, "be quick")),
];

/// The orchestrator decides the first question: as it was answered last, or because nobody did.
fn decided(g: &mut Given, answer: Answer, is_answered: bool) -> Verdict {
    let given = g.world.state.tasks.get(&g.task).and_then(|task| {
        let asked = task.aside.approvals.get(&1)?;
        asked.reply.as_ref()?.control
    });
    let control = is_answered.then(|| given.unwrap_or(Position::new(1, 0)));
    g.world.orchestrator(ApprovalDecided {
        lease: g.lease,
        approval: 1,
        answer,
        control,
        text: None,
    })
}

fn told(g: &mut Given, word: Word) -> Verdict {
    let incarnation = g.world.state.agents[&agent("a1")].incarnation;
    let lease = g.lease;
    g.world.scheduler(
        "a1",
        AttemptTold {
            lease,
            incarnation,
            word,
        },
    )
}

fn timed_out(g: &mut Given, timeout: TaskTimeout) -> Verdict {
    g.world.orchestrator(TaskTimedOut {
        task: g.task,
        timeout,
    })
}

#[test]
fn every_event_in_every_phase() {
    let mut table = String::new();
    for phase in PHASES {
        table += &format!("{phase}:\n");
        for (name, when) in EVENTS {
            let mut g = given(phase);
            let before = g.world.clone();
            let verdict = when(&mut g);
            let is_there = g.world.state.knows(g.task);
            let after = if is_there { g.world.phase(g.task) } else { "-" };
            let then = match verdict {
                Verdict::Applied => format!("-> {after}"),
                Verdict::Void(reason) => {
                    // What is void changes no task.
                    assert_eq!(before.state.tasks, g.world.state.tasks, "{phase}: {name}");
                    format!("   {reason}")
                }
            };
            table += &format!("  {name:<20} {then}\n");
        }
    }
    expect_test::expect_file!["transitions.txt"].assert_eq(&table);
}

#[test]
fn a_slot_is_busy_until_its_agent_says_that_it_is_not() {
    let mut g = given("running");
    let used = |g: &Given| g.world.state.agents[&agent("a1")].slots_used();
    assert_eq!(used(&g), 1);
    g.world.control(&Control::Cancel {
        task: g.task,
        reason: None,
    });
    g.world.settle();
    assert_eq!((g.world.phase(g.task), used(&g)), ("cancelled", 1));
    let stopped = AttemptStopped { lease: g.lease };
    assert_eq!(g.world.agent_says("a1", stopped), Verdict::Applied);
    assert_eq!(used(&g), 0);
}

#[test]
fn a_void_assignment_occupies_its_agent_until_it_was_revoked_and_stopped() {
    let mut g = given("cancel asked");
    let assignment = g.world.assignment(g.task, "a1");
    let verdict = g.world.scheduler("a1", assignment);
    expect![[r#"
        Void(
            CancelRequested,
        )
    "#]]
    .assert_debug_eq(&verdict);
    let lease = Lease {
        task: g.task,
        attempt: 1,
        assigned: Position::new(g.world.state.seq, 0),
    };
    assert_eq!(g.world.state.agents[&agent("a1")].slots_used(), 1);
    let told = conductor_domain::plan::revocations(
        &g.world.state,
        &mut conductor_domain::plan::Overlay::default(),
        10,
    );
    let [(to, event)] = told.as_slice() else {
        panic!("{told:?}")
    };
    assert_eq!(
        g.world.scheduler(to.as_str(), event.clone()),
        Verdict::Applied
    );
    assert_eq!(
        g.world.agent_says("a1", AttemptStopped { lease }),
        Verdict::Applied
    );
    assert_eq!(g.world.state.agents[&agent("a1")].slots_used(), 0);
}

#[test]
fn an_election_changes_no_task_and_ends_the_earlier_epoch() {
    use conductor_protocol::subject::Role;
    let mut g = given("delayed");
    let old = g.world.state.epoch(Role::Orchestrator);
    g.world.elect(Role::Orchestrator);
    let late = g.world.orchestrator_at(old, TaskReady { task: g.task });
    assert_eq!(
        late,
        Verdict::Void(conductor_domain::VoidReason::StaleEpoch)
    );
    assert_eq!(g.world.ready(g.task), Verdict::Applied);
}
