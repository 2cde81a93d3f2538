//! What events of format 1 have been given since.

use std::sync::Arc;

use conductor_protocol::event::{Event, Input, SubtaskNews, Usage, Word};
use conductor_protocol::human::{ByteSize, DurationMs};
use conductor_protocol::spec::CommandSpec;
use conductor_protocol::terms::{
    Answer, ApprovalSpec, Before, Budget, GitSpec, Guarantee, Level, Network, OnReached, Reach,
    SandboxInUse, SandboxKind, SandboxOffer, SandboxSpec, SubtaskSpec, Terms, WorkspaceSpec,
};
use conductor_protocol::{Outcome, OutcomeClass, TaskId};

/// The terms of a task, every field set.
fn terms() -> Terms {
    let command = |program: &str| CommandSpec {
        argv: vec![program.to_owned()],
        ..CommandSpec::default()
    };
    Terms {
        sandbox: Some(SandboxSpec {
            kind: Some(SandboxKind::Bubblewrap),
            level: Some(Level::Strict),
            network: Network::Hosts(vec!["example.org:443".into()]),
            memory: Some(ByteSize(2 << 30)),
            cpu_millis: Some(1_500),
            processes: Some(256),
            file_size: Some(ByteSize(1 << 30)),
            disk: Some(ByteSize(8 << 30)),
            image: Some("image".into()),
        }),
        workspace: Some(WorkspaceSpec {
            name: Some("w".into()),
            git: Some(GitSpec {
                url: "https://example.org/r.git".into(),
                reference: Some("main".into()),
                push: Some("feature".into()),
            }),
        }),
        setup: vec![command("setup")],
        checks: vec![command("check")],
        artifacts: vec!["report.txt".into()],
        budget: Some(Budget {
            usd: Some(1.5),
            tokens: Some(1_000_000),
            turns: Some(40),
            time: Some(DurationMs(3_600_000)),
            on_reached: OnReached::Ask,
        }),
        models: vec!["m-1".into()],
        secrets: vec!["TOKEN".into()],
        approvals: Some(ApprovalSpec {
            tools: true,
            acceptance: true,
            expires: Some(DurationMs(600_000)),
            default: Answer::Allow,
        }),
        result_schema: Some("{}".into()),
        subtasks: Some(SubtaskSpec {
            max: 4,
            depth: 2,
            queues: vec!["tests".into()],
            runtimes: vec![conductor_protocol::spec::Runtime::Codex],
            budget: Some(Budget {
                turns: Some(9),
                ..Budget::default()
            }),
        }),
        parent: Some(TaskId::from_parts(1_800_000_000_000, *b"parent----")),
    }
}

/// Fields that kinds of format 1 have been given since: readers of format 1 ignore them.
pub(crate) fn samples(of: Vec<Event>) -> Vec<Event> {
    let terms = Arc::new(terms());
    let guarantees = vec![Guarantee::NothingLeft, Guarantee::FilesReadOnly];
    let with_terms = |event| match event {
        Event::TaskAccepted(mut e) => {
            Arc::make_mut(&mut e.spec).terms = Some(Arc::clone(&terms));
            Some(e.into())
        }
        Event::AttemptAssigned(mut e) => {
            e.terms = Some(Arc::clone(&terms));
            e.before = Some(Box::new(Before {
                session: Some("s-0".into()),
                usage: Some(Usage::default()),
                ran: Some(DurationMs(70_000)),
            }));
            e.inputs = vec![Input {
                task: e.task,
                name: Some("n".into()),
                result: Some("done".into()),
            }];
            Some(e.into())
        }
        Event::AttemptTold(mut e) => {
            let news = SubtaskNews::Ended {
                task: e.lease.task,
                outcome: Outcome::Failed,
                class: Some(OutcomeClass::Timeout),
                result: Some("r".into()),
            };
            e.word = Word::Subtask { number: 2, news };
            Some(e.into())
        }
        Event::AgentJoined(mut e) => {
            let offer = SandboxOffer {
                version: "0.8.0".into(),
                guarantees: guarantees.clone(),
            };
            e.sandboxes = [(SandboxKind::Bubblewrap, offer)].into();
            e.sandbox = Some(SandboxKind::Bubblewrap);
            e.network_max = Some(Reach::Hosts);
            e.format = 2;
            Some(e.into())
        }
        Event::AttemptStarted(mut e) => {
            e.version = Some("2.1.316".into());
            e.sandbox = Some(SandboxInUse {
                kind: SandboxKind::Bubblewrap,
                guarantees: guarantees.clone(),
                limits: Some("cgroup".into()),
                disk: Some("watched".into()),
            });
            Some(e.into())
        }
        _ => None,
    };
    of.into_iter().filter_map(with_terms).collect()
}
