//! What clients submit.

use conductor_protocol::TaskId;
use serde_json::{Value, json};

use super::{Action, START_MS};
use crate::options::Options;
use crate::random::Random;

/// Queues that are submitted to.
pub(super) const QUEUES: [&str; 3] = ["default", "fast", "slow"];

/// Draws the submissions; returns the ids of those that have one.
pub(super) fn draw(o: &Options, actions: &mut Vec<(u64, Action)>) -> Vec<(u64, TaskId)> {
    let mut r = Random::stream(o.seed, "submissions");
    let mut known: Vec<(u64, TaskId)> = Vec::new();
    // Some runs begin with a backlog, others trickle.
    let span = if r.chance(400) && !o.is_narrow {
        o.trouble_ms / 20 + 1
    } else {
        o.trouble_ms
    };
    let mut times: Vec<u64> = (0..o.submissions).map(|_| r.below(span)).collect();
    times.sort_unstable();
    for at in times {
        if o.is_narrow {
            let items = vec![narrow(&mut r, at, &mut known)];
            let (queue, is_msgpack) = ("default".to_owned(), true);
            let action = Action::Submit {
                queue,
                items,
                is_msgpack,
            };
            actions.push((at, action));
            continue;
        }
        let size = if r.chance(600) { 1 } else { r.between(2, 6) };
        let mut items: Vec<Value> = Vec::new();
        for n in 0..size {
            let mut item = submission(&mut r, at, n, &mut known);
            share(
                &mut Random::stream(o.seed, &format!("share {at} {n}")),
                &mut item,
            );
            let mut luck = Random::stream(o.seed, &format!("subtasks {at} {n}"));
            if luck.chance(400)
                && let Some(fields) = item.as_object_mut()
            {
                let subtasks = json!({"max": luck.between(1, 3), "depth": luck.between(1, 2)});
                fields.insert("subtasks".to_owned(), subtasks);
            }
            items.push(item);
        }
        let queue = (*r.pick(&QUEUES).unwrap_or(&"default")).to_owned();
        let is_msgpack = r.chance(300);
        let action = Action::Submit {
            queue,
            items,
            is_msgpack,
        };
        actions.push((at, action.clone()));
        if r.chance(150) {
            // The same again, by a client that never heard of the first.
            actions.push((at + r.around(10_000), action));
        }
    }
    known
}

/// A task that differs from others by its priority alone.
fn narrow(r: &mut Random, at: u64, known: &mut Vec<(u64, TaskId)>) -> Value {
    let id = new_id(r, at);
    known.push((at, id));
    let priority = if r.chance(800) { 9 } else { 0 };
    json!({"id": id.to_string(), "run": {"command": ["work"]}, "priority": priority})
}

fn submission(r: &mut Random, at: u64, n: u64, known: &mut Vec<(u64, TaskId)>) -> Value {
    let run = run(r);
    let mut task = json!({"run": run, "name": format!("t{n}")});
    let mut set = |key: &str, value: Value| {
        if let Some(fields) = task.as_object_mut() {
            fields.insert(key.to_owned(), value);
        }
    };
    if r.chance(800) {
        let id = new_id(r, at);
        if r.chance(900) {
            set("id", json!(id.to_string()));
            known.push((at, id));
        } else if let Some((_, again)) = r.pick(known).copied() {
            set("id", json!(again.to_string()));
        }
    }
    if r.chance(150) {
        set("key", json!(format!("key-{}", r.below(6))));
    }
    if r.chance(500) {
        set("priority", json!(r.below(10)));
    }
    if r.chance(300) {
        set("namespace", json!(format!("ns{}", r.below(2))));
    }
    let mut needs: Vec<String> = Vec::new();
    if n > 0 && r.chance(500) {
        needs.push(format!("t{}", r.below(n)));
    }
    if r.chance(200)
        && let Some((_, need)) = r.pick(known)
    {
        needs.push(need.to_string());
    }
    if !needs.is_empty() {
        set("needs", json!(needs));
        let policy = *r.pick(&["fail", "skip", "run"]).unwrap_or(&"fail");
        set("on_need_failed", json!(policy));
    }
    if r.chance(500) {
        let retry = json!({
            "max_attempts": r.between(1, 5),
            "backoff": r.between(1, 5_000),
            "factor": 2.0,
            "max_backoff": 20_000,
            "jitter": 0.5,
            "on": null,
        });
        set("retry", retry);
    }
    let mut timeouts = timeouts(r);
    let mut give_up = |r: &mut Random| {
        // Nothing waits for ever for an agent that is not there.
        timeouts.insert("total".into(), json!(r.between(5_000, 600_000)));
    };
    if r.chance(200) {
        give_up(r);
    }
    match r.below(10) {
        0 => set("delay", json!(r.around(10_000))),
        1 => {
            let (key, limit) = (format!("k{}", r.below(2)), r.between(1, 2));
            set("concurrency", json!({"key": key, "limit": limit}));
        }
        2 => {
            set("labels", json!({"zone": format!("z{}", r.below(2))}));
            give_up(r);
        }
        3 => {
            set("slots", json!(r.between(1, 3)));
            give_up(r);
        }
        // Refused, each for another reason.
        4 if r.chance(300) => set("priority", json!(99)),
        4 if r.chance(300) => set("needs", json!([new_id(r, at).to_string()])),
        _ => {}
    }
    set("timeouts", Value::Object(timeouts));
    task
}

/// Some need a model, and some share a workspace.
fn share(r: &mut Random, task: &mut Value) {
    if task.pointer("/run/command/0").is_some()
        && r.chance(400)
        && let Some(run) = task.get_mut("run")
    {
        *run = json!({"claude": {"prompt": "work"}});
    }
    if r.chance(200)
        && let Some(fields) = task.as_object_mut()
    {
        let name = format!("w{}", r.below(2));
        fields.insert("workspace".to_owned(), json!({"name": name}));
    }
}

fn run(r: &mut Random) -> Value {
    if r.chance(250) {
        json!({"noop": {}})
    } else if r.chance(200) {
        // Too large to be kept in the state.
        json!({"command": {"argv": ["work"], "stdin": "x".repeat(1_200)}})
    } else {
        json!({"command": ["work"]})
    }
}

fn timeouts(r: &mut Random) -> serde_json::Map<String, Value> {
    let mut out = serde_json::Map::new();
    if r.chance(300) {
        out.insert("run".into(), json!(r.between(500, 20_000)));
    }
    if r.chance(150) {
        out.insert("queue".into(), json!(r.between(1_000, 120_000)));
    }
    if r.chance(200) {
        out.insert("heartbeat".into(), json!(r.between(3_000, 60_000)));
    }
    out
}

fn new_id(r: &mut Random, at: u64) -> TaskId {
    let mut random = [0; 10];
    for byte in &mut random {
        *byte = r.draw() as u8;
    }
    // Clients' clocks are wrong, too.
    let skew = r.below(20_000);
    TaskId::from_parts(START_MS + at + 10_000 - skew, random)
}
