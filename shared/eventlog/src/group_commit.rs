//! Group commit: how one writer gathers events into frames.
//!
//! A pure state machine. While an append is in flight, further events gather into the
//! next frame: an idle writer adds no delay, a busy one batches by itself. One append
//! in flight per subject keeps each subject's order through reconnects (nats-facts 9.1).

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use conductor_protocol::frame::{self, FRAME_OVERHEAD_BYTES, FrameHead};
use conductor_protocol::limits::FRAME_BYTES_MAX;

use crate::port::Append;

/// Events of one writer on their way into the log.
#[derive(Debug)]
pub struct GroupCommit {
    head: FrameHead,
    writer: String,
    frames: u64,
    in_flight_max: usize,
    in_flight: BTreeSet<String>,
    waiting: BTreeMap<String, VecDeque<Vec<u8>>>,
    turns: VecDeque<String>,
    waiting_bytes: usize,
}

impl GroupCommit {
    /// A writer under `head`. `writer` must be unique to this instance: it is part of
    /// every append's id. At most `in_flight_max` subjects have an append in flight.
    pub fn new(head: FrameHead, writer: impl Into<String>, in_flight_max: usize) -> Self {
        Self {
            head,
            writer: writer.into(),
            frames: 0,
            in_flight_max: in_flight_max.max(1),
            in_flight: BTreeSet::new(),
            waiting: BTreeMap::new(),
            turns: VecDeque::new(),
            waiting_bytes: 0,
        }
    }

    /// Adds an encoded event for `subject`.
    pub fn push(&mut self, subject: &str, event: Vec<u8>) {
        self.waiting_bytes += event.len();
        if let Some(queue) = self.waiting.get_mut(subject) {
            queue.push_back(event);
        } else {
            self.waiting
                .insert(subject.to_owned(), VecDeque::from([event]));
            self.turns.push_back(subject.to_owned());
        }
    }

    /// The next frame to append, if one may be now. Report its end by [`Self::done`].
    pub fn next_append(&mut self) -> Option<Append> {
        if self.in_flight.len() >= self.in_flight_max {
            return None;
        }
        let turn = self
            .turns
            .iter()
            .position(|s| !self.in_flight.contains(s))?;
        let subject = self.turns.remove(turn)?;
        let queue = self.waiting.get_mut(&subject)?;
        let mut events = Vec::new();
        let mut bytes = FRAME_OVERHEAD_BYTES;
        while let Some(event) = queue.front() {
            if !events.is_empty() && bytes + event.len() > FRAME_BYTES_MAX {
                break;
            }
            bytes += event.len();
            events.extend(queue.pop_front());
        }
        self.waiting_bytes -= bytes - FRAME_OVERHEAD_BYTES;
        if queue.is_empty() {
            self.waiting.remove(&subject);
        } else {
            self.turns.push_back(subject.clone());
        }
        self.frames += 1;
        self.in_flight.insert(subject.clone());
        Some(Append {
            payload: frame::join(self.head, &events).into(),
            id: format!("{}-{}", self.writer, self.frames),
            expected_last: None,
            subject,
        })
    }

    /// The append on `subject` is known to be in the log, or given up.
    pub fn done(&mut self, subject: &str) {
        self.in_flight.remove(subject);
    }

    /// Bytes of events that wait for a frame.
    pub fn waiting_bytes(&self) -> usize {
        self.waiting_bytes
    }

    /// Whether nothing waits and nothing is in flight.
    pub fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.in_flight.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn writer(in_flight_max: usize) -> GroupCommit {
        GroupCommit::new(FrameHead::epoch(1), "w", in_flight_max)
    }

    /// An event is a map to the frame's splitter.
    fn event(bytes: usize) -> Vec<u8> {
        let mut event = vec![0x81, 0xa1, b'x', 0xc6];
        event.extend_from_slice(&(bytes as u32).to_be_bytes());
        event.resize(event.len() + bytes, 0);
        event
    }

    #[test]
    fn events_gather_while_an_append_is_in_flight() {
        let mut w = writer(1);
        w.push("s", event(1));
        let first = w.next_append().unwrap();
        for _ in 0..5 {
            w.push("s", event(1));
        }
        assert!(w.next_append().is_none());
        w.done("s");
        let second = w.next_append().unwrap();
        assert_eq!(frame::split(&first.payload).unwrap().events.len(), 1);
        assert_eq!(frame::split(&second.payload).unwrap().events.len(), 5);
        assert_ne!(first.id, second.id);
        w.done("s");
        assert!(w.is_idle());
        assert_eq!(w.waiting_bytes(), 0);
    }

    #[test]
    fn frames_stay_below_their_limit() {
        let mut w = writer(1);
        for _ in 0..5 {
            w.push("s", event(300_000));
        }
        let mut frames = Vec::new();
        while let Some(append) = w.next_append() {
            assert!(append.payload.len() <= FRAME_BYTES_MAX);
            frames.push(frame::split(&append.payload).unwrap().events.len());
            w.done("s");
        }
        assert_eq!(frames, [2, 2, 1]);
    }

    #[test]
    fn subjects_take_turns_and_never_overtake_themselves() {
        let mut w = writer(2);
        for subject in ["a", "b", "c"] {
            w.push(subject, event(1));
        }
        let (a, b) = (w.next_append().unwrap(), w.next_append().unwrap());
        assert_eq!((a.subject.as_str(), b.subject.as_str()), ("a", "b"));
        assert!(w.next_append().is_none());
        w.push("a", event(1));
        w.done("b");
        assert_eq!(w.next_append().unwrap().subject, "c");
        w.done("c");
        assert!(w.next_append().is_none(), "a has one in flight");
        w.done("a");
        assert_eq!(w.next_append().unwrap().subject, "a");
    }
}
