//! The tools: what each is called, what it is for, and what it does.

use std::time::Duration;

use conductor_protocol::TaskId;
use conductor_protocol::event::FieldError;
use schemars::generate::SchemaSettings;
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::attempt::{Attempt, Children};
use crate::input::{
    AskHuman, AttachArtifact, Complete, CreateSubtask, GetOwnTask, GetTask, Input, ReportProgress,
    RequestApproval, read,
};

/// A tool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tool {
    /// Says how far it is.
    ReportProgress,
    /// Keeps a file.
    AttachArtifact,
    /// Asks whether it may.
    RequestApproval,
    /// Asks a question.
    AskHuman,
    /// Looks at its own task, or at a subtask of it.
    GetTask,
    /// Gives its result.
    Complete,
    /// Submits a subtask.
    CreateSubtask,
}

/// What went wrong, for the program: one error or more.
pub type Problems = Vec<FieldError>;

impl Tool {
    /// All of them, in the order in which they are listed.
    pub const ALL: [Self; 7] = [
        Self::ReportProgress,
        Self::AttachArtifact,
        Self::RequestApproval,
        Self::AskHuman,
        Self::GetTask,
        Self::Complete,
        Self::CreateSubtask,
    ];

    /// Those that a program of this attempt may call.
    pub fn of(attempt: &dyn Attempt) -> impl Iterator<Item = Self> {
        let has_children = children(attempt).is_some();
        let all = Self::ALL.into_iter();
        all.filter(move |tool| has_children || *tool != Self::CreateSubtask)
    }

    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Self::ReportProgress => "report_progress",
            Self::AttachArtifact => "attach_artifact",
            Self::RequestApproval => "request_approval",
            Self::AskHuman => "ask_human",
            Self::GetTask => "get_task",
            Self::Complete => "complete",
            Self::CreateSubtask => "create_subtask",
        }
    }

    /// What models are told of it.
    pub fn description(self) -> &'static str {
        match self {
            Self::ReportProgress => {
                "Say how far you are, for people who watch. Say it whenever a step is done; what is said \
                 more often than every two seconds is left out, and the newest stands."
            }
            Self::AttachArtifact => {
                "Keep a file of the workspace as it is now, so that it can be fetched when the workspace \
                 is gone. Answers its name, size and SHA-256."
            }
            Self::RequestApproval => {
                "Ask people whether you may do something, and wait for their answer, which may take \
                 hours. Answers allow or deny, and what was said with it. Do not do what was denied."
            }
            Self::AskHuman => {
                "Ask people something that you cannot find out by yourself, and wait for their answer, \
                 which may take hours. The answer stands in text; deny without a text means that nobody \
                 answered."
            }
            Self::GetTask => {
                "Your task: its id, attempt, name, queue and namespace, the files with the results of \
                 the tasks it needed, the JSON schema that its result has to fit, until when you may \
                 run, and what is left of its budget."
            }
            Self::Complete => {
                "Give the result of your task, once it is done. It is checked at once; when it is refused, \
                 mend it and call this again. The last result that was taken counts, before whatever \
                 else you write. End by yourself afterwards."
            }
            Self::CreateSubtask => {
                "Submit a task of its own below yours, which another agent runs. Answers its number and \
                 id, by which get_task tells how it is."
            }
        }
    }

    /// Whether it changes nothing.
    pub fn is_read_only(self) -> bool {
        self == Self::GetTask
    }

    /// The JSON schema of what it takes; `has_children` says whether the task may have subtasks.
    pub fn schema(self, has_children: bool) -> Map<String, Value> {
        match self {
            Self::ReportProgress => schema_of::<ReportProgress>(),
            Self::AttachArtifact => schema_of::<AttachArtifact>(),
            Self::RequestApproval => schema_of::<RequestApproval>(),
            Self::AskHuman => schema_of::<AskHuman>(),
            Self::GetTask if has_children => schema_of::<GetTask>(),
            Self::GetTask => schema_of::<GetOwnTask>(),
            Self::Complete => schema_of::<Complete>(),
            Self::CreateSubtask => schema_of::<CreateSubtask>(),
        }
    }

    /// Calls it; what it answers is an object.
    pub async fn call(
        self,
        attempt: &dyn Attempt,
        arguments: Map<String, Value>,
    ) -> Result<Value, Problems> {
        let done = match self {
            Self::ReportProgress => {
                let progress = read(arguments).map_err(one)?;
                attempt.report(progress).map(|()| json!({"noted": true}))
            }
            Self::AttachArtifact => {
                let file = read(arguments).map_err(one)?;
                attempt.attach(file).await.map(|kept| as_value(&kept))
            }
            Self::RequestApproval => {
                let RequestApproval { summary } = read(arguments).map_err(one)?;
                let reply = attempt.ask(summary, false).await;
                reply.map(|reply| as_value(&reply))
            }
            Self::AskHuman => {
                let AskHuman { question } = read(arguments).map_err(one)?;
                let reply = attempt.ask(question, true).await;
                reply.map(|reply| as_value(&reply))
            }
            Self::Complete => {
                let result = read(arguments).map_err(one)?;
                attempt.complete(result).map(|()| json!({"taken": true}))
            }
            Self::GetTask => return get(attempt, arguments).await.map_err(one),
            Self::CreateSubtask => return create(attempt, arguments).await,
        };
        done.map_err(one)
    }
}

fn one(error: FieldError) -> Problems {
    vec![error]
}

fn as_value<T: Serialize>(answer: &T) -> Value {
    serde_json::to_value(answer).unwrap_or_default()
}

/// The attempt's subtasks, where its task may have any.
fn children(attempt: &dyn Attempt) -> Option<&dyn Children> {
    Some(attempt.children()).filter(|children| children.allowed())
}

async fn get(attempt: &dyn Attempt, arguments: Map<String, Value>) -> Result<Value, FieldError> {
    let Some(children) = children(attempt) else {
        let GetOwnTask {} = read(arguments)?;
        return Ok(attempt.task());
    };
    let GetTask {
        task: Some(task),
        wait_seconds,
    } = read(arguments)?
    else {
        return Ok(attempt.task());
    };
    let unknown = || {
        let expected = "an id that create_subtask answered, or nothing for your own task";
        FieldError::new(
            "task",
            format!("{task:?} is no subtask of your task"),
            expected,
        )
    };
    let id: TaskId = task.parse().map_err(|_| unknown())?;
    let wait = Duration::from_secs(wait_seconds.unwrap_or(0));
    let state = children.get(id, wait).await.ok_or_else(unknown)?;
    Ok(as_value(&state))
}

async fn create(attempt: &dyn Attempt, arguments: Map<String, Value>) -> Result<Value, Problems> {
    let CreateSubtask { task } = read(arguments).map_err(one)?;
    let Some(children) = children(attempt) else {
        return Err(one(FieldError::new(
            "task",
            "your task may have no subtasks",
            "that you do it yourself",
        )));
    };
    let created = children.create(Value::Object(task)).await?;
    Ok(as_value(&created))
}

/// The schema of an input, without what tells a model nothing.
fn schema_of<T: Input>() -> Map<String, Value> {
    let generator = SchemaSettings::draft2020_12().into_generator();
    let schema = generator.into_root_schema_for::<T>().to_value();
    let Value::Object(mut schema) = schema else {
        return Map::new();
    };
    for name in ["$schema", "title", "description"] {
        schema.remove(name);
    }
    // Some clients take a schema without it for none.
    schema
        .entry("properties")
        .or_insert_with(|| Value::Object(Map::new()));
    schema
}
