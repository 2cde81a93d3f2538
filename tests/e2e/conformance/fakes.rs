//! A system whose agents run the fake programs, and what is looked at when a task has ended.

use conductor_domain::state::{Ended, Outcome, Phase};
use conductor_harness::{Story, System, binary, until, until_asked};
use conductor_protocol::event::Event;
use conductor_protocol::{OutcomeClass, TaskId};
use serde_json::{Value, json};

use super::cases::{Case, End};
use super::pairs::{Kind, Pair};
use crate::sandbox::small_image;

/// The program that plays the others.
const SCRIPT: &str = "tests/e2e/conformance/fake-agent.py";
/// How long a model may be silent there, the start of its container on a busy machine included.
const SILENCE: &str = "10s";
/// By when a stalled stream must have been ended: its silence, the ladder, a busy machine.
const STALLED_MS_MAX: u64 = 40_000;

pub(super) struct Fakes {
    pub(super) system: System,
    pub(super) story: Story,
    /// The program, as an agent of the Agent Client Protocol.
    pub(super) script: String,
}

impl Fakes {
    pub(super) async fn up() -> Self {
        let mut system = System::bare().await;
        // Where it can be seen from within every sandbox.
        let programs = system.dir.path().join("programs");
        std::fs::create_dir(&programs).expect("a directory");
        let place = |name: &str| {
            let path = programs.join(name);
            std::fs::copy(binary::workspace().join(SCRIPT), &path).expect("a copy");
            path.display().to_string()
        };
        let script = place("fake-agent");
        system.env = vec![
            ("CONDUCTOR_CLAUDE_BIN".into(), place("claude")),
            ("CONDUCTOR_CODEX_BIN".into(), place("codex")),
            (
                "CONDUCTOR_SANDBOX_RO".into(),
                format!("/usr:{}", programs.display()),
            ),
            ("CONDUCTOR_CONTAINER_IMAGE".into(), small_image(&system)),
            ("CONDUCTOR_MODEL_SILENCE".into(), SILENCE.into()),
        ];
        // One agent: a session goes on where it was, and nowhere else. Of every runtime in every
        // sandbox one holds its slot until it is cancelled: there are more slots than those.
        system.start_up(&["--agents", "1", "--slots", "24"]).await;
        let story = system.story().await;
        Self {
            system,
            story,
            script,
        }
    }

    /// Whether an agent offers the sandbox, or why none does.
    pub(super) async fn offers(&mut self, sandbox: &str) -> Result<(), String> {
        let agents = self.story.until("agents", |s| {
            let agents: Vec<_> = s
                .state()
                .agents
                .values()
                .map(|a| a.joined.clone())
                .collect();
            (!agents.is_empty()).then_some(agents)
        });
        let agents = agents.await;
        let offered = agents.iter().flat_map(|a| a.sandboxes.keys());
        let names: Vec<&str> = offered.map(|kind| kind.as_str()).collect();
        if names.contains(&sandbox) {
            return Ok(());
        }
        let said = self.system.process("up").said();
        let told = said
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let why = told
            .filter(|line| line["kind"] == sandbox)
            .find_map(|line| line["why"].as_str().map(str::to_owned));
        Err(why.unwrap_or_else(|| "no agent offers it".to_owned()))
    }

    pub(super) async fn submit(&self, pair: Pair, case: &Case) -> Option<TaskId> {
        let run = pair.kind.run(case, &self.script)?;
        let mut task = json!({"run": run, "name": case.name, "sandbox": pair.sandbox});
        match case.name {
            "resume after SIGKILL" | "transient then ok" => {
                task["retry"] =
                    json!({"max_attempts": 2, "backoff": "10ms", "on": ["crashed", "failed"]});
            }
            "stalled stream" if pair.kind == Kind::Command => {
                task["timeouts"] = json!({"run": "3s"});
            }
            _ => {}
        }
        Some(self.system.submit(task).await)
    }

    /// Waits for the end of a task, and says what is wrong with it.
    pub(super) async fn check(
        &mut self,
        pair: Pair,
        case: &Case,
        id: TaskId,
    ) -> Result<(), String> {
        let (_, of_model) = case.of_model;
        let expected = match (pair.kind, case.of_command) {
            (Kind::Command, Some((_, end))) => end,
            _ => of_model,
        };
        if expected == End::Cancelled {
            let is_begun = |s: &Story| s.find(id, "attempt.started");
            self.story.patiently("its beginning", is_begun).await;
            self.has_named(id, case.leaves).await;
            self.system
                .cli(&["task", "cancel", &id.to_string()])
                .await
                .ok();
        }
        let is_ended = |s: &Story| s.state().tasks.get(&id).filter(|t| t.is_final()).cloned();
        let task = self.story.patiently("its end", is_ended).await;
        let Phase::Ended(ended) = &task.phase else {
            return Err("it has not ended".into());
        };
        if !is_as(expected, ended) {
            return Err(format!(
                "expected {expected:?}, found {ended:?}; {}",
                self.failure(id)
            ));
        }
        if let End::Success(result) = expected {
            self.has_result(id, result)?;
        }
        self.knows_its_runtime(pair.kind, id)?;
        self.has_named(id, case.leaves).await;
        nothing_is_left_of(id).await;
        self.in_time(case, id)
    }

    /// Waits until it has named so many processes that it started; how they are numbered is its
    /// sandbox's business.
    async fn has_named(&self, id: TaskId, count: usize) {
        if count == 0 {
            return;
        }
        until_asked(async || {
            let logs = self.system.cli(&["task", "logs", &id.to_string()]).await;
            let named = logs.stdout.lines().filter(|l| l.starts_with("pid "));
            let named = named.count();
            if named == count {
                Ok(())
            } else {
                let said = logs.stdout;
                Err(format!("{count} processes of {id}, not {named} in {said}"))
            }
        })
        .await;
    }

    /// Waits until a task has failed: the class and message of its attempt.
    pub(super) async fn failed(&mut self, id: TaskId) -> (OutcomeClass, String) {
        match self.story.told(id, "attempt.failed").await.event {
            Some(Event::AttemptFailed(e)) => (e.class, e.message),
            other => panic!("{other:?}"),
        }
    }

    /// Why it failed, in its own words.
    fn failure(&self, id: TaskId) -> String {
        match self.story.find(id, "attempt.failed").and_then(|t| t.event) {
            Some(Event::AttemptFailed(e)) => format!("{}: {}", e.class, e.message),
            _ => "no attempt failed".into(),
        }
    }

    fn has_result(&self, id: TaskId, expected: &str) -> Result<(), String> {
        let event = self
            .story
            .find(id, "attempt.succeeded")
            .and_then(|t| t.event);
        let Some(Event::AttemptSucceeded(e)) = event else {
            return Err("it did not succeed".into());
        };
        let result = e.result.unwrap_or_default();
        // A plain program's result is the end of all it said.
        let fits = result
            .lines()
            .last()
            .is_some_and(|l| l.starts_with(expected));
        if fits {
            Ok(())
        } else {
            let end: String = result.chars().rev().take(80).collect();
            Err(format!(
                "its result is …{}",
                end.chars().rev().collect::<String>()
            ))
        }
    }

    /// Agents of models have versions and sessions, and what they used is known.
    fn knows_its_runtime(&self, kind: Kind, id: TaskId) -> Result<(), String> {
        let Some(version) = kind.version() else {
            return Ok(());
        };
        let event = self.story.find(id, "attempt.started").and_then(|t| t.event);
        let Some(Event::AttemptStarted(started)) = event else {
            return Err("it never began".into());
        };
        if started.version.as_deref() != Some(version) {
            return Err(format!("its version is {:?}", started.version));
        }
        let usage = self
            .story
            .state()
            .tasks
            .get(&id)
            .and_then(|t| t.aside.usage.clone());
        match usage.and_then(|u| u.session).or(started.session) {
            Some(_) => Ok(()),
            None => Err("its session is not known".into()),
        }
    }

    fn in_time(&self, case: &Case, id: TaskId) -> Result<(), String> {
        let at = |kind| self.story.find(id, kind).map(|t| t.time_ms);
        let (Some(from), Some(to)) = (at("attempt.started"), at("attempt.failed")) else {
            return Ok(());
        };
        let took = to.saturating_sub(from);
        if case.name == "stalled stream" && took > STALLED_MS_MAX {
            return Err(format!("it was ended after {took} ms"));
        }
        Ok(())
    }
}

/// Waits until no process of the machine has the environment of that task.
async fn nothing_is_left_of(id: TaskId) {
    let marker = format!("CONDUCTOR_TASK={id}");
    until(|| {
        let processes = std::fs::read_dir("/proc").expect("there is /proc");
        let is_its = |process: &std::fs::DirEntry| {
            let environ = std::fs::read(process.path().join("environ")).unwrap_or_default();
            let mut environ = environ.split(|b| *b == 0);
            environ.any(|v| v == marker.as_bytes())
        };
        let left: Vec<_> = processes.flatten().filter(is_its).collect();
        if left.is_empty() {
            Ok(())
        } else {
            Err(format!("the end of {left:?}"))
        }
    })
    .await;
}

fn is_as(expected: End, ended: &Ended) -> bool {
    match expected {
        End::Success(_) => ended.outcome == Outcome::Succeeded,
        End::Cancelled => ended.outcome == Outcome::Cancelled,
        End::Failure(OutcomeClass::Timeout) => ended.outcome == Outcome::TimedOut,
        End::Failure(class) => ended.outcome == Outcome::Failed && ended.class == Some(class),
    }
}
