//! Open arrivals: when each task was meant to be submitted, whatever the system does.

use crate::plan::Arrivals;

/// The times at which tasks arrive, in nanoseconds from the beginning.
#[derive(Debug)]
pub(crate) struct Schedule {
    is_random: bool,
    mean_ns: f64,
    next_ns: f64,
    random: fastrand::Rng,
}

impl Schedule {
    /// Arrivals at `rate` a second. One seed gives one schedule.
    pub(crate) fn new(arrivals: Arrivals, rate: f64, seed: u64) -> Self {
        let mut schedule = Self {
            is_random: arrivals == Arrivals::Poisson,
            mean_ns: 1e9 / rate.max(1e-6),
            next_ns: 0.0,
            random: fastrand::Rng::with_seed(seed),
        };
        schedule.advance();
        schedule
    }

    /// The next arrival.
    pub(crate) fn next_ns(&self) -> u64 {
        self.next_ns as u64
    }

    /// Takes the arrivals up to `now_ns`.
    pub(crate) fn due(&mut self, now_ns: u64) -> Vec<u64> {
        let mut due = Vec::new();
        while self.next_ns() <= now_ns {
            due.push(self.next_ns());
            self.advance();
        }
        due
    }

    fn advance(&mut self) {
        let distance = if self.is_random {
            // 1 - [0, 1) is never zero, so that the logarithm is finite.
            -(1.0 - self.random.f64()).ln()
        } else {
            1.0
        };
        self.next_ns += distance * self.mean_ns;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constant_arrivals_are_even() {
        let mut schedule = Schedule::new(Arrivals::Constant, 1_000.0, 1);
        assert!(schedule.due(999_999).is_empty());
        assert_eq!(schedule.due(3_000_000), [1_000_000, 2_000_000, 3_000_000]);
        assert_eq!(schedule.next_ns(), 4_000_000);
    }

    #[test]
    fn poisson_arrivals_have_the_rate_and_the_spread() {
        let mut schedule = Schedule::new(Arrivals::Poisson, 10_000.0, 7);
        let due = schedule.due(20_000_000_000);
        let count = due.len() as f64;
        assert!((count - 200_000.0).abs() < 2_000.0, "{count}");
        // In a Poisson process, counts vary as much as they are large.
        let mut seconds = [0.0_f64; 200];
        for at in &due {
            seconds[(at / 100_000_000) as usize % 200] += 1.0;
        }
        let mean = count / 200.0;
        let variance = seconds.iter().map(|n| (n - mean).powi(2)).sum::<f64>() / 200.0;
        assert!((0.7..1.4).contains(&(variance / mean)), "{variance} {mean}");
    }
}
