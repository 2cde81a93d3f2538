//! People, asked about tools, and what they say to a session.

use super::*;
use crate::people::Reply;
use conductor_protocol::event::Question;
use conductor_protocol::terms::{Answer, ApprovalSpec, Terms};
use std::sync::Arc;

const ALL: [&str; 4] = ["reject_always", "reject_once", "allow_always", "allow_once"];

/// A runtime whose prompt is under way, and whose task has people asked.
fn asking(spec: AcpSpec) -> AcpRuntime {
    let approvals = Some(ApprovalSpec {
        tools: true,
        ..ApprovalSpec::default()
    });
    let mut task = assigned(RunSpec::Acp(Box::new(spec.clone())));
    task.terms = Some(Arc::new(Terms {
        approvals,
        ..Terms::default()
    }));
    let mut runtime = AcpRuntime::new(spec, Duration::from_secs(1));
    prepared(&mut runtime, &task, Asked::default()).unwrap();
    let opened = result(2, &json!({"sessionId": "s-1"}));
    hear(&mut runtime, &[initialized(false), opened]);
    runtime
}

fn reply(answer: Answer, text: Option<&str>) -> Reply {
    Reply {
        answer,
        text: text.map(str::to_owned),
    }
}

/// The name of the question that stands in the signals.
fn question(signals: &[Signal]) -> String {
    let asked = signals.iter().find_map(|s| match s {
        Signal::Ask(name, Question::Tool, summary) => {
            assert_eq!(summary, "Write x");
            Some(name.clone())
        }
        _ => None,
    });
    asked.expect("people are asked")
}

fn said(signals: &[Signal]) -> Vec<Value> {
    let said = signals.iter().filter_map(|s| match s {
        Signal::Say(bytes) => Some(serde_json::from_slice(bytes).unwrap()),
        _ => None,
    });
    said.collect()
}

fn ended(id: u64, stop: &str, tokens: u64) -> Value {
    let usage = json!({"inputTokens": tokens, "outputTokens": 1});
    result(id, &json!({"stopReason": stop, "usage": usage}))
}

#[test]
fn people_decide_where_the_task_has_them_asked() {
    let allowing = AcpSpec {
        allow_tools: true,
        ..spec()
    };
    for (spec, kinds, answer, outcome) in [
        (spec(), &ALL[..], Answer::Allow, "id of allow_once"),
        (spec(), &ALL[..], Answer::Deny, "id of reject_once"),
        (spec(), &ALL[..1], Answer::Deny, "id of reject_always"),
        // A person said yes once, not for good; that is for the task to say.
        (spec(), &ALL[..3], Answer::Allow, "id of reject_once"),
        (allowing, &ALL[..3], Answer::Allow, "id of allow_always"),
    ] {
        let mut runtime = asking(spec);
        let (nothing, signals) = hear(&mut runtime, &[permission(kinds)]);
        assert_eq!(nothing, [] as [Value; 0], "it waits for people");
        let name = question(&signals);
        let answered = said(&runtime.answered(&name, &reply(answer, None)));
        assert_eq!(answered[0]["id"], "a-7");
        assert_eq!(answered[0]["result"]["outcome"]["optionId"], outcome);
        let again = runtime.answered(&name, &reply(answer, None));
        assert_eq!(again, [], "it is answered once");
    }
    let mut runtime = asking(spec());
    let (_, signals) = hear(&mut runtime, &[permission(&[])]);
    let answered = said(&runtime.answered(&question(&signals), &reply(Answer::Allow, None)));
    let cancelled = json!({"outcome": "cancelled"});
    assert_eq!(answered[0]["result"]["outcome"], cancelled);
}

#[test]
fn what_people_deny_makes_the_run_denied_and_what_they_allow_does_not() {
    for (answer, class) in [
        (Answer::Deny, Some(OutcomeClass::Denied)),
        (Answer::Allow, None),
    ] {
        let mut runtime = asking(spec());
        let (_, signals) = hear(&mut runtime, &[permission(&ALL)]);
        runtime.answered(&question(&signals), &reply(answer, None));
        hear(&mut runtime, &[ended(3, "end_turn", 10)]);
        let failure = runtime.judge(&Status::Exited(0)).failure;
        assert_eq!(failure.map(|(class, _)| class), class);
    }
}

#[test]
fn what_is_said_meanwhile_is_the_prompt_of_the_next_turn() {
    let mut runtime = prompting(spec());
    for text in ["mind the tests", "and be quick"] {
        let told = runtime.told(text).expect("it can be told");
        assert_eq!(said(&told), [] as [Value; 0], "not while the turn runs");
    }
    let chunk = |text: &str| {
        let content = json!({"type": "text", "text": text});
        let update = json!({"sessionUpdate": "agent_message_chunk", "content": content});
        json!({"jsonrpc": "2.0", "method": "session/update", "params": {"update": update}})
    };
    let (next, signals) = hear(&mut runtime, &[chunk("one"), ended(3, "end_turn", 10)]);
    assert!(!signals.contains(&Signal::Final), "it goes on");
    assert_eq!(
        (&next[0]["method"], &next[0]["params"]["sessionId"]),
        (&json!("session/prompt"), &json!("s-1"))
    );
    let words = json!([
        {"type": "text", "text": "mind the tests"},
        {"type": "text", "text": "and be quick"},
    ]);
    assert_eq!(next[0]["params"]["prompt"], words);
    // An answer to the turn before says nothing of this one.
    let (_, late) = hear(&mut runtime, &[ended(3, "end_turn", 99)]);
    assert!(!late.contains(&Signal::Final));
    let (_, signals) = hear(&mut runtime, &[chunk("two"), ended(4, "end_turn", 5)]);
    assert!(signals.contains(&Signal::Final));
    let verdict = runtime.judge(&Status::Exited(0));
    assert_eq!(verdict.failure, None);
    assert_eq!(verdict.result.as_deref(), Some("two"));
    let usage = verdict.usage.unwrap();
    assert_eq!(
        (usage.turns, usage.input_tokens, usage.output_tokens),
        (2, 15, 2)
    );
    let late = runtime.told("one more").expect("it says so");
    assert_eq!(output_of(&late), "[told too late: one more]\n");
}

#[test]
fn what_somebody_says_with_an_answer_is_said_after_the_turn() {
    let mut runtime = asking(spec());
    let (_, signals) = hear(&mut runtime, &[permission(&ALL)]);
    let no = reply(Answer::Deny, Some("not there"));
    runtime.answered(&question(&signals), &no);
    let (next, _) = hear(&mut runtime, &[ended(3, "end_turn", 10)]);
    assert_eq!(next[0]["params"]["prompt"][0]["text"], "not there");
}

#[test]
fn an_interrupt_answers_what_is_asked_and_ends_the_talk() {
    let mut runtime = asking(spec());
    hear(&mut runtime, &[permission(&ALL)]);
    runtime.told("and then?");
    let bytes = String::from_utf8(runtime.interrupt().unwrap()).unwrap();
    let lines: Vec<Value> = bytes
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect();
    assert_eq!(lines[0]["id"], "a-7");
    assert_eq!(lines[0]["result"]["outcome"]["outcome"], "cancelled");
    assert_eq!(lines[1]["method"], "session/cancel");
    // Should it end well all the same, nothing more is wanted of it.
    let (next, signals) = hear(&mut runtime, &[ended(3, "end_turn", 10)]);
    assert_eq!(next, [] as [Value; 0]);
    assert!(signals.contains(&Signal::Final));
}

#[test]
fn what_it_asks_no_longer_is_withdrawn() {
    let mut runtime = asking(spec());
    let take_back = |id: &str| {
        let params = json!({"requestId": id});
        json!({"jsonrpc": "2.0", "method": "$/cancel_request", "params": params})
    };
    let (_, signals) = hear(&mut runtime, &[permission(&ALL)]);
    let name = question(&signals);
    let (said, signals) = hear(&mut runtime, &[take_back("other"), take_back("a-7")]);
    assert_eq!(said[0]["result"]["outcome"]["outcome"], "cancelled");
    let withdrawn = |signals: &[Signal]| {
        let withdrawn = signals.iter().filter_map(|s| match s {
            Signal::Withdraw(name) => Some(name.clone()),
            _ => None,
        });
        withdrawn.collect::<Vec<_>>()
    };
    assert_eq!(withdrawn(&signals), std::slice::from_ref(&name));
    let late = runtime.answered(&name, &reply(Answer::Allow, None));
    assert_eq!(late, [], "nobody wants to know");
    // A turn that ends leaves nothing open.
    hear(&mut runtime, &[permission(&ALL)]);
    let (_, signals) = hear(&mut runtime, &[ended(3, "end_turn", 1)]);
    assert_eq!(withdrawn(&signals), [name]);
    assert_eq!(runtime.judge(&Status::Exited(0)).failure, None);
}
