//! Attempts that go on in a session find the workspace as the one before left it.

use super::*;
use conductor_protocol::RunSpec;
use conductor_protocol::terms::Before;

/// The first attempt of a task of a model.
fn first(terms: Value) -> (Lease, AttemptAssigned) {
    let (lease, assigned) = assigned(terms);
    let run = Arc::new(RunSpec::Claude(Box::default()));
    (lease, AttemptAssigned { run, ..assigned })
}

/// The next one, which is offered the session `s1`.
fn next(lease: Lease, assigned: &AttemptAssigned) -> (Lease, AttemptAssigned) {
    let attempt = lease.attempt + 1;
    let before = Before {
        session: Some("s1".into()),
        ..Before::default()
    };
    let assigned = AttemptAssigned {
        attempt,
        before: Some(Box::new(before)),
        ..assigned.clone()
    };
    let assigned_at = Position::new(7 + u64::from(attempt), 0);
    let lease = Lease {
        attempt,
        assigned: assigned_at,
        ..lease
    };
    (lease, assigned)
}

impl World {
    async fn begin_with(&self, (lease, assigned): &(Lease, AttemptAssigned)) -> Made {
        let path = std::env::var("PATH").unwrap();
        let made = self.begin(*lease, assigned, &path).await;
        made.unwrap()
    }

    /// As the next life of an agent does with an attempt that it was killed in.
    async fn end_by_kill(&self, made: Made) {
        fs::write(made.dirs.home.join("s1.jsonl"), "said").unwrap();
        let (root, kept) = (made.dirs.root.clone(), self.path("data/kept/a"));
        rescue_left(&root, &kept, "/usr/bin:/bin").await;
        sessions::salvage(&kept, &root);
        made.dirs.remove();
    }

    fn sessions(&self) -> PathBuf {
        self.path("data/kept/a/sessions")
    }
}

fn patch(changed: &Changed) -> String {
    let patch = changed.difference.patch.clone().unwrap_or_default();
    String::from_utf8(patch).unwrap()
}

#[tokio::test]
async fn a_clone_is_gone_on_in_and_compared_with_what_the_first_attempt_found() {
    let world = World::new();
    let git = json!({"url": world.remote(), "push": "work"});
    let one = first(json!({"workspace": {"git": git}}));
    let made = world.begin_with(&one).await;
    assert_eq!(made.workspace.session(), None);
    let base = made.git(&["rev-parse", "HEAD"]);
    made.write("f", "1\nfirst\n3\n");
    made.write("committed", "c\n");
    made.git(&["add", "committed"]);
    made.git(&["commit", "-q", "-m", "of the first"]);
    made.write("new", "n\n");
    // Git of ours was killed, too, and left what would be in its way.
    fs::write(made.dirs.root.join("compare/index.lock"), "").unwrap();
    world.end_by_kill(made).await;
    // The remote has moved on meanwhile.
    world.commit("f", "other\n");
    let seed = world.path("seed");
    users(&seed, &["push", "-q", "../remote.git", "main"]);

    let two = next(one.0, &one.1);
    let made = world.begin_with(&two).await;
    assert_eq!(made.workspace.session(), Some("s1"));
    assert!(!world.sessions().exists(), "it was taken");
    let read = |name: &str| fs::read_to_string(made.dirs.workspace.join(name)).unwrap();
    assert_eq!(
        (read("f"), read("new")),
        ("1\nfirst\n3\n".into(), "n\n".into())
    );
    made.write("f", "1\nfirst\nsecond\n");
    made.write("late", "l\n");
    let mut changed = made.changed().await;
    assert_eq!(changed.base.as_ref(), Some(&base), "of the first attempt");
    made.git(&["add", "-N", "."]);
    let shown = made.git(&["diff", "--binary", &base]);
    assert_eq!(patch(&changed).trim(), shown);
    assert_eq!(changed.difference.files, 4);
    let pushed = made.workspace.push(&mut changed).await;
    assert_eq!(pushed, Ok(Some("work".to_owned())));
    assert_eq!(world.in_remote(&["rev-parse", "work~2"]), base);
    let diff = world.in_remote(&["diff", "--binary", &base, "work"]);
    assert_eq!(diff, shown, "what is pushed is what is shown");
}

#[tokio::test]
async fn an_empty_workspace_is_gone_on_in_over_many_attempts() {
    let world = World::new();
    for terms in [json!({"workspace": {}}), json!({})] {
        let mut attempt = first(terms);
        for n in 1..=3 {
            let made = world.begin_with(&attempt).await;
            assert_eq!(made.workspace.session().is_some(), n > 1);
            made.write(&format!("of-{n}"), "x\n");
            made.write("common", &format!("{n}\n"));
            let changed = made.changed().await;
            assert_eq!(
                (changed.difference.files, changed.base.clone()),
                (n + 1, None)
            );
            assert!(patch(&changed).contains(&format!("+{n}\n")), "{changed:?}");
            world.end_by_kill(made).await;
            attempt = next(attempt.0, &attempt.1);
        }
    }
}

#[tokio::test]
async fn half_a_clone_is_made_afresh_and_so_is_the_session() {
    let world = World::new();
    let git = json!({"url": world.remote()});
    let one = first(json!({"workspace": {"git": git}}));
    let made = world.begin_with(&one).await;
    made.write("f", "half\n");
    // Killed before it was whole, it has no mark.
    fs::remove_file(made.dirs.root.join("keep.json")).unwrap();
    world.end_by_kill(made).await;
    let made = world.begin_with(&next(one.0, &one.1)).await;
    assert_eq!(made.workspace.session(), None);
    assert_eq!(made.git(&["status", "--porcelain"]), "");
    assert!(!made.dirs.home.join("s1.jsonl").exists());
}

#[tokio::test]
async fn what_cannot_be_compared_any_more_is_not_gone_on_in() {
    let world = World::new();
    let note = |task: &str| world.sessions().join(task).join("base.json");
    let spoil: [&dyn Fn(&str); 3] = [
        &|_| fs::remove_dir_all(world.path("data/kept/a/git")).unwrap(),
        &|task| fs::write(note(task), "{").unwrap(),
        &|task| fs::write(note(task), r#"{"tree": "--upload-pack=x"}"#).unwrap(),
    ];
    for (n, spoil) in spoil.into_iter().enumerate() {
        let git = json!({"url": world.remote()});
        let one = first(json!({"workspace": {"git": git}}));
        let made = world.begin_with(&one).await;
        made.write("a", "a\n");
        world.end_by_kill(made).await;
        spoil(&one.0.task.to_string());
        let made = world.begin_with(&next(one.0, &one.1)).await;
        assert_eq!(made.workspace.session(), None, "{n}");
        assert_eq!(made.git(&["status", "--porcelain"]), "", "{n}");
        assert!(!made.dirs.home.join("s1.jsonl").exists(), "{n}");
        // It is worked in as in any other.
        made.write("b", "b\n");
        assert_eq!(made.changed().await.difference.files, 1, "{n}");
        made.dirs.remove();
    }
}

#[tokio::test]
async fn what_nobody_goes_on_in_is_cleared_away() {
    let world = World::new();
    let one = first(json!({"workspace": {}}));
    let made = world.begin_with(&one).await;
    world.end_by_kill(made).await;
    assert!(world.sessions().exists());
    let (lease, mut anew) = next(one.0, &one.1);
    anew.before = None;
    let made = world.begin_with(&(lease, anew)).await;
    assert_eq!(made.workspace.session(), None);
    assert!(!world.sessions().exists());
}

#[tokio::test]
async fn a_named_workspace_that_is_gone_takes_the_session_with_it() {
    let world = World::new();
    let one = first(json!({"workspace": {"name": "w"}}));
    let made = world.begin_with(&one).await;
    made.write("a", "a\n");
    let files = made.dirs.workspace.clone();
    world.end_by_kill(made).await;
    let two = next(one.0, &one.1);
    let made = world.begin_with(&two).await;
    assert_eq!(made.workspace.session(), Some("s1"));
    assert!(made.dirs.workspace.join("a").exists());
    world.end_by_kill(made).await;
    fs::remove_dir_all(files).unwrap();
    let made = world.begin_with(&next(two.0, &two.1)).await;
    assert_eq!(made.workspace.session(), None);
}
