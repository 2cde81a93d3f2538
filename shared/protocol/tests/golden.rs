//! The bytes of every event version, for ever: `golden/<kind>.v<n>`. A log written by any
//! version must be read by every later one.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

mod golden {
    pub(super) mod later;
}

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use conductor_protocol::control::OnReached;
use conductor_protocol::event::{
    AgentDismissed, AgentDraining, AgentJoined, AgentLeft, AgentLost, ApprovalDecided,
    ApprovalRequested, ApprovalWithdrawn, AttemptArtifact, AttemptAssigned, AttemptChanged,
    AttemptFailed, AttemptProgress, AttemptRevoked, AttemptStarted, AttemptStopped,
    AttemptSubmitted, AttemptSucceeded, AttemptThrottled, AttemptTimedOut, AttemptTimeout,
    AttemptTold, AttemptUsage, BudgetReached, CancelCause, DayLimit, DaySpent, Event, FieldError,
    LeaderElected, LogFormat, OutputStats, Question, RevokeReason, TaskAccepted, TaskCancelled,
    TaskDuplicate, TaskFailed, TaskReady, TaskRedriven, TaskRejected, TaskRetrySet, TaskTimedOut,
    TaskTimeout, Usage, Word, WorkspaceDropped, WorkspaceRemoved,
};
use conductor_protocol::human::DurationMs;
use conductor_protocol::ids::Lease;
use conductor_protocol::spec::{
    ClaudeSpec, Concurrency, NeedPolicy, PermissionMode, RetryPolicy, RunSpec, Runtime, TaskSpec,
    Timeouts,
};
use conductor_protocol::terms::Answer;
use conductor_protocol::{OutcomeClass, Position, TaskId};

/// An event of every kind, with every field set.
#[expect(clippy::too_many_lines, reason = "a table")]
fn samples() -> Vec<Event> {
    let task = TaskId::from_parts(1_800_000_000_000, *b"0123456789");
    let need = TaskId::from_parts(1_800_000_000_001, *b"abcdefghij");
    let lease = Lease {
        task,
        attempt: 2,
        assigned: Position::new(70_000, 3),
    };
    let submission = Position::new(4_711, 0);
    let agent = "build-1".parse().unwrap();
    let usage = Usage {
        model: Some("m-1".into()),
        session: Some("s-1".into()),
        turns: 4,
        input_tokens: 70_000,
        cached_tokens: 60_000,
        cache_write_tokens: 5_000,
        output_tokens: 300,
        cost_usd: 0.25,
        base: None,
    };
    let output = OutputStats {
        bytes: 1 << 33,
        dropped: 17,
    };
    let map = |k: &str, v: &str| [(k.to_owned(), v.to_owned())].into();
    let timeouts = Timeouts {
        queue: Some(DurationMs(1)),
        run: Some(DurationMs(300)),
        heartbeat: Some(DurationMs(70_000)),
        total: Some(DurationMs(5_000_000_000)),
    };
    let run = RunSpec::Claude(Box::new(ClaudeSpec {
        prompt: "Größe prüfen".into(),
        model: Some("m-1".into()),
        max_turns: Some(9),
        max_budget_usd: Some(1.5),
        resume: Some("s-0".into()),
        append_system_prompt: Some("be brief".into()),
        permission_mode: Some(PermissionMode::AcceptEdits),
        allowed_tools: vec!["Read".into()],
        disallowed_tools: vec!["Bash".into()],
        json_schema: Some("{}".into()),
        allow_denials: true,
        env: map("A", "b"),
        cwd: Some("sub".into()),
    }));
    let spec = TaskSpec {
        name: Some("n".into()),
        queue: "q".parse().unwrap(),
        namespace: "team".parse().unwrap(),
        priority: 9,
        labels: [("os", "linux")].into(),
        needs: vec![need],
        on_need_failed: NeedPolicy::Skip,
        retry: RetryPolicy {
            max_attempts: 7,
            backoff: DurationMs(250),
            factor: 1.5,
            max_backoff: DurationMs(60_000),
            jitter: 0.5,
            on: Some(OutcomeClass::ALL.into_iter().collect()),
        }
        .into(),
        timeouts: timeouts.into(),
        start_at_ms: Some(1_900_000_000_000),
        concurrency: Some(Box::new(Concurrency {
            key: "db".into(),
            limit: 3,
        })),
        slots: 2,
        metadata: [("pr", "17")].into(),
        key: Some("k".into()),
        reply: Some("_INBOX.x".into()),
        traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into()),
        terms: None,
        runtime: Runtime::Claude,
        run: Some(Arc::new(run.clone())),
    };
    vec![
        LogFormat { format: 1 }.into(),
        TaskAccepted {
            submission,
            task,
            spec: Arc::new(spec),
        }
        .into(),
        TaskRejected {
            submission,
            errors: vec![FieldError::new("priority", "is 12", "0 to 9")],
        }
        .into(),
        TaskDuplicate { submission, task }.into(),
        TaskReady { task }.into(),
        TaskRetrySet {
            task,
            attempt: 2,
            at_ms: 1_800_000_001_000,
            delay_ms: 500,
        }
        .into(),
        TaskFailed {
            task,
            class: OutcomeClass::Oom,
            reason: "no attempt is left".into(),
        }
        .into(),
        TaskTimedOut {
            task,
            timeout: TaskTimeout::Total,
        }
        .into(),
        TaskCancelled {
            task,
            cause: CancelCause::NeedFailed(need),
        }
        .into(),
        TaskRedriven {
            task,
            control: submission,
        }
        .into(),
        AttemptTimedOut {
            lease,
            timeout: AttemptTimeout::Heartbeat,
        }
        .into(),
        AgentLost {
            agent,
            incarnation: 99,
        }
        .into(),
        AttemptAssigned {
            task,
            attempt: 2,
            incarnation: 99,
            slots: 2,
            run: Arc::new(run),
            timeouts: timeouts.into(),
            queue: "q".parse().unwrap(),
            namespace: "team".parse().unwrap(),
            name: Some("n".into()),
            metadata: [("pr", "17")].into(),
            traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into()),
            terms: None,
            before: None,
            inputs: Vec::new(),
        }
        .into(),
        AttemptRevoked {
            lease,
            incarnation: 99,
            reason: RevokeReason::Cancelled,
        }
        .into(),
        AgentDismissed {
            incarnation: 99,
            replaced: false,
        }
        .into(),
        AgentJoined {
            process: String::new(),
            version: "0.1.0".into(),
            host: "h:1".into(),
            slots: 4,
            labels: map("os", "linux"),
            runtimes: [(Runtime::Command, "0.1.0".to_owned())].into(),
            ..AgentJoined::default()
        }
        .into(),
        AgentDraining {}.into(),
        AgentLeft {}.into(),
        AttemptStarted {
            lease,
            session: Some("s-1".into()),
            version: None,
            sandbox: None,
        }
        .into(),
        AttemptProgress {
            lease,
            percent: Some(12.5),
            message: Some("half".into()),
        }
        .into(),
        AttemptUsage {
            lease,
            usage: usage.clone(),
        }
        .into(),
        AttemptSucceeded {
            lease,
            result: Some("done".into()),
            exit_code: Some(0),
            usage: Some(usage.clone()),
            output: Some(output.clone()),
        }
        .into(),
        AttemptFailed {
            lease,
            class: OutcomeClass::Crashed,
            message: "signal 9".into(),
            result: Some("half".into()),
            exit_code: Some(137),
            signal: Some(9),
            usage: Some(usage),
            output: Some(output),
        }
        .into(),
        AttemptStopped { lease }.into(),
        AttemptArtifact {
            lease,
            name: "report.txt".into(),
            sha256: "ab".repeat(32),
            size: 70_000,
            media_type: Some("text/plain".into()),
        }
        .into(),
        AttemptChanged {
            lease,
            files: 3,
            insertions: 70,
            deletions: 4,
            patch: Some("changes.patch".into()),
            base: Some("c0".repeat(20)),
            head: Some("c1".repeat(20)),
            pushed: Some("feature".into()),
            unpushed: Some(false),
        }
        .into(),
        AttemptThrottled {
            lease,
            until_ms: Some(1_800_000_002_000),
        }
        .into(),
        AttemptSubmitted {
            lease,
            number: 1,
            body: r#"{"run":{"command":["make","test"]}}"#.into(),
        }
        .into(),
        ApprovalRequested {
            lease,
            approval: 1,
            question: Question::Tool,
            summary: "Bash rm -r build".into(),
            expires: DurationMs(3_600_000),
            default: Answer::Deny,
        }
        .into(),
        ApprovalWithdrawn { lease, approval: 1 }.into(),
        ApprovalDecided {
            lease,
            approval: 1,
            answer: Answer::Allow,
            control: Some(submission),
            text: Some("go on".into()),
        }
        .into(),
        BudgetReached {
            namespace: "team".parse().unwrap(),
            day: 20_468,
            spent: DaySpent {
                usd_micros: 20_100_000,
                tokens: 300_000,
                turns: 40,
                ran_ms: 3_600_000,
            },
            limit: DayLimit {
                usd_micros: Some(20_000_000),
                tokens: Some(1_000_000),
                turns: Some(100),
                ran_ms: Some(28_800_000),
            },
            on_reached: OnReached::Ask,
        }
        .into(),
        AttemptTold {
            lease,
            incarnation: 99,
            word: Word::Decision {
                approval: 1,
                answer: Answer::Allow,
                text: Some("go on".into()),
            },
        }
        .into(),
        WorkspaceDropped {
            namespace: "team".parse().unwrap(),
            name: "w".into(),
            incarnation: 99,
            control: submission,
        }
        .into(),
        WorkspaceRemoved {
            namespace: "team".parse().unwrap(),
            name: "w".into(),
            control: submission,
        }
        .into(),
        LeaderElected {
            holder: "h:1:x".into(),
            version: "0.1.0".into(),
        }
        .into(),
    ]
}

fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("golden")
}

/// Hexadecimal for the machine, JSON for whoever reads the change.
fn text(event: &Event) -> String {
    let hex: String = event.encode().iter().map(|b| format!("{b:02x}")).collect();
    let json = serde_json::to_string_pretty(&event.to_json()).unwrap();
    format!("{hex}\n{json}\n")
}

fn bytes(text: &str) -> Vec<u8> {
    let hex = text.lines().next().unwrap();
    (0..hex.len())
        .step_by(2)
        .map(|i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap())
        .collect()
}

#[test]
fn golden_every_kind_has_its_bytes() {
    let later = golden::later::samples(samples());
    let named = samples().into_iter().map(|event| (event, directory()));
    let later = later.into_iter().map(|e| (e, directory().join("later")));
    for (event, directory) in named.chain(later) {
        let path = directory.join(format!("{}.v{}", event.kind(), event.version()));
        if std::env::var_os("UPDATE_GOLDEN").is_some() && !path.exists() {
            std::fs::write(&path, text(&event)).unwrap();
        }
        let golden = std::fs::read_to_string(&path).unwrap_or_else(|e| {
            panic!("{}: {e}; see ARCHITECTURE.md, a new event", path.display())
        });
        let read = Event::decode(&bytes(&golden)).unwrap();
        assert_eq!(
            read,
            event,
            "{} no longer reads as it was written",
            path.display()
        );
        assert_eq!(
            text(&event),
            golden,
            "{} is written differently now: that needs a new version",
            path.display()
        );
    }
}

#[test]
fn golden_no_kind_and_no_version_is_left_out_or_given_up() {
    let sampled: BTreeSet<String> = samples()
        .iter()
        .map(|e| format!("{}.v{}", e.kind(), e.version()))
        .collect();
    let kinds: BTreeSet<&str> = samples().iter().map(Event::kind).collect();
    let all: BTreeSet<&str> = Event::KINDS.iter().map(|k| k.0).collect();
    assert_eq!(kinds, all);
    let mut files = BTreeSet::new();
    for file in std::fs::read_dir(directory()).unwrap() {
        let file = file.unwrap();
        if file.file_type().unwrap().is_dir() {
            continue;
        }
        let name = file.file_name().to_string_lossy().into_owned();
        let golden = std::fs::read_to_string(file.path()).unwrap();
        // An old version has no sample any more, but must still be read.
        let event = Event::decode(&bytes(&golden));
        let kind = event
            .unwrap_or_else(|e| panic!("{name} can no longer be read: {e}"))
            .kind();
        assert_eq!(name.rsplit_once(".v").map(|(kind, _)| kind), Some(kind));
        files.insert(name);
    }
    assert!(files.is_superset(&sampled), "a golden file is missing");
}

#[test]
fn fields_that_are_not_known_yet_are_ignored() {
    for event in samples() {
        let mut value: rmpv::Value = rmp_serde::from_slice(&event.encode()).unwrap();
        let rmpv::Value::Map(fields) = &mut value else {
            panic!("an event is a map")
        };
        fields.push(("from_the_future".into(), rmpv::Value::Array(vec![1.into()])));
        let bytes = rmp_serde::to_vec_named(&value).unwrap();
        assert_eq!(Event::decode(&bytes).unwrap(), event);
    }
}
