//! An agent without root's rights: as agents should be run.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use conductor_domain::state::Outcome;
use conductor_harness::process::descendants;
use conductor_harness::system::sh;
use conductor_harness::{System, binary};
use conductor_protocol::terms::{Guarantee, SandboxKind};
use serde_json::json;

use super::ends::{leave, none_left, sleeping};

/// A user that owns nothing.
const NOBODY: u32 = 65_534;

/// An agent of that user. Dropped, it is killed.
struct Agent(Child);

impl Agent {
    fn start(system: &System) -> Self {
        let dir = system.dir.path();
        // The binary's own directory may be closed to others.
        let program = dir.join("conductor");
        std::fs::copy(binary::conductor(), &program).unwrap();
        let data = dir.join("of-nobody");
        std::fs::create_dir(&data).unwrap();
        std::os::unix::fs::chown(&data, Some(NOBODY), Some(NOBODY)).unwrap();
        std::fs::set_permissions(dir, PermissionsExt::from_mode(0o755)).unwrap();
        let mut command = Command::new(program);
        command.uid(NOBODY).gid(NOBODY).current_dir(&data);
        command.args(["agent", "--name", "nobody", "--nats-url", &system.url]);
        command.args(["--metrics-addr", "off", "--sandbox", "bubblewrap"]);
        command.arg("--data-dir").arg(&data);
        command
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", &data);
        let child = command.stdin(Stdio::null()).spawn();
        Self(child.unwrap())
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn without_roots_rights_the_kernel_counts_processes_and_nothing_is_left() {
    if std::fs::metadata("/proc/self").unwrap().uid() != 0 {
        eprintln!("all other tests run without root's rights here");
        return;
    }
    let mut system = System::bare().await;
    system.start_role("orchestrator", "orchestrator");
    system.start_role("scheduler", "scheduler");
    let mut agent = Agent::start(&system);
    let mut story = system.story_of_new_cell().await;
    story
        .until("the agent or its end", |s| {
            let ended = matches!(agent.0.try_wait(), Ok(Some(_)));
            (ended || !s.state().agents.is_empty()).then_some(())
        })
        .await;
    let Some(joined) = story
        .state()
        .agents
        .values()
        .next()
        .map(|a| a.joined.clone())
    else {
        eprintln!("users cannot make namespaces here");
        return;
    };
    let offer = &joined.sandboxes[&SandboxKind::Bubblewrap];
    assert!(
        offer.guarantees.contains(&Guarantee::ProcessesLimited),
        "{offer:?}"
    );
    let many = "n=0; while [ $n -lt 300 ]; do sleep 60 & n=$((n+1)); done; wait";
    let mut task = sh(&format!("id -u; touch ok $HOME/ok $TMPDIR/ok && {many}"));
    task["sandbox"] = json!({"processes": 40});
    let id = system.submit(task).await;
    assert_eq!(story.outcome(id).await, Outcome::Failed);
    let printed = system.cli(&["task", "logs", &id.to_string()]).await.ok();
    assert!(printed.starts_with("1000\n"), "{printed}");
    assert!(
        printed.contains("Cannot fork") || printed.contains("fork:"),
        "{printed}"
    );
    let left = sh(&format!(
        "{}kill -STOP $PPID; exec sleep 36050",
        leave(36_000)
    ));
    system.submit(left).await;
    sleeping(36_050, 1).await;
    assert!(!descendants(agent.0.id()).is_empty());
    drop(agent);
    none_left(36_000, "killed").await;
    none_left(36_050, "killed").await;
}
