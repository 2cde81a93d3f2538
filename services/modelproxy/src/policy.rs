//! What may be asked: paths and methods by name, and of what is in a request the few fields that
//! decide about money, models and ways out.

use hyper::Method;
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::provider::Provider;

/// Below this path OpenAI is asked; what is not below it is Anthropic's.
pub const OPENAI_PREFIX: &str = "/openai/v1";

/// An interface that answers with tokens that cost.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Api {
    /// Anthropic Messages.
    Messages,
    /// OpenAI Responses.
    Responses,
    /// OpenAI Chat Completions.
    Chat,
}

/// What a request is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Purpose {
    /// To see whether somebody is there: answered here.
    Greeting,
    /// To learn which models there are.
    List,
    /// To count the tokens of a prompt: costs nothing, names a model.
    Count,
    /// An answer of a model.
    Answer(Api),
}

/// Where a request goes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Route {
    /// To whom.
    pub provider: Provider,
    /// What for.
    pub purpose: Purpose,
    /// The path below the provider's base URL.
    pub path: String,
}

/// A request that is not passed on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refusal {
    /// 400 or 403.
    pub status: u16,
    /// For people.
    pub message: String,
}

impl Refusal {
    fn forbidden(message: impl Into<String>) -> Self {
        Self {
            status: 403,
            message: message.into(),
        }
    }
}

/// Where a request goes by its method and path (without its query).
pub fn route(method: &Method, path: &str) -> Result<Route, Refusal> {
    use Purpose::{Answer, Count, Greeting, List};
    let below = path.strip_prefix(OPENAI_PREFIX);
    let provider = if below.is_some() {
        Provider::OpenAi
    } else {
        Provider::Anthropic
    };
    let purpose = match (provider, below.unwrap_or(path), method) {
        (_, "" | "/", &Method::HEAD | &Method::GET) => Greeting,
        (Provider::Anthropic, "/v1/messages", &Method::POST) => Answer(Api::Messages),
        (Provider::Anthropic, "/v1/messages/count_tokens", &Method::POST) => Count,
        (Provider::Anthropic, path, &Method::GET) if is_list(path.strip_prefix("/v1")) => List,
        (Provider::OpenAi, "/responses" | "/responses/compact", &Method::POST) => {
            Answer(Api::Responses)
        }
        (Provider::OpenAi, "/chat/completions", &Method::POST) => Answer(Api::Chat),
        (Provider::OpenAi, path, &Method::GET) if is_list(Some(path)) => List,
        _ => {
            let message = format!(
                "{method} {path} of {} is not allowed here",
                provider.as_str()
            );
            return Err(Refusal::forbidden(message));
        }
    };
    let path = below.unwrap_or(path).to_owned();
    Ok(Route {
        provider,
        purpose,
        path,
    })
}

/// `/models`, or one of them.
fn is_list(path: Option<&str>) -> bool {
    let Some(rest) = path.and_then(|p| p.strip_prefix("/models")) else {
        return false;
    };
    let is_id = |id: &str| {
        let is_part = |c: char| c.is_ascii_alphanumeric() || "-._:".contains(c);
        !id.is_empty() && id != ".." && id != "." && id.chars().all(is_part)
    };
    rest.is_empty() || rest.strip_prefix('/').is_some_and(is_id)
}

/// What a task may ask of models.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    /// Models, as [`is_allowed`] takes them.
    pub models: Vec<String>,
    /// Whether the task reaches the network anyway: then the provider may, on its behalf, reach
    /// hosts that a request names.
    pub may_reach_out: bool,
    /// Whether money is limited: then nothing may be asked whose price is not in the list.
    pub counts_money: bool,
}

/// What a request asks for, as far as it matters.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Asked {
    /// The model.
    pub model: String,
    /// Whether the request has to be told to ask for its usage: only then it is answered.
    pub lacks_usage: bool,
}

#[derive(Deserialize)]
struct Body {
    model: Option<String>,
    stream: Option<bool>,
    #[serde(default)]
    tools: Option<Vec<Tool>>,
    #[serde(default)]
    mcp_servers: Option<Vec<IgnoredAny>>,
    #[serde(default)]
    background: Option<bool>,
    #[serde(default)]
    service_tier: Option<String>,
    #[serde(default)]
    speed: Option<String>,
    #[serde(default)]
    stream_options: Option<StreamOptions>,
}

#[derive(Deserialize)]
struct Tool {
    #[serde(rename = "type")]
    kind: Option<String>,
}

#[derive(Deserialize)]
struct StreamOptions {
    include_usage: Option<bool>,
}

impl Policy {
    /// Reads a request's body. A field that stands in it twice is an error: the provider might
    /// read the other one.
    pub fn check(&self, purpose: Purpose, body: &[u8]) -> Result<Asked, Refusal> {
        let body: Body = serde_json::from_slice(body).map_err(|e| Refusal {
            status: 400,
            message: format!("the request is not what is understood here: {e}"),
        })?;
        let Some(model) = &body.model else {
            let message = "the request names no model".to_owned();
            return Err(Refusal {
                status: 400,
                message,
            });
        };
        if !is_allowed(&self.models, model) {
            let allowed = self.models.join(", ");
            return Err(Refusal::forbidden(format!(
                "this task may not use model {model:?}; it may use {allowed}"
            )));
        }
        if !self.may_reach_out
            && let Some(what) = body.reaches_out()
        {
            return Err(Refusal::forbidden(format!(
                "{what} would reach hosts that this task may not; its network would have to be \"full\""
            )));
        }
        if body.background == Some(true) {
            let message = "answers in the background are not metered and so not allowed here";
            return Err(Refusal::forbidden(message));
        }
        if self.counts_money && body.is_dearer() {
            let message = "the budget is in money, and what faster service costs is not known here; ask for the standard one";
            return Err(Refusal::forbidden(message));
        }
        let includes = body.stream_options.and_then(|o| o.include_usage) == Some(true);
        let is_stream = body.stream == Some(true);
        Ok(Asked {
            model: model.clone(),
            lacks_usage: purpose == Purpose::Answer(Api::Chat) && is_stream && !includes,
        })
    }
}

/// Whether a model may be used by a task that may use these: by name, whose dated versions are the
/// same model, or with `*` at the end by beginning. None named means any.
pub fn is_allowed(models: &[String], model: &str) -> bool {
    let is_it = |allowed: &String| match allowed.strip_suffix('*') {
        Some(beginning) => model.starts_with(beginning),
        None => is_version_of(model, allowed),
    };
    models.is_empty() || models.iter().any(is_it)
}

impl Body {
    /// What in it has the provider speak to hosts of the request's choice.
    fn reaches_out(&self) -> Option<&str> {
        if self.mcp_servers.as_ref().is_some_and(|s| !s.is_empty()) {
            return Some("mcp_servers");
        }
        let kinds = self
            .tools
            .iter()
            .flatten()
            .filter_map(|t| t.kind.as_deref());
        let mut reaching = kinds.filter(|k| k.starts_with("mcp") || k.starts_with("web_fetch"));
        reaching.next()
    }

    fn is_dearer(&self) -> bool {
        let tier = self.service_tier.as_deref();
        tier.is_some_and(|t| ["priority", "fast"].contains(&t))
            || self.speed.as_deref() == Some("fast")
    }
}

/// Whether `model` is `name`, or a dated version of it.
pub(crate) fn is_version_of(model: &str, name: &str) -> bool {
    let Some(rest) = model.strip_prefix(name) else {
        return false;
    };
    // A wider window is the same model.
    let rest = rest.strip_suffix("[1m]").unwrap_or(rest);
    let is_date = |d: &str| {
        let digits = d.bytes().filter(u8::is_ascii_digit).count();
        digits == 8 && d.bytes().all(|b| b.is_ascii_digit() || b == b'-')
    };
    let version = rest.strip_prefix(['-', '@']);
    rest.is_empty() || version.is_some_and(|v| v == "latest" || is_date(v))
}

#[cfg(test)]
mod tests;
