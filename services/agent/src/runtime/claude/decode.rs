//! The CLI's stream-json, read tolerantly: unknown lines are kept as output, keys come in
//! any order, and the outcome is that of the `result` event, never the exit code alone.

use std::collections::BTreeSet;

use conductor_protocol::OutcomeClass;
use conductor_protocol::event::Usage;
use serde_json::Value;

use super::control::Talk;
use crate::inside::Moment;
use crate::output::Channel;
use crate::people::Reply;
use crate::reaper::Status;
use crate::runtime::stream::{Decode, count, cut, items, keep, say, say_tool, text, unfinished};
use crate::runtime::{Signal, Verdict};
use crate::usage::{Counts, Meter, plus};

/// What the CLI says of itself, and nothing follows from here.
const KNOWN: [&str; 7] = [
    "control_response",
    "keep_alive",
    "auth_status",
    "tool_progress",
    "tool_use_summary",
    "prompt_suggestion",
    "conversation_reset",
];

#[derive(Debug, Default)]
pub(super) struct Decoder {
    allows_denials: bool,
    meter: Meter,
    /// Turns of all results: each counts its own.
    turns: u32,
    session: Option<String>,
    model: Option<String>,
    /// Whether partial messages bring the text: then whole ones would repeat it.
    has_partials: bool,
    /// What the main loop used, by its partial messages: known before there is a result.
    seen: Usage,
    /// What the answer that is under way uses.
    answer: Usage,
    /// What the CLI's own figures count; decided by its first result.
    counts: Option<Counts>,
    result: Option<Value>,
    /// Servers of tools that were said to be missing.
    broken_servers: BTreeSet<String>,
    is_throttled: bool,
    /// What it asked people, and the words it has not read yet.
    talk: Talk,
}

impl Decode for Decoder {
    fn line(&mut self, value: &Value, line: &[u8], out: &mut Vec<Signal>) {
        match text(value, "/type") {
            Some("system") => self.system(value, out),
            Some("stream_event") => self.partial(value, out),
            Some("assistant") => self.assistant(value, out),
            Some("user") if value.pointer("/isReplay") == Some(&Value::Bool(true)) => {
                self.talk.has_read();
            }
            Some("user") => answers(value, out),
            Some("control_request") => self.talk.requested(value, out),
            Some("control_cancel_request") => self.talk.withdrawn(value, out),
            Some("rate_limit_event") => self.limit(value, out),
            Some("result") => {
                self.turns = self.turns.saturating_add(turns(value));
                let used = self.used(value);
                self.counts
                    .get_or_insert_with(|| self.meter.counts(&used, &own(value)));
                // A later result replaces an earlier one: the last word counts.
                self.result = Some(value.clone());
                out.push(Signal::Usage(self.usage()));
                // Words it has not read yet have it go on.
                if !self.talk.has_unread() {
                    out.push(Signal::Final);
                }
            }
            // Whatever a newer CLI may say is no fact of ours.
            Some(kind) if KNOWN.contains(&kind) => {}
            _ => keep(line, out),
        }
    }
}

impl Decoder {
    pub(super) fn new(allows_denials: bool) -> Self {
        Self {
            allows_denials,
            ..Self::default()
        }
    }

    /// An attempt begins.
    pub(super) fn begin(&mut self, meter: Meter) {
        self.meter = meter;
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
                self.look_at_servers(value, out);
            }
            Some("api_retry") => {
                let status = value
                    .pointer("/error_status")
                    .map_or("?".to_owned(), Value::to_string);
                say(
                    out,
                    &format!("[the model service answered {status}; trying again]\n"),
                );
                out.push(Signal::Waiting);
                if matches!(count(value, "/error_status"), 429 | 529) && !self.is_throttled {
                    self.is_throttled = true;
                    out.push(Signal::Throttled(None));
                }
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

    /// A server of tools that is not there is no error to the CLI, which says so at every turn.
    fn look_at_servers(&mut self, value: &Value, out: &mut Vec<Signal>) {
        let broken = items(value, "/mcp_servers").filter(|s| text(s, "/status") == Some("failed"));
        for name in broken.filter_map(|s| text(s, "/name")) {
            if self.broken_servers.insert(name.to_owned()) {
                let problem =
                    format!("the MCP server {name} is not reached: its tools are missing");
                out.push(Signal::Warning(problem));
            }
        }
    }

    /// A limit of the subscription; only one that is reached matters.
    fn limit(&mut self, value: &Value, out: &mut Vec<Signal>) {
        if text(value, "/rate_limit_info/status") == Some("rejected") {
            // In seconds since 1970.
            let until = value
                .pointer("/rate_limit_info/resetsAt")
                .and_then(Value::as_f64);
            let until = until.filter(|s| s.is_finite() && *s > 0.0);
            self.is_throttled = true;
            out.push(Signal::Throttled(until.map(|s| (s * 1000.0) as u64)));
        }
    }

    fn partial(&mut self, value: &Value, out: &mut Vec<Signal>) {
        let event = value.pointer("/event").unwrap_or(&Value::Null);
        match text(event, "/type") {
            Some("message_start") => {
                self.answer = tokens(event, "/message/usage");
                out.push(Signal::Moment(Moment::TurnBegan));
            }
            // Only here it is said what an answer took in all.
            Some("message_delta") => {
                let output = count(event, "/usage/output_tokens");
                self.answer.output_tokens = output.max(self.answer.output_tokens);
            }
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
                self.seen = plus(&self.seen, &std::mem::take(&mut self.answer));
                self.seen.turns = self.seen.turns.saturating_add(1);
                out.push(Signal::Moment(Moment::TurnEnded));
                if self.result.is_none() {
                    out.push(Signal::Usage(self.usage()));
                }
                if self.has_partials {
                    say(out, "\n");
                }
            }
            _ => {}
        }
    }

    fn assistant(&mut self, value: &Value, out: &mut Vec<Signal>) {
        for block in items(value, "/message/content") {
            match text(block, "/type") {
                Some("text") if !self.has_partials => {
                    say(out, text(block, "/text").unwrap_or_default());
                    say(out, "\n");
                }
                Some("tool_use") => {
                    let input = block.pointer("/input").map(Value::to_string);
                    let tool = text(block, "/name").unwrap_or("tool");
                    say_tool(out, tool, &input.unwrap_or_default());
                    if let Some(call) = text(block, "/id") {
                        let began = Moment::ToolBegan(call.to_owned(), tool.to_owned());
                        out.push(Signal::Moment(began));
                    }
                }
                _ => {}
            }
        }
    }

    /// What the task has used, as far as it is known.
    fn usage(&self) -> Usage {
        let said = match &self.result {
            Some(result) => self.used(result),
            None => Usage {
                session: self.session.clone(),
                model: self.model.clone(),
                ..self.seen.clone()
            },
        };
        self.meter
            .total(&said, self.counts.unwrap_or(Counts::Process))
    }

    /// `modelUsage` has everything, sub-agents included; `usage` only the main loop.
    fn used(&self, result: &Value) -> Usage {
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
        for used in models.into_iter().flat_map(serde_json::Map::values) {
            let more = Usage {
                input_tokens: count(used, "/inputTokens"),
                cached_tokens: count(used, "/cacheReadInputTokens"),
                cache_write_tokens: count(used, "/cacheCreationInputTokens"),
                output_tokens: count(used, "/outputTokens"),
                ..Usage::default()
            };
            usage = plus(&usage, &more);
        }
        usage
    }

    pub(super) fn judge(&self, status: &Status, last_words: Option<String>) -> Verdict {
        let Some(result) = &self.result else {
            return Verdict {
                failure: Some(unfinished(status, last_words)),
                result: None,
                usage: self.session.is_some().then(|| self.usage()),
            };
        };
        Verdict {
            failure: self.failure(result),
            result: text(result, "/result").map(cut),
            usage: Some(self.usage()),
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
                _ => match text(result, "/terminal_reason") {
                    None | Some("completed") => None,
                    Some("blocking_limit") => Some(OutcomeClass::RateLimited),
                    Some("max_turns") => Some(OutcomeClass::MaxTurns),
                    Some("budget_exhausted") => Some(OutcomeClass::Budget),
                    Some(_) => Some(OutcomeClass::Crashed),
                },
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
        let denied: Vec<&str> = items(result, "/permission_denials")
            .filter_map(|d| text(d, "/tool_name"))
            .collect();
        if !denied.is_empty() && !self.allows_denials {
            let denied = denied.join(", ");
            let message = format!("denied: {denied}; allow the tools, or set allow_denials");
            return Some((OutcomeClass::Denied, message));
        }
        None
    }
}

fn turns(result: &Value) -> u32 {
    u32::try_from(count(result, "/num_turns")).unwrap_or(u32::MAX)
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

/// What this turn's main loop used, without what sub-agents did.
fn own(result: &Value) -> Usage {
    tokens(result, "/usage")
}

/// Tokens as the model service counts them, at a pointer.
fn tokens(value: &Value, at: &str) -> Usage {
    let of = |name: &str| count(value, &format!("{at}/{name}"));
    Usage {
        input_tokens: of("input_tokens"),
        cached_tokens: of("cache_read_input_tokens"),
        cache_write_tokens: of("cache_creation_input_tokens"),
        output_tokens: of("output_tokens"),
        ..Usage::default()
    }
}

/// What tools answered: only that they did is of interest.
fn answers(value: &Value, out: &mut Vec<Signal>) {
    for block in items(value, "/message/content") {
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
