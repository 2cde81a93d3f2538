//! Group commit: how one writer gathers events into frames, and submissions into records.
//!
//! A pure state machine. While an append is in flight, further elements gather into the
//! next: an idle writer adds no delay, a busy one batches by itself. One append in flight
//! per subject keeps each subject's order through reconnects (nats-facts 9.1). An append
//! whose ack is lost is repeated, same bytes and same id, until it is known.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use conductor_domain::planted::{Bug, is_planted};
use conductor_protocol::frame::{self, Elements, FRAME_OVERHEAD_BYTES, FrameHead};
use conductor_protocol::limits::{FRAME_BYTES_MAX, SUBMISSIONS_PER_RECORD_MAX};

use crate::port::{Append, AppendError, Appended};

/// Pause before the first repetition of an append; doubled before each further one.
const REPEAT_PAUSE_MIN: Duration = Duration::from_millis(20);
/// Longest pause before a repetition.
const REPEAT_PAUSE_MAX: Duration = Duration::from_secs(1);

/// How long to wait before an append is repeated, after so many tries.
pub fn repeat_pause(tries: u32) -> Duration {
    let doubled = REPEAT_PAUSE_MIN.saturating_mul(1 << tries.saturating_sub(1).min(10));
    doubled.min(REPEAT_PAUSE_MAX)
}

/// What an answer of the log means for the append it answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is in the log, at this sequence; the subject is free for the next.
    Stored(u64),
    /// It may or may not be there: append it again, the same, after this pause.
    Repeat(Append, Duration),
    /// It is not there and never will be; the subject is free for the next.
    Refused(AppendError),
    /// Nothing is in flight on that subject.
    Unknown,
}

/// What the elements of one append are joined into.
#[derive(Clone, Copy, Debug)]
enum Form {
    /// Events, into a frame under this head.
    Events(FrameHead),
    /// Submissions, into the array that a submit record holds.
    Submissions,
}

impl Form {
    /// Most elements of one append. A frame has no such limit: readers of events go by bytes.
    fn elements_max(self) -> usize {
        match self {
            Self::Events(_) => usize::MAX,
            Self::Submissions => SUBMISSIONS_PER_RECORD_MAX,
        }
    }

    fn join(self, elements: Elements) -> Vec<u8> {
        match self {
            Self::Events(head) => frame::join(head, elements),
            Self::Submissions => frame::join_public(elements),
        }
    }
}

#[derive(Debug)]
struct InFlight {
    append: Append,
    len: usize,
    tries: u32,
}

/// Events or submissions of one writer on their way into the log.
#[derive(Debug)]
pub struct GroupCommit {
    form: Form,
    writer: String,
    appends: u64,
    in_flight_max: usize,
    in_flight: BTreeMap<String, InFlight>,
    waiting: BTreeMap<String, Elements>,
    turns: VecDeque<String>,
    waiting_bytes: usize,
}

impl GroupCommit {
    /// A writer of events under `head`. `writer` must be unique to this instance: it is part
    /// of every append's id. At most `in_flight_max` subjects have an append in flight.
    pub fn new(head: FrameHead, writer: impl Into<String>, in_flight_max: usize) -> Self {
        Self::of(Form::Events(head), writer.into(), in_flight_max)
    }

    /// A writer of submissions, each pushed as [`Submission::encode`] makes it; `writer` and
    /// `in_flight_max` as for [`Self::new`].
    ///
    /// [`Submission::encode`]: conductor_protocol::submission::Submission::encode
    pub fn of_submissions(writer: impl Into<String>, in_flight_max: usize) -> Self {
        Self::of(Form::Submissions, writer.into(), in_flight_max)
    }

    fn of(form: Form, writer: String, in_flight_max: usize) -> Self {
        Self {
            form,
            writer,
            appends: 0,
            in_flight_max: in_flight_max.max(1),
            in_flight: BTreeMap::new(),
            waiting: BTreeMap::new(),
            turns: VecDeque::new(),
            waiting_bytes: 0,
        }
    }

    /// Adds encoded elements, events or submissions, for `subject`.
    pub fn push(&mut self, subject: &str, elements: Elements) {
        if elements.is_empty() {
            return;
        }
        self.waiting_bytes += elements.as_bytes().len();
        if let Some(waiting) = self.waiting.get_mut(subject) {
            waiting.append(elements);
        } else {
            self.waiting.insert(subject.to_owned(), elements);
            self.turns.push_back(subject.to_owned());
        }
    }

    /// The next append, if one may be now. What the log says of it goes to
    /// [`Self::answered`].
    pub fn next_append(&mut self) -> Option<Append> {
        if self.in_flight.len() >= self.in_flight_max {
            return None;
        }
        let turn = self
            .turns
            .iter()
            .position(|s| !self.in_flight.contains_key(s))?;
        let subject = self.turns.remove(turn)?;
        let elements = self.gather(&subject)?;
        let len = elements.len();
        self.appends += 1;
        let append = Append {
            payload: self.form.join(elements).into(),
            id: format!("{}-{}", self.writer, self.appends),
            expected_last: None,
            subject: subject.clone(),
        };
        let in_flight = InFlight {
            append: append.clone(),
            len,
            tries: 1,
        };
        self.in_flight.insert(subject, in_flight);
        Some(append)
    }

    /// Takes what waits for `subject`, as much as fits into one append; one element that is
    /// larger goes alone.
    fn gather(&mut self, subject: &str) -> Option<Elements> {
        let waiting = self.waiting.get_mut(subject)?;
        let bytes_max = FRAME_BYTES_MAX - FRAME_OVERHEAD_BYTES;
        let elements = waiting.take_front(self.form.elements_max(), bytes_max);
        self.waiting_bytes -= elements.as_bytes().len();
        if waiting.is_empty() {
            self.waiting.remove(subject);
        } else {
            self.turns.push_back(subject.to_owned());
        }
        Some(elements)
    }

    /// How many elements the append in flight on `subject` holds, the first of those pushed
    /// and not yet answered; 0 where none is.
    pub fn in_flight_len(&self, subject: &str) -> usize {
        self.in_flight.get(subject).map_or(0, |f| f.len)
    }

    /// The log has answered the append on `subject`, or did not in time.
    pub fn answered(&mut self, subject: &str, answer: Result<Appended, AppendError>) -> Fate {
        let Some(in_flight) = self.in_flight.get_mut(subject) else {
            return Fate::Unknown;
        };
        match answer {
            Err(AppendError::Unavailable(_)) if is_planted(Bug::AckBeforeAppend) => {
                self.in_flight.remove(subject);
                Fate::Stored(0)
            }
            Err(AppendError::Unavailable(_)) => {
                let pause = repeat_pause(in_flight.tries);
                in_flight.tries += 1;
                Fate::Repeat(in_flight.append.clone(), pause)
            }
            Ok(appended) => {
                self.in_flight.remove(subject);
                Fate::Stored(appended.seq)
            }
            Err(e) => {
                self.in_flight.remove(subject);
                Fate::Refused(e)
            }
        }
    }

    /// Bytes of elements that wait for an append.
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
    use conductor_protocol::frame::Encoding;

    fn writer(in_flight_max: usize) -> GroupCommit {
        GroupCommit::new(FrameHead::epoch(1), "w", in_flight_max)
    }

    /// An event is a map to the frame's splitter.
    fn event(bytes: usize) -> Elements {
        let mut event = vec![0x81, 0xa1, b'x', 0xc6];
        event.extend_from_slice(&(bytes as u32).to_be_bytes());
        event.resize(event.len() + bytes, 0);
        Elements::from(&[event])
    }

    fn stored(w: &mut GroupCommit, subject: &str) {
        let appended = Appended {
            seq: 1,
            is_duplicate: false,
        };
        assert_eq!(w.answered(subject, Ok(appended)), Fate::Stored(1));
    }

    #[test]
    fn an_append_without_an_answer_is_repeated_as_it_was() {
        let mut w = writer(1);
        w.push("s", event(1));
        let first = w.next_append().unwrap();
        w.push("s", event(2));
        for pause_ms in [20, 40, 80] {
            let lost = Err(AppendError::Unavailable(String::new()));
            let pause = Duration::from_millis(pause_ms);
            assert_eq!(w.answered("s", lost), Fate::Repeat(first.clone(), pause));
            assert_eq!(w.next_append(), None, "nothing overtakes it");
        }
        assert_eq!(repeat_pause(1_000), REPEAT_PAUSE_MAX);
        let refused = AppendError::Refused("too large".into());
        let fate = w.answered("s", Err(refused.clone()));
        assert_eq!(fate, Fate::Refused(refused));
        assert!(w.next_append().is_some());
        assert_eq!(
            w.answered("x", Err(AppendError::Conflict(None))),
            Fate::Unknown
        );
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
        stored(&mut w, "s");
        let second = w.next_append().unwrap();
        assert_eq!(frame::split(&first.payload).unwrap().events.len(), 1);
        assert_eq!(frame::split(&second.payload).unwrap().events.len(), 5);
        assert_ne!(first.id, second.id);
        stored(&mut w, "s");
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
            stored(&mut w, "s");
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
        stored(&mut w, "b");
        assert_eq!(w.next_append().unwrap().subject, "c");
        stored(&mut w, "c");
        assert!(w.next_append().is_none(), "a has one in flight");
        stored(&mut w, "a");
        assert_eq!(w.next_append().unwrap().subject, "a");
    }

    fn submissions(append: &Append) -> usize {
        let encoding = Encoding::of(None, &append.payload);
        assert_eq!(encoding, Encoding::Msgpack);
        frame::split_public(encoding, &append.payload)
            .unwrap()
            .len()
    }

    #[test]
    fn submissions_gather_like_events() {
        let mut w = GroupCommit::of_submissions("w", 1);
        assert_eq!(w.in_flight_len("s"), 0);
        w.push("s", event(1));
        let first = w.next_append().unwrap();
        assert_eq!((submissions(&first), w.in_flight_len("s")), (1, 1));
        for _ in 0..5 {
            w.push("s", event(1));
        }
        assert_eq!(w.in_flight_len("s"), 1, "what waits is not in flight");
        stored(&mut w, "s");
        assert_eq!(w.in_flight_len("s"), 0);
        let second = w.next_append().unwrap();
        assert_eq!((submissions(&second), w.in_flight_len("s")), (5, 5));
    }

    #[test]
    fn a_record_of_submissions_stays_below_both_limits() {
        let mut w = GroupCommit::of_submissions("w", 1);
        for _ in 0..SUBMISSIONS_PER_RECORD_MAX + 7 {
            w.push("s", event(1));
        }
        for bytes in [300_000, 500_000, 500_000] {
            w.push("s", event(bytes));
        }
        let mut records = Vec::new();
        while let Some(append) = w.next_append() {
            assert!(append.payload.len() <= FRAME_BYTES_MAX);
            records.push(submissions(&append));
            stored(&mut w, "s");
        }
        assert_eq!(records, [SUBMISSIONS_PER_RECORD_MAX, 8, 1, 1]);
    }
}
