use super::super::git::tests::{git, users};
use super::*;
use std::os::unix::fs::{PermissionsExt, symlink};

struct World {
    base: tempfile::TempDir,
    workspace: PathBuf,
    scratch: PathBuf,
    cache: Cache,
}

impl World {
    async fn new() -> Self {
        let base = tempfile::tempdir().unwrap();
        let workspace = base.path().join("ws");
        fs::create_dir_all(&workspace).unwrap();
        let cache = Cache::of_none(&base.path().join("kept"), git()).await;
        let world = Self {
            cache: cache.unwrap(),
            scratch: base.path().join("scratch"),
            workspace,
            base,
        };
        world.comparison().prepare().unwrap();
        world
    }

    fn comparison(&self) -> Comparison<'_> {
        Comparison {
            cache: &self.cache,
            workspace: &self.workspace,
            scratch: &self.scratch,
        }
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.workspace.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    async fn snapshot(&self, from: Option<&str>) -> String {
        self.comparison().snapshot(from).await.unwrap()
    }
}

#[test]
fn numbers_are_summed_over_files_binaries_and_renames() {
    let listed = b"1\t2\ta\0-\t-\tbin\x003\t0\t\0old\0new\0";
    let sum = count(listed);
    assert_eq!((sum.files, sum.insertions, sum.deletions), (3, 4, 2));
    assert_eq!(count(b""), Difference::default());
}

#[test]
fn repositories_within_are_told_from_files() {
    let listed = b"100644 aa 0\tf\x00160000 bb 0\twith\ttab\0";
    assert_eq!(gitlinks(listed), [("bb".to_owned(), b"with\ttab".to_vec())]);
}

#[tokio::test]
async fn a_directory_without_git_is_compared_with_what_it_was() {
    let world = World::new().await;
    world.write("a", "1\n2\n");
    world.write(".conductor/task.json", "{}");
    let before = world.snapshot(None).await;
    world.write("a", "1\n3\n");
    world.write("b/c", "new\n");
    world.write(".conductor/result.json", "{}");
    let after = world.snapshot(Some(&before)).await;
    let difference = world.comparison().between(&before, &after).await.unwrap();
    let numbers = (
        difference.files,
        difference.insertions,
        difference.deletions,
    );
    assert_eq!(numbers, (2, 2, 1));
    let patch = String::from_utf8(difference.patch.unwrap()).unwrap();
    assert!(patch.contains("+3\n") && patch.contains("b/c"), "{patch}");
    assert!(!patch.contains(".conductor"), "{patch}");
    let same = world.comparison().between(&after, &after).await.unwrap();
    assert_eq!(same, Difference::default());
}

#[tokio::test]
async fn nothing_that_a_program_can_write_runs_on_the_host() {
    let world = World::new().await;
    let ran = world.base.path().join("ran");
    let evil = format!("touch {}; false", ran.display());
    let ws = world.workspace.clone();
    users(&ws, &["init", "-q"]);
    // A repository within: were it in the base, `git add` would ask it for its status.
    world.write("sub/f", "f");
    users(&ws.join("sub"), &["init", "-q"]);
    users(&ws.join("sub"), &["add", "f"]);
    users(&ws.join("sub"), &["commit", "-q", "-m", "c"]);
    let before = world.snapshot(None).await;
    for dir in [ws.clone(), ws.join("sub")] {
        for (name, value) in [
            ("core.fsmonitor", evil.as_str()),
            ("filter.evil.clean", &evil),
            ("filter.evil.process", &evil),
            ("diff.external", &evil),
            ("diff.evil.textconv", &evil),
            ("diff.evil.command", &evil),
            ("core.sshCommand", &evil),
            ("core.pager", &evil),
        ] {
            users(&dir, &["config", name, value]);
        }
        let hooks = dir.join(".git/hooks");
        fs::create_dir_all(&hooks).unwrap();
        for hook in [
            "pre-commit",
            "post-checkout",
            "post-index-change",
            "reference-transaction",
        ] {
            let hook = hooks.join(hook);
            fs::write(&hook, format!("#!/bin/sh\n{evil}\n")).unwrap();
            fs::set_permissions(&hook, fs::Permissions::from_mode(0o755)).unwrap();
        }
    }
    world.write(".gitattributes", "* filter=evil diff=evil\n");
    world.write("x", "x\n");
    world.write("sub/g", "g");
    let after = world.snapshot(Some(&before)).await;
    let difference = world.comparison().between(&before, &after).await.unwrap();
    assert_eq!(difference.files, 2, "{difference:?}");
    assert!(!ran.exists());
    // The same settings do run something where a user's git is started there.
    let _ = std::process::Command::new("git")
        .arg("status")
        .current_dir(&ws)
        .output();
    assert!(ran.exists(), "the trap is armed");
}

#[tokio::test]
async fn links_devices_and_ignored_files_are_no_trouble() {
    let world = World::new().await;
    world.write(".gitignore", "target/\n");
    world.write("target/huge", "x");
    world.write("kept", "k");
    let before = world.snapshot(None).await;
    symlink("/etc", world.workspace.join("link")).unwrap();
    fs::remove_file(world.workspace.join("kept")).unwrap();
    rustix::fs::mkfifoat(
        rustix::fs::CWD,
        world.workspace.join("pipe"),
        rustix::fs::Mode::RUSR,
    )
    .unwrap();
    let after = world.snapshot(Some(&before)).await;
    let difference = world.comparison().between(&before, &after).await.unwrap();
    let patch = String::from_utf8(difference.patch.unwrap()).unwrap();
    assert_eq!(difference.files, 2, "{patch}");
    assert!(
        patch.contains("120000") && patch.contains("/etc"),
        "{patch}"
    );
}
