//! What the making of a workspace needs to know, and what of an earlier attempt it may go on from.

use std::fs;
use std::path::Path;

use conductor_protocol::event::AttemptAssigned;
use conductor_protocol::ids::Lease;
use conductor_protocol::terms::GitSpec;

use super::began::Began;
use super::cache::Cache;
use super::git::Git;
use super::named::Named;
use crate::dirs::{AttemptDirs, lease_name};
use crate::sessions;

/// What the making of a workspace needs to know.
#[derive(Debug)]
pub(crate) struct Ground<'a> {
    pub(crate) lease: Lease,
    pub(crate) assigned: &'a AttemptAssigned,
    /// Where all attempts have their directories.
    pub(crate) base: &'a Path,
    /// Where caches, named workspaces and what earlier attempts left are kept.
    pub(crate) kept: &'a Path,
    /// `PATH` of programs.
    pub(crate) path: &'a str,
}

/// What an earlier attempt left to this one, in place.
#[derive(Debug)]
pub(super) struct Left {
    /// The session of its model.
    pub(super) session: String,
    /// What its workspace began as, where that was known.
    pub(super) began: Option<Began>,
}

impl Ground<'_> {
    /// The session of an earlier attempt to go on in, where what it needs is here.
    pub(crate) fn session(&self) -> Option<&str> {
        let session = self.assigned.before.as_ref()?.session.as_deref();
        session.filter(|session| sessions::can_go_on(self.kept, self.assigned, session))
    }

    /// Takes what an earlier attempt left, if this one goes on in its session. Where that cannot be
    /// trusted session and workspace both begin anew: one without the other would speak of files
    /// that are not there.
    pub(super) async fn take_left(
        &self,
        dirs: &AttemptDirs,
        git: Option<&GitSpec>,
        named: Option<&Named>,
    ) -> Option<Left> {
        let is_lost = named.is_some_and(|named| !named.is_made());
        let session = self.session().filter(|_| !is_lost);
        let Some(session) = session.map(str::to_owned) else {
            sessions::forget(self.kept, self.lease.task);
            return None;
        };
        let taken = match sessions::take(self.kept, dirs) {
            Ok(()) if named.is_some() => Ok(None),
            Ok(()) => self.began_as(dirs, git).await,
            Err(e) => Err(e.to_string()),
        };
        match taken {
            Ok(began) => Some(Left { session, began }),
            Err(problem) => {
                let task = self.lease.task;
                tracing::warn!(%task, problem, "cannot go on from the attempt before: it begins anew");
                sessions::forget(self.kept, task);
                None
            }
        }
    }

    async fn began_as(
        &self,
        dirs: &AttemptDirs,
        git: Option<&GitSpec>,
    ) -> Result<Option<Began>, String> {
        if !Began::is_noted(dirs) {
            return Ok(None);
        }
        let cache = match git {
            Some(spec) => Cache::of_url(self.kept, &spec.url, self.git()).await?,
            None => Cache::of_none(self.kept, self.git()).await?,
        };
        Began::again(cache, dirs).await.map(Some)
    }

    pub(super) fn git(&self) -> Git {
        Git {
            path: self.path.to_owned(),
            lease: Some(lease_name(&self.lease)),
        }
    }

    /// A repository within our own directories was written by a program: git on the host, which
    /// fetches from there, would run what its settings name.
    pub(super) fn check_url(&self, url: &str) -> Result<(), String> {
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
