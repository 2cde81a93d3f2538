//! Outcomes and their classes: how a task ended, and why an attempt did not succeed. Retry
//! policies key on classes.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// How a task ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Its work was done.
    Succeeded,
    /// It failed for good.
    Failed,
    /// It was cancelled, or skipped.
    Cancelled,
    /// A timeout ended it.
    TimedOut,
}

impl Outcome {
    /// The wire name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::TimedOut => "timed_out",
        }
    }
}

/// Why an attempt, or a task, did not succeed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OutcomeClass {
    /// The program ended with a non-zero exit code.
    Failed,
    /// The program was ended by a signal, or its protocol broke off.
    Crashed,
    /// The program could not be started.
    NotStarted,
    /// The program was killed for its memory.
    Oom,
    /// A timeout of the task ended it.
    Timeout,
    /// No sign of life within the heartbeat timeout.
    HeartbeatLost,
    /// The agent restarted, left or was declared lost.
    AgentLost,
    /// The agent could not reach the log for longer than its lease.
    LeaseExpired,
    /// The program fell silent.
    Stalled,
    /// The program's output was not what its protocol promises.
    BadOutput,
    /// The model service failed.
    ModelError,
    /// The model service refused the credentials.
    Auth,
    /// The model service's usage limit was reached.
    RateLimited,
    /// A budget was used up.
    Budget,
    /// The turn limit was reached.
    MaxTurns,
    /// The model refused.
    Refused,
    /// A tool the task needed was denied.
    Denied,
    /// An acceptance check failed.
    CheckFailed,
    /// A task it needs did not succeed.
    NeedFailed,
    /// Cancelled.
    Cancelled,
}

impl OutcomeClass {
    /// Every class, in wire order.
    pub const ALL: [Self; 20] = [
        Self::Failed,
        Self::Crashed,
        Self::NotStarted,
        Self::Oom,
        Self::Timeout,
        Self::HeartbeatLost,
        Self::AgentLost,
        Self::LeaseExpired,
        Self::Stalled,
        Self::BadOutput,
        Self::ModelError,
        Self::Auth,
        Self::RateLimited,
        Self::Budget,
        Self::MaxTurns,
        Self::Refused,
        Self::Denied,
        Self::CheckFailed,
        Self::NeedFailed,
        Self::Cancelled,
    ];

    /// The wire name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Crashed => "crashed",
            Self::NotStarted => "not_started",
            Self::Oom => "oom",
            Self::Timeout => "timeout",
            Self::HeartbeatLost => "heartbeat_lost",
            Self::AgentLost => "agent_lost",
            Self::LeaseExpired => "lease_expired",
            Self::Stalled => "stalled",
            Self::BadOutput => "bad_output",
            Self::ModelError => "model_error",
            Self::Auth => "auth",
            Self::RateLimited => "rate_limited",
            Self::Budget => "budget",
            Self::MaxTurns => "max_turns",
            Self::Refused => "refused",
            Self::Denied => "denied",
            Self::CheckFailed => "check_failed",
            Self::NeedFailed => "need_failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// Whether the cause lies with the machinery, not with the work: such attempts are
    /// retried even where the task names no policy.
    pub fn is_infrastructure(self) -> bool {
        matches!(
            self,
            Self::AgentLost | Self::HeartbeatLost | Self::LeaseExpired
        )
    }

    /// Whether a policy that names no classes retries this one. Never what another try
    /// cannot mend (agent-facts 5.2).
    pub fn is_retried_by_default(self) -> bool {
        !matches!(
            self,
            Self::Auth
                | Self::Budget
                | Self::Refused
                | Self::Denied
                | Self::MaxTurns
                | Self::NeedFailed
                | Self::Cancelled
        )
    }
}

/// A set of classes; written as a list, in wire order.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Classes(u32);

impl Classes {
    /// What the machinery breaks: see [`OutcomeClass::is_infrastructure`].
    pub const INFRASTRUCTURE: Self = Self(
        OutcomeClass::AgentLost.bit()
            | OutcomeClass::HeartbeatLost.bit()
            | OutcomeClass::LeaseExpired.bit(),
    );

    /// Whether `class` is one of them.
    pub fn contains(self, class: OutcomeClass) -> bool {
        self.0 & class.bit() != 0
    }

    fn iter(self) -> impl Iterator<Item = OutcomeClass> {
        let all = OutcomeClass::ALL.into_iter();
        all.filter(move |class| self.contains(*class))
    }
}

impl OutcomeClass {
    const fn bit(self) -> u32 {
        1 << self as u32
    }
}

impl FromIterator<OutcomeClass> for Classes {
    fn from_iter<I: IntoIterator<Item = OutcomeClass>>(classes: I) -> Self {
        Self(classes.into_iter().fold(0, |set, class| set | class.bit()))
    }
}

impl std::fmt::Debug for Classes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

impl Serialize for Classes {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_seq(self.iter().collect::<Vec<_>>())
    }
}

impl<'de> Deserialize<'de> for Classes {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        Vec::deserialize(d).map(|classes: Vec<OutcomeClass>| classes.into_iter().collect())
    }
}

impl std::fmt::Display for OutcomeClass {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_is_written_as_a_list() {
        let set: Classes = serde_json::from_str(r#"["auth","failed","auth"]"#).unwrap();
        assert_eq!(serde_json::to_string(&set).unwrap(), r#"["failed","auth"]"#);
        for class in OutcomeClass::ALL {
            let is_infrastructure = Classes::INFRASTRUCTURE.contains(class);
            assert_eq!(is_infrastructure, class.is_infrastructure());
        }
    }

    #[test]
    fn wire_names_agree_with_serde() {
        for class in OutcomeClass::ALL {
            assert_eq!(serde_json::to_value(class).unwrap(), class.as_str());
        }
    }
}
