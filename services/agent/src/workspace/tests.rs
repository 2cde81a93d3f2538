mod going_on;

use super::git::tests::users;
use super::*;
use conductor_protocol::ids::Position;
use conductor_protocol::terms::Terms;
use serde_json::{Value, json};
use std::sync::Arc;

/// An assignment with these terms; `metadata` and a schema as an object are understood.
pub(crate) fn assigned(mut terms: Value) -> (Lease, AttemptAssigned) {
    let metadata = terms.as_object_mut().unwrap().remove("metadata");
    if let Some(schema) = terms.get_mut("result_schema").filter(|s| !s.is_string()) {
        *schema = schema.to_string().into();
    }
    let terms: Terms = serde_json::from_value(terms).unwrap();
    let task = uuid::Uuid::now_v7().to_string();
    let assigned: AttemptAssigned = serde_json::from_value(json!({
        "task": task, "attempt": 1, "incarnation": 1, "queue": "default",
        "run": {"command": {"argv": ["true"]}},
        "metadata": metadata.unwrap_or_else(|| json!({})),
    }))
    .unwrap();
    let lease = Lease {
        task: assigned.task,
        attempt: 1,
        assigned: Position::new(7, 0),
    };
    let terms = Some(Arc::new(terms));
    (lease, AttemptAssigned { terms, ..assigned })
}

/// A remote, and an agent's directories.
struct World {
    dir: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let world = Self {
            dir: tempfile::tempdir().unwrap(),
        };
        let seed = world.path("seed");
        fs::create_dir_all(&seed).unwrap();
        users(&seed, &["init", "-q", "-b", "main"]);
        world.commit("f", "1\n2\n");
        users(&seed, &["tag", "v1"]);
        world.commit("f", "1\n2\n3\n");
        users(
            world.dir.path(),
            &["clone", "-q", "--bare", "seed", "remote.git"],
        );
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn commit(&self, file: &str, text: &str) {
        let seed = self.path("seed");
        fs::write(seed.join(file), text).unwrap();
        users(&seed, &["add", "-A"]);
        users(&seed, &["commit", "-q", "-m", file]);
    }

    fn remote(&self) -> String {
        self.path("remote.git").display().to_string()
    }

    fn in_remote(&self, args: &[&str]) -> String {
        users(&self.path("remote.git"), args).trim().to_owned()
    }

    async fn make(&self, terms: Value) -> Result<Made, String> {
        self.make_with(terms, &std::env::var("PATH").unwrap()).await
    }

    async fn make_with(&self, terms: Value, path: &str) -> Result<Made, String> {
        let (lease, assigned) = assigned(terms);
        self.begin(lease, &assigned, path).await
    }

    async fn begin(
        &self,
        lease: Lease,
        assigned: &AttemptAssigned,
        path: &str,
    ) -> Result<Made, String> {
        let (base, kept) = (self.path("data/attempts/a"), self.path("data/kept/a"));
        let ground = Ground {
            lease,
            assigned,
            base: &base,
            kept: &kept,
            path,
        };
        let mut dirs = AttemptDirs::of(&base, &lease);
        let workspace = Workspace::make(&ground, &mut dirs).await?;
        Ok(Made {
            workspace,
            dirs,
            lease,
        })
    }

    async fn cloned(&self, git: Value) -> Made {
        let mut git = git;
        git["url"] = self.remote().into();
        self.make(json!({"workspace": {"git": git}})).await.unwrap()
    }
}

#[derive(Debug)]
struct Made {
    workspace: Workspace,
    dirs: AttemptDirs,
    lease: Lease,
}

impl Made {
    fn write(&self, path: &str, text: &str) {
        fs::write(self.dirs.workspace.join(path), text).unwrap();
    }

    fn git(&self, args: &[&str]) -> String {
        users(&self.dirs.workspace, args).trim().to_owned()
    }

    async fn changed(&self) -> Changed {
        self.workspace.changes().await.unwrap().unwrap()
    }
}

#[tokio::test]
async fn a_clone_stands_alone_at_the_commit_that_was_asked_for() {
    let world = World::new();
    for (reference, text) in [
        (json!({}), "1\n2\n3\n"),
        (json!({"ref": "main"}), "1\n2\n3\n"),
        (json!({"ref": "v1"}), "1\n2\n"),
        (
            json!({"ref": world.in_remote(&["rev-parse", "v1"])}),
            "1\n2\n",
        ),
    ] {
        let made = world.cloned(reference.clone()).await;
        let ws = &made.dirs.workspace;
        assert_eq!(
            fs::read_to_string(ws.join("f")).unwrap(),
            text,
            "{reference}"
        );
        assert_eq!(made.git(&["remote"]), "", "it has no remote");
        assert_eq!(made.git(&["status", "--porcelain"]), "", "{reference}");
        let branch = made.git(&["branch", "--show-current"]);
        assert_eq!(branch, format!("conductor/{}", made.lease.task));
        assert!(!ws.join(".git/objects/info/alternates").exists());
        made.git(&["fsck"]);
    }
    let git = json!({"url": world.remote(), "ref": "nowhere"});
    let missing = world
        .make(json!({"workspace": {"git": git}}))
        .await
        .unwrap_err();
    assert!(
        missing.contains("\"nowhere\" is no branch, tag or commit"),
        "{missing}"
    );
}

#[tokio::test]
async fn the_patch_is_what_git_diff_shows() {
    let world = World::new();
    let made = world.cloned(json!({})).await;
    made.write("f", "1\n3\n4\n");
    let unstaged = made.git(&["diff", "--binary"]);
    let changed = made.changed().await;
    let patch = String::from_utf8(changed.difference.patch.unwrap()).unwrap();
    assert_eq!(patch.trim(), unstaged);
    // New files, staged ones and commits too.
    made.write("new", "n\n");
    made.git(&["add", "-A"]);
    made.git(&["commit", "-q", "-m", "mine"]);
    fs::remove_file(made.dirs.workspace.join("f")).unwrap();
    made.write("bin", "\0\u{1}");
    let changed = made.changed().await;
    let base = changed.base.clone().unwrap();
    made.git(&["add", "-A"]);
    let all = made.git(&["diff", "--binary", "--cached", &base]);
    let patch = String::from_utf8(changed.difference.patch.clone().unwrap()).unwrap();
    assert_eq!(patch.trim(), all);
    assert_eq!(changed.difference.files, 3);
    assert_eq!(changed.head.unwrap(), made.git(&["rev-parse", "HEAD"]));
}

#[tokio::test]
async fn commits_and_what_was_not_committed_are_pushed_by_the_host() {
    let world = World::new();
    let made = world.cloned(json!({"push": "work"})).await;
    made.write("a", "a\n");
    made.git(&["add", "-A"]);
    made.git(&["commit", "-q", "-m", "mine"]);
    let mine = made.git(&["rev-parse", "HEAD"]);
    made.write("b", "b\n");
    let mut changed = made.changed().await;
    assert_eq!(
        made.workspace.push(&mut changed).await,
        Ok(Some("work".to_owned()))
    );
    let pushed = world.in_remote(&["rev-parse", "work"]);
    assert_eq!(changed.head.as_ref(), Some(&pushed));
    assert_eq!(world.in_remote(&["rev-parse", "work^"]), mine);
    let subject = world.in_remote(&["log", "-1", "--format=%an: %s", "work"]);
    let task = made.lease.task;
    assert_eq!(
        subject,
        format!("Conductor: conductor: uncommitted changes of task {task}")
    );
    assert_eq!(
        world.in_remote(&["ls-tree", "--name-only", "work"]),
        "a\nb\nf"
    );
    // Another that begins where this did is not allowed to overwrite it.
    let late = world.cloned(json!({"push": "work"})).await;
    late.write("c", "c\n");
    let mut changed = late.changed().await;
    let refused = late.workspace.push(&mut changed).await.unwrap_err();
    assert!(refused.contains("rejected"), "{refused}");
    assert_eq!(world.in_remote(&["rev-parse", "work"]), pushed);
    // One that changed nothing pushes nothing.
    let idle = world.cloned(json!({"push": "idle"})).await;
    let mut changed = idle.changed().await;
    assert_eq!(idle.workspace.push(&mut changed).await, Ok(None));
    assert_eq!(changed.difference, Difference::default());
}

#[tokio::test]
async fn commits_that_were_not_pushed_are_kept_when_the_workspace_goes() {
    let world = World::new();
    let made = world.cloned(json!({})).await;
    made.write("a", "a\n");
    made.git(&["add", "-A"]);
    made.git(&["commit", "-q", "-m", "precious"]);
    let (head, lease) = (made.git(&["rev-parse", "HEAD"]), made.lease);
    // As an agent finds it that was killed.
    rescue_left(&made.dirs.root, &world.path("data/kept/a"), "/usr/bin:/bin").await;
    made.dirs.remove();
    let cache = fs::read_dir(world.path("data/kept/a/git"))
        .unwrap()
        .flatten();
    let cache = cache.map(|e| e.path()).find(|p| p.is_dir()).unwrap();
    let name = format!("refs/conductor/{}/{}", lease.task, lease.attempt);
    assert_eq!(users(&cache, &["rev-parse", &name]).trim(), head);
    users(&cache, &["fsck", "--strict"]);
    // They are nobody else's.
    let next = world.cloned(json!({})).await;
    let ws = &next.dirs.workspace;
    let mut look = std::process::Command::new("git");
    look.args(["cat-file", "-e", &head]).current_dir(ws);
    assert!(!look.status().unwrap().success());
}

#[tokio::test]
async fn commits_whose_objects_are_not_what_they_say_are_not_taken_over() {
    let world = World::new();
    let made = world.cloned(json!({"push": "work"})).await;
    made.write("a", "good\n");
    made.git(&["add", "-A"]);
    made.git(&["commit", "-q", "-m", "mine"]);
    let blob = made.git(&["rev-parse", "HEAD:a"]);
    made.write("a", "evil\n");
    let evil = made.git(&["hash-object", "-w", "a"]);
    let object = |hash: &str| {
        let (dir, file) = hash.split_at(2);
        made.dirs
            .workspace
            .join(".git/objects")
            .join(dir)
            .join(file)
    };
    fs::remove_file(object(&blob)).unwrap();
    fs::copy(object(&evil), object(&blob)).unwrap();
    let mut changed = made.changed().await;
    assert!(changed.problem.is_some(), "{changed:?}");
    let refused = made.workspace.push(&mut changed).await.unwrap_err();
    assert!(refused.contains("cannot be taken over"), "{refused}");
    assert_eq!(
        changed.difference.files, 1,
        "the files are compared all the same"
    );
}

#[tokio::test]
async fn a_named_workspace_is_gone_on_in() {
    let world = World::new();
    let terms = || json!({"workspace": {"name": "w", "git": {"url": world.remote()}}});
    let first = world.make(terms()).await.unwrap();
    let busy = world.make(terms()).await.unwrap_err();
    assert!(busy.contains("in use by another task"), "{busy}");
    first.write("a", "a\n");
    first.git(&["add", "a"]);
    first.git(&["commit", "-q", "-m", "first"]);
    first.write("b", "b\n");
    assert_eq!(first.changed().await.difference.files, 2);
    first.dirs.remove();
    drop(first);
    let second = world.make(terms()).await.unwrap();
    assert_eq!(second.changed().await.difference, Difference::default());
    second.write("c", "c\n");
    let changed = second.changed().await;
    assert_eq!(changed.difference.files, 1);
    assert_eq!(changed.base.unwrap(), second.git(&["rev-parse", "HEAD"]));
    assert!(second.dirs.workspace.join("b").exists());
}

#[tokio::test]
async fn what_a_program_wrote_is_no_remote() {
    let world = World::new();
    let made = world.cloned(json!({})).await;
    let within = made.dirs.workspace.display().to_string();
    for url in [within.clone(), format!("file://{within}")] {
        let git = json!({"url": url});
        let refused = world
            .make(json!({"workspace": {"git": git}}))
            .await
            .unwrap_err();
        assert!(refused.contains("agent's own directories"), "{refused}");
    }
}

#[tokio::test]
async fn plain_commands_in_an_empty_directory_are_not_compared() {
    let world = World::new();
    let made = world.make(json!({})).await.unwrap();
    assert_eq!(made.workspace.changes().await, Ok(None));
    let asked = world.make(json!({"workspace": {}})).await.unwrap();
    asked.write("a", "a\n");
    assert_eq!(asked.changed().await.difference.files, 1);
}

#[tokio::test]
async fn without_git_only_what_needs_it_does_not_start() {
    let world = World::new();
    let plain = world.make_with(json!({"workspace": {}}), "/nowhere").await;
    let unknown = plain.unwrap().workspace.changes().await.unwrap_err();
    assert!(
        unknown.contains("install it where the agent runs"),
        "{unknown}"
    );
    let git = json!({"workspace": {"git": {"url": world.remote()}}});
    let refused = world.make_with(git, "/nowhere").await.unwrap_err();
    assert!(refused.contains("git does not start"), "{refused}");
}

#[tokio::test]
async fn many_may_begin_at_once() {
    let world = World::new();
    let begin = || world.cloned(json!({}));
    let (a, b, c, d) = tokio::join!(begin(), begin(), begin(), begin());
    let has_file = |made: &Made| made.dirs.workspace.join("f").exists();
    assert!([a, b, c, d].iter().all(has_file));
}
