//! What the records tell beside the state that they make: running sums, kept as they are read.

use conductor_domain::fold::Folded;
use conductor_domain::record::Content;
use conductor_domain::{Decoded, State, Verdict};
use conductor_protocol::event::Event;

use super::failures::Failures;
use super::pace::{Counts, Pace};
use super::waits::Waits;

/// Sums over the records read since it began.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// How much happened in each of the last seconds.
    pub(crate) pace: Pace,
    /// Which tasks have been ready longest.
    pub(crate) waits: Waits,
    /// What failed last.
    pub(crate) failures: Failures,
}

impl Seen {
    /// Begins with what a state tells: a step for each ready task, and for each ended one that
    /// is kept, once.
    pub(crate) fn begin(state: &State) -> Self {
        Self {
            pace: Pace::default(),
            waits: Waits::begin(state),
            failures: Failures::begin(state),
        }
    }

    /// A record was read, and `state` is after it. A step or two for each of its events.
    pub(crate) fn saw(&mut self, record: &Decoded, folded: &Folded, state: &State) {
        let mut counts = Counts::default();
        for event in applied(record, folded) {
            match event {
                Event::TaskAccepted(e) => {
                    counts.accepted += 1;
                    self.waits.add(state, e.task);
                }
                Event::TaskReady(e) => self.waits.add(state, e.task),
                Event::TaskRedriven(e) => self.waits.add(state, e.task),
                Event::AttemptStarted(_) => counts.started += 1,
                _ => {}
            }
        }
        for passed in &folded.passed {
            counts.ended += u64::from(passed.end.is_some());
            self.failures.saw(passed, state);
        }
        self.pace.add(state.time_ms, counts);
    }
}

/// The events of leaders and agents that counted.
fn applied<'r>(record: &'r Decoded, folded: &'r Folded) -> impl Iterator<Item = &'r Event> {
    let items = match &record.content {
        Content::Leader { items, .. } | Content::Agent { items, .. } => items.as_slice(),
        _ => &[],
    };
    let judged = items.iter().zip(&folded.verdicts);
    judged.filter_map(|(item, verdict)| match verdict {
        Verdict::Applied => item.as_ref().ok(),
        Verdict::Void(_) => None,
    })
}

#[cfg(test)]
mod tests {
    use super::super::world::{START_MS, World};
    use serde_json::json;

    #[test]
    fn everything_that_counted_is_counted_once() {
        let mut world = World::new();
        world.join("a1", 4);
        let (fails, waits) = (world.submit(json!({})), world.submit(json!({})));
        world.start(fails, "a1");
        world.fail(fails, "a1");
        // It was reported already, and does not count again.
        world.fail(fails, "a1");
        world.cancel(waits);
        let rates = world.seen.pace.rates(START_MS + 1_000, 1);
        let counts = [rates.accepted, rates.started, rates.ended].map(|r| r.round() as u64);
        assert_eq!(counts, [2, 1, 2]);
    }
}
