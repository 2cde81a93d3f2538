//! `conductor watch-folder`: files become tasks, each once, whatever dies meanwhile.

use std::collections::BTreeSet;
use std::path::PathBuf;

use conductor_harness::process::Process;
use conductor_harness::{System, until};
use conductor_protocol::event::Event;
use serde_json::{Value, json};

/// A system and a folder that is watched.
struct Watched {
    system: System,
    dir: PathBuf,
}

impl Watched {
    async fn up() -> Self {
        let system = System::up().await;
        let dir = system.dir.path().join("folder");
        std::fs::create_dir(&dir).unwrap();
        let mut watched = Self { system, dir };
        watched.start().await;
        watched
    }

    async fn start(&mut self) {
        let dir = self.dir.display().to_string();
        let args = ["watch-folder", &dir, "--interval", "20ms"];
        self.system.start("watch", &args);
        self.process().says("watching the folder").await;
    }

    fn process(&mut self) -> &mut Process {
        self.system.process("watch")
    }

    fn put(&self, file: &str, text: &str) {
        std::fs::write(self.dir.join(file), text).unwrap();
    }

    fn drop_task(&self, name: &str, script: &str) {
        let task = json!({"run": {"command": ["sh", "-c", script]}});
        self.put(&format!("{name}.task.json"), &task.to_string());
    }

    fn text(&self, file: &str) -> Option<String> {
        std::fs::read_to_string(self.dir.join(file)).ok()
    }

    fn json(&self, file: &str) -> Option<Value> {
        // Written by a rename: what is there is whole.
        let text = self.text(file)?;
        Some(serde_json::from_str(&text).unwrap_or_else(|e| panic!("{file}: {e}: {text:?}")))
    }

    /// Waits for a file.
    async fn appears(&self, file: &str) -> Value {
        until(|| {
            self.json(file)
                .ok_or_else(|| format!("{file} in {}", self.listing()))
        })
        .await
    }

    /// Waits for a text file that says this.
    async fn says(&self, file: &str, what: &str) {
        until(|| match self.text(file) {
            Some(text) if text.contains(what) => Ok(()),
            other => Err(format!("{what:?} in {file}, not {other:?}")),
        })
        .await;
    }

    /// Waits until a status says that.
    async fn is(&self, name: &str, state: &str) -> Value {
        let file = format!("{name}.status.json");
        until(|| match self.json(&file) {
            Some(status) if status["state"] == state => Ok(status),
            other => Err(format!("{state} in {file}, not {other:?}")),
        })
        .await
    }

    fn listing(&self) -> String {
        let entries = std::fs::read_dir(&self.dir).unwrap().flatten();
        let names: BTreeSet<_> = entries.map(|e| e.file_name()).collect();
        format!("{names:?}")
    }

    /// How many files were accepted as tasks in all.
    async fn accepted(&self) -> usize {
        let mut story = self.system.story().await;
        let noop = json!({"run": {"noop": {}}});
        // Behind all that is there by now.
        story.ended(self.system.submit(noop).await).await;
        let has_name = |event: &Option<Event>| match event {
            // Tasks of files are called as those are; the test's own have no name.
            Some(Event::TaskAccepted(e)) => e.spec.name.is_some(),
            _ => false,
        };
        story.told.iter().filter(|t| has_name(&t.event)).count()
    }
}

#[tokio::test]
async fn a_file_becomes_a_task_and_its_result_a_file() {
    let watched = Watched::up().await;
    let task = json!({
        "run": {"command": ["sh", "-c", "echo hi; printf abc > out.txt"]},
        "artifacts": ["out.txt"], "metadata": {"by": "test"},
    });
    watched.put("build.task.json", &task.to_string());
    // The same content in another file is another task.
    watched.put("twin.task.json", &task.to_string());
    watched.put("notes.json", &task.to_string());
    for name in ["build", "twin"] {
        let result = watched.appears(&format!("{name}.result.json")).await;
        assert_eq!(result["outcome"], "succeeded", "{result}");
        assert_eq!(
            (&result["result"], &result["exit_code"]),
            (&json!("hi"), &json!(0))
        );
        let artifacts = result["artifacts"].as_array().unwrap();
        let out = artifacts.iter().find(|a| a["name"] == "out.txt").unwrap();
        let sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!((&out["sha256"], &out["size"]), (&json!(sha256), &json!(3)));
        let status = watched.is(name, "succeeded").await;
        assert_eq!(status["id"], result["id"]);
    }
    let ids =
        ["build", "twin"].map(|n| watched.json(&format!("{n}.result.json")).unwrap()["id"].clone());
    assert_ne!(ids[0], ids[1]);
    let shown = watched
        .system
        .cli(&["task", "show", "build", "-o", "json"])
        .await
        .json();
    assert_eq!(shown["id"], ids[0], "it is called as its file is");
    assert_eq!(watched.accepted().await, 2);
}

#[tokio::test]
async fn how_a_task_fails_is_in_its_result() {
    let watched = Watched::up().await;
    watched.drop_task("bad", "echo half; exit 3");
    watched.drop_task("long", "sleep 300");
    let result = watched.appears("bad.result.json").await;
    assert_eq!(
        (&result["outcome"], &result["class"]),
        (&json!("failed"), &json!("failed"))
    );
    assert_eq!(
        (&result["result"], &result["exit_code"]),
        (&json!("half"), &json!(3)),
        "{result}"
    );
    assert!(
        result["message"].as_str().unwrap().contains('3'),
        "{result}"
    );
    watched.is("long", "running").await;
    watched.system.cli(&["task", "cancel", "long"]).await.ok();
    assert_eq!(
        watched.appears("long.result.json").await["outcome"],
        "cancelled"
    );
}

#[tokio::test]
async fn a_broken_file_is_told_what_is_wrong_with_it_and_taken_when_it_is_mended() {
    let watched = Watched::up().await;
    watched.put("a.task.json", "{\"run\": {\"command\": [\"true\"]}");
    watched.put(
        "b.task.json",
        "{\"run\": {\"command\": \"make\"}, \"prioritty\": 3}",
    );
    watched.says("a.error.txt", "not JSON").await;
    watched
        .says(
            "b.error.txt",
            "prioritty: is not a field of a task; did you mean priority?",
        )
        .await;
    watched.says("b.error.txt", "run.command: ").await;
    assert!(watched.json("a.status.json").is_none() && watched.json("b.status.json").is_none());
    watched.drop_task("a", "true");
    watched.drop_task("b", "true");
    for name in ["a", "b"] {
        watched.appears(&format!("{name}.result.json")).await;
        assert!(watched.text(&format!("{name}.error.txt")).is_none());
    }
    assert_eq!(watched.accepted().await, 2);
}

/// What only the orchestrator can know is told the same way.
#[tokio::test]
async fn a_refusal_of_the_orchestrator_is_told_too() {
    let watched = Watched::up().await;
    let needs = json!({"run": {"noop": {}}, "needs": ["0192f0c1-2b3c-7d4e-8f50-123456789abc"]});
    watched.put("a.task.json", &needs.to_string());
    watched.is("a", "rejected").await;
    watched.says("a.error.txt", "needs[0]: ").await;
    watched.drop_task("a", "true");
    assert_eq!(
        watched.appears("a.result.json").await["outcome"],
        "succeeded"
    );
    assert!(watched.text("a.error.txt").is_none());
}

#[tokio::test]
async fn every_file_counts_once_though_the_watcher_is_killed_again_and_again() {
    let mut watched = Watched::up().await;
    let runs = watched.system.dir.path().join("runs");
    let script = |name: &str| format!("echo {name} >> {}; sleep 0.3; echo {name}", runs.display());
    let mut names = Vec::new();
    for round in 0..4 {
        for n in 0..12 {
            let name = format!("{round}-{n}");
            watched.drop_task(&name, &script(&name));
            names.push(name);
        }
        // Some are claimed by now, some submitted, some run; the last are not even seen.
        watched.appears(&format!("{round}-0.status.json")).await;
        watched.process().kill9();
        let late = format!("{round}-late");
        watched.drop_task(&late, &script(&late));
        names.push(late);
        watched.start().await;
    }
    for name in &names {
        let result = watched.appears(&format!("{name}.result.json")).await;
        assert_eq!(
            (&result["outcome"], &result["result"]),
            (&json!("succeeded"), &json!(name))
        );
        watched.is(name, "succeeded").await;
    }
    assert_eq!(watched.accepted().await, names.len());
    let ran = std::fs::read_to_string(&runs).unwrap();
    let ran: Vec<&str> = ran.lines().collect();
    let once: BTreeSet<&str> = ran.iter().copied().collect();
    assert_eq!(
        (ran.len(), once.len()),
        (names.len(), names.len()),
        "each ran once"
    );
    // Yet another start finds nothing to do.
    watched.process().kill9();
    watched.start().await;
    watched.drop_task("last", "true");
    watched.appears("last.result.json").await;
    assert_eq!(watched.accepted().await, names.len() + 1);
    assert!(watched.process().terminate().await.success());
    let left = watched.listing();
    assert!(!left.contains(".conductor-"), "{left}");
}

/// Where even the status is lost, the key that the file itself gives keeps it from running twice.
#[tokio::test]
async fn a_lost_status_does_not_run_a_file_twice() {
    let mut watched = Watched::up().await;
    watched.drop_task("a", "echo once");
    let first = watched.appears("a.result.json").await;
    watched.is("a", "succeeded").await;
    watched.process().kill9();
    for file in ["a.status.json", "a.result.json"] {
        std::fs::remove_file(watched.dir.join(file)).unwrap();
    }
    watched.start().await;
    let again = watched.appears("a.result.json").await;
    for field in ["id", "outcome", "result", "exit_code", "ended"] {
        assert_eq!(again[field], first[field], "{field}");
    }
    assert_eq!(watched.accepted().await, 1);
    // A file that was removed, and is there again, is another.
    std::fs::remove_file(watched.dir.join("a.task.json")).unwrap();
    let removed = || match watched.json("a.status.json") {
        Some(status) if status["file_removed"] == true => Ok(()),
        other => Err(format!("that it was removed, in {other:?}")),
    };
    until(removed).await;
    watched.drop_task("a", "echo once");
    until(|| match watched.json("a.result.json") {
        Some(result) if result["id"] != first["id"] => Ok(()),
        other => Err(format!("another task than {first}, not {other:?}")),
    })
    .await;
    assert_eq!(watched.accepted().await, 2);
}

#[tokio::test]
async fn a_server_that_is_away_delays_files_and_loses_none() {
    let mut watched = Watched::up().await;
    watched.drop_task("before", "sleep 1; echo before");
    watched.is("before", "running").await;
    watched.system.server.as_mut().unwrap().server.kill();
    watched.drop_task("meanwhile", "echo meanwhile");
    watched.is("meanwhile", "submitting").await;
    watched.system.server.as_mut().unwrap().start_again();
    watched.drop_task("after", "echo after");
    for name in ["before", "meanwhile", "after"] {
        let result = watched.appears(&format!("{name}.result.json")).await;
        assert_eq!(result["result"], name, "{result}");
    }
    assert_eq!(watched.accepted().await, 3);
}

/// Claimed, and then neither the watcher nor the server was there: the next watcher submits it.
#[tokio::test]
async fn what_was_claimed_and_never_acknowledged_is_submitted_by_the_next_process() {
    let mut watched = Watched::up().await;
    watched.system.server.as_mut().unwrap().server.kill();
    watched.drop_task("a", "echo a");
    watched.drop_task("withdrawn", "echo withdrawn");
    let claimed = watched.is("a", "submitting").await;
    watched.is("withdrawn", "submitting").await;
    watched.process().kill9();
    std::fs::remove_file(watched.dir.join("withdrawn.task.json")).unwrap();
    watched.system.server.as_mut().unwrap().start_again();
    watched.start().await;
    let result = watched.appears("a.result.json").await;
    assert_eq!(
        (&result["result"], &result["id"]),
        (&json!("a"), &claimed["id"])
    );
    watched.is("withdrawn", "withdrawn").await;
    assert_eq!(watched.accepted().await, 1);
}

#[tokio::test]
async fn a_folder_has_one_watcher_and_has_to_be_there() {
    let watched = Watched::up().await;
    let dir = watched.dir.display().to_string();
    let second = watched.system.cli(&["watch-folder", &dir]).await;
    assert_eq!(second.code, 5, "{second:?}");
    assert!(
        second.stderr.contains("watched by another process"),
        "{}",
        second.stderr
    );
    let missing = watched
        .system
        .cli(&["watch-folder", &format!("{dir}/none")])
        .await;
    assert_eq!(missing.code, 2, "{missing:?}");
    assert!(missing.stderr.contains("mkdir -p"), "{}", missing.stderr);
}
