//! Trace context: which trace a task belongs to, and the ids of its spans.
//!
//! Both are functions of the task alone, so that a restart, or a second process that exports the
//! same log, says the same again and neither splits nor doubles a trace. Format:
//! W3C Trace Context, level 1.

use sha2::{Digest, Sha256};

use crate::ids::TaskId;

/// A trace id, never all zero.
pub type TraceId = [u8; 16];
/// A span id, never all zero.
pub type SpanId = [u8; 8];

/// The flag that says that the caller records its trace.
const SAMPLED: u8 = 1;

/// Which span of a task is meant. The numbers are part of every span id and never reused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum SpanKind {
    /// The task, from its submission to its end.
    Task = 1,
    /// From the submission's record to the decision about it.
    Accept = 2,
    /// Waiting for what it needs, or for its time.
    Pending = 3,
    /// Ready, waiting for an agent.
    Queue = 4,
    /// Waiting for the next attempt.
    Retry = 5,
    /// An attempt, from its assignment to its end.
    Attempt = 6,
    /// What an attempt ran, from its beginning to its end.
    Run = 7,
    /// Waiting while its queue was paused.
    Pause = 8,
    /// The task again, from the moment somebody had it run again.
    Redrive = 9,
    /// The orchestrator deciding, as its process saw it.
    Decide = 10,
    /// The scheduler planning, as its process saw it.
    Plan = 11,
    /// An append of a frame, as its writer saw it.
    Append = 12,
    /// The program of an attempt, as its agent saw it.
    Process = 13,
    /// A turn of a model.
    Turn = 14,
    /// A call of a tool by a model.
    Tool = 15,
    /// An agent preparing what an attempt needs.
    Prepare = 16,
}

/// The trace of a task.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TraceContext {
    /// The task.
    pub task: TaskId,
    /// The caller's trace, or one that derives from the task's id.
    pub trace: TraceId,
    /// The caller's span, where there is one.
    pub caller: Option<SpanId>,
    /// Whether the caller records its trace; `None` without a caller.
    pub is_sampled: Option<bool>,
}

impl TraceContext {
    /// The trace of a task that came with this `traceparent`. One that cannot be read counts as
    /// none, as the specification asks.
    pub fn of(task: TaskId, traceparent: Option<&str>) -> Self {
        match traceparent.and_then(parse) {
            Some((trace, span, flags)) => Self {
                task,
                trace,
                caller: Some(span),
                is_sampled: Some(flags & SAMPLED != 0),
            },
            None => Self {
                task,
                trace: task.to_bytes(),
                caller: None,
                is_sampled: None,
            },
        }
    }

    /// The span of this kind; `n` tells several of a kind apart: the attempt, or a sequence.
    pub fn span(&self, kind: SpanKind, n: u64) -> SpanId {
        let mut hash = Sha256::new();
        hash.update(self.task.to_bytes());
        hash.update([kind as u8]);
        hash.update(n.to_be_bytes());
        let mut id = [0; 8];
        id.copy_from_slice(hash.finalize().get(..8).unwrap_or(&[1; 8]));
        if id == [0; 8] { [1; 8] } else { id }
    }

    /// The `traceparent` of what runs below a span of this trace.
    pub fn traceparent(&self, span: SpanId) -> String {
        let flags = u8::from(self.is_sampled.unwrap_or(true));
        format!("00-{}-{}-{flags:02x}", hex(&self.trace), hex(&span))
    }

    /// The trace id as people and Jaeger write it.
    pub fn trace_hex(&self) -> String {
        hex(&self.trace)
    }

    /// Whether its trace is recorded where `ratio` of those without a caller are, and those of a
    /// caller as the caller says (the sampler `parentbased_traceidratio`).
    pub fn is_recorded(&self, ratio: f64) -> bool {
        self.is_sampled.unwrap_or_else(|| {
            let mut low = [0; 8];
            low.copy_from_slice(self.trace.get(8..).unwrap_or(&[0; 8]));
            // The last 56 bits are those that chance made (W3C Trace Context, level 2); in a
            // UUID others say its version.
            let bound = (ratio.clamp(0.0, 1.0) * (1_u64 << 56) as f64) as u64;
            (u64::from_be_bytes(low) & ((1 << 56) - 1)) < bound
        })
    }
}

/// Lower-case hexadecimal.
fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing into a string has no way to fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let is_hex = |c: u8| c.is_ascii_digit() || (b'a'..=b'f').contains(&c);
    if text.len() != 2 * N || !text.bytes().all(is_hex) {
        return None;
    }
    let mut out = [0; N];
    for (byte, at) in out.iter_mut().zip((0..).step_by(2)) {
        *byte = u8::from_str_radix(text.get(at..at + 2)?, 16).ok()?;
    }
    Some(out)
}

/// Reads `00-<trace>-<span>-<flags>`; of a later version what is known of it.
fn parse(text: &str) -> Option<(TraceId, SpanId, u8)> {
    let mut parts = text.trim().split('-');
    let version = unhex::<1>(parts.next()?)?[0];
    let trace = unhex::<16>(parts.next()?)?;
    let span = unhex::<8>(parts.next()?)?;
    let flags = unhex::<1>(parts.next()?)?[0];
    let has_more = parts.next().is_some();
    let is_valid =
        version != 0xff && (version > 0 || !has_more) && trace != [0; 16] && span != [0; 8];
    is_valid.then_some((trace, span, flags))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CALLER: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn task() -> TaskId {
        "01890a5d-ac96-774b-bcce-b302099a8057".parse().unwrap()
    }

    #[test]
    fn a_task_without_a_caller_is_its_own_trace() {
        let context = TraceContext::of(task(), None);
        assert_eq!(context.trace_hex(), "01890a5dac96774bbcceb302099a8057");
        assert_eq!((context.caller, context.is_sampled), (None, None));
        // Pinned: a later version must say the same of an old log.
        let root = context.span(SpanKind::Task, 0);
        assert_eq!(
            context.traceparent(root),
            "00-01890a5dac96774bbcceb302099a8057-1009beeff16b0129-01"
        );
        assert_ne!(root, context.span(SpanKind::Attempt, 0));
        assert_ne!(
            context.span(SpanKind::Attempt, 1),
            context.span(SpanKind::Attempt, 2)
        );
    }

    #[test]
    fn a_caller_s_trace_is_joined() {
        let context = TraceContext::of(task(), Some(CALLER));
        assert_eq!(context.trace_hex(), "0af7651916cd43dd8448eb211c80319c");
        assert_eq!(context.caller.map(|c| hex(&c)).unwrap(), "b7ad6b7169203331");
        assert_eq!(context.is_sampled, Some(true));
        let unsampled = CALLER.replace("-01", "-00");
        let context = TraceContext::of(task(), Some(&unsampled));
        assert_eq!(context.is_sampled, Some(false));
        assert!(context.traceparent([2; 8]).ends_with("-00"));
        let later = format!("01{}-more", CALLER.get(2..).unwrap());
        assert!(TraceContext::of(task(), Some(&later)).caller.is_some());
    }

    #[test]
    fn what_cannot_be_read_is_no_caller() {
        let all_zero = format!("00-{}-b7ad6b7169203331-01", "0".repeat(32));
        for bad in [
            "",
            "00",
            "hello",
            &CALLER.to_uppercase(),
            &format!("{CALLER}-more"),
            &CALLER.replace("00-", "ff-"),
            &all_zero,
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0af7651916cd43dd8448eb211c80319é-b7ad6b7169203331-01",
        ] {
            assert_eq!(TraceContext::of(task(), Some(bad)).caller, None, "{bad:?}");
        }
    }

    #[test]
    fn the_ratio_is_of_traces_and_the_caller_decides_first() {
        let of = |n: u64| {
            let mut random = [0; 10];
            random[2..].copy_from_slice(&n.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_be_bytes());
            TraceContext::of(TaskId::from_parts(1, random), None)
        };
        let recorded = (0..1_000).filter(|n| of(*n).is_recorded(0.25)).count();
        assert!((150..350).contains(&recorded), "{recorded}");
        assert!((0..100).all(|n| of(n).is_recorded(1.0)));
        assert!(!(0..100).any(|n| of(n).is_recorded(0.0)));
        assert!(TraceContext::of(task(), Some(CALLER)).is_recorded(0.0));
    }
}
