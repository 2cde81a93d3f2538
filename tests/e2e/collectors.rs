//! Collectors that want to know who speaks, and that do not take everything.

mod refusals;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use conductor_domain::state::Outcome;
use conductor_harness::otlp::{Authority, Seen};
use conductor_harness::process::{self, Ran};
use conductor_harness::system::sh;
use conductor_harness::{Collector, System};
use serde_json::json;

use crate::traces::tree::{counts, trace};

const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
const PROTOCOL: &str = "OTEL_EXPORTER_OTLP_PROTOCOL";

/// Says that certificates are in this directory.
fn certified(dir: &Path) -> Vec<(String, String)> {
    [
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", "ca.pem"),
        ("OTEL_EXPORTER_OTLP_TRACES_CLIENT_CERTIFICATE", "client.pem"),
        ("OTEL_EXPORTER_OTLP_CLIENT_KEY", "client.key"),
    ]
    .map(|(name, file)| (name.to_owned(), dir.join(file).display().to_string()))
    .to_vec()
}

/// A system that has run so many tasks.
async fn having_run(tasks: usize) -> System {
    let system = System::up().await;
    let mut story = system.story().await;
    for _ in 0..tasks {
        let id = system.submit(json!({"run": {"noop": {}}})).await;
        assert_eq!(story.outcome(id).await, Outcome::Succeeded);
    }
    system
}

/// Exports all traces of a system, with these variables.
async fn replay(system: &System, env: &[(String, String)]) -> Ran {
    let args = [
        "--nats-url",
        &system.url,
        "replay",
        "--traces",
        "-o",
        "json",
    ];
    let args: Vec<String> = args.iter().map(|a| (*a).to_owned()).collect();
    let env: Vec<(&str, &str)> = env.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    process::run(&args, &env, b"").await
}

fn set(env: &mut Vec<(String, String)>, pairs: &[(&str, &str)]) {
    env.extend(
        pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned())),
    );
}

#[tokio::test]
async fn secured_collectors_get_spans_over_every_protocol_with_what_the_variables_say() {
    let (authority, dir) = (Authority::new(), tempfile::tempdir().unwrap());
    authority.write(dir.path());
    let system = having_run(3).await;
    let mut seen: BTreeSet<Vec<Seen>> = BTreeSet::new();
    for (protocol, content_type, encoding) in [
        ("grpc", "application/grpc", "grpc-encoding"),
        (
            "http/protobuf",
            "application/x-protobuf",
            "content-encoding",
        ),
        ("http/json", "application/json", "content-encoding"),
    ] {
        let collector = Collector::start_secured(&authority).await;
        let mut env = certified(dir.path());
        let endpoint = if protocol == "grpc" {
            &collector.grpc
        } else {
            &collector.http
        };
        set(&mut env, &[(ENDPOINT, endpoint), (PROTOCOL, protocol)]);
        set(
            &mut env,
            &[
                ("OTEL_EXPORTER_OTLP_HEADERS", "x-key=for%20all, x-tenant=t1"),
                ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
                ("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment=test"),
            ],
        );
        let report = replay(&system, &env).await.json();
        assert_eq!(report["traces"], 3, "{report}");
        let headers = collector.headers();
        assert!(!headers.is_empty());
        for of_one in &headers {
            for (name, value) in [
                ("content-type", content_type),
                (encoding, "gzip"),
                ("x-key", "for all"),
                ("x-tenant", "t1"),
            ] {
                assert_eq!(of_one[name], value, "{protocol}");
            }
        }
        let mut spans = collector.spans();
        spans.sort_by(|a, b| a.id.cmp(&b.id));
        assert_eq!(counts(&spans)["task"], 3);
        seen.insert(spans);
    }
    assert_eq!(seen.len(), 1, "every protocol says the same: {seen:#?}");
}

#[tokio::test]
async fn a_collector_that_cannot_be_trusted_or_does_not_trust_us_gets_nothing() {
    let (authority, dir) = (Authority::new(), tempfile::tempdir().unwrap());
    authority.write(dir.path());
    let other = tempfile::tempdir().unwrap();
    Authority::new().write(other.path());
    let system = having_run(1).await;
    let collector = Collector::start_secured(&authority).await;
    for (protocol, endpoint) in [
        ("grpc", &collector.grpc),
        ("http/protobuf", &collector.http),
    ] {
        let mut nobody = certified(dir.path());
        nobody.retain(|(name, _)| name == "OTEL_EXPORTER_OTLP_CERTIFICATE");
        for mut env in [certified(other.path()), nobody] {
            let quick = ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "1000");
            set(
                &mut env,
                &[(ENDPOINT, endpoint), (PROTOCOL, protocol), quick],
            );
            let ran = replay(&system, &env).await;
            assert_ne!(ran.code, 0, "{protocol}: {}", ran.stdout);
            let said = "did not take the spans";
            assert!(ran.stderr.contains(said), "{protocol}: {}", ran.stderr);
        }
    }
    assert_eq!(collector.spans(), []);
}

#[tokio::test]
async fn a_running_system_exports_over_https() {
    let (authority, dir) = (Authority::new(), tempfile::tempdir().unwrap());
    authority.write(dir.path());
    let collector = Collector::start_secured(&authority).await;
    let mut system = System::bare().await;
    system.env = certified(dir.path());
    set(
        &mut system.env,
        &[
            (ENDPOINT, &collector.http),
            ("OTEL_PROPAGATORS", "tracecontext"),
        ],
    );
    system.start_up(&[]).await;
    let mut story = system.story().await;
    let id = system.submit(sh("true")).await;
    assert_eq!(story.outcome(id).await, Outcome::Succeeded);
    let spans = trace(&collector, id, 1).await;
    assert_eq!(counts(&spans)["task"], 1);
    let said = system.process("up").said();
    let warned = said
        .lines()
        .filter(|l| l.contains("variables are set that change nothing here"));
    let warned: Vec<&str> = warned.collect();
    assert_eq!(warned.len(), 1, "{said}");
    assert!(
        warned[0].contains(r#""variables":"OTEL_PROPAGATORS""#),
        "{warned:?}"
    );
}

#[tokio::test]
async fn what_cannot_be_followed_is_refused_before_anything_is_sent() {
    let system = System::up().await;
    let mut wrong = BTreeMap::from([(PROTOCOL, "http/xml")]);
    wrong.insert("OTEL_EXPORTER_OTLP_COMPRESSION", "zstd");
    wrong.insert("OTEL_EXPORTER_OTLP_CERTIFICATE", "/nowhere/ca.pem");
    for (name, value) in wrong {
        let mut env = vec![(ENDPOINT.to_owned(), "https://127.0.0.1:9".to_owned())];
        set(&mut env, &[(name, value)]);
        let ran = replay(&system, &env).await;
        assert_ne!(ran.code, 0);
        let said = format!("{name}={value:?}");
        assert!(ran.stderr.contains(&said), "{}", ran.stderr);
    }
}
