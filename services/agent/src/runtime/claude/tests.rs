use super::*;
use crate::output::Channel;
use expect_test::{Expect, expect};
use proptest::prelude::*;

fn fixture(name: &str) -> Vec<u8> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/");
    std::fs::read(format!("{path}claude-stream-sample{name}.jsonl")).unwrap()
}

fn check(name: &str, status: &Status, expected: &Expect) {
    let mut runtime = ClaudeRuntime::new(ClaudeSpec::default(), Duration::from_secs(1));
    let mut signals = Vec::new();
    for chunk in fixture(name).chunks(777) {
        signals.extend(runtime.read(Channel::Stdout, chunk));
    }
    signals.extend(runtime.end(Channel::Stdout));
    let finals = signals.iter().filter(|s| **s == Signal::Final).count();
    let verdict = runtime.judge(status);
    let usage = verdict.usage.unwrap();
    expected.assert_eq(&format!(
        "finals {finals}, failure {:?}\nresult {:?}\nturns {} in {} out {} usd {:.4}\n",
        verdict.failure,
        verdict.result,
        usage.turns,
        usage.input_tokens,
        usage.output_tokens,
        usage.cost_usd,
    ));
}

#[test]
fn recorded_streams_are_judged_by_their_result() {
    check(
        "",
        &Status::Exited(0),
        &expect![[r#"
        finals 1, failure None
        result Some("All done: file written and shown.")
        turns 3 in 4500 out 126 usd 0.0414
    "#]],
    );
    check(
        "-partial",
        &Status::Exited(0),
        &expect![[r#"
        finals 1, failure None
        result Some("All done: file written and shown.")
        turns 3 in 4500 out 126 usd 0.0414
    "#]],
    );
    check(
        "-subagent",
        &Status::Exited(0),
        &expect![[r#"
        finals 1, failure None
        result Some("sub done")
        turns 2 in 4500 out 126 usd 0.0414
    "#]],
    );
    check(
        "-2.1.316",
        &Status::Exited(0),
        &expect![[r#"
        finals 1, failure None
        result Some("All done: file written and shown.")
        turns 3 in 4500 out 126 usd 0.0283
    "#]],
    );
    check(
        "-2.1.316-denied",
        &Status::Exited(0),
        &expect![[r#"
        finals 1, failure Some((Denied, "denied: Write; allow the tools, or set allow_denials"))
        result Some("All done: file written and shown.")
        turns 3 in 4500 out 126 usd 0.0283
    "#]],
    );
    check(
        "-maxturns",
        &Status::Exited(1),
        &expect![[r#"
        finals 1, failure Some((MaxTurns, "error_max_turns"))
        result None
        turns 3 in 3000 out 84 usd 0.0276
    "#]],
    );
    check(
        "-apierror",
        &Status::Exited(0),
        &expect![[r#"
        finals 1, failure Some((ModelError, "API Error: 500 fake 500. This is a server-side issue, usually temporary — try again in a moment. If it persists, check your inference gateway (127.0.0.1:18999)."))
        result Some("API Error: 500 fake 500. This is a server-side issue, usually temporary — try again in a moment. If it persists, check your inference gateway (127.0.0.1:18999).")
        turns 1 in 0 out 0 usd 0.0000
    "#]],
    );
}

#[test]
fn an_end_without_a_result_is_never_success() {
    for (status, class) in [
        (Status::Exited(0), "BadOutput"),
        (Status::Exited(1), "Crashed"),
        (Status::Signalled(9), "Crashed"),
        (Status::NotStarted("no".into()), "NotStarted"),
    ] {
        let mut runtime = ClaudeRuntime::new(ClaudeSpec::default(), Duration::from_secs(1));
        let failure = runtime.judge(&status).failure.unwrap();
        assert_eq!(format!("{:?}", failure.0), class);
    }
}

#[test]
fn the_session_is_known_before_the_start() {
    let lease = Lease {
        task: "018bcfe5-6800-7000-8000-000000000000".parse().unwrap(),
        attempt: 1,
        assigned: conductor_protocol::Position::new(7, 0),
    };
    assert_eq!(session_id(&lease), session_id(&lease));
    assert_ne!(
        session_id(&lease),
        session_id(&Lease {
            attempt: 2,
            ..lease
        })
    );
    let runtime = ClaudeRuntime::new(ClaudeSpec::default(), Duration::from_secs(1));
    let args = runtime.args(&session_id(&lease), false).join(" ");
    for safe in [
        "--strict-mcp-config",
        "--setting-sources user",
        "--permission-mode dontAsk",
        "SendMessage",
    ] {
        assert!(args.contains(safe), "{args}");
    }
}

proptest! {
    #[test]
    fn no_line_breaks_the_decoder(bytes in proptest::collection::vec(any::<u8>(), 0..300), cut in 0_usize..20_000) {
        let mut runtime = ClaudeRuntime::new(ClaudeSpec::default(), Duration::from_secs(1));
        let mut sample = fixture("-partial");
        sample.truncate(cut);
        runtime.read(Channel::Stdout, &sample);
        runtime.read(Channel::Stdout, &bytes);
        runtime.end(Channel::Stdout);
        let _ = runtime.judge(&Status::Exited(0));
    }

    #[test]
    fn no_json_breaks_the_decoder(kind in "system|assistant|result|stream_event|user|x", key in "[a-z_]{1,10}", n: i64) {
        let mut runtime = ClaudeRuntime::new(ClaudeSpec::default(), Duration::from_secs(1));
        let line = json!({"type": kind, "subtype": key, "message": n, "event": [n], key: {"content": n}});
        runtime.read(Channel::Stdout, format!("{line}\n").as_bytes());
        let _ = runtime.judge(&Status::Exited(0));
    }
}
