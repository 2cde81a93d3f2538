use super::*;
use crate::dirs::lease_name;
use crate::runtime::testing;
use crate::trees::tests::killed_while_it_removes;
use conductor_protocol::Position;
use conductor_protocol::ids::Lease;
use std::os::unix::fs::MetadataExt;

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

/// An attempt with a session `s1`, of which all is kept.
fn marked(base: &Path, n: u64) -> (AttemptDirs, AttemptAssigned) {
    let (dirs, assigned) = attempt(base, n, 1);
    fs::create_dir(dirs.home.join("sessions")).unwrap();
    fs::write(dirs.home.join("sessions/x-s1.jsonl"), "s").unwrap();
    fs::create_dir(dirs.root.join(COMPARISON)).unwrap();
    fs::write(dirs.root.join(BASE), "{}").unwrap();
    mark(&dirs, &assigned, Keeps::All).unwrap();
    (dirs, assigned)
}

#[test]
fn what_is_marked_outlives_the_attempt_and_is_given_to_the_next() {
    let base = tempfile::tempdir().unwrap();
    let base = base.path();
    let (dirs, mut assigned) = marked(base, 0);
    fs::write(dirs.workspace.join("file"), "f").unwrap();
    fs::write(dirs.tmp.join("file"), "t").unwrap();
    fs::write(dirs.root.join(USED), "{}").unwrap();
    salvage(base, &dirs.root);
    dirs.remove();
    assert!(can_go_on(base, &assigned, "s1"));
    assert!(!can_go_on(base, &assigned, "s2"));
    assigned.run = std::sync::Arc::new(RunSpec::Acp(Box::default()));
    assert!(can_go_on(base, &assigned, "s2"), "only the agent knows");
    let (next, assigned) = attempt(base, 0, 2);
    assert_eq!(next.root, dirs.root, "a session's path does not change");
    take(base, &next).unwrap();
    next.complete("lease").unwrap();
    let session = next.home.join("sessions/x-s1.jsonl");
    assert_eq!(fs::read_to_string(session).unwrap(), "s");
    assert_eq!(
        fs::read_to_string(next.workspace.join("file")).unwrap(),
        "f"
    );
    assert!(next.root.join(COMPARISON).is_dir() && next.root.join(BASE).exists());
    assert!(next.root.join(USED).exists());
    assert!(next.tmp.is_dir() && !next.tmp.join("file").exists());
    let mode = fs::metadata(&next.root).unwrap().mode();
    assert_eq!(mode & 0o777, 0o700, "it is nobody else's");
    assert!(!can_go_on(base, &assigned, "s1") && !base.join(FOLDER).exists());
    // The mark came with it: should this one be killed at once, nothing is lost.
    salvage(base, &next.root);
    assert!(can_go_on(base, &assigned, "s1"));
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
fn a_workspace_that_has_a_name_is_not_kept_here() {
    let base = tempfile::tempdir().unwrap();
    let base = base.path();
    let (dirs, assigned) = attempt(base, 0, 1);
    mark(&dirs, &assigned, Keeps::Home).unwrap();
    salvage(base, &dirs.root);
    let kept = place(base, assigned.task);
    assert!(kept.join("home").is_dir() && !kept.join("workspace").exists());
}

#[test]
fn of_a_program_without_a_session_nothing_is_kept() {
    let base = tempfile::tempdir().unwrap();
    let (dirs, mut assigned) = attempt(base.path(), 0, 1);
    assigned.run = std::sync::Arc::new(RunSpec::Command(Box::default()));
    mark(&dirs, &assigned, Keeps::All).unwrap();
    salvage(base.path(), &dirs.root);
    assert!(!base.path().join(FOLDER).exists());
}

#[test]
fn what_is_not_whole_is_not_gone_on_from() {
    let base = tempfile::tempdir().unwrap();
    let base = base.path();
    // Killed while its workspace was being made: there is no mark yet.
    let (unmade, assigned) = attempt(base, 0, 1);
    fs::write(unmade.home.join("s1"), "s").unwrap();
    salvage(base, &unmade.root);
    assert!(!can_go_on(base, &assigned, "s1"));
    let (dirs, assigned) = marked(base, 1);
    salvage(base, &dirs.root);
    assert!(can_go_on(base, &assigned, "s1"));
    let kept = place(base, assigned.task);
    for name in Keeps::All.names() {
        let (there, elsewhere) = (kept.join(name), base.join("elsewhere"));
        fs::rename(&there, &elsewhere).unwrap();
        assert!(!can_go_on(base, &assigned, "s1"), "without its {name}");
        std::os::unix::fs::symlink(&elsewhere, &there).unwrap();
        assert!(!can_go_on(base, &assigned, "s1"), "{name} is a link");
        fs::remove_file(&there).unwrap();
        fs::rename(elsewhere, there).unwrap();
    }
    assert!(can_go_on(base, &assigned, "s1"));
    forget(base, assigned.task);
    assert!(!base.join(FOLDER).exists());
}

#[test]
fn an_agent_that_is_killed_while_it_keeps_goes_on_with_that() {
    let base = tempfile::tempdir().unwrap();
    let base = base.path();
    let (dirs, assigned) = marked(base, 0);
    let gathered = dirs.root.join(GATHERED);
    fs::create_dir(&gathered).unwrap();
    fs::rename(&dirs.home, gathered.join("home")).unwrap();
    salvage(base, &dirs.root);
    assert!(can_go_on(base, &assigned, "s1"));
}

#[test]
fn a_mark_names_nothing_but_what_is_ours() {
    let base = tempfile::tempdir().unwrap();
    let base = base.path();
    fs::create_dir(base.join("precious")).unwrap();
    let (dirs, assigned) = marked(base, 0);
    let forged = Mark {
        names: ["home", "../precious"].map(str::to_owned).to_vec(),
        bytes: 0,
    };
    forged.write(&dirs.root).unwrap();
    salvage(base, &dirs.root);
    assert!(can_go_on(base, &assigned, "s1"));
    assert!(base.join("precious").is_dir());
}

#[test]
fn a_directory_that_its_program_has_closed_is_kept_all_the_same() {
    let base = tempfile::tempdir().unwrap();
    let base = base.path();
    let (dirs, assigned) = marked(base, 0);
    fs::set_permissions(&dirs.workspace, fs::Permissions::from_mode(0o0)).unwrap();
    salvage(base, &dirs.root);
    assert!(can_go_on(base, &assigned, "s1"));
    let kept = place(base, assigned.task).join("workspace");
    assert_eq!(fs::metadata(kept).unwrap().mode() & 0o777, 0o700);
}

#[test]
fn a_removal_that_is_not_finished_leaves_nothing_that_is_trusted() {
    let base = tempfile::tempdir().unwrap();
    let base = base.path();
    let trash = || fs::read_dir(base.join(TRASH)).unwrap().count();
    let salvaged = |n| {
        let (dirs, assigned) = marked(base, n);
        salvage(base, &dirs.root);
        dirs.remove();
        (place(base, assigned.task), assigned)
    };
    let (forgotten, assigned) = salvaged(0);
    killed_while_it_removes(|| forget(base, assigned.task));
    assert!(!forgotten.exists() && trash() == 1);
    let (pruned, _) = salvaged(1);
    assert_eq!(trash(), 0, "what was left of the first is removed by now");
    let old = fs::File::open(&pruned).unwrap();
    let day = Duration::from_secs(24 * 3600);
    old.set_modified(SystemTime::now() - AGE_MAX - day).unwrap();
    killed_while_it_removes(|| prune(base));
    assert!(!pruned.exists() && trash() == 1);
    // What is kept anew takes the place of what was kept before.
    let (_, assigned) = salvaged(2);
    let (again, _) = marked(base, 2);
    fs::write(again.workspace.join("newer"), "").unwrap();
    killed_while_it_removes(|| salvage(base, &again.root));
    assert!(can_go_on(base, &assigned, "s1"));
    let newer = place(base, assigned.task).join("workspace/newer");
    assert!(newer.exists() && trash() == 1);
    prune(base);
    assert_eq!(trash(), 0);
}

#[test]
fn half_of_the_directory_of_an_attempt_is_not_kept() {
    let base = tempfile::tempdir().unwrap();
    let base = base.path();
    let (dirs, assigned) = marked(base, 0);
    assert!(!killed_while_it_removes(|| dirs.remove()));
    assert!(dirs.workspace.exists(), "it was not finished");
    salvage(base, &dirs.root);
    assert!(!place(base, assigned.task).exists());
}

#[test]
fn no_more_is_kept_than_there_may_be() {
    let base = tempfile::tempdir().unwrap();
    let base = base.path();
    for n in 0..=TASKS_MAX as u64 {
        let (dirs, _) = marked(base, n);
        salvage(base, &dirs.root);
        dirs.remove();
    }
    let kept = || fs::read_dir(base.join(FOLDER)).unwrap().count();
    assert_eq!(kept(), TASKS_MAX);
    let newest = place(base, task(TASKS_MAX as u64));
    assert!(newest.is_dir(), "the newest stays");
    // What they take on disk was counted.
    let mut mark = Mark::read(&newest).unwrap();
    assert!(mark.bytes > 0, "{mark:?}");
    mark.bytes = BYTES_MAX + 1;
    mark.write(&newest).unwrap();
    prune(base);
    assert!(!newest.exists(), "nor more than there is room for");
    assert_eq!(kept(), TASKS_MAX - 1, "it takes none of the others with it");
}
