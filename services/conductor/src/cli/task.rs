//! `conductor task …`, and `why`.

pub(crate) mod detail;
pub(crate) mod listing;

use std::sync::Arc;

use conductor_eventlog::jetstream::Connection;
use conductor_protocol::Control;
use serde_json::{Value, json};

use super::{approvals, artifact, control, logs, read};
use crate::exit::{Exit, Failure, Outcome};
use crate::out::{self, Format};
use crate::settings::Settings;
use detail::Detail;
use listing::Filter;

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
        /// Only those of this namespace
        #[arg(long, short)]
        namespace: Option<String>,
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
            namespace,
            limit,
        } => {
            let reader = read::now(&connection).await?;
            let filter = Filter {
                includes_ended: all,
                state: state.as_deref(),
                queue: queue.as_deref(),
                namespace: namespace.as_deref(),
                limit,
            };
            let rows = listing::rows(&reader.state, &filter);
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
            let cancelled = cancel(&connection, &task, reason).await?;
            out::one(settings.output, &cancelled);
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
    let Detail {
        mut value,
        timeline,
        artifacts,
    } = detail::of(connection, text).await?;
    let trace = value.get("trace").and_then(Value::as_str);
    if let (Some(base), Some(trace)) = (&settings.trace_url, trace) {
        let url = format!("{}/{trace}", base.trim_end_matches('/'));
        super::put(&mut value, "trace_url", url);
    }
    if !artifacts.is_empty() && format == Format::Table {
        let short: Vec<String> = artifacts.iter().map(artifact::short).collect();
        super::put(&mut value, "artifacts", short);
    } else if !artifacts.is_empty() {
        super::put(&mut value, "artifacts", artifacts);
    }
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

/// Cancels a task, whatever it is doing.
pub(crate) async fn cancel(
    connection: &Arc<Connection>,
    task: &str,
    reason: Option<String>,
) -> Outcome<Value> {
    let reader = read::now(connection).await?;
    let id = read::find(&reader.state, task)?;
    control::say_one(connection, Control::Cancel { task: id, reason }).await?;
    Ok(json!({"task": id, "cancelled": true}))
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
