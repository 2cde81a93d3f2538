//! How much happened in each of the last seconds, by the times of the records.
//!
//! By record times and not by when they were read: so catching up looks like what happened,
//! not like how fast it was read.

use std::collections::BTreeMap;

use conductor_protocol::UnixMs;

/// How many whole seconds are remembered.
pub(crate) const KEPT_S: u64 = 60;
/// The second under way and one that a clock may be ahead are kept beside those.
const SPARE_S: u64 = 2;

/// How often something happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Submissions that became tasks.
    pub(crate) accepted: u64,
    /// Attempts that began to run.
    pub(crate) started: u64,
    /// Tasks that ended, however.
    pub(crate) ended: u64,
}

/// Means over some whole seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Rates {
    /// Over how many seconds.
    pub(crate) over_s: u64,
    /// Tasks accepted per second.
    pub(crate) accepted: f64,
    /// Attempts started per second.
    pub(crate) started: f64,
    /// Tasks ended per second.
    pub(crate) ended: f64,
}

/// Counts of the last seconds in which anything happened.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    /// By whole seconds since 1970.
    seconds: BTreeMap<u64, Counts>,
}

impl Pace {
    /// So much happened at that time.
    pub(crate) fn add(&mut self, time_ms: UnixMs, counts: Counts) {
        if counts == Counts::default() {
            return;
        }
        let second = time_ms / 1_000;
        let sum = self.seconds.entry(second).or_default();
        sum.accepted += counts.accepted;
        sum.started += counts.started;
        sum.ended += counts.ended;
        while let Some(oldest) = self.seconds.first_entry() {
            if *oldest.key() + KEPT_S + SPARE_S >= second {
                break;
            }
            oldest.remove();
        }
    }

    /// Means over the last `over_s` whole seconds before `now_ms`: the one under way would
    /// always look slow.
    pub(crate) fn rates(&self, now_ms: UnixMs, over_s: u64) -> Rates {
        let (end, over_s) = (now_ms / 1_000, over_s.clamp(1, KEPT_S));
        let mut sum = Counts::default();
        for (_, counts) in self.seconds.range(end.saturating_sub(over_s)..end) {
            sum.accepted += counts.accepted;
            sum.started += counts.started;
            sum.ended += counts.ended;
        }
        let mean = |count: u64| count as f64 / over_s as f64;
        Rates {
            over_s,
            accepted: mean(sum.accepted),
            started: mean(sum.started),
            ended: mean(sum.ended),
        }
    }

    /// Tasks ended in each of the last [`KEPT_S`] whole seconds before `now_ms`, oldest first.
    pub(crate) fn ended(&self, now_ms: UnixMs) -> Vec<u64> {
        let end = now_ms / 1_000;
        (end.saturating_sub(KEPT_S)..end)
            .map(|second| self.seconds.get(&second).map_or(0, |c| c.ended))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENDED: Counts = Counts {
        accepted: 0,
        started: 0,
        ended: 1,
    };

    #[test]
    fn rates_are_of_whole_seconds() {
        let mut pace = Pace::default();
        for time_ms in [110_000, 110_999, 111_000, 112_500] {
            pace.add(time_ms, ENDED);
        }
        let ended = |now_ms, over_s| pace.rates(now_ms, over_s).ended;
        assert!((ended(111_000, 1) - 2.0).abs() < 1e-9);
        assert!(
            (ended(112_999, 1) - 1.0).abs() < 1e-9,
            "not the one under way"
        );
        assert!((ended(112_000, 2) - 1.5).abs() < 1e-9);
        assert!(ended(114_000, 1).abs() < 1e-9, "nothing happened then");
        assert_eq!(pace.rates(112_000, 1_000).over_s, KEPT_S);
        assert_eq!(pace.ended(113_000)[57..], [2, 1, 1]);
    }

    #[test]
    fn older_seconds_are_forgotten() {
        let mut pace = Pace::default();
        for second in 0..1_000 {
            pace.add(second * 1_000, ENDED);
        }
        assert_eq!(pace.seconds.len() as u64, KEPT_S + SPARE_S + 1);
        assert_eq!(pace.ended(1_000_000), vec![1; 60]);
    }
}
