//! The simulation must be able to fail: every planted bug is found within so many seeds, by
//! the rule that is there for it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests fail by panicking"
)]

use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use conductor_domain::planted::{Bug, plant};
use conductor_simulation::run;
use conductor_simulation::scenario::Scenario;
use conductor_simulation::shrink::shrink;
use expect_test::expect_file;

/// Within so many seeds each is found.
const SEEDS: u64 = 1_000;

/// The rules that broke first, and the seed at which the bug was found.
fn hunt(bug: Bug) -> Option<(u64, &'static str, String)> {
    plant(Some(bug));
    let found = (1..=SEEDS).find_map(|seed| {
        let violation = run(&Scenario::draw(seed), false).violation?;
        Some((seed, violation.rule, violation.what))
    });
    plant(None);
    found
}

/// A kept case is worth keeping while it still finds the bug it was kept for.
#[test]
fn kept_cases_find_their_bugs() {
    for (name, bug) in [
        ("a-late-joining-takes-the-name", Bug::BidUnconditional),
        (
            "a-repeated-frame-clears-a-newer-decision",
            Bug::RepeatBelieved,
        ),
    ] {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
        let text = std::fs::read_to_string(dir.join(name).with_extension("json")).unwrap();
        let scenario: Scenario = serde_json::from_str(&text).unwrap();
        plant(Some(bug));
        let violation = run(&scenario, false).violation;
        plant(None);
        assert!(violation.is_some(), "{name} finds nothing any more");
    }
}

/// A failing run is made small: this bug needs one task that is stopped, not two hundred records.
#[test]
fn a_failing_run_is_made_small() {
    let (seed, rule, _) = hunt(Bug::RevocationForgotten).unwrap();
    plant(Some(Bug::RevocationForgotten));
    let whole = Scenario::draw(seed);
    let small = shrink(&whole, rule);
    let done = run(&small, true);
    plant(None);
    assert_eq!(done.violation.map(|v| v.rule), Some(rule));
    assert!(
        small.actions.len() <= 5,
        "{} of {} actions are left: {:#?}",
        small.actions.len(),
        whole.actions.len(),
        small.actions
    );
    assert!(done.records <= 40, "{}", done.story.join("\n"));
}

#[test]
fn every_planted_bug_is_found() {
    let next = AtomicUsize::new(0);
    let table = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    let Some(bug) = Bug::ALL.get(n) else { return };
                    table.lock().unwrap().push((n, *bug, hunt(*bug)));
                }
            });
        }
    });
    let mut table = table.into_inner().unwrap();
    table.sort_unstable_by_key(|(n, ..)| *n);
    let mut text = "bug                      found by              at seed\n".to_owned();
    for (_, bug, found) in &table {
        let name = format!("{bug:?}");
        match found {
            Some((seed, rule, what)) => {
                println!("{name}: seed {seed}: [{rule}] {what:.300}");
                text += &format!("{name:<24} {rule:<21} {seed:>7}\n");
            }
            None => text += &format!("{name:<24} NOT FOUND in {SEEDS} seeds\n"),
        }
    }
    print!("{text}");
    let missed = table.iter().filter(|(_, _, found)| found.is_none());
    assert_eq!(missed.count(), 0, "{text}");
    // Which rule finds which bug may not change unnoticed: UPDATE_EXPECT=1 writes it anew.
    expect_file!["planted.txt"].assert_eq(&text);
}
