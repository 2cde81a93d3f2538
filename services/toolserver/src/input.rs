//! What the tools take: their fields, the schemas that models are shown, and the limits.

use conductor_protocol::event::FieldError;
use conductor_protocol::limits::{KEY_BYTES_MAX, SPEC_BYTES_MAX, WORD_BYTES_MAX};
use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

/// Longest path of a file, in bytes: the kernel takes no more.
pub const PATH_BYTES_MAX: usize = 4096;
/// Longest summary of a result, in bytes.
pub const SUMMARY_BYTES_MAX: usize = 8 * 1024;
/// Largest structured result, in bytes of its JSON.
pub const STRUCTURED_BYTES_MAX: usize = 1 << 20;

/// What a tool takes.
pub trait Input: DeserializeOwned + JsonSchema {
    /// What is wrong with it, if anything is that its schema does not say.
    fn check(&self) -> Result<(), FieldError>;
}

/// Reads what a tool was called with.
pub fn read<T: Input>(arguments: Map<String, Value>) -> Result<T, FieldError> {
    let read: Result<T, _> = serde_path_to_error::deserialize(Value::Object(arguments));
    let input = read.map_err(|e| {
        let path = e.path().to_string();
        let problem = e.inner().to_string();
        // A field that is missing, or that there is none of, is named in the problem.
        let field = if path == "." { "arguments" } else { &path };
        FieldError::new(field, problem, "what the tool's input schema says")
    })?;
    input.check()?;
    Ok(input)
}

/// How far a program is.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReportProgress {
    /// How much of the whole is done, from 0 to 100.
    #[serde(default)]
    #[schemars(range(min = 0, max = 100))]
    pub percent: Option<f32>,
    /// What has been done or is being done, in one sentence for people.
    pub message: String,
}

impl Input for ReportProgress {
    fn check(&self) -> Result<(), FieldError> {
        let is_share = |p: f32| (0.0..=100.0).contains(&p);
        if let Some(percent) = self.percent.filter(|p| !is_share(*p)) {
            return Err(FieldError::new(
                "percent",
                format!("is {percent}"),
                "a number from 0 to 100, or none",
            ));
        }
        is_said("message", &self.message)
    }
}

/// A file to keep.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AttachArtifact {
    /// The file: its path within the workspace.
    pub path: String,
    /// What the artifact is called; its path where this is left out.
    #[serde(default)]
    pub name: Option<String>,
}

impl Input for AttachArtifact {
    fn check(&self) -> Result<(), FieldError> {
        is_said("path", &self.path)?;
        is_short("path", &self.path, PATH_BYTES_MAX)?;
        let Some(name) = &self.name else {
            return Ok(());
        };
        is_said("name", name)?;
        is_short("name", name, KEY_BYTES_MAX)
    }
}

/// Something to be allowed.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RequestApproval {
    /// What you want to do and why, so that somebody who knows nothing else can decide.
    pub summary: String,
}

impl Input for RequestApproval {
    fn check(&self) -> Result<(), FieldError> {
        is_said("summary", &self.summary)?;
        is_short("summary", &self.summary, WORD_BYTES_MAX)
    }
}

/// A question.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AskHuman {
    /// The question, with all that is needed to answer it.
    pub question: String,
}

impl Input for AskHuman {
    fn check(&self) -> Result<(), FieldError> {
        is_said("question", &self.question)?;
        is_short("question", &self.question, WORD_BYTES_MAX)
    }
}

/// Which task to look at, where a task may have subtasks.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GetTask {
    /// The id of a subtask that this task created; your own task where this is left out.
    #[serde(default)]
    pub task: Option<String>,
    /// So many seconds, at most 120, are waited for the subtask to end; call it again should it not
    /// have.
    #[serde(default)]
    pub wait_seconds: Option<u64>,
}

/// Longest that a call waits for a subtask, in seconds: silence of a program that lasts longer counts
/// as a sign that it hangs.
const WAIT_SECONDS_MAX: u64 = 120;

impl Input for GetTask {
    fn check(&self) -> Result<(), FieldError> {
        if let Some(wait) = self.wait_seconds.filter(|wait| *wait > WAIT_SECONDS_MAX) {
            let expected = format!("at most {WAIT_SECONDS_MAX}");
            return Err(FieldError::new(
                "wait_seconds",
                format!("is {wait}"),
                expected,
            ));
        }
        is_short(
            "task",
            self.task.as_deref().unwrap_or_default(),
            KEY_BYTES_MAX,
        )
    }
}

/// Which task to look at: there is but its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GetOwnTask {}

impl Input for GetOwnTask {
    fn check(&self) -> Result<(), FieldError> {
        Ok(())
    }
}

/// A result.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Complete {
    /// What was done, for people. It is the result where nothing structured is given.
    pub summary: String,
    /// The result as JSON. Where the task has a result_schema (see get_task), it has to fit that.
    #[serde(default, deserialize_with = "present")]
    pub structured: Option<Value>,
}

/// A `null` that is there is a value; an absent field is none.
fn present<'de, D: serde::Deserializer<'de>>(value: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(value).map(Some)
}

impl Input for Complete {
    fn check(&self) -> Result<(), FieldError> {
        is_said("summary", &self.summary)?;
        is_short("summary", &self.summary, SUMMARY_BYTES_MAX)?;
        let size = self.structured.as_ref().map(|s| s.to_string().len());
        match size.filter(|size| *size > STRUCTURED_BYTES_MAX) {
            Some(size) => Err(too_long("structured", size, STRUCTURED_BYTES_MAX)),
            None => Ok(()),
        }
    }
}

/// A subtask.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateSubtask {
    /// The submission, as one that is published: `{"run": {"command": ["make", "test"]}}`, with `name`,
    /// `needs`, `budget` and whatever else a task may have.
    pub task: Map<String, Value>,
}

impl Input for CreateSubtask {
    fn check(&self) -> Result<(), FieldError> {
        let size = Value::Object(self.task.clone()).to_string().len();
        if size > SPEC_BYTES_MAX {
            return Err(too_long("task", size, SPEC_BYTES_MAX));
        }
        Ok(())
    }
}

fn is_said(field: &str, text: &str) -> Result<(), FieldError> {
    if text.trim().is_empty() {
        return Err(FieldError::new(field, "is empty", "a text"));
    }
    Ok(())
}

fn is_short(field: &str, text: &str, max: usize) -> Result<(), FieldError> {
    if text.len() > max {
        return Err(too_long(field, text.len(), max));
    }
    Ok(())
}

fn too_long(field: &str, size: usize, max: usize) -> FieldError {
    FieldError::new(
        field,
        format!("has {size} bytes"),
        format!("{max} bytes at most"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn problem<T: Input + std::fmt::Debug>(arguments: Value) -> String {
        let Value::Object(arguments) = arguments else {
            panic!("arguments are an object")
        };
        read::<T>(arguments).unwrap_err().to_string()
    }

    #[test]
    fn what_is_wrong_is_named_with_what_would_do() {
        let long = "x".repeat(WORD_BYTES_MAX + 1);
        for (said, expected) in [
            (
                problem::<ReportProgress>(json!({"percent": 101, "message": "m"})),
                "percent: is 101; expected a number from 0 to 100, or none",
            ),
            (
                problem::<ReportProgress>(json!({"percent": "half", "message": "m"})),
                "percent: invalid type: string \"half\", expected f32; expected what the tool's input schema says",
            ),
            (
                problem::<ReportProgress>(json!({"percent": 1})),
                "arguments: missing field `message`; expected what the tool's input schema says",
            ),
            (
                problem::<ReportProgress>(json!({"message": " \n"})),
                "message: is empty; expected a text",
            ),
            (
                problem::<AskHuman>(json!({"question": long})),
                "question: has 4097 bytes; expected 4096 bytes at most",
            ),
            (
                problem::<AttachArtifact>(json!({"path": "p", "name": ""})),
                "name: is empty; expected a text",
            ),
            (
                problem::<Complete>(json!({"summary": "s", "structured": "x".repeat(1 << 20)})),
                "structured: has 1048578 bytes; expected 1048576 bytes at most",
            ),
            (
                problem::<CreateSubtask>(json!({"task": "make"})),
                "task: invalid type: string \"make\", expected a map; expected what the tool's input schema says",
            ),
        ] {
            assert_eq!(said, expected);
        }
        let unknown = problem::<AskHuman>(json!({"question": "q", "to": "a2"}));
        assert!(unknown.contains("unknown field `to`"), "{unknown}");
    }

    #[test]
    fn a_result_of_null_is_a_result() {
        let of = |arguments: Value| {
            let arguments = arguments.as_object().unwrap().clone();
            read::<Complete>(arguments).unwrap().structured
        };
        assert_eq!(of(json!({"summary": "s"})), None);
        assert_eq!(
            of(json!({"summary": "s", "structured": null})),
            Some(Value::Null)
        );
    }
}
