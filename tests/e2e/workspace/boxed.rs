//! The same in every sandbox that works on this machine.

use conductor_protocol::terms::SandboxKind;
use serde_json::json;

use super::*;

#[tokio::test]
async fn a_repository_is_worked_on_in_every_sandbox() {
    let mut world = World::up().await;
    let agents = |s: &Story| s.state().agents.values().next().cloned();
    let agent = world.story.until("an agent", agents).await;
    for kind in [
        SandboxKind::None,
        SandboxKind::Landlock,
        SandboxKind::Bubblewrap,
    ] {
        if !agent.joined.sandboxes.contains_key(&kind) {
            eprintln!("not tested here: {kind} does not work");
            continue;
        }
        let script = "set -e
            test \"$(cat from-setup)\" = \"$PWD\"
            echo a > a; git add a; git commit -q -m a
            echo 4 >> f; rm from-setup
            echo '{\"percent\": 50}' >> .conductor/progress.jsonl
            echo '{\"n\": 1}' > .conductor/r; mv .conductor/r .conductor/result.json";
        let branch = format!("from-{kind}");
        let fields = json!({
            "sandbox": {"kind": kind},
            "workspace": {"name": format!("in-{kind}"), "git": {"url": world.remote, "push": branch}},
            "setup": [["sh", "-c", "pwd > from-setup"]],
            "checks": [["sh", "-c", "git diff --quiet HEAD -- a && test -e .conductor/result.json"]],
            "artifacts": ["a"],
            "result_schema": r#"{"required": ["n"]}"#,
        });
        let id = world.submit(script, fields).await;
        world.succeeded(id).await;
        let changed = world.changed(id);
        assert_eq!((changed.files, changed.insertions), (2, 2), "{kind}");
        assert_eq!(changed.pushed.as_deref(), Some(branch.as_str()), "{kind}");
        assert_eq!(
            world.in_remote(&["show", &format!("{branch}:f")]),
            "1\n2\n3\n4"
        );
        assert_eq!(world.artifact(id, "a").await, "a\n");
        let kinds = world.story.kinds(id);
        assert!(kinds.contains(&"attempt.progress"), "{kind}: {kinds:?}");
        // Another task goes on in it.
        let again = json!({
            "sandbox": {"kind": kind}, "workspace": {"name": format!("in-{kind}")},
        });
        let id = world
            .submit("git log -1 --format=%s | grep -x a", again)
            .await;
        world.succeeded(id).await;
    }
}
