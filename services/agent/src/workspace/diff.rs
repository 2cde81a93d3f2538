//! What changed in a workspace, by a comparison of our own making.
//!
//! Snapshots are trees that the agent's own repository makes of the files; the program's `.git` is
//! not looked at. They live in a store of objects that goes with the attempt.

use std::fs;
use std::path::{Path, PathBuf};

use super::cache::{Cache, lend};
use super::git::Call;

/// Largest patch that is kept.
pub(crate) const PATCH_BYTES_MAX: u64 = 16 << 20;
/// What is ours there is no change.
const ALL_BUT_OURS: [&str; 3] = ["--", ".", ":(top,exclude).conductor"];
/// The mode of an entry that stands for a repository within.
const GITLINK: &str = "160000";

/// What is compared.
#[derive(Clone, Debug)]
pub(crate) struct Comparison<'a> {
    pub(crate) cache: &'a Cache,
    pub(crate) workspace: &'a Path,
    /// A directory of the attempt's for what is needed on the way.
    pub(crate) scratch: &'a Path,
}

/// How two trees differ.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Difference {
    pub(crate) files: u32,
    pub(crate) insertions: u64,
    pub(crate) deletions: u64,
    /// Absent where there is none, or it is too large.
    pub(crate) patch: Option<Vec<u8>>,
}

impl Comparison<'_> {
    /// The store of objects that snapshots are in.
    pub(crate) fn objects(&self) -> PathBuf {
        self.scratch.join("objects")
    }

    fn index(&self) -> PathBuf {
        self.scratch.join("index")
    }

    /// Makes ready for snapshots.
    pub(crate) fn prepare(&self) -> Result<(), String> {
        lend(&self.objects(), &[self.cache.dir.join("objects")])
            .map_err(|e| format!("cannot write {}: {e}", self.objects().display()))
    }

    /// The same where an earlier attempt did so. Git that was killed may have left an index of which
    /// nobody knows how far it is: what it saved is worked out again.
    pub(crate) fn prepare_again(&self) -> Result<(), String> {
        for name in [self.index(), self.scratch.join("index.lock")] {
            match fs::remove_file(&name) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                    return Err(format!("cannot remove {}: {e}", name.display()));
                }
                _ => {}
            }
        }
        self.prepare()
    }

    /// Whether a tree is there, with all directories below it.
    pub(crate) async fn has_tree(&self, tree: &str) -> bool {
        let list = self.call(&["ls-tree", "-r", "-t", "-z", "--name-only", tree]);
        list.run().await.is_ok()
    }

    fn call(&self, args: &[&str]) -> Call {
        self.cache
            .git
            .on(&self.cache.dir)
            .args(args)
            .within(self.workspace)
            .env("GIT_WORK_TREE", self.workspace)
            .env("GIT_INDEX_FILE", self.index())
            .env("GIT_OBJECT_DIRECTORY", self.objects())
    }

    /// The tree of all files that are there and not ignored. `from` is a tree whose files count
    /// even where they are ignored.
    pub(crate) async fn snapshot(&self, from: Option<&str>) -> Result<String, String> {
        if !crate::beneath::is_real_dir(self.workspace) {
            return Err("the workspace is not there any more".to_owned());
        }
        match from {
            // What the snapshot before knows of files that are the same is gone on with. By `-i` what
            // the others hold now does not matter: files that it saw changed may have changed since.
            Some(tree) if self.index().exists() => self.call(&["read-tree", "-m", "-i", tree]),
            Some(tree) => self.call(&["read-tree", tree]),
            None => self.call(&["read-tree", "--empty"]),
        }
        .run()
        .await?;
        let staged = self.call(&["ls-files", "-s", "-z"]).run().await?;
        let links = gitlinks(&staged);
        // `git add` asks `git status` of each repository within that it knows, which reads the
        // settings there, and runs what they name.
        self.note(links.iter().map(|(_, path)| removal(path)))
            .await?;
        let add = self.call(&["add", "-A", "--ignore-errors"]);
        add.args(ALL_BUT_OURS).partial().run().await?;
        let untouched = links.iter().filter(|(_, path)| self.is_empty_dir(path));
        let back = untouched.map(|(hash, path)| entry(hash, path));
        self.note(back).await?;
        self.call(&["write-tree"]).line().await
    }

    /// Whether a repository lies within that may hold anything, as of the last snapshot.
    pub(crate) async fn holds_repositories(&self) -> Result<bool, String> {
        let staged = self.call(&["ls-files", "-s", "-z"]).run().await?;
        let links = gitlinks(&staged);
        Ok(links.iter().any(|(_, path)| !self.is_empty_dir(path)))
    }

    /// Changes entries of the index.
    async fn note(&self, lines: impl Iterator<Item = Vec<u8>>) -> Result<(), String> {
        let lines: Vec<u8> = lines.flatten().collect();
        if !lines.is_empty() {
            let update = self.call(&["update-index", "-z", "--index-info"]);
            update.reads(lines).run().await?;
        }
        Ok(())
    }

    /// Whether a repository within was not filled, as in a clone of ours.
    fn is_empty_dir(&self, path: &[u8]) -> bool {
        use std::os::unix::ffi::OsStrExt;
        let path = self.workspace.join(std::ffi::OsStr::from_bytes(path));
        crate::beneath::is_real_dir(&path)
            && fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_none())
    }

    /// How `to` differs from `from`.
    pub(crate) async fn between(&self, from: &str, to: &str) -> Result<Difference, String> {
        let diff = |form: &[&str]| {
            let call = self.call(&["diff", "--no-color", "--no-ext-diff", "--no-textconv"]);
            call.args(form).args([from, to]).args(ALL_BUT_OURS)
        };
        let numbers = diff(&["--numstat", "-z"]).run().await?;
        let mut difference = count(&numbers);
        if difference.files > 0 {
            let patch = diff(&["--binary"]).run_capped(PATCH_BYTES_MAX).await?;
            difference.patch = patch.filter(|patch| !patch.is_empty());
        }
        Ok(difference)
    }
}

fn removal(path: &[u8]) -> Vec<u8> {
    [b"0 0000000000000000000000000000000000000000\t", path, b"\0"].concat()
}

fn entry(hash: &str, path: &[u8]) -> Vec<u8> {
    [format!("{GITLINK} {hash}\t").as_bytes(), path, b"\0"].concat()
}

/// Repositories within, of what `git ls-files -s -z` lists: hash and path.
fn gitlinks(staged: &[u8]) -> Vec<(String, Vec<u8>)> {
    let entries = staged.split(|b| *b == 0);
    let link = |entry: &[u8]| {
        let tab = entry.iter().position(|b| *b == b'\t')?;
        let (head, path) = (entry.get(..tab)?, entry.get(tab + 1..)?);
        let mut words = std::str::from_utf8(head).ok()?.split(' ');
        let (mode, hash) = (words.next()?, words.next()?);
        (mode == GITLINK).then(|| (hash.to_owned(), path.to_vec()))
    };
    entries.filter_map(link).collect()
}

/// The sums of what `git diff --numstat -z` lists.
fn count(numbers: &[u8]) -> Difference {
    let mut sum = Difference::default();
    let mut fields = numbers.split(|b| *b == 0);
    while let Some(field) = fields.next() {
        let mut parts = field.splitn(3, |b| *b == b'\t');
        let (Some(added), Some(removed), Some(path)) = (parts.next(), parts.next(), parts.next())
        else {
            continue;
        };
        // Of a file that was renamed both names follow.
        if path.is_empty() {
            fields.next();
            fields.next();
        }
        // Of one that is no text there are no lines to count.
        let number = |bytes: &[u8]| std::str::from_utf8(bytes).ok()?.parse::<u64>().ok();
        sum.files = sum.files.saturating_add(1);
        sum.insertions += number(added).unwrap_or(0);
        sum.deletions += number(removed).unwrap_or(0);
    }
    sum
}

#[cfg(test)]
mod tests;
