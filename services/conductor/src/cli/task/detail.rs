//! One task: where it stands and everything that happened to it.

use std::sync::Arc;

use conductor_domain::record::Submissions;
use conductor_domain::state::{Outcome as How, Phase};
use conductor_eventlog::EventLog;
use conductor_eventlog::jetstream::Connection;
use conductor_protocol::submission::Submission;
use conductor_protocol::{Position, TaskId};
use serde_json::{Value, json};

use crate::cli::{artifact, put, read};
use crate::exit::{Exit, Failure, Outcome};

/// What is known of a task.
#[derive(Debug)]
pub(crate) struct Detail {
    /// Where it stands, what it is, and its result.
    pub(crate) value: Value,
    /// Everything that happened to it, in order.
    pub(crate) timeline: Vec<read::Entry>,
    /// The files that its attempts left.
    pub(crate) artifacts: Vec<Value>,
}

/// What is known of the task that somebody means.
pub(crate) async fn of(connection: &Arc<Connection>, text: &str) -> Outcome<Detail> {
    let reader = read::now(connection).await?;
    let id = read::find(&reader.state, text)?;
    let task = reader.state.tasks.get(&id);
    let timeline = read::timeline(connection, id, task.map(|t| t.submission.seq)).await?;
    if task.is_none() && timeline.is_empty() {
        let message = format!("there is no task {id}");
        return Err(Failure::new(Exit::NotFound, message));
    }
    let mut value = match task {
        Some(task) => read::task_json(&reader.state, id, task),
        None => json!({
            "id": id, "state": reader.state.outcome_of(id).map(How::as_str),
            "why": conductor_domain::explain::why(&reader.state, id),
        }),
    };
    if let Some(task) = task.filter(|t| t.spec.run.is_none())
        && let Some(submission) = body(connection, task.submission).await
    {
        put(&mut value, "run", json!(submission.run));
        put(&mut value, "metadata", json!(submission.metadata));
    }
    if let Some(Phase::Ended(ended)) = task.map(|t| &t.phase) {
        let result = result(connection, ended.at, id).await;
        put(&mut value, "result", result);
    }
    if let Some(changed) = artifact::changed(&timeline) {
        put(&mut value, "changed", changed);
    }
    let artifacts = artifact::stored(&timeline);
    Ok(Detail {
        value,
        timeline,
        artifacts,
    })
}

/// What was submitted stays in the log where it is too large for the state.
async fn body(connection: &Connection, at: Position) -> Option<Submission> {
    let record = connection.read(at.seq).await.ok().flatten()?;
    Submissions::of(&record)?.get(at.index)
}

/// The result stays in the log, at the event that ended the task.
async fn result(connection: &Arc<Connection>, at: Position, id: TaskId) -> Option<String> {
    use conductor_protocol::event::Event;
    let record = connection.read(at.seq).await.ok()??;
    let frame = conductor_protocol::frame::split(&record.payload).ok()?;
    let bytes = frame.events.get(usize::try_from(at.index).ok()?)?;
    match Event::decode(bytes).ok()? {
        Event::AttemptSucceeded(e) if e.lease.task == id => e.result,
        Event::TaskFailed(e) => Some(e.reason),
        _ => None,
    }
}
