//! Workspaces that have a name: kept between tasks, used by one at a time.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use conductor_protocol::Namespace;
use conductor_protocol::ids::is_valid_name;
use serde::{Deserialize, Serialize};

use super::lock::Lock;

/// Where all of them are, below what the agent keeps.
const FOLDER: &str = "workspaces";

/// A named workspace that is in use, until this is dropped.
#[derive(Debug)]
pub(crate) struct Named {
    /// Its files.
    pub(crate) files: PathBuf,
    origin: PathBuf,
    /// All of it.
    dir: PathBuf,
    _lock: Lock,
}

/// What is there of a named workspace.
#[derive(Debug)]
pub(crate) enum Found {
    /// Nothing.
    Nothing,
    /// Somebody else uses it.
    InUse,
    /// All of it, and it is ours.
    Held(Named),
}

/// What a named workspace began with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Origin {
    /// The remote, where there was one.
    pub(crate) url: Option<String>,
}

impl Named {
    /// Takes the workspace of this name; it is made if it is not there.
    pub(crate) fn take(kept: &Path, namespace: &Namespace, name: &str) -> Result<Self, String> {
        if ![namespace.as_str(), name].into_iter().all(is_valid_name) {
            return Err(format!(
                "{name:?} of namespace {namespace} is no name of a workspace"
            ));
        }
        let dir = kept.join(FOLDER).join(namespace.as_str()).join(name);
        let trouble = |e| {
            format!(
                "cannot use the workspace {name:?} at {}: {e}",
                dir.display()
            )
        };
        fs::create_dir_all(&dir).map_err(trouble)?;
        let lock = Lock::try_take(&dir.join("lock")).map_err(trouble)?;
        let lock = lock.ok_or_else(|| {
            format!(
                "the workspace {name:?} of namespace {namespace} is in use by another task on this agent; it is used by one at a time"
            )
        })?;
        Ok(Self::of(&dir, lock))
    }

    /// Looks for the workspace of this name; takes it if it is there.
    pub(crate) fn find(kept: &Path, namespace: &Namespace, name: &str) -> Result<Found, String> {
        let names = [namespace.as_str(), name];
        let dir = kept.join(FOLDER).join(namespace.as_str()).join(name);
        // What is no name of a workspace never was one, and may lead anywhere.
        if !names.into_iter().all(is_valid_name) || !dir.exists() {
            return Ok(Found::Nothing);
        }
        let lock = Lock::try_take(&dir.join("lock"));
        let lock = lock.map_err(|e| format!("cannot use {}: {e}", dir.display()))?;
        Ok(lock.map_or(Found::InUse, |lock| Found::Held(Self::of(&dir, lock))))
    }

    fn of(dir: &Path, lock: Lock) -> Self {
        Self {
            files: dir.join("workspace"),
            origin: dir.join("origin.json"),
            dir: dir.to_owned(),
            _lock: lock,
        }
    }

    /// Removes it, with all that is in it.
    pub(crate) fn remove(self) -> Result<(), String> {
        let trouble = |e: io::Error| format!("cannot remove {}: {e}", self.dir.display());
        // First what says that it is whole: should it break off, nobody goes on in the rest.
        match fs::remove_file(&self.origin) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(trouble(e)),
            _ => {}
        }
        match fs::remove_dir_all(&self.dir) {
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
                open_up(&self.dir).map_err(trouble)?;
                fs::remove_dir_all(&self.dir).map_err(trouble)
            }
            removed => removed.map_err(trouble),
        }
    }

    /// Whether it was made whole before.
    pub(crate) fn is_made(&self) -> bool {
        self.origin().is_some() && self.files.exists()
    }

    /// What it began with.
    pub(crate) fn origin(&self) -> Option<Origin> {
        serde_json::from_slice(&fs::read(&self.origin).ok()?).ok()
    }

    /// Notes what it began with.
    pub(crate) fn note(&self, origin: &Origin) -> Result<(), String> {
        let text = serde_json::to_vec(origin).map_err(|e| e.to_string())?;
        fs::write(&self.origin, text)
            .map_err(|e| format!("cannot write {}: {e}", self.origin.display()))
    }

    /// Whether it can be used for a repository; without one it is used as it is.
    pub(crate) fn fits(&self, url: Option<&str>) -> Result<(), String> {
        let Some((origin, wanted)) = self.origin().filter(|_| self.is_made()).zip(url) else {
            return Ok(());
        };
        match origin.url.as_deref() {
            Some(held) if held == wanted => Ok(()),
            Some(held) => Err(format!(
                "this workspace was cloned from {held}, not from {wanted}; use another name"
            )),
            None => Err("this workspace began without a repository; use another name".to_owned()),
        }
    }
}

/// Gives us the right to empty every directory: some tools take it from what they have downloaded.
fn open_up(dir: &Path) -> io::Result<()> {
    let mut todo = vec![dir.to_owned()];
    while let Some(dir) = todo.pop() {
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o700))?;
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            // Of the entry itself: no link is followed.
            if entry.file_type()?.is_dir() {
                todo.push(entry.path());
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_task_at_a_time_uses_a_name() {
        let kept = tempfile::tempdir().unwrap();
        let take =
            |namespace, name| Named::take(kept.path(), &Namespace::from_log(namespace), name);
        let first = take("team", "w").unwrap();
        assert!(!first.is_made());
        let busy = take("team", "w").unwrap_err();
        assert!(busy.contains("\"w\"") && busy.contains("in use"), "{busy}");
        assert!(take("other", "w").is_ok(), "names are of a namespace");
        assert!(take("team", "v").is_ok());
        assert!(take("team", "..").is_err());
        drop(first);
        assert!(take("team", "w").is_ok());
    }

    #[test]
    fn a_name_stays_with_its_repository() {
        let kept = tempfile::tempdir().unwrap();
        let take = |name| Named::take(kept.path(), &Namespace::default(), name).unwrap();
        let origin = |url: Option<&str>| Origin {
            url: url.map(str::to_owned),
        };
        let named = take("w");
        fs::create_dir(&named.files).unwrap();
        assert!(
            named.fits(Some("/a")).is_ok() && !named.is_made(),
            "only half of it is there"
        );
        named.note(&origin(Some("/a"))).unwrap();
        assert!(named.is_made());
        assert!(named.fits(Some("/a")).is_ok() && named.fits(None).is_ok());
        assert!(named.fits(Some("/b")).unwrap_err().contains("/a"));
        let plain = take("v");
        fs::create_dir(&plain.files).unwrap();
        plain.note(&origin(None)).unwrap();
        assert!(plain.fits(None).is_ok() && plain.fits(Some("/a")).is_err());
    }
}
