//! The CLI's control protocol: what it asks before it uses a tool, what is said to it while it
//! runs, and its interruption (agent-facts 2.1; the reference is the SDK's `sdk.d.ts`).

use std::collections::BTreeMap;

use conductor_protocol::event::Question;
use conductor_protocol::terms::Answer;
use serde_json::{Map, Value, json};

use crate::people::{Reply, cut};
use crate::runtime::stream::{say, text};
use crate::runtime::{SUMMARY_MAX, Signal};

/// A tool of the CLI with which the model asks people itself.
const ASKS_PEOPLE: &str = "AskUserQuestion";

/// What it reads first.
pub(super) fn first_words(asks: bool, prompt: &str) -> Vec<u8> {
    let mut words = Vec::new();
    if asks {
        // Without it, it does not ask.
        let request = json!({"subtype": "initialize", "hooks": null});
        words = control_request("conductor-initialize", &request);
    }
    words.extend(user(prompt));
    words
}

/// What is said to it to interrupt what it does.
pub(super) fn interrupt() -> Vec<u8> {
    control_request("conductor-interrupt", &json!({"subtype": "interrupt"}))
}

fn control_request(id: &str, request: &Value) -> Vec<u8> {
    line(&json!({"type": "control_request", "request_id": id, "request": request}))
}

fn user(text: &str) -> Vec<u8> {
    let content = json!([{"type": "text", "text": text}]);
    line(&json!({"type": "user", "message": {"role": "user", "content": content}}))
}

fn line(value: &Value) -> Vec<u8> {
    format!("{value}\n").into_bytes()
}

/// What the CLI asked and was not answered, and what was said to it and it has not read.
#[derive(Debug, Default)]
pub(super) struct Talk {
    asked: BTreeMap<String, Tool>,
    /// Words besides the prompt.
    told: u32,
    /// Words it says it has read, the prompt included.
    read: u32,
}

/// A tool it wants to use.
#[derive(Debug)]
struct Tool {
    name: String,
    input: Value,
}

impl Talk {
    /// It has read the next of the words that were said to it.
    pub(super) fn has_read(&mut self) {
        self.read += 1;
    }

    /// Whether something was said to it that it has not read: then it goes on after its result.
    pub(super) fn has_unread(&self) -> bool {
        self.told > 0 && self.read <= self.told
    }

    /// Somebody says something to the model.
    pub(super) fn told(&mut self, text: &str) -> Vec<Signal> {
        self.told += 1;
        let mut out = Vec::new();
        say(&mut out, &format!("[told: {text}]\n"));
        out.push(Signal::Say(user(text)));
        out
    }

    /// The CLI wants to know something.
    pub(super) fn requested(&mut self, value: &Value, out: &mut Vec<Signal>) {
        let Some(id) = text(value, "/request_id") else {
            return;
        };
        let request = value.pointer("/request").unwrap_or(&Value::Null);
        if text(request, "/subtype") != Some("can_use_tool") {
            // It would wait for ever otherwise.
            let error = json!({"subtype": "error", "request_id": id, "error": "not supported"});
            let response = json!({"type": "control_response", "response": error});
            out.push(Signal::Say(line(&response)));
            return;
        }
        let tool = Tool {
            name: text(request, "/tool_name").unwrap_or("a tool").to_owned(),
            input: request.pointer("/input").cloned().unwrap_or(json!({})),
        };
        let (question, summary) = tool.question();
        say(out, &format!("[asks: {summary}]\n"));
        out.push(Signal::Ask(id.to_owned(), question, summary));
        self.asked.insert(id.to_owned(), tool);
    }

    /// The CLI does not want to know any more what it asked.
    pub(super) fn withdrawn(&mut self, value: &Value, out: &mut Vec<Signal>) {
        let id = text(value, "/request_id").unwrap_or_default();
        if let Some(tool) = self.asked.remove(id) {
            say(out, &format!("[asks no longer: {}]\n", tool.name));
            out.push(Signal::Withdraw(id.to_owned()));
        }
    }

    /// What it asked under this id was answered.
    pub(super) fn answered(&mut self, id: &str, reply: &Reply) -> Vec<Signal> {
        let Some(tool) = self.asked.remove(id) else {
            return Vec::new();
        };
        let said = reply.text.as_deref();
        let decision = match reply.answer {
            Answer::Allow => json!({"behavior": "allow", "updatedInput": tool.allowed(said)}),
            Answer::Deny => {
                let message = said.unwrap_or("Nobody allowed this. Go on without it.");
                json!({"behavior": "deny", "message": message})
            }
        };
        let success = json!({"subtype": "success", "request_id": id, "response": decision});
        let response = json!({"type": "control_response", "response": success});
        let mut out = Vec::new();
        say(
            &mut out,
            &format!("[{}: {}]\n", reply.answer.as_str(), tool.name),
        );
        out.push(Signal::Say(line(&response)));
        out
    }
}

impl Tool {
    /// What people are asked about it.
    fn question(&self) -> (Question, String) {
        let field = |name: &str| self.input.get(name).and_then(Value::as_str);
        if self.name == ASKS_PEOPLE {
            let asked: Vec<&str> = self.questions().collect();
            return (Question::Human, cut(&asked.join(" "), SUMMARY_MAX));
        }
        let what = match field("command") {
            Some(command) => command.to_owned(),
            None => self.input.to_string(),
        };
        let summary = format!("{}: {what}", self.name);
        (Question::Tool, cut(&summary, SUMMARY_MAX))
    }

    fn questions(&self) -> impl Iterator<Item = &str> {
        let all = self.input.get("questions").and_then(Value::as_array);
        let all = all.into_iter().flatten();
        all.filter_map(|q| text(q, "/question"))
    }

    /// Its input, once it is allowed: what somebody said answers what the model asked.
    fn allowed(&self, said: Option<&str>) -> Value {
        let mut input = self.input.clone();
        if self.name == ASKS_PEOPLE
            && let Some(said) = said
            && let Some(fields) = input.as_object_mut()
        {
            let answers = self.questions().map(|q| (q.to_owned(), said.into()));
            let answers: Map<String, Value> = answers.collect();
            fields.insert("answers".to_owned(), answers.into());
        }
        input
    }
}
