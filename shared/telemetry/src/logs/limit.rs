//! A line that repeats is left out after a while, and counted.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::callsite::Identifier;

/// Lines of one place in the code, about one task or none, within a window; what is beyond is left out.
const LINES_MAX: u64 = 50;
/// Most windows kept: of more tasks than that some are forgotten, and their lines written.
const WINDOWS_MAX: usize = 10_000;
/// The window.
const WINDOW: Duration = Duration::from_secs(10);

/// Whether a line is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pass {
    /// Yes, and so many of its kind were left out since the one before.
    Yes(u64),
    /// No.
    No,
}

#[derive(Debug)]
struct Window {
    since: Instant,
    lines: u64,
    left_out: u64,
}

/// Counts lines by the place in the code that writes them, and the task they speak of.
#[derive(Debug, Default)]
pub(super) struct Limit(Mutex<BTreeMap<(usize, String), Window>>);

impl Limit {
    pub(super) fn pass(&self, place: &Identifier, of: &str, now: Instant) -> Pass {
        // Where it stands in memory tells one place from another.
        let place = std::ptr::from_ref(place.0).cast::<()>() as usize;
        self.pass_at(place, of, now)
    }

    fn pass_at(&self, place: usize, of: &str, now: Instant) -> Pass {
        let mut windows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if windows.len() >= WINDOWS_MAX {
            windows.retain(|_, w| now.saturating_duration_since(w.since) < WINDOW);
        }
        if windows.len() >= WINDOWS_MAX {
            windows.clear();
        }
        let window = windows.entry((place, of.to_owned())).or_insert(Window {
            since: now,
            lines: 0,
            left_out: 0,
        });
        if now.saturating_duration_since(window.since) >= WINDOW {
            window.since = now;
            window.lines = 0;
        }
        window.lines += 1;
        if window.lines > LINES_MAX {
            window.left_out += 1;
            return Pass::No;
        }
        Pass::Yes(std::mem::take(&mut window.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_repeats_is_left_out_and_counted() {
        let (limit, begin) = (Limit::default(), Instant::now());
        for _ in 0..LINES_MAX {
            assert_eq!(limit.pass_at(1, "", begin), Pass::Yes(0));
        }
        assert_eq!(limit.pass_at(1, "", begin), Pass::No);
        assert_eq!(limit.pass_at(1, "", begin), Pass::No);
        assert_eq!(limit.pass_at(2, "", begin), Pass::Yes(0), "another place");
        assert_eq!(
            limit.pass_at(1, "task", begin),
            Pass::Yes(0),
            "another task"
        );
        assert_eq!(limit.pass_at(1, "", begin + WINDOW), Pass::Yes(2));
        assert_eq!(limit.pass_at(1, "", begin + WINDOW), Pass::Yes(0));
    }
}
