//! Reports of an agent about itself and its attempts.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::class::OutcomeClass;
use crate::human::DurationMs;
use crate::ids::{Lease, Namespace, Position, UnixMs};
use crate::spec::Runtime;
use crate::terms::{Answer, Reach, SandboxInUse, SandboxKind, SandboxOffer, Terms};

/// An agent is there. The record's sequence is its incarnation; leases of an earlier
/// one end there and then.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct AgentJoined {
    /// Version of its software.
    pub version: String,
    /// Host, for people.
    pub host: String,
    /// Unique to this joining: by it a process knows its own from that of another process
    /// of the same name, or from one of its own that came late.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub process: String,
    /// How many slots it offers.
    pub slots: u32,
    /// Labels tasks may require.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Runtimes it offers, with the version each found.
    pub runtimes: BTreeMap<Runtime, String>,
    /// Sandboxes it offers, and what each promises there.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub sandboxes: BTreeMap<SandboxKind, SandboxOffer>,
    /// The sandbox of tasks that name none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox: Option<SandboxKind>,
    /// How far the network of a task may go there at most; absent means whatever it reaches itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network_max: Option<Reach>,
    /// The newest format of the log it knows; 0 where it did not say.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub format: u32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero(n: &u32) -> bool {
    *n == 0
}

impl AgentJoined {
    /// How far the network of a task may go there at most.
    pub fn network_max(&self) -> Reach {
        self.network_max.unwrap_or(Reach::Full)
    }

    /// Whether it can box an attempt in as its terms ask.
    pub fn can_box(&self, terms: Option<&Terms>) -> bool {
        let Some(asked) = terms.and_then(|t| t.sandbox.as_ref()) else {
            return true;
        };
        if asked.network.reach() > self.network_max() {
            return false;
        }
        let fits = |offer: &SandboxOffer| asked.level.is_none_or(|level| offer.gives(level));
        match asked.kind {
            Some(kind) => self.sandboxes.get(&kind).is_some_and(fits),
            None => asked.level.is_none() || self.sandboxes.values().any(fits),
        }
    }
}

/// An agent finishes what it has and wants nothing more.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct AgentDraining {}

/// An agent is gone; leases it still had are over.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct AgentLeft {}

/// An attempt began to run.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct AttemptStarted {
    /// The lease it runs under.
    pub lease: Lease,
    /// The model session, where the runtime has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// Version of the runtime.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// What it is boxed in by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox: Option<SandboxInUse>,
}

impl AttemptStarted {
    /// One of which nothing more is known.
    pub fn new(lease: Lease, session: Option<String>) -> Self {
        Self {
            lease,
            session,
            version: None,
            sandbox: None,
        }
    }
}

/// A file of an attempt is kept: stored before this is said.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct AttemptArtifact {
    /// The lease it runs under.
    pub lease: Lease,
    /// Path relative to the workspace, or a name of our making such as `changes.patch`.
    pub name: String,
    /// SHA-256 of its bytes, in hexadecimal: by it the bytes are found and checked.
    pub sha256: String,
    /// Bytes.
    pub size: u64,
    /// Media type, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
}

/// What an attempt changed in its workspace, by a comparison of the agent's own making.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct AttemptChanged {
    /// The lease it runs under.
    pub lease: Lease,
    /// Files that are new, gone or different.
    pub files: u32,
    /// Lines that are new.
    pub insertions: u64,
    /// Lines that are gone.
    pub deletions: u64,
    /// Name of the artifact that holds the patch, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub patch: Option<String>,
    /// Commit it began at, in a repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<String>,
    /// Commit it ended at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head: Option<String>,
    /// Branch that was pushed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pushed: Option<String>,
    /// Of a named workspace: whether it holds work that is nowhere else, after the push. Absent
    /// where that is not known, which counts as yes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unpushed: Option<bool>,
}

/// What people are asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Question {
    /// Whether a tool may run.
    Tool,
    /// Whether its result is accepted.
    Acceptance,
    /// Whether it may go on though a budget is used up.
    Budget,
    /// What the model wants to know.
    Human,
}

/// An attempt asks people something and waits.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ApprovalRequested {
    /// The lease it runs under.
    pub lease: Lease,
    /// Which of its questions, from 1.
    pub approval: u32,
    /// What about.
    pub question: Question,
    /// For people: the tool and its input, the budget, the question itself.
    pub summary: String,
    /// How long an answer is waited for.
    pub expires: DurationMs,
    /// What an answer that does not come means.
    #[serde(default)]
    pub default: Answer,
}

/// An attempt submits a task below its own. Whether it becomes one is the orchestrator's to decide,
/// as with every submission; the attempt is told by [`Word::Subtask`](super::Word::Subtask).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct AttemptSubmitted {
    /// The lease it runs under.
    pub lease: Lease,
    /// Which of its submissions, from 1.
    pub number: u32,
    /// The submission, as JSON.
    pub body: String,
}

/// An attempt does not want to know any more what it asked: its program took the question back, or
/// is gone.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ApprovalWithdrawn {
    /// The lease it runs under.
    pub lease: Lease,
    /// Which of its questions.
    pub approval: u32,
}

/// The model service has no more for now.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct AttemptThrottled {
    /// The lease it runs under.
    pub lease: Lease,
    /// Until when, where the service says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until_ms: Option<UnixMs>,
}

/// How far an attempt is, in its own words.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct AttemptProgress {
    /// The lease it runs under.
    pub lease: Lease,
    /// 0 to 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub percent: Option<f32>,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// What a task has used so far, in this attempt and those before it: each figure counted once,
/// never to be summed over what is said of the same task.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Usage {
    /// Model name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Model session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// Turns of the main loop.
    #[serde(default)]
    pub turns: u32,
    /// Tokens read.
    #[serde(default)]
    pub input_tokens: u64,
    /// Tokens read from the provider's cache.
    #[serde(default)]
    pub cached_tokens: u64,
    /// Tokens written to the provider's cache.
    #[serde(default)]
    pub cache_write_tokens: u64,
    /// Tokens written.
    #[serde(default)]
    pub output_tokens: u64,
    /// Money, in US dollars, as the runtime reports it.
    #[serde(default)]
    pub cost_usd: f64,
    /// What of it was used before this session of the model began; the rest is what the session
    /// counts, so that nothing is counted twice when it goes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<Box<Usage>>,
}

impl Usage {
    /// Tokens that count against budgets: read, written to a cache, and written. Those read from
    /// a cache cost little, and would make every long session look expensive.
    pub fn counted_tokens(&self) -> u64 {
        let counted = [
            self.input_tokens,
            self.cache_write_tokens,
            self.output_tokens,
        ];
        counted.into_iter().fold(0, u64::saturating_add)
    }
}

/// What an attempt has used so far.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct AttemptUsage {
    /// The lease it runs under.
    pub lease: Lease,
    /// Cumulative.
    pub usage: Usage,
}

/// What became of an attempt's output.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct OutputStats {
    /// Bytes the program wrote.
    pub bytes: u64,
    /// Bytes of them that were not stored.
    #[serde(default)]
    pub dropped: u64,
}

/// An attempt succeeded.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct AttemptSucceeded {
    /// The lease it ran under.
    pub lease: Lease,
    /// Its result, cut at `RESULT_BYTES_MAX`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<String>,
    /// Exit code, where there was a process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// What it used, where the runtime knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
    /// Its output, where it had any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<OutputStats>,
}

/// An attempt did not succeed.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct AttemptFailed {
    /// The lease it ran under.
    pub lease: Lease,
    /// Why.
    pub class: OutcomeClass,
    /// For people, cut at `MESSAGE_BYTES_MAX`.
    pub message: String,
    /// Its result, cut at `RESULT_BYTES_MAX`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<String>,
    /// Exit code, where the process exited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// Signal, where one ended the process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// What it used, where the runtime knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
    /// Its output, where it had any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<OutputStats>,
}

/// An attempt whose lease was over is no longer running; its slots are free.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct AttemptStopped {
    /// The lease that was over.
    pub lease: Lease,
}

/// A named workspace that the agent was told to remove is not there any more, whether it was
/// before or not.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct WorkspaceRemoved {
    /// Its namespace.
    pub namespace: Namespace,
    /// Its name.
    pub name: String,
    /// Where its removal was asked for.
    pub control: Position,
}
