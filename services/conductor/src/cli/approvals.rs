//! `conductor approvals …`: what attempts ask people, and the answers.

use std::sync::Arc;

use conductor_domain::State;
use conductor_domain::state::{Approval, Task};
use conductor_eventlog::jetstream::Connection;
use conductor_protocol::human::format_time;
use conductor_protocol::limits::WORD_BYTES_MAX;
use conductor_protocol::terms::Answer;
use conductor_protocol::{Control, TaskId};
use serde_json::{Value, json};

use super::{control, read};
use crate::exit::{Exit, Failure, Outcome};
use crate::out;
use crate::settings::Settings;

/// Look at what running tasks ask people, and answer
#[derive(Debug, clap::Subcommand)]
pub(crate) enum ApprovalsCommand {
    /// Show the questions that nobody has answered
    List,
    /// Answer yes
    Approve(Reply),
    /// Answer no
    Deny(Reply),
}

/// An answer.
#[derive(Debug, clap::Args)]
pub(crate) struct Reply {
    /// Id, beginning of one, or name of the task that asks
    pub(crate) task: String,
    /// Which of its questions; the only one where there is one
    pub(crate) number: Option<u32>,
    /// What to say with it: the model reads it
    #[arg(long)]
    pub(crate) text: Option<String>,
}

pub(crate) async fn run(command: Option<ApprovalsCommand>, settings: &Settings) -> Outcome {
    let connection = Arc::new(settings.open().await?);
    let (reply, said) = match command {
        None | Some(ApprovalsCommand::List) => return list(&connection, settings).await,
        Some(ApprovalsCommand::Approve(reply)) => (reply, Answer::Allow),
        Some(ApprovalsCommand::Deny(reply)) => (reply, Answer::Deny),
    };
    let said = answer(&connection, reply, said).await?;
    out::one(settings.output, &said);
    Ok(Exit::Ok)
}

async fn list(connection: &Arc<Connection>, settings: &Settings) -> Outcome {
    let rows = asked(&read::now(connection).await?.state);
    let columns = [
        ("TASK", "task"),
        ("NAME", "name"),
        ("N", "number"),
        ("QUESTION", "question"),
        ("EXPIRES", "expires"),
        ("ELSE", "default"),
        ("WHAT", "summary"),
    ];
    out::rows(settings.output, &columns, &rows);
    Ok(Exit::Ok)
}

/// Every question that nobody has answered, as data.
pub(crate) fn asked(state: &State) -> Vec<Value> {
    questions(state)
        .map(|(id, task, number, approval)| row(id, task, number, approval))
        .collect()
}

/// Every question that nobody has answered.
fn questions(state: &State) -> impl Iterator<Item = (TaskId, &Task, u32, &Approval)> {
    let asking = state.index.asking.iter();
    let tasks = asking.filter_map(|id| Some((*id, state.tasks.get(id)?)));
    tasks.flat_map(|(id, task)| open(task).map(move |(n, a)| (id, task.as_ref(), n, a)))
}

fn open(task: &Task) -> impl Iterator<Item = (u32, &Approval)> {
    let all = task.aside.approvals.iter().map(|(n, a)| (*n, a));
    all.filter(|(_, a)| a.is_open())
}

fn row(id: TaskId, task: &Task, number: u32, approval: &Approval) -> Value {
    json!({
        "task": id, "name": task.spec.name, "number": number, "attempt": task.attempts,
        "question": approval.question, "summary": approval.summary,
        "requested": format_time(approval.requested_ms),
        "expires": format_time(approval.expires_ms), "default": approval.default,
        "agent": task.assigned().map(|a| a.agent.to_string()),
        "queue": task.spec.queue, "namespace": task.spec.namespace,
    })
}

/// Answers a question.
pub(crate) async fn answer(
    connection: &Arc<Connection>,
    reply: Reply,
    answer: Answer,
) -> Outcome<Value> {
    check_text(reply.text.as_deref())?;
    let reader = read::now(connection).await?;
    let id = read::find(&reader.state, &reply.task)?;
    let number = match reply.number {
        Some(number) => number,
        None => only_question(&reader.state, id)?,
    };
    let decide = Control::Decide {
        task: id,
        approval: number,
        answer,
        text: reply.text,
    };
    control::say_one(connection, decide).await?;
    Ok(json!({"task": id, "approval": number, "answer": answer}))
}

/// The number of the only question of a task.
fn only_question(state: &State, id: TaskId) -> Outcome<u32> {
    let task = state.tasks.get(&id);
    let numbers: Vec<u32> = task
        .into_iter()
        .flat_map(|t| open(t))
        .map(|(n, _)| n)
        .collect();
    match numbers.as_slice() {
        [number] => Ok(*number),
        [] => Err(
            Failure::new(Exit::Conflict, format!("task {id} asks nothing"))
                .hint("`conductor approvals` shows what is asked"),
        ),
        several => {
            let several: Vec<String> = several.iter().map(u32::to_string).collect();
            let message = format!("task {id} asks {} questions", several.len());
            Err(Failure::new(Exit::Usage, message)
                .hint(format!("name one: {}", several.join(", "))))
        }
    }
}

/// A text that the log takes.
pub(crate) fn check_text(text: Option<&str>) -> Outcome<()> {
    let len = text.map_or(0, str::len);
    if len > WORD_BYTES_MAX {
        let message = format!("the text has {len} bytes");
        return Err(Failure::new(Exit::Usage, message)
            .hint(format!("at most {WORD_BYTES_MAX} are told at a time")));
    }
    Ok(())
}
