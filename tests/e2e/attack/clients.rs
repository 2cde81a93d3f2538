//! Clients: what those who submit may not do, and where.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use conductor_access::Credentials;
use conductor_client::Submitter;
use conductor_domain::state::Outcome;
use conductor_eventlog::EventLog;
use conductor_eventlog::jetstream::{Connect, Connection};
use conductor_harness::Story;
use conductor_harness::system::{cell, new_id, sh};
use conductor_protocol::event::{Event, FieldError};
use conductor_protocol::submission::Submission;
use conductor_protocol::{Position, TaskId};
use serde_json::{Value, json};

use super::attacker::Attacker;
use super::field::Field;
use super::is_refused;

#[tokio::test]
async fn a_client_submits_and_reads_nothing() {
    let field = Field::up().await;
    let mut client = Attacker::connect(&field.url, &field.client()).unwrap();
    for subject in [
        "$JS.API.STREAM.INFO.LOG_local",
        "conductor.local.control",
        "conductor.local.orchestrator",
    ] {
        assert!(
            is_refused(&client.publish(subject, None, b"{}")),
            "{subject}"
        );
    }
    assert!(is_refused(&client.subscribe("conductor.local.>", 1)));
    assert!(client.subscribe("_INBOX.mine", 2).refusals.is_empty());
    let body = sh("true").to_string();
    client.put(
        "conductor.local.submit.default",
        Some("_INBOX.mine"),
        body.as_bytes(),
    );
    let came = client.hear(Duration::from_secs(10));
    assert!(came.messages[0].1.contains("LOG_local"), "{came:?}");
}

/// What is wrong with a submission that was refused.
async fn refusal(story: &mut Story, at: Position) -> Vec<FieldError> {
    let find = |s: &Story| {
        let mut events = s.told.iter().filter_map(|t| t.event.as_ref());
        events.find_map(|e| match e {
            Event::TaskRejected(e) if e.submission == at => Some(e.errors.clone()),
            _ => None,
        })
    };
    story.until(&format!("the refusal of {at}"), find).await
}

/// Submits as somebody; where it stands in the log.
fn submits(client: &mut Attacker, subject: &str, task: &Value) -> Position {
    let body = task.to_string();
    client.put(subject, Some("_INBOX_OF.team.1"), body.as_bytes());
    let came = client.hear(Duration::from_secs(10));
    let stored: Value = serde_json::from_str(&came.messages[0].1).unwrap();
    Position::new(stored["seq"].as_u64().unwrap(), 0)
}

pub(super) async fn connect_as(field: &Field, credentials: &Path) -> Connection {
    let connect = Connect {
        credentials: Some(credentials.to_owned()),
        ..Connect::to(&field.url, "client", cell())
    };
    Connection::open(&connect).await.unwrap()
}

fn namespace_of(story: &Story, task: TaskId) -> &str {
    story.state().tasks[&task].spec.namespace.as_str()
}

/// Words for submitters cross into the clients' account, each to whom it is for.
#[tokio::test]
async fn a_client_is_told_what_became_of_its_task() {
    let field = Field::up().await;
    let granted = field.grant("team", &["--queue", "default"]).await;
    let granted = Credentials::read(&granted).unwrap();
    for (credentials, root) in [
        (field.client(), "_INBOX"),
        (field.client(), "conductor.local.reply.client"),
        (granted.clone(), "_INBOX_OF.team"),
        (granted, "conductor.local.reply.team"),
    ] {
        let mut client = Attacker::connect(&field.url, &credentials).unwrap();
        let heard = client.subscribe(&format!("{root}.>"), 1);
        assert!(heard.refusals.is_empty(), "{heard:?}");
        let reply = format!("{root}.mine");
        let asks = ("Conductor-Reply", reply.as_str());
        let task = json!({"run": {"noop": {}}}).to_string();
        client.put_with("conductor.local.submit.default", asks, task.as_bytes());
        let mut told = Vec::new();
        while told.len() < 2 {
            let came = client.hear(Duration::from_secs(20));
            assert!(!came.messages.is_empty(), "{root}: {told:?}");
            assert!(came.messages.iter().all(|(subject, _)| *subject == reply));
            told.extend(came.messages.into_iter().map(|(_, said)| said));
        }
        assert!(told[0].contains("accepted"), "{told:?}");
        assert!(told[1].contains("ended"), "{told:?}");
        assert_eq!(told.len(), 2, "{told:?}");
    }
    let log = field.server_log();
    assert!(!log.contains("Violation"), "{log}");
}

/// Subjects that are not those of namespace `team`, and what only operators may do.
const FOREIGN: [&str; 9] = [
    "conductor.local.submit.default",
    "conductor.local.submit.team",
    "conductor.local.submit.default.other",
    "conductor.local.submit.default.default",
    "conductor.local.submit.default.team.x",
    // Cancel, retry, answer questions: operators do.
    "conductor.local.control",
    "conductor.local.orchestrator",
    "conductor.local.scheduler.a1",
    "$JS.API.STREAM.INFO.LOG_local",
];

#[tokio::test]
async fn a_client_of_a_namespace_submits_there_alone() {
    let field = Field::up().await;
    let mut story = field.system.story().await;
    let granted = field.grant("team", &["--namespace", "team"]).await;
    let mut client = Attacker::connect(&field.url, &Credentials::read(&granted).unwrap()).unwrap();
    for subject in FOREIGN {
        let came = client.publish(subject, None, b"{\"run\":{\"noop\":{}}}");
        assert!(is_refused(&came), "{subject}: {came:?}");
    }
    let inbox = client.subscribe("_INBOX_OF.team.>", 2);
    assert!(inbox.refusals.is_empty());
    // Secret is what another namespace's task has to say.
    let mut secret = sh("echo secret");
    secret["namespace"] = "other".into();
    let secret = field.system.submit(secret).await;
    assert_eq!(story.outcome(secret).await, Outcome::Succeeded);
    // On any queue, whether the task says whose it is or not.
    let (silent, same) = (new_id(), new_id());
    for (id, queue, task) in [
        (silent, "default", json!({"run": {"command": ["true"]}})),
        (
            same,
            "builds",
            json!({"namespace": "team", "run": {"command": ["true"]}}),
        ),
    ] {
        let mut task = task;
        task["id"] = id.to_string().into();
        submits(
            &mut client,
            &format!("conductor.local.submit.{queue}.team"),
            &task,
        );
        assert_eq!(story.outcome(id).await, Outcome::Succeeded);
        assert_eq!(namespace_of(&story, id), "team");
    }
    for (field, task) in [
        (
            "namespace",
            json!({"namespace": "other", "run": {"noop": {}}}),
        ),
        (
            "needs[0]",
            json!({"needs": [secret], "run": {"command": ["cat", ".conductor/needs"]}}),
        ),
    ] {
        let at = submits(&mut client, "conductor.local.submit.default.team", &task);
        let errors = refusal(&mut story, at).await;
        assert_eq!(errors.len(), 1, "{errors:?}");
        assert_eq!(errors[0].field, field);
    }
    field.system.assert_replay_agrees().await;
}

/// A cell from before there were subjects of namespaces: its services may not change the log, and go
/// on; a client of a namespace is told by the server that nobody stores what it says.
#[tokio::test]
async fn a_log_without_subjects_of_namespaces_gets_them_from_the_administrator() {
    let mut field = Field::up().await;
    let mut story = field.system.story().await;
    let admin = field.key("admin");
    let mut client = Attacker::connect(&field.url, &Credentials::read(&admin).unwrap()).unwrap();
    assert!(client.subscribe("_INBOX.mine", 2).refusals.is_empty());
    let mut ask = |subject: &str, body: &str| -> Value {
        client.put(subject, Some("_INBOX.mine"), body.as_bytes());
        let came = client.hear(Duration::from_secs(10));
        serde_json::from_str(&came.messages[0].1).unwrap_or_default()
    };
    let mut log = ask("$JS.API.STREAM.INFO.LOG_local", "")["config"].take();
    let subjects = log["subjects"].as_array_mut().unwrap();
    subjects.retain(|s| s != "conductor.local.submit.*.*");
    let changed = ask("$JS.API.STREAM.UPDATE.LOG_local", &log.to_string());
    assert!(changed["error"].is_null(), "{changed}");
    let own = "conductor.local.submit.default.team";
    let task = r#"{"run":{"noop":{}}}"#;
    assert_eq!(ask(own, task)["seq"], Value::Null, "nobody stores it");
    // The services that are started again have no right to change it, and do without.
    for role in ["orchestrator", "scheduler"] {
        field.start_again(role).await;
    }
    let id = field.system.submit(sh("true")).await;
    assert_eq!(story.outcome(id).await, Outcome::Succeeded);
    let admin = admin.display().to_string();
    field
        .system
        .cli(&["provision", "--creds", &admin])
        .await
        .ok();
    assert!(ask(own, task)["seq"].is_u64());
}

#[tokio::test]
async fn programs_of_a_namespace_submit_with_what_they_were_granted() {
    let field = Field::up().await;
    let mut story = field.system.story().await;
    let granted = field
        .grant("team", &["--namespace", "team", "--queue", "builds"])
        .await;
    let log = Arc::new(connect_as(&field, &granted).await) as Arc<dyn EventLog>;
    let submitter = Submitter::new(log).in_namespace("team".parse().unwrap());
    let id = new_id();
    let task = json!({"id": id, "run": {"command": ["true"]}});
    let task: Submission = serde_json::from_value(task).unwrap();
    let queue = "builds".parse().unwrap();
    submitter.submit(&queue, &task).await.unwrap();
    assert_eq!(story.outcome(id).await, Outcome::Succeeded);
    assert_eq!(namespace_of(&story, id), "team");
    field.system.assert_replay_agrees().await;
}

#[tokio::test]
async fn who_reads_nothing_is_told_at_once_where_its_task_stands() {
    let mut field = Field::up().await;
    let mut story = field.system.story().await;
    let granted = field.grant("ci", &["--queue", "default"]).await;
    field.system.credentials = Some(granted);
    let submit = ["submit", "--name", "unseen", "-o", "json"];
    let said = field
        .system
        .cli(&[&submit[..], &["--", "true"]].concat())
        .await;
    assert!(said.stderr.contains("read nothing"), "{said:?}");
    assert_eq!(said.json()[0]["state"], "submitted");
    let named = |s: &Story| {
        let tasks = s.state().tasks.iter();
        tasks
            .filter(|(_, t)| named_unseen(t))
            .map(|(id, _)| *id)
            .next()
    };
    let id = story.until("its task", named).await;
    assert_eq!(story.outcome(id).await, Outcome::Succeeded);
    let waits = [&submit[..], &["--wait", "--", "true"]].concat();
    let refused = field.system.cli(&waits).await;
    assert_eq!(refused.code, 4, "{refused:?}");
    assert!(refused.stderr.contains("without --wait"), "{refused:?}");
}

fn named_unseen(task: &conductor_domain::state::Task) -> bool {
    task.spec.name.as_deref() == Some("unseen")
}
