//! Encrypted links to a real server: an authority of one's own, certificates on both ends, and what
//! is refused.

use std::path::{Path, PathBuf};

use conductor_domain::state::Outcome;
use conductor_eventlog::jetstream::{Connect, Tls};
use conductor_harness::otlp::Authority;
use conductor_harness::process;
use conductor_harness::server::{TestCluster, free_ports};
use conductor_harness::system::{cell, sh};
use conductor_harness::{Story, System, TestServer, plain, until, until_asked};
use conductor_nats::{Leaf, TlsFiles};
use conductor_protocol::subject::Role;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

/// A server with a certificate, and the files of those who may reach it.
struct Secured {
    server: TestServer,
    authority: Authority,
    dir: TempDir,
}

impl Secured {
    /// `wants_ours` says whether clients need a certificate, too.
    fn up(wants_ours: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::new();
        authority.write(dir.path());
        let (cert, key) = authority.write_for("127.0.0.1", dir.path(), "server");
        let client_ca = wants_ours.then(|| dir.path().join("ca.pem"));
        let server = TestServer::start_with(|config| {
            config.tls = Some(TlsFiles {
                cert,
                key,
                client_ca,
            });
        });
        Self {
            server,
            authority,
            dir,
        }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn ca(&self) -> Tls {
        Tls {
            ca: Some(self.file("ca.pem")),
            ..Tls::default()
        }
    }

    fn both(&self) -> Tls {
        let identity = (self.file("client.pem"), self.file("client.key"));
        Tls {
            identity: Some(identity),
            ..self.ca()
        }
    }

    async fn system(&self, tls: Tls) -> System {
        let connect = Connect::to(self.server.url(), "test", cell());
        System::by(Connect { tls, ..connect }).await
    }

    /// Has the server read its files anew.
    fn reload(&self) {
        let pid = Pid::from_raw(self.server.server.pid()).unwrap();
        kill_process(pid, Signal::HUP).unwrap();
    }

    async fn cli_of(&self, flags: &[(&str, PathBuf)]) -> process::Ran {
        let flags: Vec<_> = flags.iter().map(|(f, p)| (*f, p.as_path())).collect();
        self.cli(&flags).await
    }

    /// What a command of the CLI says that is given these flags.
    async fn cli(&self, flags: &[(&str, &Path)]) -> process::Ran {
        let url = self.server.url();
        let flags = flags
            .iter()
            .flat_map(|(flag, file)| [(*flag).to_owned(), file.display().to_string()]);
        let mut args = vec!["--nats-url".to_owned(), url];
        args.extend(flags);
        args.extend(["task", "list"].map(str::to_owned));
        process::run(&args, &[], b"").await
    }
}

/// Runs a task through services and agents of their own, and asks for it with the CLI.
async fn works(mut system: System) {
    system.start_split().await;
    let mut story = system.story().await;
    let id = system.submit(sh("echo hi")).await;
    assert_eq!(story.outcome(id).await, Outcome::Succeeded);
    let said = system.cli(&["task", "logs", &id.to_string()]).await.ok();
    assert_eq!(said, "hi\n");
    system.assert_replay_agrees().await;
}

#[tokio::test]
async fn everything_works_over_links_that_an_authority_of_ones_own_vouches_for() {
    let secured = Secured::up(false);
    works(secured.system(secured.ca()).await).await;
}

#[tokio::test]
async fn everything_works_where_servers_want_certificates_too() {
    let secured = Secured::up(true);
    works(secured.system(secured.both()).await).await;
}

/// Certificates are read at each connection, and by the server when it is told to: for a while both
/// authorities are trusted, then the new one alone.
#[tokio::test]
async fn certificates_are_replaced_while_tasks_run() {
    let mut secured = Secured::up(true);
    let mut system = secured.system(secured.both()).await;
    system.start_split().await;
    let mut story = system.story().await;
    let leads = |s: &Story| Some(s.state().epoch(Role::Orchestrator)).filter(|e| *e > 0);
    let before = story.until("a leader", leads).await;
    let old = tempfile::tempdir().unwrap();
    let (cert, key) = secured.authority.write_for("old", old.path(), "old");
    let (ca, next) = (secured.file("ca.pem"), Authority::new());
    let first = std::fs::read_to_string(&ca).unwrap();
    next.write(secured.dir.path());
    let second = std::fs::read_to_string(&ca).unwrap();
    let (next_cert, next_key) = next.write_for("127.0.0.1", secured.dir.path(), "server");
    let with = |ca: &PathBuf, cert: &PathBuf, key: &PathBuf| {
        let flags = [("--tls-ca", ca), ("--tls-cert", cert), ("--tls-key", key)];
        flags.map(|(flag, file)| (flag, file.clone()))
    };
    let next_ca = old.path().join("next.pem");
    std::fs::write(&next_ca, &second).unwrap();
    let next_alone = with(&next_ca, &next_cert, &next_key);
    let old_alone = with(&ca, &cert, &key);
    assert_eq!(secured.cli_of(&next_alone).await.code, 4, "not yet");
    std::fs::write(&ca, format!("{first}{second}")).unwrap();
    secured.reload();
    until_asked(async || match secured.cli_of(&next_alone).await {
        ran if ran.code == 0 => Ok(()),
        ran => Err(ran.stderr),
    })
    .await;
    assert_eq!(secured.cli_of(&old_alone).await.code, 0, "both are good");
    let gate = old.path().join("gate");
    let held = format!("while [ ! -e {} ]; do sleep 0.05; done", gate.display());
    let held = system.submit(sh(&held)).await;
    story.told(held, "attempt.started").await;
    std::fs::write(&ca, &second).unwrap();
    secured.reload();
    until_asked(async || match secured.cli_of(&old_alone).await {
        ran if ran.code == 4 => Ok(()),
        ran => Err(format!("the old one is still good: {ran:?}")),
    })
    .await;
    let id = system.submit(sh("true")).await;
    assert_eq!(story.outcome(id).await, Outcome::Succeeded);
    assert_eq!(leads(&story), Some(before), "nobody's term has ended by it");
    // Everybody's link is cut: services and agents are back with what is in the files now.
    secured.server.server.kill();
    secured.server.start_again();
    std::fs::write(&gate, "").unwrap();
    let id = system.submit(sh("true")).await;
    for id in [held, id] {
        assert_eq!(story.outcome(id).await, Outcome::Succeeded);
    }
}

#[tokio::test]
async fn a_server_that_nobody_known_vouches_for_is_not_trusted() {
    let secured = Secured::up(false);
    let other = tempfile::tempdir().unwrap();
    Authority::new().write(other.path());
    let other = other.path().join("ca.pem");
    for flags in [&[("--tls-ca", other.as_path())][..], &[]] {
        let ran = secured.cli(flags).await;
        assert_eq!(ran.code, 4, "{ran:?}");
        let said = &ran.stderr;
        assert!(
            said.contains("is not trusted: ") && said.contains("check --tls-ca"),
            "{said}"
        );
    }
    // Nor does a service wait for ever.
    let mut system = secured.system(secured.ca()).await;
    system.tls.ca = Some(other);
    system.start("agent", &["agent", "--name", "a1"]);
    let status = system.process("agent").ended().await;
    let said = system.process("agent").said();
    assert_eq!(status.code(), Some(4), "{said}");
    assert!(said.contains("is not trusted"), "{said}");
}

#[tokio::test]
async fn a_server_refuses_whom_nobody_known_vouches_for() {
    let secured = Secured::up(true);
    let ca = secured.file("ca.pem");
    let other = tempfile::tempdir().unwrap();
    let (cert, key) = Authority::new().write_for("client", other.path(), "client");
    let none = [("--tls-ca", ca.as_path())];
    let foreign = [none[0], ("--tls-cert", &cert), ("--tls-key", &key)];
    for flags in [&none[..], &foreign] {
        let ran = secured.cli(flags).await;
        assert_eq!(ran.code, 4, "{ran:?}");
        assert!(
            ran.stderr.contains("is not trusted") && ran.stderr.contains("--tls-cert"),
            "{}",
            ran.stderr
        );
    }
    // One of ours is let in, whatever name it has.
    let (cert, key) = secured
        .authority
        .write_for("another", other.path(), "another");
    let ours = [none[0], ("--tls-cert", &cert), ("--tls-key", &key)];
    let ran = secured.cli(&ours).await;
    assert!(!ran.stderr.contains("is not trusted"), "{}", ran.stderr);
}

#[tokio::test]
async fn what_is_not_encrypted_leaves_this_machine_only_by_name() {
    let server = TestServer::start();
    // The same place, but nothing in it says that it is this machine.
    let elsewhere = server.url().replace("127.0.0.1", "127.1");
    let list = |more: &[&str]| {
        let mut args = vec!["--nats-url".to_owned(), elsewhere.clone()];
        args.extend(more.iter().map(|a| (*a).to_owned()));
        args.extend(["task", "list"].map(str::to_owned));
        async move { process::run(&args, &[], b"").await }
    };
    let refused = list(&[]).await;
    assert_eq!(refused.code, 2, "{refused:?}");
    assert!(
        refused.stderr.contains("is not encrypted") && refused.stderr.contains("--allow-plaintext"),
        "{}",
        refused.stderr
    );
    let accepted = list(&["--allow-plaintext"]).await;
    assert!(
        !accepted.stderr.contains("is not encrypted"),
        "{}",
        accepted.stderr
    );
    // An authority is no remark: who names one wants nothing readable.
    let dir = tempfile::tempdir().unwrap();
    Authority::new().write(dir.path());
    let ca = dir.path().join("ca.pem").display().to_string();
    let plain = list(&["--allow-plaintext", "--tls-ca", &ca]).await;
    assert_eq!(plain.code, 4, "{plain:?}");
}

/// Servers between machines: whoever links with one shows a certificate, and is shown one.
fn mutual(authority: &Authority, dir: &Path, name: &str) -> TlsFiles {
    let (cert, key) = authority.write_for("127.0.0.1", dir, name);
    TlsFiles {
        cert,
        key,
        client_ca: Some(dir.join("ca.pem")),
    }
}

#[tokio::test]
async fn the_nodes_of_a_cluster_know_each_other_by_certificates() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    authority.write(dir.path());
    // A node is well only once a majority has found it.
    let cluster = TestCluster::start_with(|n, config| {
        let links = config.cluster.as_mut().unwrap();
        links.tls = Some(mutual(&authority, dir.path(), &format!("n{n}")));
    });
    let routes = plain::http_get(&cluster.nodes[0].monitor_url(), "/routez").unwrap();
    let routes: Value = serde_json::from_str(&routes).unwrap();
    assert!(routes["num_routes"].as_u64() > Some(0), "{routes:#}");
    let mut system = System::at(cluster.urls()).await;
    system.start_split().await;
    let mut story = system.story().await;
    let id = system.submit(sh("true")).await;
    assert_eq!(story.outcome(id).await, Outcome::Succeeded);
}

/// Servers of two regions: a leaf node that the hub's authority vouches for is linked, and one that
/// another vouches for is not.
#[tokio::test]
async fn servers_of_regions_link_only_with_certificates_of_one_authority() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    authority.write(dir.path());
    let [port] = free_ports(1)[..] else {
        panic!("a port")
    };
    let hub = TestServer::start_with(|config| {
        config.leaf = Some(Leaf::Hub(port, mutual(&authority, dir.path(), "hub")));
    });
    let foreign = tempfile::tempdir().unwrap();
    let other = Authority::new();
    other.write(foreign.path());
    let links = || {
        let page = plain::http_get(&hub.server.monitor_url(), "/leafz").unwrap();
        let page: Value = serde_json::from_str(&page).unwrap();
        page["leafnodes"].as_u64().unwrap()
    };
    // It trusts the hub, but nobody whom the hub knows vouches for it.
    let mut stranger = mutual(&other, foreign.path(), "stranger");
    stranger.client_ca = Some(dir.path().join("ca.pem"));
    let stranger = TestServer::start_with(|config| {
        "stranger".clone_into(&mut config.name);
        config.leaf = Some(Leaf::Remote(port, stranger));
    });
    until(|| {
        let log = std::fs::read_to_string(hub.dir().join("nats-server.log")).unwrap();
        let refused = log
            .lines()
            .find(|l| l.contains("TLS leafnode handshake error"));
        refused.map(str::to_owned).ok_or(log)
    })
    .await;
    assert_eq!(links(), 0);
    let own = mutual(&authority, dir.path(), "own");
    let _own = TestServer::start_with(|config| {
        "own".clone_into(&mut config.name);
        config.leaf = Some(Leaf::Remote(port, own));
    });
    until(|| match links() {
        1 => Ok(()),
        n => Err(format!("one link, not {n}")),
    })
    .await;
    drop(stranger);
}
