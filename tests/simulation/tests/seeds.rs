//! A fixed set of runs, on every change; the simulation itself is tested, too.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests fail by panicking"
)]

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use conductor_simulation::referee::Coverage;
use conductor_simulation::run;
use conductor_simulation::scenario::Scenario;
use expect_test::expect_file;

/// Seeds run on every change.
const SEEDS: u64 = 300;

/// Runs the fixed set; returns what was met in it.
fn fixed_set() -> Coverage {
    let next = AtomicU64::new(1);
    let met = Mutex::new((Coverage::new(), Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed > SEEDS {
                        return;
                    }
                    let scenario = Scenario::draw(seed);
                    let done = run(&scenario, false);
                    let mut met = met.lock().unwrap();
                    for (what, times) in done.coverage {
                        *met.0.entry(what).or_default() += times;
                    }
                    met.1.extend(
                        done.violation
                            .map(|v| format!("seed {seed}: {v}\n  {:?}", scenario.options)),
                    );
                }
            });
        }
    });
    let (coverage, failures) = met.into_inner().unwrap();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    coverage
}

/// What the generator reaches may grow but not shrink: every line of the file is a phase, an
/// event and a verdict that were met. UPDATE_EXPECT=1 writes it anew.
#[test]
fn the_fixed_set_is_clean_and_reaches_what_it_did() {
    let coverage = fixed_set();
    let met: BTreeSet<&str> = coverage.keys().map(String::as_str).collect();
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/coverage.txt");
    let before = std::fs::read_to_string(&file).unwrap_or_default();
    let missing: Vec<&str> = before.lines().filter(|line| !met.contains(line)).collect();
    let verdicts: BTreeSet<&str> = met.iter().filter_map(|m| m.rsplit(' ').next()).collect();
    println!(
        "{SEEDS} seeds: {} kinds of things met, {} verdicts: {verdicts:?}",
        met.len(),
        verdicts.len()
    );
    if std::env::var_os("UPDATE_EXPECT").is_none() {
        assert!(missing.is_empty(), "no longer met: {missing:#?}");
        return;
    }
    let lines: Vec<&str> = met.into_iter().collect();
    expect_file![file].assert_eq(&(lines.join("\n") + "\n"));
}

#[test]
fn the_same_seed_gives_the_same_log_and_the_same_story() {
    for seed in [1, 7, 42, 189, 926, 4_711] {
        let (first, second) = (Scenario::draw(seed), Scenario::draw(seed));
        assert_eq!(first, second, "seed {seed}");
        let (first, second) = (run(&first, true), run(&second, true));
        assert!(!first.log.is_empty());
        assert_eq!(first.log, second.log, "seed {seed}");
        assert_eq!(first.story, second.story, "seed {seed}");
    }
}

#[test]
fn a_scenario_survives_being_written_down() {
    let scenario = Scenario::draw(5);
    let text = serde_json::to_string(&scenario).unwrap();
    let again: Scenario = serde_json::from_str(&text).unwrap();
    assert_eq!(run(&scenario, true).log, run(&again, true).log);
}

/// Each file in `cases` broke a rule once, and was made small then.
#[test]
fn what_was_found_once_stays_mended() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    let mut files: Vec<_> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    assert!(!files.is_empty());
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let scenario: Scenario = serde_json::from_str(&text).unwrap();
        let violation = run(&scenario, false).violation;
        assert_eq!(violation, None, "{}", file.display());
    }
}
