//! A view as one JSON document, for programs. Times are texts in UTC, durations milliseconds.

use conductor_protocol::human::format_time;
use serde_json::{Map, Value, json};

use super::failures::Failed;
use super::view::{AgentRow, QueueRow, View};

/// The document.
pub(crate) fn json(view: &View) -> Value {
    let (tasks, rates) = (&view.tasks, &view.rates);
    json!({
        "cell": view.cell, "time": format_time(view.now_ms),
        "seq": view.seq, "lag": view.lag,
        "last_record": view.last_record_ms.map(format_time),
        "leaders": leaders(view),
        "tasks": {
            "undecided": tasks.undecided, "accepted": tasks.accepted,
            "succeeded": tasks.succeeded, "failed": tasks.failed,
            "timed_out": tasks.timed_out, "cancelled": tasks.cancelled,
            "asking": tasks.asking,
        },
        "throughput": {
            "over_s": rates.over_s, "accepted_per_s": rates.accepted,
            "started_per_s": rates.started, "ended_per_s": rates.ended,
            "ended_by_second": view.ended,
        },
        "queues": view.queues.iter().map(queue).collect::<Vec<_>>(),
        "agents": view.agents.iter().map(agent).collect::<Vec<_>>(),
        "failures": view.failures.iter().map(failure).collect::<Vec<_>>(),
        "problem": view.problem,
    })
}

/// By role; null for one that nobody has led yet.
fn leaders(view: &View) -> Map<String, Value> {
    let leader = |l: &conductor_domain::state::Leader| json!({"epoch": l.epoch, "holder": l.holder, "version": l.version});
    let leaders = view.leaders.iter();
    leaders
        .map(|(role, who)| (role.to_string(), who.as_ref().map_or(Value::Null, leader)))
        .collect()
}

fn queue(row: &QueueRow) -> Value {
    json!({
        "queue": row.name, "paused": row.is_paused, "waiting": row.waiting,
        "running": row.running, "oldest_ready_ms": row.oldest_ready_ms,
    })
}

fn agent(row: &AgentRow) -> Value {
    json!({
        "name": row.name, "status": row.status, "used": row.used, "slots": row.slots,
        "for_ms": row.for_ms,
    })
}

fn failure(failed: &Failed) -> Value {
    json!({
        "time": format_time(failed.time_ms), "task": failed.task, "queue": failed.queue,
        "class": failed.class, "agent": failed.agent, "attempt": failed.attempt,
        "ends_task": failed.ends_task,
    })
}
