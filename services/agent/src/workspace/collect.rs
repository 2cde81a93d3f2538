//! The files that an attempt leaves to be kept.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use async_trait::async_trait;
use sha2::{Digest, Sha256};

use super::cache::hex;
use crate::beneath::{Links, is_real_dir, open_file};

/// Largest artifact.
pub const ARTIFACT_BYTES_MAX: u64 = 100 << 20;
/// Most bytes of all artifacts of an attempt.
pub const ARTIFACTS_BYTES_MAX: u64 = 1 << 30;
/// The artifact of what changed.
pub(crate) const PATCH: &str = "changes.patch";
/// The artifact of a result that is too long for an event.
pub(crate) const RESULT: &str = "result.txt";
/// Most files that are kept of an attempt, and that its patterns may stand for.
pub(crate) const FILES_MAX: usize = 1_000;
/// Most entries of directories that are looked at for them.
const ENTRIES_MAX: usize = 100_000;

/// Where artifacts are kept.
#[async_trait]
pub trait ArtifactStore: fmt::Debug + Send + Sync {
    /// Keeps the bytes of a file under the hash of them; returns once they are safe.
    async fn store(&self, sha256: &str, size: u64, file: File) -> Result<(), String>;
}

/// A file whose content is known.
#[derive(Debug)]
pub(crate) struct Hashed {
    pub(crate) file: File,
    pub(crate) sha256: String,
    pub(crate) size: u64,
}

/// A declared artifact that cannot be kept, and why.
pub(crate) type Problem = String;

/// The files that declared paths and patterns stand for, in order and each once; and what is wrong
/// with those that name a file which is not there. A pattern may stand for none.
pub(crate) fn find(workspace: &Path, declared: &[String]) -> (Vec<String>, Vec<Problem>) {
    let (mut found, mut problems) = (Vec::new(), Vec::new());
    for pattern in declared {
        if !pattern.contains('*') {
            match fs::symlink_metadata(workspace.join(pattern)) {
                Ok(there) if there.is_dir() => problems.push(format!(
                    "the artifact {pattern:?} is a directory; name files, or {pattern}/*"
                )),
                Ok(_) => found.push(pattern.clone()),
                Err(_) => problems.push(format!("the artifact {pattern:?} is not there")),
            }
            continue;
        }
        match expand(workspace, pattern) {
            Ok(paths) => found.extend(paths),
            Err(problem) => problems.push(problem),
        }
    }
    let mut seen = std::collections::BTreeSet::new();
    found.retain(|path| seen.insert(path.clone()));
    if found.len() > FILES_MAX {
        problems.push(format!(
            "{} files are declared as artifacts, at most {FILES_MAX} are kept",
            found.len()
        ));
        found.clear();
    }
    (found, problems)
}

/// The files that a pattern stands for; no link is followed on the way.
fn expand(workspace: &Path, pattern: &str) -> Result<Vec<String>, String> {
    let mut at = vec![String::new()];
    let parts: Vec<&str> = pattern
        .split('/')
        .filter(|p| !p.is_empty() && *p != ".")
        .collect();
    let mut looked_at = 0;
    for (i, part) in parts.iter().enumerate() {
        let is_last = i + 1 == parts.len();
        let mut next = Vec::new();
        for dir in at {
            let below = workspace.join(&dir);
            if !is_real_dir(&below) {
                continue;
            }
            for entry in fs::read_dir(&below).into_iter().flatten().flatten() {
                looked_at += 1;
                if looked_at > ENTRIES_MAX {
                    return Err(format!(
                        "the artifact pattern {pattern:?} leads through more than {ENTRIES_MAX} files"
                    ));
                }
                let Ok(name) = entry.file_name().into_string() else {
                    continue;
                };
                let is_ours = dir.is_empty() && [".git", super::inputs::FOLDER].contains(&&*name);
                let is_dir = entry.file_type().is_ok_and(|t| t.is_dir());
                if matches(part, &name) && !is_ours && is_dir != is_last {
                    let slash = if dir.is_empty() { "" } else { "/" };
                    next.push(format!("{dir}{slash}{name}"));
                }
            }
        }
        at = next;
    }
    at.sort();
    Ok(at)
}

/// Whether a name fits a pattern, in which `*` stands for anything.
fn matches(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| name.strip_prefix(first)) else {
        return false;
    };
    let mut is_open = false;
    let mut parts = parts.peekable();
    while let Some(part) = parts.next() {
        is_open = true;
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        match rest.find(part) {
            Some(at) => rest = rest.get(at + part.len()..).unwrap_or_default(),
            None => return false,
        }
    }
    is_open || rest.is_empty()
}

/// Opens a declared file, if it is not too large; with its size in bytes. A link that leads out of
/// the workspace is refused.
pub(crate) fn open(workspace: &Path, path: &str) -> Result<(File, u64), Problem> {
    let file = open_file(workspace, Path::new(path), Links::Inside).map_err(|e| {
        let out = "it leads out of the workspace".to_owned();
        let is_out = e.raw_os_error() == Some(rustix::io::Errno::XDEV.raw_os_error());
        let why = if is_out { out } else { e.to_string() };
        format!("the artifact {path:?} cannot be kept: {why}")
    })?;
    let size = size(&file).map_err(|e| format!("the artifact {path:?} cannot be kept: {e}"))?;
    Ok((file, size))
}

/// Hashes a declared file that was opened with this size.
pub(crate) fn hash_opened(path: &str, file: File, size: u64) -> Result<Hashed, Problem> {
    read(file, size).map_err(|e| format!("the artifact {path:?} cannot be kept: {e}"))
}

/// Hashes a file, if it is not too large.
pub(crate) fn hash(file: File) -> Result<Hashed, String> {
    let size = size(&file)?;
    read(file, size)
}

/// The size of a file in bytes, if it is not too large.
fn size(file: &File) -> Result<u64, String> {
    let size = file.metadata().map_err(|e| e.to_string())?.len();
    if size > ARTIFACT_BYTES_MAX {
        return Err(format!(
            "it has {size} bytes, at most {ARTIFACT_BYTES_MAX} are kept"
        ));
    }
    Ok(size)
}

fn read(mut file: File, size: u64) -> Result<Hashed, String> {
    let (mut hash, mut read) = (Sha256::new(), 0);
    let mut buffer = vec![0_u8; 256 * 1024];
    // One that grows all the while is not followed without end.
    let mut bytes = Read::take(&mut file, size + 1);
    loop {
        match bytes.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => {
                hash.update(buffer.get(..n).unwrap_or_default());
                read += n as u64;
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e.to_string()),
        }
    }
    file.seek(SeekFrom::Start(0)).map_err(|e| e.to_string())?;
    if read != size {
        return Err("it changes while it is read".to_owned());
    }
    let sha256 = hex(&hash.finalize());
    Ok(Hashed { file, sha256, size })
}

/// What a file is, by its name.
pub(crate) fn media_type(name: &str) -> Option<String> {
    let (_, extension) = name.rsplit_once('.')?;
    let known = match extension.to_ascii_lowercase().as_str() {
        "txt" | "log" => "text/plain",
        "md" => "text/markdown",
        "patch" | "diff" => "text/x-diff",
        "json" => "application/json",
        "xml" => "application/xml",
        "html" => "text/html",
        "csv" => "text/csv",
        "pdf" => "application/pdf",
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "svg" => "image/svg+xml",
        "gz" | "tgz" => "application/gzip",
        "zip" => "application/zip",
        "tar" => "application/x-tar",
        _ => return None,
    };
    Some(known.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_star_stands_for_anything_in_a_name() {
        for (pattern, name, fits) in [
            ("*", "a", true),
            ("a*", "abc", true),
            ("*.log", "x.log", true),
            ("*.log", "x.log.1", false),
            ("a*b*c", "a-b-c", true),
            ("a*b*c", "acb", false),
            ("ab*ab", "ab", false),
            ("abc", "abc", true),
            ("abc", "abcd", false),
        ] {
            assert_eq!(matches(pattern, name), fits, "{pattern} {name}");
        }
    }

    #[test]
    fn patterns_stand_for_files_and_missing_ones_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let ws = dir.path();
        for file in [
            "out/a.log",
            "out/b.log",
            "out/c.txt",
            "d",
            ".git/x.log",
            "deep/er/z.log",
        ] {
            fs::create_dir_all(ws.join(file).parent().unwrap()).unwrap();
            fs::write(ws.join(file), file).unwrap();
        }
        symlink("/etc", ws.join("etc")).unwrap();
        let declared = [
            "d",
            "out/*.log",
            "*/*.log",
            "*/*/*.log",
            "etc/*",
            "none*",
            "gone",
            "out",
        ];
        let (found, problems) = find(ws, &declared.map(str::to_owned));
        assert_eq!(found, ["d", "out/a.log", "out/b.log", "deep/er/z.log"]);
        assert_eq!(problems.len(), 2, "{problems:?}");
        assert!(
            problems[0].contains("\"gone\" is not there"),
            "{problems:?}"
        );
        assert!(
            problems[1].contains("\"out\" is a directory"),
            "{problems:?}"
        );
    }

    #[test]
    fn links_out_of_the_workspace_are_no_artifacts() {
        let base = tempfile::tempdir().unwrap();
        let ws = base.path().join("ws");
        fs::create_dir(&ws).unwrap();
        fs::write(base.path().join("secret"), "s").unwrap();
        fs::write(ws.join("file"), "abc").unwrap();
        for (target, link) in [("../secret", "out"), ("/etc/passwd", "abs"), ("file", "in")] {
            symlink(target, ws.join(link)).unwrap();
        }
        for out in ["out", "abs"] {
            let problem = open(&ws, out).unwrap_err();
            assert!(problem.contains("leads out of the workspace"), "{problem}");
        }
        let (file, size) = open(&ws, "in").unwrap();
        let kept = hash_opened("in", file, size).unwrap();
        assert_eq!(kept.size, 3);
        assert!(
            kept.sha256.starts_with("ba7816bf8f01cfea"),
            "{}",
            kept.sha256
        );
    }

    #[test]
    fn a_file_that_is_too_large_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let file = File::create(dir.path().join("huge")).unwrap();
        file.set_len(ARTIFACT_BYTES_MAX + 1).unwrap();
        let problem = open(dir.path(), "huge").unwrap_err();
        assert!(problem.contains("at most 104857600"), "{problem}");
    }
}
