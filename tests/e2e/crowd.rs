//! Twenty real Claude Code CLIs at once, each in bubblewrap: they work, nothing of them is left, and
//! what memory each takes is told.
//!
//! Memory is that of all processes of an attempt (what makes its sandbox, the reaper, the CLI), as
//! the kernel counts it in `/proc`. *RSS* counts a page that several share for each of them; its peak
//! is the largest sum that was seen, looked at every 100 ms. *PSS* shares such a page out among all
//! who have it, so that the twenty can be added up; it is read once, while all twenty are there.

mod memory;

use std::path::PathBuf;
use std::time::Instant;

use conductor_domain::state::Outcome;
use conductor_harness::process::{descendants, gone};
use conductor_harness::{Story, System, until};
use conductor_protocol::TaskId;
use conductor_protocol::event::Event;
use conductor_protocol::terms::SandboxKind;
use serde_json::json;

use crate::claude::claude_cli;
use crate::model_api::ModelApi;
use memory::{Memory, Peaks, control_groups, trees};

/// How many at once.
const MANY: usize = 20;

struct Crowd {
    system: System,
    story: Story,
    _api: ModelApi,
}

impl Crowd {
    /// Two agents of ten slots; `None` where there is no CLI or no bubblewrap.
    async fn up() -> Option<Self> {
        let Some(cli) = claude_cli() else {
            eprintln!("npm cannot install the Claude Code CLI here: no crowd of real agents");
            return None;
        };
        let mut system = System::bare().await;
        let api = ModelApi::playing("crowd", system.dir.path());
        system.env = vec![
            ("CONDUCTOR_CLAUDE_BIN".into(), cli.display().to_string()),
            ("ANTHROPIC_BASE_URL".into(), api.url.clone()),
            ("ANTHROPIC_API_KEY".into(), "dummy".into()),
        ];
        system.start_up(&["--agents", "2", "--slots", "10"]).await;
        let mut story = system.story().await;
        let agents = |s: &Story| s.state().agents.values().next().cloned();
        let agent = story.until("an agent", agents).await;
        if !agent
            .joined
            .sandboxes
            .contains_key(&SandboxKind::Bubblewrap)
        {
            let said = system.process("up").said();
            assert!(
                std::env::var_os("CI").is_none(),
                "bubblewrap must work where everything is tested:\n{said}"
            );
            for line in said.lines().filter(|l| l.contains("does not work here")) {
                eprintln!("not tested here: {line}");
            }
            return None;
        }
        Some(Self {
            system,
            story,
            _api: api,
        })
    }

    async fn submit(&self, n: usize) -> (String, TaskId) {
        let name = format!("n{n:02}");
        let task = json!({"name": name});
        let run = json!({
            "prompt": format!("Make a file of your name. [[task]] {task}"),
            "allowed_tools": ["Write"], "model": "claude-haiku-4-5",
        });
        let task = json!({
            "run": {"claude": run}, "workspace": {}, "sandbox": {"kind": "bubblewrap"},
        });
        (name, self.system.submit(task).await)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.system.dir.path().join(name)
    }

    /// Waits until each has made its edit and waits for its model.
    async fn all_are_there(&self, tasks: &[(String, TaskId)]) {
        until(|| {
            let is_there = |name: &&String| !self.path(&format!("held-{name}")).exists();
            let missing: Vec<_> = tasks
                .iter()
                .map(|(name, _)| name)
                .filter(is_there)
                .collect();
            if missing.is_empty() {
                Ok(())
            } else {
                Err(format!("{missing:?} to have made their edits"))
            }
        })
        .await;
    }

    async fn has_edited(&mut self, name: &str, id: TaskId) {
        let ended = self.story.outcome(id).await;
        assert_eq!(ended, Outcome::Succeeded, "{name}");
        let Some(Event::AttemptChanged(changed)) =
            self.story.find(id, "attempt.changed").unwrap().event
        else {
            panic!("it changed something")
        };
        assert_eq!((changed.files, changed.insertions), (1, 1), "{name}");
        let args = ["artifact", "get", &id.to_string(), "changes.patch", "-"];
        let patch = self.system.cli(&args).await.ok();
        assert!(patch.contains(&format!("+made by {name}\n")), "{patch}");
    }

    /// Waits until no directory of an attempt is left.
    async fn no_directory_is_left(&self) {
        let attempts = self.path("data/attempts");
        until(|| {
            let agents = std::fs::read_dir(&attempts).unwrap().flatten();
            let left: Vec<_> = agents
                .flat_map(|agent| std::fs::read_dir(agent.path()).into_iter().flatten())
                .flatten()
                .map(|entry| entry.path())
                .collect();
            if left.is_empty() {
                Ok(())
            } else {
                Err(format!("the end of {left:?}"))
            }
        })
        .await;
    }
}

#[tokio::test]
async fn twenty_real_agents_work_at_once_and_leave_nothing() {
    let Some(mut crowd) = Crowd::up().await else {
        return;
    };
    let up = crowd.system.process("up").pid();
    let began = Instant::now();
    let mut tasks = Vec::new();
    for n in 1..=MANY {
        tasks.push(crowd.submit(n).await);
    }
    let ids: Vec<TaskId> = tasks.iter().map(|(_, id)| *id).collect();
    let peaks = Peaks::watch(up, ids.clone());
    crowd.all_are_there(&tasks).await;
    let there_after = began.elapsed();
    let there = trees(up, &ids);
    assert_eq!(there.len(), MANY, "{there:?}");
    let shares: Vec<_> = there.values().map(Memory::of).collect();
    let (processes, groups) = (descendants(up), control_groups(&there));
    std::fs::write(crowd.path("let-go"), "").unwrap();
    for (name, id) in &tasks {
        crowd.has_edited(name, *id).await;
    }
    let took = began.elapsed();
    let peaks = peaks.end();
    // Whatever they were: what they started, what made their sandboxes, their control groups.
    for pid in processes {
        gone(pid).await;
    }
    until(|| match trees(up, &ids) {
        left if left.is_empty() => Ok(()),
        left => Err(format!("the end of {left:?}")),
    })
    .await;
    for group in &groups {
        assert!(!group.exists(), "{} is left", group.display());
    }
    crowd.no_directory_is_left().await;
    eprintln!(
        "{MANY} real agents at once, {} control groups: all had edited after {:.1} s, all had ended after {:.1} s",
        groups.len(),
        there_after.as_secs_f64(),
        took.as_secs_f64()
    );
    memory::print(&shares, &peaks);
    crowd.system.assert_replay_agrees().await;
}
