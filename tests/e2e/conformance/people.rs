//! Agents of the Agent Client Protocol and people: what they ask, and what they are told.

use conductor_domain::state::{Outcome, Phase};
use conductor_harness::Story;
use conductor_protocol::event::Event;
use conductor_protocol::{OutcomeClass, TaskId};
use serde_json::{Value, json};

use super::fakes::Fakes;

impl Fakes {
    /// Submits a task whose agent asks people before it uses tools.
    async fn asking(&self, case: &str) -> TaskId {
        let acp = json!({"argv": [self.script, "acp"], "prompt": format!("please [[{case}]]")});
        let task = json!({"run": {"acp": acp}, "approvals": {"tools": true}});
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
