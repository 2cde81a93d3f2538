//! Frames: how events share one record, so that one fsync carries hundreds of them.
//!
//! Ours are `{"epoch": …, "events": [event, …]}` in MessagePack, with `incarnation`
//! instead of `epoch` for agents. On the subjects people write, a frame is one object
//! or an array of objects, in JSON or MessagePack.

mod elements;

pub use elements::Elements;

use crate::limits::{DEPTH_MAX, PAYLOAD_BYTES_MAX, SUBMISSIONS_PER_RECORD_MAX};
use crate::msgpack;

/// Bytes that are not a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a well-formed frame")]
pub struct Malformed;

impl From<msgpack::Broken> for Malformed {
    fn from(_: msgpack::Broken) -> Self {
        Self
    }
}

/// Under what authority a frame's events stand.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct FrameHead {
    /// The leader's epoch: sequence of its `leader.elected`.
    pub epoch: Option<u64>,
    /// The agent's incarnation: sequence of its `agent.joined`.
    pub incarnation: Option<u64>,
}

impl FrameHead {
    /// The head of a leader's frame.
    pub fn epoch(epoch: u64) -> Self {
        Self {
            epoch: Some(epoch),
            incarnation: None,
        }
    }

    /// The head of an agent's frame.
    pub fn incarnation(incarnation: u64) -> Self {
        Self {
            epoch: None,
            incarnation: Some(incarnation),
        }
    }
}

/// A frame of ours, split but not yet decoded.
#[derive(Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Its authority.
    pub head: FrameHead,
    /// The bytes of each event.
    pub events: Vec<&'a [u8]>,
}

/// Bytes of a frame's head and array header, at most; more than the header of an array alone.
pub const FRAME_OVERHEAD_BYTES: usize = 64;

/// Joins encoded events into a frame.
pub fn join(head: FrameHead, events: impl Into<Elements>) -> Vec<u8> {
    let events = events.into();
    let mut out = Vec::with_capacity(events.as_bytes().len() + FRAME_OVERHEAD_BYTES);
    let fields = usize::from(head.epoch.is_some()) + usize::from(head.incarnation.is_some());
    msgpack::put_map(&mut out, fields + 1);
    for (key, value) in [("epoch", head.epoch), ("incarnation", head.incarnation)] {
        if let Some(value) = value {
            msgpack::put_short_str(&mut out, key);
            msgpack::put_uint(&mut out, value);
        }
    }
    msgpack::put_short_str(&mut out, "events");
    msgpack::put_array(&mut out, events.len());
    out.extend_from_slice(events.as_bytes());
    out
}

/// Splits a frame of ours into its events.
pub fn split(payload: &[u8]) -> Result<Frame<'_>, Malformed> {
    let (head, events) = split_with(payload, whole)?;
    Ok(Frame { head, events })
}

/// Splits a frame of ours and reads its events on the way: `element` is given what is left of
/// the payload and says what stands first there, and how many bytes of it that is; `None` where
/// that is no value. So what is read anyway need not be walked through before.
pub fn split_with<'a, T>(
    payload: &'a [u8],
    mut element: impl FnMut(&'a [u8]) -> Option<(T, usize)>,
) -> Result<(FrameHead, Vec<T>), Malformed> {
    let (entries, mut at) = msgpack::map_at(payload, 0)?.ok_or(Malformed)?;
    let (mut head, mut events) = (FrameHead::default(), Vec::new());
    for _ in 0..entries {
        let (key, value) = msgpack::str_at(payload, at)?;
        at = match key {
            "epoch" => {
                let (n, end) = msgpack::uint_at(payload, value)?;
                head.epoch = Some(n);
                end
            }
            "incarnation" => {
                let (n, end) = msgpack::uint_at(payload, value)?;
                head.incarnation = Some(n);
                end
            }
            "events" => {
                events.clear();
                elements(payload, value, &mut events, &mut element)?
            }
            _ => msgpack::skip(payload, value)?,
        };
    }
    if at == payload.len() && !events.is_empty() {
        Ok((head, events))
    } else {
        Err(Malformed)
    }
}

/// The bytes of the value that stands first, and how many they are.
pub fn whole(bytes: &[u8]) -> Option<(&[u8], usize)> {
    let end = msgpack::skip(bytes, 0).ok()?;
    Some((bytes.get(..end)?, end))
}

/// Bytes of the smallest event there is, about.
const ELEMENT_BYTES_MIN: usize = 16;

/// Collects the elements of the array at `at`; returns where it ends.
fn elements<'a, T>(
    bytes: &'a [u8],
    at: usize,
    out: &mut Vec<T>,
    mut element: impl FnMut(&'a [u8]) -> Option<(T, usize)>,
) -> Result<usize, Malformed> {
    let (count, mut at) = msgpack::array_at(bytes, at)?.ok_or(Malformed)?;
    // A count may be a lie.
    out.reserve(count.min(bytes.len() / ELEMENT_BYTES_MIN));
    for _ in 0..count {
        let rest = bytes.get(at..).ok_or(Malformed)?;
        let (item, len) = element(rest).ok_or(Malformed)?;
        out.push(item);
        at += len;
    }
    Ok(at)
}

/// How a record that people wrote is encoded.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Encoding {
    /// JSON text.
    Json,
    /// MessagePack.
    Msgpack,
}

impl Encoding {
    /// The `Content-Type` decides, else the first byte: JSON objects and arrays begin
    /// with bytes that as MessagePack would be a small number.
    pub fn of(content_type: Option<&str>, payload: &[u8]) -> Self {
        match content_type.map(str::to_ascii_lowercase) {
            Some(t) if t.contains("json") => return Self::Json,
            Some(t) if t.contains("msgpack") => return Self::Msgpack,
            _ => {}
        }
        match payload.iter().find(|b| !b.is_ascii_whitespace()) {
            Some(b'{' | b'[') => Self::Json,
            _ => Self::Msgpack,
        }
    }
}

/// Joins encoded submissions into what a submit record holds: a MessagePack array, also for
/// one. [`split_public`] gives them back; it refuses none at all and more than
/// [`SUBMISSIONS_PER_RECORD_MAX`].
pub fn join_public(elements: impl Into<Elements>) -> Vec<u8> {
    let elements = elements.into();
    let mut out = Vec::with_capacity(elements.as_bytes().len() + FRAME_OVERHEAD_BYTES);
    msgpack::put_array(&mut out, elements.len());
    out.extend_from_slice(elements.as_bytes());
    out
}

/// Splits what people wrote, one object or an array of them, into its elements.
pub fn split_public(encoding: Encoding, payload: &[u8]) -> Result<Vec<&[u8]>, Malformed> {
    if payload.len() > PAYLOAD_BYTES_MAX {
        return Err(Malformed);
    }
    let elements = match encoding {
        Encoding::Json => split_json(payload)?,
        Encoding::Msgpack => {
            let mut out = Vec::new();
            let end = if msgpack::array_at(payload, 0)?.is_some() {
                elements(payload, 0, &mut out, whole)?
            } else {
                msgpack::map_at(payload, 0)?.ok_or(Malformed)?;
                out.push(payload);
                msgpack::skip(payload, 0)?
            };
            if end != payload.len() {
                return Err(Malformed);
            }
            out
        }
    };
    let fits = !elements.is_empty() && elements.len() <= SUBMISSIONS_PER_RECORD_MAX;
    if fits { Ok(elements) } else { Err(Malformed) }
}

fn split_json(payload: &[u8]) -> Result<Vec<&[u8]>, Malformed> {
    use serde_json::value::RawValue;
    if json_depth(payload) > DEPTH_MAX {
        return Err(Malformed);
    }
    let first = payload.iter().find(|b| !b.is_ascii_whitespace());
    match first {
        Some(b'[') => {
            let raw: Vec<&RawValue> = serde_json::from_slice(payload).map_err(|_| Malformed)?;
            Ok(raw.into_iter().map(|v| v.get().as_bytes()).collect())
        }
        Some(b'{') => {
            let raw: &RawValue = serde_json::from_slice(payload).map_err(|_| Malformed)?;
            Ok(vec![raw.get().as_bytes()])
        }
        _ => Err(Malformed),
    }
}

/// How deep brackets nest outside strings: refused before anything follows them.
fn json_depth(text: &[u8]) -> usize {
    let (mut depth, mut deepest, mut in_string, mut escaped) = (0_usize, 0, false, false);
    for byte in text {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Event, TaskReady};
    use crate::ids::TaskId;
    use proptest::prelude::*;

    fn ready(ms: u64) -> Vec<u8> {
        Event::from(TaskReady {
            task: TaskId::from_parts(ms, [0; 10]),
        })
        .encode()
    }

    #[test]
    fn frames_read_back() {
        let events = [ready(1), ready(2), ready(3)];
        let bytes = join(FrameHead::epoch(70_000), &events);
        let frame = split(&bytes).unwrap();
        assert_eq!(frame.head, FrameHead::epoch(70_000));
        assert_eq!(
            frame.events,
            events.iter().map(Vec::as_slice).collect::<Vec<_>>()
        );
    }

    #[test]
    fn people_write_json_and_msgpack_alike() {
        for json in [r#"{"a":1}"#, r#" [{"a":1}]"#] {
            assert_eq!(Encoding::of(None, json.as_bytes()), Encoding::Json);
            assert_eq!(
                split_public(Encoding::Json, json.as_bytes()).unwrap(),
                [br#"{"a":1}"#]
            );
        }
        let pack = rmp_serde::to_vec_named(&serde_json::json!([{"a": 1}, {"a": 2}])).unwrap();
        assert_eq!(Encoding::of(None, &pack), Encoding::Msgpack);
        assert_eq!(split_public(Encoding::Msgpack, &pack).unwrap().len(), 2);
        for bad in ["", "{", "[]", "7", "\"x\"", "{} {}"] {
            assert!(
                split_public(Encoding::Json, bad.as_bytes()).is_err(),
                "{bad}"
            );
        }
        let deep = format!("{}{}", "[".repeat(100), "]".repeat(100));
        assert!(split_public(Encoding::Json, deep.as_bytes()).is_err());
    }

    #[test]
    fn joined_submissions_read_back() {
        let element = rmp_serde::to_vec_named(&serde_json::json!({"name": "a"})).unwrap();
        for len in [1, 15, 16, 70_000, SUBMISSIONS_PER_RECORD_MAX] {
            let payload = join_public(&vec![&element; len]);
            assert_eq!(Encoding::of(None, &payload), Encoding::Msgpack);
            let read = split_public(Encoding::Msgpack, &payload);
            if len <= SUBMISSIONS_PER_RECORD_MAX {
                assert_eq!(read.unwrap(), vec![element.as_slice(); len]);
            } else {
                assert_eq!(read, Err(Malformed), "{len} are too many");
            }
        }
    }

    proptest! {
        #[test]
        fn no_bytes_break_splitting(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
            let _ = split(&bytes);
            for encoding in [Encoding::Json, Encoding::Msgpack] {
                let _ = split_public(encoding, &bytes);
            }
        }

        #[test]
        fn a_damaged_frame_never_breaks_decoding(at in 0_usize..200, byte: u8) {
            let mut bytes = join(FrameHead::epoch(9), &[ready(1), ready(2)]);
            let len = bytes.len();
            bytes[at % len] = byte;
            if let Ok(frame) = split(&bytes) {
                for event in frame.events {
                    let _ = Event::decode(event);
                }
            }
        }
    }
}
