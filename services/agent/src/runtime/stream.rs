//! What the streams of agents have in common: a JSON value a line, read tolerantly. What is not
//! understood is kept as output, cut; nothing of it breaks the reader.

use conductor_protocol::OutcomeClass;
use serde_json::Value;

use super::{RESULT_KEPT_MAX, Signal};
use crate::lines::{Line, Lines};
use crate::output::{Channel, Tail};
use crate::reaper::Status;

/// How much of a line that is not understood goes into the output.
const RAW_KEPT: usize = 4096;
/// How much of what a program said on standard error goes into the message of a failure.
const LAST_WORDS: usize = 512;

/// Makes signals of what a program says.
pub(super) trait Decode {
    /// A value, with the line it stood in.
    fn line(&mut self, value: &Value, line: &[u8], out: &mut Vec<Signal>);
}

/// Reads the outputs of a program that says a JSON value a line.
#[derive(Debug, Default)]
pub(super) struct JsonLines {
    lines: Lines,
    last_words: Tail,
}

impl JsonLines {
    /// Reads bytes; every value goes to the decoder.
    pub(super) fn read(
        &mut self,
        channel: Channel,
        bytes: &[u8],
        decoder: &mut impl Decode,
    ) -> Vec<Signal> {
        if channel == Channel::Stderr {
            self.last_words.push(bytes, LAST_WORDS);
            return vec![Signal::Text(channel, bytes.to_vec())];
        }
        let mut out = Vec::new();
        self.lines
            .push(bytes, |line| read_line(&line, decoder, &mut out));
        out
    }

    /// An output is over: its last line may have had no end.
    pub(super) fn end(&mut self, channel: Channel, decoder: &mut impl Decode) -> Vec<Signal> {
        let mut out = Vec::new();
        if channel == Channel::Stdout
            && let Some(line) = self.lines.finish()
        {
            read_line(&line, decoder, &mut out);
        }
        out
    }

    /// What it said last on standard error.
    pub(super) fn last_words(&mut self) -> Option<String> {
        std::mem::take(&mut self.last_words).text()
    }
}

fn read_line(line: &Line, decoder: &mut impl Decode, out: &mut Vec<Signal>) {
    match line {
        Line::Whole(line) if line.iter().all(u8::is_ascii_whitespace) => {}
        Line::Whole(line) => match parse(line) {
            Some(value) => decoder.line(&value, line, out),
            None => keep(line, out),
        },
        Line::TooLong { bytes, .. } => {
            say(out, &format!("[a line of {bytes} bytes was left out]\n"));
        }
    }
}

/// A value, also where its texts are not all UTF-8.
fn parse(line: &[u8]) -> Option<Value> {
    let strict = serde_json::from_slice(line);
    strict
        .or_else(|_| serde_json::from_str(&String::from_utf8_lossy(line)))
        .ok()
}

/// Keeps a line that is not understood.
pub(super) fn keep(line: &[u8], out: &mut Vec<Signal>) {
    let mut raw = line
        .get(..RAW_KEPT.min(line.len()))
        .unwrap_or_default()
        .to_vec();
    raw.push(b'\n');
    out.push(Signal::Text(Channel::Stdout, raw));
}

/// The text at a pointer.
pub(super) fn text<'v>(value: &'v Value, pointer: &str) -> Option<&'v str> {
    value.pointer(pointer).and_then(Value::as_str)
}

/// The number at a pointer; 0 where there is none.
pub(super) fn count(value: &Value, pointer: &str) -> u64 {
    value.pointer(pointer).and_then(Value::as_u64).unwrap_or(0)
}

/// What is at a pointer, if it is a list.
pub(super) fn items<'v>(value: &'v Value, pointer: &str) -> impl Iterator<Item = &'v Value> {
    value
        .pointer(pointer)
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
}

/// Text for the output.
pub(super) fn say(out: &mut Vec<Signal>, text: &str) {
    if !text.is_empty() {
        out.push(Signal::Text(Channel::Stdout, text.as_bytes().to_vec()));
    }
}

/// What a tool is about, on a line of the output.
pub(super) fn say_tool(out: &mut Vec<Signal>, tool: &str, input: &str) {
    let input: String = input.chars().take(200).collect();
    let used = format!("[{tool} {input}]\n").into_bytes();
    out.push(Signal::Text(Channel::Tools, used));
}

/// What a model thinks.
pub(super) fn say_thought(out: &mut Vec<Signal>, text: &str) {
    if !text.is_empty() {
        out.push(Signal::Text(Channel::Thinking, text.as_bytes().to_vec()));
    }
}

/// A text cut at `RESULT_KEPT_MAX`, its cut marked.
pub(super) fn cut(text: &str) -> String {
    if text.len() <= RESULT_KEPT_MAX {
        return text.to_owned();
    }
    let end = (0..=RESULT_KEPT_MAX - 4)
        .rev()
        .find(|i| text.is_char_boundary(*i));
    format!("{}…", text.get(..end.unwrap_or(0)).unwrap_or_default())
}

/// What it means that a program ended without its last word, with what it said on standard error.
pub(super) fn unfinished(status: &Status, last_words: Option<String>) -> (OutcomeClass, String) {
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
    (class, message)
}

/// The class of what a model service said in words alone.
pub(super) fn class_of_words(said: &str) -> OutcomeClass {
    let said = said.to_ascii_lowercase();
    let has = |words: &[&str]| words.iter().any(|word| said.contains(word));
    let is_status = |codes: &[&str]| {
        let mut parts = said.split(|c: char| !c.is_ascii_alphanumeric());
        parts.any(|part| codes.contains(&part))
    };
    if has(&["usage limit", "rate limit", "rate_limit", "quota"]) || is_status(&["429", "529"]) {
        OutcomeClass::RateLimited
    } else if has(&["unauthorized", "not logged in", "authentication", "api key"])
        || has(&["missing environment variable"])
        || is_status(&["401", "403"])
    {
        OutcomeClass::Auth
    } else {
        OutcomeClass::ModelError
    }
}
