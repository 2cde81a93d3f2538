//! Named workspaces are removed by the agent that has them, and not with work that is nowhere else.

use conductor_domain::VoidReason;
use conductor_domain::state::Workspace;
use conductor_protocol::Namespace;

use super::*;

/// Each role in a process of its own, and one agent.
async fn world() -> World {
    let mut system = System::bare().await;
    for role in ["orchestrator", "scheduler"] {
        system.start_role(role, role);
    }
    system.start_agent("a1");
    system.wait_ready(1).await;
    World::over(system).await
}

impl World {
    fn held(&self, name: &str) -> Option<&Workspace> {
        let key = (Namespace::default(), name.to_owned());
        self.story.state().workspaces.get(&key)
    }

    /// Runs a script in a workspace that was cloned from the remote, pushing to a branch if one is
    /// named; whether it then holds work that is nowhere else.
    async fn works(&mut self, script: &str, push: Option<&str>) -> bool {
        let git = json!({"url": self.remote, "push": push});
        let id = self
            .submit(script, json!({"workspace": {"name": "w", "git": git}}))
            .await;
        self.succeeded(id).await;
        let unpushed = self.changed(id).unpushed.unwrap();
        assert_eq!(self.held("w").unwrap().unpushed, unpushed);
        unpushed
    }

    /// Where the agent keeps its workspaces of this name.
    fn directories(&self, name: &str) -> Vec<PathBuf> {
        let find = format!(
            "find {} -path '*/workspaces/default/{name}' -type d",
            self.system.dir.path().display()
        );
        let found = Command::new("sh").args(["-c", &find]).output().unwrap();
        let found = String::from_utf8(found.stdout).unwrap();
        found.lines().map(PathBuf::from).collect()
    }

    async fn forgotten(&mut self, name: &str) {
        let key = (Namespace::default(), name.to_owned());
        let is_gone = |s: &Story| (!s.state().workspaces.contains_key(&key)).then_some(());
        self.story
            .until("the workspace is forgotten", is_gone)
            .await;
    }
}

#[tokio::test]
async fn a_workspace_is_removed_once_its_work_was_pushed() {
    let mut world = world().await;
    assert!(!world.works("test -e f", None).await, "as it was cloned");
    assert!(world.works("echo 1 > new", None).await, "a new file");
    let refused = world.system.cli(&["workspace", "remove", "w"]).await;
    assert_eq!(refused.code, 5, "{refused:?}");
    assert!(
        refused.stderr.contains("work that is nowhere else")
            && refused.stderr.contains("--discard w"),
        "{refused:?}"
    );
    let listed = ["-o", "json", "workspace", "list"];
    let listed = world.system.cli(&listed).await.ok();
    assert!(listed.contains(r#""unpushed": true"#), "{listed}");
    // The host commits and pushes what was not committed.
    assert!(!world.works("echo 2 >> new", Some("work")).await);
    assert!(!world.works("true", None).await, "nothing came since");
    let other = "git add -A; git commit -q -m all; git branch aside; git reset -q --hard v1";
    assert!(world.works(other, None).await, "a commit on another branch");
    assert!(
        !world
            .works("git reset -q --hard aside", Some("aside"))
            .await
    );
    assert!(world.works("git commit -q --amend -m other", None).await);
    assert!(
        !world.works("true", Some("amended")).await,
        "what was left is pushed, too"
    );
    assert!(world.works("echo 3 > f; git stash -q", None).await);
    assert!(!world.works("git stash drop -q", None).await);
    assert_eq!(world.story.void(VoidReason::WorkspaceUnpushed), 1);
    let [directory] = &world.directories("w")[..] else {
        panic!("{:?}", world.directories("w"))
    };
    assert!(directory.join("workspace/new").exists());
    let asked = world.system.cli(&["workspace", "remove", "w"]).await.ok();
    assert!(asked.contains("a1"), "{asked}");
    world.forgotten("w").await;
    assert!(!directory.exists());
    // Whoever comes next begins anew.
    assert!(!world.works("test ! -e new", None).await);
    let unknown = world.system.cli(&["workspace", "remove", "x"]).await;
    assert_eq!(unknown.code, 3, "{unknown:?}");
    world.system.assert_replay_agrees().await;
}

#[tokio::test]
async fn work_that_is_given_up_by_name_is_removed_even_if_its_agent_dies_between() {
    let mut world = world().await;
    let named = json!({"workspace": {"name": "plain"}});
    let id = world.submit("echo a > a", named).await;
    world.succeeded(id).await;
    assert_eq!(world.changed(id).unpushed, Some(true), "any file is work");
    let wrong = ["workspace", "remove", "plain", "--discard", "plane"];
    let wrong = world.system.cli(&wrong).await;
    assert_eq!(wrong.code, 2, "{wrong:?}");
    let [directory] = &world.directories("plain")[..] else {
        panic!("{:?}", world.directories("plain"))
    };
    // The agent dies, and hears of it when it is there again.
    world.system.process("a1").kill9();
    let discard = ["workspace", "remove", "plain", "--discard", "plain"];
    world.system.cli(&discard).await.ok();
    let again = world.system.cli(&discard).await;
    assert_eq!(again.code, 5, "{again:?}");
    assert!(again.stderr.contains("asked for already"), "{again:?}");
    assert!(directory.join("workspace/a").exists());
    world.system.start_agent("a1");
    world.forgotten("plain").await;
    assert!(!directory.exists());
    world.system.assert_replay_agrees().await;
}
