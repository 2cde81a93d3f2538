//! The terms of an attempt: where it is boxed in, what it works on, what it may spend, and what
//! must hold before its success counts.
//!
//! A task without terms runs in the agent's default sandbox, in an empty directory, and is done
//! when its program says so. What is absent on the wire has the meaning given here for ever.

mod sandbox;
mod subtasks;

use serde::{Deserialize, Serialize};

pub use sandbox::{
    Guarantee, Level, Network, Reach, SandboxInUse, SandboxKind, SandboxOffer, SandboxSpec,
};

pub use subtasks::SubtaskSpec;

use crate::event::Usage;
use crate::human::DurationMs;
use crate::ids::TaskId;
use crate::spec::CommandSpec;

/// Everything a task asks for beyond what it runs. One for the state, the assignment and whoever
/// reads them.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Terms {
    /// What it is boxed in by.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sandbox: Option<SandboxSpec>,
    /// What it works on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workspace: Option<WorkspaceSpec>,
    /// Programs that are run before it, in its sandbox; one that fails ends the attempt.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub setup: Vec<CommandSpec>,
    /// Programs that must succeed after it, in its sandbox: else it is `check_failed`, whatever
    /// the agent said.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub checks: Vec<CommandSpec>,
    /// Files to keep, by path relative to the workspace.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub artifacts: Vec<String>,
    /// What it may spend, over all its attempts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub budget: Option<Budget>,
    /// Models it may use; none named means any.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub models: Vec<String>,
    /// Secrets of the agent that are granted to it, by name, as files.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<String>,
    /// When people are asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub approvals: Option<ApprovalSpec>,
    /// JSON schema of its structured result.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub result_schema: Option<String>,
    /// What tasks its attempts may submit; none when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subtasks: Option<SubtaskSpec>,
    /// The task whose attempt submitted it. Never asked for: the orchestrator says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent: Option<TaskId>,
}

impl Terms {
    /// Whether nothing is asked for.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The level of isolation that is asked for.
    pub fn level(&self) -> Option<Level> {
        self.sandbox.as_ref().and_then(|s| s.level)
    }

    /// How far the network that is asked for goes.
    pub fn reach(&self) -> Reach {
        let network = self.sandbox.as_ref().map(|s| &s.network);
        network.map_or(Reach::None, Network::reach)
    }

    /// The sandbox that is asked for by name.
    pub fn sandbox_kind(&self) -> Option<SandboxKind> {
        self.sandbox.as_ref().and_then(|s| s.kind)
    }
}

/// What a task works on. Without one it begins in an empty directory.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct WorkspaceSpec {
    /// A workspace of this name that later tasks of the same namespace go on in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// A repository that it begins with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub git: Option<GitSpec>,
}

/// A git repository. The agent's host clones, fetches and pushes; what runs has no credentials.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct GitSpec {
    /// URL or absolute path.
    pub url: String,
    /// Branch, tag or commit; absent means the remote's HEAD.
    #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// Branch that its commits are pushed to after a success.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub push: Option<String>,
}

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

/// What is known of a task's earlier attempts when another is assigned.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Before {
    /// The model's session to go on with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// All that earlier attempts used, each counted once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
    /// How long earlier attempts ran in all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ran: Option<DurationMs>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::human::ByteSize;

    #[test]
    fn a_word_is_a_level_or_a_kind() {
        let level: SandboxSpec = serde_json::from_str(r#""strict""#).unwrap();
        assert_eq!(level.level, Some(Level::Strict));
        let kind: SandboxSpec = serde_json::from_str(r#""bubblewrap""#).unwrap();
        assert_eq!(kind.kind, Some(SandboxKind::Bubblewrap));
        let error = serde_json::from_str::<SandboxSpec>(r#""box""#).unwrap_err();
        assert!(
            error.to_string().contains("minimal, moderate, strict"),
            "{error}"
        );
        let whole: SandboxSpec = serde_json::from_str(
            r#"{"level":"moderate","memory":"2g","network":{"hosts":["example.org"]}}"#,
        )
        .unwrap();
        assert_eq!(whole.memory, Some(ByteSize(2 << 30)));
        assert_eq!(whole.network, Network::Hosts(vec!["example.org".into()]));
    }

    #[test]
    fn each_level_promises_more_than_the_one_below() {
        for (less, more) in [
            (Level::Minimal, Level::Moderate),
            (Level::Moderate, Level::Strict),
        ] {
            let (less, more) = (less.guarantees(), more.guarantees());
            assert!(less.iter().all(|g| more.contains(g)) && less.len() < more.len());
        }
    }

    #[test]
    fn terms_read_back_as_they_were_written() {
        let terms = Terms {
            sandbox: serde_json::from_str(r#"{"kind":"podman","network":"full","image":"i"}"#)
                .unwrap(),
            budget: Some(Budget {
                usd: Some(1.5),
                on_reached: OnReached::Ask,
                ..Budget::default()
            }),
            models: vec!["m".into()],
            ..Terms::default()
        };
        let bytes = rmp_serde::to_vec_named(&terms).unwrap();
        assert_eq!(rmp_serde::from_slice::<Terms>(&bytes).unwrap(), terms);
        let empty = rmp_serde::to_vec_named(&Terms::default()).unwrap();
        assert_eq!(empty, [0x80], "what is not asked for costs nothing");
    }
}
