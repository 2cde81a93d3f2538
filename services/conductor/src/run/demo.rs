//! `conductor demo`: the whole system in a throw-away directory, a sample that shows every
//! kind of ending, and the proof that the log alone holds all of it.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use conductor_access::Credentials;
use conductor_domain::state::Outcome as How;
use conductor_eventlog::jetstream::Connection;
use conductor_eventlog::{Append, EventLog};
use conductor_nats::{Refusals, Server};
use conductor_protocol::subject::{Role, Subject};
use conductor_protocol::{AgentId, Control, TaskId};
use conductor_replica::{ReadFrom, Reader};
use conductor_telemetry::Otlp;
use serde_json::json;

use super::access::LocalAccess;
use super::boxes::BoxArgs;
use super::local::{local_place, server_dir, start_server};
use super::stack::{AgentPlan, Place, Plan, Stack, signals};
use crate::cli::{control, read, replay};
use crate::exit::{Exit, Failure, Outcome};
use crate::out;
use crate::settings::Settings;

/// The sample, in the form people write.
const TASKS: &str = include_str!("demo/tasks.yaml");
/// Submitted by hand, byte by byte: any NATS client can do this.
const PLAIN: &str =
    r#"{"name":"plain-nats","run":{"command":["sh","-c","echo no Conductor code sent me"]}}"#;
/// How long the sample may take.
const PATIENCE: Duration = Duration::from_secs(120);
/// Cancelled as soon as it runs.
const ENDLESS: &str = "endless";

/// What must become of each task: its outcome and its number of attempts.
const EXPECTED: [(&str, How, u32); 10] = [
    ("hello-1", How::Succeeded, 1),
    ("hello-2", How::Succeeded, 1),
    ("hello-3", How::Succeeded, 1),
    ("flaky", How::Succeeded, 3),
    ("build", How::Succeeded, 1),
    ("test-unit", How::Succeeded, 1),
    ("test-e2e", How::Succeeded, 1),
    ("ship", How::Succeeded, 1),
    (ENDLESS, How::Cancelled, 1),
    ("plain-nats", How::Succeeded, 1),
];

/// Runs the demonstration; succeeds only if everything went as it should.
pub(super) async fn run(settings: &Settings) -> Outcome {
    let started = Instant::now();
    let dir = tempfile::Builder::new()
        .prefix("conductor-demo-")
        .tempdir()?;
    out::say(&format!(
        "data directory, thrown away afterwards: {}",
        dir.path().display()
    ));
    let plan = sample_plan(super::otlp_if_any());
    let agents: Vec<AgentId> = plan.agents.iter().map(|a| a.id.clone()).collect();
    let access = LocalAccess::prepare(dir.path(), &settings.cell, &agents)?;
    let mut server = start_server(dir.path(), None, Some(&access), None)?;
    let connect = settings.connect("conductor-demo");
    let place = local_place(connect, dir.path(), &server, Some(&access));
    out::say(&format!(
        "nats-server on {}, syncing every write to disk",
        server.url()
    ));
    let mut stop = signals();
    let refusals = Refusals::from_now(&server_dir(dir.path()));
    tokio::spawn(super::refusals::watch(refusals, stop.clone()));
    let mut stack = Stack::start(&place, plan, &Arc::default()).await?;
    if !stack.wait_leading(2, Duration::from_secs(30)).await {
        return Err(Failure::new(Exit::Failure, "nobody leads after 30 s"));
    }
    out::say("an orchestrator, a scheduler and two agents are up; submitting the sample\n");
    let shown = tokio::select! {
        shown = show(&stack.connection, &server, &place, &access) => shown,
        _ = stop.wait_for(|stop| *stop) => Err(Failure::new(Exit::Failure, "interrupted")),
    };
    out::say("\nstopping everything that was started");
    stack.stop().await;
    server.stop(Duration::from_secs(5));
    dir.close()?;
    shown?;
    let took = started.elapsed().as_secs_f64();
    out::say(&format!("all as it should be, after {took:.1} s"));
    Ok(Exit::Ok)
}

fn sample_plan(traces: Option<Otlp>) -> Plan {
    let agent = |name: &str| AgentPlan {
        id: AgentId::from_log(name),
        slots: 3,
        labels: BTreeMap::new(),
    };
    Plan {
        roles: Role::ALL.to_vec(),
        agents: vec![agent("a1"), agent("a2")],
        boxes: BoxArgs::default(),
        live: traces.clone(),
        traces,
        replicas: 1,
        accepted_risks: Vec::new(),
        lock_ttl: Duration::from_secs(5),
        takes_over: false,
        claim_ttl: super::CLAIM_TTL,
        snapshot_every: 0,
        drain_timeout: Duration::from_secs(5),
        secrets_dir: None,
    }
}

async fn show(
    connection: &Arc<Connection>,
    server: &Server,
    place: &Place,
    access: &LocalAccess,
) -> Outcome<()> {
    submit(connection, place).await?;
    publish_plainly(server, place, &access.client()?)?;
    let log = Arc::clone(connection) as Arc<dyn EventLog>;
    let mut reader = Reader::open(log, ReadFrom::Genesis, 0).await;
    let follow = follow(connection, &mut reader);
    tokio::time::timeout(PATIENCE, follow)
        .await
        .map_err(|_| Failure::new(Exit::TimedOut, "the sample did not end in time"))??;
    let as_expected = summarise(&reader);
    let agrees = compare(connection).await?;
    match (as_expected, agrees) {
        (true, true) => Ok(()),
        (false, _) => Err(Failure::new(
            Exit::Failure,
            "a task did not end as it should",
        )),
        (_, false) => Err(Failure::new(
            Exit::Failure,
            "replay differs from the live state",
        )),
    }
}

/// Submits the sample as one record: a JSON array.
async fn submit(connection: &Connection, place: &Place) -> Outcome<()> {
    let bad = |e: serde_yaml_ng::Error| Failure::new(Exit::Failure, format!("the sample: {e}"));
    let tasks: serde_json::Value = serde_yaml_ng::from_str(TASKS).map_err(bad)?;
    let queue = "default"
        .parse()
        .map_err(|e| Failure::usage(format!("queue: {e}")))?;
    let record = Append {
        subject: Subject::Submit(queue).render(&place.connect.cell),
        payload: tasks.to_string().into(),
        id: uuid::Uuid::new_v4().to_string(),
        expected_last: None,
    };
    control::append(connection, &record).await?;
    Ok(())
}

/// Who we are, proved by the server's challenge.
fn introduce_plainly(info: &str, client: &Credentials) -> Outcome<serde_json::Value> {
    let info: serde_json::Value = serde_json::from_str(info.trim_start_matches("INFO "))
        .map_err(|e| Failure::new(Exit::Failure, format!("the server's greeting: {e}")))?;
    let nonce = info.get("nonce").and_then(|n| n.as_str());
    let nonce = nonce.unwrap_or_default();
    let sig = client.sign(nonce.as_bytes())?;
    Ok(json!({"verbose": false, "jwt": client.jwt, "sig": sig}))
}

/// Speaks the NATS protocol by hand, to show that nothing of ours is needed to submit.
fn publish_plainly(server: &Server, place: &Place, client: &Credentials) -> Outcome<()> {
    let address = server.url().trim_start_matches("nats://").to_owned();
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let info = lines.next().transpose()?.unwrap_or_default();
    let connect = introduce_plainly(&info, client)?;
    let subject = format!("conductor.{}.submit.default", place.connect.cell);
    let said = format!(
        "CONNECT {connect}\r\nPUB {subject} {}\r\n{PLAIN}\r\nPING\r\n",
        PLAIN.len()
    );
    stream.write_all(said.as_bytes())?;
    // The server's PONG says that it has taken what came before.
    for line in lines {
        let line = line?;
        if line.starts_with("PONG") {
            return Ok(());
        }
        if line.starts_with("-ERR") {
            return Err(Failure::new(
                Exit::Failure,
                format!("the plain publish: {line}"),
            ));
        }
    }
    Err(Failure::new(
        Exit::Failure,
        "the server closed the plain connection",
    ))
}

/// Prints what happens to each task until all have ended.
async fn follow(connection: &Arc<Connection>, reader: &mut Reader) -> Outcome<()> {
    let mut ended = 0;
    while ended < EXPECTED.len() {
        let (record, folded) = reader.next().await?;
        for (task, entry) in read::entries(&record, &folded) {
            let Some(id) = task else { continue };
            let name = name_of(reader, id);
            out::line(&format!("{name:<11} {}", entry.line()));
            let has_started = entry
                .event
                .get("type")
                .is_some_and(|t| t == "attempt.started");
            if name == ENDLESS && has_started {
                cancel(connection, id).await?;
            }
        }
        let is_final = |name: &str| outcome_of(reader, name).is_some_and(|(how, _)| how.is_some());
        ended = EXPECTED
            .iter()
            .filter(|(name, _, _)| is_final(name))
            .count();
    }
    Ok(())
}

async fn cancel(connection: &Connection, task: TaskId) -> Outcome<()> {
    let control = Control::Cancel {
        task,
        reason: Some("shown enough".to_owned()),
    };
    let record = Append {
        subject: Subject::Control.render(connection.cell()),
        payload: serde_json::to_vec(&control)
            .map_err(std::io::Error::from)?
            .into(),
        id: uuid::Uuid::new_v4().to_string(),
        expected_last: None,
    };
    control::append(connection, &record).await?;
    Ok(())
}

fn name_of(reader: &Reader, id: TaskId) -> String {
    let task = reader.state.tasks.get(&id);
    let name = task.and_then(|t| t.spec.name.as_deref());
    name.map_or_else(|| id.to_string(), str::to_owned)
}

fn outcome_of(reader: &Reader, name: &str) -> Option<(Option<How>, u32)> {
    let mut tasks = reader.state.tasks.values();
    let task = tasks.find(|t| t.spec.name.as_deref() == Some(name))?;
    Some((task.outcome(), task.attempts))
}

/// Says how each task ended, and whether that is right.
fn summarise(reader: &Reader) -> bool {
    let mut rows = Vec::new();
    let mut all_right = true;
    for (name, how, attempts) in EXPECTED {
        let is_right = outcome_of(reader, name) == Some((Some(how), attempts));
        all_right &= is_right;
        let found = outcome_of(reader, name);
        let ended = found.and_then(|(how, _)| how).map_or("?", How::as_str);
        rows.push(json!({
            "task": name, "ended": ended, "attempts": found.map(|(_, n)| n),
            "as it should": if is_right { "yes" } else { "NO" },
        }));
    }
    out::line("");
    let columns = [
        ("TASK", "task"),
        ("ENDED", "ended"),
        ("ATTEMPTS", "attempts"),
        ("AS IT SHOULD", "as it should"),
    ];
    out::line(&out::table(&columns, &rows));
    all_right
}

/// Replays the log from its first record and compares with what the live system holds.
async fn compare(connection: &Arc<Connection>) -> Outcome<bool> {
    let log = Arc::clone(connection) as Arc<dyn EventLog>;
    let last = log.last_seq().await?;
    out::line(&format!(
        "\nreplaying the log from its first record to its last, {last}"
    ));
    let compared = replay::compare(connection, &log, last).await?;
    for live in &compared {
        let text = |key: &str| {
            live.get(key)
                .and_then(|v| v.as_str())
                .unwrap_or("?")
                .to_owned()
        };
        let seq = live
            .get("seq")
            .and_then(serde_json::Value::as_u64)
            .unwrap_or(0);
        out::line(&format!(
            "live state at record {seq}:      {}",
            text("digest")
        ));
        out::line(&format!(
            "replayed state at record {seq}:  {}",
            text("replayed")
        ));
    }
    let agrees = !compared.is_empty()
        && compared
            .iter()
            .all(|c| c.get("agrees") == Some(&true.into()));
    out::line(if agrees {
        "they are the same, byte for byte"
    } else {
        "they DIFFER"
    });
    Ok(agrees)
}
