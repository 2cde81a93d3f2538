//! What tools are told. The comments here are what clients and their models read.

use conductor_protocol::Namespace;
use conductor_protocol::terms::Answer;
use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use crate::cli::approvals::Reply;
use crate::exit::{Failure, Outcome};

/// Most tasks of one list.
const LIST_MAX: usize = 500;
/// How many there are unless told otherwise.
const LIST_USUAL: usize = 50;
/// Longest time that one call waits, in seconds; clients give up before.
const WAIT_MAX_S: u64 = 3_600;
/// How long it waits unless told otherwise: most clients give up after a minute.
const WAIT_USUAL_S: u64 = 50;

/// What kind of agent a prompt is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub(super) enum PromptRuntime {
    #[default]
    Claude,
    Codex,
}

/// A task to submit.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Submit {
    #[schemars(
        description = r#"Program and arguments, such as ["make", "test"]; a shell line is ["sh", "-c", "…"]."#
    )]
    command: Option<Vec<String>>,
    /// What a coding agent is asked to do, instead of a command.
    prompt: Option<String>,
    /// Which coding agent a prompt is for; claude unless told otherwise.
    runtime: Option<PromptRuntime>,
    /// The model that a prompt is for.
    model: Option<String>,
    /// What people call the task.
    name: Option<String>,
    /// Where it waits; "default" unless told otherwise.
    queue: Option<String>,
    /// Whose task it is.
    namespace: Option<String>,
    /// Idempotency key: the same key again is the same task.
    key: Option<String>,
    /// 0 (lowest) to 9.
    #[schemars(range(max = 9))]
    priority: Option<u8>,
    /// Ids of tasks that must succeed first.
    needs: Option<Vec<String>>,
    /// Every other field of a task, as in a task file: run, id, labels, on_need_failed, retry, timeouts,
    /// start_at, delay, concurrency, slots, metadata, sandbox, workspace, setup, checks, artifacts,
    /// budget, models, secrets, approvals, result_schema, subtasks, traceparent. For example
    /// {"run": {"claude": {"prompt": "…", "max_turns": 50}}, "workspace": {"git": {"url": "…"}},
    /// "budget": {"usd": 5}, "timeouts": {"run": "1h"}}. A field stands here or beside it, not in
    /// both places.
    task: Option<Map<String, Value>>,
}

impl Submit {
    /// The task as a task file has it.
    pub(super) fn into_task(self) -> Outcome<Value> {
        let run = self.run()?;
        let mut task = self.task.unwrap_or_default();
        let beside = [
            ("run", run),
            ("name", self.name.map(Value::from)),
            ("queue", self.queue.map(Value::from)),
            ("namespace", self.namespace.map(Value::from)),
            ("key", self.key.map(Value::from)),
            ("priority", self.priority.map(Value::from)),
            ("needs", self.needs.map(Value::from)),
        ];
        for (field, value) in beside {
            let Some(value) = value else { continue };
            if task.insert(field.to_owned(), value).is_some() {
                let message = format!("task.{field}: stands beside what says the same without it");
                return Err(Failure::usage(message).hint("give one of them"));
            }
        }
        Ok(Value::Object(task))
    }

    fn run(&self) -> Outcome<Option<Value>> {
        let Some(prompt) = &self.prompt else {
            let alone = [
                ("runtime", self.runtime.is_some()),
                ("model", self.model.is_some()),
            ];
            if let Some((field, _)) = alone.iter().find(|(_, is_there)| *is_there) {
                let message = format!("{field}: means nothing without a prompt");
                return Err(Failure::usage(message).hint("give a prompt, or write task.run"));
            }
            return Ok(self.command.as_ref().map(|c| json!({"command": c})));
        };
        if self.command.is_some() {
            return Err(Failure::usage("command: stands beside a prompt").hint("give one of them"));
        }
        let mut what = Map::from_iter([("prompt".to_owned(), Value::from(prompt.as_str()))]);
        if let Some(model) = &self.model {
            what.insert("model".to_owned(), Value::from(model.as_str()));
        }
        Ok(Some(match self.runtime.unwrap_or_default() {
            PromptRuntime::Claude => json!({"claude": what}),
            PromptRuntime::Codex => json!({"codex": what}),
        }))
    }
}

/// Where a task stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub(super) enum TaskState {
    Pending,
    Ready,
    Leased,
    Running,
    AwaitingApproval,
    Succeeded,
    Failed,
    Cancelled,
    TimedOut,
}

impl TaskState {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Ready => "ready",
            Self::Leased => "leased",
            Self::Running => "running",
            Self::AwaitingApproval => "awaiting_approval",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::TimedOut => "timed_out",
        }
    }
}

/// Which tasks to list.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct List {
    /// Only tasks in this state.
    pub(super) state: Option<TaskState>,
    /// Only tasks of this queue.
    pub(super) queue: Option<String>,
    /// Only tasks of this namespace.
    pub(super) namespace: Option<String>,
    /// Ended tasks too; by itself true where a state is named.
    #[serde(default)]
    pub(super) include_ended: bool,
    /// Most tasks, 1 to 500; the newest 50 unless told otherwise.
    #[schemars(range(min = 1, max = 500))]
    limit: Option<usize>,
}

impl List {
    pub(super) fn limit(&self) -> Outcome<usize> {
        match self.limit.unwrap_or(LIST_USUAL) {
            limit @ 1..=LIST_MAX => Ok(limit),
            other => Err(Failure::usage(format!("limit: is {other}"))
                .hint(format!("a whole number from 1 to {LIST_MAX}"))),
        }
    }
}

/// Which task to show.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Show {
    /// Id, beginning or end of one, or name.
    pub(super) task: String,
    /// Everything that happened to it too, event by event.
    #[serde(default)]
    pub(super) include_events: bool,
}

/// Which task to wait for.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Watch {
    /// Id, beginning or end of one, or name.
    pub(super) task: String,
    /// How long to wait at most, in seconds, up to 3600; 50 unless told otherwise.
    #[schemars(range(max = 3600))]
    timeout_seconds: Option<u64>,
}

impl Watch {
    pub(super) fn timeout_seconds(&self) -> Outcome<u64> {
        match self.timeout_seconds.unwrap_or(WAIT_USUAL_S) {
            seconds @ 0..=WAIT_MAX_S => Ok(seconds),
            other => Err(
                Failure::usage(format!("timeout_seconds: is {other}")).hint(format!(
                    "at most {WAIT_MAX_S}; call it again for a task that takes longer"
                )),
            ),
        }
    }
}

/// Which task to cancel.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Cancel {
    /// Id, beginning or end of one, or name.
    pub(super) task: String,
    /// Why, for people.
    pub(super) reason: Option<String>,
}

/// Nothing to be told.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Nothing {}

/// Yes or no.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub(super) enum Answered {
    Approve,
    Deny,
}

/// An answer to a question of a task, or about a budget.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Decide {
    /// Id, beginning or end of one, or name of the task that asks.
    pub(super) task: Option<String>,
    /// Instead of a task: the namespace whose budget of the day is used up. approve lets it spend as
    /// much again today, deny fails what waits for it.
    pub(super) namespace: Option<String>,
    /// The number of the question, as list_approvals shows it; the only one unless told otherwise.
    pub(super) approval: Option<u32>,
    /// Whether it may.
    pub(super) answer: Answered,
    /// What to say with it: the model that asks reads it, or whoever reads why a task failed. About a
    /// budget it is kept with deny alone.
    pub(super) text: Option<String>,
}

impl Decide {
    /// What is answered, in the words of the command line.
    pub(super) fn into_reply(self) -> Outcome<(Reply, Answer)> {
        let namespace = self.namespace.as_deref().map(str::parse::<Namespace>);
        let namespace = namespace.transpose().map_err(|e| {
            Failure::usage(format!("namespace: {e}")).hint("as list_approvals shows it")
        })?;
        let is_number_for_none = namespace.is_some() && self.approval.is_some();
        if namespace.is_some() == self.task.is_some() || is_number_for_none {
            let message = "task: names the task that asks, with approval where it asks more than \
                           one question; namespace stands instead of both";
            return Err(
                Failure::usage(message).hint("name one of them, as list_approvals shows it")
            );
        }
        let answer = match self.answer {
            Answered::Approve => Answer::Allow,
            Answered::Deny => Answer::Deny,
        };
        let reply = Reply {
            task: self.task,
            number: self.approval,
            namespace,
            text: self.text,
        };
        Ok((reply, answer))
    }
}

/// Reads what a tool is told; on failure the field and what is wrong with it.
pub(super) fn read<T: DeserializeOwned>(arguments: Map<String, Value>) -> Outcome<T> {
    serde_path_to_error::deserialize(Value::Object(arguments)).map_err(|e| {
        let field = e.path().to_string();
        // Of what is missing or unknown the error itself names the field.
        let message = match field.as_str() {
            "." => e.inner().to_string(),
            field => format!("{field}: {}", e.inner()),
        };
        Failure::usage(message).hint("the tool's input schema says what is expected")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use conductor_protocol::submission::Submission;
    use serde::de::Visitor;

    fn task(arguments: Value) -> Result<Value, String> {
        let Value::Object(arguments) = arguments else {
            panic!("an object")
        };
        let submit: Submit = read(arguments).map_err(|e| e.message)?;
        submit.into_task().map_err(|e| e.message)
    }

    #[test]
    fn what_stands_beside_a_task_is_part_of_it() {
        let told = json!({"command": ["true"], "queue": "q", "task": {"slots": 2}});
        let made = json!({"run": {"command": ["true"]}, "queue": "q", "slots": 2});
        assert_eq!(task(told), Ok(made));
        let told = json!({"prompt": "p", "runtime": "codex", "model": "m"});
        let made = json!({"run": {"codex": {"prompt": "p", "model": "m"}}});
        assert_eq!(task(told), Ok(made));
        assert_eq!(
            task(json!({"prompt": "p"})),
            Ok(json!({"run": {"claude": {"prompt": "p"}}}))
        );
    }

    #[test]
    fn an_answer_is_for_a_task_or_for_a_namespace() {
        let told = |arguments: Value| {
            let Value::Object(arguments) = arguments else {
                panic!("an object")
            };
            let decide: Decide = read(arguments).map_err(|e| e.message)?;
            decide.into_reply().map_err(|e| e.message)
        };
        let (reply, answer) = told(json!({"task": "t", "approval": 2, "answer": "deny"})).unwrap();
        assert_eq!((reply.task.as_deref(), reply.number), (Some("t"), Some(2)));
        assert_eq!((reply.namespace, answer), (None, Answer::Deny));
        let (reply, answer) = told(json!({"namespace": "team", "answer": "approve"})).unwrap();
        assert_eq!((reply.task, answer), (None, Answer::Allow));
        assert_eq!(reply.namespace, Some("team".parse().unwrap()));
        for wrong in [
            json!({"answer": "approve"}),
            json!({"task": "t", "namespace": "team", "answer": "approve"}),
            json!({"namespace": "team", "approval": 1, "answer": "approve"}),
        ] {
            let problem = told(wrong).unwrap_err();
            assert!(problem.starts_with("task: "), "{problem}");
        }
        let problem = told(json!({"namespace": "a b", "answer": "deny"})).unwrap_err();
        assert!(problem.starts_with("namespace: must be"), "{problem}");
    }

    #[test]
    fn what_is_wrong_names_its_field() {
        for (told, field) in [
            (json!({"command": "true"}), "command: "),
            (json!({"command": ["a", 1]}), "command[1]: "),
            (json!({"priority": 300}), "priority: "),
            (json!({"prompt": "p", "runtime": "gemini"}), "runtime: "),
            (json!({"prioritty": 1}), "prioritty: unknown field"),
            (json!({"prompt": "p", "command": ["true"]}), "command: "),
            (json!({"model": "m"}), "model: "),
            (
                json!({"queue": "a", "task": {"queue": "b"}}),
                "task.queue: ",
            ),
            (
                json!({"prompt": "p", "task": {"run": {"noop": {}}}}),
                "task.run: ",
            ),
        ] {
            let wrong = task(told.clone()).unwrap_err();
            assert!(wrong.starts_with(field), "{told}: {wrong}");
        }
        let missing = read::<Show>(Map::new()).unwrap_err().message;
        assert!(missing.contains("`task`"), "{missing}");
    }

    /// Learns the fields of a structure from what its reader asks for.
    #[derive(Default)]
    struct Fields(&'static [&'static str]);

    impl<'de> serde::Deserializer<'de> for &mut Fields {
        type Error = serde::de::value::Error;

        fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Self::Error> {
            Err(serde::de::Error::custom("it is no structure"))
        }

        fn deserialize_struct<V: Visitor<'de>>(
            self,
            _: &'static str,
            fields: &'static [&'static str],
            _: V,
        ) -> Result<V::Value, Self::Error> {
            self.0 = fields;
            Err(serde::de::Error::custom("they are known by now"))
        }

        serde::forward_to_deserialize_any! {
            bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf
            option unit unit_struct newtype_struct seq tuple tuple_struct map enum identifier
            ignored_any
        }
    }

    #[test]
    fn every_field_of_a_task_is_told() {
        let mut fields = Fields::default();
        Submission::deserialize(&mut fields).unwrap_err();
        assert!(fields.0.contains(&"run"), "{:?}", fields.0);
        let schema = schemars::schema_for!(Submit).to_value();
        let beside = schema["properties"].as_object().unwrap();
        let told = beside["task"]["description"].as_str().unwrap();
        let mut told = told.split(|c: char| c != '_' && !c.is_alphanumeric());
        // Another name of the key.
        let fields = fields.0.iter().filter(|f| **f != "idempotency_key");
        for field in fields {
            let is_told = beside.contains_key(*field) || told.clone().any(|word| word == *field);
            assert!(is_told, "{field}");
        }
        assert!(!told.any(|word| word == "prioritty"));
    }

    #[test]
    fn states_are_called_as_everywhere() {
        for state in [
            TaskState::Pending,
            TaskState::AwaitingApproval,
            TaskState::TimedOut,
        ] {
            let read: TaskState = serde_json::from_value(state.as_str().into()).unwrap();
            assert_eq!(read, state);
        }
    }

    #[test]
    fn limits_are_said() {
        let list = |limit| List {
            limit: Some(limit),
            ..List::default()
        };
        assert_eq!(list(LIST_MAX).limit().unwrap(), LIST_MAX);
        assert!(list(0).limit().is_err() && list(LIST_MAX + 1).limit().is_err());
        let watch = Watch {
            task: String::new(),
            timeout_seconds: Some(WAIT_MAX_S + 1),
        };
        let wrong = watch.timeout_seconds().unwrap_err();
        assert!(wrong.message.starts_with("timeout_seconds: "));
    }
}
