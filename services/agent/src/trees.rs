//! Trees that programs wrote, counted and removed. What a program closed for everybody, its own user
//! too, is opened for that.

use std::fs::{self, Metadata, Permissions};
use std::io::{self, ErrorKind};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use rustix::fs::{Mode, OFlags, open, openat};

use crate::dirs::make_dir;

/// Unit of the kernel's count of what a file takes on disk.
const BLOCK_BYTES: u64 = 512;
/// What the owner of a directory may do with it, as a rule.
const OWNER: u32 = 0o700;

/// Removes a tree, if it is there. On failure some of it may be gone.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    let removed = match fs::remove_dir_all(path) {
        Err(e) if e.kind() == ErrorKind::PermissionDenied => {
            open_all(path);
            fs::remove_dir_all(path)
        }
        removed => removed,
    };
    match removed {
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// Moves a tree, if it is there, to a name of its own below `trash`, in one step: whoever is killed
/// meanwhile leaves all of it in its place or nothing. Both are on the same file system.
pub(crate) fn discard(path: &Path, trash: &Path) -> io::Result<()> {
    // Mostly nothing is there, and no trash is needed.
    if fs::symlink_metadata(path).is_err_and(|e| e.kind() == ErrorKind::NotFound) {
        return Ok(());
    }
    make_dir(trash)?;
    let to = trash.join(uuid::Uuid::now_v7().to_string());
    let moved = match fs::rename(path, &to) {
        // A directory that is closed cannot be moved elsewhere.
        Err(e) if e.kind() == ErrorKind::PermissionDenied => {
            unclose(path, path)?;
            fs::rename(path, &to)
        }
        moved => moved,
    };
    match moved {
        // Somebody else was quicker.
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
        moved => moved,
    }
}

/// Removes a file of a directory, if it is there.
pub(crate) fn remove_file(dir: &Path, name: &str) -> io::Result<()> {
    let file = dir.join(name);
    let removed = match fs::remove_file(&file) {
        Err(e) if e.kind() == ErrorKind::PermissionDenied => {
            unclose(dir, dir)?;
            fs::remove_file(&file)
        }
        removed => removed,
    };
    match removed {
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// What all files below take on disk, in bytes, each name of a file counted.
pub(crate) fn size_on_disk(dir: &Path) -> u64 {
    let mut blocks = 0_u64;
    walk(dir, 0o500, |found| {
        blocks = blocks.saturating_add(found.blocks());
    });
    blocks.saturating_mul(BLOCK_BYTES)
}

/// Lets the owner do everything with every directory of a tree, as far as that can be.
fn open_all(dir: &Path) {
    walk(dir, OWNER, |_| {});
}

/// Tells what everything below a directory is. Directories that their owner lacks some of `needed`
/// in are opened on the way, whoever we are: what root need not do it does all the same.
fn walk(root: &Path, needed: u32, mut tell: impl FnMut(&Metadata)) {
    let mut todo = vec![root.to_owned()];
    while let Some(dir) = todo.pop() {
        let is_closed = |m: Metadata| m.is_dir() && m.mode() & needed != needed;
        if fs::symlink_metadata(&dir).is_ok_and(is_closed) {
            // What is not ours to open is read as far as it can be.
            let _ = unclose(root, &dir);
        }
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let Ok(found) = entry.metadata() else {
                continue;
            };
            tell(&found);
            if found.is_dir() {
                todo.push(entry.path());
            }
        }
    }
}

/// Lets the owner of a directory of a tree do everything with it.
fn unclose(root: &Path, dir: &Path) -> io::Result<()> {
    let dir = unfollowed(root, dir)?;
    // Of a descriptor that is good for nothing else the mode is changed by this name alone.
    let name = format!("/proc/self/fd/{}", dir.as_raw_fd());
    let mode = fs::metadata(&name)?.mode() | OWNER;
    fs::set_permissions(name, Permissions::from_mode(mode & 0o7777))
}

/// The directory itself: links on the way from the root of its tree, or in its own place, are not
/// followed, whenever they were put there.
fn unfollowed(root: &Path, dir: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let below = dir
        .strip_prefix(root)
        .map_err(|e| io::Error::new(ErrorKind::InvalidInput, e))?;
    let mut at = open(root, flags, Mode::empty())?;
    for name in below.components() {
        at = openat(&at, name.as_os_str(), flags, Mode::empty())?;
    }
    Ok(at)
}

#[cfg(test)]
pub(crate) mod tests;
