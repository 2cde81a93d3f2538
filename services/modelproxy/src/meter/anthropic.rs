//! Usage in answers of the Messages API.

use serde::Deserialize;

use super::{Found, Tokens};

#[derive(Deserialize)]
struct Event {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    message: Option<Message>,
    #[serde(default)]
    usage: Option<Usage>,
}

#[derive(Deserialize)]
struct Message {
    #[serde(default)]
    model: Option<String>,
    #[serde(default)]
    usage: Option<Usage>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Usage {
    input_tokens: Option<u64>,
    cache_read_input_tokens: Option<u64>,
    cache_creation_input_tokens: Option<u64>,
    cache_creation: Option<CacheCreation>,
    output_tokens: Option<u64>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct CacheCreation {
    ephemeral_1h_input_tokens: Option<u64>,
}

impl Usage {
    fn tokens(&self) -> Tokens {
        let written = self.cache_creation_input_tokens.unwrap_or(0);
        let hour = self.cache_creation.as_ref();
        let hour = hour.and_then(|c| c.ephemeral_1h_input_tokens).unwrap_or(0);
        Tokens {
            input: self.input_tokens.unwrap_or(0),
            cached: self.cache_read_input_tokens.unwrap_or(0),
            cache_write: written.saturating_sub(hour),
            cache_write_hour: hour,
            output: self.output_tokens.unwrap_or(0),
        }
    }
}

/// One event of a stream. The first says what was read, the last but one what was written in all.
pub(super) fn event(data: &[u8], found: &mut Found) {
    let Ok(event) = serde_json::from_slice::<Event>(data) else {
        return;
    };
    match event.kind.as_str() {
        "message_start" => {
            let Some(message) = event.message else { return };
            found.has_input |= message.usage.is_some();
            found.take(message.model, message.usage.unwrap_or_default().tokens());
        }
        "message_delta" => {
            let Some(usage) = event.usage else { return };
            found.is_final |= usage.output_tokens.is_some();
            found.take(None, usage.tokens());
        }
        "content_block_delta" => found.pieces += 1,
        _ => {}
    }
}

/// An answer that is no stream.
pub(super) fn whole(body: &[u8], found: &mut Found) {
    let Ok(message) = serde_json::from_slice::<Message>(body) else {
        return;
    };
    if let Some(usage) = message.usage {
        (found.has_input, found.is_final) = (true, true);
        found.take(message.model, usage.tokens());
    }
}
