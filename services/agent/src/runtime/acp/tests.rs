mod people;
mod tools;

use super::*;
use crate::runtime::testing::{Asked, assigned, fixture, output_of, prepared, read_all};
use conductor_protocol::terms::Before;
use conductor_protocol::{OutcomeClass, RunSpec};
use expect_test::expect;
use proptest::prelude::*;
use serde_json::{Value, json};

fn spec() -> AcpSpec {
    AcpSpec {
        argv: vec!["agent".into(), "--acp".into()],
        prompt: "do it".into(),
        ..AcpSpec::default()
    }
}

/// A runtime that has been prepared, and what it says first.
fn begun(spec: AcpSpec, session: Option<&str>) -> (AcpRuntime, Value) {
    begun_after(spec, session, None)
}

fn begun_after(
    spec: AcpSpec,
    session: Option<&str>,
    before: Option<Before>,
) -> (AcpRuntime, Value) {
    let mut task = assigned(RunSpec::Acp(Box::new(spec.clone())));
    task.before = before.map(Box::new);
    let mut runtime = AcpRuntime::new(spec, Duration::from_secs(1));
    let asked = Asked {
        session,
        ..Asked::default()
    };
    let launch = prepared(&mut runtime, &task, asked).unwrap();
    let Input::Open(first) = launch.stdin else {
        panic!("its input stays open")
    };
    (runtime, serde_json::from_slice(&first).unwrap())
}

/// What is said in answer to lines of the agent.
fn hear(runtime: &mut AcpRuntime, lines: &[Value]) -> (Vec<Value>, Vec<Signal>) {
    let stream: String = lines.iter().map(|l| format!("{l}\n")).collect();
    let signals = read_all(runtime, stream.as_bytes());
    let said = signals.iter().filter_map(|s| match s {
        Signal::Say(bytes) => Some(serde_json::from_slice(bytes).unwrap()),
        _ => None,
    });
    (said.collect(), signals)
}

fn initialized(loads: bool) -> Value {
    let capabilities = json!({"loadSession": loads});
    json!({"jsonrpc": "2.0", "id": 1, "result": {"protocolVersion": 1, "agentCapabilities": capabilities}})
}

fn result(id: u64, result: &Value) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "result": result})
}

/// A runtime whose prompt is under way.
fn prompting(spec: AcpSpec) -> AcpRuntime {
    let (mut runtime, _) = begun(spec, None);
    hear(
        &mut runtime,
        &[initialized(false), result(2, &json!({"sessionId": "s-1"}))],
    );
    runtime
}

#[test]
fn a_recorded_session_is_driven_to_its_end() {
    let (mut runtime, first) = begun(spec(), None);
    assert_eq!(first["method"], "initialize");
    assert_eq!(first["params"]["protocolVersion"], 1);
    assert_eq!(first["params"]["clientCapabilities"]["terminal"], false);
    let signals = read_all(&mut runtime, &fixture("acp-claude-sample.jsonl"));
    let said: Vec<Value> = signals
        .iter()
        .filter_map(|s| match s {
            Signal::Say(bytes) => Some(serde_json::from_slice(bytes).unwrap()),
            _ => None,
        })
        .collect();
    assert_eq!(said.len(), 2);
    assert_eq!(
        (&said[0]["method"], &said[0]["params"]["cwd"]),
        (&json!("session/new"), &json!("/data/t/workspace"))
    );
    assert_eq!(
        said[1]["params"]["prompt"],
        json!([{"type": "text", "text": "do it"}])
    );
    let moments = signals
        .iter()
        .filter(|s| matches!(s, Signal::Moment(_)))
        .count();
    assert_eq!(moments, 4, "two tools began and ended");
    assert_eq!(signals.iter().filter(|s| **s == Signal::Final).count(), 1);
    let output = output_of(&signals);
    assert!(
        output.contains("[Bash {}]") && !output.contains("deep-research"),
        "{output}"
    );
    let verdict = runtime.judge(&Status::Exited(0));
    let usage = verdict.usage.unwrap();
    expect![[r#"
        failure None
        result Some("All done: file written and shown.")
        turns 1 in 4500 cached 24000 write 600 out 126 usd 0.03776, Some("claude-opus-5-5") 4f36a483-64de-4e93-b9b9-46f4fd09d094
    "#]]
    .assert_eq(&format!(
        "failure {:?}\nresult {:?}\nturns {} in {} cached {} write {} out {} usd {}, {:?} {}\n",
        verdict.failure,
        verdict.result,
        usage.turns,
        usage.input_tokens,
        usage.cached_tokens,
        usage.cache_write_tokens,
        usage.output_tokens,
        usage.cost_usd,
        usage.model,
        usage.session.unwrap(),
    ));
}

fn permission(kinds: &[&str]) -> Value {
    let options: Vec<Value> = kinds
        .iter()
        .map(|k| json!({"kind": k, "optionId": format!("id of {k}"), "name": "?"}))
        .collect();
    json!({"jsonrpc": "2.0", "id": "a-7", "method": "session/request_permission",
        "params": {"sessionId": "s-1", "toolCall": {"title": "Write x"}, "options": options}})
}

#[test]
fn permission_is_answered_by_the_kind_of_an_option() {
    let all = ["reject_always", "reject_once", "allow_always", "allow_once"];
    let allowing = AcpSpec {
        allow_tools: true,
        ..spec()
    };
    for (spec, kinds, chosen) in [
        (allowing.clone(), &all[..], "id of allow_once"),
        (allowing.clone(), &all[..3], "id of allow_always"),
        (spec(), &all[..], "id of reject_once"),
        (spec(), &all[..1], "id of reject_always"),
    ] {
        let (said, _) = hear(&mut prompting(spec), &[permission(kinds)]);
        assert_eq!(said[0]["id"], "a-7");
        assert_eq!(said[0]["result"]["outcome"]["optionId"], chosen);
    }
    let (said, _) = hear(&mut prompting(allowing), &[permission(&[])]);
    assert_eq!(
        said[0]["result"]["outcome"],
        json!({"outcome": "cancelled"})
    );
}

#[test]
fn test_6_a_run_of_denials_alone_is_no_success() {
    let end = result(3, &json!({"stopReason": "end_turn"}));
    let mut denying = prompting(spec());
    hear(
        &mut denying,
        &[permission(&["allow_once", "reject_once"]), end.clone()],
    );
    let (class, message) = denying.judge(&Status::Exited(0)).failure.unwrap();
    assert_eq!(class, OutcomeClass::Denied);
    assert!(message.contains("Write x"), "{message}");
    let mut allowing = prompting(AcpSpec {
        allow_tools: true,
        ..spec()
    });
    hear(
        &mut allowing,
        &[permission(&["allow_once", "reject_once"]), end],
    );
    assert_eq!(allowing.judge(&Status::Exited(0)).failure, None);
}

#[test]
fn files_and_terminals_are_not_offered() {
    for method in [
        "fs/read_text_file",
        "fs/write_text_file",
        "terminal/create",
        "_x/y",
    ] {
        let ask = json!({"jsonrpc": "2.0", "id": 9, "method": method, "params": {}});
        let (said, _) = hear(&mut prompting(spec()), &[ask]);
        assert_eq!(said[0]["id"], 9);
        assert_eq!(said[0]["error"]["code"], -32601, "{method}");
    }
}

#[test]
fn a_session_goes_on_where_the_agent_can_load_it() {
    let (mut loading, _) = begun(spec(), Some("s-0"));
    let (said, _) = hear(&mut loading, &[initialized(true)]);
    assert_eq!(
        (&said[0]["method"], &said[0]["params"]["sessionId"]),
        (&json!("session/load"), &json!("s-0"))
    );
    let old =
        json!({"sessionUpdate": "agent_message_chunk", "content": {"type": "text", "text": "old"}});
    let told = json!({"jsonrpc": "2.0", "method": "session/update", "params": {"sessionId": "s-0", "update": old}});
    let (said, signals) = hear(&mut loading, &[told, result(2, &Value::Null)]);
    assert_eq!(
        (&said[0]["method"], &said[0]["params"]["sessionId"]),
        (&json!("session/prompt"), &json!("s-0"))
    );
    assert_eq!(
        output_of(&signals),
        "",
        "what was said before is not said again"
    );
    // One that cannot begins anew, unless the task named the session.
    let (mut begins, _) = begun(spec(), Some("s-0"));
    let (said, _) = hear(&mut begins, &[initialized(false)]);
    assert_eq!(said[0]["method"], "session/new");
    let (mut forgets, _) = begun(spec(), Some("s-0"));
    let unknown =
        json!({"jsonrpc": "2.0", "id": 2, "error": {"code": -32002, "message": "no such session"}});
    let (said, _) = hear(&mut forgets, &[initialized(true), unknown.clone()]);
    assert_eq!(said[1]["method"], "session/new");
    let named = AcpSpec {
        resume: Some("s-0".into()),
        ..spec()
    };
    let (mut fails, _) = begun(named, None);
    let (_, signals) = hear(&mut fails, &[initialized(true), unknown]);
    assert!(signals.contains(&Signal::Final));
    assert!(
        fails
            .judge(&Status::Exited(0))
            .failure
            .unwrap()
            .1
            .contains("no such session")
    );
}

#[test]
fn what_a_prompt_used_is_added_and_what_a_session_cost_is_not() {
    let update = |amount: f64| {
        let update =
            json!({"sessionUpdate": "usage_update", "cost": {"amount": amount, "currency": "USD"}});
        json!({"jsonrpc": "2.0", "method": "session/update", "params": {"update": update}})
    };
    let end = result(
        3,
        &json!({"stopReason": "end_turn", "usage": {"inputTokens": 10, "outputTokens": 2}}),
    );
    let mut first = prompting(spec());
    hear(&mut first, &[update(0.25), end.clone()]);
    let usage = first.judge(&Status::Exited(0)).usage.unwrap();
    let before = Before {
        session: Some("s-1".into()),
        usage: Some(usage),
        ran: None,
    };
    let (mut second, _) = begun_after(spec(), Some("s-1"), Some(before));
    hear(
        &mut second,
        &[initialized(true), result(2, &json!({})), update(0.75), end],
    );
    let usage = second.judge(&Status::Exited(0)).usage.unwrap();
    assert_eq!(
        (
            usage.turns,
            usage.input_tokens,
            usage.output_tokens,
            usage.cost_usd
        ),
        (2, 20, 4, 0.75)
    );
}

#[test]
fn ends_have_their_classes() {
    for (answer, class) in [
        (
            json!({"result": {"stopReason": "max_turn_requests"}}),
            OutcomeClass::MaxTurns,
        ),
        (
            json!({"result": {"stopReason": "refusal"}}),
            OutcomeClass::Refused,
        ),
        (
            json!({"result": {"stopReason": "cancelled"}}),
            OutcomeClass::Cancelled,
        ),
        (
            json!({"result": {"stopReason": "max_tokens"}}),
            OutcomeClass::ModelError,
        ),
        (
            json!({"result": {"stopReason": "new"}}),
            OutcomeClass::BadOutput,
        ),
        (
            json!({"error": {"code": -32000, "message": "Authentication required"}}),
            OutcomeClass::Auth,
        ),
        (
            json!({"error": {"code": -32603, "message": "Internal error", "data": {"details": "API Error: 429"}}}),
            OutcomeClass::RateLimited,
        ),
        (
            json!({"error": {"code": -32603, "message": "Internal error"}}),
            OutcomeClass::ModelError,
        ),
    ] {
        let mut runtime = prompting(spec());
        let mut line = json!({"jsonrpc": "2.0", "id": 3});
        line.as_object_mut()
            .unwrap()
            .extend(answer.as_object().unwrap().clone());
        let (_, signals) = hear(&mut runtime, &[line]);
        assert!(signals.contains(&Signal::Final));
        assert_eq!(
            runtime.judge(&Status::Exited(0)).failure.unwrap().0,
            class,
            "{answer}"
        );
    }
    let (mut other, _) = begun(spec(), None);
    hear(&mut other, &[result(1, &json!({"protocolVersion": 2}))]);
    assert_eq!(
        other.judge(&Status::Exited(0)).failure.unwrap().0,
        OutcomeClass::BadOutput
    );
    let mut silent = prompting(spec());
    assert_eq!(
        silent.judge(&Status::Exited(0)).failure.unwrap().0,
        OutcomeClass::BadOutput
    );
    assert_eq!(
        silent.judge(&Status::Signalled(9)).failure.unwrap().0,
        OutcomeClass::Crashed
    );
}

#[test]
fn an_interrupt_is_the_protocols_own_while_it_works() {
    let (mut early, _) = begun(spec(), None);
    assert_eq!(early.interrupt(), None);
    let mut working = prompting(spec());
    let said: Value = serde_json::from_slice(&working.interrupt().unwrap()).unwrap();
    assert_eq!(
        (&said["method"], &said["params"]["sessionId"]),
        (&json!("session/cancel"), &json!("s-1"))
    );
    assert!(said.get("id").is_none(), "a notification is not answered");
    hear(
        &mut working,
        &[result(3, &json!({"stopReason": "cancelled"}))],
    );
    assert_eq!(working.interrupt(), None, "it is over");
}

proptest! {
    #[test]
    fn no_line_breaks_the_client(bytes in proptest::collection::vec(any::<u8>(), 0..300), cut in 0_usize..40_000) {
        let (mut runtime, _) = begun(spec(), None);
        let mut sample = fixture("acp-claude-sample.jsonl");
        sample.truncate(cut);
        runtime.read(Channel::Stdout, &sample);
        runtime.read(Channel::Stdout, &bytes);
        runtime.end(Channel::Stdout);
        let _ = runtime.judge(&Status::Exited(0));
    }

    #[test]
    fn no_json_breaks_the_client(id in 0_u64..5, method in "session/(update|request_permission)|x", kind in "agent_message_chunk|tool_call(_update)?|usage_update|z", n: i64) {
        let mut runtime = prompting(spec());
        for line in [
            json!({"id": id, "result": n}),
            json!({"id": n, "method": method, "params": n}),
            json!({"method": method, "params": {"update": {"sessionUpdate": kind, "content": n, "cost": n, "toolCallId": n}, "options": n}}),
            json!({"id": id, "error": n}),
        ] {
            runtime.read(Channel::Stdout, format!("{line}\n").as_bytes());
        }
        let _ = runtime.judge(&Status::Exited(0));
    }
}
