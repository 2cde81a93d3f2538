//! One trace of each task, as a collector gets it.

pub(crate) mod tree;
mod trouble;

use std::collections::{BTreeMap, BTreeSet};

use conductor_domain::state::Outcome;
use conductor_harness::otlp::Seen;
use conductor_harness::system::{new_id, sh};
use conductor_harness::{Collector, System, until};
use conductor_protocol::{Control, TaskId, TraceContext};
use serde_json::json;

use tree::{counts, is_live, named, names, of_log, trace, whole};

const CALLER: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// A system in one process that exports to this endpoint.
async fn traced(endpoint: &str) -> System {
    let mut system = System::bare().await;
    export_to(&mut system, endpoint);
    system.start_up(&[]).await;
    system
}

fn export_to(system: &mut System, endpoint: &str) {
    let protocol = ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc");
    let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint);
    let set = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    system.env.extend([set(endpoint), set(protocol)]);
}

fn over_http(system: &mut System) {
    let http = "http/protobuf".to_owned();
    system
        .env
        .push(("OTEL_EXPORTER_OTLP_PROTOCOL".to_owned(), http));
}

#[tokio::test]
async fn a_task_is_one_trace_with_the_times_of_its_records() {
    let collector = Collector::start().await;
    let system = traced(&collector.grpc).await;
    let mut story = system.story().await;
    let mut task = sh("echo $TRACEPARENT");
    task["name"] = "plain".into();
    let id = system.submit(task).await;
    assert_eq!(story.outcome(id).await, Outcome::Succeeded);
    let spans = trace(&collector, id, 1).await;
    let expected = [
        ("accept", 1),
        ("attempt", 1),
        ("run command", 1),
        ("task", 1),
        ("wait for an agent", 1),
    ];
    assert_eq!(counts(&spans), expected.into(), "{:?}", names(&spans));
    let context = TraceContext::of(id, None);
    assert_eq!(spans[0].trace, context.trace_hex());
    let root = named(&spans, "task")[0];
    assert_eq!(root.parent, "");
    let at = |kind: &str| story.find(id, kind).unwrap().time_ms * 1_000_000;
    let run = named(&spans, "run command")[0];
    assert_eq!(
        run.times_ns,
        (at("attempt.started"), at("attempt.succeeded"))
    );
    let attempt = named(&spans, "attempt")[0];
    assert_eq!(
        attempt.times_ns,
        (at("attempt.assigned"), at("attempt.succeeded"))
    );
    assert_eq!(root.times_ns.1, at("attempt.succeeded"));
    for (key, value) in [
        ("messaging.system", "nats"),
        (
            "messaging.destination.name",
            "conductor.local.submit.default",
        ),
        ("messaging.message.id", &id.to_string()),
        ("conductor.task.name", "plain"),
        ("conductor.queue", "default"),
        ("conductor.namespace", "default"),
        ("conductor.cell", "local"),
        ("conductor.outcome", "succeeded"),
        ("conductor.attempts", "1"),
    ] {
        assert_eq!(root.attributes[key], value, "{key}");
    }
    assert_eq!(run.attributes["process.exit.code"], "0");
    // What it ran was told the span that stands for it.
    let logs = system.cli(&["task", "logs", &id.to_string()]).await;
    let told = format!("00-{}-{}-01", run.trace, run.id);
    assert_eq!(logs.ok().trim(), told);
    let all = inside(&collector, root, run).await;
    // No payload, no output.
    let text = format!("{all:?}");
    assert!(!text.contains("echo"), "{text}");
}

/// What the processes saw of a task hangs below what the log says of it.
async fn inside(collector: &Collector, root: &Seen, run: &Seen) -> Vec<Seen> {
    until(|| {
        let spans = collector.spans();
        let seen: BTreeSet<&str> = spans
            .iter()
            .filter(|s| s.trace == root.trace && is_live(s))
            .map(|s| s.name.as_str())
            .collect();
        let expected = BTreeSet::from(["append", "decide", "plan", "prepare", "process"]);
        if seen == expected {
            Ok(())
        } else {
            Err(format!("{seen:?}"))
        }
    })
    .await;
    let all = collector.spans();
    whole(
        &all.iter()
            .filter(|s| s.trace == root.trace)
            .cloned()
            .collect::<Vec<_>>(),
        "",
    );
    let process = all.iter().find(|s| s.name == "process").unwrap();
    assert_eq!(
        (&process.parent, &process.attributes["process.exit.code"]),
        (&run.id, &"0".to_owned())
    );
    let appends: BTreeSet<&str> = all
        .iter()
        .filter(|s| s.name == "append")
        .map(|s| s.attributes["conductor.writer"].as_str())
        .collect();
    assert_eq!(
        appends,
        BTreeSet::from(["agent", "orchestrator", "scheduler"])
    );
    all
}

#[tokio::test]
async fn retries_redrives_and_callers_are_seen() {
    let collector = Collector::start().await;
    let mut system = System::bare().await;
    export_to(&mut system, &collector.http);
    over_http(&mut system);
    system.start_up(&[]).await;
    let mut story = system.story().await;

    let mut flaky = sh("test $CONDUCTOR_ATTEMPT = 2");
    flaky["retry"] = json!({"max_attempts": 3, "backoff": "200ms", "on": ["failed"]});
    let flaky = system.submit(flaky).await;
    let mut called = sh("exit 3");
    called["traceparent"] = CALLER.into();
    let called = system.submit(called).await;

    assert_eq!(story.outcome(flaky).await, Outcome::Succeeded);
    let spans = trace(&collector, flaky, 1).await;
    assert_eq!(
        (
            named(&spans, "attempt").len(),
            named(&spans, "wait for retry").len()
        ),
        (2, 1)
    );
    let retry = named(&spans, "wait for retry")[0];
    assert!(retry.attributes.contains_key("conductor.retry.delay_ms"));
    let attempts = named(&spans, "attempt");
    assert!(attempts[0].is_error && !attempts[1].is_error);
    assert_eq!(attempts[0].attributes["conductor.outcome.class"], "failed");
    assert!(!named(&spans, "task")[0].is_error);

    story.outcome(called).await;
    let spans = trace(&collector, called, 1).await;
    let root = named(&spans, "task")[0];
    assert_eq!(root.trace, "0af7651916cd43dd8448eb211c80319c");
    assert_eq!(root.parent, "b7ad6b7169203331");
    assert!(root.is_error);
    assert_eq!(
        named(&spans, "run command")[0].attributes["process.exit.code"],
        "3"
    );
    system.control(&Control::Retry { task: called }).await;
    let spans = trace(&collector, called, 2).await;
    let again = named(&spans, "task again")[0];
    assert_eq!(again.parent, root.id);
    assert_eq!(named(&spans, "attempt").len(), 2);
}

#[tokio::test]
async fn cancels_needs_and_pauses_are_seen() {
    let collector = Collector::start().await;
    let system = traced(&collector.grpc).await;
    let mut story = system.story().await;
    let long = system.submit(sh("sleep 60")).await;
    story.told(long, "attempt.started").await;
    system
        .control(&Control::Cancel {
            task: long,
            reason: None,
        })
        .await;
    let first = new_id();
    let graph = json!([
        {"id": first, "run": {"command": ["sleep", "0.2"]}},
        {"id": new_id(), "name": "second", "needs": [first], "run": {"noop": {}}},
    ]);
    let second: TaskId = graph[1]["id"].as_str().unwrap().parse().unwrap();
    system
        .submit_raw("default", graph.to_string().into_bytes())
        .await;

    assert_eq!(story.outcome(long).await, Outcome::Cancelled);
    let spans = trace(&collector, long, 1).await;
    assert_eq!(
        named(&spans, "task")[0].attributes["conductor.outcome"],
        "cancelled"
    );
    assert_eq!(named(&spans, "attempt").len(), 1);

    story.outcome(second).await;
    let spans = trace(&collector, second, 1).await;
    assert_eq!(named(&spans, "wait for needs or time").len(), 1);
    let of_first = TraceContext::of(first, None).trace_hex();
    assert_eq!(named(&spans, "task")[0].links, [of_first]);

    let queue: conductor_protocol::QueueName = "default".parse().unwrap();
    system
        .control(&Control::PauseQueue {
            queue: queue.clone(),
        })
        .await;
    let paused = system.submit(sh("true")).await;
    story.told(paused, "task.accepted").await;
    system.control(&Control::ResumeQueue { queue }).await;
    story.outcome(paused).await;
    let spans = trace(&collector, paused, 1).await;
    assert_eq!(named(&spans, "queue paused").len(), 1);
}

#[tokio::test]
async fn an_agent_that_is_killed_is_an_attempt_of_its_own() {
    let collector = Collector::start().await;
    let mut system = System::bare().await;
    export_to(&mut system, &collector.grpc);
    system.start_role("orchestrator", "orchestrator");
    system.start_role("scheduler", "scheduler");
    system.start("projector", &["projector"]);
    system.start_agent("a1");
    system.wait_ready(1).await;
    let mut story = system.story().await;
    let id = system
        .submit(sh("test $CONDUCTOR_ATTEMPT = 2 || sleep 60"))
        .await;
    story.told(id, "attempt.started").await;
    system.process("a1").kill9();
    system.process("orchestrator").kill9();
    system.start_role("orchestrator", "orchestrator");
    system.start_agent("a1");
    assert_eq!(story.outcome(id).await, Outcome::Succeeded);
    let spans = trace(&collector, id, 1).await;
    let attempts = named(&spans, "attempt");
    assert_eq!(attempts.len(), 2);
    assert_eq!(
        attempts[0].attributes["conductor.outcome.class"],
        "agent_lost"
    );
    assert_eq!(attempts[1].attributes["conductor.agent"], "a1");
}

#[tokio::test]
async fn every_task_of_the_demo_is_a_trace() {
    let collector = Collector::start().await;
    let env = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", collector.grpc.as_str()),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
    ];
    let ran = conductor_harness::process::run(&["demo".to_owned()], &env, b"").await;
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let mut traces: BTreeMap<String, Vec<Seen>> = BTreeMap::new();
    for span in of_log(&collector) {
        traces.entry(span.trace.clone()).or_default().push(span);
    }
    assert_eq!(traces.len(), 10, "{traces:#?}");
    for spans in traces.values() {
        whole(spans, "");
        assert_eq!(counts(spans)["task"], 1);
    }
}

#[tokio::test]
async fn a_task_that_failed_is_exported_whatever_the_sampler_says() {
    let collector = Collector::start().await;
    let mut system = System::bare().await;
    export_to(&mut system, &collector.grpc);
    let sampler = ("OTEL_TRACES_SAMPLER", "parentbased_always_off");
    system
        .env
        .push((sampler.0.to_owned(), sampler.1.to_owned()));
    system.start_up(&[]).await;
    let mut story = system.story().await;
    let good = system.submit(sh("echo $TRACEPARENT")).await;
    assert_eq!(story.outcome(good).await, Outcome::Succeeded);
    let mut asked = sh("true");
    asked["traceparent"] = CALLER.into();
    let asked = system.submit(asked).await;
    story.outcome(asked).await;
    let bad = system.submit(sh("exit 1")).await;
    assert_eq!(story.outcome(bad).await, Outcome::Failed);
    trace(&collector, bad, 1).await;
    trace(&collector, asked, 1).await;
    let of = |id: TaskId| TraceContext::of(id, None).trace_hex();
    let spans = collector.spans();
    assert!(spans.iter().all(|s| s.trace != of(good)), "{spans:#?}");
    // Nothing inside a process is recorded that nobody may want.
    assert!(!spans.iter().any(|s| s.trace == of(bad) && is_live(s)));
    let logs = system.cli(&["task", "logs", &good.to_string()]).await.ok();
    assert!(logs.trim().ends_with("-00"), "{logs}");
}

#[tokio::test]
async fn a_file_of_tasks_joins_the_caller_s_trace() {
    let system = System::up().await;
    let mut story = system.story().await;
    let args = ["--nats-url", &system.url, "submit", "-f", "-", "-o", "json"].map(str::to_owned);
    let file = br#"[{"name": "of-file", "run": {"noop": {}}}]"#;
    let ran = conductor_harness::process::run(&args, &[("TRACEPARENT", CALLER)], file).await;
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    story
        .until("the task", |s| {
            (s.state().counters.accepted >= 1).then_some(())
        })
        .await;
    let shown = system
        .cli(&["task", "show", "of-file", "-o", "json"])
        .await
        .json();
    assert_eq!(shown["trace"], "0af7651916cd43dd8448eb211c80319c");
}
