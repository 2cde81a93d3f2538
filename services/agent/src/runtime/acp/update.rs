//! What an agent tells of its work: text, tools, money.

use serde_json::Value;

use crate::inside::Moment;
use crate::output::Tail;
use crate::runtime::stream::{items, keep, say, say_thought, say_tool, text};
use crate::runtime::{RESULT_KEPT_MAX, Signal};

/// What was heard so far.
#[derive(Debug, Default)]
pub(super) struct Heard {
    pub(super) model: Option<String>,
    /// What the session has cost.
    pub(super) cost_usd: f64,
    /// The last message.
    message: Tail,
    /// Which it is, where the agent says so.
    message_id: Option<String>,
    /// Whether something else came after it.
    is_over: bool,
}

impl Heard {
    /// What follows belongs to another turn.
    pub(super) fn turn_ended(&mut self) {
        self.is_over = true;
    }

    /// The last message.
    pub(super) fn message(&self) -> Option<String> {
        self.message.clone().text()
    }

    pub(super) fn update(&mut self, value: &Value, line: &[u8], out: &mut Vec<Signal>) {
        let update = value.pointer("/params/update").unwrap_or(&Value::Null);
        match text(update, "/sessionUpdate") {
            Some("agent_message_chunk") => self.chunk(update, out),
            Some("tool_call") => self.tool_call(update, out),
            Some("tool_call_update") => tool_ended(update, out),
            Some("usage_update") => self.usage(update),
            Some("agent_thought_chunk") => {
                say_thought(out, text(update, "/content/text").unwrap_or_default());
            }
            // They say what can be done, not what was.
            Some(
                "user_message_chunk"
                | "plan"
                | "available_commands_update"
                | "current_mode_update"
                | "config_option_update"
                | "session_info_update",
            ) => {}
            _ => keep(line, out),
        }
    }

    fn chunk(&mut self, update: &Value, out: &mut Vec<Signal>) {
        let Some(piece) = text(update, "/content/text") else {
            return;
        };
        let id = text(update, "/messageId").map(str::to_owned);
        if self.is_over || id != self.message_id {
            self.message = Tail::default();
            if self.message_id.is_some() || self.is_over {
                say(out, "\n");
            }
        }
        self.is_over = false;
        self.message_id = id;
        self.message.push(piece.as_bytes(), RESULT_KEPT_MAX);
        say(out, piece);
    }

    fn tool_call(&mut self, update: &Value, out: &mut Vec<Signal>) {
        self.is_over = true;
        let tool = text(update, "/name").or_else(|| text(update, "/title"));
        let tool = tool.unwrap_or("tool");
        let input = update.pointer("/rawInput").map(Value::to_string);
        say_tool(out, tool, &input.unwrap_or_default());
        if let Some(call) = text(update, "/toolCallId") {
            let began = Moment::ToolBegan(call.to_owned(), tool.to_owned());
            out.push(Signal::Moment(began));
        }
        tool_ended(update, out);
    }

    fn usage(&mut self, update: &Value) {
        if let Some(model) = text(update, "/_meta/_claude~1model") {
            self.model = Some(model.to_owned());
        }
        let cost = update.pointer("/cost/amount").and_then(Value::as_f64);
        if let Some(cost) = cost.filter(|_| text(update, "/cost/currency") == Some("USD")) {
            self.cost_usd = cost;
        }
    }
}

fn tool_ended(update: &Value, out: &mut Vec<Signal>) {
    let has_failed = match text(update, "/status") {
        Some("completed") => false,
        Some("failed") => true,
        _ => return,
    };
    if has_failed {
        let said = items(update, "/content").find_map(|c| text(c, "/content/text"));
        let said: String = said.unwrap_or_default().chars().take(200).collect();
        say(out, &format!("[failed: {said}]\n"));
    }
    if let Some(call) = text(update, "/toolCallId") {
        let ended = Moment::ToolEnded(call.to_owned(), has_failed);
        out.push(Signal::Moment(ended));
    }
}
