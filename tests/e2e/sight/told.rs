//! What people are told: where a trace is, what was lost, and no secret.

use conductor_domain::state::Outcome;
use conductor_harness::system::sh;
use conductor_harness::{Process, System, http, process, until_asked};
use conductor_protocol::TraceContext;
use serde_json::{Value, json};

use super::{OPEN_METRICS, value};

const CALLER: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// Where a process of one role shows its metrics, as its log says.
async fn logged_at(process: &Process) -> String {
    until_asked(async || {
        let said = process.said();
        let line = said.lines().find(|l| l.contains("metrics are shown"));
        let line: Value = serde_json::from_str(line.ok_or("not shown yet")?).unwrap();
        Ok(line["at"].as_str().unwrap().to_owned())
    })
    .await
}

#[tokio::test]
async fn task_show_says_which_trace_and_where_it_is_shown() {
    let system = System::up().await;
    let mut story = system.story().await;
    let own = system.submit(json!({"run": {"noop": {}}})).await;
    let mut called = json!({"run": {"noop": {}}});
    called["traceparent"] = CALLER.into();
    let called = system.submit(called).await;
    for id in [own, called] {
        assert_eq!(story.outcome(id).await, Outcome::Succeeded);
    }
    let of_own = TraceContext::of(own, None).trace_hex();
    let of_caller = "0af7651916cd43dd8448eb211c80319c".to_owned();
    for (id, trace) in [(own, of_own), (called, of_caller)] {
        let show = async |format: &str, env: &[(&str, &str)]| {
            let id = id.to_string();
            let args = ["--nats-url", &system.url, "task", "show", &id, "-o", format];
            process::run(&args.map(str::to_owned), env, b"").await
        };
        let plain = show("json", &[]).await.json();
        assert_eq!(plain["trace"], trace);
        assert!(plain.get("trace_url").is_none(), "{plain}");
        let url = format!("http://jaeger.example/trace/{trace}");
        for base in [
            "http://jaeger.example/trace",
            "http://jaeger.example/trace/",
        ] {
            let linked = show("json", &[("CONDUCTOR_TRACE_URL", base)]).await.json();
            assert_eq!(linked["trace_url"], url);
        }
        let base = [("CONDUCTOR_TRACE_URL", "http://jaeger.example/trace")];
        let table = show("table", &base).await.ok();
        assert!(table.contains(&trace) && table.contains(&url), "{table}");
    }
}

#[tokio::test]
async fn no_secret_gets_into_a_line_of_log() {
    // Nobody listens at port 1. The path is the value of a variable that is named like a secret's.
    let collector = "http://watcher:hush-of-the-url@127.0.0.1:1/hush-of-the-variable";
    let mut system = System::bare().await;
    for (name, value) in [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", collector),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
        (
            "OTEL_EXPORTER_OTLP_HEADERS",
            "authorization=Bearer%20hush-of-the-header",
        ),
        ("CONDUCTOR_TEST_TOKEN", "hush-of-the-variable"),
    ] {
        system.env.push((name.to_owned(), value.to_owned()));
    }
    system.start_up(&[]).await;
    let at = super::shown_at(system.process("up")).await;
    assert_eq!(http::put(&at, "/log", "debug").await.status, 200);
    let mut story = system.story().await;
    let key = "sk-hush-of-the-task-0123456789";
    let absent = json!({"run": {"command": [format!("/nowhere/{key}")]}});
    let failing = sh(&format!(
        "echo password=hush-of-the-output >&2; echo {key}; exit 3"
    ));
    for task in [absent, failing] {
        let id = system.submit(task).await;
        assert_eq!(story.outcome(id).await, Outcome::Failed);
    }
    // The collector's address is in what is said of it.
    system
        .process("up")
        .says("traces wait for the collector")
        .await;
    system.process("up").terminate().await;
    let said = system.process("up").said();
    let told: Vec<&str> = said.lines().filter(|l| l.contains("hush")).collect();
    assert!(told.is_empty(), "{told:#?}");
    let waits = said
        .lines()
        .find(|l| l.contains("traces wait for the collector"));
    let waits: Value = serde_json::from_str(waits.unwrap()).unwrap();
    let error = waits["error"].as_str().unwrap();
    assert!(
        error.contains("http://[masked]@127.0.0.1:1/[masked]"),
        "{error}"
    );
}

#[tokio::test]
async fn what_an_agent_gives_up_because_it_ends_is_not_counted_as_lost() {
    let mut system = System::bare().await;
    system.start_role("orchestrator", "orchestrator");
    system.start_role("scheduler", "scheduler");
    let data = system.dir.path().join("data").display().to_string();
    let agent = [
        "agent",
        "--name",
        "a1",
        "--data-dir",
        &data,
        "--drain-timeout",
        "100ms",
    ];
    system.start("a1", &agent);
    system.wait_ready(1).await;
    let mut story = system.story().await;
    let id = system.submit(sh("sleep 600")).await;
    story.told(id, "attempt.started").await;
    let at = logged_at(system.process("orchestrator")).await;
    let counted = async |expected: (f64, f64)| {
        until_asked(async || {
            let page = http::get(&at, "/metrics", OPEN_METRICS).await.body;
            let of = |name: &str| value(&page, &format!("{name}{{cell=\"local\"}}")).unwrap();
            let found = (
                of("conductor_attempts_given_up_total"),
                of("conductor_leases_lost_total"),
            );
            if found == expected {
                Ok(())
            } else {
                Err(format!("{expected:?}, not {found:?}"))
            }
        })
        .await;
    };
    counted((0.0, 0.0)).await;
    system.process("a1").terminate().await;
    counted((1.0, 0.0)).await;
    // The same name again: what a killed process of it held is lost.
    system.start("a1", &agent);
    story
        .until("the second attempt", |s| {
            let begun = s.applied(id).filter(|t| t.kind == "attempt.started");
            (begun.count() == 2).then_some(())
        })
        .await;
    system.process("a1").kill9();
    system.start("a1", &agent);
    counted((1.0, 1.0)).await;
}
