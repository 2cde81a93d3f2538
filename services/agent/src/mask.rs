//! Secrets are masked in all that leaves an attempt: in what it prints, across the borders of
//! pieces, and in what is reported of it. Not only as they are, but in their usual encodings.

mod forms;

use std::sync::{Arc, OnceLock};

use conductor_protocol::event::Event;

/// What stands in the place of a secret.
pub const MASK: &str = "***";
/// So much of a secret's beginning or end is worth masking where a text was cut within it.
const CUT_LEAST: usize = 6;

/// The secrets of one attempt, in every form they are looked for. Clones share them; there are none
/// until they are [set](Self::set).
#[derive(Clone, Debug, Default)]
pub struct Masks(Arc<OnceLock<Patterns>>);

/// Forms of secrets by their first byte, the longest first.
struct Patterns(Vec<Vec<Box<[u8]>>>);

impl std::fmt::Debug for Patterns {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let count: usize = self.0.iter().map(Vec::len).sum();
        write!(f, "{count} forms")
    }
}

/// What is found at a place in a text.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Found {
    /// Nothing.
    Nothing,
    /// A form of so many bytes.
    Form(usize),
    /// More of the text might make it a form, or a longer one.
    Perhaps,
}

impl Patterns {
    fn new(mut forms: Vec<Vec<u8>>) -> Self {
        forms.sort_by_key(|form| std::cmp::Reverse(form.len()));
        forms.dedup();
        let mut by_first = vec![Vec::new(); 256];
        for form in forms {
            let first = form.first().copied().unwrap_or_default();
            if let Some(some) = by_first.get_mut(usize::from(first)) {
                some.push(form.into_boxed_slice());
            }
        }
        Self(by_first)
    }

    fn all(&self) -> impl Iterator<Item = &[u8]> {
        self.0.iter().flatten().map(AsRef::as_ref)
    }

    /// The longest form at the beginning of `text`, of which there may be more to come.
    fn at(&self, text: &[u8], is_all: bool) -> Found {
        let first = text.first().copied().unwrap_or_default();
        let some = self.0.get(usize::from(first)).into_iter().flatten();
        for form in some {
            if text.starts_with(form) {
                return Found::Form(form.len());
            }
            if !is_all && form.starts_with(text) {
                return Found::Perhaps;
            }
        }
        Found::Nothing
    }

    /// `text` masked, as far as that is certain, and how far that is.
    fn mask(&self, text: &[u8], is_all: bool) -> (Vec<u8>, usize) {
        let (mut out, mut at) = (Vec::with_capacity(text.len()), 0);
        while let Some(rest @ [first, ..]) = text.get(at..) {
            match self.at(rest, is_all) {
                Found::Perhaps => break,
                Found::Nothing => {
                    out.push(*first);
                    at += 1;
                }
                Found::Form(len) => {
                    out.extend_from_slice(MASK.as_bytes());
                    at += len;
                }
            }
        }
        (out, at)
    }

    /// How long the end of `text` is that is the beginning of a form.
    fn begun_at_end(&self, text: &str) -> usize {
        let (bytes, forms) = (text.as_bytes(), self.all());
        let begun = forms.filter_map(|form| {
            let lens = (CUT_LEAST..form.len().min(bytes.len() + 1)).rev();
            lens.into_iter()
                .find(|len| form.get(..*len).is_some_and(|head| bytes.ends_with(head)))
        });
        begun.max().unwrap_or(0)
    }

    /// How long the beginning of `text` is that is the end of a form.
    fn ended_at_start(&self, text: &str) -> usize {
        let (bytes, forms) = (text.as_bytes(), self.all());
        let ended = forms.filter_map(|form| {
            let lens = (CUT_LEAST..form.len().min(bytes.len() + 1)).rev();
            lens.into_iter().find(|len| {
                form.get(form.len() - len..)
                    .is_some_and(|tail| bytes.starts_with(tail))
            })
        });
        ended.max().unwrap_or(0)
    }
}

impl Masks {
    /// Sets what is masked from now on; once.
    pub fn set<'s>(&self, secrets: impl IntoIterator<Item = &'s [u8]>) {
        let forms = secrets.into_iter().flat_map(forms::of).collect();
        // The first word counts: secrets of an attempt are known before it starts.
        let _ = self.0.set(Patterns::new(forms));
    }

    /// Whether there is nothing to mask.
    pub fn is_empty(&self) -> bool {
        self.0
            .get()
            .is_none_or(|patterns| patterns.all().next().is_none())
    }

    /// A text, masked. Where it was cut, what is left of a secret there is masked too.
    pub fn text(&self, text: String) -> String {
        let Some(patterns) = self.0.get() else {
            return text;
        };
        let (masked, _) = patterns.mask(text.as_bytes(), true);
        let mut masked = String::from_utf8_lossy(&masked).into_owned();
        if let Some(rest) = masked.strip_prefix('…') {
            let cut = patterns.ended_at_start(rest);
            if let Some(rest) = rest.get(cut..).filter(|_| cut > 0) {
                masked = format!("…{MASK}{rest}");
            }
        }
        if let Some(rest) = masked.strip_suffix('…') {
            let cut = patterns.begun_at_end(rest);
            if let Some(rest) = rest.get(..rest.len() - cut).filter(|_| cut > 0) {
                masked = format!("{rest}{MASK}…");
            }
        }
        masked
    }

    /// A fact, its texts masked.
    pub fn fact(&self, mut fact: Event) -> Event {
        let mask = |text: &mut String| *text = self.text(std::mem::take(text));
        let mask_some = |text: &mut Option<String>| {
            if let Some(text) = text {
                mask(text);
            }
        };
        match &mut fact {
            Event::AttemptProgress(e) => mask_some(&mut e.message),
            Event::AttemptSucceeded(e) => mask_some(&mut e.result),
            Event::AttemptFailed(e) => {
                mask(&mut e.message);
                mask_some(&mut e.result);
            }
            Event::ApprovalRequested(e) => mask(&mut e.summary),
            Event::AttemptSubmitted(e) => mask(&mut e.body),
            Event::AttemptArtifact(e) => mask(&mut e.name),
            _ => {}
        }
        fact
    }
}

/// Masks a stream of bytes that comes in pieces.
#[derive(Debug, Default)]
pub struct Stream {
    /// What may be the beginning of a secret.
    held: Vec<u8>,
}

impl Stream {
    /// Adds a piece; returns what can be shown by now.
    pub fn push(&mut self, masks: &Masks, piece: &[u8]) -> Vec<u8> {
        let Some(patterns) = masks.0.get() else {
            return piece.to_vec();
        };
        self.held.extend_from_slice(piece);
        let (out, done) = patterns.mask(&self.held, false);
        self.held.drain(..done);
        out
    }

    /// Nothing more comes; returns what is left.
    pub fn finish(&mut self, masks: &Masks) -> Vec<u8> {
        let held = std::mem::take(&mut self.held);
        match masks.0.get() {
            Some(patterns) => patterns.mask(&held, true).0,
            None => held,
        }
    }
}

#[cfg(test)]
mod tests;
