use super::*;
use crate::output::Channel;
use crate::runtime::testing::output_of;
use expect_test::{Expect, expect};
use proptest::prelude::*;
use serde_json::{Value, json};

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
    let args = runtime
        .args(&session_id(&lease), false, false, None)
        .join(" ");
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

/// What the CLI wrote while somebody was asked, said no, and said something else besides.
#[test]
fn what_it_asks_is_asked_of_people_and_their_answer_is_said_to_it() {
    use conductor_protocol::event::Question;
    use conductor_protocol::terms::Answer;
    let mut runtime = ClaudeRuntime::new(ClaudeSpec::default(), Duration::from_secs(1));
    let text = String::from_utf8(fixture("-2.1.316-approval")).unwrap();
    let (mut finals, mut asked) = (0, Vec::new());
    for line in text.lines() {
        for signal in runtime.read(Channel::Stdout, format!("{line}\n").as_bytes()) {
            match signal {
                Signal::Final => finals += 1,
                Signal::Ask(name, question, summary) => {
                    assert_eq!(question, Question::Tool);
                    asked.push(summary);
                    let told = said(&runtime.told("STEER please hurry").unwrap());
                    assert_eq!(told["message"]["content"][0]["text"], "STEER please hurry");
                    let reply = Reply {
                        answer: Answer::Deny,
                        text: Some("not now".into()),
                    };
                    let answer = said(&runtime.answered(&name, &reply));
                    assert_eq!(answer["response"]["request_id"], name);
                    let decision = &answer["response"]["response"];
                    assert_eq!(*decision, json!({"behavior": "deny", "message": "not now"}));
                    assert_eq!(runtime.answered(&name, &reply), [], "once");
                }
                _ => {}
            }
        }
    }
    assert_eq!(
        asked,
        [r#"Write: {"content":"hello from fake\n","file_path":"/etc/hello.txt"}"#]
    );
    assert_eq!(finals, 1, "it has read all that was said to it");
    let verdict = runtime.judge(&Status::Exited(0));
    assert_eq!(
        verdict.failure.map(|f| f.0),
        Some(conductor_protocol::OutcomeClass::Denied)
    );
}

/// The value in the only word that is to be said.
fn said(signals: &[Signal]) -> Value {
    let mut words = signals.iter().filter_map(|signal| match signal {
        Signal::Say(bytes) => Some(serde_json::from_slice(bytes).unwrap()),
        _ => None,
    });
    let word = words.next().unwrap();
    assert!(words.next().is_none());
    word
}

fn lines(runtime: &mut ClaudeRuntime, lines: &[Value]) -> Vec<Signal> {
    let text: String = lines.iter().map(|l| format!("{l}\n")).collect();
    runtime.read(Channel::Stdout, text.as_bytes())
}

#[test]
fn a_result_is_its_last_word_only_once_it_has_read_all_that_was_said() {
    let mut runtime = ClaudeRuntime::new(ClaudeSpec::default(), Duration::from_secs(1));
    let replay = json!({"type": "user", "isReplay": true, "message": {"content": []}});
    let result = json!({"type": "result", "subtype": "success", "num_turns": 2});
    lines(&mut runtime, std::slice::from_ref(&replay));
    runtime.told("and now this").unwrap();
    let first = lines(&mut runtime, std::slice::from_ref(&result));
    assert!(!first.contains(&Signal::Final), "{first:?}");
    let second = lines(&mut runtime, &[replay, result]);
    assert!(second.contains(&Signal::Final), "{second:?}");
    let usage = runtime.judge(&Status::Exited(0)).usage.unwrap();
    assert_eq!(usage.turns, 4, "each result counts its own");
}

#[test]
fn the_model_asks_people_itself_and_hears_what_they_say() {
    use conductor_protocol::event::Question;
    use conductor_protocol::terms::Answer;
    let mut runtime = ClaudeRuntime::new(ClaudeSpec::default(), Duration::from_secs(1));
    let input = json!({"questions": [{"question": "Which branch?", "options": []}]});
    let request =
        json!({"subtype": "can_use_tool", "tool_name": "AskUserQuestion", "input": input});
    let asks = json!({"type": "control_request", "request_id": "r1", "request": request});
    let signals = lines(&mut runtime, &[asks]);
    let asked = Signal::Ask("r1".into(), Question::Human, "Which branch?".into());
    assert!(signals.contains(&asked), "{signals:?}");
    let reply = Reply {
        answer: Answer::Allow,
        text: Some("main".into()),
    };
    let answer = said(&runtime.answered("r1", &reply));
    let input = &answer["response"]["response"]["updatedInput"];
    assert_eq!(input["answers"], json!({"Which branch?": "main"}));
    // What it asks otherwise is refused, or it would wait for ever.
    let other = json!({"type": "control_request", "request_id": "r2", "request": {"subtype": "x"}});
    let refused = said(&lines(&mut runtime, &[other]));
    assert_eq!(refused["response"]["subtype"], "error");
}

#[test]
fn it_finds_its_tools_by_a_token_that_stands_in_no_argument() {
    use crate::runtime::testing::{Asked, assigned, prepared};
    let launch = |has_tools| {
        let spec = ClaudeSpec {
            allowed_tools: vec!["Bash".into()],
            ..ClaudeSpec::default()
        };
        let task = assigned(conductor_protocol::RunSpec::Claude(Box::new(spec.clone())));
        let asked = Asked {
            has_tools,
            ..Asked::default()
        };
        prepared(
            &mut ClaudeRuntime::new(spec, Duration::from_secs(1)),
            &task,
            asked,
        )
        .unwrap()
    };
    let with = launch(true);
    let args = with.args.join(" ");
    let config = r#"--mcp-config {"mcpServers":{"conductor":{"headers":{"Authorization":"Bearer ${CONDUCTOR_MCP_TOKEN}"},"type":"http","url":"http://127.0.0.1:8190/mcp"}}}"#;
    assert!(args.contains(config), "{args}");
    assert!(args.contains("--strict-mcp-config"), "{args}");
    assert!(
        args.contains("--allowedTools mcp__conductor__* Bash --disallowedTools"),
        "{args}"
    );
    assert!(!args.contains("the-token"), "{args}");
    for name in ["MCP_TOOL_TIMEOUT", "CLAUDE_CODE_MCP_TOOL_IDLE_TIMEOUT"] {
        assert_eq!(with.env[name], "1209600000");
    }
    let without = launch(false);
    assert!(!without.args.join(" ").contains("mcp-config {"));
    assert!(!without.env.contains_key("MCP_TOOL_TIMEOUT"));
}

#[test]
fn a_server_of_tools_that_is_not_there_is_said_once_and_fails_nothing() {
    let mut runtime = ClaudeRuntime::new(ClaudeSpec::default(), Duration::from_secs(1));
    let servers = json!([
        {"name": "conductor", "status": "failed"}, {"name": "other", "status": "connected"},
    ]);
    let init =
        json!({"type": "system", "subtype": "init", "session_id": "s", "mcp_servers": servers});
    let result = json!({"type": "result", "subtype": "success", "is_error": false, "result": "r"});
    let signals = lines(&mut runtime, &[init.clone(), init, result]);
    let warnings: Vec<_> = signals
        .iter()
        .filter_map(|s| match s {
            Signal::Warning(problem) => Some(problem.as_str()),
            _ => None,
        })
        .collect();
    let missing = "the MCP server conductor is not reached: its tools are missing";
    assert_eq!(warnings, [missing]);
    assert_eq!(runtime.judge(&Status::Exited(0)).failure, None);
}

#[test]
fn what_the_cli_asks_no_longer_is_withdrawn_once() {
    use conductor_protocol::terms::Answer;
    let mut runtime = ClaudeRuntime::new(ClaudeSpec::default(), Duration::from_secs(1));
    let request = json!({"subtype": "can_use_tool", "tool_name": "Bash", "input": {}});
    let asks = json!({"type": "control_request", "request_id": "r1", "request": request});
    let takes_back = json!({"type": "control_cancel_request", "request_id": "r1"});
    let signals = lines(&mut runtime, &[asks, takes_back.clone()]);
    let withdrawn = Signal::Withdraw("r1".into());
    assert!(signals.contains(&withdrawn), "{signals:?}");
    assert!(output_of(&signals).ends_with("[asks no longer: Bash]\n"));
    assert_eq!(lines(&mut runtime, &[takes_back]), []);
    let late = Reply {
        answer: Answer::Allow,
        text: None,
    };
    assert_eq!(runtime.answered("r1", &late), []);
}

#[test]
fn people_are_asked_where_the_task_says_so() {
    let runtime = ClaudeRuntime::new(ClaudeSpec::default(), Duration::from_secs(1));
    let lease = Lease {
        task: conductor_protocol::TaskId::from_parts(0, [0; 10]),
        attempt: 1,
        assigned: conductor_protocol::ids::Position::new(1, 0),
    };
    let asking = runtime
        .args(&session_id(&lease), false, true, None)
        .join(" ");
    assert!(asking.contains("--permission-prompt-tool stdio --permission-mode default"));
    let alone = runtime
        .args(&session_id(&lease), false, false, None)
        .join(" ");
    assert!(!alone.contains("--permission-prompt-tool"));
    let words = String::from_utf8(control::first_words(true, "go")).unwrap();
    let [first, second] = words.lines().collect::<Vec<_>>()[..] else {
        panic!("{words}")
    };
    assert!(
        first.contains("initialize") && second.contains(r#""text":"go""#),
        "{words}"
    );
}
