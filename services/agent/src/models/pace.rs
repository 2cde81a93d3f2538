//! How often it is told what an attempt uses: what changes little, seldom.

use std::time::Duration;

use conductor_modelproxy::budget::counted_tokens;
use conductor_protocol::event::Usage;
use conductor_protocol::terms::Budget;
use tokio::time::Instant;

/// What is told at the latest after this long, if it has changed.
const EVERY: Duration = Duration::from_secs(30);
/// What is told at once when it changed by this share of a budget.
const SHARE: f64 = 0.05;

#[derive(Debug)]
pub(super) struct Pace {
    budget: Budget,
    told: Option<(Usage, Instant)>,
}

impl Pace {
    pub(super) fn new(budget: Budget) -> Self {
        Self { budget, told: None }
    }

    /// Whether to tell it now.
    pub(super) fn is_due(&mut self, usage: &Usage, now: Instant) -> bool {
        let is_due = match &self.told {
            None => true,
            Some((told, at)) => now >= *at + EVERY || self.share(told, usage) >= SHARE,
        };
        if is_due {
            self.told = Some((usage.clone(), now));
        }
        is_due
    }

    /// The largest share of a budget that went from one to the other.
    fn share(&self, from: &Usage, to: &Usage) -> f64 {
        let Budget {
            usd, tokens, turns, ..
        } = self.budget;
        let part = |of: Option<f64>, used: f64| of.map_or(0.0, |of| used / of);
        let tokens_used = counted_tokens(to).saturating_sub(counted_tokens(from));
        let turns_used = to.turns.saturating_sub(from.turns);
        part(usd, to.cost_usd - from.cost_usd)
            .max(part(tokens.map(|t| t as f64), tokens_used as f64))
            .max(part(turns.map(|t| t as f64), f64::from(turns_used)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn used(usd: f64, tokens: u64, turns: u32) -> Usage {
        Usage {
            cost_usd: usd,
            output_tokens: tokens,
            turns,
            ..Usage::default()
        }
    }

    #[test]
    fn without_a_budget_it_is_told_every_half_minute() {
        let (mut pace, start) = (Pace::new(Budget::default()), Instant::now());
        let times = [0, 1, 29, 30, 31, 61];
        let due = times.map(|s| pace.is_due(&used(s as f64, 9, 9), start + Duration::from_secs(s)));
        assert_eq!(due, [true, false, false, true, false, true]);
    }

    #[test]
    fn a_twentieth_of_a_budget_is_told_at_once() {
        let now = Instant::now();
        for (budget, from, less, more) in [
            (
                Budget {
                    usd: Some(10.0),
                    ..Budget::default()
                },
                used(1.0, 0, 0),
                used(1.4, 0, 0),
                used(1.6, 0, 0),
            ),
            (
                Budget {
                    tokens: Some(1000),
                    ..Budget::default()
                },
                used(0.0, 5, 0),
                used(0.0, 54, 0),
                used(0.0, 55, 0),
            ),
            (
                Budget {
                    turns: Some(40),
                    ..Budget::default()
                },
                used(0.0, 0, 1),
                used(0.0, 0, 2),
                used(0.0, 0, 3),
            ),
        ] {
            let mut pace = Pace::new(budget);
            assert!(pace.is_due(&from, now));
            assert!(!pace.is_due(&less, now), "{budget:?}");
            assert!(pace.is_due(&more, now), "{budget:?}");
        }
    }
}
