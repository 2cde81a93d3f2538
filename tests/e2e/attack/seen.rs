//! What is refused is seen: the operator of `conductor up` need not read the server's log.

use conductor_access::Credentials;
use conductor_harness::process::Process;
use conductor_harness::{http, until_asked};
use serde_json::Value;

use super::attacker::Attacker;
use super::is_refused;
use crate::sight::{OPEN_METRICS, shown_at, value};

#[tokio::test]
async fn what_the_server_refuses_is_said_and_counted() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let args = ["up", "--data-dir", &data.display().to_string()];
    let args = [&args[..], &["--nats-port", "0", "--agents", "2"]].concat();
    let up = Process::start(&args, &[], dir.path());
    up.says("conductor is up").await;
    let at = shown_at(&up).await;
    let url = std::fs::read_to_string(data.join("nats.url")).unwrap();
    let creds = Credentials::read(&data.join("keys/agents/a1.creds")).unwrap();
    let mut attacker = Attacker::connect(&url, &creds).unwrap();
    for _ in 0..3 {
        let came = attacker.publish("conductor.local.agent.a2", None, b"{}");
        assert!(is_refused(&came), "{came:?}");
    }
    assert!(is_refused(&attacker.subscribe("conductor.>", 9)));
    for (kind, about, times) in [
        ("publish", "conductor.local.agent.a2", 3),
        ("subscribe", "conductor.>", 1),
    ] {
        until_asked(async || {
            let said = up.said();
            let lines = said
                .lines()
                .filter_map(|l| serde_json::from_str::<Value>(l).ok());
            // A look may come between them.
            let of = lines.filter(|l| l["message"] == "the server refused a client");
            let of = of.filter(|l| l["kind"] == kind && l["about"] == about);
            let of: Vec<Value> = of.collect();
            let found: u64 = of.iter().filter_map(|l| l["times"].as_u64()).sum();
            assert!(of.iter().all(|l| l["account"] == "AGENT_local_a1"
                && l["level"] == "WARN"
                && !l["user"].as_str().unwrap().is_empty()));
            let page = http::get(&at, "/metrics", OPEN_METRICS).await.body;
            let series =
                format!(r#"conductor_server_refusals_total{{kind="{kind}",cell="local"}}"#);
            match (found, value(&page, &series)) {
                (n, Some(counted)) if n == times && counted.to_string() == times.to_string() => {
                    Ok(())
                }
                other => Err(format!("{times} of {kind}, not {other:?} in\n{said}")),
            }
        })
        .await;
    }
}
