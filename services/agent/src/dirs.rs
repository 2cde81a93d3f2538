//! Where an attempt works: directories of its own.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use conductor_protocol::ids::Lease;

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
    /// What it reads on standard input.
    pub stdin: PathBuf,
    /// Where the reaper leaves how it ended.
    pub status: PathBuf,
}

impl AttemptDirs {
    /// The directories of `lease` below `base`; made by [`Self::create`].
    pub fn of(base: &Path, lease: &Lease) -> Self {
        let root = base.join(format!("{}-{}", lease.task, lease.attempt));
        Self {
            workspace: root.join("workspace"),
            home: root.join("home"),
            tmp: root.join("tmp"),
            stdin: root.join("stdin"),
            status: root.join("status.json"),
            root,
        }
    }

    /// Makes them, empty, with `stdin` in place.
    pub fn create(&self, stdin: &[u8]) -> io::Result<()> {
        if self.root.exists() {
            fs::remove_dir_all(&self.root)?;
        }
        for dir in [&self.workspace, &self.home, &self.tmp] {
            fs::create_dir_all(dir)?;
        }
        fs::write(&self.stdin, stdin)
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
