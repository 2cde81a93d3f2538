//! `conductor mcp`, driven as an AI client does.

mod client;

use client::Client;
use conductor_domain::state::Outcome;
use conductor_harness::system::sh;
use conductor_harness::{Story, System, away_from_midnight};
use conductor_protocol::limits::FORMAT_KNOWN;
use serde_json::{Value, json};

#[tokio::test]
async fn a_client_submits_a_task_and_watches_it_to_its_end() {
    let system = System::up().await;
    let mut client = Client::of(&system).await;
    let tools = client.ask("tools/list", json!({})).await;
    let tools = tools["result"]["tools"].as_array().unwrap();
    let names: Vec<&str> = tools.iter().map(|t| t["name"].as_str().unwrap()).collect();
    let expected = [
        "submit_task",
        "list_tasks",
        "show_task",
        "watch_task",
        "cancel_task",
        "list_approvals",
        "decide_approval",
    ];
    assert_eq!(names, expected);
    for tool in tools {
        assert_eq!(tool["inputSchema"]["type"], "object", "{tool}");
        assert!(tool["description"].as_str().unwrap().len() > 20, "{tool}");
    }
    let order = json!({
        "command": ["sh", "-c", "echo hi; echo log > out.txt"], "name": "hello", "namespace": "n",
        "task": {"artifacts": ["out.txt"], "metadata": {"by": "test"}},
    });
    let id = client.submit(order).await;
    let watch = json!({
        "name": "watch_task", "arguments": {"task": id, "timeout_seconds": 90},
        "_meta": {"progressToken": "p1"},
    });
    let watched = client.ask("tools/call", watch).await;
    let watched = &watched["result"]["structuredContent"];
    assert_eq!(watched["has_ended"], true, "{watched}");
    assert_eq!(
        (&watched["state"], &watched["result"]),
        (&json!("succeeded"), &json!("hi"))
    );
    assert_eq!(watched["artifacts"][0]["name"], "out.txt", "{watched}");
    let list = json!({"include_ended": true, "namespace": "n"});
    let list = client.call("list_tasks", list).await;
    assert_eq!(list["tasks"].as_array().unwrap().len(), 1, "{list}");
    assert_eq!(
        (&list["tasks"][0]["name"], &list["has_more"]),
        (&json!("hello"), &json!(false))
    );
    assert_eq!(
        client.call("list_tasks", json!({})).await["tasks"],
        json!([])
    );
    let show = json!({"task": "hello", "include_events": true});
    let shown = client.call("show_task", show).await;
    let kinds = shown["events"].as_array().unwrap().iter();
    let kinds: Vec<_> = kinds
        .map(|e| e["event"]["type"].as_str().unwrap())
        .collect();
    assert!(kinds.contains(&"attempt.succeeded"), "{kinds:?}");
    assert_eq!(shown["metadata"]["by"], "test");
    let (status, rest) = client.close().await;
    assert!(status.success(), "{status}");
    assert_eq!(rest, "", "standard output is for answers alone");
}

#[tokio::test]
async fn what_happens_while_a_task_is_watched_is_told_as_progress() {
    let system = System::up().await;
    let mut client = Client::of(&system).await;
    let mut later = sh("true");
    later["delay"] = json!("2s");
    let id = client.submit(json!({"task": later})).await;
    let watch = |token: Option<u32>| {
        let mut call = json!({"name": "watch_task", "arguments": {"task": id}});
        if let Some(token) = token {
            call["_meta"] = json!({"progressToken": token});
        }
        call
    };
    let quiet = client.begin("tools/call", watch(None)).await;
    let told = client.begin("tools/call", watch(Some(7))).await;
    let mut answers = [client.next().await, client.next().await].to_vec();
    while answers.iter().filter(|m| m.get("id").is_some()).count() < 2 {
        answers.push(client.next().await);
    }
    for id in [quiet, told] {
        let answer = answers.iter().find(|a| a["id"] == id).unwrap();
        assert_eq!(
            answer["result"]["structuredContent"]["state"], "succeeded",
            "{answer}"
        );
    }
    let notes: Vec<&Value> = answers.iter().filter(|m| m.get("id").is_none()).collect();
    assert!(
        !notes.is_empty() && notes.iter().all(|n| n["params"]["progressToken"] == 7),
        "{notes:?}"
    );
    let numbers = notes
        .iter()
        .map(|n| n["params"]["progress"].as_f64().unwrap());
    assert!(
        numbers.collect::<Vec<_>>().is_sorted_by(|a, b| a < b),
        "{notes:?}"
    );
    let said: Vec<&str> = notes
        .iter()
        .map(|n| n["params"]["message"].as_str().unwrap())
        .collect();
    assert!(
        said.iter().any(|s| s.starts_with("attempt.started")),
        "{said:?}"
    );
}

#[tokio::test]
async fn a_question_is_asked_and_answered_through_the_client() {
    let system = System::up().await;
    let mut story = system.story().await;
    let mut client = Client::of(&system).await;
    let mut ids = Vec::new();
    for script in ["echo fine", "echo wrong"] {
        let mut task = sh(script);
        task["approvals"] = json!({"acceptance": true, "expires": "1h"});
        let id = client.submit(json!({"task": task})).await;
        story.told(id, "approval.requested").await;
        ids.push(id);
    }
    let asked = client.call("list_approvals", json!({})).await;
    let asked = asked["approvals"].as_array().unwrap();
    assert_eq!(asked.len(), 2, "{asked:?}");
    assert!(
        asked.iter().all(|a| a["question"] == "acceptance"),
        "{asked:?}"
    );
    let whole = client.call("list_approvals", json!({})).await;
    let said = whole["said_by_programs"]["fields"].as_array().unwrap();
    assert!(said.contains(&json!("approvals[].summary")), "{whole}");
    let waiting = client
        .call("list_tasks", json!({"state": "awaiting_approval"}))
        .await;
    assert_eq!(waiting["tasks"].as_array().unwrap().len(), 2);
    let yes = json!({"task": ids[0], "answer": "approve", "text": "well done"});
    client.call("decide_approval", yes).await;
    let no = json!({"task": ids[1], "approval": 1, "answer": "deny", "text": "it says wrong"});
    client.call("decide_approval", no).await;
    assert_eq!(story.outcome(ids[0]).await, Outcome::Succeeded);
    assert_eq!(story.outcome(ids[1]).await, Outcome::Failed);
    let again = client
        .wrong("decide_approval", json!({"task": ids[0], "answer": "deny"}))
        .await;
    assert!(
        again.contains("asks nothing") && again.contains("list_approvals"),
        "{again}"
    );
}

/// A budget of nothing is used up at once: no model is needed to be asked about it. The log takes one,
/// though the command line does not.
#[tokio::test]
async fn a_question_about_a_budget_is_answered_through_the_client() {
    away_from_midnight().await;
    let system = System::up().await;
    let mut story = system.story().await;
    let mut client = Client::of(&system).await;
    let knows_budgets = |s: &Story| (s.state().format == FORMAT_KNOWN).then_some(());
    story.until("a log that knows budgets", knows_budgets).await;
    let budget = json!({"turns_per_day": 0, "on_reached": "ask"});
    let change = json!({"type": "config.put", "namespace_budget": {"team": budget}});
    let change = change.to_string().into_bytes();
    system.append("conductor.local.control", change).await;
    let task = json!({"run": {"claude": {"prompt": "p"}}, "namespace": "team"});
    let id = client.submit(json!({"task": task})).await;
    let is_asked = |s: &Story| s.told.iter().find(|t| t.kind == "budget.reached").cloned();
    story.until("a question", is_asked).await;
    let asked = client.call("list_approvals", json!({})).await;
    let asked = asked["approvals"].as_array().unwrap();
    assert_eq!(asked.len(), 1, "{asked:?}");
    assert_eq!(
        (&asked[0]["namespace"], &asked[0]["task"]),
        (&json!("team"), &Value::Null)
    );
    let no = json!({"namespace": "team", "answer": "deny"});
    let both = json!({"namespace": "team", "task": id, "answer": "deny"});
    let wrong = client.wrong("decide_approval", both).await;
    assert!(wrong.contains("namespace stands instead"), "{wrong}");
    client.call("decide_approval", no.clone()).await;
    assert_eq!(story.outcome(id).await, Outcome::Failed);
    let again = client.wrong("decide_approval", no).await;
    assert!(
        again.contains("was denied more") && again.contains("list_approvals"),
        "{again}"
    );
}

#[tokio::test]
async fn a_client_that_may_only_look_is_given_no_other_tools() {
    let system = System::up().await;
    let mut story = system.story().await;
    let id = system.submit(sh("echo do as I say")).await;
    assert_eq!(story.outcome(id).await, Outcome::Succeeded);
    let mut client = Client::with(&system, &["mcp", "--read-only"]).await;
    let tools = client.ask("tools/list", json!({})).await;
    let tools = tools["result"]["tools"].as_array().unwrap();
    assert_eq!(tools.len(), 4, "{tools:?}");
    let looks = |tool: &Value| tool["annotations"]["readOnlyHint"] == true;
    assert!(tools.iter().all(looks), "{tools:?}");
    for tool in ["submit_task", "cancel_task", "decide_approval"] {
        let call = json!({"name": tool, "arguments": {"task": id}});
        let refused = client.ask("tools/call", call).await;
        assert_eq!(refused["error"]["code"], -32602, "{refused}");
    }
    let shown = client.call("show_task", json!({"task": id})).await;
    assert_eq!(shown["result"], "do as I say");
    let said = shown["said_by_programs"]["fields"].as_array().unwrap();
    assert!(said.contains(&json!("result")), "{shown}");
}

#[tokio::test]
async fn cancelling_a_task_is_not_cancelling_a_call() {
    let system = System::up().await;
    let mut story = system.story().await;
    let mut client = Client::of(&system).await;
    let id = client.submit(json!({"command": ["sleep", "300"]})).await;
    story.told(id, "attempt.started").await;
    let short = json!({"task": id, "timeout_seconds": 0});
    let waited = client.call("watch_task", short).await;
    assert_eq!(
        (&waited["has_ended"], &waited["state"]),
        (&json!(false), &json!("running"))
    );
    let watch = json!({"name": "watch_task", "arguments": {"task": id, "timeout_seconds": 3000}});
    let watching = client.begin("tools/call", watch.clone()).await;
    let reason = json!({"requestId": watching, "reason": "enough"});
    client.tell("notifications/cancelled", reason).await;
    // Answered though the other was never: `answer` takes no other answer than its own.
    let shown = client.call("show_task", json!({"task": id})).await;
    assert_eq!(shown["state"], "running");
    let cancel = json!({"task": id, "reason": "no longer needed"});
    assert_eq!(
        client.call("cancel_task", cancel.clone()).await["cancelled"],
        true
    );
    assert_eq!(story.outcome(id).await, Outcome::Cancelled);
    let twice = client.wrong("cancel_task", cancel).await;
    assert!(twice.contains("the task has ended"), "{twice}");
    // A client that goes away in the middle of a call leaves no process behind.
    let next = client.submit(json!({"command": ["sleep", "300"]})).await;
    let watch = json!({"name": "watch_task", "arguments": {"task": next, "timeout_seconds": 3000}});
    client.begin("tools/call", watch).await;
    let (status, _) = client.close().await;
    assert!(status.success(), "{status}");
    assert_eq!(story.state().outcome_of(next), None, "the task goes on");
}

#[tokio::test]
async fn what_is_wrong_names_the_field_and_what_to_do() {
    let system = System::up().await;
    let mut client = Client::of(&system).await;
    for (tool, arguments, expected) in [
        ("submit_task", json!({}), "run: is missing; expected one of"),
        (
            "submit_task",
            json!({"task": {"run": {"command": "make"}}}),
            "run.command: one text",
        ),
        (
            "submit_task",
            json!({"command": ["a"], "priority": 12}),
            "priority: is 12; expected a whole",
        ),
        (
            "submit_task",
            json!({"command": ["a"], "prioritty": 1}),
            "unknown field `prioritty`, expected",
        ),
        (
            "submit_task",
            json!({"command": ["a"], "task": {"prioritty": 1}}),
            "did you mean priority?",
        ),
        (
            "submit_task",
            json!({"command": ["a"], "prompt": "b"}),
            "command: stands beside a prompt",
        ),
        (
            "submit_task",
            json!({"command": ["a"], "queue": "a b"}),
            "queue: must be 1 to 64",
        ),
        (
            "submit_task",
            json!({"command": ["a"], "needs": ["0192f0c1-2b3c-7d4e-8f50-123456789abc"]}),
            "needs[0]: ",
        ),
        (
            "list_tasks",
            json!({"limit": 0}),
            "limit: is 0\nWhat to do: a whole number",
        ),
        (
            "list_tasks",
            json!({"state": "done"}),
            "state: unknown variant `done`, expected one of",
        ),
        (
            "watch_task",
            json!({"task": "x", "timeout_seconds": 99_999}),
            "timeout_seconds: is 99999",
        ),
        ("show_task", json!({}), "missing field `task`"),
        (
            "show_task",
            json!({"task": "nothing-like-it"}),
            "What to do: list_tasks",
        ),
        (
            "decide_approval",
            json!({"task": "x", "answer": "maybe"}),
            "answer: unknown variant",
        ),
    ] {
        let said = client.wrong(tool, arguments.clone()).await;
        assert!(said.contains(expected), "{tool} {arguments}: {said}");
    }
    let unknown = json!({"name": "message_agent", "arguments": {}});
    let unknown = client.ask("tools/call", unknown).await;
    assert_eq!(unknown["error"]["code"], -32602, "{unknown}");
    let list = client
        .call("list_tasks", json!({"include_ended": true}))
        .await;
    assert_eq!(list["tasks"], json!([]), "nothing was submitted");
    assert!(client.close().await.0.success());
}

/// Clients start their servers long before anybody asks for anything.
#[tokio::test]
async fn a_server_outlives_the_absence_of_nats() {
    let mut system = System::up().await;
    system.server.as_mut().unwrap().server.kill();
    let mut client = Client::of(&system).await;
    let said = client.wrong("list_tasks", json!({})).await;
    assert!(
        said.contains("cannot reach NATS") && said.contains("conductor up"),
        "{said}"
    );
    system.server.as_mut().unwrap().start_again();
    let id = client.submit(json!({"task": {"run": {"noop": {}}}})).await;
    let watched = client.call("watch_task", json!({"task": id})).await;
    assert_eq!(watched["state"], "succeeded");
}
