//! What a collector made of an export.
//!
//! The library that exports tells of it in words alone: of a refusal in its error, of spans that
//! were rejected in a line of log. Both are read here, and tested against a collector
//! (`tests/e2e/collectors.rs`).

use std::sync::{Arc, Mutex, PoisonError};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

/// Whether another try can help (OTLP specification, "Failures").
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// The same spans may be taken another time.
    Later,
    /// The same spans never will; fewer may.
    ForGood,
    /// The same, because they are too many or too large at once.
    TooLarge,
}

/// What the library's words about a failed export mean. What is not understood may be mended.
pub(super) fn verdict(problem: &str) -> Verdict {
    if let Some((_, rest)) = problem.split_once("gRPC code: ") {
        let code = rest.split(|c: char| !c.is_ascii_alphabetic()).next();
        return match code {
            // With a time to come back the library has waited for that already.
            Some("ResourceExhausted") => Verdict::TooLarge,
            Some(
                "Unknown" | "InvalidArgument" | "NotFound" | "AlreadyExists" | "PermissionDenied"
                | "FailedPrecondition" | "Unimplemented" | "Internal" | "Unauthenticated",
            ) => Verdict::ForGood,
            _ => Verdict::Later,
        };
    }
    if let Some((_, rest)) = problem.split_once("status code: ") {
        let code = rest.split(|c: char| !c.is_ascii_digit()).next();
        return match code.and_then(|c| c.parse::<u16>().ok()) {
            Some(413) => Verdict::TooLarge,
            Some(429 | 502 | 503 | 504) | None => Verdict::Later,
            Some(_) => Verdict::ForGood,
        };
    }
    Verdict::Later
}

/// Spans that were rejected of an export that was taken, and why. A subscriber for the library's
/// log while it exports.
#[derive(Clone, Debug, Default)]
pub(super) struct Rejected(Arc<Mutex<(u64, String)>>);

/// What the library writes its log under.
const TARGET: &str = "opentelemetry-otlp";
/// How the names of the lines end that tell of rejected spans.
const PARTIAL_SUCCESS: &str = ".PartialSuccess";

impl Rejected {
    /// What was rejected since this was last asked.
    pub(super) fn take(&self) -> (u64, String) {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Subscriber for Rejected {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == TARGET && metadata.name().ends_with(PARTIAL_SUCCESS)
    }

    fn max_level_hint(&self) -> Option<tracing::level_filters::LevelFilter> {
        Some(tracing::level_filters::LevelFilter::WARN)
    }

    fn event(&self, event: &Event<'_>) {
        let mut said = Said::default();
        event.record(&mut said);
        let mut locked = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        locked.0 += said.rejected;
        locked.1 = said.why;
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

#[derive(Default)]
struct Said {
    rejected: u64,
    why: String,
}

impl Visit for Said {
    fn record_i64(&mut self, field: &Field, value: i64) {
        if field.name() == "rejected_spans" {
            self.rejected = u64::try_from(value).unwrap_or(0);
        }
    }
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "error_message" {
            value.clone_into(&mut self.why);
        }
    }
    fn record_debug(&mut self, _: &Field, _: &dyn std::fmt::Debug) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_tried_again_is_as_the_specification_says() {
        for (words, expected) in [
            (
                "export failed with gRPC code: Unavailable: tcp connect error",
                Verdict::Later,
            ),
            (
                "export failed with gRPC code: DeadlineExceeded",
                Verdict::Later,
            ),
            (
                "export failed with gRPC code: InvalidArgument",
                Verdict::ForGood,
            ),
            (
                "export failed with gRPC code: Unauthenticated",
                Verdict::ForGood,
            ),
            (
                "export failed with gRPC code: ResourceExhausted",
                Verdict::TooLarge,
            ),
            ("HTTP export failed with status code: 400", Verdict::ForGood),
            (
                "HTTP export failed with status code: 413",
                Verdict::TooLarge,
            ),
            ("HTTP export failed with status code: 429", Verdict::Later),
            ("HTTP export failed with status code: 503", Verdict::Later),
            ("HTTP export failed: network error", Verdict::Later),
        ] {
            assert_eq!(verdict(words), expected, "{words}");
        }
    }
}
