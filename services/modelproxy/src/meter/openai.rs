//! Usage in answers of the Responses and Chat Completions APIs. What they call input includes
//! what came from the cache.

use serde::Deserialize;

use super::{Found, Tokens};

#[derive(Deserialize)]
struct Event {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    response: Option<Response>,
}

#[derive(Deserialize)]
struct Response {
    #[serde(default)]
    model: Option<String>,
    #[serde(default)]
    usage: Option<Usage>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Usage {
    #[serde(alias = "prompt_tokens")]
    input_tokens: u64,
    #[serde(alias = "prompt_tokens_details")]
    input_tokens_details: Option<Details>,
    #[serde(alias = "completion_tokens")]
    output_tokens: u64,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Details {
    cached_tokens: Option<u64>,
}

impl Usage {
    fn tokens(&self) -> Tokens {
        let details = self.input_tokens_details.as_ref();
        let cached = details.and_then(|d| d.cached_tokens).unwrap_or(0);
        Tokens {
            input: self.input_tokens.saturating_sub(cached),
            cached,
            output: self.output_tokens,
            ..Tokens::default()
        }
    }
}

/// One event of a stream of the Responses API. The last has the whole response.
pub(super) fn response_event(data: &[u8], found: &mut Found) {
    let Ok(event) = serde_json::from_slice::<Event>(data) else {
        return;
    };
    if event.kind.rsplit('.').next() == Some("delta") {
        found.pieces += 1;
    }
    if let Some(response) = event.response {
        take(response, found);
    }
}

/// A response that is no stream.
pub(super) fn response(body: &[u8], found: &mut Found) {
    if let Ok(response) = serde_json::from_slice::<Response>(body) {
        take(response, found);
    }
}

#[derive(Deserialize)]
struct Chat {
    #[serde(default)]
    model: Option<String>,
    #[serde(default)]
    usage: Option<Usage>,
    #[serde(default)]
    choices: Vec<serde::de::IgnoredAny>,
}

/// A chat completion, or one piece of a stream of it: usage stands in the last.
pub(super) fn chat(data: &[u8], found: &mut Found) {
    let Ok(chat) = serde_json::from_slice::<Chat>(data) else {
        return;
    };
    found.pieces += chat.choices.len() as u64;
    let response = Response {
        model: chat.model,
        usage: chat.usage,
    };
    take(response, found);
}

fn take(response: Response, found: &mut Found) {
    if response.usage.is_some() {
        (found.has_input, found.is_final) = (true, true);
    }
    found.take(response.model, response.usage.unwrap_or_default().tokens());
}
