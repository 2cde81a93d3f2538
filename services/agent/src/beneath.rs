//! Opening files of a directory that a program has written: no link leads out of it.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::{Component, Path};

use rustix::fs::{Mode, OFlags, ResolveFlags, open, openat, openat2};
use rustix::io::Errno;

/// Which symbolic links are followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Links {
    /// None at all.
    None,
    /// Those that stay inside of the directory.
    Inside,
}

/// A pipe that nobody writes to must hold nobody up.
const FLAGS: OFlags = OFlags::RDONLY
    .union(OFlags::CLOEXEC)
    .union(OFlags::NONBLOCK)
    .union(OFlags::NOCTTY);

/// Opens the regular file at `path`, relative to `dir`.
pub(crate) fn open_file(dir: &Path, path: &Path, links: Links) -> io::Result<File> {
    let dir = open(
        dir,
        OFlags::RDONLY | OFlags::CLOEXEC | OFlags::DIRECTORY,
        Mode::empty(),
    )?;
    let resolve = match links {
        Links::None => ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS,
        Links::Inside => ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS,
    };
    let opened = match openat2(&dir, path, FLAGS, Mode::empty(), resolve) {
        // Older kernels, and some filters of system calls, do not have it.
        Err(Errno::NOSYS | Errno::PERM) => step_by_step(dir, path)?,
        opened => opened?,
    };
    let file = File::from(opened);
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "it is no regular file",
        ))
    }
}

/// The same without the kernel's help: no link is followed.
fn step_by_step(dir: OwnedFd, path: &Path) -> io::Result<OwnedFd> {
    let mut at = dir;
    let mut parts = path.components().peekable();
    while let Some(part) = parts.next() {
        let Component::Normal(name) = part else {
            return Err(io::Error::from(Errno::XDEV));
        };
        let is_last = parts.peek().is_none();
        let kind = if is_last {
            OFlags::empty()
        } else {
            OFlags::DIRECTORY
        };
        at = openat(&at, name, FLAGS | OFlags::NOFOLLOW | kind, Mode::empty())?;
    }
    Ok(at)
}

/// The first `max` bytes of a file, and whether there were more.
pub(crate) fn read_capped(file: File, max: u64) -> io::Result<(Vec<u8>, bool)> {
    let mut bytes = Vec::new();
    file.take(max + 1).read_to_end(&mut bytes)?;
    let is_more = bytes.len() as u64 > max;
    bytes.truncate(usize::try_from(max).unwrap_or(usize::MAX));
    Ok((bytes, is_more))
}

/// Whether there is a directory at a path, and not a link to one.
pub(crate) fn is_real_dir(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|m| m.is_dir())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn text(dir: &Path, path: &str, links: Links) -> Result<String, String> {
        let file = open_file(dir, Path::new(path), links).map_err(|e| e.to_string())?;
        let (bytes, _) = read_capped(file, 100).map_err(|e| e.to_string())?;
        Ok(String::from_utf8(bytes).unwrap())
    }

    #[test]
    fn links_that_lead_out_are_not_followed() {
        let base = tempfile::tempdir().unwrap();
        let dir = base.path().join("in");
        std::fs::create_dir_all(dir.join("sub")).unwrap();
        std::fs::write(base.path().join("secret"), "s").unwrap();
        std::fs::write(dir.join("sub/file"), "f").unwrap();
        symlink("../secret", dir.join("out")).unwrap();
        symlink("/", dir.join("root")).unwrap();
        symlink("sub/file", dir.join("inside")).unwrap();
        for links in [Links::None, Links::Inside] {
            assert_eq!(text(&dir, "sub/file", links).unwrap(), "f");
            for bad in ["out", "root/etc/passwd", "../secret", "sub", "not-there"] {
                assert!(text(&dir, bad, links).is_err(), "{bad}");
            }
        }
        assert_eq!(text(&dir, "inside", Links::Inside).unwrap(), "f");
        assert!(text(&dir, "inside", Links::None).is_err());
    }

    #[test]
    fn without_the_kernels_help_no_link_is_followed() {
        let base = tempfile::tempdir().unwrap();
        let dir = base.path().join("in");
        std::fs::create_dir_all(dir.join("sub")).unwrap();
        std::fs::write(dir.join("sub/file"), "f").unwrap();
        symlink("sub", dir.join("inside")).unwrap();
        let open_dir = || OwnedFd::from(File::open(&dir).unwrap());
        assert!(step_by_step(open_dir(), Path::new("sub/file")).is_ok());
        for bad in ["inside/file", "../in/sub/file", "/etc/passwd"] {
            assert!(step_by_step(open_dir(), Path::new(bad)).is_err(), "{bad}");
        }
    }
}
