//! What a task's next attempt can go on from.

use conductor_protocol::event::Usage;
use conductor_protocol::human::DurationMs;
use conductor_protocol::ids::AgentId;
use conductor_protocol::spec::Runtime;
use conductor_protocol::terms::Before;
use conductor_protocol::{OutcomeClass, UnixMs};
use serde::{Deserialize, Serialize};

use super::Task;
use super::spend::More;

/// After so many attempts in a row that went on in a session and failed, another begins anew: it
/// may be what is wrong (agent-facts 5.2).
const FAILURES_MAX: u32 = 2;

/// The session of a model, and where its transcript is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// Its id.
    pub id: String,
    /// The agent it ran on.
    pub agent: AgentId,
    /// Whether the attempt that runs goes on in it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_resumed: bool,
    /// How many attempts in a row went on in it and failed.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub failures: u32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero(n: &u32) -> bool {
    *n == 0
}

impl Task {
    /// Notes what its attempts have used in all. No figure ever goes back: a report that counts
    /// less was made by somebody who did not know of what was before. Returns what is new.
    pub(crate) fn note_usage(&mut self, usage: &Usage) -> More {
        let before = self.aside.usage.take().unwrap_or_default();
        let now = Usage {
            model: usage.model.clone().or(before.model.clone()),
            session: usage.session.clone().or(before.session.clone()),
            turns: usage.turns.max(before.turns),
            input_tokens: usage.input_tokens.max(before.input_tokens),
            cached_tokens: usage.cached_tokens.max(before.cached_tokens),
            cache_write_tokens: usage.cache_write_tokens.max(before.cache_write_tokens),
            output_tokens: usage.output_tokens.max(before.output_tokens),
            // Whatever is no number counts as nothing.
            cost_usd: before.cost_usd.max(usage.cost_usd.clamp(0.0, f64::MAX)),
            base: usage.base.as_deref().map(|base| Box::new(flat(base))),
        };
        let more = More {
            usd: now.cost_usd - before.cost_usd,
            tokens: now.counted_tokens().saturating_sub(before.counted_tokens()),
            turns: u64::from(now.turns.saturating_sub(before.turns)),
            ran_ms: 0,
        };
        self.aside.usage = Some(now);
        more
    }

    /// Until when the model service has no more matters only for an attempt that ended for that.
    pub(crate) fn forget_throttle(&mut self, class: OutcomeClass, now_ms: UnixMs) {
        let until = self.aside.throttled_ms;
        let is_why = class == OutcomeClass::RateLimited && until.is_some_and(|u| u > now_ms);
        if until.is_some() && !is_why {
            self.aside.throttled_ms = None;
        }
    }

    /// Notes in which session its attempt works.
    pub(crate) fn note_session(&mut self, id: &str, agent: &AgentId) {
        let was_there = self.aside.has_session_before;
        if let Some(session) = &mut self.aside.session
            && session.id == id
            && session.agent == *agent
        {
            // One that began in it does not go on in it when it names it again.
            session.is_resumed |= was_there;
            return;
        }
        self.aside.has_session_before = false;
        self.aside.session = Some(Session {
            id: id.to_owned(),
            agent: agent.clone(),
            is_resumed: false,
            failures: 0,
        });
    }

    /// An attempt failed: its session is one that the next may go on in.
    pub(crate) fn session_failed(&mut self, class: OutcomeClass) {
        if self.aside.session.is_none() {
            return;
        }
        self.aside.has_session_before = true;
        if let Some(session) = &mut self.aside.session {
            if !session.is_resumed {
                session.failures = 0;
            } else if may_be_its_fault(class) {
                session.failures = session.failures.saturating_add(1);
            }
            session.is_resumed = false;
        }
    }

    /// The session that the next attempt goes on in, where it runs on the same agent.
    pub fn session_to_resume(&self) -> Option<&Session> {
        let session = self.aside.session.as_ref()?;
        let has_sessions = matches!(
            self.spec.runtime,
            Runtime::Claude | Runtime::Codex | Runtime::Acp
        );
        let class = self.aside.last_failure.as_ref()?.class;
        let resumes = has_sessions && leaves_a_session(class) && session.failures < FAILURES_MAX;
        resumes.then_some(session)
    }

    /// What an attempt that `agent` is given is told of those before it.
    pub fn before(&self, agent: &AgentId) -> Option<Before> {
        if self.attempts == 0 {
            return None;
        }
        let session = self.session_to_resume().filter(|s| s.agent == *agent);
        let before = Before {
            session: session.map(|s| s.id.clone()),
            usage: self.aside.usage.clone(),
            ran: (self.aside.ran_ms > 0).then_some(DurationMs(self.aside.ran_ms)),
        };
        (before != Before::default()).then_some(before)
    }
}

/// What was used before a session; what was before that is in it, and is not kept besides.
fn flat(base: &Usage) -> Usage {
    Usage {
        base: None,
        ..base.clone()
    }
}

/// Whether what is in a session may be why an attempt ended so.
fn may_be_its_fault(class: OutcomeClass) -> bool {
    !class.is_infrastructure() && class != OutcomeClass::RateLimited
}

/// Whether an attempt that ended so was interrupted in its work rather than done with it.
fn leaves_a_session(class: OutcomeClass) -> bool {
    matches!(
        class,
        OutcomeClass::Crashed
            | OutcomeClass::Stalled
            | OutcomeClass::AgentLost
            | OutcomeClass::LeaseExpired
            | OutcomeClass::HeartbeatLost
            | OutcomeClass::Timeout
            | OutcomeClass::RateLimited
    )
}
