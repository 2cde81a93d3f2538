//! What a collector refuses, and with which words.

use axum::http::StatusCode;
use tonic::Code;

use super::Seen;

/// What is refused.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum Refusal {
    /// Nothing.
    #[default]
    None,
    /// Everything, for now.
    Busy,
    /// Everything, for who asks: as where a password is wrong.
    Stranger,
    /// Whatever holds a span of this trace, for good.
    Trace(String),
    /// More spans at once than this.
    MoreThan(usize),
    /// Spans of this trace, while the others of an export are kept.
    Only(String),
}

/// What becomes of an export.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ruling {
    Taken { rejected: i64 },
    Refused { code: Code, status: StatusCode },
}

impl Refusal {
    /// What becomes of these, and which are kept.
    pub(super) fn judge(&self, spans: &mut Vec<Seen>) -> Ruling {
        let refused = |code, status| Ruling::Refused { code, status };
        match self {
            Self::Busy => refused(Code::Unavailable, StatusCode::SERVICE_UNAVAILABLE),
            Self::Stranger => refused(Code::Unauthenticated, StatusCode::UNAUTHORIZED),
            Self::Trace(trace) if spans.iter().any(|s| s.trace == *trace) => {
                refused(Code::InvalidArgument, StatusCode::BAD_REQUEST)
            }
            Self::MoreThan(max) if spans.len() > *max => {
                refused(Code::ResourceExhausted, StatusCode::PAYLOAD_TOO_LARGE)
            }
            Self::Only(trace) => {
                let before = spans.len();
                spans.retain(|s| s.trace != *trace);
                let rejected = i64::try_from(before - spans.len()).expect("a small number");
                Ruling::Taken { rejected }
            }
            _ => Ruling::Taken { rejected: 0 },
        }
    }
}
