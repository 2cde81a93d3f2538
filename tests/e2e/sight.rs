//! What operators look at: metrics, health, lines of log.

mod told;

use std::collections::BTreeSet;

use conductor_domain::state::Outcome;
use conductor_harness::system::sh;
use conductor_harness::{Process, System, TestServer, http, until_asked};
use conductor_protocol::TraceContext;
use serde_json::{Value, json};

/// Where a process shows its metrics.
pub(crate) async fn shown_at(process: &Process) -> String {
    process.says("metrics on http://").await;
    let said = process.said();
    let at = said.split("metrics on http://").nth(1).unwrap();
    at.split('/').next().unwrap().to_owned()
}

pub(crate) const OPEN_METRICS: &str = "application/openmetrics-text";

/// The value of a series, in whatever order its labels are written.
pub(crate) fn value(page: &str, series: &str) -> Option<f64> {
    page.lines().find_map(|line| {
        let (name, value) = line.split_once(' ')?;
        (labels(name) == labels(series)).then(|| value.split(' ').next()?.parse().ok())?
    })
}

fn labels(series: &str) -> BTreeSet<&str> {
    series.split(['{', ',', '}']).collect()
}

#[tokio::test]
async fn figures_are_those_of_the_log() {
    let mut system = System::up().await;
    let mut story = system.story().await;
    let at = shown_at(system.process("up")).await;
    let good = system.submit(sh("true")).await;
    let bad = system.submit(sh("exit 1")).await;
    assert_eq!(story.outcome(good).await, Outcome::Succeeded);
    assert_eq!(story.outcome(bad).await, Outcome::Failed);
    system
        .submit_raw("default", br#"{"nonsense": 1}"#.to_vec())
        .await;
    let unfit = json!({"run": {"noop": {}}, "labels": {"gpu": "yes"}});
    let waits = system.submit(unfit).await;
    story.told(waits, "task.accepted").await;
    let page = until_asked(async || {
        let page = http::get(&at, "/metrics", OPEN_METRICS).await.body;
        match value(
            &page,
            r#"conductor_queue_backlog{queue="default",cell="local"}"#,
        ) {
            Some(1.0) => Ok(page),
            other => Err(format!("a backlog of 1, not {other:?}")),
        }
    })
    .await;
    for (series, expected) in [
        (r#"tasks_total{cell="local"}"#, 3.0),
        (r#"tasks_completed{cell="local"}"#, 1.0),
        (r#"tasks_failed{cell="local"}"#, 1.0),
        (r#"pending_tasks{cell="local"}"#, 1.0),
        (r#"workers_active{cell="local"}"#, 2.0),
        (r#"conductor_tasks_submitted_total{cell="local"}"#, 4.0),
        (r#"conductor_tasks_rejected_total{cell="local"}"#, 1.0),
        (
            r#"conductor_tasks_finished_total{outcome="failed",cell="local"}"#,
            1.0,
        ),
        (r#"conductor_dead_letters{cell="local"}"#, 1.0),
        (r#"conductor_slots{cell="local"}"#, 8.0),
        (r#"conductor_is_leader{role="scheduler",cell="local"}"#, 1.0),
        (r#"conductor_nats_connected{cell="local"}"#, 1.0),
        (
            r#"conductor_tail_lag_records{reader="replica",cell="local"}"#,
            0.0,
        ),
        (
            r#"task_duration_seconds_count{outcome="succeeded",cell="local"}"#,
            1.0,
        ),
        (
            r#"conductor_attempt_run_seconds_count{outcome="failed",cell="local"}"#,
            1.0,
        ),
    ] {
        assert_eq!(value(&page, series), Some(expected), "{series} in\n{page}");
    }
    assert!(page.ends_with("# EOF\n"));
    // An example of a trace, and no other trace or task.
    let trace = TraceContext::of(good, None).trace_hex();
    assert!(page.contains(&format!("trace_id=\"{trace}\"")), "{page}");
    let without: String = page
        .lines()
        .map(|l| l.split(" # {").next().unwrap())
        .collect();
    for task in [good, bad, waits] {
        assert!(!without.contains(&task.to_string()));
        assert!(!without.contains(&TraceContext::of(task, None).trace_hex()));
    }
    let plain = http::get(&at, "/metrics", "*/*").await.body;
    assert!(plain.contains("# TYPE tasks_total counter\n") && !plain.contains("# EOF"));
    clean(&plain).await;
}

#[tokio::test]
async fn every_metric_of_a_dashboard_or_rule_is_there_and_none_is_forgotten() {
    let collector = conductor_harness::Collector::start().await;
    let mut system = System::bare().await;
    system
        .env
        .push(("OTEL_EXPORTER_OTLP_ENDPOINT".into(), collector.http.clone()));
    system.start_up(&["--snapshot-every", "5"]).await;
    let mut story = system.story().await;
    let at = shown_at(system.process("up")).await;
    for script in ["true", "exit 1"] {
        let id = system.submit(sh(script)).await;
        story.outcome(id).await;
    }
    system
        .submit(json!({"run": {"noop": {}}, "labels": {"gpu": "yes"}}))
        .await;
    let used = conductor_observability::metrics_used();
    assert!(used.len() > 20, "{used:?}");
    let page = until_asked(async || {
        let page = http::get(&at, "/metrics", OPEN_METRICS).await.body;
        let names = names(&page);
        let missing: Vec<&String> = used
            .iter()
            .filter(|n| !names.contains(n.as_str()))
            .collect();
        if missing.is_empty() {
            Ok(page)
        } else {
            Err(format!("{missing:?}"))
        }
    })
    .await;
    // The list that dashboards and rules are made from is the page, no more and no less.
    let listed: BTreeSet<String> = conductor_observability::metrics::METRICS
        .iter()
        .flat_map(conductor_observability::metrics::Metric::series)
        .collect();
    let shown: BTreeSet<String> = names(&page).into_iter().map(str::to_owned).collect();
    let unlisted: Vec<&String> = shown.difference(&listed).collect();
    assert!(
        unlisted.is_empty(),
        "on the page, not in the list: {unlisted:?}"
    );
    for metric in conductor_observability::metrics::METRICS {
        for series in metric.series() {
            let of_it = page
                .lines()
                .filter(|l| l.split(['{', ' ']).next() == Some(&series));
            for line in of_it {
                for label in metric.labels {
                    assert!(line.contains(&format!("{label}=\"")), "{label} of {line}");
                }
            }
        }
    }
}

/// The names of all series of a page.
fn names(page: &str) -> BTreeSet<&str> {
    let samples = page.lines().filter(|l| !l.starts_with('#'));
    samples.filter_map(|l| l.split(['{', ' ']).next()).collect()
}

/// What Prometheus' own tool says of a page, where there is one.
async fn clean(page: &str) {
    use std::process::{Command, Stdio};
    let mut command = Command::new("promtool");
    command
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .stdout(Stdio::piped());
    let Ok(mut child) = command.spawn() else {
        assert!(std::env::var_os("CI").is_none(), "CI has promtool");
        use std::io::Write;
        let said = "promtool is not installed: the page is not checked with it\n";
        std::io::stderr().write_all(said.as_bytes()).unwrap();
        return;
    };
    let page = page.to_owned();
    let output = tokio::task::spawn_blocking(move || {
        use std::io::Write;
        child
            .stdin
            .take()
            .unwrap()
            .write_all(page.as_bytes())
            .unwrap();
        child.wait_with_output().unwrap()
    });
    let output = output.await.unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    // Names that dashboards of such systems use, whatever the linter prefers.
    let complaints: Vec<&str> = said.lines().filter(|l| !l.trim().is_empty()).collect();
    assert!(complaints.is_empty(), "{complaints:#?}");
}

#[tokio::test]
async fn the_number_of_series_does_not_grow_with_tasks_agents_and_queues() {
    let mut system = System::up().await;
    let mut story = system.story().await;
    let at = shown_at(system.process("up")).await;
    let mut last = None;
    for n in 0..150 {
        let queue: String = format!("queue-{n}");
        let task = json!({"run": {"noop": {}}, "labels": {"none": "has"}});
        let queue_name = queue.clone();
        system
            .submit_raw(&queue_name, task.to_string().into_bytes())
            .await;
        last = Some(queue);
    }
    let last = last.unwrap();
    story
        .until("all to be accepted", |s| {
            (s.state().counters.accepted >= 150).then_some(())
        })
        .await;
    // The process reads the log by itself, and may be behind the test.
    let page = until_asked(async || {
        let page = http::get(&at, "/metrics", OPEN_METRICS).await.body;
        match value(&page, r#"tasks_total{cell="local"}"#) {
            Some(150.0) => Ok(page),
            other => Err(format!("150 tasks, not {other:?}")),
        }
    })
    .await;
    let queues: BTreeSet<&str> = page
        .lines()
        .filter(|l| l.starts_with("conductor_queue_backlog{"))
        .collect();
    assert_eq!(queues.len(), 101, "{last}: {queues:#?}");
    assert!(page.contains("queue=\"_other\""));
    assert!(
        page.lines().count() < 1_500,
        "{} lines",
        page.lines().count()
    );
}

#[tokio::test]
async fn health_says_whether_nats_is_there_and_life_does_not_depend_on_it() {
    let mut server = TestServer::start();
    let url = server.url();
    server.server.kill();
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data").display().to_string();
    let args = [
        "up",
        "--nats-url",
        &url,
        "--data-dir",
        &data,
        "--log",
        "info",
    ];
    let process = Process::start(&args, &[], dir.path());
    let at = until_asked(async || {
        let said = process.said();
        let line = said.lines().find(|l| l.contains("metrics are shown"));
        let line: Value = serde_json::from_str(line.ok_or("not shown yet")?).unwrap();
        Ok(line["at"].as_str().unwrap().to_owned())
    })
    .await;
    assert_eq!(http::get(&at, "/livez", "*/*").await.status, 200);
    for path in ["/readyz", "/startupz"] {
        let answer = http::get(&at, path, "*/*").await;
        assert_eq!(answer.status, 503);
        assert_eq!(answer.body, "not connected to NATS yet\n");
    }
    server
        .server
        .start_again(std::time::Duration::from_secs(30))
        .unwrap();
    until_asked(async || match http::get(&at, "/readyz", "*/*").await {
        answer if answer.status == 200 => Ok(()),
        answer => Err(answer.body),
    })
    .await;
    assert_eq!(http::get(&at, "/startupz", "*/*").await.status, 200);
    server.server.kill();
    until_asked(async || match http::get(&at, "/readyz", "*/*").await {
        answer if answer.status == 503 => Ok(()),
        answer => Err(answer.body),
    })
    .await;
    assert_eq!(http::get(&at, "/livez", "*/*").await.status, 200);
    let page = http::get(&at, "/metrics", OPEN_METRICS).await.body;
    assert!(
        page.contains("conductor_nats_connected{cell=\"local\"} 0"),
        "{page}"
    );
    // What the replica knows it knows without the servers.
    assert!(page.contains("conductor_is_leader{"), "{page}");
    assert!(page.contains("pending_tasks{"), "{page}");
}

#[tokio::test]
async fn lines_are_json_name_their_task_and_their_level_can_be_changed() {
    let mut system = System::up().await;
    let mut story = system.story().await;
    let at = shown_at(system.process("up")).await;
    let bad = http::put(&at, "/log", "conductor=loud").await;
    assert_eq!(bad.status, 400, "{}", bad.body);
    assert_eq!(
        http::put(&at, "/log", "debug,async_nats=warn").await.status,
        200
    );
    assert!(http::get(&at, "/log", "*/*").await.body.contains("debug"));
    let id = system.submit(sh("true")).await;
    assert_eq!(story.outcome(id).await, Outcome::Succeeded);
    system.process("up").terminate().await;
    let said = system.process("up").said();
    let lines: Vec<Value> = said
        .lines()
        .filter(|l| l.starts_with('{'))
        .map(|l| serde_json::from_str(l).unwrap())
        .collect();
    assert!(!lines.is_empty());
    for line in &lines {
        for field in ["time", "level", "message", "cell", "role"] {
            assert!(
                line.get(field).is_some_and(Value::is_string),
                "{field} of {line}"
            );
        }
    }
    let of_task: Vec<&Value> = lines
        .iter()
        .filter(|l| l["task"] == id.to_string())
        .collect();
    let messages: Vec<&str> = of_task
        .iter()
        .map(|l| l["message"].as_str().unwrap())
        .collect();
    assert_eq!(messages, ["attempt begins", "attempt ended"], "{said}");
    let trace = TraceContext::of(id, None).trace_hex();
    assert!(
        of_task
            .iter()
            .all(|l| l["trace"] == trace && l["agent"].is_string())
    );
}
