//! A program under its reaper.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::time::Instant;

use crate::dirs::AttemptDirs;
use crate::input::Input;
use crate::reaper::{self, INTERRUPT, Status, TERMINATE};

/// How often in a row nothing must be found of a tree whose reaper was killed.
const QUIET_LOOKS: u32 = 10;

/// What to start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Launch {
    /// The program; looked up on the launch's own PATH.
    pub program: String,
    /// Its arguments.
    pub args: Vec<String>,
    /// Its whole environment.
    pub env: BTreeMap<String, String>,
    /// What it reads on standard input.
    pub stdin: Input,
    /// Where it begins.
    pub cwd: PathBuf,
    /// Files that are there before, by path relative to the attempt's own directory.
    pub files: BTreeMap<PathBuf, Vec<u8>>,
}

/// How the reaper is started.
#[derive(Clone, Debug)]
pub enum ReaperProgram {
    /// A binary with the hidden subcommand.
    Subcommand(PathBuf),
    /// A binary that is nothing but the reaper.
    Binary(PathBuf),
}

/// A program that runs.
#[derive(Debug)]
pub struct Process {
    reaper: Child,
    control: Option<ChildStdin>,
    marker: String,
    status: PathBuf,
}

/// Marks everything that belongs to a lease, for the sweep.
pub fn marker(lease: &str) -> String {
    format!("CONDUCTOR_LEASE={lease}")
}

impl Process {
    /// Starts `launch` for `lease`; its outputs are handed to the caller.
    pub fn start(
        launch: &Launch,
        dirs: &AttemptDirs,
        lease: &str,
        reaper: &ReaperProgram,
    ) -> Result<(Self, ChildStdout, ChildStderr), String> {
        let cwd = working_dir(&launch.cwd, &dirs.workspace)?;
        let program = find(&launch.program, &launch.env, cwd)?;
        let mut command = match reaper {
            ReaperProgram::Subcommand(binary) => {
                let mut command = Command::new(binary);
                command.arg(reaper::SUBCOMMAND);
                command
            }
            ReaperProgram::Binary(binary) => Command::new(binary),
        };
        command
            .arg(&dirs.stdin)
            .arg(&dirs.status)
            .arg(program)
            .args(&launch.args);
        command
            .env_clear()
            .envs(&launch.env)
            .env("CONDUCTOR_LEASE", lease);
        command.current_dir(cwd).process_group(0);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command
            .spawn()
            .map_err(|e| format!("the reaper does not start: {e}"))?;
        let control = child.stdin.take();
        let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
            return Err("its outputs are not there".to_owned());
        };
        let status = dirs.status.clone();
        Ok((
            Self {
                reaper: child,
                control,
                marker: marker(lease),
                status,
            },
            stdout,
            stderr,
        ))
    }

    /// Interrupts it (SIGINT to its group).
    pub async fn interrupt(&mut self) {
        self.tell(INTERRUPT).await;
    }

    /// Asks it to end (SIGTERM to its group).
    pub async fn terminate(&mut self) {
        self.tell(TERMINATE).await;
    }

    /// Kills its whole tree: the reaper does so when the pipe ends. Returns whether it had
    /// not been told before.
    pub fn kill(&mut self) -> bool {
        self.control.take().is_some()
    }

    /// Kills a reaper that does not do as it is told.
    pub fn kill_reaper(&mut self) {
        // It may have ended at this very moment.
        let _ = self.reaper.start_kill();
    }

    async fn tell(&mut self, word: u8) {
        if let Some(control) = &mut self.control {
            // A reaper that has ended needs telling nothing.
            let _ = control.write_all(&[word]).await;
        }
    }

    /// Returns once the reaper has ended and nothing of its tree is left, but not before
    /// `not_before`.
    pub async fn leave_nothing(&mut self, not_before: Instant) {
        tokio::time::sleep_until(not_before).await;
        // Of a child of ours there is always a status to be had.
        let _ = self.reaper.wait().await;
        if self.status.exists() {
            return;
        }
        // The reaper itself was killed, so what it kept has to be found. A process that is
        // just becoming another program shows no environment, so one look is not enough.
        let mut quiet = 0;
        while quiet < QUIET_LOOKS {
            quiet = if reaper::sweep(&self.marker) > 0 {
                0
            } else {
                quiet + 1
            };
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// How it ended; by then nothing of its tree is left.
    pub async fn wait(&mut self) -> Status {
        self.leave_nothing(Instant::now()).await;
        let status = std::fs::read(&self.status).ok();
        let status = status.and_then(|s| serde_json::from_slice(&s).ok());
        status.unwrap_or(Status::Signalled(9))
    }
}

/// The directory the program starts in. The workspace begins empty, so one inside it is
/// made; any other must be there.
fn working_dir<'c>(cwd: &'c Path, workspace: &Path) -> Result<&'c Path, String> {
    if cwd.starts_with(workspace) {
        std::fs::create_dir_all(cwd).map_err(|e| format!("cannot make {}: {e}", cwd.display()))?;
    }
    if cwd.is_dir() {
        Ok(cwd)
    } else {
        Err(format!(
            "its working directory {} is not there; name one that is, or none",
            cwd.display()
        ))
    }
}

/// The program's path, looked up as the program itself would.
fn find(program: &str, env: &BTreeMap<String, String>, cwd: &Path) -> Result<PathBuf, String> {
    if program.contains('/') {
        return Ok(cwd.join(program));
    }
    let path = env.get("PATH").map(String::as_str).unwrap_or_default();
    std::env::split_paths(path)
        .map(|dir| dir.join(program))
        .find(|candidate| candidate.is_file())
        .ok_or_else(|| {
            format!("the program {program:?} is not on the agent's PATH ({path}); install it or name its full path")
        })
}
