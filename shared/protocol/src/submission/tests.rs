use super::*;
use crate::ids::{CellId, Namespace, Position, QueueName};
use expect_test::{Expect, expect};
use proptest::prelude::*;

fn resolve(json: &str) -> Vec<Result<Resolved, Vec<FieldError>>> {
    resolve_as(Encoding::Json, json.as_bytes())
}

fn resolve_as(encoding: Encoding, payload: &[u8]) -> Vec<Result<Resolved, Vec<FieldError>>> {
    resolve_in(None, encoding, payload)
}

/// As on the subject of a namespace.
fn resolve_in(
    namespace: Option<&Namespace>,
    encoding: Encoding,
    payload: &[u8],
) -> Vec<Result<Resolved, Vec<FieldError>>> {
    let (cell, queue) = (CellId::default(), QueueName::from_log("q"));
    let context = Context {
        cell: &cell,
        seq: 7,
        time_ms: 1_700_000_000_000,
        queue: &queue,
        namespace,
        reply: None,
        traceparent: None,
    };
    let elements = crate::frame::split_public(encoding, payload).unwrap();
    resolve_all(&context, encoding, &elements)
}

fn check_errors(json: &str, expected: &Expect) {
    let errors: Vec<String> = resolve(json)
        .into_iter()
        .flat_map(|r| r.err().unwrap_or_default())
        .map(|e| format!("{e}\n"))
        .collect();
    expected.assert_eq(&errors.concat());
}

#[test]
fn the_shortest_submission_is_complete() {
    let all = resolve(r#"{"run":{"command":["sh","-c","echo hi"]}}"#);
    let resolved = all[0].as_ref().unwrap();
    assert_eq!(
        resolved.task,
        TaskId::derived("local", Position::new(7, 0), 1_700_000_000_000)
    );
    assert_eq!(resolved.spec.priority, 5);
    assert_eq!(resolved.spec.queue.as_str(), "q");
}

#[test]
fn a_subject_says_whose_its_submissions_are() {
    let team = Namespace::from_log("team");
    let json = r#"[{"run":{"noop":{}}},{"run":{"noop":{}},"namespace":"team"},
        {"run":{"noop":{}},"namespace":"default"}]"#;
    let all = resolve_in(Some(&team), Encoding::Json, json.as_bytes());
    for resolved in &all[..2] {
        assert_eq!(resolved.as_ref().unwrap().spec.namespace, team);
    }
    let said = all[2].as_ref().unwrap_err()[0].to_string();
    expect![[r#"namespace: is "default" but the subject says "team"; expected "team", or absent; or submit on the subject of "default""#]]
        .assert_eq(&said);
    // A subject that says nothing leaves it to the submission.
    let names = resolve(json).into_iter().map(|r| r.unwrap().spec.namespace);
    let names: Vec<String> = names.map(|n| n.to_string()).collect();
    assert_eq!(names, ["default", "team", "default"]);
}

#[test]
fn every_bad_field_is_named() {
    check_errors(
        r#"{"run":{"command":[]},"priority":12,"slots":0,"retry":{"max_attempts":0,"jitter":2},
            "timeouts":{"run":"soon","queue":0},"labels":{"a":1},"prioritty":3,"namespace":"a b"}"#,
        &expect![[r#"
            labels.a: invalid type: integer `1`, expected a string; expected an object of texts
            timeouts.run: not a duration; expected milliseconds or a text such as "10m"
            prioritty: is not a field of a task; did you mean priority?; expected one of the fields of a task
            namespace: is not a name; expected 1 to 64 characters of A-Z a-z 0-9 _ -
            priority: is 12; expected a whole number from 0 (lowest) to 9
            slots: is 0; expected a whole number from 1 to 65536
            retry.max_attempts: is 0; expected a whole number from 1 to 1000
            retry.jitter: is 2; expected a number from 0 to 1
            timeouts.queue: is 0 ms; 1 ms to 366 days are allowed; expected milliseconds or a text such as "10m"
            run.command.argv: names no program; expected a list of arguments or an object {argv, env, stdin, cwd}
        "#]],
    );
}

#[test]
fn every_bad_field_of_a_run_is_named() {
    check_errors(
        r#"{"run":{"claude":{"prompt":7,"max_turns":"many","model":5,"bogus":1}},"priority":"x"}"#,
        &expect![[r#"
            priority: invalid type: string "x", expected u8; expected a whole number from 0 (lowest) to 9
            run.claude.max_turns: invalid type: string "many", expected u32; expected an object with at least a prompt
            run.claude.model: invalid type: integer `5`, expected a string; expected an object with at least a prompt
            run.claude.prompt: invalid type: integer `7`, expected a string; expected an object with at least a prompt
            run.claude.bogus: is not a field of a task; expected one of the fields of a task
        "#]],
    );
    check_errors(
        r#"{"run":{"command":{"argv":["a",1],"env":{"A":1},"cwd":5,"bogus":1}}}"#,
        &expect![[r#"
            run.command.argv[1]: invalid type: integer `1`, expected a string; expected a list of arguments or an object {argv, env, stdin, cwd}
            run.command.cwd: invalid type: integer `5`, expected a string; expected a list of arguments or an object {argv, env, stdin, cwd}
            run.command.env.A: invalid type: integer `1`, expected a string; expected a list of arguments or an object {argv, env, stdin, cwd}
            run.command.bogus: is not a field of a task; expected one of the fields of a task
        "#]],
    );
}

#[test]
fn a_missing_run_is_named() {
    check_errors(
        "{}",
        &expect![[r#"
            run: is missing; expected one of {"command": …}, {"claude": …}, {"codex": …}, {"acp": …}, {"noop": {}}
        "#]],
    );
    check_errors(
        r#"{"run":{"shell":"x"}}"#,
        &expect![[r#"
            run: unknown variant `shell`, expected one of `command`, `claude`, `codex`, `acp`, `noop`; expected one of {"command": …}, {"claude": …}, {"codex": …}, {"acp": …}, {"noop": {}}
        "#]],
    );
    check_errors(
        r#"{"run":{"command":"echo hi"}}"#,
        &expect![[r#"
        run.command: one text is not an argument list; for a shell line write ["sh","-c","…"]; expected a list of arguments or an object {argv, env, stdin, cwd}
    "#]],
    );
    check_errors(
        r#"{"run":{"claude":{}}}"#,
        &expect![[r#"
        run.claude: missing field `prompt`; expected an object with at least a prompt
    "#]],
    );
}

#[test]
fn names_link_the_tasks_of_one_submission() {
    let all =
        resolve(r#"[{"name":"a","run":{"noop":{}}},{"name":"b","needs":["a"],"run":{"noop":{}}}]"#);
    let (a, b) = (all[0].as_ref().unwrap(), all[1].as_ref().unwrap());
    assert_eq!(b.spec.needs, [a.task]);
}

#[test]
fn circles_and_unknown_names_are_refused() {
    check_errors(
        r#"[{"name":"a","needs":["b"],"run":{"noop":{}}},{"name":"b","needs":["a"],"run":{"noop":{}}},
            {"needs":["zz"],"run":{"noop":{}}}]"#,
        &expect![[r#"
            needs: form a circle; expected a list of task ids or names within this submission
            needs: form a circle; expected a list of task ids or names within this submission
            needs[0]: "zz" is no task id and no name here; expected a list of task ids or names within this submission
        "#]],
    );
}

#[test]
fn a_large_body_stays_in_the_log() {
    let json = format!(
        r#"{{"run":{{"command":["echo","{}"]}}}}"#,
        "x".repeat(2_000)
    );
    assert_eq!(resolve(&json)[0].as_ref().unwrap().spec.run, None);
    let json = format!(
        r#"{{"metadata":{{"note":"{}"}},"run":{{"noop":{{}}}}}}"#,
        "x".repeat(1_000)
    );
    let spec = resolve(&json)[0].as_ref().unwrap().spec.clone();
    assert_eq!((spec.run, spec.metadata.is_empty()), (None, true));
}

#[test]
fn our_own_client_takes_the_fast_path_to_the_same_task() {
    let json =
        r#"{"id":"018bcfe5-6800-7000-8000-000000000000","run":{"command":["true"]},"delay":"5s"}"#;
    let submission: Submission = serde_json::from_str(json).unwrap();
    let packed = submission.encode().unwrap();
    assert_eq!(resolve_as(Encoding::Msgpack, &packed), resolve(json));
    let value: serde_json::Value = serde_json::from_str(json).unwrap();
    assert_eq!(from_json_value(value), Ok(submission));
}

proptest! {
    #[test]
    fn no_bytes_break_decoding(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        for encoding in [Encoding::Json, Encoding::Msgpack] {
            let _ = Submission::read(encoding, &bytes);
        }
    }

    #[test]
    fn no_json_breaks_diagnosis(field in "[a-z_]{1,12}", text in ".{0,40}", n: i64) {
        for value in [serde_json::json!(text), serde_json::json!(n), serde_json::json!([n]), serde_json::json!({&text: n})] {
            for f in [field.as_str(), "run", "retry", "needs", "timeouts", "id"] {
                let _ = from_json_value(serde_json::json!({f: value.clone()}));
            }
        }
    }
}

#[test]
fn terms_that_cannot_be_kept_are_named() {
    check_errors(
        r##"{"run":{"command":["x"]},"sandbox":{"level":"strict","memory":1,"network":{"hosts":["a b"]}},
            "workspace":{"name":"a/b","git":{"url":"--upload-pack=x","push":"a b"}},
            "setup":[{"argv":[]}],"artifacts":["../x"],"budget":{"usd":0},"secrets":["a/b"],
            "approvals":{"expires":1},"result_schema":"{"}"##,
        &expect![[r#"
            sandbox.memory: is 1 B, at least 4 MiB are needed; expected bytes or a text such as "2g"
            sandbox.network: "a b" is no host; expected one of "none", "full", {"hosts": ["name", "name:port"]}
            workspace.name: is not a name; expected 1 to 64 characters of A-Z a-z 0-9 _ -
            workspace.git.url: is "--upload-pack=x"; expected an absolute path, or a URL by https, ssh, git@ or file
            workspace.git.push: is "a b"; expected a branch
            setup[0].argv: names no program; expected a list of commands, each like run.command
            secrets[0]: is "a/b"; expected a list of names of the agent's secrets
            artifacts[0]: is "../x"; expected a list of paths inside the workspace
            budget.usd: is not above 0; expected US dollars above 0
            approvals.expires: is 1 ms; 1000 ms to 366 days are allowed; expected milliseconds or a text such as "1h", a second or more
            result_schema: is not JSON; expected a text that is a JSON schema
        "#]],
    );
}
