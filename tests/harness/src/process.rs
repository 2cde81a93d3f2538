//! Processes of ours, and what can be done to them.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use conductor_nats::guard::GuardProgram;
use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use crate::wait::until;
use crate::{PATIENCE, binary};

/// A running `conductor`. Dropped, it is killed; it dies with the test process in any case.
#[derive(Debug)]
pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `conductor` with these arguments and environment; what it says goes into
    /// files in `dir`.
    pub fn start(args: &[&str], env: &[(&str, &str)], dir: &Path) -> Self {
        Self::start_in(args, env, dir, Path::new("."))
    }

    /// The same, in a working directory.
    pub fn start_in(args: &[&str], env: &[(&str, &str)], dir: &Path, cwd: &Path) -> Self {
        let log = dir.join(format!("{}.log", uuid::Uuid::new_v4()));
        let stderr = File::create(&log).expect("a log file");
        let stdout = File::create(log.with_extension("out")).expect("an output file");
        let guard = GuardProgram::Binary(binary::conductor().to_owned());
        // The guard's death signal follows the spawning thread; tests end on that thread.
        let mut command = guard.command(binary::conductor());
        command
            .current_dir(cwd)
            .args(args)
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(stderr);
        clean_env(&mut command);
        command.envs(env.iter().copied());
        let child = command.spawn().expect("conductor starts");
        Self { child, log }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it said on standard error so far.
    pub fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Waits until it has said something.
    pub async fn says(&self, what: &str) {
        until(|| {
            let said = self.said();
            if said.contains(what) {
                Ok(())
            } else {
                Err(format!("{what:?} in\n{said}"))
            }
        })
        .await;
    }

    /// `kill -9`.
    pub fn kill9(&mut self) {
        self.signal(Signal::KILL);
        let _ = self.child.wait();
    }

    /// SIGTERM, and waits for the end.
    pub async fn terminate(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.ended().await
    }

    /// SIGSTOP.
    pub fn freeze(&mut self) {
        self.signal(Signal::STOP);
    }

    /// SIGCONT.
    pub fn thaw(&mut self) {
        self.signal(Signal::CONT);
    }

    /// Waits for its end.
    pub async fn ended(&mut self) -> ExitStatus {
        until(|| {
            let status = self.child.try_wait().expect("the child can be waited for");
            status.ok_or_else(|| format!("its end; it said:\n{}", self.said()))
        })
        .await
    }

    fn signal(&mut self, signal: Signal) {
        // Once it has ended, its number may be another's.
        if matches!(self.child.try_wait(), Ok(Some(_))) {
            return;
        }
        let _ = kill_process(pid(self.child.id()), signal);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill9();
        if std::thread::panicking() {
            let said = self.said();
            let tail: Vec<&str> = said.lines().rev().take(40).collect();
            for line in tail.iter().rev() {
                eprintln!("  | {line}");
            }
        }
    }
}

fn pid(raw: u32) -> Pid {
    i32::try_from(raw)
        .ok()
        .and_then(Pid::from_raw)
        .expect("a process id")
}

/// Whether a process is there and no zombie.
pub fn is_alive(raw: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{raw}/stat")).unwrap_or_default();
    let is_zombie = status
        .rsplit(')')
        .next()
        .is_some_and(|s| s.trim_start().starts_with('Z'));
    test_kill_process(pid(raw)).is_ok() && !is_zombie
}

/// Waits until a process has gone.
pub async fn gone(raw: u32) {
    until(|| {
        let name = std::fs::read_to_string(format!("/proc/{raw}/cmdline")).unwrap_or_default();
        if is_alive(raw) {
            Err(format!("the end of {raw} ({name:?})"))
        } else {
            Ok(())
        }
    })
    .await;
}

/// All living descendants of a process.
pub fn descendants(of: u32) -> Vec<u32> {
    let mut parents: Vec<(u32, u32)> = Vec::new();
    for entry in std::fs::read_dir("/proc")
        .expect("there is /proc")
        .flatten()
    {
        let Ok(child) = entry.file_name().to_string_lossy().parse::<u32>() else {
            continue;
        };
        let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        let after_name = stat.rsplit(')').next().unwrap_or_default();
        if let Some(parent) = after_name
            .split_whitespace()
            .nth(1)
            .and_then(|p| p.parse().ok())
        {
            parents.push((child, parent));
        }
    }
    let mut found = vec![of];
    let mut next = 0;
    while let Some(parent) = found.get(next).copied() {
        found.extend(
            parents
                .iter()
                .filter(|(_, p)| *p == parent)
                .map(|(c, _)| *c),
        );
        next += 1;
    }
    found.remove(0);
    found
}

/// All living descendants of a process, once there are so many.
pub async fn descendants_at_least(of: u32, n: usize) -> Vec<u32> {
    until(|| {
        let found = descendants(of);
        if found.len() >= n {
            Ok(found)
        } else {
            Err(format!("{n} descendants, not {found:?}"))
        }
    })
    .await
}

/// What a finished command left.
#[derive(Debug)]
pub struct Ran {
    /// Exit code.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Ran {
    /// The output, if all went well.
    pub fn ok(self) -> String {
        assert_eq!(
            self.code, 0,
            "stdout:\n{}\nstderr:\n{}",
            self.stdout, self.stderr
        );
        self.stdout
    }

    /// The output as JSON, if all went well.
    pub fn json(self) -> serde_json::Value {
        let text = self.ok();
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e} in {text}"))
    }
}

/// Starts `conductor` with pipes to its standard input, output and error; dropped, it is killed.
pub fn piped(args: &[String], env: &[(&str, &str)]) -> tokio::process::Child {
    let mut command = Command::new(binary::conductor());
    command.args(args);
    clean_env(&mut command);
    command.envs(env.iter().copied());
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut command = tokio::process::Command::from(command);
    let child = command.kill_on_drop(true).spawn();
    child.expect("conductor starts")
}

/// Runs `conductor` to its end.
pub async fn run(args: &[String], env: &[(&str, &str)], stdin: &[u8]) -> Ran {
    use tokio::io::AsyncWriteExt;
    let mut child = piped(args, env);
    let mut pipe = child.stdin.take().expect("a pipe");
    // It may end without reading all of it.
    let _ = pipe.write_all(stdin).await;
    drop(pipe);
    let output = tokio::time::timeout(PATIENCE, child.wait_with_output()).await;
    let output = output.unwrap_or_else(|_| panic!("conductor {args:?} does not end"));
    let output = output.expect("it can be waited for");
    Ran {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Settings of the person who runs the tests must not change what they see.
fn clean_env(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        let is_ours = ["CONDUCTOR_", "OTEL_"]
            .iter()
            .any(|of_us| name.to_string_lossy().starts_with(of_us));
        if is_ours && name != conductor_nats::locate::ENV {
            command.env_remove(name);
        }
    }
    command.env("NO_COLOR", "1").env("COLUMNS", "100");
    // Tests run side by side.
    command.env("CONDUCTOR_METRICS_ADDR", "127.0.0.1:0");
    // Most tasks of tests touch files of the test; those about sandboxes say so.
    command.env("CONDUCTOR_SANDBOX", "none");
}
