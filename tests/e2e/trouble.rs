//! Bad input and bad ground: nothing breaks the readers, nothing unsafe is built on.

use conductor_domain::VoidReason;
use conductor_domain::state::Outcome;
use conductor_harness::process::{self, Process};
use conductor_harness::system::sh;
use conductor_harness::{PlainClient, System, TestServer};

#[tokio::test]
async fn any_bytes_on_any_subject_are_void_and_counted_and_work_goes_on() {
    let system = System::up().await;
    let mut story = system.story().await;
    let subjects = [
        "conductor.local.control",
        "conductor.local.orchestrator",
        "conductor.local.scheduler.a1",
        "conductor.local.agent.a1",
        "conductor.local.leader.orchestrator",
        "conductor.local.leader.scheduler",
    ];
    let payloads: [&[u8]; 5] = [b"", b"\xff\xfe\xfd", b"[{]", b"\x91", b"{\"type\":7}"];
    let mut sent = 0;
    for subject in subjects {
        for payload in payloads {
            system.append(subject, payload.to_vec()).await;
            sent += 1;
        }
    }
    system.submit_raw("default", b"\x00\x01".to_vec()).await;
    sent += 1;
    let id = system.submit(sh("true")).await;
    assert_eq!(story.outcome(id).await, Outcome::Succeeded);
    assert!(
        story.void(VoidReason::Malformed) >= sent - subjects.len(),
        "{}",
        story.text()
    );
    assert!(story.state().intake.is_empty());
    let replay = system.cli(&["replay", "-o", "json"]).await.json();
    assert_eq!(
        replay["void"]["malformed"],
        story.void(VoidReason::Malformed)
    );
    system.assert_replay_agrees().await;
}

#[tokio::test]
async fn what_an_outsider_writes_in_a_leaders_name_does_not_count() {
    use conductor_protocol::event::{Event, TaskFailed};
    use conductor_protocol::frame::{FrameHead, join};
    let system = System::up().await;
    let mut story = system.story().await;
    let id = system.submit(sh("sleep 0.5")).await;
    story.told(id, "attempt.started").await;
    let class = conductor_protocol::class::OutcomeClass::Failed;
    let forged: Event = TaskFailed {
        task: id,
        class,
        reason: "forged".to_owned(),
    }
    .into();
    // Whoever was elected first: this is neither's epoch.
    let leading = conductor_protocol::subject::Role::Orchestrator;
    let epoch = story.state().epoch(leading) + 1_000;
    let frame = join(FrameHead::epoch(epoch), &[forged.encode()]);
    system.append("conductor.local.orchestrator", frame).await;
    assert_eq!(story.outcome(id).await, Outcome::Succeeded);
    assert_eq!(story.void(VoidReason::StaleEpoch), 1, "{}", story.text());
}

#[tokio::test]
async fn nats_that_is_away_at_the_start_is_waited_for() {
    let mut server = TestServer::start();
    server.server.kill();
    let dir = tempfile::tempdir().unwrap();
    let url = server.url();
    let data = dir.path().join("data").display().to_string();
    let process = Process::start(
        &["up", "--nats-url", &url, "--data-dir", &data],
        &[],
        dir.path(),
    );
    process.says("cannot reach NATS").await;
    server.start_again();
    process.says("conductor is up").await;
    let ran = process::run(
        &[
            "task".into(),
            "list".into(),
            "--nats-url".into(),
            "nats://127.0.0.1:1".into(),
        ],
        &[],
        b"",
    )
    .await;
    assert_eq!(ran.code, 7, "{ran:?}");
    assert!(
        ran.stderr.contains("conductor up"),
        "it says what to do: {}",
        ran.stderr
    );
}

#[tokio::test]
async fn a_server_that_goes_away_later_is_recovered_from() {
    let mut system = System::up().await;
    let mut story = system.story().await;
    for _ in 0..3 {
        system.server.as_mut().unwrap().server.kill();
        system.server.as_mut().unwrap().start_again();
        let id = system.submit(sh("true")).await;
        assert_eq!(story.outcome(id).await, Outcome::Succeeded);
    }
    system.assert_replay_agrees().await;
}

#[tokio::test]
async fn a_lazily_syncing_server_is_refused_unless_the_risk_is_accepted_by_name() {
    let server = TestServer::start_with(|c| c.sync_interval = "2m".to_owned());
    let dir = tempfile::tempdir().unwrap();
    let (url, monitor) = (server.url(), server.server.monitor_url());
    let data = dir.path().join("data").display().to_string();
    let args = [
        "up",
        "--nats-url",
        &url,
        "--nats-monitor-url",
        &monitor,
        "--data-dir",
        &data,
    ];
    let all: Vec<String> = args.iter().map(|a| (*a).to_owned()).collect();
    let refused = process::run(&all, &[], b"").await;
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(
        refused.stderr.contains("lazy-sync") && refused.stderr.contains("sync_interval"),
        "{}",
        refused.stderr
    );
    let mut accepting = args.to_vec();
    accepting.extend(["--accept-risk", "lazy-sync"]);
    let process = Process::start(&accepting, &[], dir.path());
    process.says("conductor is up").await;
}

#[tokio::test]
async fn doctor_says_what_it_stands_on_and_unknown_where_it_cannot_see() {
    let system = System::up().await;
    let report = system.cli(&["doctor", "-o", "json"]).await.json();
    let verdict = |check: &str| {
        let rows = report.as_array().unwrap();
        rows.iter()
            .find(|r| r["check"] == check)
            .map(|r| r["verdict"].as_str().unwrap().to_owned())
    };
    assert_eq!(
        verdict("durability").as_deref(),
        Some("unknown"),
        "{report:#}"
    );
    let monitor = system.server.as_ref().unwrap().server.monitor_url();
    let seeing = system
        .cli(&["doctor", "-o", "json", "--nats-monitor-url", &monitor])
        .await
        .json();
    let durability = seeing
        .as_array()
        .unwrap()
        .iter()
        .find(|r| r["check"] == "durability")
        .unwrap();
    assert_eq!(durability["verdict"], "ok", "{seeing:#}");
    for check in [
        "nats",
        "log",
        "missing",
        "orchestrator",
        "scheduler",
        "agents",
        "replicas",
    ] {
        assert_eq!(
            verdict(check).as_deref(),
            Some("ok"),
            "{check} in {report:#}"
        );
    }
}

#[tokio::test]
async fn doctor_does_not_call_well_what_is_not_there() {
    let mut system = System::split().await;
    system.processes.clear();
    let report = system.cli(&["doctor", "-o", "json"]).await.json();
    for check in ["orchestrator", "scheduler", "replicas"] {
        let mut rows = report.as_array().unwrap().iter();
        let row = rows.find(|r| r["check"] == check).unwrap();
        assert_eq!(row["verdict"], "warn", "{report:#}");
    }
    system.server.as_mut().unwrap().server.kill();
    assert_eq!(system.cli(&["doctor"]).await.code, 7);
}

#[tokio::test]
async fn a_stream_that_could_lose_data_is_not_built_on_and_not_changed() {
    let server = TestServer::start();
    let mut client = PlainClient::connect(&server.url());
    client.subscribe("inbox.me");
    let stream = r#"{"name":"LOG_local","subjects":["conductor.local.>"],"retention":"limits","storage":"file","max_msgs":10,"num_replicas":1}"#;
    client.request(
        "$JS.API.STREAM.CREATE.LOG_local",
        "inbox.me",
        stream.as_bytes(),
    );
    assert!(client.receive().json()["error"].is_null());
    let dir = tempfile::tempdir().unwrap();
    let args: Vec<String> = ["orchestrator", "--nats-url", &server.url()]
        .iter()
        .map(|a| (*a).to_owned())
        .collect();
    let ran = process::run(
        &args,
        &[("CONDUCTOR_DATA_DIR", &dir.path().display().to_string())],
        b"",
    )
    .await;
    assert_ne!(ran.code, 0);
    assert!(
        ran.stderr.contains("LOG_local") && ran.stderr.contains("max_msgs"),
        "{}",
        ran.stderr
    );
    client.request("$JS.API.STREAM.INFO.LOG_local", "inbox.me", b"");
    assert_eq!(
        client.receive().json()["config"]["max_msgs"],
        10,
        "it is as it was"
    );
}

#[tokio::test]
async fn a_full_disk_loses_nothing_that_was_acknowledged_and_is_said_clearly() {
    let server = TestServer::start_with(|c| c.max_file = Some(40 << 20));
    let mut system = System::at(server.url()).await;
    system.start_up(&[]).await;
    let mut client = PlainClient::connect(&system.url);
    client.subscribe("_INBOX.acks");
    let stdin = "x".repeat(400 << 10);
    let task =
        serde_json::json!({"delay": "1h", "run": {"command": {"argv": ["cat"], "stdin": stdin}}});
    let task = task.to_string().into_bytes();
    let mut acknowledged = 0;
    let refusal = loop {
        client.request("conductor.local.submit.default", "_INBOX.acks", &task);
        let answer = client.receive().json();
        if answer["error"].is_object() {
            break answer["error"]["description"].as_str().unwrap().to_owned();
        }
        acknowledged += 1;
        assert!(acknowledged < 200, "it never fills up");
    };
    assert!(
        refusal.contains("storage") || refusal.contains("resources"),
        "{refusal}"
    );
    let stdin = "y".repeat(300 << 10);
    let tasks = format!("run: {{command: {{argv: [cat], stdin: {stdin}}}}}");
    let ran = system
        .cli_with(&["submit", "-f", "-"], tasks.as_bytes())
        .await;
    assert_eq!(ran.code, 7, "{ran:?}");
    assert!(
        ran.stderr.contains(&refusal) && ran.stderr.contains("nothing was acknowledged"),
        "{}",
        ran.stderr
    );
    let submitted = system.cli(&["replay", "-o", "json"]).await.json()["submitted"].clone();
    assert_eq!(submitted, acknowledged);
}

#[tokio::test]
async fn a_lost_record_is_seen_by_replay() {
    let server = TestServer::start();
    let mut client = PlainClient::connect(&server.url());
    client.subscribe("inbox.me");
    // A log without its protection, as a damaged block file would leave one.
    let stream = r#"{"name":"LOG_local","subjects":["conductor.local.submit.*"],"retention":"limits","storage":"file","allow_direct":true,"num_replicas":1}"#;
    client.request(
        "$JS.API.STREAM.CREATE.LOG_local",
        "inbox.me",
        stream.as_bytes(),
    );
    assert!(client.receive().json()["error"].is_null());
    for _ in 0..4 {
        client.request(
            "conductor.local.submit.default",
            "inbox.me",
            b"{\"run\":{\"noop\":{}}}",
        );
        assert!(client.receive().json()["seq"].is_u64());
    }
    let system = System::at(server.url()).await;
    assert_eq!(system.cli(&["replay"]).await.code, 0);
    client.request(
        "$JS.API.STREAM.MSG.DELETE.LOG_local",
        "inbox.me",
        b"{\"seq\":2}",
    );
    assert_eq!(client.receive().json()["success"], true);
    let ran = system.cli(&["replay", "-o", "json"]).await;
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.stderr.contains("lost records 2-2"), "{}", ran.stderr);
    let report: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(report["gaps"], serde_json::json!(["2-2"]));
    assert_eq!(report["submitted"], 3);
}

#[tokio::test]
async fn the_log_is_not_deleted_from() {
    let system = System::up().await;
    let mut story = system.story().await;
    let id = system.submit(sh("true")).await;
    story.ended(id).await;
    let mut client = PlainClient::connect(&system.url);
    client.subscribe("inbox.me");
    client.request("$JS.API.STREAM.INFO.LOG_local", "inbox.me", b"");
    assert_eq!(client.receive().json()["config"]["deny_delete"], true);
    let seq = story.find(id, "attempt.started").unwrap().seq;
    let order = serde_json::json!({"seq": seq}).to_string();
    client.request(
        "$JS.API.STREAM.MSG.DELETE.LOG_local",
        "inbox.me",
        order.as_bytes(),
    );
    assert!(
        client.receive().json()["error"].is_object(),
        "the server refuses to delete"
    );
}

#[tokio::test]
async fn a_lost_output_stream_is_made_again() {
    let system = System::up().await;
    let mut story = system.story().await;
    let mut client = PlainClient::connect(&system.url);
    client.subscribe("inbox.me");
    client.request("$JS.API.STREAM.DELETE.OUTPUT_local", "inbox.me", b"");
    assert_eq!(client.receive().json()["success"], true);
    let id = system.submit(sh("echo again")).await;
    assert_eq!(story.outcome(id).await, Outcome::Succeeded);
    let printed = system.cli(&["task", "logs", &id.to_string()]).await.ok();
    assert!(printed.contains("again"), "{printed}");
}

#[tokio::test]
async fn a_log_that_was_deleted_is_begun_anew_only_by_name() {
    let system = System::up().await;
    let mut client = PlainClient::connect(&system.url);
    client.subscribe("inbox.me");
    client.request("$JS.API.STREAM.DELETE.LOG_local", "inbox.me", b"");
    assert_eq!(client.receive().json()["success"], true);
    let refused = system.cli(&["provision"]).await;
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(
        refused.stderr.contains("no log LOG_local")
            && refused.stderr.contains("--accept-risk new-log"),
        "{refused:?}"
    );
    client.request("$JS.API.STREAM.INFO.LOG_local", "inbox.me", b"");
    assert_eq!(client.receive().json()["error"]["code"], 404);
    let provision = ["provision", "--accept-risk", "new-log", "-o", "json"];
    let made = system.cli(&provision).await;
    assert_eq!(made.json()["new"], true);
}
