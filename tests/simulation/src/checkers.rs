//! What must hold, whatever happens. Each rule is an object of its own, with an id.

mod attempts;
mod budgets;
mod decisions;
mod limits;
mod order;
mod readers;
mod shared;
mod subtasks;
mod talk;

use conductor_domain::State;

use crate::ledger::{Ledger, Seen};

/// A rule that was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The rule's id.
    pub rule: &'static str,
    /// Sequence of the record at which it showed.
    pub seq: u64,
    /// What is wrong.
    pub what: String,
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "[{}] at record {}: {}", self.rule, self.seq, self.what)
    }
}

/// What a rule is shown, and says.
pub type Ruling = Result<(), String>;

/// A rule.
pub trait Checker {
    /// Its id.
    fn id(&self) -> &'static str;

    /// An event, or a command, before it is noted in the books. For what the scheduler says
    /// the state is the one before the record.
    fn on_event(&mut self, _ledger: &Ledger, _state: &State, _seen: &Seen<'_>) -> Ruling {
        Ok(())
    }

    /// A record, after all of it was noted and folded.
    fn on_record(&mut self, _ledger: &Ledger, _state: &State) -> Ruling {
        Ok(())
    }

    /// The end: trouble has ceased, and the system had all the time it may take.
    fn at_end(&mut self, _ledger: &Ledger, _state: &State) -> Ruling {
        Ok(())
    }
}

/// The id of the rule that readers agree, which is checked where readers are.
pub const SAME_DIGEST: &str = "same-digest";
/// The id of the rule that the system gets done, checked where its processes are.
pub const SETTLES: &str = "settles";
/// The id of the rule that what was acknowledged is in the log, checked where clients are.
pub const ACKED_IS_STORED: &str = "acked-is-stored";
/// The id of the rule that an agent never runs an attempt twice at once, which is checked where agents are.
pub const RUN_ONCE: &str = "run-once";

/// The id of the rule that an attempt hears a word once, which is checked where agents are.
pub const TOLD_ONCE: &str = "told-once";

/// The id of the rule that whoever can work is given work, which is checked where agents are.
pub const AGENTS_RETURN: &str = "agents-return";

/// The id of the rule that an agent removes no workspace that came after the asking, which is
/// checked where agents are.
pub const REMOVES_WHAT_WAS_ASKED: &str = "removes-what-was-asked";

/// Every rule. `decides_again` says that leaders have reason to decide things twice in this
/// run, because the log refuses some of their frames.
pub fn all(decides_again: bool) -> Vec<Box<dyn Checker>> {
    let mut all: Vec<Box<dyn Checker>> = vec![
        Box::new(decisions::SubmissionOnce),
        Box::new(decisions::AcceptedOnce),
        Box::new(decisions::CurrentEpoch),
        Box::new(decisions::CancelIsFinal),
        Box::new(attempts::OneLease),
        Box::new(attempts::CurrentLease),
        Box::new(attempts::CurrentIncarnation),
        Box::new(attempts::AttemptsMax),
        Box::new(talk::Answers),
        Box::new(subtasks::Subtasks),
        Box::new(decisions::EndsOnce),
        Box::new(limits::Needs),
        Box::new(limits::Slots),
        Box::new(limits::Keys),
        Box::new(limits::Fitting),
        Box::<budgets::Budgets>::default(),
        Box::new(shared::Workspaces),
        Box::new(shared::Sessions),
        Box::<order::NoStarvation>::default(),
        Box::new(readers::RoundTrip),
        Box::new(readers::Size),
    ];
    if !decides_again {
        all.push(Box::<decisions::DecidedOnce>::default());
    }
    all
}
