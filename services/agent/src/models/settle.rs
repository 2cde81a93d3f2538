//! What is made of an end, given what the proxy saw: it knows better than the program why the
//! program got no answer.

use std::time::Duration;

use conductor_protocol::OutcomeClass;
use conductor_protocol::event::{AttemptAssigned, Usage};

/// What an attempt's usage makes of its task's: earlier attempts, and what was metered of this
/// one. What `said`, the program's own figures, names besides figures is kept.
pub(super) fn total(before: &Usage, metered: &Usage, said: Option<Usage>) -> Usage {
    let said = said.unwrap_or_default();
    Usage {
        model: said
            .model
            .or_else(|| metered.model.clone())
            .or_else(|| before.model.clone()),
        session: said.session.or_else(|| before.session.clone()),
        turns: before.turns.saturating_add(metered.turns),
        input_tokens: before.input_tokens + metered.input_tokens,
        cached_tokens: before.cached_tokens + metered.cached_tokens,
        cache_write_tokens: before.cache_write_tokens + metered.cache_write_tokens,
        output_tokens: before.output_tokens + metered.output_tokens,
        cost_usd: before.cost_usd + metered.cost_usd,
        // Metered, nothing is counted twice, whatever sessions count.
        base: None,
    }
}

/// Refusals of a proxy that may be why an attempt fails.
#[derive(Debug, Default)]
pub(super) struct Findings {
    /// What ended it, whatever its program makes of that.
    over: Option<(OutcomeClass, String)>,
    /// What it was refused, and may have done without.
    refused: Option<(OutcomeClass, String)>,
}

impl Findings {
    /// Its budget is used up. Whether that is news.
    pub(super) fn budget(&mut self, account: &str) -> bool {
        self.end(
            OutcomeClass::Budget,
            format!("the budget is used up: {account}"),
        )
    }

    /// It was refused something. Whether it is over with that.
    pub(super) fn refused(&mut self, class: OutcomeClass, message: String) -> bool {
        if class == OutcomeClass::Denied {
            self.refused = Some((class, message));
            return false;
        }
        self.end(class, message)
    }

    fn end(&mut self, class: OutcomeClass, message: String) -> bool {
        let is_news = self.over.is_none();
        if is_news {
            self.over = Some((class, message));
        }
        is_news
    }

    /// Why it failed: what its program says is the consequence of what it was refused. One that
    /// succeeded all the same has succeeded.
    pub(super) fn settle(
        &self,
        said: Option<(OutcomeClass, String)>,
    ) -> Option<(OutcomeClass, String)> {
        let (class, message) = said?;
        if let Some(over) = &self.over {
            return Some(over.clone());
        }
        // What programs make of a 403.
        let is_consequence = matches!(class, OutcomeClass::Auth | OutcomeClass::ModelError);
        match &self.refused {
            Some(refused) if is_consequence => Some(refused.clone()),
            _ => Some((class, message)),
        }
    }
}

/// How long an attempt may run, and what it is when it ran longer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limit {
    /// How long.
    pub time: Duration,
    /// The class of its failure.
    pub class: OutcomeClass,
    /// What is said of it.
    pub message: String,
}

/// How long an attempt may run: its timeout, or what is left of its task's time.
pub fn time_limit(assigned: &AttemptAssigned) -> Option<Limit> {
    let run = assigned.timeouts.run.map(|limit| Limit {
        time: Duration::from_millis(limit.0),
        class: OutcomeClass::Timeout,
        message: format!("ran longer than {limit}"),
    });
    let budget = assigned.terms.as_ref().and_then(|t| t.budget);
    let time = budget.and_then(|b| b.time).map(|time| {
        let ran = assigned
            .before
            .as_ref()
            .and_then(|b| b.ran)
            .unwrap_or_default();
        Limit {
            time: Duration::from_millis(time.0.saturating_sub(ran.0)),
            class: OutcomeClass::Budget,
            message: format!("the budget is used up: {time} of time"),
        }
    });
    run.into_iter().chain(time).min_by_key(|limit| limit.time)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(findings: &Findings, said: impl Into<Option<OutcomeClass>>) -> Option<OutcomeClass> {
        let said = said.into().map(|class| (class, "its own words".to_owned()));
        findings.settle(said).map(|(class, _)| class)
    }

    #[test]
    fn what_was_refused_is_why_it_failed() {
        use OutcomeClass::{Auth, Budget, Crashed, Denied, ModelError};
        let mut findings = Findings::default();
        assert_eq!(class(&findings, Auth), Some(Auth));
        assert!(!findings.refused(Denied, "a model".into()));
        assert_eq!(class(&findings, Auth), Some(Denied));
        assert_eq!(class(&findings, ModelError), Some(Denied));
        assert_eq!(class(&findings, Crashed), Some(Crashed), "it did without");
        assert!(findings.budget("2 of 2 turns"));
        assert!(!findings.budget("2 of 2 turns"));
        assert_eq!(class(&findings, Crashed), Some(Budget));
        assert_eq!(class(&findings, None), None, "it had what it needed");
        let settled = findings.settle(Some((Auth, "403".into()))).unwrap();
        assert_eq!(settled.1, "the budget is used up: 2 of 2 turns");
    }

    #[test]
    fn a_key_that_is_refused_ends_it() {
        let mut findings = Findings::default();
        assert!(findings.refused(OutcomeClass::Auth, "refused".into()));
        assert_eq!(
            class(&findings, OutcomeClass::ModelError),
            Some(OutcomeClass::Auth)
        );
    }

    #[test]
    fn a_task_has_used_what_its_attempts_have() {
        let used = |turns, tokens, usd, session: Option<&str>| Usage {
            turns,
            output_tokens: tokens,
            cost_usd: usd,
            session: session.map(str::to_owned),
            ..Usage::default()
        };
        let (before, metered) = (used(2, 20, 0.5, Some("s")), used(1, 5, 0.25, None));
        // What the program says of figures is not asked: it may count the session's once more.
        let total = total(&before, &metered, Some(used(9, 99, 9.0, Some("s2"))));
        assert_eq!(total, used(3, 25, 0.75, Some("s2")));
    }
}
