//! What a task has used in all, from what each of its attempts says.
//!
//! The figures of a program that goes on with a session count the whole session in some versions
//! of it, and in others only what this process did (agent-facts, finding 8): adding them up is
//! wrong in the first case, taking the last in the second. So what the session had counted before
//! is remembered as a baseline, and figures are taken for what they can be.

use conductor_protocol::event::Usage;
use conductor_protocol::terms::Before;

/// What figures count when a session goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counts {
    /// Everything since the session began.
    Session,
    /// What this process did.
    Process,
}

/// Counts what a task uses over its attempts, each thing once.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Meter {
    /// All that earlier attempts used.
    before: Usage,
    /// What of that this session had counted.
    had: Usage,
    /// What the task had used before this session began.
    base: Usage,
}

impl Meter {
    /// For an attempt that goes on with the session `resumed`, or begins one.
    pub fn new(before: Option<&Before>, resumed: Option<&str>) -> Self {
        let mut before = before.and_then(|b| b.usage.clone()).unwrap_or_default();
        let older = before.base.take().map_or_else(Usage::default, |base| *base);
        // Of a session that the task never had, nothing is known.
        let goes_on = resumed.is_some() && resumed == before.session.as_deref();
        if goes_on {
            let had = since(&before, &older);
            return Self {
                had,
                base: older,
                before,
            };
        }
        Self {
            base: before.clone(),
            had: Usage::default(),
            before,
        }
    }

    /// What was used before this session, and by it until now: `said` is what its figures say.
    pub fn total(&self, said: &Usage, counts: Counts) -> Usage {
        let mut own = match counts {
            Counts::Session => since(said, &self.had),
            Counts::Process => said.clone(),
        };
        // Turns are of the process in every version.
        own.turns = said.turns;
        Usage {
            base: has_figures(&self.base).then(|| Box::new(self.base.clone())),
            ..plus(&self.before, &own)
        }
    }

    /// What figures count that came with how much this process used by itself (`own`, without what
    /// it had others do): whether they hold that *and* what the session had.
    pub fn counts(&self, said: &Usage, own: &Usage) -> Counts {
        if covers(said, &plus(&self.had, own)) {
            Counts::Session
        } else {
            Counts::Process
        }
    }
}

/// Both together.
pub fn plus(a: &Usage, b: &Usage) -> Usage {
    Usage {
        model: b.model.clone().or_else(|| a.model.clone()),
        session: b.session.clone().or_else(|| a.session.clone()),
        turns: a.turns.saturating_add(b.turns),
        input_tokens: a.input_tokens.saturating_add(b.input_tokens),
        cached_tokens: a.cached_tokens.saturating_add(b.cached_tokens),
        cache_write_tokens: a.cache_write_tokens.saturating_add(b.cache_write_tokens),
        output_tokens: a.output_tokens.saturating_add(b.output_tokens),
        cost_usd: a.cost_usd + b.cost_usd,
        base: None,
    }
}

/// What came to `earlier`. A figure that is smaller was begun anew: all of it came.
pub fn since(now: &Usage, earlier: &Usage) -> Usage {
    let tokens = |now: u64, earlier: u64| now.checked_sub(earlier).unwrap_or(now);
    Usage {
        model: now.model.clone(),
        session: now.session.clone(),
        turns: now.turns.checked_sub(earlier.turns).unwrap_or(now.turns),
        input_tokens: tokens(now.input_tokens, earlier.input_tokens),
        cached_tokens: tokens(now.cached_tokens, earlier.cached_tokens),
        cache_write_tokens: tokens(now.cache_write_tokens, earlier.cache_write_tokens),
        output_tokens: tokens(now.output_tokens, earlier.output_tokens),
        cost_usd: if now.cost_usd < earlier.cost_usd {
            now.cost_usd
        } else {
            now.cost_usd - earlier.cost_usd
        },
        base: None,
    }
}

/// Whether every token of `part` can be among those of `whole`.
fn covers(whole: &Usage, part: &Usage) -> bool {
    whole.input_tokens >= part.input_tokens
        && whole.cached_tokens >= part.cached_tokens
        && whole.cache_write_tokens >= part.cache_write_tokens
        && whole.output_tokens >= part.output_tokens
}

fn has_figures(usage: &Usage) -> bool {
    let nameless = Usage {
        model: None,
        session: None,
        ..usage.clone()
    };
    nameless != Usage::default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One answer, as the fake API bills it.
    fn answers(n: u32) -> Usage {
        let of = |tokens| u64::from(n) * tokens;
        Usage {
            turns: n,
            input_tokens: of(1_500),
            cached_tokens: of(8_000),
            cache_write_tokens: of(200),
            output_tokens: of(42),
            cost_usd: f64::from(n) * 0.25,
            ..Usage::default()
        }
    }

    fn in_session(session: &str, usage: Usage) -> Usage {
        Usage {
            session: Some(session.into()),
            ..usage
        }
    }

    fn before(usage: &Usage) -> Before {
        Before {
            session: usage.session.clone(),
            usage: Some(usage.clone()),
            ran: None,
        }
    }

    /// Three attempts of one session, each with one answer; `figures` is what the CLI then says.
    fn three_attempts(figures: [Usage; 3]) -> Vec<Usage> {
        let mut known: Vec<Usage> = Vec::new();
        for said in figures {
            let said = Usage {
                turns: 1,
                ..in_session("s", said)
            };
            let earlier = known.last().map(before);
            let meter = Meter::new(earlier.as_ref(), earlier.as_ref().map(|_| "s"));
            let counts = meter.counts(&said, &answers(1));
            known.push(meter.total(&said, counts));
        }
        known
    }

    #[test]
    fn test_11_cost_after_resume_is_counted_once_for_both_cli_semantics() {
        // 2.1.197 begins anew, 2.1.316 goes on: measured, see agent-facts.
        let restarting = three_attempts([answers(1), answers(1), answers(1)]);
        let going_on = three_attempts([answers(1), answers(2), answers(3)]);
        assert_eq!(restarting, going_on);
        for (n, used) in (1..).zip(&going_on) {
            assert_eq!(*used, in_session("s", answers(n)));
        }
    }

    #[test]
    fn what_a_killed_process_used_is_counted_once_whether_it_was_told_or_not() {
        // Killed after two answers of which tokens were told, but no price.
        let told = Usage {
            cost_usd: 0.0,
            ..in_session("s", answers(2))
        };
        let earlier = before(&told);
        let meter = Meter::new(Some(&earlier), Some("s"));
        let said = Usage {
            turns: 1,
            ..in_session("s", answers(3))
        };
        let used = meter.total(&said, meter.counts(&said, &answers(1)));
        assert_eq!(used, in_session("s", answers(3)));
        // Killed with the whole agent: nobody told anything.
        let earlier = Before {
            session: Some("s".into()),
            ..Before::default()
        };
        let meter = Meter::new(Some(&earlier), Some("s"));
        let used = meter.total(&said, meter.counts(&said, &answers(1)));
        assert_eq!((used.output_tokens, used.cost_usd), (3 * 42, 0.75));
    }

    #[test]
    fn a_session_that_began_later_has_a_baseline_of_its_own() {
        // Two answers in one session, then one in another that then goes on.
        let first = in_session("a", answers(2));
        let meter = Meter::new(Some(&before(&first)), None);
        let said = in_session("b", answers(1));
        let second = meter.total(&said, meter.counts(&said, &answers(1)));
        assert_eq!((second.output_tokens, second.turns), (3 * 42, 3));
        assert_eq!(second.base.as_deref(), Some(&first));
        let meter = Meter::new(Some(&before(&second)), Some("b"));
        let said = Usage {
            turns: 1,
            ..in_session("b", answers(2))
        };
        let third = meter.total(&said, meter.counts(&said, &answers(1)));
        assert_eq!(
            (third.output_tokens, third.turns, third.cost_usd),
            (4 * 42, 4, 1.0)
        );
        assert_eq!(third.base.as_deref(), Some(&first));
    }

    #[test]
    fn figures_never_go_below_what_was_used_before() {
        let earlier = before(&in_session("s", answers(3)));
        let meter = Meter::new(Some(&earlier), Some("s"));
        for counts in [Counts::Session, Counts::Process] {
            let used = meter.total(&in_session("s", answers(0)), counts);
            assert_eq!(used, in_session("s", answers(3)));
        }
    }
}
