//! Clients that listen, and that have the servers answer to somebody else: they are in an account of
//! their own, and hear in it what is theirs.

use std::time::Duration;

use conductor_access::Credentials;
use conductor_domain::Verdict;
use conductor_domain::state::Outcome;
use conductor_eventlog::EventLog;
use conductor_harness::Story;
use conductor_harness::system::{new_id, sh};
use conductor_protocol::event::Event;
use serde_json::{Value, json};

use super::attacker::Attacker;
use super::clients::connect_as;
use super::field::Field;
use super::is_refused;

/// Where somebody else's answers come, or anybody's.
const FOREIGN_INBOXES: [&str; 10] = [
    ">",
    "_INBOX.>",
    "_INBOX.*",
    "_INBOX_OF.>",
    "_INBOX_OF.*.>",
    "_INBOX_OF.client.>",
    "_INBOX_OF.other.>",
    "conductor.local.answer.>",
    "conductor.local.reply.>",
    "conductor.local.reply.other.>",
];

/// Connects as somebody who was granted something.
async fn granted(field: &Field, name: &str, what: &[&str]) -> Attacker {
    let file = field.grant(name, what).await;
    Attacker::connect(&field.url, &Credentials::read(&file).unwrap()).unwrap()
}

/// Everything that goes on in a cell: tasks run, people read, somebody is answered.
async fn go_on(field: &mut Field, other: &mut Attacker) {
    let mut story = field.system.story().await;
    let id = field.system.submit(sh("echo secret")).await;
    assert_eq!(story.outcome(id).await, Outcome::Succeeded);
    // What reads the log from its begin: state, events, output.
    let task = id.to_string();
    for read in [
        &["task", "show", &task][..],
        &["task", "logs", &task],
        &["replay"],
        &["log", "tail", "--from", "1"],
        &["doctor"],
    ] {
        field.system.cli(read).await.ok();
    }
    for role in ["orchestrator", "scheduler"] {
        field.start_again(role).await;
    }
    let id = field.system.submit(sh("true")).await;
    assert_eq!(story.outcome(id).await, Outcome::Succeeded);
    assert!(other.subscribe("_INBOX_OF.other.>", 1).refusals.is_empty());
    other.put(
        "conductor.local.submit.default",
        Some("_INBOX_OF.other.1"),
        sh("true").to_string().as_bytes(),
    );
    let came = other.hear(Duration::from_secs(10));
    assert!(came.messages[0].1.contains("LOG_local"), "{came:?}");
}

#[tokio::test]
async fn a_client_hears_no_answers_but_its_own() {
    let mut field = Field::up().await;
    let mut client = Attacker::connect(&field.url, &field.client()).unwrap();
    for foreign in [
        "_INBOX_OF.>",
        "conductor.local.reply.>",
        "conductor.local.answer.>",
    ] {
        assert!(is_refused(&client.subscribe(foreign, 2)), "{foreign}");
    }
    // Whoever has the credentials that stand beside the keys shares these with who has them too.
    for shared in ["_INBOX.>", "conductor.local.reply.client.>"] {
        assert!(client.subscribe(shared, 1).refusals.is_empty(), "{shared}");
    }
    let mut team = granted(&field, "team", &["--namespace", "team"]).await;
    for foreign in FOREIGN_INBOXES {
        assert!(is_refused(&team.subscribe(foreign, 2)), "{foreign}");
    }
    for own in ["_INBOX_OF.team.>", "conductor.local.reply.team.>"] {
        assert!(team.subscribe(own, 3).refusals.is_empty(), "{own}");
    }
    let mut other = granted(&field, "other", &["--queue", "default"]).await;
    go_on(&mut field, &mut other).await;
    // The servers send in order: with the acknowledgement everything that came before has come.
    let body = sh("true").to_string();
    for (listener, subject, inbox) in [
        (&mut client, "default", "_INBOX.end"),
        (&mut team, "default.team", "_INBOX_OF.team.end"),
    ] {
        let subject = format!("conductor.local.submit.{subject}");
        listener.put(&subject, Some(inbox), body.as_bytes());
        let came = listener.hear(Duration::from_secs(10));
        assert_eq!(came.messages.len(), 1, "{came:?}");
        assert_eq!(came.messages[0].0, inbox);
    }
}

/// The server's own commands, which it takes from nobody who only submits. It answers a publish on
/// whatever subject that names, with its own rights.
fn commands() -> Vec<String> {
    let api = [
        "STREAM.DELETE.LOG_local",
        "STREAM.PURGE.LOG_local",
        "STREAM.MSG.DELETE.LOG_local",
        "STREAM.UPDATE.LOG_local",
        "STREAM.CREATE.EVIL",
        "STREAM.PEER.REMOVE.LOG_local",
        "STREAM.LEADER.STEPDOWN.LOG_local",
        "STREAM.SNAPSHOT.LOG_local",
        "STREAM.RESTORE.LOG_local",
        "CONSUMER.DELETE.LOG_local.agent-a1",
        "CONSUMER.RESET.LOG_local.agent-a1",
        "CONSUMER.DURABLE.CREATE.LOG_local.evil",
        "CONSUMER.MSG.NEXT.LOG_local.agent-a1",
    ];
    let ours = [
        "control",
        "orchestrator",
        "scheduler.a1",
        "agent.a1",
        "leader.orchestrator",
        "checkpoint",
        "presence.a1",
        "output.a1.x",
        "artifact.a1.x",
        "credential.a1",
        "submit.default",
    ];
    let api = api.map(|verb| format!("$JS.API.{verb}"));
    let ours = ours.map(|what| format!("conductor.local.{what}"));
    let kept = ["$KV.LOCKS_local.orchestrator", "$O.SNAPSHOTS_local.M.x"].map(str::to_owned);
    api.into_iter().chain(ours).chain(kept).collect()
}

/// Elections of leaders so far.
fn elections(story: &Story) -> usize {
    let events = story.told.iter().filter_map(|t| t.event.as_ref());
    events
        .filter(|e| matches!(e, Event::LeaderElected(_)))
        .count()
}

/// Who holds the locks of leaders, as the administrator reads it.
fn locks(field: &Field) -> Vec<String> {
    let admin = Credentials::read(&field.key("admin")).unwrap();
    let mut admin = Attacker::connect(&field.url, &admin).unwrap();
    assert!(admin.subscribe("_INBOX.locks", 1).refusals.is_empty());
    let held = ["orchestrator", "scheduler"].map(|role| {
        let which = json!({"last_by_subj": format!("$KV.LOCKS_local.{role}")}).to_string();
        let subject = "$JS.API.STREAM.MSG.GET.KV_LOCKS_local";
        admin.put(subject, Some("_INBOX.locks"), which.as_bytes());
        let came = admin.hear(Duration::from_secs(10));
        let found: Value = serde_json::from_str(&came.messages[0].1).unwrap();
        found["message"]["data"].as_str().unwrap().to_owned()
    });
    held.to_vec()
}

async fn answers_do_nothing(field: Field) {
    let mut story = field.system.story().await;
    let mut client = Attacker::connect(&field.url, &field.client()).unwrap();
    let before = field.system.submit(sh("true")).await;
    assert_eq!(story.outcome(before).await, Outcome::Succeeded);
    let admin = connect_as(&field, &field.key("admin")).await;
    let (records, elected) = (admin.last_seq().await.unwrap(), elections(&story));
    let held = locks(&field);
    let mut sent = 0;
    for command in commands() {
        let mut task = json!({"run": {"noop": {}}});
        task["id"] = new_id().to_string().into();
        let body = task.to_string();
        client.publish(
            "conductor.local.submit.default",
            Some(&command),
            body.as_bytes(),
        );
        sent += 1;
    }
    let after = field.system.submit(sh("true")).await;
    assert_eq!(story.outcome(after).await, Outcome::Succeeded);
    // What came into the log is what was submitted and what follows from it: no record is gone, none
    // was written by an answer, no leader was elected anew, no stream came.
    let mut submitted = 0;
    for seq in 1..=admin.last_seq().await.unwrap() {
        let record = admin.read(seq).await.unwrap().expect("a record");
        submitted += usize::from(seq > records && record.subject.contains(".submit."));
    }
    assert_eq!(submitted, sent + 1);
    let voids = story.told.iter().filter(|t| t.verdict != Verdict::Applied);
    assert_eq!(voids.count(), 0);
    assert_eq!(elections(&story), elected);
    assert_eq!(locks(&field), held);
    let streams = field.monitor("/jsz?streams=true").join("");
    assert!(!streams.contains("EVIL"), "{streams}");
    field.system.assert_replay_agrees().await;
}

#[tokio::test]
async fn what_a_client_has_the_server_answer_to_others_does_nothing() {
    answers_do_nothing(Field::up().await).await;
}

#[tokio::test]
async fn what_a_client_has_three_servers_answer_to_others_does_nothing() {
    answers_do_nothing(Box::pin(Field::cluster()).await).await;
}
