//! The tools of an attempt, from inside: by a program of any kind, and by the real Claude Code CLI.

use conductor_domain::state::Outcome;
use conductor_harness::{Story, System, binary};
use conductor_protocol::TaskId;
use conductor_protocol::event::Event;
use serde_json::{Value, json};

use crate::models::{Models, sandboxes};
use crate::people::asks;

const CLIENT: &str = include_str!("tools/client.py");
const EVERYTHING: &str = include_str!("tools/everything.py");

/// A program that speaks to its tools.
pub(crate) fn program(script: &str) -> Value {
    json!({"command": ["/usr/bin/env", "python3", "-c", format!("{CLIENT}\n\n{script}")]})
}

/// A system whose agents offer every sandbox that works here.
pub(crate) async fn up() -> (System, Story) {
    let mut system = System::bare().await;
    system.start_up(&["--sandbox", "none"]).await;
    let story = system.story().await;
    (system, story)
}

async fn logs(system: &System, id: TaskId) -> String {
    system.cli(&["task", "logs", &id.to_string()]).await.ok()
}

/// The result of a task that succeeded.
pub(crate) async fn result(story: &mut Story, id: TaskId) -> String {
    let outcome = story.outcome(id).await;
    let failed = story.find(id, "attempt.failed").map(|t| t.event);
    assert_eq!(outcome, Outcome::Succeeded, "{failed:?}");
    match story.find(id, "attempt.succeeded").unwrap().event {
        Some(Event::AttemptSucceeded(e)) => e.result.unwrap_or_default(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_program_uses_its_tools_from_every_sandbox() {
    let (system, mut story) = up().await;
    let schema =
        json!({"type": "object", "required": ["n"], "properties": {"n": {"type": "integer"}}});
    for kind in sandboxes(&system).await {
        let task = json!({
            "run": program(EVERYTHING), "sandbox": {"kind": kind, "network": "none"},
            "result_schema": schema.to_string(), "timeouts": {"run": "5m"},
        });
        let id = system.submit(task).await;
        // The last that was taken counts, before its file and what it printed.
        assert_eq!(result(&mut story, id).await, r#"{"n":7}"#, "{kind}");
        assert!(logs(&system, id).await.contains("[result: all done]"));
        let Some(Event::AttemptProgress(e)) = story.find(id, "attempt.progress").unwrap().event
        else {
            panic!("it is a fact")
        };
        assert_eq!(
            (e.percent, e.message.as_deref()),
            (Some(40.0), Some("halfway"))
        );
        let get = ["artifact", "get", &id.to_string(), "report.txt", "-"];
        assert_eq!(system.cli(&get).await.ok(), "abc", "{kind}");
        let kinds = story.kinds(id);
        let kept = kinds.iter().filter(|k| **k == "attempt.artifact").count();
        assert_eq!(kept, 1, "{kind}: {kinds:?}");
    }
    system.assert_replay_agrees().await;
}

/// The example of the README, as it stands there.
#[tokio::test]
async fn a_shell_calls_a_tool_by_a_single_request() {
    let readme = std::fs::read_to_string(binary::workspace().join("README.md")).unwrap();
    let mut blocks = readme.split("```sh\n").skip(1);
    let example = blocks.find(|b| b.contains("$CONDUCTOR_MCP_URL")).unwrap();
    let (example, _) = example.split_once("```").unwrap();
    let (system, mut story) = up().await;
    for kind in sandboxes(&system).await {
        let sandbox = json!({"kind": kind, "network": "none"});
        let run = json!({"command": ["sh", "-c", example]});
        let id = system.submit(json!({"run": run, "sandbox": sandbox})).await;
        let said = result(&mut story, id).await;
        assert!(said.contains(r#""noted":true"#), "{kind}: {said}");
        let Some(Event::AttemptProgress(e)) = story.find(id, "attempt.progress").unwrap().event
        else {
            panic!("it is a fact")
        };
        assert_eq!(e.message.as_deref(), Some("half of it"), "{kind}");
    }
}

#[tokio::test]
async fn people_are_asked_and_answer() {
    const SCRIPT: &str = "may = call('request_approval', summary='drop the table users')\n\
                          which = call('ask_human', question='which branch?')\n\
                          call('complete', summary='s', structured=[may, which])";
    let (system, mut story) = up().await;
    // Waiting takes nothing from the time that it may run.
    let task = json!({"run": program(SCRIPT), "timeouts": {"run": "20s"}});
    let id = system.submit(task).await;
    let task = id.to_string();
    for (number, question, summary, answer, text) in [
        (1, "tool", "drop the table users", "deny", "never"),
        (2, "human", "which branch?", "approve", "main"),
    ] {
        let asked = |s: &Story| {
            let approvals = &s.state().tasks.get(&id)?.aside.approvals;
            approvals.get(&number).filter(|a| a.is_open()).map(|_| ())
        };
        story.until("its question", asked).await;
        let list = system.cli(&["approvals", "-o", "json"]).await.json();
        assert_eq!(
            (&list[0]["question"], &list[0]["summary"]),
            (&json!(question), &json!(summary))
        );
        let number = number.to_string();
        let answer = ["approvals", answer, &task, &number, "--text", text];
        system.cli(&answer).await.ok();
    }
    let answers: Value = serde_json::from_str(&result(&mut story, id).await).unwrap();
    let expected = json!([
        {"answer": "deny", "text": "never"}, {"answer": "allow", "text": "main"},
    ]);
    assert_eq!(answers, expected);
    system.assert_replay_agrees().await;
}

/// What a program asked and did not wait for holds nothing up that comes after it.
#[tokio::test]
async fn a_question_that_is_left_behind_holds_nothing_up() {
    const SCRIPT: &str = "import threading\n\
                          threading.Thread(target=call, args=('ask_human',), kwargs={'question': 'why?'}, daemon=True).start()\n\
                          while not os.path.exists('go'): __import__('time').sleep(0.05)\n\
                          os._exit(0)";
    let (system, mut story) = up().await;
    let place = system.dir.path().join("place");
    std::fs::create_dir(&place).unwrap();
    let mut run = program(SCRIPT);
    run = json!({"command": {"argv": run["command"], "cwd": place}});
    let task = json!({
        "run": run, "checks": [["sh", "-c", "echo ${CONDUCTOR_MCP_URL-no tools}"]],
        "sandbox": "none", "timeouts": {"run": "60s"},
    });
    let id = system.submit(task).await;
    assert_eq!(asks(&mut story, id).await, 1);
    std::fs::write(place.join("go"), "").unwrap();
    result(&mut story, id).await;
    let logs = logs(&system, id).await;
    assert!(
        logs.contains("no tools"),
        "tools are its program's alone: {logs}"
    );
    let list = system.cli(&["approvals", "-o", "json"]).await.json();
    assert_eq!(list, json!([]), "it ended with its attempt");
}

/// An attack: a program of one attempt, with its own token and the address of another's server.
#[tokio::test]
async fn the_token_of_one_attempt_opens_no_other() {
    const VICTIM: &str = "print('at', os.environ['CONDUCTOR_MCP_URL'], flush=True)\n\
                          call('ask_human', question='wait here')";
    let (system, mut story) = up().await;
    // Both on the loopback of the machine: elsewhere the port is not even there.
    let run = json!({"run": program(VICTIM), "sandbox": "none"});
    let victim = system.submit(run).await;
    asks(&mut story, victim).await;
    let said = conductor_harness::until_asked(async || {
        let logs = logs(&system, victim).await;
        let at = logs.lines().find_map(|l| l.strip_prefix("at "));
        at.map(str::to_owned)
            .ok_or_else(|| format!("its address in {logs}"))
    });
    let url = said.await;
    let attack = format!(
        "def at(token):\n\
         \x20   try: return ask('tools/call', '{url}', token, name='complete', arguments={{'summary': 'mine'}})\n\
         \x20   except urllib.error.HTTPError as e: return e.code\n\
         \x20   except OSError: return 'no way there'\n\
         own = os.environ['CONDUCTOR_MCP_TOKEN']\n\
         print([at(token) for token in (own, 'conductor-', own.upper())])\n\
         print(call('get_task')['task'])"
    );
    for kind in sandboxes(&system).await {
        let sandbox = json!({"kind": kind, "network": "none"});
        let id = system
            .submit(json!({"run": program(&attack), "sandbox": sandbox}))
            .await;
        let result = result(&mut story, id).await;
        let refused = match kind {
            "none" => "[401, 401, 401]",
            _ => "['no way there', 'no way there', 'no way there']",
        };
        assert_eq!(result.trim(), format!("{refused}\n{id}"), "{kind}");
    }
    let approve = ["approvals", "approve", &victim.to_string()];
    system.cli(&approve).await.ok();
    let result = result(&mut story, victim).await;
    assert!(!result.contains("mine"), "{result}");
}

/// The real CLI finds the server, sees its tools, and is let in; its model gives a result by them.
#[tokio::test]
async fn claude_code_gives_its_result_by_a_tool() {
    for args in [&[][..], &["--sandbox", "none"]] {
        let Some(mut models) = Models::up_with(args).await else {
            return;
        };
        let schema = json!({"type": "object", "required": ["fixed"]});
        let id = models.submit(
            "[[mcpcomplete]]",
            json!({"result_schema": schema.to_string()}),
        );
        let id = id.await;
        let (outcome, failure, _) = models.end(id).await;
        let logs = logs(&models.system, id).await;
        assert_eq!(outcome, Outcome::Succeeded, "{failure:?} {logs}");
        let Some(Event::AttemptSucceeded(e)) =
            models.story.find(id, "attempt.succeeded").unwrap().event
        else {
            panic!("it succeeded")
        };
        assert_eq!(e.result.as_deref(), Some(r#"{"fixed":true}"#), "{logs}");
        assert!(!logs.contains("is not reached"), "{logs}");
        let progress = models.story.find(id, "attempt.progress");
        assert!(progress.is_some(), "{logs}");
    }
}

/// The real CLI's model asks people, and reads what they answer.
#[tokio::test]
async fn claude_code_asks_people_by_a_tool() {
    let Some(mut models) = Models::up().await else {
        return;
    };
    let id = models.submit("[[mcpask]]", json!({})).await;
    assert_eq!(asks(&mut models.story, id).await, 1);
    let answer = [
        "approvals",
        "approve",
        &id.to_string(),
        "--text",
        "the red one",
    ];
    models.system.cli(&answer).await.ok();
    let (outcome, failure, _) = models.end(id).await;
    assert_eq!(outcome, Outcome::Succeeded, "{failure:?}");
    let requests = std::fs::read_to_string(&models.api_log).unwrap();
    assert!(requests.contains("the red one"), "the model was told");
}
