//! Whether a named workspace holds work that is nowhere else.
//!
//! Asked when an attempt is over and what it made was pushed. Whatever cannot be told counts as
//! such work: it is what is lost when the workspace is removed.

use std::fs;
use std::path::Path;

use super::cache::Cache;
use super::diff::Comparison;
use super::named::Named;
use super::{Workspace, head, inputs};
use crate::sessions::COMPARISON;

/// Most entries of a workspace without a repository that are looked at.
const ENTRIES_MAX: usize = 100_000;

impl Workspace {
    /// Whether its named workspace holds work that nobody else has; `None` where it has no name.
    /// Work is what git shows as changed or new, and every commit that is on no branch and under no
    /// tag of the remote; without a repository it is any file.
    pub(crate) async fn unpushed(&self) -> Option<bool> {
        let named = self.named.as_ref()?;
        let Some(url) = named.origin().and_then(|origin| origin.url) else {
            return Some(has_files(&named.files));
        };
        match self.is_on_remote(named, &url).await {
            Ok(is_on_remote) => Some(!is_on_remote),
            Err(problem) => {
                let task = self.lease.task;
                tracing::info!(%task, problem, "what of a workspace is on its remote is not known");
                Some(true)
            }
        }
    }

    /// Whether all of it is on its remote.
    async fn is_on_remote(&self, named: &Named, url: &str) -> Result<bool, String> {
        let Some(began) = &self.began else {
            return Err("what it began as is not known".to_owned());
        };
        let cache = Cache::of_url(&self.kept, url, began.cache.git.clone()).await?;
        let tips = head::tips(&named.files)?;
        if !cache.are_on_remote(&tips).await {
            // Its program may have pushed them itself. Only what the task itself names was looked at
            // before it is spoken to.
            if self.git.as_ref().is_none_or(|git| git.url != url) {
                return Ok(false);
            }
            let lock = cache.lock().await?;
            let fetched = cache.fetch(url, None).await;
            drop(lock);
            fetched?;
            if !cache.are_on_remote(&tips).await {
                return Ok(false);
            }
        }
        // Of a task that named no repository the comparison is one of files alone.
        let is_its_own = began.cache.dir == cache.dir;
        let other = began.scratch.with_file_name(format!("{COMPARISON}-remote"));
        let comparison = Comparison {
            cache: &cache,
            workspace: &named.files,
            scratch: if is_its_own { &began.scratch } else { &other },
        };
        comparison.prepare()?;
        let head = head::read(&named.files)?;
        let tree = comparison.snapshot(head.as_deref()).await?;
        if comparison.holds_repositories().await? {
            return Ok(false);
        }
        if let Some(head) = &head
            && cache.tree_of(head).await? == tree
        {
            return Ok(true);
        }
        // What it had not committed was pushed by the host.
        Ok(cache.is_tip(&tree).await)
    }
}

/// Whether there is any file but ours.
fn has_files(dir: &Path) -> bool {
    let (mut todo, mut seen) = (vec![dir.to_owned()], 0);
    while let Some(below) = todo.pop() {
        let Ok(entries) = fs::read_dir(&below) else {
            // What is there and cannot be read may be anything.
            return below.exists();
        };
        for entry in entries {
            let Ok(entry) = entry else { return true };
            seen += 1;
            let is_ours = below == dir && entry.file_name() == inputs::FOLDER;
            if is_ours {
                continue;
            }
            let is_dir = entry.file_type().is_ok_and(|t| t.is_dir());
            if !is_dir || seen > ENTRIES_MAX {
                return true;
            }
            todo.push(entry.path());
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_file_is_work_where_there_is_no_repository() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        fs::create_dir_all(dir.join("a/b")).unwrap();
        fs::create_dir(dir.join(inputs::FOLDER)).unwrap();
        fs::write(dir.join(inputs::FOLDER).join("inputs.json"), "").unwrap();
        assert!(!has_files(dir) && !has_files(&dir.join("none")));
        std::os::unix::fs::symlink("/nowhere", dir.join("a/b/c")).unwrap();
        assert!(has_files(dir));
    }
}
