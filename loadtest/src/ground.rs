//! The servers of a run, with their stores on the disk of the build directory.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use conductor_nats::guard::GuardProgram;
use conductor_nats::{Cluster, Server, ServerConfig, locate};
use tempfile::TempDir;

use crate::outcome::Outcome;
use crate::plan::{SystemPlan, Target};
use crate::process::conductor;
use crate::usage::Watched;

/// How long a server may take to start.
const START: Duration = Duration::from_secs(60);
/// How long it may take to stop before it is killed.
const STOP: Duration = Duration::from_secs(5);

/// A directory on the disk where the binaries are: what is measured must not be a file
/// system in memory. What runs left behind that were killed is removed.
pub(crate) fn directory() -> Outcome<TempDir> {
    let base = std::env::current_exe()?.with_file_name("loadtest-data");
    std::fs::create_dir_all(&base)?;
    for entry in std::fs::read_dir(&base)?.flatten() {
        let name = entry.file_name();
        let owner = name.to_str().and_then(|n| n.split('-').next());
        let is_alive = owner.is_some_and(|pid| Path::new("/proc").join(pid).exists());
        if !is_alive {
            // Another run may be removing it as well.
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
    let prefix = format!("{}-", std::process::id());
    Ok(tempfile::Builder::new().prefix(&prefix).tempdir_in(base)?)
}

/// Running servers.
#[derive(Debug)]
pub(crate) struct Ground {
    servers: Vec<Server>,
    // Dropped after the servers that write in it.
    dir: TempDir,
}

impl Ground {
    /// Starts one server or a cluster of them.
    pub(crate) fn start(plan: &SystemPlan) -> Outcome<Self> {
        let dir = directory()?;
        let ports = free_ports(plan.replicas)?;
        let homes = (0..plan.replicas).map(|n| dir.path().join(format!("n{n}")));
        let configs: Vec<(ServerConfig, PathBuf)> = homes
            .enumerate()
            .map(|(n, home)| {
                let mut config = ServerConfig::standalone(format!("n{n}"), home.join("store"));
                plan.sync.as_str().clone_into(&mut config.sync_interval);
                config.cluster = ports
                    .get(n)
                    .filter(|_| plan.replicas > 1)
                    .map(|port| Cluster {
                        port: *port,
                        peers: ports.clone(),
                        is_hidden: false,
                        tls: None,
                    });
                (config, home)
            })
            .collect();
        // A node answers as healthy only once a majority is there, so they start together.
        let started: Vec<Outcome<Server>> = std::thread::scope(|scope| {
            let starting: Vec<_> = configs
                .into_iter()
                .map(|(config, home)| scope.spawn(move || start(config, &home)))
                .collect();
            let gone = |_| Err("a thread that starts a server is gone".into());
            starting
                .into_iter()
                .map(|s| s.join().unwrap_or_else(gone))
                .collect()
        });
        let servers: Outcome<Vec<Server>> = started.into_iter().collect();
        Ok(Self {
            servers: servers?,
            dir,
        })
    }

    /// How to reach them.
    pub(crate) fn target(&self) -> Target {
        let urls: Vec<String> = self.servers.iter().map(Server::url).collect();
        Target {
            url: urls.join(","),
            cell: "local".to_owned(),
            credentials: None,
            client: None,
        }
    }

    /// Where the first can be monitored.
    pub(crate) fn monitor_url(&self) -> Option<String> {
        self.servers.first().map(Server::monitor_url)
    }

    /// Where files of the run may be kept.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Their processes.
    pub(crate) fn watched(&self) -> Vec<Watched> {
        let each = self.servers.iter().enumerate();
        each.map(|(n, server)| Watched {
            name: format!("nats-server n{n}"),
            pid: server.pid().unsigned_abs(),
            is_ours: false,
        })
        .collect()
    }

    /// Their commands.
    pub(crate) fn commands(&self) -> Vec<String> {
        let each = 0..self.servers.len();
        each.map(|n| format!("nats-server -c n{n}/nats-server.conf --ports_file_dir n{n}/ports"))
            .collect()
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        self.servers.iter_mut().for_each(|s| s.stop(STOP));
    }
}

fn start(config: ServerConfig, home: &Path) -> Outcome<Server> {
    std::fs::create_dir_all(home)?;
    let guard = GuardProgram::Binary(conductor()?);
    Ok(Server::start(config, &locate()?, home, guard, START)?)
}

/// Ports that were free a moment ago.
fn free_ports(n: usize) -> Outcome<Vec<u16>> {
    let listeners: Result<Vec<TcpListener>, _> =
        (0..n).map(|_| TcpListener::bind("127.0.0.1:0")).collect();
    let ports: Result<Vec<u16>, _> = listeners?
        .iter()
        .map(|l| l.local_addr().map(|a| a.port()))
        .collect();
    Ok(ports?)
}
