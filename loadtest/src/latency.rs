//! Latencies as histograms, and what they would have been had nobody waited politely.

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// Longest latency that is told apart, in nanoseconds.
const LONGEST_NS: u64 = 3_600_000_000_000;
/// Which percentiles make a curve.
const CURVE: [f64; 16] = [
    0.0, 10.0, 25.0, 50.0, 75.0, 80.0, 90.0, 95.0, 97.5, 99.0, 99.5, 99.9, 99.95, 99.99, 99.999,
    100.0,
];

/// Percentiles, in microseconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Percentiles {
    /// How many values.
    pub(crate) count: u64,
    /// Half were at most so long.
    pub(crate) p50: f64,
    /// Nine of ten.
    pub(crate) p90: f64,
    /// 99 of 100.
    pub(crate) p99: f64,
    /// 999 of 1,000.
    pub(crate) p999: f64,
    /// The longest.
    pub(crate) max: f64,
}

/// Latencies of one kind.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Latency {
    /// As they were measured; with open arrivals from the intended time of each.
    pub(crate) measured: Percentiles,
    /// With closed arrivals: with what would have been measured had the generator not waited
    /// while something took longer than `expected_us`.
    pub(crate) corrected: Option<Percentiles>,
    /// The distance between submissions that the correction supposes: the median.
    pub(crate) expected_us: Option<f64>,
    /// Percentile and microseconds, of the measured ones.
    pub(crate) curve: Vec<(f64, f64)>,
}

impl Latency {
    /// Of values in nanoseconds; `None` where there are none.
    pub(crate) fn of(values: impl Iterator<Item = u64>, is_closed: bool) -> Option<Self> {
        let mut histogram = Histogram::<u64>::new_with_bounds(1_000, LONGEST_NS, 3).ok()?;
        values.for_each(|ns| histogram.saturating_record(ns));
        if histogram.is_empty() {
            return None;
        }
        let expected = histogram.value_at_quantile(0.5);
        let corrected = is_closed.then(|| percentiles(&histogram.clone_correct(expected)));
        let at = |p: f64| (p, histogram.value_at_percentile(p) as f64 / 1e3);
        Some(Self {
            measured: percentiles(&histogram),
            corrected,
            expected_us: is_closed.then_some(expected as f64 / 1e3),
            curve: CURVE.into_iter().map(at).collect(),
        })
    }

    /// A percentile by the worse of both accounts, in microseconds: a correction must not
    /// make anything look better.
    pub(crate) fn worst(&self, of: impl Fn(&Percentiles) -> f64) -> f64 {
        let corrected = self.corrected.as_ref().map_or(0.0, &of);
        of(&self.measured).max(corrected)
    }
}

fn percentiles(histogram: &Histogram<u64>) -> Percentiles {
    let at = |quantile: f64| histogram.value_at_quantile(quantile) as f64 / 1e3;
    Percentiles {
        count: histogram.len(),
        p50: at(0.5),
        p90: at(0.9),
        p99: at(0.99),
        p999: at(0.999),
        max: histogram.max() as f64 / 1e3,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_the_values() {
        let latency = Latency::of((1..=1_000).map(|n| n * 1_000_000), false).unwrap();
        let seen = latency.measured;
        assert_eq!(seen.count, 1_000);
        assert!((seen.p50 - 500_000.0).abs() < 1_000.0, "{seen:?}");
        assert!((seen.p99 - 990_000.0).abs() < 1_000.0, "{seen:?}");
        assert_eq!(latency.corrected, None);
        assert_eq!(Latency::of(std::iter::empty(), true), None);
    }

    #[test]
    fn a_stall_hides_what_would_have_waited_behind_it() {
        // A thousand answers in 1 ms each, then one after a second: whoever asks every
        // millisecond would have waited half a second on average, a thousand times.
        let values = std::iter::repeat_n(1_000_000, 1_000).chain([1_000_000_000]);
        let latency = Latency::of(values, true).unwrap();
        assert!(latency.measured.p99 < 1_100.0);
        let corrected = latency.corrected.clone().unwrap();
        assert!(corrected.p99 > 900_000.0, "{corrected:?}");
        assert!(latency.worst(|p| p.p99) > 900_000.0);
    }
}
