//! When people are asked, and what they may answer.

use serde::{Deserialize, Serialize};

use crate::human::DurationMs;

/// When people are asked, and what holds when nobody answers.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ApprovalSpec {
    /// Whether tools that are not allowed by name are asked for, where the runtime can.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub tools: bool,
    /// Whether its result is shown to somebody before it counts.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub acceptance: bool,
    /// How long an answer is waited for; an hour when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires: Option<DurationMs>,
    /// What an answer that does not come means.
    #[serde(skip_serializing_if = "is_deny")]
    pub default: Answer,
}

/// How long an answer is waited for where a task does not say, in milliseconds.
pub const APPROVAL_EXPIRY_MS_DEFAULT: u64 = 3_600_000;

/// Yes or no.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Answer {
    /// No.
    #[default]
    Deny,
    /// Yes.
    Allow,
}

impl Answer {
    /// The wire name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Deny => "deny",
            Self::Allow => "allow",
        }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_deny(answer: &Answer) -> bool {
    *answer == Answer::Deny
}
