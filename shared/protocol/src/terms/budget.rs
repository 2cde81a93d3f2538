//! What a task may spend.

use serde::{Deserialize, Serialize};

use crate::human::DurationMs;

/// What a task may spend over all its attempts.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Budget {
    /// Money, in US dollars.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usd: Option<f64>,
    /// Tokens: read, written to a cache, and written; read from a cache are not counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens: Option<u64>,
    /// Answers of a model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub turns: Option<u64>,
    /// Time its attempts run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time: Option<DurationMs>,
    /// What happens then.
    #[serde(skip_serializing_if = "is_fail")]
    pub on_reached: OnReached,
}

/// What happens when a budget is used up.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnReached {
    /// The attempt fails with class `budget`.
    #[default]
    Fail,
    /// Somebody is asked; the attempt waits.
    Ask,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_fail(on_reached: &OnReached) -> bool {
    *on_reached == OnReached::Fail
}
