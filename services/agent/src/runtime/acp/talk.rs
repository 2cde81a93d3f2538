//! What an agent asks its client about tools, and what people say to it while it works.
//!
//! The protocol has no words for a turn that is under way: what is said meanwhile is the prompt of
//! the next one, in the same session.

use std::collections::BTreeMap;

use conductor_protocol::event::Question;
use conductor_protocol::terms::Answer;
use serde_json::{Value, json};

use super::client::line_of;
use crate::people::{Reply, cut};
use crate::runtime::stream::{items, say, text};
use crate::runtime::{SUMMARY_MAX, Signal};

/// Who decides whether a tool may run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Consent {
    /// Nobody may use one.
    #[default]
    Denied,
    /// The task allows them all.
    Allowed,
    /// People do, each time.
    Asked,
}

/// What it asked and nobody has answered, and what it has not been told yet.
#[derive(Debug, Default)]
pub(super) struct Talk {
    consent: Consent,
    /// Whether the task itself allows tools: only then one may be allowed for good.
    allows_tools: bool,
    asked: BTreeMap<String, Permission>,
    denied: Vec<String>,
    words: Vec<String>,
}

/// A tool that it wants to use.
#[derive(Debug)]
struct Permission {
    /// Of its request.
    id: Value,
    tool: String,
    options: Vec<Value>,
}

impl Talk {
    pub(super) fn new(consent: Consent, allows_tools: bool) -> Self {
        Self {
            consent,
            allows_tools,
            ..Self::default()
        }
    }

    /// It wants to know whether a tool may run.
    pub(super) fn requested(&mut self, id: &Value, value: &Value, out: &mut Vec<Signal>) {
        let permission = Permission {
            id: id.clone(),
            tool: text(value, "/params/toolCall/title")
                .unwrap_or("a tool")
                .to_owned(),
            options: items(value, "/params/options").cloned().collect(),
        };
        match self.consent {
            Consent::Denied => self.decide(&permission, Answer::Deny, out),
            Consent::Allowed => self.decide(&permission, Answer::Allow, out),
            Consent::Asked => {
                let summary = summary(&permission.tool, value);
                say(out, &format!("[asks: {summary}]\n"));
                let name = id.to_string();
                out.push(Signal::Ask(name.clone(), Question::Tool, summary));
                self.asked.insert(name, permission);
            }
        }
    }

    /// What it asked under this name was answered.
    pub(super) fn answered(&mut self, name: &str, reply: &Reply, out: &mut Vec<Signal>) {
        let Some(permission) = self.asked.remove(name) else {
            return;
        };
        if reply.answer == Answer::Allow {
            say(out, &format!("[allow: {}]\n", permission.tool));
        }
        self.decide(&permission, reply.answer, out);
        // An answer has room for a choice alone.
        if let Some(said) = &reply.text {
            self.words.push(said.clone());
        }
    }

    /// It does not want to know any more what it asked with this request.
    pub(super) fn withdrawn(&mut self, value: &Value, out: &mut Vec<Signal>) {
        let name = value.pointer("/params/requestId").map(Value::to_string);
        if let Some((name, asked)) = name.and_then(|name| self.asked.remove_entry(&name)) {
            asked.withdraw(name, out);
        }
    }

    /// Its turn is over: what it asked in it, it does not want to know any more.
    pub(super) fn turn_ended(&mut self, out: &mut Vec<Signal>) {
        for (name, asked) in std::mem::take(&mut self.asked) {
            asked.withdraw(name, out);
        }
    }

    /// Answers by the kind of an option, for their order says nothing.
    fn decide(&mut self, permission: &Permission, answer: Answer, out: &mut Vec<Signal>) {
        let kinds: &[&str] = match answer {
            Answer::Allow if self.allows_tools => &["allow_once", "allow_always"],
            Answer::Allow => &["allow_once"],
            Answer::Deny => &[],
        };
        let allowing = permission.option_of(kinds);
        if allowing.is_none() {
            say(out, &format!("[denied: {}]\n", permission.tool));
            self.denied.push(permission.tool.clone());
        }
        let denying = || permission.option_of(&["reject_once", "reject_always"]);
        let outcome = match allowing.or_else(denying) {
            Some(option) => json!({"outcome": "selected", "optionId": option}),
            None => json!({"outcome": "cancelled"}),
        };
        out.push(Signal::Say(permission.answer(&outcome)));
    }

    /// Its turn is cancelled: whatever it asks is answered so, by the protocol, and nothing more is
    /// said to it.
    pub(super) fn cancel(&mut self) -> Vec<u8> {
        self.words.clear();
        let asked = std::mem::take(&mut self.asked);
        let cancelled = json!({"outcome": "cancelled"});
        let answers = asked.values().map(|asked| asked.answer(&cancelled));
        answers.collect::<Vec<_>>().concat()
    }

    /// Somebody says something to it.
    pub(super) fn told(&mut self, text: &str, out: &mut Vec<Signal>) {
        say(out, &format!("[told: {text}]\n"));
        self.words.push(text.to_owned());
    }

    /// What is to be said to it now that its turn is over.
    pub(super) fn take_words(&mut self) -> Vec<String> {
        std::mem::take(&mut self.words)
    }

    /// Tools that it was not allowed to use.
    pub(super) fn denied(&self) -> &[String] {
        &self.denied
    }
}

impl Permission {
    /// The first option of one of these kinds, in their order.
    fn option_of(&self, kinds: &[&str]) -> Option<&str> {
        let of_kind = |kind: &&str| {
            let mut options = self.options.iter();
            options.find(|o| text(o, "/kind") == Some(*kind))
        };
        let chosen = kinds.iter().find_map(of_kind)?;
        text(chosen, "/optionId")
    }

    /// Nobody is asked about it any more; every request is answered all the same.
    fn withdraw(&self, name: String, out: &mut Vec<Signal>) {
        say(out, &format!("[asks no longer: {}]\n", self.tool));
        let cancelled = json!({"outcome": "cancelled"});
        out.push(Signal::Say(self.answer(&cancelled)));
        out.push(Signal::Withdraw(name));
    }

    fn answer(&self, outcome: &Value) -> Vec<u8> {
        let result = json!({"outcome": outcome});
        line_of(&json!({"jsonrpc": "2.0", "id": self.id, "result": result}))
    }
}

/// What people are asked about it.
fn summary(tool: &str, value: &Value) -> String {
    let input = value.pointer("/params/toolCall/rawInput");
    let command = input.and_then(|input| text(input, "/command"));
    let what = match command {
        Some(command) => Some(command.to_owned()),
        None => input.map(Value::to_string),
    };
    let whole = what.map_or_else(|| tool.to_owned(), |what| format!("{tool}: {what}"));
    cut(&whole, SUMMARY_MAX)
}
