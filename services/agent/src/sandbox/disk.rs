//! How much the files of an attempt take, and whether that is more than they may.
//!
//! Nothing of the kernel limits the sum of what ordinary users write, so its directories are looked
//! at: the sooner, the sooner they could be full, and never for more than a small part of the time.
//! What a program hides on purpose (files that it deletes and keeps open, directories that it makes
//! unreadable) is not seen; a single file is limited by the kernel all the same.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags, openat, openat2, statat,
};
use rustix::io::Errno;
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// So fast may files be written without being noticed late, in bytes a second.
const SPEED: u64 = 512 << 20;
/// The pauses between looks.
const PAUSE_LEAST: Duration = Duration::from_millis(500);
const PAUSE_MOST: Duration = Duration::from_secs(10);
/// A pause takes so many times what the look before it took.
const PAUSE_SHARE: u32 = 20;
/// What the kernel counts blocks in, whatever those of the file system are.
const BLOCK_BYTES: u64 = 512;

/// Looks again and again how much is in an attempt's directories.
#[derive(Debug)]
pub(crate) struct DiskWatch {
    dirs: Vec<PathBuf>,
    /// In bytes; `None` for whatever there is room for.
    limit: Option<u64>,
    next: Instant,
    look: Option<JoinHandle<(u64, Duration)>>,
}

impl DiskWatch {
    /// Of these directories, which may hold `limit` bytes together.
    pub(crate) fn new(dirs: Vec<PathBuf>, limit: Option<u64>) -> Self {
        Self {
            dirs,
            limit,
            next: Instant::now() + PAUSE_LEAST,
            look: None,
        }
    }

    /// Returns once they hold more than they may. May be dropped and called again at any time.
    pub(crate) async fn exceeded(&mut self) {
        while !self.has_exceeded().await {}
    }

    /// Whether they hold too much now, when nothing writes any more.
    pub(crate) async fn exceeds_now(&mut self) -> bool {
        self.next = Instant::now();
        self.look = None;
        self.limit.is_some() && self.has_exceeded().await
    }

    /// The next look.
    async fn has_exceeded(&mut self) -> bool {
        let Some(limit) = self.limit else {
            return std::future::pending().await;
        };
        if self.look.is_none() {
            tokio::time::sleep_until(self.next).await;
        }
        let look = self.look.get_or_insert_with(|| {
            let dirs = self.dirs.clone();
            tokio::task::spawn_blocking(move || {
                let began = std::time::Instant::now();
                (used(&dirs, limit), began.elapsed())
            })
        });
        // One that broke off is made again later.
        let (used, took) = look.await.unwrap_or_default();
        self.look = None;
        self.next = Instant::now() + pause(limit.saturating_sub(used), took);
        used > limit
    }
}

/// How long until they should be looked at again.
fn pause(left: u64, took: Duration) -> Duration {
    let until_full = Duration::from_millis(left.saturating_mul(1_000) / SPEED);
    let pause = until_full.clamp(PAUSE_LEAST, PAUSE_MOST);
    pause.max(took.saturating_mul(PAUSE_SHARE))
}

/// How many bytes files below these directories take; not all of them, where that is more than
/// `enough`.
fn used(dirs: &[PathBuf], enough: u64) -> u64 {
    let mut count = Count {
        bytes: 0,
        enough,
        linked: HashSet::new(),
    };
    for dir in dirs {
        count.tree(dir);
    }
    count.bytes
}

struct Count {
    bytes: u64,
    enough: u64,
    /// Files that have more than one name: they count once.
    linked: HashSet<(u64, u64)>,
}

impl Count {
    fn tree(&mut self, root: &Path) {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::DIRECTORY | OFlags::NOFOLLOW;
        let Ok(root) = openat(CWD, root, flags, Mode::empty()) else {
            return;
        };
        let mut todo = vec![PathBuf::from(".")];
        while let Some(path) = todo.pop() {
            // What is gone by now, or cannot be read, counts for nothing.
            let _ = self.directory(&root, &path, &mut todo);
            if self.bytes > self.enough {
                return;
            }
        }
    }

    fn directory(
        &mut self,
        root: &OwnedFd,
        path: &Path,
        todo: &mut Vec<PathBuf>,
    ) -> Result<(), Errno> {
        let dir = open_beneath(root, path)?;
        for entry in Dir::read_from(&dir)? {
            let entry = entry?;
            let name = entry.file_name();
            if [c".", c".."].contains(&name) {
                continue;
            }
            let Ok(stat) = statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW) else {
                continue;
            };
            let is_directory = FileType::from_raw_mode(stat.st_mode).is_dir();
            let has_names = stat.st_nlink > 1 && !is_directory;
            if !has_names || self.linked.insert((stat.st_dev, stat.st_ino)) {
                let blocks = u64::try_from(stat.st_blocks).unwrap_or(0);
                self.bytes = self
                    .bytes
                    .saturating_add(blocks.saturating_mul(BLOCK_BYTES));
            }
            if is_directory {
                todo.push(path.join(OsStr::from_bytes(name.to_bytes())));
            }
            if self.bytes > self.enough {
                break;
            }
        }
        Ok(())
    }
}

/// Opens a directory below `root`; a program may put a link in its place meanwhile.
fn open_beneath(root: &OwnedFd, path: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::DIRECTORY | OFlags::NOFOLLOW;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    match openat2(root, path, flags, Mode::empty(), resolve) {
        // Older kernels, and some filters of system calls, do not have it. Then what such a link
        // leads to may be counted, too.
        Err(Errno::NOSYS | Errno::PERM) => openat(root, path, flags, Mode::empty()),
        opened => opened,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    const MIB: usize = 1 << 20;

    fn write(path: &Path, bytes: usize) {
        fs::write(path, vec![1_u8; bytes]).unwrap();
    }

    #[test]
    fn files_count_once_and_links_lead_nowhere() {
        let dir = tempfile::tempdir().unwrap();
        let (own, other) = (dir.path().join("own"), dir.path().join("other"));
        fs::create_dir_all(own.join("deep/deeper")).unwrap();
        fs::create_dir(&other).unwrap();
        write(&other.join("large"), 20 * MIB);
        write(&own.join("deep/deeper/one"), 2 * MIB);
        write(&own.join("two"), MIB);
        fs::hard_link(own.join("two"), own.join("deep/again")).unwrap();
        std::os::unix::fs::symlink(&other, own.join("elsewhere")).unwrap();
        let bytes = usize::try_from(used(&[own], u64::MAX)).unwrap();
        assert!((3 * MIB..4 * MIB).contains(&bytes), "{bytes}");
    }

    #[test]
    fn a_look_ends_where_it_is_enough() {
        let dir = tempfile::tempdir().unwrap();
        for n in 0..64 {
            write(&dir.path().join(n.to_string()), MIB);
        }
        let enough = 4 * MIB as u64;
        let bytes = used(&[dir.path().to_owned()], enough);
        assert!(bytes > enough && bytes < 8 * MIB as u64, "{bytes}");
    }

    #[test]
    fn a_look_is_soon_where_little_is_left_and_takes_little_of_the_time() {
        let no_time = Duration::ZERO;
        assert_eq!(pause(0, no_time), PAUSE_LEAST);
        assert_eq!(pause(1 << 30, no_time), Duration::from_secs(2));
        assert_eq!(pause(u64::MAX, no_time), PAUSE_MOST);
        let second = Duration::from_secs(1);
        assert_eq!(pause(0, second), Duration::from_secs(20));
    }

    #[tokio::test]
    async fn what_grows_is_noticed_and_what_has_no_limit_is_not_looked_at() {
        let dir = tempfile::tempdir().unwrap();
        let watch = |limit| DiskWatch::new(vec![dir.path().to_owned()], limit);
        let limit = Some(2 * MIB as u64);
        assert!(!watch(limit).exceeds_now().await);
        let mut growing = watch(limit);
        let early = tokio::time::timeout(PAUSE_LEAST * 2, growing.exceeded());
        assert!(early.await.is_err(), "there is nothing");
        write(&dir.path().join("large"), 3 * MIB);
        growing.exceeded().await;
        assert!(growing.exceeds_now().await);
        assert!(!watch(None).exceeds_now().await);
    }
}
