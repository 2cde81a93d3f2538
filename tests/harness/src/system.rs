//! A running system: a server of its own, and `conductor` processes against it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use conductor_eventlog::jetstream::{Connect, Connection, Tls};
use conductor_eventlog::{Append, EventLog};
use conductor_protocol::subject::Subject;
use conductor_protocol::{CellId, Control, Position, TaskId};
use serde_json::Value;
use tempfile::TempDir;

use crate::process::{self, Process, Ran};
use crate::wait::until_asked;
use crate::{Story, TestServer, story};

/// A cell with its processes.
#[derive(Debug)]
pub struct System {
    /// Its processes by name; taking one out and dropping it kills it.
    pub processes: BTreeMap<String, Process>,
    /// A connection of the test's own.
    pub connection: Arc<Connection>,
    /// Where clients connect.
    pub url: String,
    /// Directory for data and logs of the processes.
    pub dir: TempDir,
    /// Environment of the processes started from now on.
    pub env: Vec<(String, String)>,
    /// Credentials of the test's own connection and of the CLI.
    pub credentials: Option<PathBuf>,
    /// How links are encrypted: the test's own, those of the CLI and of processes.
    pub tls: Tls,
    /// The server, where there is one server.
    pub server: Option<TestServer>,
}

/// The cell of all tests.
pub fn cell() -> CellId {
    "local".parse().expect("a cell id")
}

impl System {
    /// A server, with one process that runs everything: two agents of four slots.
    pub async fn up() -> Self {
        Self::up_with(&[]).await
    }

    /// The same, with more arguments for `conductor up`.
    pub async fn up_with(args: &[&str]) -> Self {
        let mut system = Self::bare().await;
        system.start_up(args).await;
        system
    }

    /// A server and no process of ours.
    pub async fn bare() -> Self {
        let server = TestServer::start();
        let mut system = Self::at(server.url()).await;
        system.server = Some(server);
        system
    }

    /// Servers that somebody else keeps.
    pub async fn at(url: String) -> Self {
        Self::at_as(url, None).await
    }

    /// Servers that somebody else keeps and that want credentials, which the CLI is given too.
    pub async fn at_as(url: String, credentials: Option<PathBuf>) -> Self {
        Self::by(Connect {
            credentials,
            ..Connect::to(&url, "test", cell())
        })
        .await
    }

    /// Servers that are reached so.
    pub async fn by(connect: Connect) -> Self {
        let connection = Connection::open(&connect)
            .await
            .unwrap_or_else(|e| panic!("{e}"));
        Self {
            processes: BTreeMap::new(),
            connection: Arc::new(connection),
            url: connect.url,
            dir: tempfile::tempdir().expect("a temporary directory"),
            env: Vec::new(),
            credentials: connect.credentials,
            tls: connect.tls,
            server: None,
        }
    }

    /// The system in the data directory of a `conductor up` with a server of its own.
    pub async fn of_up(data: &Path) -> Self {
        let url = std::fs::read_to_string(data.join("nats.url")).expect("it says where it is");
        let credentials = data.join("keys/operator.creds");
        Self::at_as(url, credentials.exists().then_some(credentials)).await
    }

    /// A server, and each role in a process of its own: `orchestrator`, `scheduler`,
    /// `a1`, `a2`.
    pub async fn split() -> Self {
        let mut system = Self::bare().await;
        system.start_split().await;
        system
    }

    /// Starts each role in a process of its own, and waits until all have spoken.
    pub async fn start_split(&mut self) {
        for role in ["orchestrator", "scheduler"] {
            self.start_role(role, role);
        }
        for agent in ["a1", "a2"] {
            self.start_agent(agent);
        }
        self.wait_ready(2).await;
    }

    /// Starts one process that runs everything.
    pub async fn start_up(&mut self, args: &[&str]) {
        let data = self.dir.path().join("data").display().to_string();
        let mut all = vec!["up", "--data-dir", &data];
        all.extend(args);
        self.start("up", &all);
        self.processes["up"].says("conductor is up").await;
    }

    /// Starts an orchestrator or a scheduler under a name of the test's choosing.
    pub fn start_role(&mut self, name: &str, role: &str) {
        self.start(name, &[role, "--lock-ttl", "2s"]);
    }

    /// Starts an agent with four slots.
    pub fn start_agent(&mut self, name: &str) {
        let data = self.dir.path().join("data").display().to_string();
        self.start(
            name,
            &["agent", "--name", name, "--slots", "4", "--data-dir", &data],
        );
    }

    /// Starts a process of ours against the servers.
    pub fn start(&mut self, name: &str, args: &[&str]) {
        let mut all = args.to_vec();
        all.extend(["--nats-url", &self.url, "--log", "info,async_nats=warn"]);
        let tls = self.tls_flags();
        all.extend(tls.iter().map(String::as_str));
        let env: Vec<_> = self
            .env
            .iter()
            .map(|(k, v)| (k.as_str(), v.as_str()))
            .collect();
        let process = Process::start(&all, &env, self.dir.path());
        self.processes.insert(name.to_owned(), process);
    }

    /// The process of that name.
    pub fn process(&mut self, name: &str) -> &mut Process {
        self.processes
            .get_mut(name)
            .unwrap_or_else(|| panic!("there is no process {name}"))
    }

    /// Waits until both roles have leaders and so many agents are there.
    pub async fn wait_ready(&self, agents: usize) {
        let mut story = self.story_of_new_cell().await;
        story
            .until("leaders and agents", |s| {
                let there = s.state().agents.values().filter(|a| a.takes_work()).count();
                (s.state().leaders.len() == 2 && there >= agents).then_some(())
            })
            .await;
    }

    /// The log from its first record; the stream may not be there yet.
    pub async fn story_of_new_cell(&self) -> Story {
        until_asked(async || self.connection.last_seq().await.map_err(|e| e.to_string())).await;
        self.story().await
    }

    /// The log from its first record.
    pub async fn story(&self) -> Story {
        Story::open(&self.connection).await
    }

    /// Submits a task, under an id of its own unless it has one, to queue `default`.
    pub async fn submit(&self, mut task: Value) -> TaskId {
        if task.get("id").is_none() {
            task["id"] = new_id().to_string().into();
        }
        self.submit_raw("default", task.to_string().into_bytes())
            .await;
        task["id"]
            .as_str()
            .and_then(|s| s.parse().ok())
            .expect("an id")
    }

    /// Submits bytes as they are; returns the position of the first task in them.
    pub async fn submit_raw(&self, queue: &str, payload: Vec<u8>) -> Position {
        let queue = queue.parse().expect("a queue");
        let subject = Subject::Submit(queue).render(&cell());
        Position::new(self.append(&subject, payload).await, 0)
    }

    /// Says something on the control subject.
    pub async fn control(&self, control: &Control) {
        self.append(&Subject::Control.render(&cell()), story::control(control))
            .await;
    }

    /// Appends any bytes on any subject, and waits for the acknowledgement.
    pub async fn append(&self, subject: &str, payload: Vec<u8>) -> u64 {
        let append = Append {
            subject: subject.to_owned(),
            payload: payload.into(),
            id: uuid::Uuid::new_v4().to_string(),
            expected_last: None,
        };
        let known =
            conductor_replica::appender::append_until_known(self.connection.as_ref(), &append);
        let done = tokio::time::timeout(crate::PATIENCE, known).await;
        done.expect("the log answers").expect("the log takes it")
    }

    /// Runs a command of the CLI against this system.
    pub async fn cli(&self, args: &[&str]) -> Ran {
        self.cli_with(args, b"").await
    }

    /// The same, with something on standard input.
    pub async fn cli_with(&self, args: &[&str], stdin: &[u8]) -> Ran {
        process::run(&self.arguments(args), &[], stdin).await
    }

    /// Arguments of `conductor` by which it finds this system.
    pub fn arguments(&self, args: &[&str]) -> Vec<String> {
        // Before any `--`, behind which everything is the task's command line.
        let mut all = vec!["--nats-url".to_owned(), self.url.clone()];
        all.extend(self.tls_flags());
        if let Some(credentials) = &self.credentials {
            all.extend(["--creds".to_owned(), credentials.display().to_string()]);
        }
        all.extend(args.iter().map(|a| (*a).to_owned()));
        all
    }

    fn tls_flags(&self) -> Vec<String> {
        let mut flags = Vec::new();
        let mut add = |flag: &str, file: Option<&PathBuf>| {
            if let Some(file) = file {
                flags.extend([flag.to_owned(), file.display().to_string()]);
            }
        };
        add("--tls-ca", self.tls.ca.as_ref());
        let own = self.tls.identity.as_ref();
        add("--tls-cert", own.map(|(cert, _)| cert));
        add("--tls-key", own.map(|(_, key)| key));
        flags
    }

    /// Checks that replaying the log gives what every live replica holds.
    pub async fn assert_replay_agrees(&self) {
        let report = self
            .cli(&["replay", "--compare-live", "-o", "json"])
            .await
            .json();
        let live = report["live"].as_array().expect("answers");
        assert!(
            !live.is_empty() && live.iter().all(|l| l["agrees"] == true),
            "{report:#}"
        );
    }
}

/// A task id of a test's own making.
pub fn new_id() -> TaskId {
    let now = std::time::SystemTime::now();
    let ms = now
        .duration_since(std::time::UNIX_EPOCH)
        .expect("after 1970")
        .as_millis();
    let mut random = [0; 10];
    random.copy_from_slice(&uuid::Uuid::new_v4().as_bytes()[6..]);
    TaskId::from_parts(u64::try_from(ms).expect("a time"), random)
}

/// A shell command as a task.
pub fn sh(script: &str) -> Value {
    serde_json::json!({"run": {"command": ["sh", "-c", script]}})
}
