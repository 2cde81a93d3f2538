//! What an attempt works on: made before it, compared and kept after it.
//!
//! An empty directory, a clone of a git repository, or a named workspace that later tasks go on in.
//! Git runs on the host alone ([`git`]), with the host's rights only where it speaks to a remote
//! ([`cache`]). What a program left is not trusted: its files are compared by a repository of our
//! own ([`diff`]), its commits are taken out as objects alone.

mod began;
pub(crate) mod cache;
pub mod collect;
pub(crate) mod diff;
pub(crate) mod git;
mod ground;
pub(crate) mod head;
pub(crate) mod inputs;
pub(crate) mod lock;
pub(crate) mod named;
pub(crate) mod store;
mod unpushed;

use std::fs;
use std::path::{Path, PathBuf};

use conductor_protocol::RunSpec;
use conductor_protocol::event::AttemptAssigned;
use conductor_protocol::ids::Lease;
use conductor_protocol::terms::{GitSpec, WorkspaceSpec};
use serde::{Deserialize, Serialize};

use crate::dirs::{AttemptDirs, lease_name};
use crate::sessions::{self, COMPARISON, Keeps};
use crate::trees;
use began::Began;
use cache::Cache;
use diff::Difference;
use git::Git;
pub(crate) use ground::Ground;
use ground::Left;
use named::{Named, Origin};

/// A workspace that was made.
#[derive(Debug)]
pub(crate) struct Workspace {
    lease: Lease,
    git: Option<GitSpec>,
    /// What it began as, where what changed is of interest.
    began: Option<Began>,
    /// Why that is not known.
    unknown: Option<String>,
    /// The session of its model that an earlier attempt left with it.
    session: Option<String>,
    /// Held until the attempt is over.
    named: Option<Named>,
    /// Where mirrors of repositories are.
    kept: PathBuf,
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
    /// Makes the directories of an attempt with the workspace its task asks for: as an earlier
    /// attempt left it, where this one goes on in its session.
    pub(crate) async fn make(ground: &Ground<'_>, dirs: &mut AttemptDirs) -> Result<Self, String> {
        let terms = ground.assigned.terms.as_deref();
        let spec = terms.and_then(|t| t.workspace.as_ref());
        let git = spec.and_then(|s| s.git.clone());
        let named = take_name(ground, spec)?;
        if let Some(named) = &named {
            dirs.workspace.clone_from(&named.files);
        }
        let left = ground.take_left(dirs, git.as_ref(), named.as_ref()).await;
        let is_new = match &named {
            Some(named) => !named.is_made(),
            None => left.is_none(),
        };
        prepare(ground, dirs, left.is_some(), is_new).map_err(|e| no_room(ground.base, &e))?;
        let (session, began) = left.map_or((None, None), |Left { session, began }| {
            (Some(session), began)
        });
        let goes_on = session.is_some();
        let mut began = Self::fill(ground, dirs, git.as_ref(), (is_new, began)).await?;
        if let Some(named) = named.as_ref().filter(|_| is_new) {
            let url = git.as_ref().map(|git| git.url.clone());
            named.note(&Origin { url })?;
        }
        inputs::place(&dirs.workspace, &ground.lease, ground.assigned)
            .map_err(|e| format!("cannot place its inputs: {e}"))?;
        let mut unknown = None;
        if began.is_none() && is_compared(ground.assigned, spec) {
            // Without git there is no comparison, and the task is run all the same.
            match Began::of_files(ground, dirs, goes_on && named.is_none()).await {
                Ok(files) => began = Some(files),
                Err(problem) => unknown = Some(problem),
            }
        }
        if !goes_on {
            let keeps = note(dirs, began.as_ref(), named.is_some());
            let marked = keeps.and_then(|keeps| sessions::mark(dirs, ground.assigned, keeps));
            marked.map_err(|e| no_room(ground.base, &e))?;
        }
        Ok(Self {
            lease: ground.lease,
            git,
            began,
            unknown,
            session,
            named,
            kept: ground.kept.to_owned(),
        })
    }

    /// Fills it from its repository, or takes note of where that stands.
    async fn fill(
        ground: &Ground<'_>,
        dirs: &AttemptDirs,
        git: Option<&GitSpec>,
        (is_new, began): (bool, Option<Began>),
    ) -> Result<Option<Began>, String> {
        let Some(spec) = git else {
            return Ok(began);
        };
        let began = match began {
            Some(began) => began,
            None => Self::clone_into(ground, dirs, spec, is_new).await?,
        };
        let note = Note {
            cache: began.cache.dir.clone(),
            lease: ground.lease,
        };
        let text = serde_json::to_vec(&note).map_err(|e| e.to_string())?;
        fs::write(dirs.root.join(NOTE), text).map_err(|e| no_room(ground.base, &e))?;
        Ok(Some(began))
    }

    async fn clone_into(
        ground: &Ground<'_>,
        dirs: &AttemptDirs,
        spec: &GitSpec,
        is_new: bool,
    ) -> Result<Began, String> {
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
        Began::of(cache, dirs, commit).await
    }

    /// The session of its model that an earlier attempt left with it, to go on in.
    pub(crate) fn session(&self) -> Option<&str> {
        self.session.as_deref()
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
        // In a named workspace earlier tasks may have left work that is nowhere else.
        if is_untouched && self.unpushed().await != Some(true) {
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
        let is_base = changed.base.as_ref() == Some(&head);
        if is_base && (self.named.is_none() || cache.are_on_remote(&[head.clone()]).await) {
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

/// Makes its directories ready: all of them anew, or what is missing beside those that an earlier
/// attempt left.
fn prepare(
    ground: &Ground<'_>,
    dirs: &AttemptDirs,
    goes_on: bool,
    is_new: bool,
) -> std::io::Result<()> {
    if is_new {
        // Half of a clone is nothing to go on in.
        trees::remove(&dirs.workspace)?;
    }
    let lease = lease_name(&ground.lease);
    if goes_on {
        dirs.complete(&lease)
    } else {
        dirs.create(&lease)
    }
}

/// Notes what it began as, for attempts that go on in it; what of it there is to keep for them.
fn note(dirs: &AttemptDirs, began: Option<&Began>, is_named: bool) -> std::io::Result<Keeps> {
    match began {
        _ if is_named => Ok(Keeps::Home),
        None => Ok(Keeps::Workspace),
        Some(began) => began.note(dirs).map(|()| Keeps::All),
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
    let cache = Cache {
        dir: note.cache,
        git,
    };
    let began = Began::unknown(cache, workspace, root.join(COMPARISON));
    if let Err(problem) = began.take_in_head(&note.lease).await {
        tracing::warn!(task = %note.lease.task, problem, "commits of an attempt were not kept");
    }
}

#[cfg(test)]
pub(crate) mod tests;
