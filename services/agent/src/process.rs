//! A program under its reaper, in its sandbox.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::time::Instant;

use crate::dirs::{AttemptDirs, write_new};
use crate::input::Input;
use crate::reaper::{self, End, INTERRUPT, Status, TERMINATE};
use crate::sandbox::cgroup::Cgroup;
use crate::sandbox::{Boxing, Start};

mod removal;
mod spawner;

use removal::Removal;

/// How often in a row nothing must be found of a tree whose reaper was killed.
const QUIET_LOOKS: u32 = 10;

/// What to start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Launch {
    /// The program; looked up on the launch's own PATH, inside the sandbox.
    pub program: String,
    /// Its arguments.
    pub args: Vec<String>,
    /// Its whole environment.
    pub env: BTreeMap<String, String>,
    /// What it reads on standard input.
    pub stdin: Input,
    /// Where it begins, inside the sandbox.
    pub cwd: PathBuf,
    /// Files that are there before, by path relative to the attempt's own directory.
    pub files: BTreeMap<PathBuf, Vec<u8>>,
}

/// A program that runs.
#[derive(Debug)]
pub struct Process {
    reaper: Child,
    control: Option<ChildStdin>,
    dirs: AttemptDirs,
    marker: String,
    removal: Removal,
    cgroup: Option<Arc<Cgroup>>,
    /// What ends its control group, once that has begun.
    ending: Option<tokio::task::JoinHandle<()>>,
    had_oom: bool,
    is_gone: bool,
}

/// Marks everything that belongs to a lease, for the sweep.
pub fn marker(lease: &str) -> String {
    format!("CONDUCTOR_LEASE={lease}")
}

impl Process {
    /// Starts `launch` as `boxing` says, its input in place ([`AttemptDirs::place`]); its outputs are handed to
    /// the caller. Several may run in the same directories, one after the other.
    pub fn start(
        launch: &Launch,
        dirs: &AttemptDirs,
        boxing: &Boxing,
    ) -> Result<(Self, ChildStdout, ChildStderr), String> {
        let start = boxing.start(launch, dirs);
        prepare(dirs, &start)?;
        let cgroup = match &boxing.cgroups {
            Some(groups) => Some(groups.create(&boxing.lease, &boxing.limits).map_err(|e| {
                format!(
                    "its control group in {} cannot be made: {e}",
                    groups.base.display()
                )
            })?),
            None => None,
        };
        let cgroup = cgroup.map(Arc::new);
        let mut command = Command::new(&start.program);
        command.args(&start.args).env_clear().envs(&start.env);
        command.current_dir(&dirs.root).process_group(0);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let spawned = if start.dies_with_parent {
            spawner::spawn(command)
        } else {
            command.spawn()
        };
        let mut child = spawned.map_err(|e| {
            if let Some(cgroup) = &cgroup {
                cgroup.end();
            }
            format!("{} does not start: {e}", start.program.display())
        })?;
        let control = child.stdin.take();
        let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
            return Err("its outputs are not there".to_owned());
        };
        Ok((
            Self {
                reaper: child,
                control,
                dirs: dirs.clone(),
                marker: marker(&boxing.lease),
                removal: Removal::by(start.remove),
                cgroup,
                ending: None,
                had_oom: false,
                is_gone: false,
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

    /// Kills a reaper that does not do as it is told, or the program that keeps its sandbox.
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
        let ended = self.reaper.wait().await;
        let has_kept = ended.is_ok_and(|status| status.success());
        if !self.is_gone {
            if !has_kept {
                self.removal.finish().await;
            }
            self.end_cgroup().await;
            self.is_gone = true;
        }
        if has_kept {
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

    /// Ends the control group, once however often this is begun: one that goes on in the background
    /// would end the group of the same name that the next phase makes.
    async fn end_cgroup(&mut self) {
        let Some(cgroup) = &self.cgroup else { return };
        let ending = self.ending.get_or_insert_with(|| {
            self.had_oom |= cgroup.has_oom();
            let cgroup = Arc::clone(cgroup);
            // What it waits for takes no time of other attempts.
            tokio::task::spawn_blocking(move || cgroup.end())
        });
        let _ = ending.await;
    }

    /// How it ended; by then nothing of its tree is left.
    pub async fn wait(&mut self) -> End {
        self.leave_nothing(Instant::now()).await;
        let ended = self.reaper.wait().await;
        let mut end = match ended {
            // Only then it is the reaper's own word.
            Ok(status) if status.success() => std::fs::read(&self.dirs.status)
                .ok()
                .and_then(|text| serde_json::from_slice(&text).ok())
                .unwrap_or(End::from(Status::Signalled(9))),
            Ok(status) if self.dirs.plan.exists() => Status::NotStarted(no_sandbox(status)).into(),
            _ => Status::Signalled(9).into(),
        };
        end.oom |= self.had_oom;
        end
    }
}

/// The reaper never read its plan: whatever should start it did not.
fn no_sandbox(status: ExitStatus) -> String {
    format!("its sandbox did not start ({status}); its output says more")
}

/// Puts in place what the reaper and the sandbox read.
fn prepare(dirs: &AttemptDirs, start: &Start) -> Result<(), String> {
    let plan = serde_json::to_vec(&start.plan).map_err(std::io::Error::from);
    let written = plan.and_then(|plan| {
        for (path, text) in &start.files {
            if let Some(dir) = path.parent() {
                std::fs::create_dir_all(dir)?;
            }
            write_new(path, text.as_bytes())?;
        }
        write_new(&dirs.plan, &plan)
    });
    written.map_err(|e| {
        format!(
            "what its program needs cannot be written below {}: {e}",
            dirs.root.display()
        )
    })
}
