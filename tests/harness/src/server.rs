//! Servers for tests.

use std::net::TcpListener;
use std::path::Path;
use std::time::Duration;

use conductor_nats::guard::GuardProgram;
use conductor_nats::{Cluster, Server, ServerConfig, locate};
use tempfile::TempDir;

use crate::{PATIENCE, binary};

/// One durable server with a store of its own.
#[derive(Debug)]
pub struct TestServer {
    /// The server, to be stopped, killed or frozen.
    pub server: Server,
    // Dropped after the server that writes in it.
    dir: TempDir,
}

impl TestServer {
    /// Starts one that syncs every write.
    pub fn start() -> Self {
        Self::start_with(|_| {})
    }

    /// Starts one with a changed configuration.
    pub fn start_with(change: impl FnOnce(&mut ServerConfig)) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut config = ServerConfig::standalone("test", dir.path().join("store"));
        change(&mut config);
        let server = start(config, dir.path());
        Self { server, dir }
    }

    /// Where clients connect.
    pub fn url(&self) -> String {
        self.server.url()
    }

    /// Its directory.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Starts it again after it was stopped or killed.
    pub fn start_again(&mut self) {
        self.server
            .start_again(PATIENCE)
            .expect("the server starts again");
    }
}

/// Starts a server with its files in `dir`; dropped, it is killed.
pub fn start(config: ServerConfig, dir: &Path) -> Server {
    let binary = locate().unwrap_or_else(|e| panic!("{e}"));
    let guard = GuardProgram::Binary(binary::conductor().to_owned());
    Server::start(config, &binary, dir, guard, PATIENCE).unwrap_or_else(|e| panic!("{e}"))
}

/// Three servers in a cluster.
#[derive(Debug)]
pub struct TestCluster {
    /// The nodes.
    pub nodes: Vec<Server>,
    dir: TempDir,
}

impl TestCluster {
    /// Starts three nodes that know each other.
    pub fn start() -> Self {
        Self::start_with(|_, _| {})
    }

    /// The same with changed configurations, by number of the node.
    pub fn start_with(change: impl Fn(usize, &mut ServerConfig) + Sync) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let ports = free_ports(3);
        // A node answers as healthy only once a majority is there, so they start together.
        let nodes = std::thread::scope(|scope| {
            let starting: Vec<_> = ports
                .iter()
                .enumerate()
                .map(|(n, port)| {
                    let home = dir.path().join(format!("n{n}"));
                    std::fs::create_dir_all(&home).expect("a directory for the node");
                    let mut config = ServerConfig::standalone(format!("n{n}"), home.join("store"));
                    config.cluster = Some(Cluster {
                        port: *port,
                        peers: ports.clone(),
                        is_hidden: false,
                        tls: None,
                    });
                    change(n, &mut config);
                    scope.spawn(move || start(config, &home))
                })
                .collect();
            starting
                .into_iter()
                .map(|s| s.join().expect("the node starts"))
                .collect()
        });
        Self { nodes, dir }
    }

    /// Every node's address, for clients.
    pub fn urls(&self) -> String {
        self.nodes
            .iter()
            .map(Server::url)
            .collect::<Vec<_>>()
            .join(",")
    }

    /// Where the nodes have their files.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The node that leads a stream, as its monitoring page says.
    pub fn leader_of(&self, stream: &str) -> Option<usize> {
        self.nodes.iter().position(|node| {
            let path = "/jsz?streams=true&stream-leader-only=true&acc=$G";
            let page = crate::plain::http_get(&node.monitor_url(), path).unwrap_or_default();
            page.contains(&format!("\"name\": \"{stream}\""))
        })
    }
}

/// Ports that were free a moment ago.
pub fn free_ports(n: usize) -> Vec<u16> {
    let listeners: Vec<TcpListener> = (0..n)
        .map(|_| TcpListener::bind("127.0.0.1:0").expect("a free port"))
        .collect();
    listeners
        .iter()
        .map(|l| l.local_addr().expect("an address").port())
        .collect()
}

/// How long a lock may outlive its holder in tests.
pub const LOCK_TTL: Duration = Duration::from_secs(2);
