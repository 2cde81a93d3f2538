//! What an attempt prints, on its way to the output stream: joined, limited, counted.
//!
//! A slow stream never holds up an attempt: what does not fit in the queue is dropped
//! and counted.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use conductor_protocol::event::OutputStats;
use tokio::sync::mpsc;

use crate::mask::{Masks, Stream};

/// Most bytes of one piece.
pub const CHUNK_BYTES_MAX: usize = 32 * 1024;
/// Longest that output waits to be joined with more.
pub const CHUNK_DELAY: Duration = Duration::from_millis(250);
/// Most bytes of one attempt that are stored.
pub const STORED_BYTES_MAX: u64 = 64 << 20;
/// Pieces that may wait for the stream.
const QUEUE: usize = 256;

/// What a piece of output is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Channel {
    /// Standard output; of a model, what it says.
    Stdout,
    /// Standard error.
    Stderr,
    /// Tools that a model uses.
    Tools,
    /// What a model thinks.
    Thinking,
}

impl Channel {
    /// The name in the output stream.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
            Self::Tools => "tools",
            Self::Thinking => "thinking",
        }
    }
}

/// A piece of output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// What it is.
    pub channel: Channel,
    /// Where it stands in the output, in bytes of all channels; those that were dropped count.
    pub offset: u64,
    /// The bytes.
    pub bytes: Bytes,
}

impl Piece {
    /// Where what follows it stands.
    fn end(&self) -> u64 {
        self.offset.saturating_add(self.bytes.len() as u64)
    }
}

/// Takes an attempt's output, never waiting.
#[derive(Clone, Debug)]
pub struct Output {
    queue: mpsc::Sender<Piece>,
    bytes: Arc<AtomicU64>,
    dropped: Arc<AtomicU64>,
    masks: Masks,
    /// What is masked of each channel.
    streams: Arc<Mutex<BTreeMap<Channel, Stream>>>,
}

impl Output {
    /// An output, and the pieces that come out of it.
    pub fn new() -> (Self, mpsc::Receiver<Piece>) {
        Self::masked(Masks::default())
    }

    /// An output in which secrets are masked, and the pieces that come out of it.
    pub fn masked(masks: Masks) -> (Self, mpsc::Receiver<Piece>) {
        let (queue, pieces) = mpsc::channel(QUEUE);
        (
            Self {
                queue,
                bytes: Arc::default(),
                dropped: Arc::default(),
                masks,
                streams: Arc::default(),
            },
            pieces,
        )
    }

    /// Adds what the program wrote.
    pub fn write(&self, channel: Channel, bytes: Bytes) {
        if self.masks.is_empty() {
            return self.send(channel, bytes);
        }
        let masked = {
            let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
            let stream = streams.entry(channel).or_default();
            stream.push(&self.masks, &bytes)
        };
        self.send(channel, masked.into());
    }

    /// The program writes nothing more: what was held back, since it might have become a secret,
    /// is added.
    pub fn flush(&self) {
        let rest = {
            let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *streams)
        };
        for (channel, mut stream) in rest {
            self.send(channel, stream.finish(&self.masks).into());
        }
    }

    fn send(&self, channel: Channel, bytes: Bytes) {
        if bytes.is_empty() {
            return;
        }
        let len = bytes.len() as u64;
        let offset = self.bytes.fetch_add(len, Ordering::Relaxed);
        let is_full = offset.saturating_add(len) > STORED_BYTES_MAX;
        let piece = Piece {
            channel,
            offset,
            bytes,
        };
        if is_full || self.queue.try_send(piece).is_err() {
            self.dropped.fetch_add(len, Ordering::Relaxed);
        }
    }

    /// What became of it so far; `None` when nothing was written.
    pub fn stats(&self) -> Option<OutputStats> {
        let bytes = self.bytes.load(Ordering::Relaxed);
        let dropped = self.dropped.load(Ordering::Relaxed);
        (bytes > 0).then_some(OutputStats { bytes, dropped })
    }
}

/// Joins pieces of the same channel until there is enough or it is time.
#[derive(Debug)]
pub struct Joiner {
    pieces: mpsc::Receiver<Piece>,
    ahead: Option<Piece>,
}

impl Joiner {
    /// Joins what comes out of an output.
    pub fn new(pieces: mpsc::Receiver<Piece>) -> Self {
        Self {
            pieces,
            ahead: None,
        }
    }

    /// The next joined piece; `None` once the output is over.
    pub async fn next(&mut self) -> Option<Piece> {
        let first = match self.ahead.take() {
            Some(piece) => piece,
            None => self.pieces.recv().await?,
        };
        let (channel, offset, mut end) = (first.channel, first.offset, first.end());
        let mut joined = BytesMut::from(first.bytes);
        let deadline = tokio::time::Instant::now() + CHUNK_DELAY;
        while joined.len() < CHUNK_BYTES_MAX {
            match tokio::time::timeout_at(deadline, self.pieces.recv()).await {
                // Not over a gap: readers tell by where a piece stands that something is lost.
                Ok(Some(next))
                    if next.channel == channel
                        && next.offset == end
                        && joined.len() + next.bytes.len() <= CHUNK_BYTES_MAX =>
                {
                    joined.extend_from_slice(&next.bytes);
                    end = next.end();
                }
                Ok(Some(other)) => {
                    self.ahead = Some(other);
                    break;
                }
                Ok(None) | Err(_) => break,
            }
        }
        Some(Piece {
            channel,
            offset,
            bytes: joined.freeze(),
        })
    }
}

/// The end of a text, kept for a result.
#[derive(Clone, Debug, Default)]
pub struct Tail {
    bytes: std::collections::VecDeque<u8>,
    is_cut: bool,
}

impl Tail {
    /// Adds bytes; keeps at most `max`.
    pub fn push(&mut self, bytes: &[u8], max: usize) {
        self.bytes.extend(bytes);
        while self.bytes.len() > max {
            self.bytes.pop_front();
            self.is_cut = true;
        }
    }

    /// The text, its cut marked; `None` when there is nothing but white space.
    pub fn text(self) -> Option<String> {
        let bytes: Vec<u8> = self.bytes.into();
        let text = String::from_utf8_lossy(&bytes);
        let text = text.trim();
        let mark = if self.is_cut { "…" } else { "" };
        (!text.is_empty()).then(|| format!("{mark}{text}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn pieces_are_joined_until_there_is_enough() {
        let (output, pieces) = Output::new();
        let mut joiner = Joiner::new(pieces);
        output.write(Channel::Stdout, Bytes::from_static(b"a"));
        output.write(Channel::Stdout, Bytes::from_static(b"b"));
        output.write(Channel::Stderr, Bytes::from_static(b"c"));
        drop(output);
        let piece = |channel, offset, bytes: &'static [u8]| Piece {
            channel,
            offset,
            bytes: Bytes::from_static(bytes),
        };
        assert_eq!(joiner.next().await, Some(piece(Channel::Stdout, 0, b"ab")));
        assert_eq!(joiner.next().await, Some(piece(Channel::Stderr, 2, b"c")));
        assert_eq!(joiner.next().await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn pieces_are_not_joined_over_what_was_dropped() {
        let (output, pieces) = Output::new();
        let mut joiner = Joiner::new(pieces);
        for _ in 0..=QUEUE {
            output.write(Channel::Stdout, Bytes::from_static(b"xx"));
        }
        let first = joiner.next().await.unwrap();
        assert_eq!((first.offset, first.bytes.len()), (0, 2 * QUEUE));
        output.write(Channel::Stdout, Bytes::from_static(b"yy"));
        let next = joiner.next().await.unwrap();
        assert_eq!(next.offset, 2 * QUEUE as u64 + 2, "two bytes are missing");
    }

    #[tokio::test]
    async fn what_might_become_a_secret_is_held_back_until_the_end() {
        let masks = Masks::default();
        masks.set([b"hunter2-hunter2".as_slice()]);
        let (output, mut pieces) = Output::masked(masks);
        output.write(Channel::Stdout, Bytes::from_static(b"a hunter2-"));
        output.write(Channel::Stderr, Bytes::from_static(b"hunter2 b hunter"));
        output.write(Channel::Stdout, Bytes::from_static(b"hunter2 hunt"));
        output.flush();
        drop(output);
        let mut said = [String::new(), String::new()];
        while let Some(piece) = pieces.recv().await {
            let which = usize::from(piece.channel == Channel::Stderr);
            said[which].push_str(std::str::from_utf8(&piece.bytes).unwrap());
        }
        assert_eq!(said, ["a *** hunt", "hunter2 b hunter"]);
    }

    #[test]
    fn what_does_not_fit_is_counted() {
        let (output, _pieces) = Output::new();
        for _ in 0..QUEUE + 10 {
            output.write(Channel::Stdout, Bytes::from_static(b"xx"));
        }
        let stats = output.stats().unwrap();
        assert_eq!((stats.bytes, stats.dropped), ((QUEUE as u64 + 10) * 2, 20));
    }

    #[test]
    fn a_result_is_the_end_of_what_was_said() {
        let mut tail = Tail::default();
        tail.push(b"hello ", 5);
        tail.push(b"w\xff\n", 5);
        assert_eq!(tail.text().unwrap(), "…o w\u{fffd}");
        assert_eq!(Tail::default().text(), None);
    }
}
