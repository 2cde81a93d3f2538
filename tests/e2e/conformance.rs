//! One suite for every runtime in every sandbox: programs that behave, and programs that do not,
//! each run by a whole system. Programs of agents are played by `fake-agent.py`, which needs
//! neither a key nor a model; the real ones are in `claude.rs` and `codex.rs`.

mod cases;
mod fakes;
mod pairs;
mod people;

use cases::{CASES, Case};
use conductor_protocol::OutcomeClass;
use fakes::Fakes;
use pairs::{Kind, Pair, Report, SANDBOXES};
use serde_json::json;

/// Runs these cases in every pair that this machine has; the others say why they cannot.
async fn run(cases: &[&'static Case], kinds: &[Kind]) -> Report {
    let mut fakes = Fakes::up().await;
    let mut report = Report::default();
    let mut submitted = Vec::new();
    for sandbox in SANDBOXES {
        if let Err(reason) = fakes.offers(sandbox).await {
            report.skips(sandbox, &reason);
            continue;
        }
        for kind in kinds {
            let pair = Pair {
                kind: *kind,
                sandbox,
            };
            for case in cases {
                match fakes.submit(pair, case).await {
                    Some(id) => submitted.push((pair, *case, id)),
                    None => report.leaves_out(pair, case),
                }
            }
        }
    }
    for (pair, case, id) in submitted {
        let found = fakes.check(pair, case, id).await;
        report.add(pair, case, found);
    }
    fakes.system.assert_replay_agrees().await;
    report
}

fn named(name: &str) -> [&'static Case; 1] {
    let case = CASES.iter().find(|c| c.name == name);
    [case.unwrap_or_else(|| panic!("there is no case {name:?}"))]
}

#[tokio::test]
async fn every_runtime_passes_every_case_in_every_sandbox() {
    let all: Vec<&Case> = CASES.iter().collect();
    let report = run(&all, &Kind::ALL).await;
    println!("{report}");
    report.assert_passed();
}

#[tokio::test]
async fn test_7_a_stalled_stream_is_stalled_in_time() {
    let report = run(&named("stalled stream"), &Kind::MODELS).await;
    report.assert_passed();
}

#[tokio::test]
async fn test_8_a_result_without_an_exit_is_reaped_and_still_a_success() {
    let report = run(&named("hang after result"), &Kind::MODELS).await;
    report.assert_passed();
}

#[tokio::test]
async fn test_10_after_a_sigkill_another_attempt_goes_on_with_the_session() {
    let report = run(&named("resume after SIGKILL"), &Kind::MODELS).await;
    report.assert_passed();
}

#[tokio::test]
async fn a_model_that_its_terms_do_not_allow_is_not_started() {
    let mut fakes = Fakes::up().await;
    let claude = json!({"prompt": "[[ok]]", "model": "big"});
    let task = json!({"run": {"claude": claude}, "models": ["small"]});
    let id = fakes.system.submit(task).await;
    let (class, message) = fakes.failed(id).await;
    assert_eq!(class, OutcomeClass::NotStarted);
    assert!(
        message.contains("big") && message.contains("small"),
        "{message}"
    );
}

#[tokio::test]
async fn prompts_are_submitted_from_the_command_line() {
    let fakes = Fakes::up().await;
    let script = fakes.script.clone();
    let submit = ["submit", "--wait"];
    let codex = ["--codex", "[[tool]]", "--model", "m"];
    let acp = ["--acp", "[[tool]]", "--allow-tools", "--", &script, "acp"];
    for run in [&codex[..], &acp[..]] {
        fakes.system.cli(&[&submit[..], run].concat()).await.ok();
    }
    let denied = ["--acp", "[[tool]]", "--", &script, "acp"];
    let denied = fakes.system.cli(&[&submit[..], &denied].concat()).await;
    assert_ne!(denied.code, 0, "{denied:?}");
    let nothing = fakes.system.cli(&["submit", "--acp", "hi"]).await;
    assert_eq!(nothing.code, 2, "it names no agent: {nothing:?}");
}
