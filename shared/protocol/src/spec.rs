//! What a task is, once accepted: every default resolved, safe to act upon.
//!
//! A field that is absent on the wire has the value given here **for version 1 of the
//! event that carries the spec, for ever**: these defaults are part of the log's
//! format, so that old logs fold to the same state under new software.

mod run;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use run::{
    AcpSpec, ClaudeSpec, CodexSpec, CommandSpec, NoopSpec, PermissionMode, RunSpec, Runtime,
};

use crate::class::{Classes, OutcomeClass};
use crate::compact::{Pairs, Rare, Usual};
use crate::human::DurationMs;
use crate::ids::{Namespace, QueueName, TaskId, UnixMs};
use crate::terms::Terms;

/// When a new attempt is made, and how long after the last.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct RetryPolicy {
    /// Most attempts in all, the first included.
    #[serde(default = "default_attempts")]
    pub max_attempts: u32,
    /// Delay before the second attempt.
    #[serde(default = "default_backoff")]
    pub backoff: DurationMs,
    /// What the delay is multiplied by for each further attempt.
    #[serde(default = "default_factor")]
    pub factor: f64,
    /// Longest delay.
    #[serde(default = "default_max_backoff")]
    pub max_backoff: DurationMs,
    /// Share of the delay that is random, 0 to 1. The drawn delay is recorded.
    #[serde(default = "default_jitter")]
    pub jitter: f64,
    /// Classes that are retried; absent means every class another try may mend.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on: Option<Classes>,
}

const fn default_attempts() -> u32 {
    3
}
const fn default_backoff() -> DurationMs {
    DurationMs(1_000)
}
const fn default_factor() -> f64 {
    2.0
}
const fn default_max_backoff() -> DurationMs {
    DurationMs(300_000)
}
const fn default_jitter() -> f64 {
    0.2
}

impl RetryPolicy {
    /// The policy of a task that names none: only the machinery's own failures are
    /// retried, because a second run of somebody's program is somebody's choice.
    pub const INFRASTRUCTURE_ONLY: Self = Self {
        max_attempts: default_attempts(),
        backoff: default_backoff(),
        factor: default_factor(),
        max_backoff: default_max_backoff(),
        jitter: default_jitter(),
        on: Some(Classes::INFRASTRUCTURE),
    };

    /// Whether an attempt that ended so is followed by another, the count allowing.
    pub fn retries(&self, class: OutcomeClass) -> bool {
        match &self.on {
            Some(classes) => classes.contains(class),
            None => class.is_retried_by_default(),
        }
    }

    /// The delay after the `failed`-th failed attempt (from 1), before jitter.
    pub fn delay_ms(&self, failed: u32) -> u64 {
        let exponent = i32::try_from(failed.saturating_sub(1)).unwrap_or(i32::MAX);
        let delay = self.backoff.0 as f64 * self.factor.powi(exponent);
        if delay.is_finite() {
            (delay as u64).min(self.max_backoff.0)
        } else {
            self.max_backoff.0
        }
    }
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self::INFRASTRUCTURE_ONLY
    }
}

impl Usual for RetryPolicy {
    fn usual() -> &'static Self {
        &Self::INFRASTRUCTURE_ONLY
    }
}

/// The four timeouts; an absent one never fires, but for the heartbeat, which has a default.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Timeouts {
    /// Ready to started; ends the task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<DurationMs>,
    /// Started to ended; ends the attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<DurationMs>,
    /// Between signs of life; ends the attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heartbeat: Option<DurationMs>,
    /// Accepted to final; ends the task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total: Option<DurationMs>,
}

/// Lease length and heartbeat timeout where a task names none, in milliseconds
/// (agent-facts 5.3: beats each 15 s, lost after 45 s).
pub const HEARTBEAT_TIMEOUT_MS_DEFAULT: u64 = 45_000;
/// Time between an agent's heartbeats, in milliseconds.
pub const HEARTBEAT_INTERVAL_MS_DEFAULT: u64 = 15_000;

impl Usual for Timeouts {
    fn usual() -> &'static Self {
        const NONE: Timeouts = Timeouts {
            queue: None,
            run: None,
            heartbeat: None,
            total: None,
        };
        &NONE
    }
}

impl Timeouts {
    /// The heartbeat timeout in force, in milliseconds.
    pub fn heartbeat_ms(&self) -> u64 {
        self.heartbeat.map_or(HEARTBEAT_TIMEOUT_MS_DEFAULT, |d| d.0)
    }
}

/// At most `limit` tasks with the same `key` run at once.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Concurrency {
    /// What is limited, across the whole cell.
    pub key: String,
    /// How many run at once.
    #[serde(default = "one")]
    pub limit: u32,
}

/// What becomes of a task when one it needs does not succeed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NeedPolicy {
    /// It fails.
    #[default]
    Fail,
    /// It is skipped: cancelled, with the need as the reason.
    Skip,
    /// It runs once all it needs has ended, however it ended.
    Run,
}

/// An accepted task, all defaults resolved. The state holds one for every task, so it is
/// kept small, and what the rules never look at is shared with the events that carry it on.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct TaskSpec {
    /// What people call it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Arc<str>>,
    /// Where it waits.
    pub queue: QueueName,
    /// Whose it is.
    #[serde(default, skip_serializing_if = "is_default_namespace")]
    pub namespace: Namespace,
    /// 0 (lowest) to 9.
    #[serde(
        default = "default_priority",
        skip_serializing_if = "is_default_priority"
    )]
    pub priority: u8,
    /// Labels an agent must have.
    #[serde(default, skip_serializing_if = "Pairs::is_empty")]
    pub labels: Pairs,
    /// Tasks that must end first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub needs: Vec<TaskId>,
    /// What happens when one of them does not succeed.
    #[serde(default, skip_serializing_if = "is_default")]
    pub on_need_failed: NeedPolicy,
    /// When it is tried again.
    #[serde(default, skip_serializing_if = "Rare::is_usual")]
    pub retry: Rare<RetryPolicy>,
    /// How long things may take.
    #[serde(default, skip_serializing_if = "Rare::is_usual")]
    pub timeouts: Rare<Timeouts>,
    /// Not before this time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_at_ms: Option<UnixMs>,
    /// Limit shared with other tasks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<Box<Concurrency>>,
    /// Slots it takes on its agent.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub slots: u32,
    /// The submitter's own notes; never looked at. Where `run` is absent, they are read with it.
    #[serde(default, skip_serializing_if = "Pairs::is_empty")]
    pub metadata: Pairs,
    /// The submitter's idempotency key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Arc<str>>,
    /// Where outcomes are also published, outside the log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply: Option<Arc<str>>,
    /// W3C trace context of the submitter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<Arc<str>>,
    /// What it asks for beyond what it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terms: Option<Arc<Terms>>,
    /// The runtime an agent must offer.
    pub runtime: Runtime,
    /// What it runs; absent when the submission is above `BODY_INLINE_BYTES_MAX` and is read from the
    /// submission by position instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<Arc<RunSpec>>,
}

/// The priority of a task that names none.
pub const PRIORITY_DEFAULT: u8 = 5;

fn default_priority() -> u8 {
    PRIORITY_DEFAULT
}
fn one() -> u32 {
    1
}
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_one(n: &u32) -> bool {
    *n == 1
}
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_default_priority(p: &u8) -> bool {
    *p == PRIORITY_DEFAULT
}
fn is_default_namespace(n: &Namespace) -> bool {
    n.as_str() == "default"
}
fn is_default<T: Default + PartialEq>(v: &T) -> bool {
    *v == T::default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_grows_to_its_cap() {
        let policy = RetryPolicy {
            max_attempts: 9,
            ..RetryPolicy::default()
        };
        assert_eq!(policy.delay_ms(1), 1_000);
        assert_eq!(policy.delay_ms(2), 2_000);
        assert_eq!(policy.delay_ms(4), 8_000);
        assert_eq!(policy.delay_ms(60), 300_000);
        assert_eq!(policy.delay_ms(u32::MAX), 300_000);
    }

    #[test]
    fn an_argument_list_is_a_command() {
        let short: RunSpec = serde_json::from_str(r#"{"command":["echo","hi"]}"#).unwrap();
        let long: RunSpec = serde_json::from_str(r#"{"command":{"argv":["echo","hi"]}}"#).unwrap();
        assert_eq!(short, long);
        assert!(serde_json::from_str::<RunSpec>(r#"{"command":"echo hi"}"#).is_err());
    }
}
