//! The attack suite: a real agent's credentials, used for everything they are not meant for. The
//! servers refuse it, or it is void in the log; nothing of it reaches anybody. `meeting`: real CLIs.

mod attacker;
mod clients;
mod field;
mod listening;
mod meeting;
mod rotation;
mod seen;

use std::collections::BTreeSet;
use std::time::Duration;

use conductor_domain::VoidReason;
use conductor_domain::state::Outcome;
use conductor_protocol::event::{
    AttemptStarted, AttemptSucceeded, CancelCause, Event, LeaderElected, TaskCancelled, TaskReady,
};
use conductor_protocol::frame::{FrameHead, join};
use conductor_protocol::ids::Lease;
use conductor_protocol::{Position, TaskId};
use serde_json::json;

use attacker::{Attacker, Came};
use field::Field;

/// Subjects that an agent has no business on: every writer's, every other agent's, the servers'.
fn foreign_subjects() -> Vec<String> {
    let own = [
        "agent.a2",
        "scheduler.a1",
        "scheduler.a2",
        "orchestrator",
        "submit.default",
        "control",
        "leader.scheduler",
        "leader.orchestrator",
        "checkpoint",
        "presence.a2",
        "output.a2.x",
        "artifact.a2.x",
        "credential.a2",
        "inspect",
        "reply.x",
        "issuer.enroll",
        "agent.a1.x",
    ];
    let api = [
        "INFO",
        "STREAM.NAMES",
        "STREAM.LIST",
        "STREAM.INFO.LOG_local",
        "STREAM.CREATE.EVIL",
        "STREAM.UPDATE.LOG_local",
        "STREAM.DELETE.LOG_local",
        "STREAM.PURGE.LOG_local",
        "STREAM.MSG.GET.LOG_local",
        "STREAM.MSG.DELETE.LOG_local",
        "STREAM.SNAPSHOT.LOG_local",
        "STREAM.RESTORE.LOG_local",
        "DIRECT.GET.LOG_local",
        "DIRECT.GET.LOG_local.conductor.local.control",
        "CONSUMER.CREATE.LOG_local",
        "CONSUMER.CREATE.LOG_local.evil",
        "CONSUMER.CREATE.LOG_local.agent-a1",
        "CONSUMER.DURABLE.CREATE.LOG_local.evil",
        "CONSUMER.DELETE.LOG_local.agent-a2",
        "CONSUMER.INFO.LOG_local.agent-a2",
        "CONSUMER.LIST.LOG_local",
        "CONSUMER.NAMES.LOG_local",
        "CONSUMER.PAUSE.LOG_local.agent-a2",
        "CONSUMER.MSG.NEXT.LOG_local.agent-a2",
        "CONSUMER.RESET.LOG_local.agent-a2",
        "CONSUMER.MSG.NEXT.OUTPUT_local.x",
        "STREAM.DELETE.OUTPUT_local",
        "STREAM.INFO.PRESENCE_local",
        "META.LEADER.STEPDOWN",
        "ACCOUNT.PURGE.x",
        "SERVER.REMOVE",
    ];
    let others = [
        "$KV.LOCKS_local.scheduler",
        "$O.SNAPSHOTS_local.M.x",
        "$JS.ACK.LOG_local.agent-a2.1.1.1.1.1",
        "$JS.FC.LOG_local.x",
        "$SYS.REQ.SERVER.PING",
        "$SYS.REQ.CLAIMS.UPDATE",
        "$SYS.REQ.CLAIMS.LIST",
        "$SYS.REQ.ACCOUNT.PING.CONNZ",
        "_R_.x",
        "_INBOX.x",
        "anything",
    ];
    let own = own.iter().map(|s| format!("conductor.local.{s}"));
    let api = api.iter().map(|s| format!("$JS.API.{s}"));
    own.chain(api)
        .chain(others.iter().map(|s| (*s).to_owned()))
        .collect()
}

fn is_refused(came: &Came) -> bool {
    came.is_closed
        || came
            .refusals
            .iter()
            .any(|r| r.contains("Permissions Violation"))
}

/// Publishing on foreign subjects, and listening anywhere but to one's own inbox.
fn trespass(attacker: &mut Attacker) -> usize {
    let mut attempts = 0;
    for subject in foreign_subjects() {
        let came = attacker.publish(&subject, Some("_INBOX.me"), b"{}");
        assert!(is_refused(&came), "publishing on {subject}: {came:?}");
        attempts += 1;
    }
    for subject in [
        ">",
        "*",
        "*.>",
        "conductor.>",
        "conductor.local.>",
        "conductor.local.scheduler.a1",
        "conductor.local.scheduler.*",
        "conductor.local.agent.a2",
        "conductor.local.submit.*",
        "conductor.local.control",
        "conductor.local.output.>",
        "$JS.>",
        "$JS.API.>",
        "$JS.ACK.>",
        "$JS.EVENT.>",
        "$SYS.>",
        "$KV.>",
        "$O.>",
        "_R_.>",
        "_INBOX_other.>",
    ] {
        let came = attacker.subscribe(subject, 90);
        assert!(is_refused(&came), "subscribing to {subject}: {came:?}");
        attempts += 1;
    }
    attempts
}

/// What an agent may publish, with a reply that names somebody else: the server's own answer must
/// reach nobody and no stream.
async fn inject(field: &Field, attacker: &mut Attacker, other: &mut Attacker) -> usize {
    let replies: Vec<String> = foreign_subjects()
        .into_iter()
        .chain(["_INBOX.a2".to_owned(), "_INBOX.covert".to_owned()])
        .collect();
    let heard = other.subscribe("_INBOX.>", 7);
    assert!(heard.refusals.is_empty(), "{heard:?}");
    let before = field.counts().await;
    let own = [
        ("conductor.local.agent.a1", "junk".to_owned()),
        ("conductor.local.presence.a1", "junk".to_owned()),
        ("conductor.local.output.a1.x", "junk".to_owned()),
        (
            "$JS.API.CONSUMER.MSG.NEXT.LOG_local.agent-a1",
            json!({"batch": 1, "no_wait": true}).to_string(),
        ),
        (
            "$JS.API.CONSUMER.RESET.LOG_local.agent-a1",
            "junk".to_owned(),
        ),
    ];
    let mut attempts = 0;
    for reply in &replies {
        for (subject, body) in &own {
            // Some replies the server refuses, the others reach nobody.
            attacker.put(subject, Some(reply), body.as_bytes());
            attempts += 1;
        }
    }
    attacker.settle();
    let after = field.counts().await;
    let stored =
        |name: &str| after.get(name).copied().unwrap_or(0) - before.get(name).copied().unwrap_or(0);
    // The log has what the agent itself reported, and nothing on any other subject.
    let strange: BTreeSet<String> = field.subjects_since(before["LOG_local"]).await;
    let expected: BTreeSet<String> = ["conductor.local.agent.a1".to_owned()].into();
    assert!(strange.is_subset(&expected), "{strange:?}");
    assert!(stored("LOG_local") <= replies.len() as u64, "{after:?}");
    for beside in [
        "KV_LOCKS_local",
        "OBJ_SNAPSHOTS_local",
        "KV_POSITIONS_local",
    ] {
        let renewals = if beside == "KV_LOCKS_local" { 1_000 } else { 0 };
        assert!(stored(beside) <= renewals, "{beside}: {after:?}");
    }
    let reached = other.settle();
    assert!(reached.messages.is_empty(), "{reached:?}");
    attempts
}

fn lease(task: TaskId, attempt: u32, seq: u64) -> Lease {
    Lease {
        task,
        attempt,
        assigned: Position::new(seq, 0),
    }
}

/// Frames on the agent's own subject that speak of what is not its own.
async fn forge(field: &Field, attacker: &mut Attacker) -> (usize, u64) {
    let mut story = field.system.story().await;
    let victim = field.system.submit(field.held_by_a2()).await;
    story.told(victim, "attempt.started").await;
    let state = story.state();
    let stolen = state.tasks[&victim].lease(victim).unwrap();
    let ours = state.agents[&"a1".parse().unwrap()].incarnation;
    let theirs = state.agents[&"a2".parse().unwrap()].incarnation;
    let success = |lease| {
        Event::from(AttemptSucceeded {
            lease,
            result: Some("stolen".into()),
            exit_code: Some(0),
            usage: None,
            output: None,
        })
    };
    let unknown = conductor_harness::system::new_id();
    let events = [
        success(stolen),
        success(lease(victim, 1, 1)),
        success(lease(victim, 2, stolen.assigned.seq)),
        success(lease(unknown, 1, stolen.assigned.seq)),
        Event::from(AttemptStarted::new(stolen, None)),
        TaskCancelled {
            task: victim,
            cause: CancelCause::Control(Position::new(1, 0)),
        }
        .into(),
        TaskReady { task: victim }.into(),
        LeaderElected {
            holder: "me".into(),
            version: "1".into(),
        }
        .into(),
    ];
    let mut attempts = 0;
    let before: u64 = story.state().counters.void.values().sum();
    for head in [
        FrameHead::incarnation(ours),
        FrameHead::incarnation(theirs),
        FrameHead::epoch(ours),
        FrameHead::default(),
    ] {
        for event in &events {
            let frame = join(head, &[event.encode()]);
            attacker.publish("conductor.local.agent.a1", None, &frame);
            attempts += 1;
        }
    }
    for rubbish in [&b""[..], b"\xff\xff\xff", b"{}", b"[[[[[[[[", &[0x91; 4096]] {
        attacker.publish("conductor.local.agent.a1", None, rubbish);
        attempts += 1;
    }
    let voids = story
        .until("every forged event is void", |s| {
            let voids: u64 = s.state().counters.void.values().sum();
            (voids >= before + attempts as u64).then_some(voids - before)
        })
        .await;
    assert!(
        story
            .state()
            .counters
            .void
            .contains_key(&VoidReason::LeaseNotCurrent)
    );
    assert_eq!(
        story.state().tasks[&victim].lease(victim),
        Some(stolen),
        "it goes on"
    );
    field.release();
    assert_eq!(story.outcome(victim).await, Outcome::Succeeded);
    // What was forged is shown as what it is: void.
    let id = victim.to_string();
    let shown = field.system.cli(&["task", "show", &id, "-o", "json"]).await;
    assert_ne!(shown.json()["result"], "stolen");
    (attempts, voids)
}

/// Very much of what it may do: limits hold, and others go on working.
async fn flood(field: &Field, attacker: &mut Attacker) -> usize {
    let mut story = field.system.story().await;
    let large = vec![0; 2 << 20];
    let came = attacker.publish("conductor.local.agent.a1", None, &large);
    assert!(
        came.is_closed || came.refusals.iter().any(|r| r.contains("Maximum Payload")),
        "{came:?}"
    );
    let mut attacker = field.attacker("a1");
    let mut attempts = 1;
    for _ in 0..2_000 {
        attacker.put("conductor.local.agent.a1", None, b"junk");
        attacker.put("conductor.local.output.a1.x", None, &[b'x'; 4096]);
        attempts += 2;
    }
    let on_a2 = field.system.submit(field::on_a2("true")).await;
    assert_eq!(story.outcome(on_a2).await, Outcome::Succeeded);
    attacker.settle();
    let mut few = Vec::new();
    let refused = (0..16).find_map(
        |_| match Attacker::connect(&field.url, &field.creds("a1")) {
            Ok(one) => {
                few.push(one);
                None
            }
            Err(refusal) => Some(refusal),
        },
    );
    let refused = refused.expect("an agent has few connections");
    assert!(refused.to_lowercase().contains("maximum"), "{refused}");
    attempts + few.len() + 1
}

/// Runs the whole suite; prints how many attempts there were.
async fn suite(field: &mut Field) {
    let mut attacker = field.attacker("a1");
    let mut other = field.attacker("a2");
    let trespassed = trespass(&mut attacker);
    let injected = inject(field, &mut attacker, &mut other).await;
    let (forged, voids) = forge(field, &mut attacker).await;
    let flooded = flood(field, &mut attacker).await;
    drop(attacker);
    drop(other);
    let replayed = field.revoke().await;
    eprintln!(
        "attack suite: {} attempts ({trespassed} trespassing, {injected} injecting, {forged} forged, \
         {flooded} flooding, {replayed} with old credentials): none succeeded, {voids} void events",
        trespassed + injected + forged + flooded + replayed
    );
    field.system.assert_replay_agrees().await;
}

#[tokio::test]
async fn attack_suite_on_one_server() {
    let mut field = Field::up().await;
    suite(&mut field).await;
}

#[tokio::test]
async fn attack_suite_on_three_servers() {
    let mut field = Box::pin(Field::cluster()).await;
    suite(&mut field).await;
}

/// Why each agent has an account of its own: two that agree upon it have no way to each other, not
/// even by what the server itself answers to whom.
#[tokio::test]
async fn test_2_two_agents_that_want_to_have_no_way_to_each_other() {
    let field = Field::up().await;
    let (mut a1, mut a2) = (field.attacker("a1"), field.attacker("a2"));
    assert!(a2.subscribe("_INBOX.agreed", 1).refusals.is_empty());
    a1.publish("_INBOX.agreed", None, b"hello");
    a1.publish("conductor.local.agent.a1", Some("_INBOX.agreed"), b"hello");
    a1.publish(
        "conductor.local.presence.a1",
        Some("_INBOX.agreed"),
        b"hello",
    );
    let came = a2.hear(Duration::from_millis(500));
    assert_eq!(came.messages, []);
    // The same answer does come to whoever asked.
    assert!(a1.subscribe("_INBOX.mine", 2).refusals.is_empty());
    a1.put("conductor.local.presence.a1", Some("_INBOX.mine"), b"hello");
    let came = a1.hear(Duration::from_secs(5));
    assert_eq!(came.messages.len(), 1, "{came:?}");
}
