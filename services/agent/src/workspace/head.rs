//! Where the repository of a workspace stands, read without running git in it.
//!
//! `git` started there would read settings that the program may have written. Its files are read
//! by ourselves instead, no link followed.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use crate::beneath::{Links, is_real_dir, open_file, read_capped};

/// Longest file of one ref.
const REF_BYTES_MAX: u64 = 4 * 1024;
/// Longest list of packed refs.
const PACKED_BYTES_MAX: u64 = 16 << 20;
/// How often a ref may name another.
const DEPTH_MAX: usize = 5;
/// Most entries of its store of objects that are looked at.
const OBJECTS_MAX: usize = 2_000_000;
/// Most files below its refs that are looked at.
const REFS_MAX: usize = 100_000;

/// The commit that `HEAD` of the repository in `workspace` names; `None` before the first.
pub(crate) fn read(workspace: &Path) -> Result<Option<String>, String> {
    let git = workspace.join(".git");
    if !is_real_dir(&git) {
        return Err("its .git is no directory any more".to_owned());
    }
    let mut name = "HEAD".to_owned();
    for _ in 0..DEPTH_MAX {
        let Some(text) = read_text(&git, &name, REF_BYTES_MAX)? else {
            return packed(&git, &name);
        };
        let text = text.trim();
        match text.strip_prefix("ref:") {
            None => return hash(text).map(Some),
            Some(target) => {
                let target = target.trim();
                if !is_ref_name(target) {
                    return Err(format!("its HEAD names {target:?}, which is no branch"));
                }
                target.clone_into(&mut name);
            }
        }
    }
    Err("its refs go round in a circle".to_owned())
}

/// Every object that a ref of the repository in `workspace` names, and its `HEAD`: branches, tags,
/// what was stashed, the other checkouts that it knows. Each stands there once.
pub(crate) fn tips(workspace: &Path) -> Result<Vec<String>, String> {
    let git = workspace.join(".git");
    let mut tips: BTreeSet<String> = read(workspace)?.into_iter().collect();
    let packed = read_text(&git, "packed-refs", PACKED_BYTES_MAX)?;
    for line in packed.iter().flat_map(|text| text.lines()) {
        let of_ref = line.split_once(' ').map(|(hash, _)| hash);
        tips.extend(of_ref.filter(|h| is_hash(h)).map(str::to_owned));
    }
    let mut todo = vec!["refs".to_owned(), "worktrees".to_owned()];
    let mut seen = 0;
    while let Some(dir) = todo.pop() {
        let unreadable = |e: io::Error| format!("its {dir} cannot be read: {e}");
        if std::fs::symlink_metadata(git.join(&dir)).is_err() {
            continue;
        }
        if !is_real_dir(&git.join(&dir)) {
            return Err(format!("its {dir} is no directory any more"));
        }
        for entry in std::fs::read_dir(git.join(&dir)).map_err(unreadable)? {
            let entry = entry.map_err(unreadable)?;
            let kind = entry.file_type().map_err(unreadable)?;
            let name = entry.file_name().into_string();
            let name = name.map_err(|name| format!("{} among its refs", name.display()))?;
            seen += 1;
            if seen > REFS_MAX {
                return Err("its repository has too many refs".to_owned());
            }
            let is_ref = dir.starts_with("refs") || name == "HEAD";
            let path = format!("{dir}/{name}");
            if kind.is_dir() {
                todo.push(path);
            } else if is_ref && let Some(text) = read_text(&git, &path, REF_BYTES_MAX)? {
                // One that names another ref says nothing of its own.
                tips.extend(Some(text.trim()).filter(|t| is_hash(t)).map(str::to_owned));
            }
        }
    }
    Ok(tips.into_iter().collect())
}

/// The store of objects of the repository in `workspace`, if nothing in it leads elsewhere.
pub(crate) fn objects(workspace: &Path) -> Result<PathBuf, String> {
    let objects = workspace.join(".git/objects");
    let unreadable = |e: io::Error| format!("its objects cannot be read: {e}");
    if !is_real_dir(&workspace.join(".git")) || !is_real_dir(&objects) {
        return Err("its objects are not in its .git".to_owned());
    }
    // What it borrows from could be anything that the agent can read.
    for lender in ["info/alternates", "info/http-alternates"] {
        if std::fs::symlink_metadata(objects.join(lender)).is_ok() {
            return Err("its repository borrows objects from elsewhere".to_owned());
        }
    }
    let (mut todo, mut seen) = (vec![objects.clone()], 0);
    while let Some(dir) = todo.pop() {
        for entry in std::fs::read_dir(dir).map_err(unreadable)? {
            let entry = entry.map_err(unreadable)?;
            let kind = entry.file_type().map_err(unreadable)?;
            seen += 1;
            if seen > OBJECTS_MAX {
                return Err("its repository has too many files".to_owned());
            }
            if kind.is_dir() {
                todo.push(entry.path());
            } else if !kind.is_file() {
                let name = entry.file_name();
                return Err(format!("{} among its objects is no file", name.display()));
            }
        }
    }
    Ok(objects)
}

fn read_text(git: &Path, name: &str, max: u64) -> Result<Option<String>, String> {
    let file = match open_file(git, Path::new(name), Links::None) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(format!("its {name} cannot be read: {e}")),
    };
    let (bytes, is_more) = read_capped(file, max).map_err(|e| format!("its {name}: {e}"))?;
    if is_more {
        return Err(format!("its {name} is longer than {max} bytes"));
    }
    Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
}

fn packed(git: &Path, name: &str) -> Result<Option<String>, String> {
    let text = read_text(git, "packed-refs", PACKED_BYTES_MAX)?;
    let line = text.iter().flat_map(|text| text.lines()).find_map(|line| {
        let (hash, of) = line.split_once(' ')?;
        (of == name).then(|| hash.to_owned())
    });
    line.map(|text| hash(&text)).transpose()
}

/// A whole hash and nothing else: it will stand on command lines.
fn hash(text: &str) -> Result<String, String> {
    if is_hash(text) {
        Ok(text.to_owned())
    } else {
        Err("its HEAD names no commit".to_owned())
    }
}

/// Whether a text is the whole name of an object.
pub(crate) fn is_hash(text: &str) -> bool {
    let is_hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    matches!(text.len(), 40 | 64) && text.bytes().all(is_hex)
}

fn is_ref_name(name: &str) -> bool {
    name.starts_with("refs/")
        && name
            .split('/')
            .all(|part| !part.is_empty() && part != "." && part != "..")
        && !name.contains(|c: char| c.is_control() || c == '\\')
}

#[cfg(test)]
mod tests {
    use super::super::git::tests::users;
    use super::*;
    use std::os::unix::fs::symlink;

    fn repository() -> (tempfile::TempDir, String) {
        let dir = tempfile::tempdir().unwrap();
        users(dir.path(), &["init", "-q", "-b", "main"]);
        users(dir.path(), &["commit", "-q", "--allow-empty", "-m", "one"]);
        let head = users(dir.path(), &["rev-parse", "HEAD"]).trim().to_owned();
        (dir, head)
    }

    #[test]
    fn head_is_what_git_says() {
        let (dir, head) = repository();
        assert_eq!(read(dir.path()), Ok(Some(head.clone())));
        users(dir.path(), &["pack-refs", "--all"]);
        assert_eq!(read(dir.path()), Ok(Some(head.clone())), "packed");
        users(dir.path(), &["checkout", "-q", "--detach"]);
        assert_eq!(read(dir.path()), Ok(Some(head)), "detached");
        let new = tempfile::tempdir().unwrap();
        users(new.path(), &["init", "-q"]);
        assert_eq!(read(new.path()), Ok(None), "no commit yet");
    }

    #[test]
    fn tips_are_all_that_any_ref_names() {
        let (dir, main) = repository();
        let commit = |message: &str| {
            users(
                dir.path(),
                &["commit", "-q", "--allow-empty", "-m", message],
            );
            users(dir.path(), &["rev-parse", "HEAD"]).trim().to_owned()
        };
        users(dir.path(), &["checkout", "-q", "-b", "a/b"]);
        let branch = commit("branch");
        users(dir.path(), &["tag", "v1"]);
        users(dir.path(), &["pack-refs", "--all"]);
        users(dir.path(), &["checkout", "-q", "--detach"]);
        let detached = commit("detached");
        std::fs::write(dir.path().join("f"), "x").unwrap();
        users(dir.path(), &["add", "f"]);
        users(dir.path(), &["stash", "-q"]);
        let stash = users(dir.path(), &["rev-parse", "stash"]);
        let other = dir.path().join("other");
        users(
            dir.path(),
            &[
                "worktree",
                "add",
                "-q",
                "--detach",
                &other.to_string_lossy(),
            ],
        );
        users(&other, &["commit", "-q", "--allow-empty", "-m", "beside"]);
        let beside = users(&other, &["rev-parse", "HEAD"]);
        let mut all = [main, branch, detached, stash, beside].map(|c| c.trim().to_owned());
        all.sort();
        assert_eq!(tips(dir.path()), Ok(all.to_vec()));
        std::fs::remove_dir_all(dir.path().join(".git/refs")).unwrap();
        symlink("/etc", dir.path().join(".git/refs")).unwrap();
        assert!(tips(dir.path()).is_err(), "no link is followed");
    }

    #[test]
    fn what_a_program_may_have_made_of_it_is_refused() {
        let (dir, head) = repository();
        let git = dir.path().join(".git");
        let elsewhere = dir.path().join("elsewhere");
        std::fs::write(&elsewhere, &head).unwrap();
        for bad in [
            "ref: ../../etc/passwd",
            "ref: refs/../../x",
            "ref: HEAD",
            "--upload-pack=x",
            "",
        ] {
            std::fs::write(git.join("HEAD"), bad).unwrap();
            assert!(read(dir.path()).is_err(), "{bad}");
        }
        std::fs::write(git.join("HEAD"), "ref: refs/heads/a").unwrap();
        std::fs::write(git.join("refs/heads/a"), "ref: refs/heads/a").unwrap();
        assert!(read(dir.path()).unwrap_err().contains("circle"));
        std::fs::remove_file(git.join("refs/heads/a")).unwrap();
        symlink(&elsewhere, git.join("refs/heads/a")).unwrap();
        assert!(read(dir.path()).is_err(), "a link");
    }

    #[test]
    fn objects_that_are_elsewhere_are_not_read() {
        let (dir, _) = repository();
        let objects = dir.path().join(".git/objects");
        assert_eq!(super::objects(dir.path()), Ok(objects.clone()));
        let alternates = objects.join("info/alternates");
        std::fs::write(&alternates, "/somewhere\n").unwrap();
        assert!(super::objects(dir.path()).unwrap_err().contains("borrows"));
        std::fs::remove_file(alternates).unwrap();
        symlink("/etc", objects.join("aa")).unwrap();
        assert!(super::objects(dir.path()).unwrap_err().contains("no file"));
    }
}
