use super::*;
use crate::runtime::testing::{Asked, assigned, fixture, host, output_of, prepared, read_all};
use conductor_protocol::event::AttemptAssigned;
use conductor_protocol::terms::Before;
use conductor_protocol::{OutcomeClass, RunSpec};
use expect_test::expect;
use proptest::prelude::*;
use serde_json::json;

fn runtime() -> CodexRuntime {
    CodexRuntime::new(CodexSpec::default(), Duration::from_secs(1))
}

fn task(spec: &CodexSpec) -> AttemptAssigned {
    assigned(RunSpec::Codex(Box::new(spec.clone())))
}

fn launch(spec: CodexSpec, asked: Asked<'_>) -> Result<Launch, String> {
    let task = task(&spec);
    prepared(
        &mut CodexRuntime::new(spec, Duration::from_secs(1)),
        &task,
        asked,
    )
}

fn judged(runtime: &mut CodexRuntime, stream: &[u8], status: &Status) -> String {
    let signals = read_all(runtime, stream);
    let finals = signals.iter().filter(|s| **s == Signal::Final).count();
    let verdict = runtime.judge(status);
    let usage = verdict.usage.unwrap();
    format!(
        "finals {finals}, failure {:?}\nresult {:?}\nturns {} in {} cached {} out {}, {}\n",
        verdict.failure,
        verdict.result,
        usage.turns,
        usage.input_tokens,
        usage.cached_tokens,
        usage.output_tokens,
        usage.session.unwrap(),
    )
}

#[test]
fn a_recorded_turn_succeeds_though_it_speaks_of_errors() {
    let stream = fixture("codex-exec-sample.jsonl");
    expect![[r#"
        finals 1, failure None
        result Some("All done.")
        turns 1 in 1500 cached 3000 out 126, 01a1f875-2bdf-7912-b66c-0279e507ad14
    "#]]
    .assert_eq(&judged(&mut runtime(), &stream, &Status::Exited(0)));
    let signals = read_all(&mut runtime(), &stream);
    let output = output_of(&signals);
    assert!(
        output.contains("[command_execution /bin/bash -lc"),
        "{output}"
    );
    let thoughts = |s: &Signal| matches!(s, Signal::Text(Channel::Thinking, _));
    assert_eq!(signals.iter().filter(|s| thoughts(s)).count(), 1);
    let tools = signals
        .iter()
        .filter(|s| matches!(s, Signal::Moment(_)))
        .count();
    assert_eq!(tools, 2 + 4, "a turn and two tools began and ended");
}

#[test]
fn a_turn_fails_by_what_it_says_of_itself() {
    expect![[r#"
        finals 1, failure Some((ModelError, "We’re currently experiencing high demand, which may cause temporary errors."))
        result None
        turns 0 in 0 cached 0 out 0, 01a1f875-2db2-7461-9384-095c0ec331aa
    "#]]
    .assert_eq(&judged(
        &mut runtime(),
        &fixture("codex-exec-sample-error.jsonl"),
        &Status::Exited(1),
    ));
    for (said, class) in [
        (
            "unexpected status 401 Unauthorized: fake 401",
            OutcomeClass::Auth,
        ),
        (
            "unexpected status 403 Forbidden: fake 403",
            OutcomeClass::Auth,
        ),
        (
            "exceeded retry limit, last status: 429 Too Many Requests",
            OutcomeClass::RateLimited,
        ),
        (
            "You've hit your usage limit. Try again later.",
            OutcomeClass::RateLimited,
        ),
        (
            r#"{"error": {"message": "fake 400"}}"#,
            OutcomeClass::ModelError,
        ),
    ] {
        let mut runtime = runtime();
        let line = json!({"type": "turn.failed", "error": {"message": said}});
        read_all(&mut runtime, line.to_string().as_bytes());
        assert_eq!(
            runtime.judge(&Status::Exited(1)).failure.unwrap().0,
            class,
            "{said}"
        );
    }
}

#[test]
fn an_end_without_a_result_is_never_success() {
    let missing = "Error: thread/resume failed: no rollout found for thread id 1";
    let key = "Missing environment variable: `OPENAI_API_KEY`.";
    for (status, stderr, class) in [
        (Status::Exited(0), "", OutcomeClass::BadOutput),
        (Status::Exited(1), missing, OutcomeClass::Crashed),
        (Status::Exited(1), key, OutcomeClass::Auth),
        (Status::Signalled(9), "", OutcomeClass::Crashed),
        (
            Status::NotStarted("no".into()),
            "",
            OutcomeClass::NotStarted,
        ),
    ] {
        let mut runtime = runtime();
        runtime.read(Channel::Stderr, stderr.as_bytes());
        let (found, message) = runtime.judge(&status).failure.unwrap();
        assert_eq!(found, class, "{message}");
        assert!(message.contains(stderr), "{message}");
    }
    let mut runtime = runtime();
    read_all(
        &mut runtime,
        b"{\"type\":\"turn.completed\",\"usage\":{}}\n",
    );
    let failure = runtime.judge(&Status::Exited(1)).failure.unwrap();
    assert_eq!(
        failure.0,
        OutcomeClass::Crashed,
        "the exit code counts, too"
    );
}

#[test]
fn what_it_may_not_do_is_a_denial() {
    let mut runtime = runtime();
    let item =
        json!({"id": "i", "type": "command_execution", "command": "rm", "status": "declined"});
    let stream = format!(
        "{}\n{}\n",
        json!({"type": "item.completed", "item": item}),
        json!({"type": "turn.completed", "usage": {}})
    );
    read_all(&mut runtime, stream.as_bytes());
    assert_eq!(
        runtime.judge(&Status::Exited(0)).failure.unwrap().0,
        OutcomeClass::Denied
    );
}

#[test]
fn waiting_for_the_network_is_no_progress() {
    let line =
        br#"{"type":"error","message":"Reconnecting... waiting for network (Connection failed)"}"#;
    let signals = read_all(&mut runtime(), line);
    assert!(signals.contains(&Signal::Waiting), "{signals:?}");
    let limit =
        br#"{"type":"error","message":"exceeded retry limit, last status: 429 Too Many Requests"}"#;
    let signals = read_all(&mut runtime(), limit);
    assert!(signals.contains(&Signal::Throttled(None)), "{signals:?}");
}

#[test]
fn usage_of_a_thread_that_goes_on_is_counted_once() {
    let first = usage_after(None, None, (1_500, 1_000, 42));
    assert_eq!(
        (first.turns, first.input_tokens, first.output_tokens),
        (1, 500, 42)
    );
    let before = Before {
        session: Some("t-1".into()),
        usage: Some(first),
        ran: None,
    };
    // Cumulative over the thread, as measured: twice as much after the second turn.
    let second = usage_after(Some(before), Some("t-1"), (3_000, 2_000, 84));
    assert_eq!(
        (second.turns, second.input_tokens, second.output_tokens),
        (2, 1_000, 84)
    );
}

fn usage_after(
    before: Option<Before>,
    session: Option<&str>,
    (input, cached, output): (u64, u64, u64),
) -> conductor_protocol::event::Usage {
    let mut task = task(&CodexSpec::default());
    task.before = before.map(Box::new);
    let mut runtime = runtime();
    let asked = Asked {
        session,
        ..Asked::default()
    };
    prepared(&mut runtime, &task, asked).unwrap();
    let usage =
        json!({"input_tokens": input, "cached_input_tokens": cached, "output_tokens": output});
    let stream = format!(
        "{}\n{}\n",
        json!({"type": "thread.started", "thread_id": "t-1"}),
        json!({"type": "turn.completed", "usage": usage})
    );
    let signals = read_all(&mut runtime, stream.as_bytes());
    assert!(
        matches!(&signals[0], Signal::Usage(u) if u.session.as_deref() == Some("t-1")),
        "its thread is known at once: {signals:?}"
    );
    runtime.judge(&Status::Exited(0)).usage.unwrap()
}

#[test]
fn its_arguments_are_safe_and_hold_neither_prompt_nor_key() {
    let spec = CodexSpec {
        prompt: "--do this".into(),
        model: Some("m".into()),
        json_schema: Some("{}".into()),
        ..CodexSpec::default()
    };
    let launch = launch(spec, Asked::default()).unwrap();
    expect![[r#"
        exec --json --skip-git-repo-check -c shell_environment_policy.inherit="core" -c model_provider="conductor" -c model_providers.conductor={name="conductor",base_url="http://127.0.0.1:9",env_key="OPENAI_API_KEY",wire_api="responses",request_max_retries=4,stream_max_retries=4,supports_websockets=false} -c sandbox_mode="workspace-write" -m m --output-schema /data/t/run/answer.schema.json -- -"#]]
    .assert_eq(&launch.args.join(" "));
    assert_eq!(launch.stdin, Input::Closed(b"--do this".to_vec()));
    assert_eq!(
        launch.files[&PathBuf::from("run/answer.schema.json")],
        b"{}"
    );
    assert_eq!(
        launch.env["OPENAI_API_KEY"],
        host().codex_env["OPENAI_API_KEY"]
    );
    assert!(!launch.env.contains_key("ANTHROPIC_API_KEY"));
}

#[test]
fn it_finds_its_tools_by_a_token_that_stands_in_no_argument() {
    let asked = Asked {
        has_tools: true,
        ..Asked::default()
    };
    let args = launch(CodexSpec::default(), asked).unwrap().args.join(" ");
    for set in [
        r#"-c mcp_servers.conductor.url="http://127.0.0.1:8190/mcp""#,
        r#"-c mcp_servers.conductor.bearer_token_env_var="CONDUCTOR_MCP_TOKEN""#,
        "-c mcp_servers.conductor.tool_timeout_sec=1209600",
    ] {
        assert!(args.contains(set), "{args}");
    }
    assert!(!args.contains("the-token"), "{args}");
    let without = launch(CodexSpec::default(), Asked::default()).unwrap().args;
    assert!(!without.join(" ").contains("mcp"), "{without:?}");
}

#[test]
fn its_own_sandbox_is_left_out_only_within_another() {
    let bypass = "--dangerously-bypass-approvals-and-sandbox".to_owned();
    for is_boxed in [false, true] {
        let asked = Asked {
            is_boxed,
            session: Some("t-1"),
            ..Asked::default()
        };
        let args = launch(CodexSpec::default(), asked).unwrap().args;
        assert_eq!(args.contains(&bypass), is_boxed, "{args:?}");
        assert_eq!(args[..2], ["exec", "resume"]);
        assert_eq!(args[args.len() - 3..], ["--", "t-1", "-"]);
    }
}

#[test]
fn test_14_codex_home_is_not_below_the_directory_of_temporary_files() {
    let own = launch(CodexSpec::default(), Asked::default()).unwrap();
    assert_eq!(own.env["CODEX_HOME"], "/data/t/home/.codex");
    assert!(
        own.files
            .contains_key(&PathBuf::from("home/.codex/config.toml")),
        "it is made"
    );
    assert_eq!(own.env["TMPDIR"], "/data/t/tmp");
    let with = |name: &str, value: &str| CodexSpec {
        env: [(name.to_owned(), value.to_owned())].into(),
        ..CodexSpec::default()
    };
    let problem = launch(with("TMPDIR", "/data"), Asked::default()).unwrap_err();
    assert!(problem.contains("below TMPDIR /data"), "{problem}");
    let elsewhere = launch(with("CODEX_HOME", "/tmp/x"), Asked::default()).unwrap();
    assert_eq!(elsewhere.env["CODEX_HOME"], "/data/t/home/.codex");
}

proptest! {
    #[test]
    fn no_line_breaks_the_decoder(bytes in proptest::collection::vec(any::<u8>(), 0..300), cut in 0_usize..3_000) {
        let mut runtime = runtime();
        let mut sample = fixture("codex-exec-sample.jsonl");
        sample.truncate(cut);
        runtime.read(Channel::Stdout, &sample);
        runtime.read(Channel::Stdout, &bytes);
        runtime.end(Channel::Stdout);
        let _ = runtime.judge(&Status::Exited(0));
    }

    #[test]
    fn no_json_breaks_the_decoder(kind in "thread.started|turn.(completed|failed)|item.(started|updated|completed)|error|x", item in "agent_message|command_execution|file_change|mcp_tool_call|error|y", n: i64) {
        let mut runtime = runtime();
        let line = json!({"type": kind, "item": {"type": item, "text": n, "changes": n, "id": n}, "usage": n, "error": n, "message": [n], "thread_id": n});
        runtime.read(Channel::Stdout, format!("{line}\n").as_bytes());
        let _ = runtime.judge(&Status::Exited(0));
    }
}
