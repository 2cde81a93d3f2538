//! A nats-server as a child process.

use std::fs;
use std::io::{self, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::config::{ServerConfig, StoreKeys};
use crate::guard::GuardProgram;
use crate::health::{health, is_unreadable, is_well};

/// The file of its log.
pub(crate) const LOG: &str = "nats-server.log";

/// Go's `GOGC` for a server of ours, unless the environment names one: collect once the heap grew
/// by half, not by a whole. The server keeps what it wrote in the last seconds in memory, and where
/// memory that was never used is slow to get, as on most virtual machines, a heap half the size
/// took the p99 of submit to start at half of the load from 61 ms to 45 ms and cost no throughput
/// (medians of four runs of 15 s).
const GARBAGE_PERCENT: &str = "50";

/// For how long a server that is alone may say so; it has read its streams before it listens.
const READING: Duration = Duration::from_millis(500);

/// Why a server did not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// Its files cannot be written.
    #[error("cannot write {path}: {problem}; free some space or name another directory")]
    Files {
        /// Which.
        path: String,
        /// Why.
        problem: String,
    },
    /// The binary cannot be run.
    #[error("cannot run {binary}: {problem}")]
    Spawn {
        /// Which.
        binary: String,
        /// Why.
        problem: String,
    },
    /// It ended before it was ready.
    #[error("nats-server ended before it was ready ({status}); its last words:\n{log}")]
    Ended {
        /// How.
        status: String,
        /// The end of its log.
        log: String,
    },
    /// It cannot read what it has.
    #[error(
        "nats-server cannot read what it keeps in {path}: {problem}; if that is encrypted, start with \
         its key (--store-key-file), and where it is being changed with the one before, too \
         (--previous-store-key-file)"
    )]
    Unreadable {
        /// Where its files are.
        path: String,
        /// What it says of itself.
        problem: String,
    },
    /// It did not become ready.
    #[error("nats-server was not ready within {waited:?}; its last words:\n{log}")]
    NotReady {
        /// How long was waited.
        waited: Duration,
        /// The end of its log.
        log: String,
    },
}

/// A running nats-server. Dropped, it is killed.
#[derive(Debug)]
pub struct Server {
    config: ServerConfig,
    binary: PathBuf,
    guard: GuardProgram,
    dir: PathBuf,
    pid: Pid,
    exit: mpsc::Receiver<io::Result<ExitStatus>>,
    status: Option<String>,
}

impl Server {
    /// Starts a server with its files in `dir` and waits until JetStream is there. The
    /// ports it chose are kept, also over a restart.
    pub fn start(
        mut config: ServerConfig,
        binary: &Path,
        dir: &Path,
        guard: GuardProgram,
        at_most: Duration,
    ) -> Result<Self, ServerError> {
        let (pid, exit) = spawn(&config, binary, dir, &guard)?;
        let deadline = Instant::now() + at_most;
        let mut server = Self {
            config: config.clone(),
            binary: binary.to_owned(),
            guard,
            dir: dir.to_owned(),
            pid,
            exit,
            status: None,
        };
        let (port, monitor) = server.wait_for_ports(deadline, at_most)?;
        config.port = Some(port);
        config.monitor_port = Some(monitor);
        server.config = config;
        server.wait_healthy(deadline, at_most)?;
        Ok(server)
    }

    /// Where clients connect.
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.config.port.unwrap_or_default())
    }

    /// Where it can be monitored.
    pub fn monitor_url(&self) -> String {
        format!(
            "http://127.0.0.1:{}",
            self.config.monitor_port.unwrap_or_default()
        )
    }

    /// Its process.
    pub fn pid(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// How it ended, if it has.
    pub fn exit_status(&mut self) -> Option<String> {
        if self.status.is_none()
            && let Ok(status) = self.exit.try_recv()
        {
            self.status = Some(describe(status));
        }
        self.status.clone()
    }

    /// Asks it to stop, and kills it where it does not within `grace`.
    pub fn stop(&mut self, grace: Duration) {
        self.signal(Signal::TERM);
        if !self.wait(grace) {
            self.kill();
        }
    }

    /// Kills it, as a power cut would the process.
    pub fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.wait(Duration::from_secs(10));
    }

    /// Freezes it.
    pub fn pause(&mut self) {
        self.signal(Signal::STOP);
    }

    /// Lets it go on.
    pub fn resume(&mut self) {
        self.signal(Signal::CONT);
    }

    /// Starts it again, on the same ports with the same files; it must have ended.
    pub fn start_again(&mut self, at_most: Duration) -> Result<(), ServerError> {
        let (pid, exit) = spawn(&self.config, &self.binary, &self.dir, &self.guard)?;
        self.pid = pid;
        self.exit = exit;
        self.status = None;
        self.wait_healthy(Instant::now() + at_most, at_most)
    }

    /// What it is started with when it is started again.
    pub fn config_mut(&mut self) -> &mut ServerConfig {
        &mut self.config
    }

    fn signal(&mut self, signal: Signal) {
        if self.exit_status().is_none() {
            // It may end at this very moment: then there is nobody to signal.
            let _ = kill_process(self.pid, signal);
        }
    }

    fn wait(&mut self, at_most: Duration) -> bool {
        if self.exit_status().is_none()
            && let Ok(status) = self.exit.recv_timeout(at_most)
        {
            self.status = Some(describe(status));
        }
        self.status.is_some()
    }

    fn wait_for_ports(
        &mut self,
        deadline: Instant,
        at_most: Duration,
    ) -> Result<(u16, u16), ServerError> {
        loop {
            if let Some(ports) = read_ports(&self.dir.join("ports")) {
                return Ok(ports);
            }
            self.pause_or_fail(deadline, at_most)?;
        }
    }

    fn wait_healthy(&mut self, deadline: Instant, at_most: Duration) -> Result<(), ServerError> {
        let port = self.config.monitor_port.unwrap_or_default();
        let mut unreadable_since = None;
        loop {
            let said = health(port).unwrap_or_default();
            if is_well(&said) {
                return Ok(());
            }
            if is_unreadable(&said) && self.config.cluster.is_none() {
                let since = *unreadable_since.get_or_insert_with(Instant::now);
                if since.elapsed() >= READING {
                    // Nobody may have it make what it cannot read anew.
                    self.kill();
                    return Err(ServerError::Unreadable {
                        path: self.config.store_dir.display().to_string(),
                        problem: said.lines().last().unwrap_or_default().to_owned(),
                    });
                }
            } else {
                unreadable_since = None;
            }
            self.pause_or_fail(deadline, at_most)?;
        }
    }

    fn pause_or_fail(&mut self, deadline: Instant, waited: Duration) -> Result<(), ServerError> {
        if let Some(status) = self.exit_status() {
            return Err(ServerError::Ended {
                status,
                log: self.last_words(),
            });
        }
        if Instant::now() >= deadline {
            return Err(ServerError::NotReady {
                waited,
                log: self.last_words(),
            });
        }
        std::thread::sleep(Duration::from_millis(5));
        Ok(())
    }

    fn last_words(&self) -> String {
        let log = fs::read(self.dir.join(LOG)).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().collect();
        let start = lines.len().saturating_sub(12);
        lines.get(start..).unwrap_or_default().join("\n")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

fn describe(status: io::Result<ExitStatus>) -> String {
    match status {
        Ok(status) => match (status.code(), status.signal()) {
            (Some(code), _) => format!("exit code {code}"),
            (None, Some(signal)) => format!("signal {signal}"),
            (None, None) => "unknown".to_owned(),
        },
        Err(e) => e.to_string(),
    }
}

/// Starts the child from a thread that waits for it: the kernel's parent is the thread,
/// and the child dies when that thread does.
fn spawn(
    config: &ServerConfig,
    binary: &Path,
    dir: &Path,
    guard: &GuardProgram,
) -> Result<(Pid, mpsc::Receiver<io::Result<ExitStatus>>), ServerError> {
    let files = |path: &Path, e: io::Error| ServerError::Files {
        path: path.display().to_string(),
        problem: e.to_string(),
    };
    let ports = dir.join("ports");
    // Ports of an earlier run would be taken for this one's.
    let _ = fs::remove_dir_all(&ports);
    fs::create_dir_all(&ports).map_err(|e| files(&ports, e))?;
    let conf = dir.join("nats-server.conf");
    fs::File::create(&conf)
        .and_then(|mut f| f.write_all(config.render().as_bytes()))
        .map_err(|e| files(&conf, e))?;
    let log_path = dir.join(LOG);
    let mut options = fs::OpenOptions::new();
    let log = options
        .create(true)
        .append(true)
        .open(&log_path)
        .map_err(|e| files(&log_path, e))?;
    let log_too = log.try_clone().map_err(|e| files(&log_path, e))?;
    let mut command = guard.command(binary);
    command
        .arg("-c")
        .arg(&conf)
        .arg("--ports_file_dir")
        .arg(&ports);
    if std::env::var_os("GOGC").is_none() {
        command.env("GOGC", GARBAGE_PERCENT);
    }
    command.envs(config.store_keys.iter().flat_map(StoreKeys::variables));
    command.stdin(Stdio::null()).stdout(log).stderr(log_too);
    // A group of its own: Ctrl-C in a terminal must not reach it before we have drained.
    command.process_group(0);
    let (started, pid) = mpsc::channel();
    let (ended, exit) = mpsc::channel();
    let thread = std::thread::Builder::new().name("nats-server".to_owned());
    let spawned = thread.spawn(move || match command.spawn() {
        Ok(mut child) => {
            let _ = started.send(Ok(child.id()));
            let _ = ended.send(child.wait());
        }
        Err(e) => {
            let _ = started.send(Err(e));
        }
    });
    let failed = |problem: String| ServerError::Spawn {
        binary: binary.display().to_string(),
        problem,
    };
    spawned.map_err(|e| failed(e.to_string()))?;
    let pid = pid
        .recv()
        .map_err(|e| failed(e.to_string()))?
        .map_err(|e| failed(e.to_string()))?;
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    Ok((
        pid.ok_or_else(|| failed("it has no process id".to_owned()))?,
        exit,
    ))
}

/// Client and monitoring port from the file the server writes once it listens.
fn read_ports(dir: &Path) -> Option<(u16, u16)> {
    let file = fs::read_dir(dir)
        .ok()?
        .flatten()
        .map(|e| e.path())
        .find(|p| p.extension().is_some_and(|e| e == "ports"))?;
    let ports: serde_json::Value = serde_json::from_slice(&fs::read(file).ok()?).ok()?;
    let port = |kind: &str| -> Option<u16> {
        let url = ports.get(kind)?.get(0)?.as_str()?;
        url.rsplit(':').next()?.trim_end_matches('/').parse().ok()
    };
    Some((port("nats")?, port("monitoring")?))
}
