//! The nats-servers, one or three, and the links between them.

use std::path::PathBuf;
use std::time::Duration;

use conductor_harness::server::{free_ports, start};
use conductor_harness::{Link, PATIENCE, Proxy, plain};
use conductor_nats::{Cluster, Server, ServerConfig};
use tempfile::TempDir;

use crate::disk::Disk;

/// Which servers there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Topology {
    /// One server.
    One,
    /// Three in a cluster; every stream on all of them.
    Three,
}

impl Topology {
    /// How many servers.
    pub(crate) fn nodes(self) -> usize {
        match self {
            Self::One => 1,
            Self::Three => 3,
        }
    }

    /// For people.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::One => "one node",
            Self::Three => "three nodes",
        }
    }
}

/// The link by which one node dials another.
#[derive(Debug)]
struct Route {
    from: usize,
    to: usize,
    proxy: Proxy,
}

/// The servers.
#[derive(Debug)]
pub(crate) struct Ground {
    /// The servers; the first has its store on `disk`.
    pub(crate) nodes: Vec<Server>,
    /// The first one's disk.
    pub(crate) disk: Disk,
    routes: Vec<Route>,
    // Dropped after the servers that write in it.
    dir: TempDir,
}

impl Ground {
    /// Starts the servers; every route goes through a link of its own.
    pub(crate) async fn start(topology: Topology) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let disk = Disk::new(&dir.path().join("n0").join("store"));
        let n = topology.nodes();
        let ports = free_ports(n);
        let mut routes = Vec::new();
        for from in 0..n {
            for to in (0..n).filter(|to| *to != from) {
                let proxy = Proxy::to(ports[to]).await;
                routes.push(Route { from, to, proxy });
            }
        }
        let configs = (0..n).map(|node| {
            let home = dir.path().join(format!("n{node}"));
            std::fs::create_dir_all(&home).expect("a directory for the node");
            let mut config = ServerConfig::standalone(format!("n{node}"), home.join("store"));
            let peers = routes.iter().filter(|r| r.from == node);
            config.cluster = (n > 1).then(|| Cluster {
                port: ports[node],
                peers: peers.map(|r| r.proxy.port()).collect(),
                is_hidden: true,
                tls: None,
            });
            (config, home)
        });
        let configs: Vec<(ServerConfig, PathBuf)> = configs.collect();
        // A node answers as healthy only once a majority is there, so they start together.
        let nodes = tokio::task::block_in_place(|| {
            std::thread::scope(|scope| {
                let starting = configs
                    .into_iter()
                    .map(|(config, home)| scope.spawn(move || start(config, &home)));
                let starting: Vec<_> = starting.collect();
                let started = starting.into_iter().map(|s| s.join().expect("it starts"));
                started.collect()
            })
        });
        Self {
            nodes,
            disk,
            routes,
            dir,
        }
    }

    /// Every node's address, past all links.
    pub(crate) fn urls(&self) -> String {
        let urls: Vec<String> = self.nodes.iter().map(Server::url).collect();
        urls.join(",")
    }

    /// The port of every node.
    pub(crate) fn ports(&self) -> Vec<u16> {
        let port = |n: &Server| n.url().rsplit(':').next().and_then(|p| p.parse().ok());
        self.nodes.iter().filter_map(port).collect()
    }

    /// Changes every link from and to a node.
    pub(crate) fn isolate(&self, node: usize, link: Link) {
        for route in &self.routes {
            if route.from == node || route.to == node {
                route.proxy.set(link);
            }
        }
    }

    /// Kills nodes.
    pub(crate) fn kill(&mut self, which: &[usize]) {
        tokio::task::block_in_place(|| which.iter().for_each(|n| self.nodes[*n].kill()));
    }

    /// Starts nodes again that have ended, all at once.
    pub(crate) fn start_again(&mut self, which: &[usize]) {
        let nodes = self.nodes.iter_mut().enumerate();
        let dead: Vec<&mut Server> = nodes
            .filter(|(n, _)| which.contains(n))
            .map(|(_, s)| s)
            .collect();
        tokio::task::block_in_place(|| {
            std::thread::scope(|scope| {
                for node in dead {
                    scope.spawn(|| node.start_again(PATIENCE).unwrap_or_else(|e| panic!("{e}")));
                }
            });
        });
    }

    /// Stops a node in an orderly way.
    pub(crate) fn stop(&mut self, node: usize) {
        tokio::task::block_in_place(|| self.nodes[node].stop(Duration::from_secs(10)));
    }

    /// Restarts a node that does not call itself well: a stream that met a write error takes
    /// nothing more until then, also when there is room again.
    pub(crate) fn mend(&mut self, node: usize) -> bool {
        let server = &mut self.nodes[node];
        let page = plain::http_get(&server.monitor_url(), "/healthz").unwrap_or_default();
        let is_well = page.contains("\"ok\"");
        if !is_well {
            tokio::task::block_in_place(|| {
                server.stop(Duration::from_secs(5));
                server
                    .start_again(PATIENCE)
                    .unwrap_or_else(|e| panic!("{e}"));
            });
        }
        !is_well
    }

    /// Where a node keeps the messages of a stream.
    pub(crate) fn messages_of(&self, node: usize, stream: &str) -> PathBuf {
        let store = self.dir.path().join(format!("n{node}")).join("store");
        let streams = store.join("jetstream").join("$G").join("streams");
        streams.join(stream).join("msgs")
    }

    /// The end of what a node said.
    pub(crate) fn said(&self, node: usize) -> String {
        let log = self.dir.path().join(format!("n{node}/nats-server.log"));
        std::fs::read(log).map_or_else(|e| e.to_string(), |b| crate::tail(&b, 25))
    }
}
