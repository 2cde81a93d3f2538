//! Budgets of namespaces that are used up: what waits, who is asked, and what fails. The model is a
//! program that says it took one turn and half a dollar.

use conductor_domain::Verdict;
use conductor_domain::state::{Outcome, Phase};
use conductor_harness::system::sh;
use conductor_harness::{Story, System, away_from_midnight, binary};
use conductor_protocol::control::OnReached;
use conductor_protocol::event::{BudgetReached, Event};
use conductor_protocol::{OutcomeClass, TaskId};
use serde_json::{Value, json};

/// The program that plays a model's.
const SCRIPT: &str = "tests/e2e/conformance/fake-agent.py";

struct Spending {
    system: System,
    story: Story,
}

impl Spending {
    /// A system with one agent, whose namespace `team` may take one turn a day.
    async fn up(on_reached: &str) -> Self {
        away_from_midnight().await;
        let mut system = System::bare().await;
        let program = system.dir.path().join("claude");
        std::fs::copy(binary::workspace().join(SCRIPT), &program).unwrap();
        let program = program.display().to_string();
        system.env = vec![("CONDUCTOR_CLAUDE_BIN".into(), program)];
        system.start_up(&["--agents", "1"]).await;
        let budget = json!({"turns_per_day": 1, "on_reached": on_reached});
        let change = json!({"namespace_budget": {"team": budget}}).to_string();
        system.cli(&["config", "put", &change]).await.ok();
        let story = system.story().await;
        Self { system, story }
    }

    /// A task of the namespace that takes a turn.
    async fn submit(&self) -> TaskId {
        let run = json!({"claude": {"prompt": "[[ok]]"}});
        let task = json!({"run": run, "namespace": "team", "sandbox": "none"});
        self.system.submit(task).await
    }

    /// The same, once it waits.
    async fn waits(&mut self) -> TaskId {
        let id = self.submit().await;
        let is_ready = |s: &Story| {
            let task = s.state().tasks.get(&id)?;
            matches!(task.phase, Phase::Ready { .. }).then_some(())
        };
        self.story.until("a task that waits", is_ready).await;
        id
    }

    /// Waits until it is said for the how-manieth time that the budget is used up.
    async fn reached(&mut self, time: usize) -> BudgetReached {
        let said = |s: &Story| {
            let counted = s.told.iter().filter(|t| t.verdict == Verdict::Applied);
            let mut said = counted.filter_map(|t| match &t.event {
                Some(Event::BudgetReached(e)) => Some(e.clone()),
                _ => None,
            });
            said.nth(time - 1)
        };
        self.story.until("a budget that is used up", said).await
    }

    async fn end(&mut self, id: TaskId) -> (Outcome, Option<OutcomeClass>) {
        let task = self.story.ended(id).await;
        let Phase::Ended(ended) = &task.phase else {
            unreachable!()
        };
        (ended.outcome, ended.class)
    }

    /// Why a task failed, as the log says.
    fn reason(&self, id: TaskId) -> String {
        match self.story.find(id, "task.failed").unwrap().event {
            Some(Event::TaskFailed(e)) => e.reason,
            other => panic!("{other:?}"),
        }
    }

    /// What people are asked.
    async fn asked(&self) -> Vec<Value> {
        let list = self.system.cli(&["approvals", "-o", "json"]).await.json();
        list.as_array().unwrap().clone()
    }
}

const SUCCEEDED: (Outcome, Option<OutcomeClass>) = (Outcome::Succeeded, None);
const FAILED: (Outcome, Option<OutcomeClass>) = (Outcome::Failed, Some(OutcomeClass::Budget));

#[tokio::test]
async fn people_are_asked_whether_a_namespace_may_spend_as_much_again() {
    let mut it = Spending::up("ask").await;
    let first = it.submit().await;
    assert_eq!(it.end(first).await, SUCCEEDED, "{}", it.story.text());
    let said = it.reached(1).await;
    assert_eq!((said.spent.turns, said.limit.turns), (1, Some(1)));
    assert_eq!(said.on_reached, OnReached::Ask);
    let second = it.waits().await;
    let why = it.system.cli(&["why", &second.to_string()]).await.ok();
    assert!(
        why.contains("(1 of 1 turns); people are asked")
            && why.contains("conductor approvals approve --namespace team"),
        "{why}"
    );
    let asked = it.asked().await;
    assert_eq!(asked.len(), 1, "{asked:?}");
    assert_eq!(asked[0]["task"], Value::Null);
    assert_eq!(asked[0]["namespace"], "team");
    assert_eq!(asked[0]["question"], "budget");
    assert_eq!(asked[0]["default"], "wait");
    let expires = asked[0]["expires"].as_str().unwrap();
    assert!(expires.ends_with("T00:00:00.000Z"), "{expires}");
    let table = it.system.cli(&["approvals"]).await.ok();
    assert!(
        table.contains("namespace team has used up its budget of the day (1 of 1 turns)"),
        "{table}"
    );
    let yes = ["approvals", "approve", "--namespace", "team"];
    it.system.cli(&yes).await.ok();
    assert_eq!(it.end(second).await, SUCCEEDED, "{}", it.story.text());
    // As much again, and no more: that is asked anew.
    let said = it.reached(2).await;
    assert_eq!((said.spent.turns, said.limit.turns), (2, Some(2)));
    let third = it.waits().await;
    assert_eq!(it.asked().await.len(), 1);
    let no = [
        "approvals",
        "deny",
        "--namespace",
        "team",
        "--text",
        "enough",
    ];
    it.system.cli(&no).await.ok();
    assert_eq!(it.end(third).await, FAILED, "{}", it.story.text());
    let reason = it.reason(third);
    assert!(
        reason.contains("(2 of 2 turns), and was not allowed as much again (\"enough\")"),
        "{reason}"
    );
    assert_eq!(it.asked().await, Vec::<Value>::new());
    let again = it.system.cli(&yes).await;
    assert_eq!(again.code, 5, "{again:?}");
    assert!(
        again.stderr.contains("was denied more for today"),
        "{again:?}"
    );
    it.system.assert_replay_agrees().await;
}

#[tokio::test]
async fn tasks_fail_where_a_budget_says_so() {
    let mut it = Spending::up("fail").await;
    let first = it.submit().await;
    assert_eq!(it.end(first).await, SUCCEEDED, "{}", it.story.text());
    assert_eq!(it.reached(1).await.on_reached, OnReached::Fail);
    let second = it.submit().await;
    assert_eq!(it.end(second).await, FAILED, "{}", it.story.text());
    let reason = it.reason(second);
    assert!(
        reason.contains("namespace team has used up its budget of the day (1 of 1 turns)"),
        "{reason}"
    );
    // What needs no model goes on.
    let mut program = sh("true");
    program["namespace"] = "team".into();
    let program = it.system.submit(program).await;
    assert_eq!(it.end(program).await, SUCCEEDED);
    let asking = ["approvals", "approve", "--namespace", "team"];
    let nobody = it.system.cli(&asking).await;
    assert_eq!(nobody.code, 5, "{nobody:?}");
    assert!(nobody.stderr.contains("nobody is asked"), "{nobody:?}");
    let shown = it.system.cli(&["config", "get", "-o", "json"]).await.json();
    assert_eq!(shown["namespace_budget"]["team"]["on_reached"], "fail");
    // A higher budget counts at once, for what comes.
    let higher = r#"{"namespace_budget": {"team": {"turns_per_day": 2}}}"#;
    it.system.cli(&["config", "put", higher]).await.ok();
    let third = it.submit().await;
    assert_eq!(it.end(third).await, SUCCEEDED, "{}", it.story.text());
    assert_eq!(it.reached(2).await.on_reached, OnReached::Wait);
    it.system.assert_replay_agrees().await;
}

#[tokio::test]
async fn a_budget_that_makes_no_sense_says_what_would() {
    let system = System::up().await;
    let wrong = r#"{"namespace_budget": {"team": {"usd_per_day": 1, "on_reached": "stop"}}}"#;
    let refused = system.cli(&["config", "put", wrong]).await;
    assert_eq!(refused.code, 2, "{refused:?}");
    assert!(
        refused.stderr.contains("namespace_budget.team.on_reached")
            && refused.stderr.contains("`wait`, `fail`, `ask`"),
        "{refused:?}"
    );
    let refused = system.cli(&["approvals", "approve"]).await;
    assert_eq!(refused.code, 2, "{refused:?}");
    assert!(refused.stderr.contains("<TASK>"), "{refused:?}");
    let both = ["approvals", "approve", "t", "--namespace", "team"];
    assert_eq!(system.cli(&both).await.code, 2);
    let impossible = ["approvals", "deny", "--namespace", "a b"];
    let refused = system.cli(&impossible).await;
    assert_eq!(refused.code, 2, "{refused:?}");
    assert!(refused.stderr.contains("--namespace"), "{refused:?}");
}
