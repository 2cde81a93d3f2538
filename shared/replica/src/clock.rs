//! What time it is at the server, which stamps the records.
//!
//! Deadlines count from record times. Our own clock may be wrong by hours, so it is
//! only used to measure how long ago a record came in.

use std::time::{Duration, Instant};

use conductor_protocol::UnixMs;

/// An estimate of the server's clock, from the records that came in last.
#[derive(Debug, Clone, Default)]
pub struct ServerClock {
    seen: Option<(UnixMs, Instant)>,
}

impl ServerClock {
    /// A record stamped `time_ms` came in at `now`. Only fresh records tell the time:
    /// while catching up, they are old when they arrive.
    pub fn saw(&mut self, time_ms: UnixMs, now: Instant) {
        let estimate = self.now_ms(now);
        // A record that was held up on its way must not set the clock back by more than
        // the server's own clock went back.
        let is_late = estimate.is_some_and(|e| time_ms < e && e - time_ms < 1_000);
        if !is_late {
            self.seen = Some((time_ms, now));
        }
    }

    /// The server's time at `now`; `None` before the first fresh record.
    pub fn now_ms(&self, now: Instant) -> Option<UnixMs> {
        let (time_ms, at) = self.seen?;
        let since = now.saturating_duration_since(at).as_millis();
        Some(time_ms.saturating_add(u64::try_from(since).unwrap_or(u64::MAX)))
    }

    /// How long until the server's clock shows `at_ms`.
    pub fn until(&self, at_ms: UnixMs, now: Instant) -> Option<Duration> {
        self.now_ms(now)
            .map(|n| Duration::from_millis(at_ms.saturating_sub(n)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_clock_only_measures() {
        let mut clock = ServerClock::default();
        let start = Instant::now();
        assert_eq!(clock.now_ms(start), None);
        clock.saw(1_000_000, start);
        let later = start + Duration::from_secs(5);
        assert_eq!(clock.now_ms(later), Some(1_005_000));
        clock.saw(1_004_900, later);
        assert_eq!(
            clock.now_ms(later),
            Some(1_005_000),
            "a late record does not set it back"
        );
        clock.saw(400_000, later);
        assert_eq!(
            clock.now_ms(later),
            Some(400_000),
            "a server that set its clock back does"
        );
        assert_eq!(clock.until(401_000, later), Some(Duration::from_secs(1)));
    }
}
