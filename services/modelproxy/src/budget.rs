//! Whether there is more to spend. Nothing is reserved: what is under way when a budget is
//! reached is let finish and counts, so that a task exceeds it by that at most.

use std::fmt;

use conductor_protocol::event::Usage;
use conductor_protocol::terms::Budget;

use crate::meter::{Answered, Tokens};

/// A limit of a budget.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Limit {
    /// US dollars.
    Money,
    /// Tokens.
    Tokens,
    /// Answers of a model.
    Turns,
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Money => "money",
            Self::Tokens => "tokens",
            Self::Turns => "turns",
        })
    }
}

/// Tokens that a budget counts: those from a cache are not, since each turn reads them anew.
pub fn counted_tokens(usage: &Usage) -> u64 {
    usage.input_tokens + usage.cache_write_tokens + usage.output_tokens
}

/// Sums of what a task used: money, tokens, turns.
fn sum(a: &Usage, b: &Usage) -> (f64, u64, u64) {
    (
        a.cost_usd + b.cost_usd,
        counted_tokens(a) + counted_tokens(b),
        u64::from(a.turns) + u64::from(b.turns),
    )
}

/// What one attempt spends of its task's budget.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    budget: Budget,
    before: Usage,
    spent: Usage,
}

impl Ledger {
    /// For a task of which earlier attempts used `before`.
    pub fn new(budget: Budget, before: Usage) -> Self {
        Self {
            budget,
            before,
            spent: Usage::default(),
        }
    }

    /// The limit that is reached, if one is.
    pub fn reached(&self) -> Option<Limit> {
        let (usd, tokens, turns) = sum(&self.before, &self.spent);
        let Budget {
            usd: most_usd,
            tokens: most_tokens,
            turns: most_turns,
            ..
        } = self.budget;
        if most_usd.is_some_and(|most| usd >= most) {
            Some(Limit::Money)
        } else if most_tokens.is_some_and(|most| tokens >= most) {
            Some(Limit::Tokens)
        } else if most_turns.is_some_and(|most| turns >= most) {
            Some(Limit::Turns)
        } else {
            None
        }
    }

    /// What is left of each limit that there is, but for time.
    pub fn left(&self) -> Budget {
        let (usd, tokens, turns) = sum(&self.before, &self.spent);
        Budget {
            usd: self.budget.usd.map(|most| (most - usd).max(0.0)),
            tokens: self.budget.tokens.map(|most| most.saturating_sub(tokens)),
            turns: self.budget.turns.map(|most| most.saturating_sub(turns)),
            time: None,
            on_reached: self.budget.on_reached,
        }
    }

    /// Counts an answer; its cost, where that is known.
    pub fn add(&mut self, answered: &Answered, cost: Option<f64>) {
        let Tokens {
            input,
            cached,
            cache_write,
            cache_write_hour,
            output,
        } = answered.tokens;
        let spent = &mut self.spent;
        spent.turns = spent.turns.saturating_add(1);
        spent.input_tokens += input;
        spent.cached_tokens += cached;
        spent.cache_write_tokens += cache_write + cache_write_hour;
        spent.output_tokens += output;
        spent.cost_usd += cost.unwrap_or(0.0);
        if answered.model.is_some() {
            spent.model.clone_from(&answered.model);
        }
    }

    /// What this attempt used so far.
    pub fn spent(&self) -> &Usage {
        &self.spent
    }

    /// Allows as much again as `extra` says.
    pub fn extend(&mut self, extra: &Budget) {
        let budget = &mut self.budget;
        for (most, more) in [
            (&mut budget.tokens, extra.tokens),
            (&mut budget.turns, extra.turns),
        ] {
            *most = most.map(|most| most.saturating_add(more.unwrap_or(0)));
        }
        budget.usd = budget.usd.map(|most| most + extra.usd.unwrap_or(0.0));
    }

    /// For people: what was used of the limit that is reached.
    pub fn account(&self, limit: Limit) -> String {
        let (usd, tokens, turns) = sum(&self.before, &self.spent);
        match limit {
            Limit::Money => format!("${usd:.2} of ${:.2}", self.budget.usd.unwrap_or(0.0)),
            Limit::Tokens => format!("{tokens} of {} tokens", self.budget.tokens.unwrap_or(0)),
            Limit::Turns => format!("{turns} of {} turns", self.budget.turns.unwrap_or(0)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(input: u64, output: u64) -> Answered {
        Answered {
            model: Some("m".into()),
            tokens: Tokens {
                input,
                cached: 1_000_000,
                cache_write_hour: 10,
                output,
                ..Tokens::default()
            },
            is_counted: true,
        }
    }

    fn used(usd: f64, tokens: u64, turns: u32) -> Usage {
        Usage {
            cost_usd: usd,
            output_tokens: tokens,
            turns,
            ..Usage::default()
        }
    }

    #[test]
    fn each_limit_counts_what_came_before() {
        let limits = [
            (
                Budget {
                    usd: Some(1.0),
                    ..Budget::default()
                },
                Limit::Money,
            ),
            (
                Budget {
                    tokens: Some(1000),
                    ..Budget::default()
                },
                Limit::Tokens,
            ),
            (
                Budget {
                    turns: Some(10),
                    ..Budget::default()
                },
                Limit::Turns,
            ),
        ];
        for (budget, limit) in limits {
            let mut ledger = Ledger::new(budget, used(0.5, 500, 9));
            assert_eq!(ledger.reached(), None);
            ledger.add(&answer(300, 190), Some(0.5));
            assert_eq!(ledger.reached(), Some(limit));
        }
        assert_eq!(
            Ledger::new(Budget::default(), used(1e9, 1 << 60, 1 << 30)).reached(),
            None
        );
    }

    #[test]
    fn what_is_spent_is_that_of_this_attempt_alone() {
        let mut ledger = Ledger::new(Budget::default(), used(5.0, 500, 9));
        ledger.add(&answer(300, 100), Some(0.25));
        ledger.add(
            &Answered {
                model: None,
                ..answer(1, 1)
            },
            None,
        );
        let spent = ledger.spent();
        assert_eq!(
            (spent.turns, spent.input_tokens, spent.output_tokens),
            (2, 301, 101)
        );
        assert_eq!(
            (spent.cached_tokens, spent.cache_write_tokens),
            (2_000_000, 20)
        );
        assert_eq!((spent.cost_usd, spent.model.as_deref()), (0.25, Some("m")));
    }

    #[test]
    fn what_is_left_is_what_no_attempt_has_spent() {
        let budget = Budget {
            usd: Some(1.0),
            tokens: Some(1_000),
            ..Budget::default()
        };
        let mut ledger = Ledger::new(budget, used(0.5, 500, 9));
        ledger.add(&answer(300, 100), Some(0.25));
        let left = ledger.left();
        assert_eq!(
            (left.usd, left.tokens, left.turns),
            (Some(0.25), Some(90), None)
        );
        ledger.add(&answer(300, 100), Some(9.0));
        let left = ledger.left();
        assert_eq!(
            (left.usd, left.tokens),
            (Some(0.0), Some(0)),
            "never less than nothing"
        );
    }

    #[test]
    fn a_budget_that_is_extended_goes_on() {
        let budget = Budget {
            turns: Some(1),
            usd: Some(1.0),
            ..Budget::default()
        };
        let mut ledger = Ledger::new(budget, Usage::default());
        ledger.add(&answer(1, 1), Some(0.1));
        assert_eq!(ledger.reached(), Some(Limit::Turns));
        assert_eq!(ledger.account(Limit::Turns), "1 of 1 turns");
        assert_eq!(ledger.account(Limit::Money), "$0.10 of $1.00");
        ledger.extend(&budget);
        assert_eq!(ledger.reached(), None);
        ledger.add(&answer(1, 1), Some(1.9));
        assert_eq!(ledger.reached(), Some(Limit::Money));
    }
}
