//! The events of `codex exec --json`. A turn fails by `turn.failed` or the exit code alone:
//! `error` lines and items of type error come on good runs, too.

use conductor_protocol::OutcomeClass;
use conductor_protocol::event::Usage;
use serde_json::Value;

use crate::inside::Moment;
use crate::reaper::Status;
use crate::runtime::stream::{
    Decode, class_of_words, count, cut, keep, say, say_thought, say_tool, text, unfinished,
};
use crate::runtime::{Signal, Verdict};
use crate::usage::{Counts, Meter};

#[derive(Debug, Default)]
pub(super) struct Decoder {
    meter: Meter,
    model: Option<String>,
    thread: Option<String>,
    /// The last thing that the model said.
    said: Option<String>,
    /// The last thing it had said when its turn ended.
    result: Option<String>,
    /// What the thread has used, as it says.
    used: Option<Usage>,
    turns: u32,
    end: Option<End>,
    denied: Vec<String>,
    /// What it last said was wrong.
    trouble: Option<String>,
    is_throttled: bool,
}

#[derive(Debug)]
enum End {
    Completed,
    Failed(String),
}

impl Decode for Decoder {
    fn line(&mut self, value: &Value, line: &[u8], out: &mut Vec<Signal>) {
        match text(value, "/type") {
            Some("thread.started") => {
                if let Some(thread) = text(value, "/thread_id") {
                    self.thread = Some(thread.to_owned());
                }
                // By it the thread is known, should this process not live to say more.
                out.push(Signal::Usage(self.usage()));
            }
            Some("turn.started") => out.push(Signal::Moment(Moment::TurnBegan)),
            Some("item.started") => Self::began(value, out),
            Some("item.updated") => {}
            Some("item.completed") => self.completed(value, line, out),
            Some("turn.completed") => {
                self.turns += 1;
                self.used = Some(used(value));
                out.push(Signal::Moment(Moment::TurnEnded));
                out.push(Signal::Usage(self.usage()));
                self.finish(End::Completed, out);
            }
            Some("turn.failed") => {
                let why = text(value, "/error/message").unwrap_or("its turn failed");
                self.finish(End::Failed(why.to_owned()), out);
            }
            Some("error") => self.trouble(text(value, "/message").unwrap_or_default(), out),
            _ => keep(line, out),
        }
    }
}

impl Decoder {
    pub(super) fn new(model: Option<String>) -> Self {
        Self {
            model,
            ..Self::default()
        }
    }

    /// An attempt begins, perhaps on a thread that is there.
    pub(super) fn begin(&mut self, meter: Meter, thread: Option<&str>) {
        self.meter = meter;
        self.thread = thread.map(str::to_owned);
    }

    fn finish(&mut self, end: End, out: &mut Vec<Signal>) {
        // A later end replaces an earlier one: the last word counts.
        self.end = Some(end);
        self.result.clone_from(&self.said);
        out.push(Signal::Final);
    }

    /// It tries again, or is about to say that it gives up; it may do so for ever.
    fn trouble(&mut self, message: &str, out: &mut Vec<Signal>) {
        say(out, &format!("[{message}]\n"));
        out.push(Signal::Waiting);
        if class_of_words(message) == OutcomeClass::RateLimited && !self.is_throttled {
            self.is_throttled = true;
            out.push(Signal::Throttled(None));
        }
        self.trouble = Some(message.to_owned());
    }

    fn began(value: &Value, out: &mut Vec<Signal>) {
        let Some((tool, input)) = tool(value) else {
            return;
        };
        say_tool(out, &tool, &input);
        if let Some(call) = text(value, "/item/id") {
            let began = Moment::ToolBegan(call.to_owned(), tool);
            out.push(Signal::Moment(began));
        }
    }

    fn completed(&mut self, value: &Value, line: &[u8], out: &mut Vec<Signal>) {
        match text(value, "/item/type") {
            Some("agent_message") => {
                let said = text(value, "/item/text").unwrap_or_default();
                say(out, said);
                say(out, "\n");
                self.said = Some(said.to_owned());
            }
            Some("error") => {
                let message = text(value, "/item/message").unwrap_or_default();
                say(out, &format!("[{message}]\n"));
            }
            Some("reasoning") => {
                let thought = text(value, "/item/text").unwrap_or_default();
                say_thought(out, &format!("{thought}\n"));
            }
            // What is to be done is no fact.
            Some("todo_list" | "plan") => {}
            _ => match tool(value) {
                Some((tool, _)) => self.tool_ended(value, tool, out),
                None => keep(line, out),
            },
        }
    }

    fn tool_ended(&mut self, value: &Value, tool: String, out: &mut Vec<Signal>) {
        let status = text(value, "/item/status").unwrap_or_default();
        if status == "declined" {
            say(out, &format!("[denied: {tool}]\n"));
            self.denied.push(tool);
        }
        let code = value.pointer("/item/exit_code").and_then(Value::as_i64);
        if let Some(code) = code.filter(|code| *code != 0) {
            say(out, &format!("[exit code {code}]\n"));
        }
        if let Some(call) = text(value, "/item/id") {
            let has_failed = matches!(status, "failed" | "declined");
            out.push(Signal::Moment(Moment::ToolEnded(
                call.to_owned(),
                has_failed,
            )));
        }
    }

    /// What the task has used.
    fn usage(&self) -> Usage {
        let said = Usage {
            session: self.thread.clone(),
            model: self.model.clone(),
            turns: self.turns,
            ..self.used.clone().unwrap_or_default()
        };
        // The figures are the thread's in every version that was measured.
        self.meter.total(&said, Counts::Session)
    }

    pub(super) fn judge(&self, status: &Status, last_words: Option<String>) -> Verdict {
        Verdict {
            failure: self.failure(status, last_words),
            result: self
                .result
                .as_ref()
                .or(self.said.as_ref())
                .map(|said| cut(said)),
            usage: self.thread.is_some().then(|| self.usage()),
        }
    }

    fn failure(
        &self,
        status: &Status,
        last_words: Option<String>,
    ) -> Option<(OutcomeClass, String)> {
        match (&self.end, status) {
            (Some(End::Failed(why)), _) => Some((class_of_words(why), why.clone())),
            (Some(End::Completed), Status::Exited(code)) if *code != 0 => Some((
                OutcomeClass::Crashed,
                format!("exit code {code} after its turn was completed"),
            )),
            // Whatever ended the process then, its work was done.
            (Some(End::Completed), _) => self.denial(),
            // It says on standard error what keeps it from beginning.
            (None, Status::Exited(code)) if *code != 0 && self.turns == 0 => {
                let why = last_words.or_else(|| self.trouble.clone());
                let why = why.unwrap_or_else(|| format!("exit code {code} without a result"));
                let class = match class_of_words(&why) {
                    OutcomeClass::ModelError => OutcomeClass::Crashed,
                    told => told,
                };
                Some((class, why))
            }
            (None, _) => Some(unfinished(status, last_words)),
        }
    }

    fn denial(&self) -> Option<(OutcomeClass, String)> {
        let denied = self.denied.join(", ");
        (!denied.is_empty()).then(|| (OutcomeClass::Denied, format!("denied: {denied}")))
    }
}

/// What an item runs, and with what, if it runs something.
fn tool(value: &Value) -> Option<(String, String)> {
    let kind = text(value, "/item/type")?;
    let field = |name: &str| {
        text(value, &format!("/item/{name}"))
            .unwrap_or_default()
            .to_owned()
    };
    match kind {
        "command_execution" => Some((kind.to_owned(), field("command"))),
        "file_change" => {
            let changes = value.pointer("/item/changes");
            Some((
                kind.to_owned(),
                changes.map(Value::to_string).unwrap_or_default(),
            ))
        }
        "mcp_tool_call" => {
            let name = format!("{}.{}", field("server"), field("tool"));
            let arguments = value.pointer("/item/arguments");
            Some((name, arguments.map(Value::to_string).unwrap_or_default()))
        }
        "web_search" => Some((kind.to_owned(), field("query"))),
        "collab_tool_call" => Some((kind.to_owned(), field("tool"))),
        _ => None,
    }
}

/// What the thread has used. Its input counts what came from the cache, ours does not.
fn used(value: &Value) -> Usage {
    let cached = count(value, "/usage/cached_input_tokens");
    Usage {
        input_tokens: count(value, "/usage/input_tokens").saturating_sub(cached),
        cached_tokens: cached,
        cache_write_tokens: count(value, "/usage/cache_write_input_tokens"),
        output_tokens: count(value, "/usage/output_tokens"),
        ..Usage::default()
    }
}
