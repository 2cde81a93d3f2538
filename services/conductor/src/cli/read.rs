//! Reading for the command line: a state up to now, and what happened to one task.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use conductor_domain::fold::Folded;
use conductor_domain::record::Content;
use conductor_domain::state::Task;
use conductor_domain::{Decoded, State, Verdict};
use conductor_eventlog::EventLog;
use conductor_eventlog::jetstream::Connection;
use conductor_protocol::event::Event;
use conductor_protocol::human::format_time;
use conductor_protocol::ids::Position;
use conductor_protocol::{TaskId, TraceContext};
use conductor_replica::reader::Until;
use conductor_replica::{ReadFrom, Reader};
use serde_json::{Value, json};

use super::thread::Thread;
use crate::exit::{Exit, Failure, Outcome};
use crate::out::{Colour, paint};

/// How long the log may be silent while records are known to be missing from what was read.
const STALL: Duration = Duration::from_secs(20);

/// A reader that has read everything there is.
pub(crate) async fn now(connection: &Arc<Connection>) -> Outcome<Reader> {
    up_to(
        connection,
        ReadFrom::Snapshot(connection.as_ref()),
        u64::MAX,
        |_, _, _| {},
    )
    .await
}

/// A reader that has read up to `seq`, or all there is, from where it is told.
pub(crate) async fn up_to(
    connection: &Arc<Connection>,
    from: ReadFrom<'_>,
    seq: u64,
    seen: impl FnMut(&Decoded, &Folded, &State),
) -> Outcome<Reader> {
    let log = Arc::clone(connection) as Arc<dyn EventLog>;
    let last = log.last_seq().await?;
    let mut reader = Reader::open(log, from, seq.min(last)).await;
    let read = reader.read_until(Until::Seq(seq.min(last)), last, seen);
    match tokio::time::timeout(STALL.max(Duration::from_secs(last / 10_000)), read).await {
        Ok(done) => done?,
        Err(_) => {
            let message = format!("the log stopped answering at record {}", reader.state.seq);
            return Err(Failure::new(Exit::TimedOut, message));
        }
    }
    Ok(reader)
}

/// The task that somebody means: a whole id, the beginning of one, or a name.
pub(crate) fn find(state: &State, text: &str) -> Outcome<TaskId> {
    if let Ok(id) = text.parse::<TaskId>() {
        return Ok(id);
    }
    let is_prefix = text.len() >= 4;
    let mut found: Vec<TaskId> = state
        .tasks
        .iter()
        .filter(|(id, task)| {
            task.spec.name.as_deref() == Some(text)
                || (is_prefix
                    && (id.to_string().starts_with(text) || id.to_string().ends_with(text)))
        })
        .map(|(id, _)| *id)
        .collect();
    match (found.pop(), found.len()) {
        (Some(id), 0) => Ok(id),
        (Some(_), more) => {
            let message = format!("{text:?} stands for {} tasks", more + 1);
            Err(Failure::new(Exit::Usage, message).hint("name it by its whole id"))
        }
        (None, _) => Err(
            Failure::new(Exit::NotFound, format!("there is no task {text:?}"))
                .hint("`conductor task list --all` shows those there are"),
        ),
    }
}

/// Something that happened to a task.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) at: Position,
    pub(crate) time_ms: u64,
    pub(crate) event: Value,
    pub(crate) verdict: Verdict,
}

impl Entry {
    pub(crate) fn to_json(&self) -> Value {
        let (verdict, reason) = match self.verdict {
            Verdict::Applied => ("applied", Value::Null),
            Verdict::Void(reason) => ("void", reason.as_str().into()),
        };
        json!({
            "at": self.at.to_string(), "time": format_time(self.time_ms), "event": self.event,
            "verdict": verdict, "reason": reason,
        })
    }

    /// One line for people.
    pub(crate) fn line(&self) -> String {
        let time = format_time(self.time_ms);
        let time = time.get(11..23).unwrap_or(&time);
        let kind = self
            .event
            .get("type")
            .and_then(Value::as_str)
            .unwrap_or("?");
        let void = match self.verdict {
            Verdict::Applied => String::new(),
            Verdict::Void(reason) => {
                format!("  {}", paint(Colour::Yellow, &format!("VOID ({reason})")))
            }
        };
        let padded = format!("{kind:<18}");
        let kind = match kind {
            "attempt.succeeded" | "task.succeeded" => paint(Colour::Green, &padded),
            "attempt.failed" | "task.failed" | "task.timed_out" | "task.rejected" => {
                paint(Colour::Red, &padded)
            }
            _ => padded,
        };
        format!(
            "{time}  {:>8}  {kind}{}{void}",
            self.at.to_string(),
            detail(&self.event)
        )
    }
}

impl Entry {
    /// The same for programs that show it to people: what happened, without time and place.
    pub(crate) fn in_short(&self) -> String {
        let kind = self.event.get("type").and_then(Value::as_str);
        let (kind, detail) = (kind.unwrap_or("?"), detail(&self.event));
        let void = match self.verdict {
            Verdict::Applied => String::new(),
            Verdict::Void(reason) => format!(" (void: {reason})"),
        };
        let colon = if detail.is_empty() { "" } else { ": " };
        format!("{kind}{colon}{detail}{void}")
    }
}

/// What is worth a glance of an event.
fn detail(event: &Value) -> String {
    let mut parts = Vec::new();
    let attempt = event
        .get("attempt")
        .or_else(|| event.pointer("/lease/attempt"));
    if let Some(n) = attempt {
        parts.push(format!("attempt {n}"));
    }
    for (key, label) in [
        ("queue", "queue "),
        ("agent", "on "),
        ("class", ""),
        ("timeout", ""),
        ("reason", ""),
        ("message", ""),
        ("result", "→ "),
    ] {
        if let Some(text) = event.get(key).and_then(Value::as_str) {
            let first: String = text
                .lines()
                .next()
                .unwrap_or_default()
                .chars()
                .take(80)
                .collect();
            let first = crate::out::plain(&first);
            parts.push(format!("{label}{first}"));
        }
    }
    match event.get("type").and_then(Value::as_str) {
        Some("attempt.artifact") => {
            let name = event.get("name").and_then(Value::as_str).unwrap_or("?");
            parts.push(format!(
                "{} ({} bytes)",
                crate::out::plain(name),
                event["size"]
            ));
        }
        Some("attempt.changed") => {
            let numbers = [&event["files"], &event["insertions"], &event["deletions"]];
            let [files, insertions, deletions] = numbers;
            parts.push(format!("{files} files, +{insertions} -{deletions}"));
            if let Some(branch) = event.get("pushed").and_then(Value::as_str) {
                parts.push(format!("pushed to {}", crate::out::plain(branch)));
            }
        }
        _ => {}
    }
    if let Some(percent) = event.get("percent").and_then(Value::as_f64) {
        parts.push(format!("{percent:.0} %"));
    }
    if let Some(ms) = event.get("delay_ms") {
        parts.push(format!("in {ms} ms"));
    }
    if let Some(code) = event.get("exit_code").filter(|c| !c.is_null()) {
        parts.push(format!("exit {code}"));
    }
    if let Some(name) = event.pointer("/spec/name").and_then(Value::as_str) {
        parts.push(crate::out::plain(name));
    }
    for error in event
        .get("errors")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
    {
        let text = |key: &str| error.get(key).and_then(Value::as_str).unwrap_or_default();
        parts.push(crate::out::plain(&format!(
            "{} {}",
            text("field"),
            text("problem")
        )));
    }
    if let Some(problem) = event.get("problem").and_then(Value::as_str) {
        parts.push(problem.to_owned());
    }
    parts.join(", ")
}

/// Every event of a record, with its verdict.
pub(crate) fn entries(record: &Decoded, folded: &Folded) -> Vec<(Option<TaskId>, Entry)> {
    let mut out = Vec::new();
    let mut push = |index: usize, task: Option<TaskId>, event: Value| {
        let verdict = folded
            .verdicts
            .get(index)
            .copied()
            .unwrap_or(Verdict::Applied);
        let at = Position::new(record.seq, index as u32);
        out.push((
            task,
            Entry {
                at,
                time_ms: record.time_ms,
                event,
                verdict,
            },
        ));
    };
    let void =
        |reason: &conductor_domain::VoidReason| json!({"type": "?", "problem": reason.as_str()});
    match &record.content {
        Content::Void { reason, .. } => push(0, None, void(reason)),
        Content::Submit(s) => push(
            0,
            None,
            json!({"type": "submitted", "v": 1, "queue": s.queue, "count": s.count}),
        ),
        Content::Control { items, .. } => {
            for (i, item) in items.iter().enumerate() {
                match item {
                    Ok(control) => {
                        push(
                            i,
                            control.task(),
                            serde_json::to_value(control).unwrap_or_default(),
                        );
                    }
                    Err(reason) => push(i, None, void(reason)),
                }
            }
        }
        Content::Leader { items, agent, .. } => {
            for (i, item) in items.iter().enumerate() {
                push_event(
                    &mut push,
                    i,
                    item,
                    agent.as_ref().map(ToString::to_string),
                    void,
                );
            }
        }
        Content::Agent { items, agent, .. } => {
            for (i, item) in items.iter().enumerate() {
                push_event(&mut push, i, item, Some(agent.to_string()), void);
            }
        }
        Content::Election { items, role } => {
            for (i, item) in items.iter().enumerate() {
                push_event(&mut push, i, item, Some(role.to_string()), void);
            }
        }
    }
    out
}

fn push_event(
    push: &mut impl FnMut(usize, Option<TaskId>, Value),
    index: usize,
    item: &Result<Event, conductor_domain::VoidReason>,
    agent: Option<String>,
    void: impl Fn(&conductor_domain::VoidReason) -> Value,
) {
    match item {
        Ok(event) => {
            let mut value = event.to_json();
            if let (Some(agent), Some(map)) = (agent, value.as_object_mut()) {
                map.entry("agent").or_insert(agent.into());
            }
            push(index, event.task(), value);
        }
        Err(reason) => push(index, None, void(reason)),
    }
}

/// Everything that happened to a task, with verdicts, from the log alone.
pub(crate) async fn timeline(
    connection: &Arc<Connection>,
    id: TaskId,
    submission: Option<u64>,
) -> Outcome<Vec<Entry>> {
    let mut out: Vec<Entry> = Vec::new();
    // From a snapshot before the submission the verdicts are those of a full fold.
    let log = Arc::clone(connection) as Arc<dyn EventLog>;
    let last = log.last_seq().await?;
    let before = submission.unwrap_or(1).saturating_sub(1);
    let mut reader = Reader::open(log, ReadFrom::Snapshot(connection.as_ref()), before).await;
    let mut thread = Thread::of(id);
    reader
        .read_until(Until::Seq(last), last, |record, folded, _| {
            for (task, entry) in entries(record, folded) {
                if thread.takes(task, &entry) {
                    out.push(entry);
                }
            }
        })
        .await?;
    Ok(out)
}

/// Those that there are.
fn some(tasks: &BTreeSet<TaskId>) -> Option<&BTreeSet<TaskId>> {
    (!tasks.is_empty()).then_some(tasks)
}

/// A task as data.
pub(crate) fn task_json(state: &State, id: TaskId, task: &Task) -> Value {
    let spec = &task.spec;
    let ended = match &task.phase {
        conductor_domain::state::Phase::Ended(e) => Some(e),
        _ => None,
    };
    json!({
        "id": id, "name": spec.name, "state": task.state_name(), "queue": spec.queue,
        "namespace": spec.namespace, "priority": spec.priority, "runtime": spec.runtime,
        "attempts": task.attempts, "max_attempts": spec.retry.max_attempts,
        "agent": task.assigned().map(|a| a.agent.to_string()),
        "class": match ended {
            Some(ended) => ended.class,
            None => task.aside.last_failure.as_ref().map(|f| f.class),
        },
        "accepted": format_time(task.accepted_ms),
        "ended": ended.map(|e| format_time(e.at_ms)),
        "why": conductor_domain::explain::why(state, id),
        "submission": task.submission.to_string(),
        "trace": TraceContext::of(id, spec.traceparent.as_deref()).trace_hex(),
        "parent": task.parent(), "subtasks": some(&task.aside.subtasks),
        "needs": spec.needs, "labels": spec.labels, "slots": spec.slots,
        // Too large for the state, it stays in the log with the run.
        "metadata": (spec.run.is_some() || !spec.metadata.is_empty()).then_some(&spec.metadata),
        "key": spec.key,
        "usage": task.aside.usage,
        "run": spec.run,
    })
}
