//! What an answer cost, read from the answer itself as it passes by.
//!
//! Memory is bounded: of a stream one event is held at a time, of any other answer its body up to a
//! limit. An answer that broke off, or of which more came than is held, is estimated: it was paid
//! for, too.

mod anthropic;
mod openai;
mod sse;

use crate::policy::Api;
use sse::Sse;

/// Most bytes of one event, or of an answer that is no stream, that are held.
pub const HELD_BYTES_MAX: usize = 16 << 20;
/// Bytes of text a token stands for, where it must be guessed.
const BYTES_PER_TOKEN: u64 = 4;

/// Tokens, by what they cost.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Tokens {
    /// Read.
    pub input: u64,
    /// Read from the provider's cache.
    pub cached: u64,
    /// Written to the provider's cache, for minutes.
    pub cache_write: u64,
    /// Written to the provider's cache, for an hour.
    pub cache_write_hour: u64,
    /// Written.
    pub output: u64,
}

/// One answer of a model.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Answered {
    /// The model, as the provider names it.
    pub model: Option<String>,
    /// What it took.
    pub tokens: Tokens,
    /// Whether the provider said so; otherwise it is estimated.
    pub is_counted: bool,
}

/// What was found so far. Usage within an answer is cumulative, so the largest counts.
#[derive(Debug, Default)]
struct Found {
    model: Option<String>,
    tokens: Tokens,
    /// Whether something was said about what was read.
    has_input: bool,
    /// Whether the last word on usage was said.
    is_final: bool,
    /// Events that carried a piece of the answer: each is a token at least.
    pieces: u64,
}

impl Found {
    fn take(&mut self, model: Option<String>, tokens: Tokens) {
        if self.model.is_none() {
            self.model = model;
        }
        let (old, new) = (self.tokens, tokens);
        self.tokens = Tokens {
            input: old.input.max(new.input),
            cached: old.cached.max(new.cached),
            cache_write: old.cache_write.max(new.cache_write),
            cache_write_hour: old.cache_write_hour.max(new.cache_write_hour),
            output: old.output.max(new.output),
        };
    }
}

#[derive(Debug)]
enum Form {
    Stream(Sse),
    Whole { held: Vec<u8>, bytes: u64 },
}

/// Reads one answer.
#[derive(Debug)]
pub struct Meter {
    api: Api,
    form: Form,
    found: Found,
    asked_bytes: u64,
}

impl Meter {
    /// For an answer of `api` with this content type to a request of so many bytes.
    pub fn new(api: Api, content_type: &str, asked_bytes: u64) -> Self {
        let is_stream = content_type.trim_start().starts_with("text/event-stream");
        let form = if is_stream {
            Form::Stream(Sse::new(HELD_BYTES_MAX))
        } else {
            let (held, bytes) = (Vec::new(), 0);
            Form::Whole { held, bytes }
        };
        Self {
            api,
            form,
            found: Found::default(),
            asked_bytes,
        }
    }

    /// Bytes of the answer passed by.
    pub fn push(&mut self, bytes: &[u8]) {
        let (api, found) = (self.api, &mut self.found);
        match &mut self.form {
            Form::Stream(sse) => sse.push(bytes, |data| read_event(api, data, found)),
            Form::Whole { held, bytes: all } => {
                *all += bytes.len() as u64;
                if held.len() + bytes.len() <= HELD_BYTES_MAX {
                    held.extend_from_slice(bytes);
                }
            }
        }
    }

    /// The answer is over, or broke off.
    pub fn finish(mut self) -> Answered {
        let mut answer_bytes = 0;
        if let Form::Whole { held, bytes } = &self.form {
            answer_bytes = *bytes;
            if held.len() as u64 == *bytes {
                match self.api {
                    Api::Messages => anthropic::whole(held, &mut self.found),
                    Api::Responses => openai::response(held, &mut self.found),
                    Api::Chat => openai::chat(held, &mut self.found),
                }
            }
        }
        let Found {
            model,
            mut tokens,
            has_input,
            is_final,
            pieces,
        } = self.found;
        if !is_final {
            if !has_input {
                tokens.input = tokens.input.max(self.asked_bytes / BYTES_PER_TOKEN);
            }
            let guess = pieces.max(answer_bytes / BYTES_PER_TOKEN);
            tokens.output = tokens.output.max(guess);
        }
        Answered {
            model,
            tokens,
            is_counted: is_final,
        }
    }
}

fn read_event(api: Api, data: &[u8], found: &mut Found) {
    match api {
        Api::Messages => anthropic::event(data, found),
        Api::Responses => openai::response_event(data, found),
        Api::Chat => openai::chat(data, found),
    }
}

#[cfg(test)]
mod tests;
