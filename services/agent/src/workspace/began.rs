//! What a workspace began as: all that is done in it is compared with that, over all attempts that
//! went on in it.

use std::fs;
use std::path::PathBuf;

use conductor_protocol::ids::Lease;
use serde::{Deserialize, Serialize};

use super::Ground;
use super::cache::Cache;
use super::diff::Comparison;
use super::head;
use crate::dirs::{AttemptDirs, write_new};
use crate::sessions::{BASE, COMPARISON};

/// What a workspace began as.
#[derive(Debug)]
pub(super) struct Began {
    pub(super) cache: Cache,
    pub(super) files: PathBuf,
    pub(super) scratch: PathBuf,
    /// What it is compared with.
    pub(super) tree: String,
    /// The commit that was checked out, in a repository.
    pub(super) commit: Option<String>,
}

/// The same, for an attempt that goes on in it.
#[derive(Debug, Serialize, Deserialize)]
struct Base {
    tree: String,
    #[serde(default)]
    commit: Option<String>,
}

impl Began {
    /// Of files that are in no repository of ours. What an earlier attempt left says nothing of
    /// what that found.
    pub(super) async fn of_files(
        ground: &Ground<'_>,
        dirs: &AttemptDirs,
        are_left: bool,
    ) -> Result<Self, String> {
        if are_left {
            return Err(
                "an earlier attempt worked there, and what it found is not known".to_owned(),
            );
        }
        let cache = Cache::of_none(ground.kept, ground.git()).await?;
        Self::of(cache, dirs, None).await
    }

    /// Of files as they are now, and what is checked out there.
    pub(super) async fn of(
        cache: Cache,
        dirs: &AttemptDirs,
        commit: Option<String>,
    ) -> Result<Self, String> {
        let mut began = Self {
            commit,
            ..Self::unknown(cache, dirs.workspace.clone(), dirs.root.join(COMPARISON))
        };
        began.comparison().prepare()?;
        if let Some(commit) = &began.commit {
            // Of a named workspace whose agent died before it was taken over.
            began.take_in(commit).await?;
        }
        began.tree = began.comparison().snapshot(began.commit.as_deref()).await?;
        Ok(began)
    }

    /// Of files of which nobody knows what they began as.
    pub(super) fn unknown(cache: Cache, files: PathBuf, scratch: PathBuf) -> Self {
        Self {
            cache,
            files,
            scratch,
            tree: String::new(),
            commit: None,
        }
    }

    /// Whether an earlier attempt noted it.
    pub(super) fn is_noted(dirs: &AttemptDirs) -> bool {
        dirs.root.join(BASE).exists()
    }

    /// Notes it for attempts that go on in the same files.
    pub(super) fn note(&self, dirs: &AttemptDirs) -> std::io::Result<()> {
        let base = Base {
            tree: self.tree.clone(),
            commit: self.commit.clone(),
        };
        write_new(&dirs.root.join(BASE), &serde_json::to_vec(&base)?)
    }

    /// As an earlier attempt noted it, if all that it was is still there.
    pub(super) async fn again(cache: Cache, dirs: &AttemptDirs) -> Result<Self, String> {
        let text = fs::read(dirs.root.join(BASE)).map_err(|e| format!("its {BASE}: {e}"))?;
        let base: Base = serde_json::from_slice(&text).map_err(|e| format!("its {BASE}: {e}"))?;
        // They will stand on command lines.
        if ![Some(&base.tree), base.commit.as_ref()]
            .into_iter()
            .flatten()
            .all(|hash| head::is_hash(hash))
        {
            return Err(format!("its {BASE} names what is no object"));
        }
        let began = Self {
            tree: base.tree,
            commit: base.commit,
            ..Self::unknown(cache, dirs.workspace.clone(), dirs.root.join(COMPARISON))
        };
        began.comparison().prepare_again()?;
        if !began.comparison().has_tree(&began.tree).await {
            return Err("the files it began with are not known any more".to_owned());
        }
        if let Some(commit) = &began.commit
            && !began.cache.has_commit(commit).await
        {
            return Err(format!("the commit {commit} it began with is gone"));
        }
        Ok(began)
    }

    pub(super) fn comparison(&self) -> Comparison<'_> {
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
    pub(super) async fn take_in_head(&self, lease: &Lease) -> Result<Option<String>, String> {
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
