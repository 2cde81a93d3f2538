//! Every limit of the protocol, in one place (design section 2).
//!
//! A limit is part of the contract: raising one is a protocol change, because a
//! reader may have sized a buffer by it.

/// Largest submitted task, in bytes of its encoded form.
pub const SPEC_BYTES_MAX: usize = 512 * 1024;
/// Largest frame any of our writers appends, in bytes.
pub const FRAME_BYTES_MAX: usize = 768 * 1024;
/// The server's `max_payload`, in bytes.
pub const PAYLOAD_BYTES_MAX: usize = 1024 * 1024;
/// Largest event that carries no spec, in bytes.
pub const EVENT_BYTES_MAX: usize = 64 * 1024;
/// Of a submission above this many bytes run and metadata stay in the log and are read by
/// position.
pub const BODY_INLINE_BYTES_MAX: usize = 1024;
/// Largest result kept in an event, in bytes; longer text is cut and says so.
pub const RESULT_BYTES_MAX: usize = 32 * 1024;
/// Longest free-text message in an event (failure reason, progress), in bytes.
pub const MESSAGE_BYTES_MAX: usize = 1024;
/// Longest cell, queue, namespace or agent name, in bytes.
pub const NAME_BYTES_MAX: usize = 64;
/// Longest task name, idempotency key or concurrency key, in bytes.
pub const KEY_BYTES_MAX: usize = 256;
/// Longest `Conductor-Reply` subject, in bytes.
pub const REPLY_BYTES_MAX: usize = 256;
/// Most entries in a submission's labels or metadata.
pub const MAP_ENTRIES_MAX: usize = 64;
/// Longest value in labels or metadata, in bytes.
pub const MAP_VALUE_BYTES_MAX: usize = 1024;
/// Most tasks one task may need.
pub const NEEDS_MAX: usize = 256;
/// Most tasks one submission record may hold.
pub const SUBMISSIONS_PER_RECORD_MAX: usize = 10_000;
/// Largest terms of a task, in bytes of their encoded form: every waiting task holds its own.
pub const TERMS_BYTES_MAX: usize = 16 * 1024;
/// Most entries in each list of a task's terms.
pub const TERMS_ENTRIES_MAX: usize = 64;
/// Largest task that an attempt may submit, in bytes of its JSON: it shares a frame with what else
/// its agent reports.
pub const SUBTASK_BYTES_MAX: usize = 48 * 1024;
/// Most tasks that a task may be allowed to submit, over all its attempts.
pub const SUBTASKS_MAX: u32 = 256;
/// Most submissions of one attempt, those that are refused included.
pub const SUBMITTED_MAX: u32 = 512;
/// Deepest nesting of tasks that submit tasks.
pub const SUBTASK_DEPTH_MAX: u32 = 4;
/// Longest text of a question to people, or of a word to an attempt, in bytes.
pub const WORD_BYTES_MAX: usize = 4 * 1024;
/// Highest priority; 0 is the lowest.
pub const PRIORITY_MAX: u8 = 9;
/// Most attempts a retry policy may allow.
pub const ATTEMPTS_MAX: u32 = 1_000;
/// Most slots one task may take, and most slots one agent may offer.
pub const SLOTS_MAX: u32 = 65_536;
/// Longest duration a task may ask for, in milliseconds (366 days).
pub const DURATION_MS_MAX: u64 = 366 * 24 * 3600 * 1000;
/// Deepest nesting of a message that is still read.
pub const DEPTH_MAX: usize = 64;
/// The format every log begins with.
pub const FORMAT_FIRST: u32 = 1;
/// The newest format this software knows; a reader stops where the log goes beyond it.
pub const FORMAT_KNOWN: u32 = 2;
/// Most errors of a rejection; a person who has mended these sees the rest.
pub const ERRORS_MAX: usize = 32;
/// Longest text of an error, in bytes: it may repeat what was submitted.
pub const ERROR_TEXT_BYTES_MAX: usize = 256;
/// Longest W3C trace context that is kept; the format has 55 bytes.
pub const TRACEPARENT_BYTES_MAX: usize = 128;
