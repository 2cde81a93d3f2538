//! Where attacks take place: a system whose servers know who may do what.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use conductor_access::{Credentials, Keyring};
use conductor_eventlog::EventLog;
use conductor_harness::server::TestCluster;
use conductor_harness::system::{cell, sh};
use conductor_harness::{PATIENCE, System, TestServer, plain, until};
use conductor_nats::{OperatorMode, Server};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::attacker::Attacker;

/// A system with accounts: orchestrator, scheduler, issuer, and agents a1 and a2, each in a process
/// of its own with credentials of its own.
pub(super) struct Field {
    pub(super) system: System,
    pub(super) url: String,
    keys: Keyring,
    dir: TempDir,
    cluster: Option<TestCluster>,
}

/// A task that only a2 may run.
pub(super) fn on_a2(script: &str) -> Value {
    let mut task = sh(script);
    task["labels"] = json!({"name": "a2"});
    task
}

fn now_s() -> u64 {
    let now = std::time::SystemTime::now();
    now.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()
}

/// The accounts every server begins with, in a directory of its own.
fn operator_mode(keys: &Keyring, jwt_dir: &Path) -> OperatorMode {
    std::fs::create_dir_all(jwt_dir).unwrap();
    for token in keys.account_tokens(now_s()).unwrap() {
        std::fs::write(jwt_dir.join(format!("{}.jwt", token.account)), token.jwt).unwrap();
    }
    OperatorMode {
        token: keys.operator_token(now_s()).unwrap(),
        system_account: keys.system_account(),
        jwt_dir: jwt_dir.to_owned(),
    }
}

impl Field {
    /// On one server.
    pub(super) async fn up() -> Self {
        Self::up_with(|_| Vec::new()).await
    }

    /// The same, with what the agents have in their environment besides, given a directory for it.
    pub(super) async fn up_with(env: impl FnOnce(&Path) -> Vec<(String, String)>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let keys = Keyring::open_or_make(&dir.path().join("keys"), &cell()).unwrap();
        let jwt_dir = dir.path().join("jwt");
        let server = TestServer::start_with(|config| {
            config.operator = Some(operator_mode(&keys, &jwt_dir));
        });
        let url = server.url();
        let env = env(dir.path());
        let mut field = Box::pin(Self::on(url, keys, dir, None, 1, env)).await;
        field.system.server = Some(server);
        field
    }

    /// On three servers.
    pub(super) async fn cluster() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let keys = Keyring::open_or_make(&dir.path().join("keys"), &cell()).unwrap();
        let cluster = TestCluster::start_with(|n, config| {
            config.operator = Some(operator_mode(&keys, &dir.path().join(format!("jwt{n}"))));
        });
        let url = cluster.urls();
        Box::pin(Self::on(url, keys, dir, Some(cluster), 3, Vec::new())).await
    }

    async fn on(
        urls: String,
        keys: Keyring,
        dir: TempDir,
        cluster: Option<TestCluster>,
        replicas: usize,
        env: Vec<(String, String)>,
    ) -> Self {
        keys.write_credentials(now_s()).unwrap();
        let creds = |who: &str| keys.path(&format!("{who}.creds")).display().to_string();
        let provision = [
            "provision",
            "--nats-url",
            &urls,
            "--creds",
            &creds("admin"),
            "--replicas",
            &replicas.to_string(),
        ]
        .map(str::to_owned);
        conductor_harness::process::run(&provision, &[], b"")
            .await
            .ok();
        let mut system = System::at_as(urls.clone(), Some(keys.path("operator.creds"))).await;
        system.env = env;
        let keys_dir = dir.path().join("keys").display().to_string();
        system.start("issuer", &["issuer", "--keys", &keys_dir]);
        let mut field = Self {
            url: urls.split(',').next().unwrap().to_owned(),
            system,
            keys,
            dir,
            cluster,
        };
        for role in ["orchestrator", "scheduler"] {
            field.start_service(role);
        }
        field.with_agents().await
    }

    /// Enrols both agents with tokens that are good once.
    async fn with_agents(mut self) -> Self {
        for agent in ["a1", "a2"] {
            self.start_agent(agent).await;
        }
        self.system.wait_ready(2).await;
        self
    }

    /// Enrols an agent and starts it with its token.
    pub(super) async fn start_agent(&mut self, agent: &str) {
        let token = self.enroll(agent).await;
        let data = self.home_of(agent).display().to_string();
        let label = format!("name={agent}");
        let named = ["agent", "--name", agent, "--label", &label];
        let given = ["--token", &token, "--data-dir", &data];
        self.system.start(agent, &[&named[..], &given].concat());
    }

    /// A one-time token for an agent.
    pub(super) async fn enroll(&self, agent: &str) -> String {
        let keys = self.keys_dir();
        let made = self
            .system
            .cli(&["agent", "enroll", agent, "--keys", &keys, "-o", "json"])
            .await;
        made.json()["token"].as_str().unwrap().to_owned()
    }

    /// Where an agent has its files.
    pub(super) fn home_of(&self, agent: &str) -> PathBuf {
        self.dir.path().join(agent)
    }

    /// The credentials that an agent was given.
    pub(super) fn creds(&self, agent: &str) -> Credentials {
        let path = self
            .dir
            .path()
            .join(agent)
            .join(format!("credentials/{agent}.creds"));
        Credentials::read(&path).unwrap()
    }

    /// Credentials of somebody who submits.
    pub(super) fn client(&self) -> Credentials {
        Credentials::read(&self.key("client")).unwrap()
    }

    /// Makes credentials for somebody, as `conductor access grant` does; where they are.
    pub(super) async fn grant(&self, name: &str, what: &[&str]) -> PathBuf {
        let keys = self.keys_dir();
        let out = self.dir.path().join(format!("{name}.creds"));
        let to = out.display().to_string();
        let grant = ["access", "grant", name, "--keys", &keys, "--out", &to];
        self.system.cli(&[&grant[..], what].concat()).await.ok();
        out
    }

    /// Where the credentials are of one of those that are always there.
    pub(super) fn key(&self, who: &str) -> PathBuf {
        self.keys.path(&format!("{who}.creds"))
    }

    /// Where all keys are.
    pub(super) fn keys_dir(&self) -> String {
        self.dir.path().join("keys").display().to_string()
    }

    /// What the one server said.
    pub(super) fn server_log(&self) -> String {
        let server = self.system.server.as_ref().expect("one server");
        std::fs::read_to_string(server.dir().join("nats-server.log")).unwrap()
    }

    /// A page of each server's monitoring.
    pub(super) fn monitor(&self, path: &str) -> Vec<String> {
        let alone = self.system.server.iter().map(|s| &s.server);
        let servers = alone.chain(self.cluster.iter().flat_map(|c| &c.nodes));
        let page = |server: &Server| plain::http_get(&server.monitor_url(), path).unwrap();
        servers.map(page).collect()
    }

    /// Another server, that begins with what `conductor access init` wrote for servers.
    pub(super) fn another_server(&self) -> TestServer {
        TestServer::start_with(|config| {
            config.operator = Some(OperatorMode {
                token: self.keys.operator_token(now_s()).unwrap(),
                system_account: self.keys.system_account(),
                jwt_dir: self.dir.path().join("keys/servers/jwt"),
            });
        })
    }

    /// Ends a service and starts it again.
    pub(super) async fn start_again(&mut self, role: &str) {
        self.system.process(role).terminate().await;
        self.start_service(role);
    }

    fn start_service(&mut self, role: &str) {
        let services = self.key("services").display().to_string();
        let args = [role, "--lock-ttl", "2s", "--creds", &services];
        self.system.start(role, &args);
    }

    /// Somebody with an agent's credentials.
    pub(super) fn attacker(&self, agent: &str) -> Attacker {
        Attacker::connect(&self.url, &self.creds(agent)).unwrap()
    }

    /// Has what waits for it go on.
    pub(super) fn release(&self) {
        std::fs::write(self.dir.path().join("released"), b"").unwrap();
    }

    /// A task that runs on a2 until it is released.
    pub(super) fn held_by_a2(&self) -> Value {
        let path = self.dir.path().join("released");
        on_a2(&format!(
            "while [ ! -e {} ]; do sleep 0.05; done",
            path.display()
        ))
    }

    /// How many messages each stream has taken.
    pub(super) async fn counts(&self) -> BTreeMap<String, u64> {
        let mut counts = BTreeMap::new();
        for of in ["LOG", "OBJ_SNAPSHOTS", "KV_LOCKS", "KV_POSITIONS"] {
            let last = self.system.connection.last_seq_of(of).await.unwrap();
            counts.insert(format!("{of}_local"), last);
        }
        counts
    }

    /// The subjects of the log's records after one.
    pub(super) async fn subjects_since(&self, seq: u64) -> BTreeSet<String> {
        let mut subjects = BTreeSet::new();
        for seq in seq + 1..=self.system.connection.last_seq().await.unwrap() {
            let record = self.system.connection.read(seq).await.unwrap();
            subjects.extend(record.map(|r| r.subject));
        }
        subjects
    }

    /// Uses credentials that are not good any more.
    pub(super) async fn revoke(&mut self) -> usize {
        let keys = self.keys_dir();
        let used = self.enroll("a3").await;
        let token = conductor_access::issuer::read_one_time_token(&used).unwrap();
        let mut guest = Attacker::connect(&self.url, &token).unwrap();
        // It is good for nothing but asking, and that once.
        let came = guest.publish("conductor.local.agent.a3", None, b"{}");
        assert!(!came.refusals.is_empty(), "{came:?}");
        assert!(guest.subscribe("_INBOX.me", 1).refusals.is_empty());
        let (user_key, _) = conductor_access::creds::new_user().unwrap();
        let request = json!({"token": token.jwt, "user_key": user_key}).to_string();
        for expected in ["token", "refused"] {
            guest.put(
                "conductor.local.credential.a3",
                Some("_INBOX.me"),
                request.as_bytes(),
            );
            let came = guest.hear(PATIENCE);
            assert!(
                came.messages[0].1.contains(expected),
                "{expected}: {came:?}"
            );
        }
        // Another agent's token, over a1's own connection.
        let mut a1 = self.attacker("a1");
        assert!(a1.subscribe("_INBOX.me", 1).refusals.is_empty());
        let theirs = json!({"token": self.creds("a2").jwt, "user_key": user_key}).to_string();
        a1.put(
            "conductor.local.credential.a1",
            Some("_INBOX.me"),
            theirs.as_bytes(),
        );
        let came = a1.hear(PATIENCE);
        assert!(came.messages[0].1.contains("refused"), "{came:?}");
        // One that has expired.
        let a1_id = "a1".parse().unwrap();
        let expired = self
            .keys
            .agent_credentials(&a1_id, Some(now_s() - 10), now_s() - 100)
            .unwrap();
        assert!(Attacker::connect(&self.url, &expired).is_err());
        // Tokens say whole seconds: what is revoked was issued before this one.
        let creds = self.creds("a1");
        until(|| {
            (now_s() > issued(&creds))
                .then_some(())
                .ok_or("another second".to_owned())
        })
        .await;
        self.system
            .cli(&["agent", "revoke", "a1", "--keys", &keys])
            .await
            .ok();
        let cut = a1.hear(PATIENCE);
        assert!(
            cut.is_closed || !cut.refusals.is_empty(),
            "the servers cut its link: {cut:?}"
        );
        assert!(
            Attacker::connect(&self.url, &creds).is_err(),
            "nor is it let in again"
        );
        6
    }
}

fn issued(creds: &Credentials) -> u64 {
    conductor_access::jwt::verify(&creds.jwt).unwrap()["iat"]
        .as_u64()
        .unwrap()
}
