//! The server as its clients meet it: requests in, answers out.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use conductor_protocol::TaskId;
use conductor_protocol::event::FieldError;
use conductor_protocol::terms::Answer;
use conductor_toolserver::input::{AttachArtifact, Complete, ReportProgress};
use conductor_toolserver::server::{CALLS_MAX, REQUEST_BYTES_MAX};
use conductor_toolserver::{Attached, Attempt, ChildState, Children, Created, Reply, ToolServer};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::{Request, Response};
use serde_json::{Value, json};
use tokio::sync::watch;

/// An attempt that notes what it is asked; people answer it once they are there.
#[derive(Debug, Default)]
struct Fake {
    noted: Mutex<Vec<String>>,
    people: watch::Sender<bool>,
    asking: watch::Sender<usize>,
    children: Family,
}

#[async_trait]
impl Attempt for Fake {
    fn report(&self, progress: ReportProgress) -> Result<(), FieldError> {
        let noted = format!("{:?} {}", progress.percent, progress.message);
        self.noted.lock().unwrap().push(noted);
        Ok(())
    }

    async fn attach(&self, file: AttachArtifact) -> Result<Attached, FieldError> {
        Err(FieldError::new(
            "path",
            format!("{} is gone", file.path),
            "one that is there",
        ))
    }

    async fn ask(&self, text: String, is_open: bool) -> Result<Reply, FieldError> {
        self.asking.send_modify(|n| *n += 1);
        self.people
            .subscribe()
            .wait_for(|there| *there)
            .await
            .unwrap();
        let text = Some(format!("{is_open}: {text}"));
        let answer = Answer::Allow;
        Ok(Reply { answer, text })
    }

    fn task(&self) -> Value {
        json!({"task": "its own"})
    }

    fn complete(&self, result: Complete) -> Result<(), FieldError> {
        self.noted.lock().unwrap().push(format!("{result:?}"));
        Ok(())
    }

    fn children(&self) -> &dyn Children {
        &self.children
    }
}

/// Subtasks, which may be had or not.
#[derive(Debug, Default)]
struct Family(bool);

const CHILD: &str = "018bcfe5-6800-7000-8000-000000000001";

#[async_trait]
impl Children for Family {
    fn allowed(&self) -> bool {
        self.0
    }

    async fn create(&self, submission: Value) -> Result<Created, Vec<FieldError>> {
        if submission["run"].is_null() {
            return Err(vec![
                FieldError::new("run", "is missing", "what to run"),
                FieldError::new("queue", "is unknown", "one that is there"),
            ]);
        }
        Ok(Created {
            number: 3,
            task: CHILD.parse().unwrap(),
        })
    }

    async fn get(&self, task: TaskId, wait: Duration) -> Option<ChildState> {
        assert!(wait <= Duration::from_secs(120));
        (task.to_string() == CHILD).then(|| ChildState {
            task,
            number: 3,
            state: "open".into(),
            is_final: false,
            result: None,
            failure: None,
        })
    }
}

fn server(fake: Fake) -> (Arc<Fake>, ToolServer) {
    let fake = Arc::new(fake);
    let server = ToolServer::new(Arc::<Fake>::clone(&fake));
    (fake, server)
}

fn family(is_allowed: bool) -> Fake {
    Fake {
        children: Family(is_allowed),
        ..Fake::default()
    }
}

fn post(body: impl Into<Bytes>) -> Request<Full<Bytes>> {
    Request::post("/mcp")
        .header("host", "127.0.0.1:8190")
        .header("content-type", "application/json")
        .header("accept", "application/json, text/event-stream")
        .body(Full::new(body.into()))
        .unwrap()
}

async fn text(answer: Response<BoxBody<Bytes, std::convert::Infallible>>) -> String {
    let bytes = answer.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn calling(tool: &str, arguments: &Value) -> Request<Full<Bytes>> {
    let params = json!({"name": tool, "arguments": arguments});
    post(json!({"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": params}).to_string())
}

/// What is answered to a request, without what stands around it.
async fn said(server: &ToolServer, request: Request<Full<Bytes>>) -> Value {
    let answer = text(server.answer(request).await).await;
    let line = answer.lines().find_map(|l| l.strip_prefix("data:"));
    serde_json::from_str(line.unwrap_or(&answer)).expect(&answer)
}

async fn call(server: &ToolServer, tool: &str, arguments: Value) -> Value {
    let answer = said(server, calling(tool, &arguments)).await;
    assert_eq!(answer["id"], 7, "{answer}");
    answer["result"].clone()
}

fn error_of(result: &Value) -> &str {
    assert_eq!(result["isError"], true, "{result}");
    result["content"][0]["text"].as_str().unwrap()
}

async fn tools(server: &ToolServer) -> Vec<Value> {
    let list = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list"}).to_string();
    let answer = said(server, post(list)).await;
    answer["result"]["tools"].as_array().expect("tools").clone()
}

#[tokio::test]
async fn a_tool_is_called_by_a_single_request() {
    let (fake, server) = server(Fake::default());
    let result = call(
        &server,
        "report_progress",
        json!({"percent": 40, "message": "m"}),
    )
    .await;
    assert_eq!(result["structuredContent"], json!({"noted": true}));
    assert_eq!(result["isError"], false);
    let result = call(
        &server,
        "complete",
        json!({"summary": "s", "structured": [1]}),
    )
    .await;
    assert_eq!(result["structuredContent"], json!({"taken": true}));
    let noted = fake.noted.lock().unwrap().clone();
    assert_eq!(noted[0], "Some(40.0) m");
    assert!(noted[1].contains("[Number(1)]"), "{noted:?}");
    let task = call(&server, "get_task", json!({})).await;
    assert_eq!(task["structuredContent"], json!({"task": "its own"}));
}

#[tokio::test]
async fn what_is_wrong_is_an_answer_that_a_model_reads() {
    let (fake, server) = server(Fake::default());
    for (tool, arguments, problem) in [
        (
            "report_progress",
            json!({"percent": -1, "message": "m"}),
            "percent: is -1; expected",
        ),
        ("report_progress", json!({}), "missing field `message`"),
        (
            "attach_artifact",
            json!({"path": "p"}),
            "path: p is gone; expected one that is there",
        ),
        (
            "ask_human",
            json!({"question": "q", "agent": "a2"}),
            "unknown field `agent`",
        ),
        ("get_task", json!({"task": CHILD}), "unknown field `task`"),
    ] {
        let result = call(&server, tool, arguments).await;
        assert!(error_of(&result).contains(problem), "{result}");
    }
    assert!(fake.noted.lock().unwrap().is_empty());
    let unknown = said(&server, calling("create_subtask", &json!({}))).await;
    let message = unknown["error"]["message"].as_str().unwrap();
    assert!(
        message.contains("there are report_progress, attach_artifact"),
        "{message}"
    );
}

#[tokio::test]
async fn subtasks_are_offered_where_a_task_may_have_any() {
    for (fake, has_them) in [
        (Fake::default(), false),
        (family(false), false),
        (family(true), true),
    ] {
        let (_, server) = server(fake);
        let tools = tools(&server).await;
        let names: Vec<_> = tools.iter().map(|t| t["name"].as_str().unwrap()).collect();
        assert_eq!(names.contains(&"create_subtask"), has_them, "{names:?}");
        assert_eq!(names.len(), if has_them { 7 } else { 6 });
        let get = tools.iter().find(|t| t["name"] == "get_task").unwrap();
        let task = &get["inputSchema"]["properties"]["task"];
        assert_eq!(task.is_object(), has_them, "{get}");
        for tool in &tools {
            assert_eq!(tool["inputSchema"]["type"], "object", "{tool}");
            assert!(tool["inputSchema"]["properties"].is_object(), "{tool}");
            assert!(tool["description"].as_str().unwrap().len() > 40, "{tool}");
        }
    }
    let (_, server) = server(family(true));
    let made = call(
        &server,
        "create_subtask",
        json!({"task": {"run": {"command": ["true"]}}}),
    )
    .await;
    assert_eq!(
        made["structuredContent"],
        json!({"number": 3, "task": CHILD})
    );
    let wrong = call(&server, "create_subtask", json!({"task": {}})).await;
    let problems =
        "run: is missing; expected what to run\nqueue: is unknown; expected one that is there";
    assert_eq!(error_of(&wrong), problems);
    let state = call(&server, "get_task", json!({"task": CHILD})).await;
    assert_eq!(state["structuredContent"]["state"], "open");
    let own = call(&server, "get_task", json!({})).await;
    assert_eq!(own["structuredContent"], json!({"task": "its own"}));
    for other in ["018bcfe5-6800-7000-8000-000000000009", "ship"] {
        let refused = call(&server, "get_task", json!({"task": other})).await;
        assert!(
            error_of(&refused).contains("is no subtask of your task"),
            "{refused}"
        );
    }
}

/// Whoever asks people waits, and is shown meanwhile that somebody is there.
#[tokio::test(start_paused = true)]
async fn an_answer_that_takes_long_shows_signs_of_life() {
    let (fake, server) = server(Fake::default());
    let answer = server
        .answer(calling("ask_human", &json!({"question": "why?"})))
        .await;
    assert_eq!(answer.headers()["content-type"], "text/event-stream");
    let mut body = answer.into_body();
    for _ in 0..3 {
        let began = tokio::time::Instant::now();
        let frame = body.frame().await.unwrap().unwrap().into_data().unwrap();
        assert!(frame.starts_with(b":"), "{frame:?}");
        assert!(
            began.elapsed() <= Duration::from_secs(16),
            "{:?}",
            began.elapsed()
        );
    }
    fake.people.send_replace(true);
    let rest = body.collect().await.unwrap().to_bytes();
    let rest = String::from_utf8(rest.to_vec()).unwrap();
    assert!(
        rest.contains("true: why?") && rest.contains("allow"),
        "{rest}"
    );
}

#[tokio::test]
async fn so_many_calls_are_under_way_and_no_more() {
    let (fake, server) = server(Fake::default());
    let mut waiting = Vec::new();
    for n in 0..CALLS_MAX {
        let summary = json!({"summary": n.to_string()});
        waiting.push(server.answer(calling("request_approval", &summary)).await);
    }
    let mut asking = fake.asking.subscribe();
    asking.wait_for(|n| *n == CALLS_MAX).await.unwrap();
    let refused = call(&server, "get_task", json!({})).await;
    assert!(
        error_of(&refused).contains("24 calls are under way"),
        "{refused}"
    );
    // One whose caller goes away is over.
    waiting.pop();
    loop {
        let result = call(&server, "get_task", json!({})).await;
        if result["isError"] == false {
            break;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_request_has_a_limit_and_a_form() {
    let (_, server) = server(Fake::default());
    let large = server.answer(post(vec![b' '; REQUEST_BYTES_MAX + 1])).await;
    assert_eq!(large.status(), 413);
    let mut elsewhere = calling("get_task", &json!({}));
    let host = "example.org".parse().unwrap();
    elsewhere.headers_mut().insert("host", host);
    assert_eq!(
        server.answer(elsewhere).await.status(),
        403,
        "a name that leads here by trickery"
    );
    let get = Request::get("/mcp")
        .header("host", "localhost")
        .body(Full::new(Bytes::new()));
    assert_eq!(server.answer(get.unwrap()).await.status(), 405);
}

/// Clients are told which revision is spoken; the newest, by which nobody can wait for long, is not.
#[tokio::test]
async fn a_client_of_the_newest_revision_is_told_of_an_older() {
    let (_, server) = server(Fake::default());
    let hello = json!({"protocolVersion": "2026-07-28", "capabilities": {},
        "clientInfo": {"name": "c", "version": "1"}});
    let hello = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": hello});
    let answer = said(&server, post(hello.to_string())).await;
    assert_eq!(
        answer["result"]["protocolVersion"], "2025-11-25",
        "{answer}"
    );
    assert_eq!(answer["result"]["serverInfo"]["name"], "conductor");
    let meta = json!({"io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientInfo": {"name": "c", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": {}});
    let discover = json!({"jsonrpc": "2.0", "id": 1, "method": "server/discover",
        "params": {"_meta": meta}});
    let mut request = post(discover.to_string());
    for (name, value) in [
        ("mcp-protocol-version", "2026-07-28"),
        ("mcp-method", "server/discover"),
    ] {
        request.headers_mut().insert(name, value.parse().unwrap());
    }
    let answer = said(&server, request).await;
    assert!(
        answer["error"]["data"].to_string().contains("2025-11-25"),
        "{answer}"
    );
}
