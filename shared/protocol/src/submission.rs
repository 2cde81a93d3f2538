//! Submissions: what people write, read leniently in form and strictly in content.
//!
//! A wrong submission is answered with every bad field at once. Unlike events, unknown
//! fields are errors here: a person who mistypes `prioritty` wants to be told.

mod diagnose;
mod quick;
mod resolve;
mod runs;
mod subtask;
mod terms;

use serde::{Deserialize, Serialize};

pub use diagnose::from_json_value;
pub use resolve::{Context, Resolved, resolve_all};
pub use subtask::{Parent, resolve_subtask};

use crate::compact::Pairs;
use crate::event::FieldError;
use crate::frame::Encoding;
use crate::human::{DurationMs, TimeMs};
use crate::ids::TaskId;
use crate::spec::{CommandSpec, Concurrency, NeedPolicy, RetryPolicy, RunSpec, Timeouts};
use crate::terms::{ApprovalSpec, Budget, SandboxSpec, SubtaskSpec, Terms, WorkspaceSpec};

/// One task as submitted; only `run` must be there.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Submission {
    /// A UUIDv7 of the submitter's own making.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<TaskId>,
    /// Idempotency key: the same key again is the same task.
    #[serde(
        default,
        alias = "idempotency_key",
        skip_serializing_if = "Option::is_none"
    )]
    pub key: Option<String>,
    /// What people call it; other tasks of the same submission may need it by this name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What to run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<RunSpec>,
    /// The queue; must be the one of the subject, which is the default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<String>,
    /// Whose it is; when absent that of the subject, else `default`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// 0 (lowest) to 9; 5 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<u8>,
    /// Labels an agent must have.
    #[serde(default, skip_serializing_if = "Pairs::is_empty")]
    pub labels: Pairs,
    /// Tasks that must end first, by id or by name within this submission.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub needs: Vec<String>,
    /// What happens when one of them does not succeed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_need_failed: Option<NeedPolicy>,
    /// When it is tried again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<RetryPolicy>,
    /// How long things may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeouts: Option<Timeouts>,
    /// Not before this time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_at: Option<TimeMs>,
    /// Not before this long after it was submitted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay: Option<DurationMs>,
    /// Limit shared with other tasks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<Concurrency>,
    /// Slots it takes on its agent; 1 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slots: Option<u32>,
    /// The submitter's own notes.
    #[serde(default, skip_serializing_if = "Pairs::is_empty")]
    pub metadata: Pairs,
    /// What boxes it in: a level, a kind, or both with limits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox: Option<SandboxSpec>,
    /// What it works on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workspace: Option<WorkspaceSpec>,
    /// Programs that are run before it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub setup: Vec<CommandSpec>,
    /// Programs that must succeed after it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub checks: Vec<CommandSpec>,
    /// Files to keep.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub artifacts: Vec<String>,
    /// What it may spend.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget: Option<Budget>,
    /// Models it may use.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub models: Vec<String>,
    /// Secrets that are granted to it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<String>,
    /// When people are asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approvals: Option<ApprovalSpec>,
    /// JSON schema of its structured result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result_schema: Option<String>,
    /// What tasks its attempts may submit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subtasks: Option<SubtaskSpec>,
    /// W3C trace context of whoever submits it; without one that of the record's header. What
    /// is none is ignored, as the specification asks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
}

impl Submission {
    /// Whether it asks for anything beyond what it runs: most do not, and are read by the million.
    pub fn has_terms(&self) -> bool {
        self.sandbox.is_some()
            || self.workspace.is_some()
            || self.budget.is_some()
            || self.approvals.is_some()
            || self.result_schema.is_some()
            || self.subtasks.is_some()
            || !(self.setup.is_empty() && self.checks.is_empty() && self.artifacts.is_empty())
            || !(self.models.is_empty() && self.secrets.is_empty())
    }

    /// What it asks for beyond what it runs.
    pub fn terms(&self) -> Terms {
        Terms {
            sandbox: self.sandbox.clone(),
            workspace: self.workspace.clone(),
            setup: self.setup.clone(),
            checks: self.checks.clone(),
            artifacts: self.artifacts.clone(),
            budget: self.budget,
            models: self.models.clone(),
            secrets: self.secrets.clone(),
            approvals: self.approvals.clone(),
            result_schema: self.result_schema.clone(),
            subtasks: self.subtasks.clone(),
            parent: None,
        }
    }

    /// Reads one element of a submit record: what can be read, and every bad field.
    pub fn read(encoding: Encoding, element: &[u8]) -> (Self, Vec<FieldError>) {
        if let Some(clean) = decode_clean(encoding, element) {
            return (clean, Vec::new());
        }
        match diagnose::to_value(encoding, element) {
            Ok(value) => diagnose::read(value),
            Err(errors) => (Self::default(), errors),
        }
    }

    /// The submission as MessagePack, the way our own client writes it: an element for
    /// [`join_public`](crate::frame::join_public).
    pub fn encode(&self) -> Result<Vec<u8>, rmp_serde::encode::Error> {
        rmp_serde::to_vec_named(self)
    }
}

/// The fast path: nothing wrong, nothing unknown.
fn decode_clean(encoding: Encoding, element: &[u8]) -> Option<Submission> {
    let quick = match encoding {
        Encoding::Msgpack => quick::read(element),
        Encoding::Json => None,
    };
    quick.or_else(|| decode_by_serde(encoding, element))
}

fn decode_by_serde(encoding: Encoding, element: &[u8]) -> Option<Submission> {
    let mut is_clean = true;
    let mut on_unknown = |_: serde_ignored::Path<'_>| is_clean = false;
    let decoded: Option<Submission> = match encoding {
        Encoding::Json => {
            let mut de = serde_json::Deserializer::from_slice(element);
            serde_ignored::deserialize(&mut de, &mut on_unknown).ok()
        }
        Encoding::Msgpack => {
            let mut de = rmp_serde::Deserializer::from_read_ref(element);
            serde_ignored::deserialize(&mut de, &mut on_unknown).ok()
        }
    };
    decoded.filter(|_| is_clean)
}

#[cfg(test)]
mod tests;
