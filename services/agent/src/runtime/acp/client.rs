//! The client's side of one prompt: `initialize`, a session that is new or loaded, the prompt, and
//! answers to what the agent asks. Synchronous: lines in, signals out.

use conductor_protocol::OutcomeClass;
use conductor_protocol::event::Usage;
use serde_json::{Value, json};

use super::talk::{Consent, Talk};
use super::update::Heard;
use crate::people::Reply;
use crate::reaper::Status;
use crate::runtime::stream::{Decode, class_of_words, count, cut, keep, say, text, unfinished};
use crate::runtime::{Signal, Verdict};
use crate::tools::{self, Endpoint};
use crate::usage::{Counts, Meter, plus};

/// The version of the protocol that is spoken here.
const VERSION: u64 = 1;

/// What is to be done.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) prompt: String,
    pub(super) cwd: String,
    pub(super) allows_tools: bool,
    pub(super) consent: Consent,
    /// The session to go on with.
    pub(super) session: Option<String>,
    /// Whether another session will not do.
    pub(super) must_resume: bool,
    pub(super) meter: Meter,
    /// Where it finds the agent's tools, if it can use them.
    pub(super) tools: Option<Endpoint>,
}

/// Which of our requests is waited for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Initialize,
    Load,
    New,
    Prompt,
    Over,
}

/// How it ended: what failed, if anything did.
#[derive(Clone, Debug)]
struct End(Option<(OutcomeClass, String)>);

#[derive(Debug, Default)]
pub(super) struct Client {
    plan: Plan,
    stage: Stage,
    last_id: u64,
    session: Option<String>,
    heard: Heard,
    /// What the turns before the last used.
    earlier: Usage,
    /// What the last turn used, as its answer says.
    used: Usage,
    talk: Talk,
    /// What it had said when it ended.
    result: Option<String>,
    end: Option<End>,
}

impl Decode for Client {
    fn line(&mut self, value: &Value, line: &[u8], out: &mut Vec<Signal>) {
        let method = text(value, "/method");
        match (method, value.get("id")) {
            (Some(method), Some(id)) => self.asked(method, id, value, out),
            (Some("session/update"), None) => self.updated(value, line, out),
            (Some("$/cancel_request"), None) => self.talk.withdrawn(value, out),
            // Of what else an agent may tell we know nothing.
            (Some(_), None) => {}
            (None, Some(id)) => self.answered(id, value, out),
            (None, None) => keep(line, out),
        }
    }
}

impl Client {
    /// A client, and what it says first.
    pub(super) fn begin(plan: Plan) -> (Self, Vec<u8>) {
        let talk = Talk::new(plan.consent, plan.allows_tools);
        let mut client = Self {
            plan,
            talk,
            ..Self::default()
        };
        let first = client.request(
            "initialize",
            &json!({
                "protocolVersion": VERSION,
                "clientCapabilities": {
                    "fs": {"readTextFile": false, "writeTextFile": false},
                    "terminal": false,
                },
                "clientInfo": {"name": "conductor", "version": env!("CARGO_PKG_VERSION")},
            }),
        );
        (client, first)
    }

    /// What interrupts it, while it works on the prompt.
    pub(super) fn cancel(&mut self) -> Option<Vec<u8>> {
        let session = self
            .session
            .as_ref()
            .filter(|_| self.stage == Stage::Prompt)?;
        let cancel = json!({
            "jsonrpc": "2.0",
            "method": "session/cancel",
            "params": {"sessionId": session},
        });
        let answers = self.talk.cancel();
        Some([answers, line_of(&cancel)].concat())
    }

    /// What it asked under this name was answered.
    pub(super) fn decided(&mut self, name: &str, reply: &Reply) -> Vec<Signal> {
        let mut out = Vec::new();
        self.talk.answered(name, reply, &mut out);
        out
    }

    /// Somebody says something to it.
    pub(super) fn told(&mut self, text: &str) -> Vec<Signal> {
        let mut out = Vec::new();
        if self.stage == Stage::Over {
            say(&mut out, &format!("[told too late: {text}]\n"));
        } else {
            self.talk.told(text, &mut out);
        }
        out
    }

    fn request(&mut self, method: &str, params: &Value) -> Vec<u8> {
        self.last_id += 1;
        let id = self.last_id;
        line_of(&json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}))
    }

    /// The agent asks something of its client.
    fn asked(&mut self, method: &str, id: &Value, value: &Value, out: &mut Vec<Signal>) {
        if method == "session/request_permission" {
            self.talk.requested(id, value, out);
            return;
        }
        // Files and terminals are those of its own sandbox.
        let error = json!({"code": -32601, "message": format!("{method} is not offered")});
        let answer = json!({"jsonrpc": "2.0", "id": id, "error": error});
        out.push(Signal::Say(line_of(&answer)));
    }

    fn updated(&mut self, value: &Value, line: &[u8], out: &mut Vec<Signal>) {
        // A session that is loaded tells all that was said in it before.
        if matches!(self.stage, Stage::Prompt | Stage::Over) {
            self.heard.update(value, line, out);
        }
    }

    /// The agent answers our request.
    fn answered(&mut self, id: &Value, value: &Value, out: &mut Vec<Signal>) {
        if id.as_u64() != Some(self.last_id) {
            return;
        }
        if let Some(error) = value.get("error") {
            self.refused(error, out);
            return;
        }
        match self.stage {
            Stage::Initialize => self.initialized(value, out),
            Stage::Load | Stage::New => self.opened(value, out),
            // A later answer replaces an earlier one: the last word counts.
            Stage::Prompt => self.prompted(value, out),
            Stage::Over if self.used.turns > 0 => self.prompted(value, out),
            Stage::Over => {}
        }
    }

    fn refused(&mut self, error: &Value, out: &mut Vec<Signal>) {
        let said = text(error, "/message").unwrap_or("it refused");
        let details = error.get("data").map(|d| match d.as_str() {
            Some(words) => words.to_owned(),
            None => d.to_string(),
        });
        let message = details.map_or(said.to_owned(), |details| format!("{said}: {details}"));
        if self.stage == Stage::Load && !self.plan.must_resume {
            say(out, &format!("[the session cannot be loaded: {message}]\n"));
            self.open_new(out);
            return;
        }
        let class = match error.get("code").and_then(Value::as_i64) {
            // "Authentication required", by the protocol.
            Some(-32000) => OutcomeClass::Auth,
            _ => class_of_words(&message),
        };
        self.finish(Some((class, message)), out);
    }

    fn initialized(&mut self, value: &Value, out: &mut Vec<Signal>) {
        let version = count(value, "/result/protocolVersion");
        if version != VERSION {
            let message = format!("it speaks version {version} of the protocol, not {VERSION}");
            self.finish(Some((OutcomeClass::BadOutput, message)), out);
            return;
        }
        let can = |what: &str| {
            value.pointer(&format!("/result/agentCapabilities/{what}")) == Some(&true.into())
        };
        let loads = can("loadSession");
        if !can("mcpCapabilities/http") {
            self.plan.tools = None;
        }
        match self.plan.session.clone() {
            Some(session) if loads => {
                let params = json!({
                    "sessionId": session, "cwd": self.plan.cwd, "mcpServers": self.servers(),
                });
                self.stage = Stage::Load;
                self.session = Some(session);
                let request = self.request("session/load", &params);
                out.push(Signal::Say(request));
            }
            Some(_) if self.plan.must_resume => {
                let message = "it cannot load a session; submit the task without resume".into();
                self.finish(Some((OutcomeClass::BadOutput, message)), out);
            }
            _ => self.open_new(out),
        }
    }

    /// The servers of tools that a session is given.
    fn servers(&self) -> Vec<Value> {
        let server = |tools: &Endpoint| {
            let token = format!("Bearer {}", tools.token);
            json!({
                "type": "http", "name": tools::NAME, "url": tools.url,
                "headers": [{"name": "Authorization", "value": token}],
            })
        };
        self.plan.tools.iter().map(server).collect()
    }

    fn open_new(&mut self, out: &mut Vec<Signal>) {
        self.stage = Stage::New;
        self.session = None;
        let params = json!({"cwd": self.plan.cwd, "mcpServers": self.servers()});
        let request = self.request("session/new", &params);
        out.push(Signal::Say(request));
    }

    /// There is a session: it is given the prompt.
    fn opened(&mut self, value: &Value, out: &mut Vec<Signal>) {
        if let Some(session) = text(value, "/result/sessionId") {
            self.session = Some(session.to_owned());
        }
        if let Some(model) = text(value, "/result/models/currentModelId") {
            self.heard.model = Some(model.to_owned());
        }
        if self.session.is_none() {
            let message = "it named no session".to_owned();
            self.finish(Some((OutcomeClass::BadOutput, message)), out);
            return;
        }
        // By it the session is known, should this process not live to say more.
        out.push(Signal::Usage(self.usage()));
        let prompt = vec![self.plan.prompt.clone()];
        self.prompt(&prompt, out);
    }

    /// The next turn of its session.
    fn prompt(&mut self, words: &[String], out: &mut Vec<Signal>) {
        self.stage = Stage::Prompt;
        let blocks = words.iter().map(|w| json!({"type": "text", "text": w}));
        let blocks: Vec<Value> = blocks.collect();
        let params = json!({"sessionId": self.session, "prompt": blocks});
        let request = self.request("session/prompt", &params);
        out.push(Signal::Say(request));
    }

    /// Its turn is over: another follows where something was said meanwhile.
    fn prompted(&mut self, value: &Value, out: &mut Vec<Signal>) {
        let usage = |name: &str| count(value, &format!("/result/usage/{name}"));
        self.used = Usage {
            turns: 1,
            input_tokens: usage("inputTokens"),
            cached_tokens: usage("cachedReadTokens"),
            cache_write_tokens: usage("cachedWriteTokens"),
            output_tokens: usage("outputTokens"),
            ..Usage::default()
        };
        let words = match (self.stage, text(value, "/result/stopReason")) {
            // Nothing more is wanted of it then.
            (Stage::Over, _) | (_, Some("cancelled")) => Vec::new(),
            _ => self.talk.take_words(),
        };
        self.talk.turn_ended(out);
        out.push(Signal::Usage(self.usage()));
        if words.is_empty() {
            let failure = self.failure(value);
            self.finish(failure, out);
            return;
        }
        self.earlier = plus(&self.earlier, &std::mem::take(&mut self.used));
        self.heard.turn_ended();
        self.prompt(&words, out);
    }

    /// What its reason to stop means.
    fn failure(&self, value: &Value) -> Option<(OutcomeClass, String)> {
        let message = |what: &str| Some(what.to_owned());
        match text(value, "/result/stopReason") {
            Some("end_turn") => self.denial(),
            Some("max_turn_requests") => {
                message("the turn limit was reached").map(|m| (OutcomeClass::MaxTurns, m))
            }
            Some("refusal") => message("the model refused").map(|m| (OutcomeClass::Refused, m)),
            Some("cancelled") => {
                message("the prompt was interrupted").map(|m| (OutcomeClass::Cancelled, m))
            }
            Some("max_tokens") => message("the answer was cut off at the limit of its tokens")
                .map(|m| (OutcomeClass::ModelError, m)),
            other => Some((
                OutcomeClass::BadOutput,
                format!(
                    "it stopped for a reason that is not known: {}",
                    other.unwrap_or("none")
                ),
            )),
        }
    }

    fn denial(&self) -> Option<(OutcomeClass, String)> {
        let denied = self.talk.denied().join(", ");
        let message = format!("denied: {denied}; set allow_tools if tools may run");
        (!denied.is_empty()).then_some((OutcomeClass::Denied, message))
    }

    fn finish(&mut self, failure: Option<(OutcomeClass, String)>, out: &mut Vec<Signal>) {
        self.stage = Stage::Over;
        self.result = self.heard.message();
        self.end = Some(End(failure));
        out.push(Signal::Final);
    }

    /// What the task has used: tokens are told of each prompt, money of the session.
    fn usage(&self) -> Usage {
        let tokens = Usage {
            session: self.session.clone(),
            model: self.heard.model.clone(),
            ..plus(&self.earlier, &self.used)
        };
        let money = Usage {
            cost_usd: self.heard.cost_usd,
            ..Usage::default()
        };
        Usage {
            cost_usd: self.plan.meter.total(&money, Counts::Session).cost_usd,
            ..self.plan.meter.total(&tokens, Counts::Process)
        }
    }

    pub(super) fn judge(&mut self, status: &Status, last_words: Option<String>) -> Verdict {
        let failure = match self.end.clone() {
            Some(End(failure)) => failure,
            None => Some(unfinished(status, last_words)),
        };
        Verdict {
            failure,
            result: self
                .result
                .take()
                .or_else(|| self.heard.message())
                .as_deref()
                .map(cut),
            usage: self.session.is_some().then(|| self.usage()),
        }
    }
}

pub(super) fn line_of(value: &Value) -> Vec<u8> {
    format!("{value}\n").into_bytes()
}
