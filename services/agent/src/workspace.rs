//! What an attempt works on: made before it, compared and kept after it.
//!
//! An empty directory, a clone of a git repository, or a named workspace that later tasks go on in.
//! Git runs on the host alone ([`git`]), with the host's rights only where it speaks to a remote
//! ([`cache`]). What a program left is not trusted: its files are compared by a repository of our
//! own ([`diff`]), its commits are taken out as objects alone.

pub(crate) mod cache;
pub mod collect;
pub(crate) mod diff;
pub(crate) mod git;
pub(crate) mod head;
pub(crate) mod inputs;
pub(crate) mod lock;
pub(crate) mod named;
pub(crate) mod store;

use std::fs;
use std::path::{Path, PathBuf};

use conductor_protocol::RunSpec;
use conductor_protocol::event::AttemptAssigned;
use conductor_protocol::ids::Lease;
use conductor_protocol::terms::{GitSpec, WorkspaceSpec};
use serde::{Deserialize, Serialize};

use crate::dirs::{AttemptDirs, lease_name};
use crate::sessions;
use cache::Cache;
use diff::{Comparison, Difference};
use git::Git;
use named::{Named, Origin};

/// What the making of a workspace needs to know.
#[derive(Debug)]
pub(crate) struct Ground<'a> {
    pub(crate) lease: Lease,
    pub(crate) assigned: &'a AttemptAssigned,
    /// Where all attempts have their directories.
    pub(crate) base: &'a Path,
    /// Where caches and named workspaces are kept.
    pub(crate) kept: &'a Path,
    /// `PATH` of programs.
    pub(crate) path: &'a str,
}

/// A workspace that was made.
#[derive(Debug)]
pub(crate) struct Workspace {
    lease: Lease,
    git: Option<GitSpec>,
    /// What it began as, where what changed is of interest.
    began: Option<Began>,
    /// Why that is not known.
    unknown: Option<String>,
    /// Held until the attempt is over.
    _named: Option<Named>,
}

/// What a workspace began as.
#[derive(Debug)]
struct Began {
    cache: Cache,
    files: PathBuf,
    scratch: PathBuf,
    /// What it is compared with.
    tree: String,
    /// The commit that was checked out, in a repository.
    commit: Option<String>,
}

/// What an attempt changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Changed {
    pub(crate) difference: Difference,
    pub(crate) base: Option<String>,
    pub(crate) head: Option<String>,
    /// Why its own commits could not be taken over, where that is so.
    pub(crate) problem: Option<String>,
    /// The tree of all files.
    tree: String,
}

/// Beside an attempt's directories: where its commits go, should the agent die.
#[derive(Debug, Serialize, Deserialize)]
struct Note {
    cache: PathBuf,
    lease: Lease,
}

/// The file of a [`Note`].
const NOTE: &str = "git.json";

impl Workspace {
    /// Makes the directories of an attempt with the workspace its task asks for.
    pub(crate) async fn make(ground: &Ground<'_>, dirs: &mut AttemptDirs) -> Result<Self, String> {
        let terms = ground.assigned.terms.as_deref();
        let spec = terms.and_then(|t| t.workspace.as_ref());
        let git = spec.and_then(|s| s.git.clone());
        let named = take_name(ground, spec)?;
        if let Some(named) = &named {
            dirs.workspace.clone_from(&named.files);
        }
        let is_new = named.as_ref().is_none_or(|named| !named.is_made());
        if is_new && dirs.workspace.exists() {
            // Half of a clone is nothing to go on in.
            fs::remove_dir_all(&dirs.workspace).map_err(|e| no_room(ground.base, &e))?;
        }
        dirs.create(&lease_name(&ground.lease))
            .map_err(|e| no_room(ground.base, &e))?;
        // What an earlier attempt left, where this one goes on in its session.
        if ground.session().is_some() {
            sessions::take(ground.kept, ground.lease.task, dirs)
                .map_err(|e| format!("cannot go on in its session: {e}"))?;
        }
        sessions::mark(dirs, ground.assigned).map_err(|e| no_room(ground.base, &e))?;
        let mut began = Self::fill(ground, dirs, git.as_ref(), is_new).await?;
        if let Some(named) = named.as_ref().filter(|_| is_new) {
            let url = git.as_ref().map(|git| git.url.clone());
            named.note(&Origin { url })?;
        }
        inputs::place(&dirs.workspace, &ground.lease, ground.assigned)
            .map_err(|e| format!("cannot place its inputs: {e}"))?;
        let mut unknown = None;
        if began.is_none() && is_compared(ground.assigned, spec) {
            // Without git there is no comparison, and the task is run all the same.
            match Began::of_files(ground, dirs).await {
                Ok(files) => began = Some(files),
                Err(problem) => unknown = Some(problem),
            }
        }
        let lease = ground.lease;
        Ok(Self {
            lease,
            git,
            began,
            unknown,
            _named: named,
        })
    }

    /// Fills it from its repository, or takes note of where that stands.
    async fn fill(
        ground: &Ground<'_>,
        dirs: &AttemptDirs,
        git: Option<&GitSpec>,
        is_new: bool,
    ) -> Result<Option<Began>, String> {
        let Some(spec) = git else {
            return Ok(None);
        };
        ground.check_url(&spec.url)?;
        let cache = Cache::of_url(ground.kept, &spec.url, ground.git()).await?;
        let lock = cache.lock().await?;
        let commit = if is_new {
            let commit = cache.fetch(&spec.url, spec.reference.as_deref()).await?;
            let branch = format!("conductor/{}", ground.lease.task);
            cache.populate(&dirs.workspace, &commit, &branch).await?;
            Some(commit)
        } else {
            head::read(&dirs.workspace)?
        };
        drop(lock);
        let note = Note {
            cache: cache.dir.clone(),
            lease: ground.lease,
        };
        let text = serde_json::to_vec(&note).map_err(|e| e.to_string())?;
        fs::write(dirs.root.join(NOTE), text).map_err(|e| no_room(ground.base, &e))?;
        Began::of(cache, dirs, commit).await.map(Some)
    }

    /// What changed since it was made; `None` where nobody asks.
    pub(crate) async fn changes(&self) -> Result<Option<Changed>, String> {
        let Some(began) = &self.began else {
            return self.unknown.clone().map_or(Ok(None), Err);
        };
        let is_git = self.git.is_some();
        let head = if is_git {
            began.take_in_head(&self.lease).await
        } else {
            Ok(None)
        };
        let (head, problem) = match head {
            Ok(head) => (head, None),
            Err(problem) => (None, Some(problem)),
        };
        let comparison = began.comparison();
        let from = head.as_deref().unwrap_or(&began.tree);
        let tree = comparison.snapshot(Some(from)).await?;
        let difference = comparison.between(&began.tree, &tree).await?;
        Ok(Some(Changed {
            difference,
            base: began.commit.clone(),
            head: head.or_else(|| began.commit.clone()),
            problem,
            tree,
        }))
    }

    /// Pushes what an attempt that succeeded made, where its task names a branch: its commits, and
    /// what it did not commit as one more. Returns the branch, where there was anything to push.
    pub(crate) async fn push(&self, changed: &mut Changed) -> Result<Option<String>, String> {
        let Some((began, git)) = self.began.as_ref().zip(self.git.as_ref()) else {
            return Ok(None);
        };
        let Some(branch) = &git.push else {
            return Ok(None);
        };
        if let Some(problem) = &changed.problem {
            return Err(format!("its commits cannot be taken over: {problem}"));
        }
        let is_untouched = changed.tree == began.tree && changed.head == began.commit;
        if is_untouched {
            return Ok(None);
        }
        let cache = &began.cache;
        let Some(mut head) = changed.head.clone() else {
            return Err("there is no commit to push".to_owned());
        };
        if cache.tree_of(&head).await? != changed.tree {
            let message = format!(
                "conductor: uncommitted changes of task {}\n",
                self.lease.task
            );
            let objects = began.comparison().objects();
            head = cache
                .commit_tree(&changed.tree, &head, &message, &objects)
                .await?;
            cache.take_in(&head, &[objects], &began.scratch).await?;
            cache.keep(&self.lease, &head).await?;
            changed.head = Some(head.clone());
        }
        if changed.base.as_ref() == Some(&head) {
            return Ok(None);
        }
        cache.push(&git.url, &head, branch).await?;
        Ok(Some(branch.clone()))
    }

    /// Keeps the commits of an attempt that is over before its time.
    pub(crate) async fn rescue(&self) {
        if let Some(began) = self.began.as_ref().filter(|_| self.git.is_some())
            && let Err(problem) = began.take_in_head(&self.lease).await
        {
            tracing::warn!(task = %self.lease.task, problem, "commits of an attempt were not kept");
        }
    }
}

impl Began {
    /// Of files that are in no repository of ours.
    async fn of_files(ground: &Ground<'_>, dirs: &AttemptDirs) -> Result<Self, String> {
        let cache = Cache::of_none(ground.kept, ground.git()).await?;
        Self::of(cache, dirs, None).await
    }

    async fn of(cache: Cache, dirs: &AttemptDirs, commit: Option<String>) -> Result<Self, String> {
        let scratch = dirs.root.join("compare");
        let mut began = Self {
            cache,
            files: dirs.workspace.clone(),
            scratch,
            tree: String::new(),
            commit,
        };
        let comparison = began.comparison();
        comparison.prepare()?;
        if let Some(commit) = &began.commit {
            // Of a named workspace whose agent died before it was taken over.
            began.take_in(commit).await?;
        }
        began.tree = began.comparison().snapshot(began.commit.as_deref()).await?;
        Ok(began)
    }

    fn comparison(&self) -> Comparison<'_> {
        Comparison {
            cache: &self.cache,
            workspace: &self.files,
            scratch: &self.scratch,
        }
    }

    async fn take_in(&self, commit: &str) -> Result<(), String> {
        if self.cache.has_commit(commit).await {
            return Ok(());
        }
        let stores = [head::objects(&self.files)?];
        self.cache.take_in(commit, &stores, &self.scratch).await
    }

    /// Takes over the commits that the program made, and keeps them.
    async fn take_in_head(&self, lease: &Lease) -> Result<Option<String>, String> {
        let head = head::read(&self.files)?;
        if let Some(head) = head
            .as_ref()
            .filter(|head| self.commit.as_ref() != Some(head))
        {
            self.take_in(head).await?;
            self.cache.keep(lease, head).await?;
        }
        Ok(head)
    }
}

impl Ground<'_> {
    /// The session of an earlier attempt to go on in, where what it needs is here.
    pub(crate) fn session(&self) -> Option<&str> {
        let session = self.assigned.before.as_ref()?.session.as_deref();
        session.filter(|session| sessions::can_go_on(self.kept, self.assigned, session))
    }

    fn git(&self) -> Git {
        Git {
            path: self.path.to_owned(),
            lease: Some(lease_name(&self.lease)),
        }
    }

    /// A repository within our own directories was written by a program: git on the host, which
    /// fetches from there, would run what its settings name.
    fn check_url(&self, url: &str) -> Result<(), String> {
        let Some(path) = url
            .strip_prefix("file://")
            .or(url.starts_with('/').then_some(url))
        else {
            return Ok(());
        };
        let real = |path: &Path| fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let path = real(Path::new(path));
        let ours = [self.base, self.kept];
        let is_ours = |ours: &&Path| path.starts_with(real(ours.parent().unwrap_or(ours)));
        if ours.iter().any(is_ours) {
            return Err(format!(
                "{url} lies within the agent's own directories; name the repository it comes from"
            ));
        }
        Ok(())
    }
}

fn take_name(ground: &Ground<'_>, spec: Option<&WorkspaceSpec>) -> Result<Option<Named>, String> {
    let Some((spec, name)) = spec.and_then(|s| Some((s, s.name.as_ref()?))) else {
        return Ok(None);
    };
    let named = Named::take(ground.kept, &ground.assigned.namespace, name)?;
    named.fits(spec.git.as_ref().map(|git| git.url.as_str()))?;
    Ok(Some(named))
}

/// Whether what changes is of interest: where the task says what it works on, and for models, which
/// are asked for changes. What other programs leave in an empty directory goes with it.
fn is_compared(assigned: &AttemptAssigned, spec: Option<&WorkspaceSpec>) -> bool {
    spec.is_some() || !matches!(*assigned.run, RunSpec::Command(_) | RunSpec::Noop(_))
}

pub(crate) fn no_room(base: &Path, e: &std::io::Error) -> String {
    format!(
        "cannot make its directories below {}: {e}; free some space there or name another --data-dir",
        base.display()
    )
}

/// Keeps the commits in what an agent that died has left of an attempt.
pub(crate) async fn rescue_left(root: &Path, kept: &Path, path: &str) {
    let Some(note) = fs::read(root.join(NOTE)).ok() else {
        return;
    };
    let Ok(note) = serde_json::from_slice::<Note>(&note) else {
        return;
    };
    let workspace = root.join("workspace");
    if !note.cache.starts_with(kept) || !workspace.exists() {
        return;
    }
    let git = Git {
        path: path.to_owned(),
        lease: None,
    };
    let began = Began {
        cache: Cache {
            dir: note.cache,
            git,
        },
        files: workspace,
        scratch: root.join("compare"),
        tree: String::new(),
        commit: None,
    };
    if let Err(problem) = began.take_in_head(&note.lease).await {
        tracing::warn!(task = %note.lease.task, problem, "commits of an attempt were not kept");
    }
}

#[cfg(test)]
pub(crate) mod tests;
