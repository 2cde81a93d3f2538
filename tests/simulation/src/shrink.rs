//! A failing run made small: actions are left out and chances set to nothing for as long as
//! the same rule is broken.

use crate::options::Options;
use crate::run::run;
use crate::scenario::{Action, Scenario};

/// Most runs spent on it.
const RUNS_MAX: u32 = 2_000;

/// The smallest scenario found that still breaks the rule.
pub fn shrink(scenario: &Scenario, rule: &str) -> Scenario {
    let mut best = scenario.clone();
    let mut runs = 0;
    let mut still_fails = |candidate: &Scenario| {
        runs += 1;
        let violation = run(candidate, false).violation;
        (runs <= RUNS_MAX) && violation.is_some_and(|v| v.rule == rule)
    };
    loop {
        let before = best.clone();
        drop_actions(&mut best, &mut still_fails);
        drop_items(&mut best, &mut still_fails);
        soften(&mut best, &mut still_fails);
        if before == best {
            return best;
        }
    }
}

/// Leaves out halves, quarters … and single actions.
fn drop_actions(best: &mut Scenario, still_fails: &mut impl FnMut(&Scenario) -> bool) {
    let mut size = best.actions.len().div_ceil(2).max(1);
    loop {
        let mut start = 0;
        while start < best.actions.len() {
            let mut candidate = best.clone();
            let end = (start + size).min(candidate.actions.len());
            candidate.actions.drain(start..end);
            if still_fails(&candidate) {
                *best = candidate;
            } else {
                start += size;
            }
        }
        if size == 1 {
            return;
        }
        size = size.div_ceil(2);
    }
}

/// Leaves out single tasks of submissions.
fn drop_items(best: &mut Scenario, still_fails: &mut impl FnMut(&Scenario) -> bool) {
    for n in 0..best.actions.len() {
        let mut i = 0;
        loop {
            let mut candidate = best.clone();
            let Some((_, Action::Submit { items, .. })) = candidate.actions.get_mut(n) else {
                break;
            };
            if items.len() < 2 || i >= items.len() {
                break;
            }
            items.remove(i);
            if still_fails(&candidate) {
                *best = candidate;
            } else {
                i += 1;
            }
        }
    }
}

/// Sets chances to nothing, and takes processes away.
fn soften(best: &mut Scenario, still_fails: &mut impl FnMut(&Scenario) -> bool) {
    let changes: [fn(&mut Options); 12] = [
        |o| o.failing = 0,
        |o| o.hanging = 0,
        |o| o.lost_requests = 0,
        |o| o.lost_replies = 0,
        |o| o.late_requests = 0,
        |o| o.refused = 0,
        |o| o.lost_beats = 0,
        |o| o.drift = 0,
        |o| o.snapshot_every = 0,
        |o| o.orchestrators = 1,
        |o| o.schedulers = 1,
        |o| o.agents = 1,
    ];
    for change in changes {
        let mut candidate = best.clone();
        change(&mut candidate.options);
        if candidate.options != best.options && still_fails(&candidate) {
            *best = candidate;
        }
    }
}
