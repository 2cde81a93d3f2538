//! A bare mirror of a remote, on the host: what workspaces are cloned from, and where the commits
//! of programs go before they are pushed.
//!
//! Commits come out of a workspace as objects alone: the mirror's own git packs what the program's
//! store has and checks every object of the pack. Git offers `fetch` for that, but it would run
//! `git upload-pack` with the settings of the program's repository, and which of those can name
//! programs has changed more than once (lazy fetches of partial clones, for one).

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use conductor_protocol::ids::Lease;
use sha2::{Digest, Sha256};

use super::git::{Call, Git};
use super::head;
use super::lock::Lock;

/// How often a mirror that another attempt uses is looked at.
const LOCK_POLL: Duration = Duration::from_millis(20);
/// Who the commits of the host are by.
const AUTHOR: [(&str, &str); 4] = [
    ("GIT_AUTHOR_NAME", "Conductor"),
    ("GIT_AUTHOR_EMAIL", "conductor@localhost"),
    ("GIT_COMMITTER_NAME", "Conductor"),
    ("GIT_COMMITTER_EMAIL", "conductor@localhost"),
];

/// A bare repository of the agent's own.
#[derive(Clone, Debug)]
pub(crate) struct Cache {
    pub(crate) dir: PathBuf,
    pub(crate) git: Git,
}

impl Cache {
    /// The mirror of `url` below `kept`, made if it is not there.
    pub(crate) async fn of_url(kept: &Path, url: &str, git: Git) -> Result<Self, String> {
        let hash = hex(&Sha256::digest(url));
        let name = hash.get(..32).unwrap_or(&hash);
        Self::open(kept.join("git").join(format!("{name}.git")), git).await
    }

    /// The repository that comparisons of workspaces without one are made in.
    pub(crate) async fn of_none(kept: &Path, git: Git) -> Result<Self, String> {
        Self::open(kept.join("git").join("none.git"), git).await
    }

    async fn open(dir: PathBuf, git: Git) -> Result<Self, String> {
        let cache = Self { dir, git };
        let is_there = || cache.dir.join("objects").is_dir();
        if is_there() {
            return Ok(cache);
        }
        fs::create_dir_all(&cache.dir)
            .map_err(|e| format!("cannot make {}: {e}", cache.dir.display()))?;
        // Others may want it at the same time.
        let _lock = cache.lock().await?;
        if !is_there() {
            let init = cache.git.at(&cache.dir);
            init.args(["init", "-q", "--bare", "--template=", "."])
                .run()
                .await?;
        }
        Ok(cache)
    }

    /// Waits until no other attempt brings it up to date or clones from it. Commits are taken in and
    /// pushed beside that: objects do not go away.
    pub(crate) async fn lock(&self) -> Result<Lock, String> {
        let path = self.dir.with_extension("lock");
        loop {
            match Lock::try_take(&path) {
                Ok(Some(lock)) => return Ok(lock),
                Ok(None) => tokio::time::sleep(LOCK_POLL).await,
                Err(e) => return Err(format!("cannot lock {}: {e}", path.display())),
            }
        }
    }

    fn call(&self, args: &[&str]) -> Call {
        self.git.on(&self.dir).args(args)
    }

    /// Brings it up to date with its remote; the commit that `reference` names there.
    pub(crate) async fn fetch(&self, url: &str, reference: Option<&str>) -> Result<String, String> {
        // A commit never changes: one that is here need not be fetched.
        if let Some(hash) = reference.filter(|r| head::is_hash(r))
            && self.has_commit(hash).await
        {
            return Ok(hash.to_owned());
        }
        let mut refs = vec![
            "+refs/heads/*:refs/remotes/origin/*".to_owned(),
            "+refs/tags/*:refs/tags/*".to_owned(),
        ];
        if reference.is_none() {
            refs.push("+HEAD:refs/conductor-head".to_owned());
        }
        self.fetch_refs(url, &refs, true).await?;
        self.tidy().await?;
        let Some(reference) = reference else {
            return self.resolve("refs/conductor-head").await;
        };
        for candidate in candidates(reference) {
            if let Ok(commit) = self.resolve(&candidate).await {
                return Ok(commit);
            }
        }
        if head::is_hash(reference) {
            // On no branch; some servers give it all the same.
            let wanted = [format!("+{reference}:refs/conductor-wanted")];
            self.fetch_refs(url, &wanted, false).await?;
            return self.resolve("refs/conductor-wanted").await;
        }
        Err(format!(
            "{reference:?} is no branch, tag or commit of {url}"
        ))
    }

    async fn fetch_refs(&self, url: &str, refs: &[String], prunes: bool) -> Result<(), String> {
        let mut fetch = self.call(&[
            "fetch",
            "-q",
            "--no-tags",
            "--no-write-fetch-head",
            "--force",
        ]);
        if prunes {
            fetch = fetch.args(["--prune"]);
        }
        fetch.args(["--", url]).args(refs).remote().run().await?;
        Ok(())
    }

    /// Packs what has become many files, when it is time. What nothing names any more goes after two
    /// weeks, as git has it.
    async fn tidy(&self) -> Result<(), String> {
        let when = ["-c", "gc.auto=6700", "-c", "gc.autoDetach=false"];
        let gc = self.call(&when).args(["gc", "--auto", "-q"]);
        gc.run().await.map(|_| ())
    }

    /// The commit that a name of the repository stands for.
    pub(crate) async fn resolve(&self, name: &str) -> Result<String, String> {
        let what = format!("{name}^{{commit}}");
        let parse = self.call(&["rev-parse", "--verify", "-q", "--end-of-options", &what]);
        let commit = parse.line().await?;
        if head::is_hash(&commit) {
            Ok(commit)
        } else {
            Err(format!("{name} is no commit"))
        }
    }

    /// Whether it has a commit, and so all that belongs to it.
    pub(crate) async fn has_commit(&self, hash: &str) -> bool {
        self.resolve(hash).await.is_ok()
    }

    /// The tree of a commit.
    pub(crate) async fn tree_of(&self, commit: &str) -> Result<String, String> {
        let what = format!("{commit}^{{tree}}");
        self.call(&["rev-parse", "--verify", "-q", &what])
            .line()
            .await
    }

    /// Makes `workspace` a repository of its own, with the branches and tags of the remote and
    /// `branch` checked out at `commit`. It has no remote, and needs nothing outside.
    pub(crate) async fn populate(
        &self,
        workspace: &Path,
        commit: &str,
        branch: &str,
    ) -> Result<(), String> {
        let base = format!("refs/conductor-base/{}", branch.replace('/', "-"));
        self.call(&["update-ref", &base, commit]).run().await?;
        let at = |args: &[&str]| self.git.at(workspace).args(args);
        at(&["init", "-q", "--template=", "-b", branch, "."])
            .run()
            .await?;
        // Only what the remote has: the mirror also keeps what other tasks made.
        let refs = [
            "+refs/remotes/origin/*:refs/remotes/origin/*".to_owned(),
            "+refs/tags/*:refs/tags/*".to_owned(),
            format!("+{base}:refs/heads/{branch}"),
        ];
        let fetched = at(&[
            "fetch",
            "-q",
            "--no-tags",
            "--no-write-fetch-head",
            "--update-head-ok",
            "--",
        ])
        .args([self.dir.as_os_str()])
        .args(&refs)
        .run()
        .await;
        self.call(&["update-ref", "-d", &base]).run().await?;
        fetched?;
        at(&["reset", "-q", "--hard"]).run().await?;
        for (name, value) in [
            ("user.name", "Conductor agent"),
            ("user.email", "agent@localhost"),
        ] {
            at(&["config", name, value]).run().await?;
        }
        let info = workspace.join(".git/info");
        fs::create_dir_all(&info)
            .and_then(|()| fs::write(info.join("exclude"), "/.conductor/\n"))
            .map_err(|e| format!("cannot write {}: {e}", info.display()))
    }

    /// Takes in a commit with all that belongs to it, out of other stores of objects. What those
    /// hold is not trusted: every object is made anew from its content.
    pub(crate) async fn take_in(
        &self,
        commit: &str,
        stores: &[PathBuf],
        scratch: &Path,
    ) -> Result<(), String> {
        if self.has_commit(commit).await {
            return Ok(());
        }
        let mut lenders = vec![self.dir.join("objects")];
        lenders.extend(stores.iter().cloned());
        let odb = scratch.join("lent");
        lend(&odb, &lenders).map_err(|e| format!("cannot write {}: {e}", odb.display()))?;
        let known = self.call(&["for-each-ref", "--format=^%(objectname)"]);
        let mut wanted = format!("{commit}\n").into_bytes();
        wanted.extend(known.run().await?);
        let pack = scratch.join("commits.pack");
        let file = |made: std::io::Result<File>| {
            made.map_err(|e| format!("cannot write {}: {e}", pack.display()))
        };
        self.call(&["pack-objects", "--revs", "--stdout", "--thin", "-q"])
            .env("GIT_OBJECT_DIRECTORY", &odb)
            .reads(wanted)
            .run_into(file(File::create(&pack))?)
            .await?;
        self.call(&["index-pack", "--stdin", "--fix-thin", "--strict"])
            .reads_file(file(File::open(&pack))?)
            .run()
            .await?;
        // What cannot be removed goes with the attempt's directory.
        let _ = fs::remove_file(&pack);
        Ok(())
    }

    /// Keeps a commit that an attempt made, whatever becomes of its workspace.
    pub(crate) async fn keep(&self, lease: &Lease, commit: &str) -> Result<(), String> {
        let name = format!("refs/conductor/{}/{}", lease.task, lease.attempt);
        self.call(&["update-ref", &name, commit]).run().await?;
        Ok(())
    }

    /// Commits a tree on top of `parent`.
    pub(crate) async fn commit_tree(
        &self,
        tree: &str,
        parent: &str,
        message: &str,
        objects: &Path,
    ) -> Result<String, String> {
        let mut call = self
            .call(&["commit-tree", tree, "-p", parent, "-F", "-"])
            .env("GIT_OBJECT_DIRECTORY", objects)
            .reads(message.as_bytes().to_vec());
        for (name, value) in AUTHOR {
            call = call.env(name, value);
        }
        call.line().await
    }

    /// Pushes a commit to a branch of the remote; what is there already is never overwritten.
    pub(crate) async fn push(&self, url: &str, commit: &str, branch: &str) -> Result<(), String> {
        let what = format!("{commit}:refs/heads/{branch}");
        self.call(&[
            "push",
            "-q",
            "--no-verify",
            "--no-follow-tags",
            "--",
            url,
            &what,
        ])
        .remote()
        .run()
        .await?;
        // As the next look at the remote would find it.
        let seen = format!("refs/remotes/origin/{branch}");
        self.call(&["update-ref", &seen, commit]).run().await?;
        Ok(())
    }

    /// Whether the remote has all of these commits, on some branch or under some tag, as far as is
    /// known here.
    pub(crate) async fn are_on_remote(&self, commits: &[String]) -> bool {
        if commits.is_empty() {
            return true;
        }
        let refs = ["refs/remotes/origin", "refs/tags"];
        let known = self.call(&["for-each-ref", "--format=^%(objectname)"]);
        let Ok(known) = known.args(refs).run().await else {
            return false;
        };
        let mut asked = commits.join("\n").into_bytes();
        asked.push(b'\n');
        asked.extend(known);
        let list = self.call(&["rev-list", "--max-count=1", "--stdin"]);
        // A commit that is not here is an error, and not on the remote.
        list.reads(asked).line().await.is_ok_and(|l| l.is_empty())
    }

    /// Whether a branch of the remote ends in just this tree, as far as is known here.
    pub(crate) async fn is_tip(&self, tree: &str) -> bool {
        let trees = self.call(&["for-each-ref", "--format=%(tree)", "refs/remotes/origin"]);
        let trees = trees.line().await;
        trees.is_ok_and(|trees| trees.lines().any(|tip| tip == tree))
    }
}

/// Names in the mirror that a reference may mean, likeliest first.
fn candidates(reference: &str) -> Vec<String> {
    if let Some(branch) = reference.strip_prefix("refs/heads/") {
        return vec![format!("refs/remotes/origin/{branch}")];
    }
    if reference.starts_with("refs/") {
        return vec![reference.to_owned()];
    }
    let mut all = vec![
        format!("refs/remotes/origin/{reference}"),
        format!("refs/tags/{reference}"),
    ];
    let is_hex = reference.bytes().all(|b| b.is_ascii_hexdigit());
    if is_hex && reference.len() >= 7 {
        all.push(reference.to_owned());
    }
    all
}

/// A store of objects that has none of its own yet, and borrows from others.
pub(crate) fn lend(odb: &Path, lenders: &[PathBuf]) -> std::io::Result<()> {
    use std::os::unix::ffi::OsStrExt;
    fs::create_dir_all(odb.join("info"))?;
    let mut list = Vec::new();
    for lender in lenders {
        list.extend(lender.as_os_str().as_bytes());
        list.push(b'\n');
    }
    fs::write(odb.join("info/alternates"), list)
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_is_a_branch_a_tag_or_a_commit() {
        assert_eq!(
            candidates("main"),
            ["refs/remotes/origin/main", "refs/tags/main"]
        );
        assert_eq!(candidates("refs/heads/a/b"), ["refs/remotes/origin/a/b"]);
        assert_eq!(candidates("refs/tags/v1"), ["refs/tags/v1"]);
        let hash = "0123456789abcdef0123456789abcdef01234567";
        assert_eq!(candidates(hash).last().unwrap(), hash);
    }
}
