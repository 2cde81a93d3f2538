//! `conductor task …`, and `why`.

use std::sync::Arc;

use conductor_domain::record::Submissions;
use conductor_domain::state::Phase;
use conductor_eventlog::EventLog;
use conductor_eventlog::jetstream::Connection;
use conductor_protocol::submission::Submission;
use conductor_protocol::{Control, Position, TaskId};
use serde_json::{Value, json};

use super::{approvals, artifact, control, logs, read};
use crate::exit::{Exit, Failure, Outcome};
use crate::out::{self, Format};
use crate::settings::Settings;

/// Look at tasks and act on them
#[derive(Debug, clap::Subcommand)]
pub(crate) enum TaskCommand {
    /// Show tasks: those that have not ended, or all within the retention
    List {
        /// Ended ones too
        #[arg(long, short)]
        all: bool,
        /// Only those in this state
        #[arg(long)]
        state: Option<String>,
        /// Only those of this queue
        #[arg(long, short)]
        queue: Option<String>,
        /// Most rows, newest last
        #[arg(long, default_value_t = 100)]
        limit: usize,
    },
    /// Show one task: where it stands and everything that happened to it
    Show {
        /// Id, beginning of one, or name
        task: String,
    },
    /// Show what happens to a task until it ends
    Watch {
        /// Id, beginning of one, or name
        task: String,
    },
    /// Show what a task's attempts printed
    Logs(logs::LogsArgs),
    /// Say something to the model of a running task, which goes on with it in mind
    Tell {
        /// Id, beginning of one, or name
        task: String,
        /// What to say
        text: String,
    },
    /// Cancel a task, whatever it is doing
    Cancel {
        /// Id, beginning of one, or name
        task: String,
        /// For people
        #[arg(long)]
        reason: Option<String>,
    },
    /// Run an ended task again
    Retry {
        /// Id, beginning of one, or name
        task: String,
        /// Wait for its end
        #[arg(long)]
        wait: bool,
    },
}

pub(crate) async fn run(command: TaskCommand, settings: &Settings) -> Outcome {
    let connection = Arc::new(settings.open().await?);
    match command {
        TaskCommand::List {
            all,
            state,
            queue,
            limit,
        } => {
            let reader = read::now(&connection).await?;
            let wanted = reader.state.tasks.iter().filter(|(_, t)| {
                (all || state.is_some() || !t.is_final())
                    && state.as_deref().is_none_or(|s| s == t.state_name())
                    && queue.as_deref().is_none_or(|q| q == t.spec.queue.as_str())
            });
            let mut rows: Vec<Value> = wanted
                .map(|(id, t)| read::task_json(&reader.state, *id, t))
                .collect();
            let start = rows.len().saturating_sub(limit);
            rows.drain(..start);
            let columns = [
                ("ID", "id"),
                ("NAME", "name"),
                ("STATE", "state"),
                ("QUEUE", "queue"),
                ("ATTEMPTS", "attempts"),
                ("AGENT", "agent"),
                ("CLASS", "class"),
                ("ACCEPTED", "accepted"),
            ];
            out::rows(settings.output, &columns, &rows);
            Ok(Exit::Ok)
        }
        TaskCommand::Show { task } => show(&connection, settings, &task).await,
        TaskCommand::Watch { task } => {
            let mut reader = read::now(&connection).await?;
            let id = read::find(&reader.state, &task)?;
            let submission = reader.state.tasks.get(&id).map(|t| t.submission.seq);
            for entry in read::timeline(&connection, id, submission).await? {
                if entry.at.seq <= reader.state.seq {
                    write(settings.output, &entry);
                }
            }
            control::wait_for_end(&mut reader, id, None, |e| write(settings.output, e)).await
        }
        TaskCommand::Logs(args) => logs::run(&connection, args).await,
        TaskCommand::Tell { task, text } => tell(&connection, settings, &task, text).await,
        TaskCommand::Cancel { task, reason } => {
            let reader = read::now(&connection).await?;
            let id = read::find(&reader.state, &task)?;
            control::say_one(&connection, Control::Cancel { task: id, reason }).await?;
            out::one(settings.output, &json!({"task": id, "cancelled": true}));
            Ok(Exit::Ok)
        }
        TaskCommand::Retry { task, wait } => {
            let reader = read::now(&connection).await?;
            let id = read::find(&reader.state, &task)?;
            let mut reader = control::say_one(&connection, Control::Retry { task: id }).await?;
            out::one(settings.output, &json!({"task": id, "retried": true}));
            if !wait {
                return Ok(Exit::Ok);
            }
            // It still counts as ended until the orchestrator has redriven it.
            while reader.state.tasks.get(&id).is_some_and(|t| t.is_final()) {
                reader.next().await?;
            }
            control::wait_for_end(&mut reader, id, None, |_| {}).await
        }
    }
}

/// Says something to the model of a running task, where there is one that can be told.
async fn tell(
    connection: &Arc<Connection>,
    settings: &Settings,
    task: &str,
    text: String,
) -> Outcome {
    approvals::check_text(Some(&text))?;
    let reader = read::now(connection).await?;
    let id = read::find(&reader.state, task)?;
    let runtime = reader.state.tasks.get(&id).map(|t| t.spec.runtime);
    if let Some(runtime) = runtime.filter(|r| !r.can_be_told()) {
        let message = format!("a task of runtime {runtime} cannot be told anything while it runs");
        return Err(Failure::new(Exit::Conflict, message).hint(
            "tell tasks of the runtimes claude and acp; cancel this one and submit another",
        ));
    }
    control::say_one(connection, Control::Tell { task: id, text }).await?;
    out::one(settings.output, &json!({"task": id, "told": true}));
    Ok(Exit::Ok)
}

fn write(format: Format, entry: &read::Entry) {
    match format {
        Format::Table => out::line(&entry.line()),
        _ => out::line(&entry.to_json().to_string()),
    }
}

async fn show(connection: &Arc<Connection>, settings: &Settings, text: &str) -> Outcome {
    let format = settings.output;
    let reader = read::now(connection).await?;
    let id = read::find(&reader.state, text)?;
    let task = reader.state.tasks.get(&id);
    let timeline = read::timeline(connection, id, task.map(|t| t.submission.seq)).await?;
    if task.is_none() && timeline.is_empty() {
        return Err(Failure::new(
            Exit::NotFound,
            format!("there is no task {id}"),
        ));
    }
    let mut value = match task {
        Some(task) => read::task_json(&reader.state, id, task),
        None => {
            json!({"id": id, "state": reader.state.outcome_of(id).map(conductor_domain::state::Outcome::as_str), "why": conductor_domain::explain::why(&reader.state, id)})
        }
    };
    if let (Some(base), Some(trace)) = (
        &settings.trace_url,
        value.get("trace").and_then(Value::as_str),
    ) {
        let url = format!("{}/{trace}", base.trim_end_matches('/'));
        super::put(&mut value, "trace_url", url);
    }
    if let Some(task) = task.filter(|t| t.spec.run.is_none())
        && let Some(submission) = body(connection, task.submission).await
    {
        super::put(&mut value, "run", json!(submission.run));
        super::put(&mut value, "metadata", json!(submission.metadata));
    }
    if let Some(Phase::Ended(ended)) = task.map(|t| &t.phase) {
        let result = result(connection, ended.at, id).await;
        super::put(&mut value, "result", result);
    }
    show_left(&mut value, &timeline, format);
    if format == Format::Table {
        out::one(format, &value);
        out::line("");
        for entry in &timeline {
            out::line(&entry.line());
        }
    } else {
        let timeline: Vec<Value> = timeline.iter().map(read::Entry::to_json).collect();
        super::put(&mut value, "timeline", timeline);
        out::one(format, &value);
    }
    Ok(Exit::Ok)
}

/// What its attempts left and changed.
fn show_left(value: &mut Value, timeline: &[read::Entry], format: Format) {
    if let Some(changed) = artifact::changed(timeline) {
        super::put(value, "changed", changed);
    }
    let stored = artifact::stored(timeline);
    if stored.is_empty() {
        return;
    }
    if format == Format::Table {
        let short = |v: &Value| {
            format!(
                "{} ({} bytes)",
                v["name"].as_str().unwrap_or("?"),
                v["size"]
            )
        };
        let short: Vec<String> = stored.iter().map(short).collect();
        super::put(value, "artifacts", short);
    } else {
        super::put(value, "artifacts", stored);
    }
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

/// Says in one sentence what a task waits for.
pub(crate) async fn why(task: &str, settings: &Settings) -> Outcome {
    let connection = Arc::new(settings.open().await?);
    let reader = read::now(&connection).await?;
    let id = read::find(&reader.state, task)?;
    match conductor_domain::explain::why(&reader.state, id) {
        Some(why) if settings.output == Format::Table => out::line(&why),
        Some(why) => out::one(settings.output, &json!({"task": id, "why": why})),
        None => {
            return Err(Failure::new(
                Exit::NotFound,
                format!("there is no task {id}"),
            ));
        }
    }
    Ok(Exit::Ok)
}
