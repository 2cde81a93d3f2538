//! The CLI's stream-json, read tolerantly: unknown lines are kept as output, keys come in
//! any order, and the outcome is that of the `result` event, never the exit code alone.

use conductor_protocol::OutcomeClass;
use conductor_protocol::event::Usage;
use conductor_protocol::limits::RESULT_BYTES_MAX;
use serde_json::Value;

use super::control::Talk;
use crate::inside::Moment;
use crate::output::Channel;
use crate::people::Reply;
use crate::reaper::Status;
use crate::runtime::{Signal, Verdict};

/// How much of a line that is not understood goes into the output.
const RAW_KEPT: usize = 4096;

#[derive(Debug, Default)]
pub(super) struct Decoder {
    allows_denials: bool,
    /// Turns of all results: each counts its own.
    turns: u32,
    session: Option<String>,
    model: Option<String>,
    /// Whether partial messages bring the text: then whole ones would repeat it.
    has_partials: bool,
    result: Option<Value>,
    broken_servers: Vec<String>,
    /// What it asked people, and the words it has not read yet.
    talk: Talk,
}

impl Decoder {
    pub(super) fn new(allows_denials: bool) -> Self {
        Self {
            allows_denials,
            ..Self::default()
        }
    }

    pub(super) fn line(&mut self, line: &[u8], out: &mut Vec<Signal>) {
        if line.iter().all(u8::is_ascii_whitespace) {
            return;
        }
        let Ok(value) = serde_json::from_slice::<Value>(line) else {
            let mut raw = line
                .get(..RAW_KEPT.min(line.len()))
                .unwrap_or_default()
                .to_vec();
            raw.push(b'\n');
            out.push(Signal::Text(Channel::Stdout, raw));
            return;
        };
        match text(&value, "/type") {
            Some("system") => self.system(&value, out),
            Some("stream_event") => self.partial(&value, out),
            Some("assistant") => self.assistant(&value, out),
            Some("user") if value.pointer("/isReplay") == Some(&Value::Bool(true)) => {
                self.talk.has_read();
            }
            Some("user") => answers(&value, out),
            Some("control_request") => self.talk.requested(&value, out),
            Some("result") => {
                self.turns += turns(&value);
                out.push(Signal::Usage(self.usage(&value)));
                // A later result replaces an earlier one: the last word counts.
                self.result = Some(value);
                // Words it has not read yet have it go on.
                if !self.talk.has_unread() {
                    out.push(Signal::Final);
                }
            }
            // Whatever a newer CLI may say is no fact of ours.
            _ => {}
        }
    }

    pub(super) fn answered(&mut self, name: &str, reply: &Reply) -> Vec<Signal> {
        self.talk.answered(name, reply)
    }

    pub(super) fn told(&mut self, text: &str) -> Vec<Signal> {
        self.talk.told(text)
    }

    fn system(&mut self, value: &Value, out: &mut Vec<Signal>) {
        match text(value, "/subtype") {
            Some("init") => {
                self.session = text(value, "/session_id").map(str::to_owned);
                self.model = text(value, "/model").map(str::to_owned);
                let servers = value.pointer("/mcp_servers").and_then(Value::as_array);
                self.broken_servers = servers
                    .into_iter()
                    .flatten()
                    .filter(|s| text(s, "/status") == Some("failed"))
                    .filter_map(|s| text(s, "/name").map(str::to_owned))
                    .collect();
            }
            Some("api_retry") => {
                let status = value
                    .pointer("/error_status")
                    .map_or("?".to_owned(), Value::to_string);
                say(
                    out,
                    &format!("[the model service answered {status}; trying again]\n"),
                );
            }
            Some("permission_denied") => {
                say(
                    out,
                    &format!(
                        "[denied: {}]\n",
                        text(value, "/tool_name").unwrap_or("a tool")
                    ),
                );
            }
            _ => {}
        }
    }

    fn partial(&mut self, value: &Value, out: &mut Vec<Signal>) {
        let event = value.pointer("/event").unwrap_or(&Value::Null);
        match text(event, "/type") {
            Some("message_start") => out.push(Signal::Moment(Moment::TurnBegan)),
            Some("content_block_delta") => {
                if let Some(delta) = text(event, "/delta/thinking") {
                    out.push(Signal::Text(Channel::Thinking, delta.as_bytes().to_vec()));
                }
                if let Some(delta) = text(event, "/delta/text") {
                    self.has_partials = true;
                    say(out, delta);
                }
            }
            Some("message_stop") => {
                out.push(Signal::Moment(Moment::TurnEnded));
                if self.has_partials {
                    say(out, "\n");
                }
            }
            _ => {}
        }
    }

    fn assistant(&mut self, value: &Value, out: &mut Vec<Signal>) {
        let blocks = value.pointer("/message/content").and_then(Value::as_array);
        for block in blocks.into_iter().flatten() {
            match text(block, "/type") {
                Some("text") if !self.has_partials => {
                    say(out, text(block, "/text").unwrap_or_default());
                    say(out, "\n");
                }
                Some("tool_use") => {
                    let input = block
                        .pointer("/input")
                        .map(Value::to_string)
                        .unwrap_or_default();
                    let input: String = input.chars().take(200).collect();
                    let tool = text(block, "/name").unwrap_or("tool");
                    let used = format!("[{tool} {input}]\n").into_bytes();
                    out.push(Signal::Text(Channel::Tools, used));
                    if let Some(call) = text(block, "/id") {
                        let began = Moment::ToolBegan(call.to_owned(), tool.to_owned());
                        out.push(Signal::Moment(began));
                    }
                }
                _ => {}
            }
        }
    }

    /// `modelUsage` has everything, sub-agents included; `usage` only the main loop.
    fn usage(&self, result: &Value) -> Usage {
        let mut usage = Usage {
            session: text(result, "/session_id")
                .map(str::to_owned)
                .or(self.session.clone()),
            model: self.model.clone(),
            turns: self.turns,
            cost_usd: result
                .pointer("/total_cost_usd")
                .and_then(Value::as_f64)
                .unwrap_or(0.0),
            ..Usage::default()
        };
        let models = result.pointer("/modelUsage").and_then(Value::as_object);
        let count = |v: &Value, key: &str| v.get(key).and_then(Value::as_u64).unwrap_or(0);
        for used in models.into_iter().flat_map(serde_json::Map::values) {
            usage.input_tokens += count(used, "inputTokens");
            usage.cached_tokens += count(used, "cacheReadInputTokens");
            usage.cache_write_tokens += count(used, "cacheCreationInputTokens");
            usage.output_tokens += count(used, "outputTokens");
        }
        usage
    }

    pub(super) fn judge(&self, status: &Status, last_words: Option<String>) -> Verdict {
        let Some(result) = &self.result else {
            let (class, what) = match status {
                Status::NotStarted(problem) => (OutcomeClass::NotStarted, problem.clone()),
                Status::Signalled(n) => (
                    OutcomeClass::Crashed,
                    format!("ended by signal {n} without a result"),
                ),
                Status::Exited(0) => (OutcomeClass::BadOutput, "ended without a result".to_owned()),
                Status::Exited(n) => (
                    OutcomeClass::Crashed,
                    format!("exit code {n} without a result"),
                ),
            };
            let message = last_words.map_or(what.clone(), |words| format!("{what}: {words}"));
            let usage = self.session.as_ref().map(|session| Usage {
                session: Some(session.clone()),
                model: self.model.clone(),
                ..Usage::default()
            });
            return Verdict {
                failure: Some((class, message)),
                result: None,
                usage,
            };
        };
        let said = text(result, "/result").map(cut);
        Verdict {
            failure: self.failure(result),
            result: said,
            usage: Some(self.usage(result)),
        }
    }

    fn failure(&self, result: &Value) -> Option<(OutcomeClass, String)> {
        let is_error = result
            .pointer("/is_error")
            .and_then(Value::as_bool)
            .unwrap_or(false);
        let subtype = text(result, "/subtype").unwrap_or_default();
        let message = || cut(text(result, "/result").unwrap_or(subtype));
        let class = match subtype {
            "error_max_turns" => Some(OutcomeClass::MaxTurns),
            "error_max_budget_usd" => Some(OutcomeClass::Budget),
            "error_max_structured_output_retries" => Some(OutcomeClass::BadOutput),
            "success" => match text(result, "/stop_reason") {
                Some("refusal") => Some(OutcomeClass::Refused),
                _ if is_error => Some(api_class(result)),
                _ => None,
            },
            _ => Some(if is_error {
                api_class(result)
            } else {
                OutcomeClass::Crashed
            }),
        };
        if let Some(class) = class {
            return Some((class, message()));
        }
        let denials = result
            .pointer("/permission_denials")
            .and_then(Value::as_array);
        let denied: Vec<&str> = denials
            .into_iter()
            .flatten()
            .filter_map(|d| text(d, "/tool_name"))
            .collect();
        if !denied.is_empty() && !self.allows_denials {
            let denied = denied.join(", ");
            let message = format!("denied: {denied}; allow the tools, or set allow_denials");
            return Some((OutcomeClass::Denied, message));
        }
        if !self.broken_servers.is_empty() {
            let servers = self.broken_servers.join(", ");
            return Some((
                OutcomeClass::BadOutput,
                format!("MCP servers failed: {servers}"),
            ));
        }
        None
    }
}

fn turns(result: &Value) -> u32 {
    let turns = result.pointer("/num_turns").and_then(Value::as_u64);
    u32::try_from(turns.unwrap_or(0)).unwrap_or(u32::MAX)
}

/// Why the model service did not answer.
fn api_class(result: &Value) -> OutcomeClass {
    let said = text(result, "/result").unwrap_or_default();
    if text(result, "/terminal_reason") == Some("blocking_limit") {
        return OutcomeClass::RateLimited;
    }
    match result.pointer("/api_error_status").and_then(Value::as_u64) {
        Some(401 | 403) => OutcomeClass::Auth,
        Some(429 | 529) => OutcomeClass::RateLimited,
        None if said.contains("Not logged in") || said.contains("Invalid API key") => {
            OutcomeClass::Auth
        }
        _ => OutcomeClass::ModelError,
    }
}

pub(super) fn text<'v>(value: &'v Value, pointer: &str) -> Option<&'v str> {
    value.pointer(pointer).and_then(Value::as_str)
}

pub(super) fn say(out: &mut Vec<Signal>, text: &str) {
    if !text.is_empty() {
        out.push(Signal::Text(Channel::Stdout, text.as_bytes().to_vec()));
    }
}

/// A text cut at `RESULT_BYTES_MAX`, its cut marked.
fn cut(text: &str) -> String {
    if text.len() <= RESULT_BYTES_MAX {
        return text.to_owned();
    }
    let end = (0..=RESULT_BYTES_MAX - 4)
        .rev()
        .find(|i| text.is_char_boundary(*i))
        .unwrap_or(0);
    format!("{}…", text.get(..end).unwrap_or_default())
}

/// What tools answered: only that they did is of interest.
fn answers(value: &Value, out: &mut Vec<Signal>) {
    let blocks = value.pointer("/message/content").and_then(Value::as_array);
    for block in blocks.into_iter().flatten() {
        if text(block, "/type") == Some("tool_result")
            && let Some(call) = text(block, "/tool_use_id")
        {
            let has_failed = block.pointer("/is_error") == Some(&Value::Bool(true));
            out.push(Signal::Moment(Moment::ToolEnded(
                call.to_owned(),
                has_failed,
            )));
        }
    }
}
