//! Where an attempt works: directories of its own.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use conductor_protocol::ids::Lease;

use crate::beneath::is_real_dir;
use crate::input::Input;
use crate::{reaper, sessions};

/// Where the lease is noted.
const LEASE: &str = "lease";

/// The directories of one attempt.
#[derive(Clone, Debug)]
pub struct AttemptDirs {
    /// Whose they are.
    pub owner: Lease,
    /// Holds all the others.
    pub root: PathBuf,
    /// Where the program begins, and the only place that is meant to be written.
    pub workspace: PathBuf,
    /// Its `HOME`.
    pub home: PathBuf,
    /// Its `TMPDIR`.
    pub tmp: PathBuf,
    /// What it shares with the agent: sockets, and the three files below.
    pub run: PathBuf,
    /// What the reaper is told, within `run`.
    pub plan: PathBuf,
    /// What it reads on standard input, within `run`.
    pub stdin: PathBuf,
    /// Where the reaper leaves how it ended, within `run`.
    pub status: PathBuf,
    /// The lease, for whoever finds the directories later.
    pub lease: PathBuf,
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

/// A lease as it marks directories and processes.
pub fn lease_name(lease: &Lease) -> String {
    format!("{}/{}/{}", lease.task, lease.attempt, lease.assigned)
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
            owner: *lease,
            workspace: root.join("workspace"),
            home: root.join("home"),
            tmp: root.join("tmp"),
            run: root.join("run"),
            plan: root.join("run").join(reaper::PLAN),
            stdin: root.join("run").join(reaper::STDIN),
            status: root.join("run").join(reaper::STATUS),
            lease: root.join(LEASE),
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

    /// Makes them, empty, for the lease of that name. Nobody else's programs look into them.
    pub fn create(&self, lease: &str) -> io::Result<()> {
        sessions::clear(&self.root)?;
        self.complete(lease)
    }

    /// Makes those that are not there, for the lease of that name; the others are what an earlier
    /// attempt left.
    pub fn complete(&self, lease: &str) -> io::Result<()> {
        for dir in [&self.workspace, &self.home, &self.tmp, &self.run] {
            make_dir(dir)?;
        }
        write_new(&self.lease, lease.as_bytes())
    }

    /// The lease that directories were made for, by the directory that holds them all.
    pub fn lease_of(root: &Path) -> Option<String> {
        fs::read_to_string(root.join(LEASE)).ok()
    }

    /// Makes them ready for the next program: with its input in place, and without the status of
    /// the one before.
    pub fn place(&self, stdin: &Input) -> io::Result<()> {
        for old in [&self.stdin, &self.status] {
            remove_if_there(old)?;
        }
        stdin.place(&self.stdin)
    }

    /// Puts files in place, by path relative to all of them. What an earlier program left in the
    /// way, links above all, is replaced and never followed.
    pub fn furnish(&self, files: &BTreeMap<PathBuf, Vec<u8>>) -> io::Result<()> {
        for (relative, bytes) in files {
            let mut path = self.root.clone();
            for part in relative.parent().into_iter().flat_map(Path::components) {
                path.push(part);
                if !is_real_dir(&path) {
                    remove_if_there(&path)?;
                    fs::create_dir(&path)?;
                }
            }
            write_new(&self.root.join(relative), bytes)?;
        }
        Ok(())
    }

    /// Removes them; returns whether nothing is left.
    pub fn remove(&self) -> bool {
        if let Err(e) = sessions::clear(&self.root) {
            let (task, attempt) = (self.owner.task, self.owner.attempt);
            tracing::warn!(%task, attempt, path = %self.root.display(), error = %e, "an attempt's directory is left over");
            return false;
        }
        true
    }
}

/// Makes a directory, and those above it, that nobody else's programs look into.
pub(crate) fn make_dir(path: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true).mode(0o700).create(path)
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

/// Writes a file anew. Whatever is there is replaced and never followed: programs may have put a
/// link there.
pub fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    remove_if_there(path)?;
    let mut options = fs::OpenOptions::new();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_that_a_program_left_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (outside, link) = (dir.path().join("outside"), dir.path().join("link"));
        fs::write(&outside, "precious").unwrap();
        std::os::unix::fs::symlink(&outside, &link).unwrap();
        write_new(&link, b"new").unwrap();
        assert_eq!(fs::read(&outside).unwrap(), b"precious");
        assert_eq!(fs::read(&link).unwrap(), b"new");
    }

    #[test]
    fn files_that_are_put_in_place_follow_no_link_either() {
        let base = tempfile::tempdir().unwrap();
        let lease = Lease {
            task: conductor_protocol::TaskId::from_parts(0, [0; 10]),
            attempt: 1,
            assigned: conductor_protocol::Position::new(1, 0),
        };
        let dirs = AttemptDirs::of(base.path(), &lease);
        dirs.create("lease").unwrap();
        let outside = base.path().join("outside");
        fs::create_dir(&outside).unwrap();
        std::os::unix::fs::symlink(&outside, dirs.home.join(".codex")).unwrap();
        let file = PathBuf::from("home/.codex/config.toml");
        dirs.furnish(&[(file.clone(), b"x".to_vec())].into())
            .unwrap();
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
        assert_eq!(fs::read(dirs.root.join(file)).unwrap(), b"x");
    }
}
