//! What outlives an attempt that did not succeed: its home, where the model's session is, and its
//! workspace, so that the next attempt of the task on this agent goes on where it was.
//!
//! An attempt marks its directory with what of it is worth keeping. At its end, or by the next
//! life of an agent that was killed, that is moved aside; another attempt of the task takes it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use conductor_protocol::event::AttemptAssigned;
use conductor_protocol::{RunSpec, TaskId};

use crate::dirs::AttemptDirs;

/// Where it is, below what outlives attempts.
const FOLDER: &str = "sessions";
/// In the directory of an attempt: the names of what is kept of it.
const MARK: &str = "keep";
/// What may be kept of it.
const NAMES: [&str; 2] = ["home", "workspace"];
/// Longest that it is kept.
const AGE_MAX: Duration = Duration::from_secs(7 * 24 * 3600);
/// Most tasks of which something is kept.
const TASKS_MAX: usize = 64;

/// Whether what a session needs is here: not on another agent than before, or after long.
pub fn can_go_on(kept: &Path, assigned: &AttemptAssigned, session: &str) -> bool {
    let kept = place(kept, assigned.task);
    match assigned.run.as_ref() {
        // How agents of others keep a session, only they know.
        RunSpec::Acp(_) => kept.is_dir(),
        _ => holds(kept.join("home"), session),
    }
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

/// Marks what is to be kept of an attempt: a workspace that its terms describe is another's to keep.
pub fn mark(dirs: &AttemptDirs, assigned: &AttemptAssigned) -> io::Result<()> {
    if matches!(*assigned.run, RunSpec::Command(_) | RunSpec::Noop(_)) {
        return Ok(());
    }
    let terms = assigned.terms.as_ref();
    let names = match terms.and_then(|t| t.workspace.as_ref()) {
        Some(_) => "home",
        None => "home\nworkspace",
    };
    fs::write(dirs.root.join(MARK), names)
}

/// Gives an attempt what was kept of its task, in place of its own empty directories.
pub fn take(kept: &Path, task: TaskId, dirs: &AttemptDirs) -> io::Result<()> {
    let from = place(kept, task);
    for name in NAMES {
        let (left, own) = (from.join(name), dirs.root.join(name));
        // A program may have put a link in its place.
        if fs::symlink_metadata(&left).is_ok_and(|m| m.is_dir()) {
            fs::remove_dir_all(&own)?;
            fs::rename(left, own)?;
        }
    }
    fs::remove_dir_all(&from)?;
    remove_if_empty(kept);
    Ok(())
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
    let Ok(names) = fs::read_to_string(root.join(MARK)) else {
        return;
    };
    if let Err(e) = keep(&place(kept, task), root, &names) {
        tracing::warn!(%task, error = %e, "its session is not kept: another attempt begins anew");
    }
    prune(kept);
}

fn keep(kept: &Path, root: &Path, names: &str) -> io::Result<()> {
    if kept.exists() {
        fs::remove_dir_all(kept)?;
    }
    fs::create_dir_all(kept)?;
    for name in NAMES.into_iter().filter(|n| names.lines().any(|l| l == *n)) {
        fs::rename(root.join(name), kept.join(name))?;
    }
    Ok(())
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
    let too_many = aged.len().saturating_sub(TASKS_MAX);
    for (n, (since, path)) in aged.iter().enumerate() {
        let is_old = since.elapsed().is_ok_and(|age| age > AGE_MAX);
        if n < too_many || is_old {
            // What cannot be removed now is met again.
            let _ = fs::remove_dir_all(path);
        }
    }
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
mod tests {
    use super::*;
    use crate::dirs::lease_name;
    use crate::runtime::testing;
    use conductor_protocol::Position;
    use conductor_protocol::ids::Lease;
    use conductor_protocol::terms::{Terms, WorkspaceSpec};

    fn task(n: u64) -> TaskId {
        TaskId::from_parts(1_700_000_000_000 + n, [7; 10])
    }

    /// The directories of a task's attempt, and what was assigned.
    fn attempt(base: &Path, n: u64, attempt: u32) -> (AttemptDirs, AttemptAssigned) {
        let assigned = AttemptAssigned {
            task: task(n),
            attempt,
            ..testing::assigned(RunSpec::Claude(Box::default()))
        };
        let lease = Lease {
            task: assigned.task,
            attempt,
            assigned: Position::new(7, 0),
        };
        let dirs = AttemptDirs::of(base, &lease);
        dirs.create(&lease_name(&lease)).unwrap();
        (dirs, assigned)
    }

    #[test]
    fn what_is_marked_outlives_the_attempt_and_is_given_to_the_next() {
        let base = tempfile::tempdir().unwrap();
        let base = base.path();
        let (dirs, mut assigned) = attempt(base, 0, 1);
        mark(&dirs, &assigned).unwrap();
        fs::create_dir(dirs.home.join("sessions")).unwrap();
        fs::write(dirs.home.join("sessions/x-s1.jsonl"), "s").unwrap();
        fs::write(dirs.workspace.join("file"), "f").unwrap();
        fs::write(dirs.tmp.join("file"), "t").unwrap();
        salvage(base, &dirs.root);
        dirs.remove();
        assert!(can_go_on(base, &assigned, "s1"));
        assert!(!can_go_on(base, &assigned, "s2"));
        assigned.run = std::sync::Arc::new(RunSpec::Acp(Box::default()));
        assert!(can_go_on(base, &assigned, "s2"), "only the agent knows");
        let (next, assigned) = attempt(base, 0, 2);
        assert_eq!(next.root, dirs.root, "a session's path does not change");
        take(base, assigned.task, &next).unwrap();
        let session = next.home.join("sessions/x-s1.jsonl");
        assert_eq!(fs::read_to_string(session).unwrap(), "s");
        assert_eq!(
            fs::read_to_string(next.workspace.join("file")).unwrap(),
            "f"
        );
        assert!(!next.tmp.join("file").exists());
        assert!(!can_go_on(base, &assigned, "s1") && !base.join(FOLDER).exists());
    }

    #[test]
    fn an_attempt_that_is_still_being_ended_keeps_its_place() {
        let base = tempfile::tempdir().unwrap();
        let (first, _) = attempt(base.path(), 0, 1);
        let (second, _) = attempt(base.path(), 0, 2);
        assert_ne!(first.root, second.root);
        assert!(first.workspace.is_dir());
    }

    #[test]
    fn a_workspace_of_the_terms_is_not_kept_here() {
        let base = tempfile::tempdir().unwrap();
        let base = base.path();
        let (dirs, mut assigned) = attempt(base, 0, 1);
        assigned.terms = Some(std::sync::Arc::new(Terms {
            workspace: Some(WorkspaceSpec::default()),
            ..Terms::default()
        }));
        mark(&dirs, &assigned).unwrap();
        salvage(base, &dirs.root);
        let kept = base.join(FOLDER).join(assigned.task.to_string());
        assert!(kept.join("home").is_dir() && !kept.join("workspace").exists());
    }

    #[test]
    fn of_a_program_without_a_session_nothing_is_kept() {
        let base = tempfile::tempdir().unwrap();
        let (dirs, mut assigned) = attempt(base.path(), 0, 1);
        assigned.run = std::sync::Arc::new(RunSpec::Command(Box::default()));
        mark(&dirs, &assigned).unwrap();
        salvage(base.path(), &dirs.root);
        assert!(!base.path().join(FOLDER).exists());
    }

    #[test]
    fn no_more_is_kept_than_there_may_be() {
        let base = tempfile::tempdir().unwrap();
        let base = base.path();
        for n in 0..=TASKS_MAX as u64 {
            let (dirs, assigned) = attempt(base, n, 1);
            mark(&dirs, &assigned).unwrap();
            salvage(base, &dirs.root);
            dirs.remove();
        }
        let kept = fs::read_dir(base.join(FOLDER)).unwrap().count();
        assert_eq!(kept, TASKS_MAX);
        assert!(
            place(base, task(TASKS_MAX as u64)).is_dir(),
            "the newest stays"
        );
    }
}
