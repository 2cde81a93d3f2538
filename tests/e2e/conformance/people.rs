//! Agents of the Agent Client Protocol and people: what they ask, and what they are told.

use std::path::Path;

use conductor_domain::state::{Outcome, Phase};
use conductor_harness::Story;
use conductor_protocol::event::Event;
use conductor_protocol::{OutcomeClass, TaskId};
use serde_json::{Value, json};

use super::fakes::Fakes;
use super::pairs::Kind;

impl Fakes {
    /// Submits a task whose agent asks people before it uses tools.
    async fn asking(&self, case: &str) -> TaskId {
        self.asking_as(Kind::Acp, case, json!({})).await
    }

    /// The same of another runtime, with further fields.
    async fn asking_as(&self, kind: Kind, case: &str, fields: Value) -> TaskId {
        let prompt = format!("please [[{case}]]");
        let run = match kind {
            Kind::Claude => json!({"claude": {"prompt": prompt}}),
            _ => json!({"acp": {"argv": [self.script, "acp"], "prompt": prompt}}),
        };
        let mut task = json!({"run": run, "approvals": {"tools": true}});
        for (field, value) in fields.as_object().unwrap() {
            task[field] = value.clone();
        }
        self.system.submit(task).await
    }

    /// Waits until a task asks something that nobody has answered: its number.
    async fn asks(&mut self, id: TaskId) -> u32 {
        let is_asked = |s: &Story| {
            let approvals = &s.state().tasks.get(&id)?.aside.approvals;
            let open = approvals.iter().find(|(_, a)| a.is_open());
            open.map(|(number, _)| *number)
        };
        self.story.until("a question", is_asked).await
    }

    async fn cli(&self, args: &[&str]) {
        self.system.cli(args).await.ok();
    }

    /// What people are asked now.
    async fn questions(&self) -> Value {
        self.system.cli(&["approvals", "-o", "json"]).await.json()
    }

    /// How a task ended, and its result.
    async fn end(&mut self, id: TaskId) -> (Outcome, Option<OutcomeClass>, String) {
        let task = self.story.ended(id).await;
        let Phase::Ended(ended) = &task.phase else {
            panic!("{task:?}")
        };
        let told = |kind| self.story.find(id, kind).and_then(|t| t.event);
        let result = match (told("attempt.succeeded"), told("attempt.failed")) {
            (Some(Event::AttemptSucceeded(e)), _) => e.result,
            (_, Some(Event::AttemptFailed(e))) => e.result,
            other => panic!("{other:?}"),
        };
        let result = result.unwrap_or_default().trim().to_owned();
        (ended.outcome, ended.class, result)
    }
}

#[tokio::test]
async fn an_acp_agent_uses_a_tool_once_somebody_allows_it() {
    let mut fakes = Fakes::up().await;
    let (yes, no) = (fakes.asking("consent").await, fakes.asking("consent").await);
    for id in [yes, no] {
        assert_eq!(fakes.asks(id).await, 1);
    }
    let asked = fakes.questions().await;
    assert_eq!(asked.as_array().unwrap().len(), 2, "{asked:#}");
    assert_eq!(asked[0]["question"], "tool");
    assert_eq!(asked[0]["summary"], "Bash: make install");
    let (yes_id, no_id) = (yes.to_string(), no.to_string());
    fakes.cli(&["approvals", "approve", &yes_id]).await;
    fakes.cli(&["approvals", "deny", &no_id]).await;
    let allowed = (Outcome::Succeeded, None, "it was allowed".to_owned());
    assert_eq!(fakes.end(yes).await, allowed);
    let class = Some(OutcomeClass::Denied);
    let denied = (Outcome::Failed, class, "it was not allowed".to_owned());
    assert_eq!(fakes.end(no).await, denied);
    fakes.system.assert_replay_agrees().await;
}

#[tokio::test]
async fn what_somebody_says_to_an_acp_agent_is_its_next_turn() {
    let mut fakes = Fakes::up().await;
    let id = fakes.asking("turns").await;
    // Its turn cannot end before that is answered.
    fakes.asks(id).await;
    let task = id.to_string();
    fakes.cli(&["task", "tell", &task, "mind the tests"]).await;
    fakes.story.told(id, "attempt.told").await;
    fakes.cli(&["approvals", "approve", &task]).await;
    let heard = "heard: mind the tests".to_owned();
    assert_eq!(fakes.end(id).await, (Outcome::Succeeded, None, heard));
    let state = fakes.story.state();
    let usage = state.tasks[&id].aside.usage.as_ref().unwrap();
    assert_eq!((usage.turns, usage.input_tokens), (2, 20));
}

/// What a program asks no longer is open for nobody: neither until it expires, nor for an answer.
#[tokio::test]
async fn a_question_that_a_program_takes_back_closes() {
    let mut fakes = Fakes::up().await;
    for kind in [Kind::Claude, Kind::Acp] {
        let id = fakes.asking_as(kind, "takeback", json!({})).await;
        fakes.story.told(id, "approval.withdrawn").await;
        assert_eq!(fakes.asks(id).await, 2, "{kind:?}");
        let asked = fakes.questions().await;
        let numbers: Vec<&Value> = asked.as_array().unwrap().iter().collect();
        assert_eq!(numbers.len(), 1, "{asked:#}");
        assert_eq!(numbers[0]["number"], 2, "{asked:#}");
        let task = id.to_string();
        let late = ["approvals", "approve", &task, "1"];
        let late = fakes.system.cli(&late).await;
        assert!(late.stderr.contains("asks no such question"), "{late:?}");
        fakes.cli(&["approvals", "approve", &task, "2"]).await;
        let allowed = (Outcome::Succeeded, None, "it was allowed".to_owned());
        assert_eq!(fakes.end(id).await, allowed, "{kind:?}");
    }
    fakes.system.assert_replay_agrees().await;
}

/// Its program is gone, but checks go on: nobody waits for what it asked.
#[tokio::test]
async fn a_question_of_a_program_that_has_ended_closes() {
    let mut fakes = Fakes::up().await;
    // Seen from within every sandbox.
    let go = Path::new(&fakes.script).with_file_name("go");
    let wait = format!("until [ -e {} ]; do sleep 0.1; done", go.display());
    let checks = json!({"checks": [["sh", "-c", wait]]});
    let id = fakes.asking_as(Kind::Claude, "leaves", checks).await;
    fakes.story.told(id, "approval.withdrawn").await;
    assert_eq!(fakes.questions().await, json!([]));
    let phase = |s: &Story| s.state().tasks.get(&id).map(|t| t.state_name());
    assert_eq!(phase(&fakes.story), Some("running"));
    std::fs::write(&go, "").unwrap();
    let done = (Outcome::Succeeded, None, "without an answer".to_owned());
    assert_eq!(fakes.end(id).await, done);
}
