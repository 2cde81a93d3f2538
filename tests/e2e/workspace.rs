//! What attempts work on and what they leave: repositories, artifacts, checks, files.

mod boxed;
mod files;
mod going_on;
mod phases;
mod real;
mod removal;

use std::path::{Path, PathBuf};
use std::process::Command;

use conductor_domain::state::{Outcome, Phase};
use conductor_harness::system::sh;
use conductor_harness::{Story, System, until_asked};
use conductor_protocol::event::{AttemptChanged, AttemptFailed, Event};
use conductor_protocol::{OutcomeClass, TaskId};
use serde_json::{Value, json};

/// Git as a user runs it.
pub(crate) fn git(dir: &Path, args: &[&str]) -> String {
    let output = Command::new("git")
        .args(args)
        .current_dir(dir)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .envs([("GIT_AUTHOR_NAME", "u"), ("GIT_AUTHOR_EMAIL", "u@h")])
        .envs([("GIT_COMMITTER_NAME", "u"), ("GIT_COMMITTER_EMAIL", "u@h")])
        .output()
        .expect("git runs");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "git {args:?}: {errors}");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// A system of one agent, and a bare repository of two commits, the first of which has tag `v1`.
struct World {
    system: System,
    story: Story,
    remote: PathBuf,
}

impl World {
    async fn up() -> Self {
        let mut system = System::bare().await;
        system.start_up(&["--agents", "1"]).await;
        Self::over(system).await
    }

    /// Each role in a process of its own, and two agents.
    async fn split() -> Self {
        Self::over(System::split().await).await
    }

    async fn over(system: System) -> Self {
        let seed = system.dir.path().join("seed");
        std::fs::create_dir(&seed).unwrap();
        git(&seed, &["init", "-q", "-b", "main"]);
        std::fs::write(seed.join("f"), "1\n2\n").unwrap();
        git(&seed, &["add", "-A"]);
        git(&seed, &["commit", "-q", "-m", "one"]);
        git(&seed, &["tag", "v1"]);
        std::fs::write(seed.join("f"), "1\n2\n3\n").unwrap();
        git(&seed, &["commit", "-q", "-a", "-m", "two"]);
        git(
            system.dir.path(),
            &["clone", "-q", "--bare", "seed", "remote.git"],
        );
        let remote = system.dir.path().join("remote.git");
        let story = system.story().await;
        Self {
            system,
            story,
            remote,
        }
    }

    /// Submits a script with these fields beside it; it is tried once.
    async fn submit(&self, script: &str, fields: Value) -> TaskId {
        let mut task = sh(script);
        task["retry"] = json!({"max_attempts": 1});
        for (name, value) in fields.as_object().unwrap() {
            task[name] = value.clone();
        }
        self.system.submit(task).await
    }

    async fn outcome(&mut self, id: TaskId) -> (Outcome, Option<OutcomeClass>) {
        let task = self.story.ended(id).await;
        let Phase::Ended(ended) = &task.phase else {
            unreachable!()
        };
        (ended.outcome, ended.class)
    }

    async fn succeeded(&mut self, id: TaskId) {
        let outcome = self.outcome(id).await;
        if outcome != (Outcome::Succeeded, None) {
            let printed = self.system.cli(&["task", "logs", &id.to_string()]).await;
            panic!("{outcome:?}: {:?}\n{}", self.failure(id), printed.stdout);
        }
    }

    /// How its last attempt failed, if one did.
    fn failure(&self, id: TaskId) -> Option<AttemptFailed> {
        let told = self.story.applied(id).filter_map(|t| t.event.clone());
        let failed = |e| match e {
            Event::AttemptFailed(e) => Some(e),
            _ => None,
        };
        told.filter_map(failed).last()
    }

    /// Waits for a failure of this class; its message.
    async fn failed(&mut self, id: TaskId, class: OutcomeClass) -> String {
        assert_eq!(self.outcome(id).await, (Outcome::Failed, Some(class)));
        let failure = self.failure(id).unwrap();
        assert_eq!(failure.class, class);
        failure.message
    }

    fn changed(&self, id: TaskId) -> AttemptChanged {
        match self.story.find(id, "attempt.changed").unwrap().event {
            Some(Event::AttemptChanged(e)) => e,
            other => panic!("{other:?}"),
        }
    }

    /// An artifact, as the command line gives it.
    async fn artifact(&self, id: TaskId, name: &str) -> String {
        let args = ["artifact", "get", &id.to_string(), name, "-"];
        self.system.cli(&args).await.ok()
    }

    fn in_remote(&self, args: &[&str]) -> String {
        git(&self.remote, args)
    }
}

#[tokio::test]
async fn a_program_commits_and_edits_in_a_clone_and_the_host_pushes_it() {
    let mut world = World::up().await;
    // What the user would see is kept beside the workspace, which goes with the attempt.
    let seen = world.system.dir.path().join("seen");
    let script = format!(
        "set -e
         test \"$(git describe --tags)\" = v1
         test -z \"$(git remote)\"
         echo mine > new; git add new; git commit -q -m mine
         echo 4 >> f
         git add -N . && git diff --binary v1 > {}",
        seen.display()
    );
    let git = json!({"url": world.remote, "ref": "v1", "push": "work"});
    let id = world
        .submit(&script, json!({"workspace": {"git": git}}))
        .await;
    world.succeeded(id).await;
    let changed = world.changed(id);
    assert_eq!(
        (changed.files, changed.insertions, changed.deletions),
        (2, 2, 0)
    );
    assert_eq!(changed.base.unwrap(), world.in_remote(&["rev-parse", "v1"]));
    assert_eq!(
        changed.head.unwrap(),
        world.in_remote(&["rev-parse", "work"])
    );
    assert_eq!(changed.pushed.as_deref(), Some("work"));
    let patch = world.artifact(id, "changes.patch").await;
    assert_eq!(patch, std::fs::read_to_string(seen).unwrap());
    let log = world.in_remote(&["log", "--format=%an: %s", "v1..work"]);
    let ours = format!("Conductor: conductor: uncommitted changes of task {id}");
    assert_eq!(log, format!("{ours}\nConductor agent: mine"));
    assert_eq!(world.in_remote(&["show", "work:f"]), "1\n2\n4");
    // What was made and changed is told before the end.
    let kinds = world.story.kinds(id);
    let at = |kind| kinds.iter().position(|k| *k == kind).unwrap();
    assert!(at("attempt.artifact") < at("attempt.changed"), "{kinds:?}");
    assert!(at("attempt.changed") < at("attempt.succeeded"), "{kinds:?}");
    let shown = world
        .system
        .cli(&["task", "show", &id.to_string()])
        .await
        .ok();
    assert!(
        shown.contains("changes.patch (") && shown.contains("pushed=work"),
        "{shown}"
    );
    world.system.assert_replay_agrees().await;
}

/// Everything in a repository that names a program, armed to touch a file.
fn traps(ran: &Path) -> String {
    let evil = format!("touch {}; false", ran.display());
    let settings = [
        "core.fsmonitor",
        "filter.evil.clean",
        "filter.evil.smudge",
        "filter.evil.process",
        "diff.external",
        "diff.evil.textconv",
        "diff.evil.command",
        "core.sshCommand",
        "core.pager",
        "uploadpack.packObjectsHook",
        "remote.origin.uploadpack",
    ];
    let mut script = String::from("set -e\n");
    for setting in settings {
        script += &format!("git config {setting} '{evil}'\n");
    }
    for hook in [
        "post-checkout",
        "pre-commit",
        "pre-push",
        "reference-transaction",
        "post-index-change",
    ] {
        let hook = format!(".git/hooks/{hook}");
        script += &format!("printf '#!/bin/sh\\n{evil}\\n' > {hook}; chmod +x {hook}\n");
    }
    script + "printf '* filter=evil diff=evil\\n' > .gitattributes\n"
}

#[tokio::test]
async fn nothing_that_a_program_left_in_its_repository_runs_on_the_host() {
    let mut world = World::up().await;
    let ran = world.system.dir.path().join("ran");
    let seen = world.system.dir.path().join("trap");
    let script = format!(
        "echo a > a; git add a; git commit -q -m a
         mkdir .git/hooks sub; (cd sub; git init -q; git config user.email a@b; git config user.name n
           echo s > s; git add s; git commit -q -m s; git config core.fsmonitor 'touch {ran}; false')
         git add sub 2>/dev/null; git commit -q -m sub
         echo b > b
         {traps}
         cp -r . {seen}",
        ran = ran.display(),
        seen = seen.display(),
        traps = traps(&ran),
    );
    let named = json!({"name": "w", "git": {"url": world.remote, "push": "work"}});
    let first = world.submit(&script, json!({"workspace": named})).await;
    world.succeeded(first).await;
    assert_eq!(world.in_remote(&["show", "work:b"]), "b");
    // Another attempt is begun over it: its base is compared too.
    let named = json!({"name": "w", "git": {"url": world.remote, "push": "again"}});
    let second = world
        .submit("echo c > c", json!({"workspace": named}))
        .await;
    world.succeeded(second).await;
    assert_eq!(world.changed(second).files, 1);
    assert_eq!(world.in_remote(&["show", "again:c"]), "c");
    assert!(!ran.exists(), "a program was run on the host");
    // They do run where somebody uses git there.
    let _ = Command::new("git")
        .arg("status")
        .current_dir(&seen)
        .output();
    assert!(ran.exists(), "the traps are armed");
}

#[tokio::test]
async fn a_push_that_the_remote_rejects_fails_the_attempt_in_gits_words() {
    let mut world = World::up().await;
    let onto = json!({"url": world.remote, "ref": "v1", "push": "main"});
    let id = world
        .submit("echo x > x", json!({"workspace": {"git": onto}}))
        .await;
    let message = world.failed(id, OutcomeClass::Failed).await;
    assert!(message.contains("[rejected]"), "{message}");
    assert_eq!(world.changed(id).pushed, None);
    assert_eq!(
        world.in_remote(&["show", "main:f"]),
        "1\n2\n3",
        "nothing was forced"
    );
    // What could not be pushed is not lost.
    let head = world.changed(id).head.unwrap();
    let kept = world.system.dir.path().join("data/kept");
    let find = format!("find {} -name '*.git' -type d", kept.display());
    let found = Command::new("sh").args(["-c", &find]).output().unwrap();
    let cache = String::from_utf8(found.stdout).unwrap();
    let refs = git(
        Path::new(cache.trim()),
        &["for-each-ref", "--format=%(objectname) %(refname)"],
    );
    assert!(
        refs.contains(&format!("{head} refs/conductor/{id}/1")),
        "{refs}"
    );
}

#[tokio::test]
async fn a_repository_that_is_not_there_starts_nothing() {
    let mut world = World::up().await;
    let marker = world.system.dir.path().join("ran");
    for (git, words) in [
        (json!({"url": "/nowhere/at/all"}), "git fetch failed"),
        (
            json!({"url": world.remote, "ref": "nowhere"}),
            "no branch, tag or commit",
        ),
    ] {
        let script = format!("touch {}", marker.display());
        let id = world
            .submit(&script, json!({"workspace": {"git": git}}))
            .await;
        let message = world.failed(id, OutcomeClass::NotStarted).await;
        assert!(message.contains(words), "{message}");
    }
    assert!(!marker.exists());
}

#[tokio::test]
async fn a_named_workspace_is_gone_on_in_and_used_by_one_at_a_time() {
    let mut world = World::up().await;
    let named = || json!({"workspace": {"name": "w"}});
    let go = world.system.dir.path().join("go");
    let script = format!(
        "echo a > a; until [ -e {} ]; do sleep 0.05; done",
        go.display()
    );
    let first = world.submit(&script, named()).await;
    world.story.told(first, "attempt.started").await;
    let busy = world.submit("true", named()).await;
    let expected = format!("task {first} works in its workspace \"w\"");
    until_asked(async || {
        let why = world.system.cli(&["why", &busy.to_string()]).await;
        if why.stdout.contains(&expected) {
            Ok(())
        } else {
            Err(format!("{} {}", why.stdout, why.stderr))
        }
    })
    .await;
    let other = world
        .submit(
            "test ! -e a",
            json!({"workspace": {"name": "w"}, "namespace": "other"}),
        )
        .await;
    world.succeeded(other).await;
    std::fs::write(&go, "").unwrap();
    world.succeeded(first).await;
    world.succeeded(busy).await;
    assert_eq!(world.changed(first).files, 1);
    let second = world
        .submit("test \"$(cat a)\" = a && echo b > b", named())
        .await;
    world.succeeded(second).await;
    assert_eq!(
        world.changed(second).files,
        1,
        "only what it changed itself"
    );
}
