//! What no stream may do to any runtime that reads one (agent-facts 5.7).

use std::time::Duration;

use conductor_protocol::spec::{AcpSpec, ClaudeSpec, CodexSpec};
use conductor_protocol::{OutcomeClass, RunSpec};
use serde_json::{Value, json};

use super::acp::AcpRuntime;
use super::claude::ClaudeRuntime;
use super::codex::CodexRuntime;
use super::testing::{Asked, assigned, output_of, prepared, read_all};
use super::{Runtime, Signal, Verdict};
use crate::lines::LINE_BYTES_MAX;
use crate::output::Channel;
use crate::reaper::Status;

/// A runtime whose program has just begun its work, and how its stream says things.
struct Case {
    name: &'static str,
    runtime: Box<dyn Runtime>,
    /// What the program says before it works.
    begin: Vec<Value>,
    /// Says this text.
    say: fn(&str) -> Value,
    /// Its last word: success, with what it said as its result.
    end: fn(&str) -> Value,
}

const SECOND: Duration = Duration::from_secs(1);

fn claude() -> Case {
    Case {
        name: "claude",
        runtime: Box::new(ClaudeRuntime::new(ClaudeSpec::default(), SECOND)),
        begin: vec![json!({"type": "system", "subtype": "init", "session_id": "s", "model": "m"})],
        say: |text| {
            let content = json!([{"type": "text", "text": text}]);
            json!({"type": "assistant", "message": {"content": content}})
        },
        end: |text| json!({"type": "result", "subtype": "success", "is_error": false, "result": text, "session_id": "s"}),
    }
}

fn codex() -> Case {
    Case {
        name: "codex",
        runtime: Box::new(CodexRuntime::new(CodexSpec::default(), SECOND)),
        begin: vec![json!({"type": "thread.started", "thread_id": "s"})],
        say: |text| json!({"type": "item.completed", "item": {"type": "agent_message", "text": text}}),
        end: |_| json!({"type": "turn.completed", "usage": {}}),
    }
}

fn acp() -> Case {
    let spec = AcpSpec {
        argv: vec!["agent".into()],
        prompt: "p".into(),
        ..AcpSpec::default()
    };
    let mut runtime = AcpRuntime::new(spec.clone(), SECOND);
    let task = assigned(RunSpec::Acp(Box::new(spec)));
    prepared(&mut runtime, &task, Asked::default()).unwrap();
    Case {
        name: "acp",
        runtime: Box::new(runtime),
        begin: vec![
            json!({"jsonrpc": "2.0", "id": 1, "result": {"protocolVersion": 1}}),
            json!({"jsonrpc": "2.0", "id": 2, "result": {"sessionId": "s"}}),
        ],
        say: |text| {
            let content = json!({"type": "text", "text": text});
            let update = json!({"sessionUpdate": "agent_message_chunk", "content": content});
            json!({"jsonrpc": "2.0", "method": "session/update", "params": {"update": update}})
        },
        end: |_| json!({"jsonrpc": "2.0", "id": 3, "result": {"stopReason": "end_turn"}}),
    }
}

impl Case {
    fn all() -> [Self; 3] {
        let mut all = [claude(), codex(), acp()];
        for case in &mut all {
            for line in case.begin.clone() {
                case.hear(format!("{line}\n").as_bytes());
            }
        }
        all
    }

    fn hear(&mut self, bytes: &[u8]) -> Vec<Signal> {
        self.runtime.read(Channel::Stdout, bytes)
    }

    fn succeed(&mut self, result: &str) -> Verdict {
        let (say, end) = ((self.say)(result), (self.end)(result));
        let signals = read_all(self.runtime.as_mut(), format!("{say}\n{end}\n").as_bytes());
        assert!(
            signals.contains(&Signal::Final),
            "{}: {signals:?}",
            self.name
        );
        let verdict = self.runtime.judge(&Status::Exited(0));
        assert_eq!(verdict.failure, None, "{}", self.name);
        verdict
    }
}

#[test]
fn test_5_an_exit_code_of_0_does_not_make_a_success_of_an_error() {
    let ends = [
        json!({"type": "result", "subtype": "success", "is_error": true, "result": "no"}),
        json!({"type": "turn.failed", "error": {"message": "no"}}),
        json!({"jsonrpc": "2.0", "id": 3, "error": {"code": 1, "message": "no"}}),
    ];
    for (mut case, end) in Case::all().into_iter().zip(ends) {
        case.hear(format!("{end}\n").as_bytes());
        let failure = case.runtime.judge(&Status::Exited(0)).failure;
        let expected = Some((OutcomeClass::ModelError, "no".to_owned()));
        assert_eq!(failure, expected, "{}", case.name);
    }
}

#[test]
fn test_9_after_a_line_of_16_mib_a_later_result_is_still_seen() {
    for mut case in Case::all() {
        let mut long = (case.say)("x").to_string().into_bytes();
        long.resize(LINE_BYTES_MAX + 1, b' ');
        long.push(b'\n');
        let signals = case.hear(&long);
        let output = output_of(&signals);
        assert!(
            output.contains("a line of 16777217 bytes was left out"),
            "{}: {output}",
            case.name
        );
        assert_eq!(
            case.succeed("later").result.as_deref(),
            Some("later"),
            "{}",
            case.name
        );
        // One that is just not too long is read.
        let mut fits = Case::all()
            .into_iter()
            .find(|c| c.name == case.name)
            .unwrap();
        let mut line = (fits.say)("fits").to_string().into_bytes();
        line.resize(LINE_BYTES_MAX, b' ');
        line.push(b'\n');
        assert_eq!(output_of(&fits.hear(&line)).trim(), "fits", "{}", case.name);
    }
}

#[test]
fn test_15_unknown_event_types_and_reordered_keys_are_accepted() {
    for mut case in Case::all() {
        let unknown: &[u8] = b"{\"type\":\"of tomorrow\",\"n\":1}\n{\"subtype\":\"new\",\"type\":\"system\"}\n[1]\n7\n\"x\"\nnull\nno json\n{}\n\n";
        let output = output_of(&case.hear(unknown));
        assert!(
            output.contains("of tomorrow") && output.contains("no json"),
            "kept: {output}"
        );
        // Keys backwards, and blanks between them.
        let (say, end) = ((case.say)("said"), (case.end)("said"));
        for value in [say, end] {
            let fields = value.as_object().unwrap().iter().rev();
            let fields: Vec<String> = fields.map(|(k, v)| format!(" {k:?} : {v} ")).collect();
            case.hear(format!("{{{}}}\r\n", fields.join(",")).as_bytes());
        }
        let verdict = case.runtime.judge(&Status::Exited(0));
        assert_eq!(verdict.failure, None, "{}", case.name);
        assert_eq!(verdict.result.as_deref(), Some("said"), "{}", case.name);
    }
}

#[test]
fn texts_that_are_no_utf8_are_read_all_the_same() {
    for mut case in Case::all() {
        case.hear(b"\xff\xfe\x80\n");
        let line = (case.say)("a?b").to_string().into_bytes();
        let broken: Vec<u8> = line
            .iter()
            .map(|b| if *b == b'?' { 0xff } else { *b })
            .collect();
        let output = output_of(&case.hear(&[&broken[..], b"\n"].concat()));
        assert!(output.contains("a\u{fffd}b"), "{}: {output}", case.name);
        case.succeed("fine");
    }
}

#[test]
fn of_two_results_one_counts_and_output_after_it_changes_nothing() {
    for mut case in Case::all() {
        let end = (case.end)("first");
        case.hear(format!("{end}\n").as_bytes());
        let say = (case.say)("second");
        let end = (case.end)("second");
        let late = (case.say)("too late");
        let stream = format!("{say}\n{end}\n{late}\nafterwards\n");
        let output = output_of(&case.hear(stream.as_bytes()));
        assert!(
            output.contains("too late") && output.contains("afterwards"),
            "{output}"
        );
        let verdict = case.runtime.judge(&Status::Exited(0));
        assert_eq!(verdict.failure, None, "{}", case.name);
        assert_eq!(verdict.result.as_deref(), Some("second"), "{}", case.name);
    }
}
