//! What a task's attempts left, gathered from its events as they are read.

use conductor_domain::State;
use conductor_domain::state::Phase;
use conductor_protocol::TaskId;
use conductor_protocol::event::{AttemptArtifact, Event, Usage};
use conductor_protocol::human::format_time;
use serde_json::{Map, Value, json};

use crate::cli::folder::status::Status;
use crate::cli::task::detail::Detail;

/// What was found so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Found {
    /// Whether the task was accepted while it was followed.
    pub(super) is_accepted: bool,
    result: Option<String>,
    message: Option<String>,
    exit_code: Option<i32>,
    usage: Option<Usage>,
    artifacts: Vec<Value>,
}

impl Found {
    /// Takes note of an event of the task that counted.
    pub(super) fn note(&mut self, event: &Event) {
        match event {
            Event::TaskAccepted(_) => self.is_accepted = true,
            Event::AttemptArtifact(e) => self.artifacts.push(artifact(e)),
            Event::AttemptUsage(e) => self.usage = Some(e.usage.clone()),
            Event::AttemptSucceeded(e) => {
                self.result.clone_from(&e.result);
                self.message = None;
                self.exit_code = e.exit_code;
                self.used(e.usage.as_ref());
            }
            Event::AttemptFailed(e) => {
                self.result.clone_from(&e.result);
                self.message = Some(e.message.clone());
                self.exit_code = e.exit_code;
                self.used(e.usage.as_ref());
            }
            Event::TaskFailed(e) => {
                self.message.get_or_insert_with(|| e.reason.clone());
            }
            _ => {}
        }
    }

    fn used(&mut self, usage: Option<&Usage>) {
        if let Some(usage) = usage {
            self.usage = Some(usage.clone());
        }
    }

    /// The result file of a task that has just ended.
    pub(super) fn result(&self, state: &State, id: TaskId, status: &Status) -> Value {
        let task = state.tasks.get(&id);
        let ended = task.and_then(|task| match &task.phase {
            Phase::Ended(ended) => Some(ended),
            _ => None,
        });
        let usage = task.and_then(|t| t.aside.usage.as_ref());
        json!({
            "id": id, "name": task.and_then(|t| t.spec.name.as_deref()),
            "outcome": status.state, "class": ended.and_then(|e| e.class),
            "result": self.result, "message": self.message, "exit_code": self.exit_code,
            "attempts": status.attempts, "usage": usage.or(self.usage.as_ref()),
            "artifacts": self.artifacts,
            "accepted": task.map(|t| format_time(t.accepted_ms)),
            "ended": ended.map(|e| format_time(e.at_ms)),
        })
    }
}

fn artifact(e: &AttemptArtifact) -> Value {
    json!({
        "name": e.name, "sha256": e.sha256, "size": e.size, "media_type": e.media_type,
        "attempt": e.lease.attempt,
    })
}

/// The same result, of a task whose whole story was read.
pub(super) fn of_detail(detail: &Detail) -> Value {
    let value = &detail.value;
    let mut result = Map::new();
    for field in [
        "id", "name", "class", "result", "attempts", "usage", "accepted", "ended",
    ] {
        result.insert(field.to_owned(), value[field].clone());
    }
    let last_failure = detail.timeline.iter().rev().find_map(|entry| {
        let kind = entry.event.get("type").and_then(Value::as_str);
        let message = entry.event.get("message").cloned();
        message.filter(|_| kind == Some("attempt.failed"))
    });
    let has_succeeded = value["state"] == "succeeded";
    let message = last_failure.filter(|_| !has_succeeded);
    let exit_code = detail.timeline.iter().rev().find_map(|entry| {
        let code = entry.event.get("exit_code")?;
        (!code.is_null()).then(|| code.clone())
    });
    let artifact = |stored: &Value| {
        let fields = ["name", "sha256", "size", "media_type", "attempt"];
        let kept = fields.map(|field| (field.to_owned(), stored[field].clone()));
        Value::Object(Map::from_iter(kept))
    };
    let artifacts: Vec<Value> = detail.artifacts.iter().map(artifact).collect();
    result.insert("outcome".to_owned(), value["state"].clone());
    result.insert("message".to_owned(), message.unwrap_or_default());
    result.insert("exit_code".to_owned(), exit_code.unwrap_or_default());
    result.insert("artifacts".to_owned(), artifacts.into());
    Value::Object(result)
}
