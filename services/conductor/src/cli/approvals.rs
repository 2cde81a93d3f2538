//! `conductor approvals …`: what attempts ask people, what is asked of budgets that are used up, and
//! the answers.

use std::sync::Arc;

use conductor_domain::State;
use conductor_domain::state::{Approval, BudgetQuestion, Task};
use conductor_eventlog::jetstream::Connection;
use conductor_protocol::control::OnReached;
use conductor_protocol::human::format_time;
use conductor_protocol::limits::WORD_BYTES_MAX;
use conductor_protocol::terms::Answer;
use conductor_protocol::{Control, Namespace, TaskId, UnixMs};
use serde_json::{Value, json};

use super::submit::file::now_ms;
use super::{control, read};
use crate::exit::{Exit, Failure, Outcome};
use crate::out;
use crate::settings::Settings;

/// Look at what people are asked, and answer
#[derive(Debug, clap::Subcommand)]
pub(crate) enum ApprovalsCommand {
    /// Show the questions that nobody has answered: of running tasks, and about budgets that are used up
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
    #[arg(required_unless_present = "namespace")]
    pub(crate) task: Option<String>,
    /// Which of its questions; the only one where there is one
    pub(crate) number: Option<u32>,
    /// Answer for a namespace instead, whose budget of the day is used up: yes is as much again for
    /// today, no fails what waits for it
    #[arg(long, conflicts_with_all = ["task", "number"])]
    pub(crate) namespace: Option<Namespace>,
    /// What to say with it: the model reads it, or whoever reads why a task failed; about a
    /// budget it is kept with a no alone
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
    let rows = asked(&read::now(connection).await?.state, now_ms());
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

/// Every question that nobody has answered by a time, as data. Those about budgets are over when the
/// day is, whether or not a record says so.
pub(crate) fn asked(state: &State, now_ms: UnixMs) -> Vec<Value> {
    let of_tasks = questions(state).map(|(id, task, number, a)| row(id, task, number, a));
    let of_budgets = state.budget_questions(now_ms.max(state.time_ms));
    of_tasks
        .chain(of_budgets.iter().map(row_of_budget))
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

fn row_of_budget(question: &BudgetQuestion) -> Value {
    let BudgetQuestion {
        namespace, account, ..
    } = question;
    let summary = format!(
        "namespace {namespace} has used up its budget of the day ({account}); may it spend as much \
         again?"
    );
    json!({
        "task": null, "name": null, "number": null, "attempt": null,
        "question": "budget", "summary": summary,
        "requested": format_time(question.asked_ms),
        "expires": format_time(question.expires_ms), "default": OnReached::Wait,
        "agent": null, "queue": null, "namespace": namespace,
    })
}

/// Answers a question.
pub(crate) async fn answer(
    connection: &Arc<Connection>,
    reply: Reply,
    answer: Answer,
) -> Outcome<Value> {
    check_text(reply.text.as_deref())?;
    if let Some(namespace) = reply.namespace {
        return answer_budget(connection, namespace, answer, reply.text).await;
    }
    let reader = read::now(connection).await?;
    let id = read::find(&reader.state, reply.task.as_deref().unwrap_or_default())?;
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

/// Answers whether a namespace may spend as much again.
async fn answer_budget(
    connection: &Arc<Connection>,
    namespace: Namespace,
    answer: Answer,
    text: Option<String>,
) -> Outcome<Value> {
    let state = read::now(connection).await?.state;
    let mut questions = state.budget_questions(state.time_ms).into_iter();
    if !questions.any(|q| q.namespace == namespace) {
        let message = match state.budget_reached(&namespace, state.time_ms) {
            Some(reached) if reached.is_denied => {
                format!("namespace {namespace} was denied more for today")
            }
            _ => format!("nobody is asked about a budget of namespace {namespace}"),
        };
        return Err(Failure::new(Exit::Conflict, message).hint(
            "`conductor approvals` shows what is asked; a higher budget of `conductor config put` \
             counts at once",
        ));
    }
    let decide = Control::DecideBudget {
        namespace: namespace.clone(),
        answer,
        text,
    };
    control::say_one(connection, decide).await?;
    Ok(json!({"namespace": namespace, "answer": answer}))
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
