//! An AI client, as far as the protocol goes: JSON-RPC, one message a line.

use std::process::ExitStatus;

use conductor_harness::{PATIENCE, System, process};
use conductor_protocol::TaskId;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout};

/// A client that knows the protocol and nothing else.
pub(super) struct Client {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    last_id: u64,
    /// Notifications so far.
    notes: Vec<Value>,
}

impl Client {
    /// Starts a server and shakes hands with it.
    pub(super) async fn of(system: &System) -> Self {
        Self::with(system, &["mcp"]).await
    }

    /// The same with a command line of one's own.
    pub(super) async fn with(system: &System, command: &[&str]) -> Self {
        let mut child = process::piped(&system.arguments(command), &[]);
        let output = BufReader::new(child.stdout.take().unwrap());
        let mut client = Self {
            input: child.stdin.take(),
            child,
            output,
            last_id: 0,
            notes: Vec::new(),
        };
        let about = json!({
            "protocolVersion": "2025-06-18", "capabilities": {},
            "clientInfo": {"name": "test", "version": "1"},
        });
        let answer = client.ask("initialize", about).await;
        assert_eq!(
            answer["result"]["serverInfo"]["name"], "conductor",
            "{answer}"
        );
        assert_eq!(answer["result"]["protocolVersion"], "2025-06-18");
        client.tell("notifications/initialized", json!({})).await;
        client
    }

    async fn send(&mut self, message: &Value) {
        let line = format!("{message}\n");
        let input = self.input.as_mut().expect("it is not closed");
        input.write_all(line.as_bytes()).await.unwrap();
    }

    pub(super) async fn tell(&mut self, method: &str, params: Value) {
        self.send(&json!({"jsonrpc": "2.0", "method": method, "params": params}))
            .await;
    }

    /// Asks without waiting for the answer; returns the request's id.
    pub(super) async fn begin(&mut self, method: &str, params: Value) -> u64 {
        self.last_id += 1;
        let id = self.last_id;
        self.send(&json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}))
            .await;
        id
    }

    /// The next message; whatever is on standard output has to be one.
    pub(super) async fn next(&mut self) -> Value {
        let mut line = String::new();
        let read = tokio::time::timeout(PATIENCE, self.output.read_line(&mut line)).await;
        read.expect("it says something").unwrap();
        let message: Value =
            serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line:?}"));
        assert_eq!(message["jsonrpc"], "2.0", "{message}");
        message
    }

    /// The answer to a request, whatever else is said before.
    pub(super) async fn answer(&mut self, id: u64) -> Value {
        loop {
            let message = self.next().await;
            if message["id"] == id {
                return message;
            }
            assert!(message.get("id").is_none(), "not asked: {message}");
            self.notes.push(message);
        }
    }

    pub(super) async fn ask(&mut self, method: &str, params: Value) -> Value {
        let id = self.begin(method, params).await;
        self.answer(id).await
    }

    /// The result of a tool, well or not.
    pub(super) async fn result(&mut self, tool: &str, arguments: Value) -> Value {
        let call = json!({"name": tool, "arguments": arguments});
        let answer = self.ask("tools/call", call).await;
        answer
            .get("result")
            .cloned()
            .unwrap_or_else(|| panic!("{answer}"))
    }

    /// What a tool says when all is well.
    pub(super) async fn call(&mut self, tool: &str, arguments: Value) -> Value {
        let result = self.result(tool, arguments).await;
        assert_eq!(result["isError"], false, "{result}");
        let text: Value =
            serde_json::from_str(result["content"][0]["text"].as_str().unwrap()).unwrap();
        assert_eq!(text, result["structuredContent"], "both say the same");
        text
    }

    /// What a tool says when something is wrong.
    pub(super) async fn wrong(&mut self, tool: &str, arguments: Value) -> String {
        let result = self.result(tool, arguments).await;
        assert_eq!(result["isError"], true, "{result}");
        result["content"][0]["text"].as_str().unwrap().to_owned()
    }

    pub(super) async fn submit(&mut self, arguments: Value) -> TaskId {
        let submitted = self.call("submit_task", arguments).await;
        assert_eq!(submitted["state"], "accepted", "{submitted}");
        submitted["id"].as_str().unwrap().parse().unwrap()
    }

    /// Closes the server's input; it ends, and has nothing more to say than it was asked.
    pub(super) async fn close(mut self) -> (ExitStatus, String) {
        drop(self.input.take());
        let mut rest = String::new();
        let read = self.output.read_to_string(&mut rest);
        let read = tokio::time::timeout(PATIENCE, read).await;
        read.expect("its output ends").unwrap();
        (self.child.wait().await.unwrap(), rest)
    }
}
