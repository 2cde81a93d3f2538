//! Where an attempt works: directories of its own.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use conductor_protocol::ids::Lease;

use crate::input::Input;

/// The directories of one attempt.
#[derive(Clone, Debug)]
pub struct AttemptDirs {
    /// Holds all the others.
    pub root: PathBuf,
    /// Where the program begins, and the only place that is meant to be written.
    pub workspace: PathBuf,
    /// Its `HOME`.
    pub home: PathBuf,
    /// Its `TMPDIR`.
    pub tmp: PathBuf,
    /// What it shares with the agent: sockets, and the two files below.
    pub run: PathBuf,
    /// What it reads on standard input, within `run`.
    pub stdin: PathBuf,
    /// Where the reaper leaves how it ended, within `run`.
    pub status: PathBuf,
}

/// Where a program finds the directories of its attempt: where they are, or where its sandbox
/// puts them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paths {
    /// Where it begins.
    pub workspace: PathBuf,
    /// Its `HOME`.
    pub home: PathBuf,
    /// Its `TMPDIR`.
    pub tmp: PathBuf,
    /// What it shares with the agent.
    pub run: PathBuf,
}

impl AttemptDirs {
    /// The directories of `lease` below `base`; made by [`Self::create`]. They are the same for
    /// every attempt of a task, since sessions of models go on in the same directory alone, unless
    /// an earlier attempt is still being ended there.
    pub fn of(base: &Path, lease: &Lease) -> Self {
        let mut root = base.join(lease.task.to_string());
        if root.exists() {
            root = base.join(format!("{}-{}", lease.task, lease.attempt));
        }
        Self {
            workspace: root.join("workspace"),
            home: root.join("home"),
            tmp: root.join("tmp"),
            run: root.join("run"),
            stdin: root.join("run/stdin"),
            status: root.join("run/status.json"),
            root,
        }
    }

    /// The directories as they are.
    pub fn paths(&self) -> Paths {
        Paths {
            workspace: self.workspace.clone(),
            home: self.home.clone(),
            tmp: self.tmp.clone(),
            run: self.run.clone(),
        }
    }

    /// Makes them, empty.
    pub fn create(&self) -> io::Result<()> {
        if self.root.exists() {
            fs::remove_dir_all(&self.root)?;
        }
        for dir in [&self.workspace, &self.home, &self.tmp, &self.run] {
            fs::create_dir_all(dir)?;
        }
        Ok(())
    }

    /// Makes them ready for the next program: with its input in place, and without the status of
    /// the one before.
    pub fn place(&self, stdin: &Input) -> io::Result<()> {
        for old in [&self.stdin, &self.status] {
            match fs::remove_file(old) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                _ => {}
            }
        }
        stdin.place(&self.stdin)
    }

    /// Puts files in place, by path relative to all of them.
    pub fn furnish(&self, files: &BTreeMap<PathBuf, Vec<u8>>) -> io::Result<()> {
        for (path, bytes) in files {
            let path = self.root.join(path);
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent)?;
            }
            fs::write(path, bytes)?;
        }
        Ok(())
    }

    /// Removes them.
    pub fn remove(&self) {
        if let Err(e) = fs::remove_dir_all(&self.root)
            && e.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(path = %self.root.display(), error = %e, "an attempt's directory is left over");
        }
    }
}
