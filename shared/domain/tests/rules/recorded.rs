//! A recorded log, and the digest it must give for ever: a change of the rules that changes
//! what an existing log means fails here.

use conductor_domain::state::{STATE_VERSION, State};
use conductor_domain::{Record, fold, record};
use expect_test::{expect, expect_file};
use serde_json::{Value, json};

use super::world::World;

/// A history that is recorded under this name; made anew only when `RECORD_LOG` names it.
fn recorded(name: &str, make: fn() -> Vec<Record>) -> Vec<Record> {
    let path = format!("{}/tests/rules/{name}.jsonl", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("RECORD_LOG").is_some_and(|wanted| wanted == name) {
        let lines: Vec<String> = make().iter().map(|r| line(r).to_string()).collect();
        std::fs::write(&path, lines.join("\n") + "\n").unwrap();
    }
    let text = std::fs::read_to_string(path).unwrap();
    text.lines()
        .map(|l| parse(&serde_json::from_str(l).unwrap()))
        .collect()
}

fn line(record: &Record) -> Value {
    let hex: String = record.payload.iter().map(|b| format!("{b:02x}")).collect();
    json!({
        "seq": record.seq, "time_ms": record.time_ms, "subject": record.subject,
        "reply": record.reply, "payload": hex,
    })
}

fn parse(line: &Value) -> Record {
    let hex = line["payload"].as_str().unwrap();
    let byte = |i: usize| u8::from_str_radix(&hex[i..i + 2], 16).unwrap();
    Record {
        seq: line["seq"].as_u64().unwrap(),
        time_ms: line["time_ms"].as_u64().unwrap(),
        subject: line["subject"].as_str().unwrap().to_owned(),
        content_type: None,
        reply: line["reply"].as_str().map(str::to_owned),
        traceparent: None,
        payload: (0..hex.len())
            .step_by(2)
            .map(byte)
            .collect::<Vec<u8>>()
            .into(),
    }
}

/// A history of the first format: no software writes it any more, every one reads it.
fn first_format() -> Vec<Record> {
    use conductor_protocol::subject::Role;
    use conductor_protocol::{Control, OutcomeClass};
    let mut world = World::new();
    world.join("a2", 2);
    let flaky = world.task(json!({"name": "flaky", "retry": {"max_attempts": 2, "backoff": "1s", "jitter": 0.0, "on": ["failed"]}}));
    let build =
        world.task(json!({"name": "build", "key": "build-1", "namespace": "team", "priority": 8}));
    let ship = world.task(json!({"name": "ship", "needs": [build], "metadata": {"pr": "17"}}));
    let skipped = world.task(json!({"needs": [flaky], "on_need_failed": "skip"}));
    world.submit(&json!({"priority": 99, "run": {"noop": {}}}));
    world.submit(&json!({"key": "build-1", "namespace": "team", "run": {"noop": {}}}));
    world.settle();
    for _ in 0..2 {
        let lease = world.run(flaky, "a1");
        world.now_ms += 1_500;
        world.fail(lease, "a1", OutcomeClass::Failed);
        world.settle();
        world.now_ms += 2_000;
        world.settle();
    }
    let lease = world.run(build, "a2");
    world.succeed(lease, "a2");
    world.settle();
    world.run(ship, "a2");
    world.elect(Role::Scheduler);
    world.join("a2", 2);
    world.settle();
    world.control(&Control::Cancel {
        task: ship,
        reason: Some("enough".into()),
    });
    world.settle();
    world.control(&Control::Retry { task: flaky });
    world.settle();
    world.control(&Control::PauseQueue {
        queue: "q".parse().unwrap(),
    });
    world.control(&Control::DrainAgent {
        agent: "a1".parse().unwrap(),
    });
    let change = json!({"finished_max": 1, "queue_backlog_max": {"q": 9}});
    world.control(&Control::PutConfig(serde_json::from_value(change).unwrap()));
    world.raw("conductor.test.agent.a1".into(), vec![0xff, 0x00]);
    assert_eq!(
        world
            .state
            .outcome_of(skipped)
            .map(conductor_domain::state::Outcome::as_str),
        Some("cancelled")
    );
    world.log
}

/// A history with what came with the second format.
fn second_format() -> Vec<Record> {
    use conductor_protocol::OutcomeClass;
    use conductor_protocol::subject::Role;
    use conductor_protocol::terms::Answer;
    let mut world = World::new();
    let task = world.task(json!({
        "name": "careful", "timeouts": {"run": "10s"},
        "retry": {"max_attempts": 3, "backoff": "1s", "jitter": 0.0, "on": ["failed"]},
    }));
    let lease = world.run(task, "a1");
    world.ask(lease, "a1");
    world.now_ms += 20_000;
    world.answer(task, 1, Answer::Allow);
    world.answer(task, 1, Answer::Deny);
    world.settle();
    world.tell(task, "mind the tests");
    say_all(&mut world);
    world.ask(lease, "a1");
    world.now_ms += 60_000;
    world.settle();
    say_all(&mut world);
    world.now_ms += 3_000;
    world.fail(lease, "a1", OutcomeClass::Failed);
    world.settle();
    world.now_ms += 1_000;
    world.settle();
    world.elect(Role::Scheduler);
    let lease = world.run(task, "a1");
    world.ask(lease, "a1");
    world.tell(task, "nobody will hear this");
    world.join("a1", 4);
    world.settle();
    world.log
}

/// A history of budgets that are used up, over two days.
fn budgets() -> Vec<Record> {
    use super::sharing::{DAY_MS, model, put, uses};
    use conductor_protocol::Control;
    use conductor_protocol::terms::Answer;
    let mut world = World::new();
    let budget = |policy: &str| {
        let budget = json!({"tokens_per_day": 1_000, "on_reached": policy});
        json!({"namespace_budget": {"team": budget}})
    };
    let say = |world: &mut World, answer| {
        world.control(&Control::DecideBudget {
            namespace: "team".parse().unwrap(),
            answer,
            text: Some("so be it".to_owned()),
        });
        world.settle();
    };
    put(&mut world, budget("ask"));
    let first = model(&mut world, "team");
    let lease = world.run(first, "a1");
    uses(&mut world, lease, 0.0, 1_000);
    let second = model(&mut world, "team");
    say(&mut world, Answer::Allow);
    uses(&mut world, lease, 0.0, 2_000);
    world.settle();
    say(&mut world, Answer::Deny);
    say(&mut world, Answer::Allow);
    assert_eq!(world.phase(second), "failed");
    put(&mut world, budget("fail"));
    model(&mut world, "team");
    put(&mut world, budget("wait"));
    let third = model(&mut world, "team");
    world.now_ms += DAY_MS;
    uses(&mut world, lease, 0.0, 2_001);
    let assignment = world.assignment(third, "a1");
    world.scheduler("a1", assignment);
    uses(&mut world, lease, 0.0, 3_001);
    world.settle();
    world.log
}

fn say_all(world: &mut World) {
    for (to, event) in world.words() {
        world.scheduler(to.as_str(), event);
    }
}

/// The verdicts, and the state's version and digest.
fn read(log: Vec<Record>) -> (String, String) {
    let mut state = State::new("test".parse().unwrap());
    let mut verdicts = String::new();
    for entry in log {
        let decoded = record::decode(&state.cell, &entry);
        let folded = fold::apply(&mut state, &decoded);
        verdicts += &format!(
            "{:>3} {:<36} {:?}\n",
            entry.seq, entry.subject, folded.verdicts
        );
    }
    let digest = format!("state version {STATE_VERSION}: {}", state.digest());
    (verdicts, digest)
}

// A new digest for the same state version would make every live system disagree with its own
// replay during an upgrade: raise STATE_VERSION with it, and say so in CHANGELOG.

#[test]
fn the_recorded_log_means_what_it_always_meant() {
    let (verdicts, digest) = read(recorded("recorded", first_format));
    expect_file!["recorded.txt"].assert_eq(&verdicts);
    expect!["state version 6: 990eeb4283f0acdae04a269d1b79a9b731563f14a3f112c37ac6f51e96199686"]
        .assert_eq(&digest);
}

#[test]
fn the_recorded_log_of_the_second_format_means_what_it_always_meant() {
    let (verdicts, digest) = read(recorded("recorded-2", second_format));
    expect_file!["recorded-2.txt"].assert_eq(&verdicts);
    expect!["state version 6: d27e7ef735fd31601cbebfc77139889c38f35c0781df7e3e108d9e7dda8e5342"]
        .assert_eq(&digest);
}

#[test]
fn the_recorded_log_of_budgets_means_what_it_always_meant() {
    let (verdicts, digest) = read(recorded("recorded-budgets", budgets));
    expect_file!["recorded-budgets.txt"].assert_eq(&verdicts);
    expect!["state version 6: 4bb5bc9194aeeb7c4188623be057ad2a906ed219a02f1782b05f007c167849ba"]
        .assert_eq(&digest);
}
