//! Sums of what attempts used. What they report is what their task has used so far, or what they
//! have used themselves where nobody told them of earlier attempts: in both cases what came since
//! their last report is theirs.

use std::collections::{BTreeMap, BTreeSet};

use conductor_protocol::event::Usage;
use conductor_protocol::ids::Position;

/// What was used for whom, of what, when.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Of {
    pub(super) namespace: String,
    pub(super) queue: String,
    pub(super) model: String,
    pub(super) day: String,
}

/// A sum, and of how many attempts.
#[derive(Clone, PartialEq, Debug, Default)]
pub(super) struct Sum {
    pub(super) usage: Usage,
    pub(super) attempts: u64,
}

impl Sum {
    pub(super) fn plus(mut self, other: &Self) -> Self {
        add(&mut self.usage, &other.usage);
        self.attempts += other.attempts;
        self
    }
}

/// Collects what attempts report.
#[derive(Debug, Default)]
pub(super) struct Sums {
    /// What was reported last under each lease that is not over.
    last: BTreeMap<Position, Usage>,
    /// What came, and whose it was.
    came: BTreeMap<Of, (Usage, BTreeSet<Position>)>,
}

impl Sums {
    /// An attempt is assigned; so much its task had used by then.
    pub(super) fn begin(&mut self, lease: Position, before: Usage) {
        self.last.insert(lease, before);
    }

    /// It reports; what came since counts where `is_in`.
    pub(super) fn take(&mut self, lease: Position, usage: &Usage, of: Of, is_in: bool) {
        let last = self.last.insert(lease, usage.clone()).unwrap_or_default();
        if is_in {
            let (sum, leases) = self.came.entry(of).or_default();
            add(sum, &usage.since(&last));
            leases.insert(lease);
        }
    }

    /// It is over.
    pub(super) fn end(&mut self, lease: Position) {
        self.last.remove(&lease);
    }

    /// Sums by whatever a key says.
    pub(super) fn grouped<K: Ord>(&self, key: impl Fn(&Of) -> K) -> BTreeMap<K, Sum> {
        let mut grouped: BTreeMap<K, (Sum, BTreeSet<Position>)> = BTreeMap::new();
        for (of, (usage, leases)) in &self.came {
            let (sum, all) = grouped.entry(key(of)).or_default();
            add(&mut sum.usage, usage);
            all.extend(leases);
        }
        let counted = |(key, (sum, leases)): (K, (Sum, BTreeSet<Position>))| {
            let attempts = leases.len() as u64;
            (key, Sum { attempts, ..sum })
        };
        grouped.into_iter().map(counted).collect()
    }
}

fn add(sum: &mut Usage, usage: &Usage) {
    sum.turns = sum.turns.saturating_add(usage.turns);
    sum.input_tokens += usage.input_tokens;
    sum.cached_tokens += usage.cached_tokens;
    sum.cache_write_tokens += usage.cache_write_tokens;
    sum.output_tokens += usage.output_tokens;
    sum.cost_usd += usage.cost_usd;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(model: &str, day: &str) -> Of {
        Of {
            namespace: "n".into(),
            queue: "q".into(),
            model: model.into(),
            day: day.into(),
        }
    }

    fn used(turns: u32, tokens: u64, usd: f64) -> Usage {
        Usage {
            turns,
            output_tokens: tokens,
            cost_usd: usd,
            ..Usage::default()
        }
    }

    fn lease(n: u64) -> Position {
        Position::new(n, 0)
    }

    fn total(sums: &Sums) -> (u32, u64, f64, u64) {
        let grouped = sums.grouped(|_| ());
        let sum = grouped.get(&()).cloned().unwrap_or_default();
        (
            sum.usage.turns,
            sum.usage.output_tokens,
            sum.usage.cost_usd,
            sum.attempts,
        )
    }

    #[test]
    fn an_attempt_counts_once_however_often_it_reports() {
        let mut sums = Sums::default();
        sums.begin(lease(1), Usage::default());
        for n in 1..=3 {
            sums.take(
                lease(1),
                &used(n, u64::from(n) * 10, f64::from(n)),
                of("m", "d1"),
                true,
            );
        }
        sums.take(lease(1), &used(3, 30, 3.0), of("m", "d1"), true);
        sums.end(lease(1));
        assert_eq!(total(&sums), (3, 30, 3.0, 1));
    }

    #[test]
    fn what_earlier_attempts_used_is_theirs() {
        let mut sums = Sums::default();
        sums.begin(lease(1), Usage::default());
        sums.take(lease(1), &used(3, 30, 3.0), of("m", "d1"), true);
        sums.end(lease(1));
        // Told of the first, it reports what the task has used in all.
        sums.begin(lease(2), used(3, 30, 3.0));
        sums.take(lease(2), &used(4, 45, 3.5), of("m2", "d2"), true);
        sums.end(lease(2));
        // Nobody told this one: it reports its own.
        sums.begin(lease(3), Usage::default());
        sums.take(lease(3), &used(1, 5, 0.5), of("m", "d2"), true);
        assert_eq!(total(&sums), (5, 50, 4.0, 3));
        let by_model = sums.grouped(|of| of.model.clone());
        assert_eq!(
            (
                by_model["m"].usage.output_tokens,
                by_model["m2"].usage.output_tokens
            ),
            (35, 15)
        );
        let by_day = sums.grouped(|of| of.day.clone());
        assert_eq!((by_day["d1"].attempts, by_day["d2"].attempts), (1, 2));
    }

    #[test]
    fn what_was_used_before_does_not_count_but_is_not_counted_later() {
        let mut sums = Sums::default();
        sums.begin(lease(1), Usage::default());
        sums.take(lease(1), &used(3, 30, 3.0), of("m", "d1"), false);
        sums.take(lease(1), &used(4, 40, 4.0), of("m", "d1"), true);
        assert_eq!(total(&sums), (1, 10, 1.0, 1));
    }
}
