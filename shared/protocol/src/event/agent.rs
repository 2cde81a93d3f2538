//! Reports of an agent about itself and its attempts.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::class::OutcomeClass;
use crate::ids::Lease;
use crate::spec::Runtime;

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

/// What an attempt has used so far: cumulative, never to be summed within an attempt.
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
