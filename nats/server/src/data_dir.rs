//! A data directory: one process at a time.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// A data directory that is ours for as long as this lives.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    _lock: File,
}

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// Another process has it.
    #[error(
        "{path} is in use by process {pid}; stop that one first, or name another directory \
         with --data-dir"
    )]
    InUse {
        /// The directory.
        path: String,
        /// Who has it.
        pid: String,
    },
    /// It cannot be written.
    #[error("cannot use {path} as data directory: {problem}; name another with --data-dir")]
    Unusable {
        /// The directory.
        path: String,
        /// What is wrong.
        problem: String,
    },
}

impl DataDir {
    /// Makes the directory where needed (for its owner alone) and takes it.
    pub fn open(path: &Path) -> Result<Self, DataDirError> {
        let unusable = |e: std::io::Error| DataDirError::Unusable {
            path: path.display().to_string(),
            problem: e.to_string(),
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(unusable)?;
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let mut lock = options.open(path.join("lock")).map_err(unusable)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut pid = String::new();
                // Only for the message; the lock itself has answered.
                let _ = lock.read_to_string(&mut pid);
                let path = path.display().to_string();
                return Err(DataDirError::InUse {
                    path,
                    pid: pid.trim().to_owned(),
                });
            }
            Err(TryLockError::Error(e)) => return Err(unusable(e)),
        }
        lock.set_len(0).map_err(unusable)?;
        lock.rewind().map_err(unusable)?;
        writeln!(lock, "{}", std::process::id()).map_err(unusable)?;
        Ok(Self {
            path: path.to_owned(),
            _lock: lock,
        })
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_in_use_is_refused_and_freed_afterwards() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data");
        let first = DataDir::open(&path).unwrap();
        let refused = DataDir::open(&path).unwrap_err().to_string();
        assert!(
            refused.contains(&std::process::id().to_string()),
            "{refused}"
        );
        drop(first);
        assert!(DataDir::open(&path).is_ok());
    }

    #[test]
    fn an_unwritable_directory_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = DataDir::open(&file.path().join("x"))
            .unwrap_err()
            .to_string();
        assert!(error.contains("--data-dir"), "{error}");
    }
}
