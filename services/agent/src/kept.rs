//! What outlives an attempt that did not succeed: its home, where the model's session is, and its
//! workspace, so that the next attempt of the task on this agent goes on where it was.
//!
//! An attempt marks its directory with what of it is worth keeping. At its end, or by the next
//! life of an agent that was killed, that is moved aside; another attempt of the task takes it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use conductor_protocol::TaskId;

use crate::dirs::AttemptDirs;

/// Where it is, among the directories of attempts.
pub const FOLDER: &str = ".kept";
/// In the directory of an attempt: the names of what is kept of it.
const MARK: &str = "keep";
/// Longest that it is kept.
const AGE_MAX: Duration = Duration::from_secs(7 * 24 * 3600);
/// Most tasks of which something is kept.
const TASKS_MAX: usize = 64;

/// Whether something of the task is here.
pub fn is_there(base: &Path, task: TaskId) -> bool {
    place(base, task).is_dir()
}

/// Whether a file that is kept of the task is named after this session, as those are in which
/// CLIs keep one.
pub fn holds(base: &Path, task: TaskId, session: &str) -> bool {
    let mut todo = vec![place(base, task).join("home")];
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

/// Marks what is to be kept of an attempt, by the names of its directories.
pub fn mark(dirs: &AttemptDirs, names: &[&str]) -> io::Result<()> {
    fs::write(dirs.root.join(MARK), names.join("\n"))
}

/// Gives an attempt what was kept of its task, in place of its own empty directories.
pub fn take(base: &Path, task: TaskId, dirs: &AttemptDirs) -> io::Result<()> {
    let kept = place(base, task);
    for entry in fs::read_dir(&kept)? {
        let entry = entry?;
        let own = dirs.root.join(entry.file_name());
        if own.exists() {
            fs::remove_dir_all(&own)?;
        }
        fs::rename(entry.path(), own)?;
    }
    fs::remove_dir_all(&kept)?;
    remove_if_empty(base);
    Ok(())
}

/// Keeps what a directory of an attempt is marked with.
pub fn salvage(base: &Path, root: &Path) {
    let name = root.file_name().and_then(|n| n.to_str()).unwrap_or_default();
    // A task's id, perhaps with the number of the attempt.
    let Some(Ok(task)) = name.get(..36).map(str::parse::<TaskId>) else {
        return;
    };
    let Ok(names) = fs::read_to_string(root.join(MARK)) else {
        return;
    };
    if let Err(e) = keep(&place(base, task), root, &names) {
        tracing::warn!(%task, error = %e, "its session is not kept: another attempt begins anew");
    }
    prune(base);
}

fn keep(kept: &Path, root: &Path, names: &str) -> io::Result<()> {
    if kept.exists() {
        fs::remove_dir_all(kept)?;
    }
    fs::create_dir_all(kept)?;
    for name in names.lines().filter(|n| !n.contains('/')) {
        fs::rename(root.join(name), kept.join(name))?;
    }
    Ok(())
}

/// Removes what is too old, and the oldest of what is too much.
pub fn prune(base: &Path) {
    let entries = fs::read_dir(base.join(FOLDER)).into_iter().flatten().flatten();
    let aged = entries.filter_map(|e| Some((e.metadata().ok()?.modified().ok()?, e.path())));
    let mut aged: Vec<(SystemTime, PathBuf)> = aged.collect();
    aged.sort();
    let too_many = aged.len().saturating_sub(TASKS_MAX);
    for (n, (since, path)) in aged.iter().enumerate() {
        let is_old = since.elapsed().is_ok_and(|age| age > AGE_MAX);
        if n < too_many || is_old {
            // What cannot be removed now is met again.
            let _ = fs::remove_dir_all(path);
        }
    }
    remove_if_empty(base);
}

fn place(base: &Path, task: TaskId) -> PathBuf {
    base.join(FOLDER).join(task.to_string())
}

fn remove_if_empty(base: &Path) {
    // It fails when something is kept, as it should.
    let _ = fs::remove_dir(base.join(FOLDER));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::input::Input;
    use conductor_protocol::Position;
    use conductor_protocol::ids::Lease;

    fn lease(n: u64) -> Lease {
        Lease {
            task: TaskId::from_parts(1_700_000_000_000 + n, [7; 10]),
            attempt: 1,
            assigned: Position::new(7, 0),
        }
    }

    fn attempt(base: &Path, lease: &Lease) -> AttemptDirs {
        let dirs = AttemptDirs::of(base, lease);
        dirs.create(&Input::Closed(Vec::new())).unwrap();
        dirs
    }

    #[test]
    fn what_is_marked_outlives_the_attempt_and_is_given_to_the_next() {
        let base = tempfile::tempdir().unwrap();
        let base = base.path();
        let lease = lease(0);
        let dirs = attempt(base, &lease);
        mark(&dirs, &["home"]).unwrap();
        fs::create_dir(dirs.home.join("sessions")).unwrap();
        fs::write(dirs.home.join("sessions/x-s1.jsonl"), "s").unwrap();
        fs::write(dirs.workspace.join("file"), "f").unwrap();
        salvage(base, &dirs.root);
        dirs.remove();
        assert!(is_there(base, lease.task));
        assert!(holds(base, lease.task, "s1") && !holds(base, lease.task, "s2"));
        let next = attempt(base, &Lease { attempt: 2, ..lease });
        assert_eq!(next.root, dirs.root, "paths do not change while a session goes on");
        take(base, lease.task, &next).unwrap();
        assert_eq!(fs::read_to_string(next.home.join("sessions/x-s1.jsonl")).unwrap(), "s");
        assert!(!next.workspace.join("file").exists());
        assert!(!is_there(base, lease.task) && !base.join(FOLDER).exists());
    }

    #[test]
    fn without_a_mark_nothing_is_kept() {
        let base = tempfile::tempdir().unwrap();
        let dirs = attempt(base.path(), &lease(0));
        salvage(base.path(), &dirs.root);
        assert!(!base.path().join(FOLDER).exists());
    }

    #[test]
    fn no_more_is_kept_than_there_may_be() {
        let base = tempfile::tempdir().unwrap();
        let base = base.path();
        for n in 0..=TASKS_MAX as u64 {
            let dirs = attempt(base, &lease(n));
            mark(&dirs, &["home"]).unwrap();
            salvage(base, &dirs.root);
            dirs.remove();
        }
        let kept = fs::read_dir(base.join(FOLDER)).unwrap().count();
        assert_eq!(kept, TASKS_MAX);
        assert!(is_there(base, lease(TASKS_MAX as u64).task), "the newest stays");
    }
}
