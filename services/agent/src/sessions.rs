//! What outlives an attempt that did not succeed: its home, where the model's session is, and its
//! workspace with what that began as, so that the next attempt of the task on this agent goes on
//! where it was, and what changed is told of all of them together.
//!
//! An attempt marks its directory with what of it is worth keeping once all of that is whole: of a
//! clone that was half made nothing is kept. At its end, or by the next life of an agent that was
//! killed, that is moved aside, and another attempt of the task takes it: each in one step, so that
//! whoever is killed meanwhile leaves all of it or nothing that anybody would trust. Nor is anything
//! removed where it would be trusted: a removal goes on in what was opened, wherever that is moved to
//! meanwhile, so that one step takes it out of everybody's reach first.
//!
//! The directories are the agent's own, whatever sandbox its programs wrote them from: bubblewrap
//! and containers show them as they are, under the agent's user.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use conductor_protocol::event::AttemptAssigned;
use conductor_protocol::{RunSpec, TaskId};
use serde::{Deserialize, Serialize};

use crate::beneath::is_real_dir;
use crate::dirs::{AttemptDirs, make_dir};
use crate::trees;

/// Where it is, below what outlives attempts.
const FOLDER: &str = "sessions";
/// Where that is moved to which is to be removed, beside the folder.
const TRASH: &str = "sessions-trash";
/// In the directory of an attempt, and then beside what is kept: the [`Mark`].
const MARK: &str = "keep.json";
/// In the directory of an attempt: where what is kept is gathered.
const GATHERED: &str = "kept";
/// Longest that it is kept.
const AGE_MAX: Duration = Duration::from_secs(7 * 24 * 3600);
/// Most tasks of which something is kept.
const TASKS_MAX: usize = 64;
/// Most bytes of disk that all of it takes.
const BYTES_MAX: u64 = 20 << 30;

/// What a workspace is compared with: see [`crate::workspace`].
pub(crate) const COMPARISON: &str = "compare";
/// The note of what it began as.
pub(crate) const BASE: &str = "base.json";
/// The note of what the task has used, where that is metered.
pub(crate) const USED: &str = "usage.json";

/// How much of an attempt is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keeps {
    /// Its home: the workspace has a name and stays by itself.
    Home,
    /// Its workspace, too, though nobody knows what that began as.
    Workspace,
    /// All that the next attempt needs.
    All,
}

impl Keeps {
    fn names(self) -> &'static [&'static str] {
        match self {
            Self::Home => &["home"],
            Self::Workspace => &["home", "workspace"],
            Self::All => &["home", "workspace", COMPARISON, BASE],
        }
    }
}

/// What is kept of an attempt.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Mark {
    /// By name, within its directory.
    names: Vec<String>,
    /// How much disk it takes, once it is moved aside.
    #[serde(default)]
    bytes: u64,
}

impl Mark {
    fn read(dir: &Path) -> Option<Self> {
        let text = fs::read(dir.join(MARK)).ok()?;
        serde_json::from_slice(&text).ok()
    }

    fn write(&self, dir: &Path) -> io::Result<()> {
        fs::write(dir.join(MARK), serde_json::to_vec(self)?)
    }

    /// Only what is ours to keep: a program without a sandbox could have written the mark.
    fn names(&self) -> impl Iterator<Item = &'static str> {
        let all = Keeps::All.names().iter().copied();
        all.filter(|name| self.names.iter().any(|n| n == name))
    }
}

/// Whether what a session needs is here: not on another agent than before, or after long.
pub fn can_go_on(kept: &Path, assigned: &AttemptAssigned, session: &str) -> bool {
    let kept = place(kept, assigned.task);
    is_whole(&kept)
        && match assigned.run.as_ref() {
            // How agents of others keep a session, only they know.
            RunSpec::Acp(_) => true,
            _ => holds(kept.join("home"), session),
        }
}

/// Whether all is there that was to be kept, and nothing has a link in its place.
fn is_whole(dir: &Path) -> bool {
    let Some(mark) = Mark::read(dir) else {
        return false;
    };
    let is_there = |name: &str| match name {
        BASE => fs::symlink_metadata(dir.join(name)).is_ok_and(|m| m.is_file()),
        _ => is_real_dir(&dir.join(name)),
    };
    mark.names().all(is_there)
}

/// Whether a file below is named after this session, as those are in which CLIs keep one.
fn holds(dir: PathBuf, session: &str) -> bool {
    let mut todo = vec![dir];
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().contains(session) {
                return true;
            }
            if entry.file_type().is_ok_and(|t| t.is_dir()) {
                todo.push(entry.path());
            }
        }
    }
    false
}

/// Marks what is to be kept of an attempt: once all of it is made, and before its programs run.
pub(crate) fn mark(dirs: &AttemptDirs, assigned: &AttemptAssigned, keeps: Keeps) -> io::Result<()> {
    if matches!(*assigned.run, RunSpec::Command(_) | RunSpec::Noop(_)) {
        return Ok(());
    }
    let names = keeps.names().iter().map(|name| (*name).to_owned());
    let mark = Mark {
        names: names.collect(),
        bytes: 0,
    };
    mark.write(&dirs.root)
}

/// Gives an attempt what was kept of its task, as its own directory; what is missing there is to
/// be made.
pub(crate) fn take(kept: &Path, dirs: &AttemptDirs) -> io::Result<()> {
    clear(&dirs.root)?;
    if let Some(base) = dirs.root.parent() {
        make_dir(base)?;
    }
    fs::rename(place(kept, dirs.owner.task), &dirs.root)?;
    remove_if_empty(kept);
    Ok(())
}

/// Removes what was kept of a task: no attempt of it goes on there any more.
pub(crate) fn forget(kept: &Path, task: TaskId) {
    // Mostly there is nothing; what cannot be removed grows old.
    let _ = discard(kept, &place(kept, task));
    empty_trash(kept);
    remove_if_empty(kept);
}

/// Removes the directory of an attempt, if it is there: its mark first, without which nobody trusts
/// the half of it that may be left.
pub(crate) fn clear(root: &Path) -> io::Result<()> {
    // What is no file marks nothing, and goes with the rest.
    let _ = trees::remove_file(root, MARK);
    trees::remove(root)
}

/// Takes something of what is kept out of everybody's reach, to be removed with the trash.
fn discard(kept: &Path, path: &Path) -> io::Result<()> {
    trees::discard(path, &kept.join(TRASH))
}

/// Removes what was discarded, by an agent that was killed meanwhile, too.
fn empty_trash(kept: &Path) {
    let trash = fs::read_dir(kept.join(TRASH));
    for entry in trash.into_iter().flatten().flatten() {
        // Another attempt may be at it, too; what cannot be removed now is met again.
        let _ = trees::remove(&entry.path());
    }
}

/// Keeps what a directory of an attempt is marked with.
pub fn salvage(kept: &Path, root: &Path) {
    let name = root
        .file_name()
        .and_then(|n| n.to_str())
        .unwrap_or_default();
    // A task's id, perhaps with the number of the attempt.
    let Some(Ok(task)) = name.get(..36).map(str::parse::<TaskId>) else {
        return;
    };
    let Some(mark) = Mark::read(root) else {
        return;
    };
    if let Err(e) = keep(kept, task, root, &mark) {
        tracing::warn!(%task, error = %e, "its session is not kept: another attempt begins anew");
    }
    prune(kept);
}

fn keep(kept: &Path, task: TaskId, root: &Path, mark: &Mark) -> io::Result<()> {
    let gathered = root.join(GATHERED);
    make_dir(&gathered)?;
    for name in mark.names() {
        let (from, to) = (root.join(name), gathered.join(name));
        // An agent that was killed has moved some of it before.
        if fs::symlink_metadata(&to).is_ok() {
            continue;
        }
        if is_real_dir(&from) {
            // A directory that its program has closed cannot be moved elsewhere.
            fs::set_permissions(&from, fs::Permissions::from_mode(0o700))?;
        }
        fs::rename(from, to)?;
    }
    if root.join(USED).exists() {
        fs::rename(root.join(USED), gathered.join(USED))?;
    }
    let mark = Mark {
        bytes: trees::size_on_disk(&gathered),
        ..mark.clone()
    };
    mark.write(&gathered)?;
    let place = place(kept, task);
    discard(kept, &place)?;
    make_dir(&kept.join(FOLDER))?;
    fs::rename(gathered, place)
}

/// Removes what is too old, and the oldest of what is too much.
pub fn prune(kept: &Path) {
    let entries = fs::read_dir(kept.join(FOLDER))
        .into_iter()
        .flatten()
        .flatten();
    let aged = entries.filter_map(|e| Some((e.metadata().ok()?.modified().ok()?, e.path())));
    let mut aged: Vec<(SystemTime, PathBuf)> = aged.collect();
    aged.sort();
    let (mut tasks, mut bytes) = (0, 0_u64);
    for (since, path) in aged.iter().rev() {
        let is_old = since.elapsed().is_ok_and(|age| age > AGE_MAX);
        let with_it = bytes.saturating_add(Mark::read(path).unwrap_or_default().bytes);
        if tasks >= TASKS_MAX || with_it > BYTES_MAX || is_old {
            // What cannot be removed now is met again.
            let _ = discard(kept, path);
            continue;
        }
        tasks += 1;
        bytes = with_it;
    }
    empty_trash(kept);
    remove_if_empty(kept);
}

fn place(kept: &Path, task: TaskId) -> PathBuf {
    kept.join(FOLDER).join(task.to_string())
}

fn remove_if_empty(kept: &Path) {
    // It fails when something is kept, as it should.
    let _ = fs::remove_dir(kept.join(FOLDER));
}

#[cfg(test)]
mod tests;
