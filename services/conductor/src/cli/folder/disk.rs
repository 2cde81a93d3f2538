//! Reading from the folder and writing into it, where others do both at the same time.

use std::fs::{File, Metadata, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, OFlags};

use super::names;
use crate::exit::{Exit, Failure, Outcome};

/// The folder. Dropped, another process may watch it.
#[derive(Debug)]
pub(super) struct Folder {
    /// Absolute, and without links.
    path: PathBuf,
    /// The folder itself, locked.
    dir: File,
}

/// By what a file is known again: as long as it is the same, nobody has touched the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Print {
    pub(super) bytes: u64,
    modified_ns: i128,
    changed_ns: i128,
    device: u64,
    inode: u64,
}

impl Print {
    fn of(file: &Metadata) -> Self {
        let ns = |s: i64, ns: i64| i128::from(s) * 1_000_000_000 + i128::from(ns);
        Self {
            bytes: file.len(),
            modified_ns: ns(file.mtime(), file.mtime_nsec()),
            changed_ns: ns(file.ctime(), file.ctime_nsec()),
            device: file.dev(),
            inode: file.ino(),
        }
    }

    /// The same for every look at this file, and another for any other: where a file is dropped
    /// again its inode was changed later.
    pub(super) fn identity(&self) -> String {
        format!("{}/{}/{}", self.device, self.inode, self.changed_ns)
    }

    #[cfg(test)]
    pub(super) fn numbered(n: u64) -> Self {
        Self {
            bytes: n,
            modified_ns: 0,
            changed_ns: i128::from(n),
            device: 0,
            inode: n,
        }
    }
}

impl Folder {
    /// Opens a folder for this process alone.
    pub(super) fn open(path: &Path) -> Outcome<Self> {
        let failed =
            |what: &str, e: &io::Error| Failure::usage(format!("{}: {what}: {e}", path.display()));
        let path_found = path.canonicalize().map_err(|e| {
            failed("cannot be watched", &e)
                .hint("name a directory that is there; `mkdir -p` makes one")
        })?;
        if !path_found.is_dir() {
            let message = format!("{}: is not a directory", path.display());
            return Err(
                Failure::usage(message).hint("name the directory that task files are put in")
            );
        }
        let lock = File::open(&path_found).map_err(|e| failed("cannot be read", &e))?;
        let locked = rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive);
        if let Err(e) = locked {
            let message = format!("{}: is watched by another process: {e}", path.display());
            return Err(Failure::new(Exit::Conflict, message)
                .hint("one process watches a folder; stop the other, or name another folder"));
        }
        let folder = Self {
            path: path_found,
            dir: lock,
        };
        folder.tidy().map_err(|e| {
            failed("cannot be written", &e).hint("status and results are written beside task files")
        })?;
        Ok(folder)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Removes what a process that was killed did not finish; and shows that one can write here.
    fn tidy(&self) -> io::Result<()> {
        for name in self.names()? {
            if name.starts_with(names::UNFINISHED) {
                remove(&self.path.join(name))?;
            }
        }
        self.unfinished().map(drop)
    }

    /// The names of all that is there, but for those that are no text.
    pub(super) fn names(&self) -> io::Result<Vec<String>> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(&self.path)? {
            found.extend(entry?.file_name().into_string());
        }
        Ok(found)
    }

    /// What a file is now; `None` for what is no file, or not of this folder.
    pub(super) fn look_at(&self, name: &str) -> io::Result<Option<(PathBuf, Print)>> {
        let path = self.path.join(name);
        let path = match path.symlink_metadata()? {
            found if found.is_symlink() => match self.within(&path) {
                Some(path) => path,
                None => return Ok(None),
            },
            _ => path,
        };
        let found = path.symlink_metadata()?;
        Ok(found.is_file().then(|| (path, Print::of(&found))))
    }

    /// Whether nothing has this name.
    pub(super) fn has_none(&self, name: &str) -> bool {
        let found = self.path.join(name).symlink_metadata();
        found.is_err_and(|e| e.kind() == io::ErrorKind::NotFound)
    }

    /// Where a link leads, if that is an entry of this very folder.
    fn within(&self, link: &Path) -> Option<PathBuf> {
        let target = self.path.join(std::fs::read_link(link).ok()?);
        let parent = target.parent()?.canonicalize().ok()?;
        (parent == self.path).then(|| self.path.join(target.file_name().unwrap_or_default()))
    }

    /// Writes a file, whole or not at all, and returns once it would outlive a power loss.
    pub(super) fn write(&self, name: &str, text: &str) -> io::Result<()> {
        let mut unfinished = self.unfinished()?;
        unfinished.write_all(text.as_bytes())?;
        unfinished.as_file().sync_all()?;
        unfinished.persist(self.path.join(name))?;
        self.sync()
    }

    /// Returns once the names of files, too, would outlive a power loss.
    fn sync(&self) -> io::Result<()> {
        match self.dir.sync_all() {
            // Some file systems have no such thing.
            Err(e) if e.kind() == io::ErrorKind::InvalidInput => Ok(()),
            synced => synced,
        }
    }

    /// Removes a file, if it is there.
    pub(super) fn remove(&self, name: &str) -> io::Result<()> {
        remove(&self.path.join(name))
    }

    fn unfinished(&self) -> io::Result<tempfile::NamedTempFile> {
        tempfile::Builder::new()
            .prefix(names::UNFINISHED)
            // Others shall read it, as far as our umask lets them.
            .permissions(Permissions::from_mode(0o666))
            .tempfile_in(&self.path)
    }
}

/// The bytes of a file that was looked at; `None` if it is another by now.
pub(super) fn read(path: &Path, print: Print) -> io::Result<Option<Vec<u8>>> {
    // Neither a link that took its place leads anywhere, nor does a pipe keep us waiting.
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let mut file = OpenOptions::new()
        .read(true)
        .custom_flags(i32::try_from(flags.bits()).unwrap_or_default())
        .open(path)?;
    if Print::of(&file.metadata()?) != print {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    Read::take(&mut file, print.bytes + 1).read_to_end(&mut bytes)?;
    Ok((Print::of(&file.metadata()?) == print).then_some(bytes))
}

fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn folder() -> (tempfile::TempDir, Folder) {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::open(dir.path()).unwrap();
        (dir, folder)
    }

    #[test]
    fn links_lead_nowhere_but_into_the_folder() {
        let (dir, folder) = folder();
        let outside = tempfile::NamedTempFile::new().unwrap();
        let within = dir.path().join("real");
        std::fs::write(&within, "x").unwrap();
        symlink("real", dir.path().join("relative")).unwrap();
        symlink(&within, dir.path().join("absolute")).unwrap();
        symlink(outside.path(), dir.path().join("outside")).unwrap();
        symlink("outside", dir.path().join("twice")).unwrap();
        symlink("../x", dir.path().join("parent")).unwrap();
        symlink("nothing", dir.path().join("dangling")).unwrap();
        std::fs::create_dir(dir.path().join("directory")).unwrap();
        symlink("directory", dir.path().join("to-directory")).unwrap();
        for name in ["real", "relative", "absolute"] {
            let (path, print) = folder.look_at(name).unwrap().unwrap();
            assert_eq!(read(&path, print).unwrap().unwrap(), b"x", "{name}");
        }
        for name in ["outside", "twice", "parent", "directory", "to-directory"] {
            assert_eq!(folder.look_at(name).unwrap(), None, "{name}");
        }
        assert!(folder.look_at("dangling").is_err());
    }

    #[test]
    fn what_may_not_outlive_a_power_loss_is_not_written() {
        let (dir, mut folder) = folder();
        folder.write("a", "x").unwrap();
        // Of such a descriptor nothing can be synced.
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        folder.dir = rustix::fs::open(dir.path(), flags, rustix::fs::Mode::empty())
            .unwrap()
            .into();
        folder.write("b", "x").unwrap_err();
    }

    #[test]
    fn a_file_that_changes_while_it_is_read_is_not_read() {
        let (dir, folder) = folder();
        let file = dir.path().join("f");
        std::fs::write(&file, "one").unwrap();
        let (path, print) = folder.look_at("f").unwrap().unwrap();
        std::fs::write(&file, "longer").unwrap();
        assert_eq!(read(&path, print).unwrap(), None);
        let (path, print) = folder.look_at("f").unwrap().unwrap();
        std::fs::remove_file(&file).unwrap();
        symlink("/etc/hostname", &file).unwrap();
        assert!(read(&path, print).is_err());
    }

    #[test]
    fn a_folder_is_watched_once_and_tidied() {
        let (dir, folder) = folder();
        let second = Folder::open(dir.path()).unwrap_err();
        assert_eq!(second.code, Exit::Conflict);
        assert!(second.message.contains("another process"), "{second:?}");
        folder.write("a.status.json", "{}").unwrap();
        drop(folder);
        let left = dir.path().join(format!("{}x", names::UNFINISHED));
        std::fs::write(&left, "{").unwrap();
        let folder = Folder::open(dir.path()).unwrap();
        assert_eq!(folder.names().unwrap(), ["a.status.json"]);
        let missing = Folder::open(&dir.path().join("none")).unwrap_err();
        assert!(missing.hint.is_some_and(|h| h.contains("mkdir")));
    }
}
