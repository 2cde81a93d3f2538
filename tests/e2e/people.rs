//! People in the loop: what attempts ask them, what they answer, and what they say besides.

use std::time::Duration;

use conductor_domain::state::{Outcome, Phase, Task};
use conductor_harness::system::sh;
use conductor_harness::{Story, System, until};
use conductor_protocol::event::Event;
use conductor_protocol::terms::Answer;
use conductor_protocol::{OutcomeClass, TaskId};
use serde_json::{Value, json};

use super::claude;
use crate::model_api::ModelApi;

/// The number of the question that a task asks, once it asks one that nobody has answered.
pub(crate) async fn asks(story: &mut Story, id: TaskId) -> u32 {
    story
        .until(&format!("a question of {id}"), |s| {
            let approvals = &s.state().tasks.get(&id)?.aside.approvals;
            let open = approvals.iter().find(|(_, a)| a.is_open());
            open.map(|(number, _)| *number)
        })
        .await
}

/// How a task ended.
async fn end(story: &mut Story, id: TaskId) -> (Outcome, Option<OutcomeClass>, Box<Task>) {
    let task = story.ended(id).await;
    let Phase::Ended(ended) = &task.phase else {
        unreachable!()
    };
    (ended.outcome, ended.class, task)
}

/// A program whose result somebody has to accept.
fn to_accept(script: &str, expires: &str) -> Value {
    let mut task = sh(script);
    task["approvals"] = json!({"acceptance": true, "expires": expires});
    task
}

#[tokio::test]
async fn a_result_counts_once_somebody_accepts_it() {
    let system = System::up().await;
    let mut story = system.story().await;
    let good = system.submit(to_accept("echo fine", "1h")).await;
    let bad = system.submit(to_accept("echo wrong", "1h")).await;
    asks(&mut story, good).await;
    asks(&mut story, bad).await;
    let list = system.cli(&["approvals", "-o", "json"]).await.json();
    let list = list.as_array().unwrap();
    assert_eq!(list.len(), 2, "{list:#?}");
    assert!(
        list.iter().all(|q| q["question"] == "acceptance"
            && q["number"] == 1
            && q["summary"]
                .as_str()
                .unwrap()
                .starts_with("accept its result?")),
        "{list:#?}"
    );
    let why = system.cli(&["why", &good.to_string()]).await.ok();
    assert!(
        why.contains("waits for somebody to answer its question 1"),
        "{why}"
    );
    let states = system.cli(&["task", "list", "--state", "awaiting_approval", "-o", "json"]);
    assert_eq!(states.await.json().as_array().unwrap().len(), 2);
    let (good_id, bad_id) = (good.to_string(), bad.to_string());
    system.cli(&["approvals", "approve", &good_id]).await.ok();
    let why = ["approvals", "deny", &bad_id, "1", "--text", "it says wrong"];
    system.cli(&why).await.ok();
    assert_eq!(end(&mut story, good).await.0, Outcome::Succeeded);
    let (outcome, class, _) = end(&mut story, bad).await;
    let denied = (Outcome::Failed, Some(OutcomeClass::Denied));
    assert_eq!((outcome, class), denied);
    let Some(Event::AttemptFailed(e)) = story.find(bad, "attempt.failed").unwrap().event else {
        panic!("it failed")
    };
    assert_eq!(e.message, "its result was not accepted: it says wrong");
    assert_eq!(
        e.result.as_deref(),
        Some("wrong"),
        "what was not accepted is kept"
    );
    let twice = system.cli(&["approvals", "approve", &good_id, "1"]).await;
    assert!(
        twice.stderr.contains("the task has ended"),
        "{}",
        twice.stderr
    );
    system.assert_replay_agrees().await;
}

#[tokio::test]
async fn a_question_that_nobody_answers_expires_with_its_default() {
    let system = System::up().await;
    let mut story = system.story().await;
    let denied = system.submit(to_accept("echo x", "1s")).await;
    let mut by_default = to_accept("echo x", "1s");
    by_default["approvals"]["default"] = "allow".into();
    let allowed = system.submit(by_default).await;
    assert_eq!(end(&mut story, denied).await.1, Some(OutcomeClass::Denied));
    assert_eq!(end(&mut story, allowed).await.0, Outcome::Succeeded);
    let Some(Event::ApprovalDecided(e)) = story.find(denied, "approval.decided").unwrap().event
    else {
        panic!("it was decided")
    };
    assert_eq!((e.answer, e.control), (Answer::Deny, None));
}

/// Those who decide and tell may die while somebody thinks: nothing is asked twice, and the
/// answer arrives once.
#[tokio::test]
async fn an_open_question_outlives_orchestrator_and_scheduler() {
    let mut system = System::split().await;
    let mut story = system.story().await;
    let id = system.submit(to_accept("echo fine", "1h")).await;
    asks(&mut story, id).await;
    for role in ["orchestrator", "scheduler"] {
        system.process(role).kill9();
    }
    // Answered while nobody is there to decide.
    let decide = conductor_protocol::Control::Decide {
        task: id,
        approval: 1,
        answer: Answer::Allow,
        text: None,
    };
    system.control(&decide).await;
    for role in ["orchestrator", "scheduler"] {
        system.start_role(role, role);
    }
    assert_eq!(end(&mut story, id).await.0, Outcome::Succeeded);
    let kinds = story.kinds(id);
    let of = |kind: &str| kinds.iter().filter(|k| **k == kind).count();
    let counted = ["approval.requested", "approval.decided", "attempt.told"].map(of);
    assert_eq!(counted, [1, 1, 1], "{kinds:?}");
    assert_eq!(story.state().tasks[&id].attempts, 1);
    system.assert_replay_agrees().await;
}

/// Waiting for people takes nothing from the time that a task may run.
#[tokio::test]
async fn the_run_timeout_does_not_count_while_somebody_is_asked() {
    let system = System::up().await;
    let mut story = system.story().await;
    let mut task = to_accept("echo fine", "1h");
    task["timeouts"] = json!({"run": "2s"});
    let id = system.submit(task).await;
    asks(&mut story, id).await;
    // Longer than it may run, and than the orchestrator adds to that before it steps in.
    tokio::time::sleep(Duration::from_secs(13)).await;
    system
        .cli(&["approvals", "approve", &id.to_string()])
        .await
        .ok();
    let (outcome, _, task) = end(&mut story, id).await;
    assert_eq!(outcome, Outcome::Succeeded, "{}", story.text());
    assert_eq!(task.attempts, 1);
}

#[tokio::test]
async fn what_cannot_be_told_or_answered_says_so() {
    let system = System::up().await;
    let mut story = system.story().await;
    let id = system.submit(sh("sleep 30")).await;
    story.told(id, "attempt.started").await;
    let id = id.to_string();
    let tell = system.cli(&["task", "tell", &id, "be quick"]).await;
    assert!(
        tell.stderr
            .contains("a task of runtime command cannot be told"),
        "{}",
        tell.stderr
    );
    let answer = system.cli(&["approvals", "approve", &id]).await;
    assert!(answer.stderr.contains("asks nothing"), "{}", answer.stderr);
    let answer = system.cli(&["approvals", "approve", &id, "7"]).await;
    assert!(
        answer.stderr.contains("asks no such question"),
        "{}",
        answer.stderr
    );
    let long = "x".repeat(5_000);
    let tell = system.cli(&["task", "tell", &id, &long]).await;
    assert!(tell.stderr.contains("5000 bytes"), "{}", tell.stderr);
}

/// The real CLI, its model wanting to write a file outside of its workspace.
struct Asking {
    system: System,
    story: Story,
    api: ModelApi,
}

impl Asking {
    async fn up() -> Option<Self> {
        let (mut system, api) = claude::system().await?;
        system.start_up(&[]).await;
        let story = system.story().await;
        Some(Self { system, story, api })
    }

    async fn submit(&self, approvals: Value, more: Value) -> TaskId {
        let claude = json!({"prompt": "[[write]] a file"});
        let mut task = json!({"run": {"claude": claude}, "approvals": approvals});
        for (field, value) in more.as_object().unwrap() {
            task[field] = value.clone();
        }
        self.system.submit(task).await
    }

    /// Whether its file was written.
    fn has_written(&self) -> bool {
        self.system.dir.path().join("hello.txt").exists()
    }
}

#[tokio::test]
async fn a_tool_is_used_once_somebody_allows_it() {
    let Some(mut it) = Asking::up().await else {
        return;
    };
    let id = it.submit(json!({"tools": true}), json!({})).await;
    asks(&mut it.story, id).await;
    let list = it
        .system
        .cli(&["approvals", "list", "-o", "json"])
        .await
        .json();
    assert_eq!(list[0]["question"], "tool");
    let summary = list[0]["summary"].as_str().unwrap();
    assert!(
        summary.starts_with("Write: ") && summary.contains("hello.txt"),
        "{summary}"
    );
    assert!(!it.has_written());
    it.system
        .cli(&["approvals", "approve", &id.to_string()])
        .await
        .ok();
    let (outcome, class, _) = end(&mut it.story, id).await;
    assert_eq!((outcome, class), (Outcome::Succeeded, None));
    assert!(it.has_written());
    // What it said, which tools it used, and, for those who ask, what it thought.
    let logs = |channels: &'static str| {
        let (system, id) = (&it.system, id.to_string());
        async move {
            let args = ["task", "logs", &id, "--channels", channels];
            system.cli(&args).await.ok()
        }
    };
    let text = logs("text").await;
    assert!(
        text.contains("All done") && !text.contains("[Write"),
        "{text}"
    );
    assert!(logs("tools").await.contains("[Write"));
    assert!(logs("thinking").await.contains("I should write the file."));
    let usual = it.system.cli(&["task", "logs", &id.to_string()]).await.ok();
    assert!(
        usual.contains("[Write") && !usual.contains("I should write"),
        "{usual}"
    );
}

#[tokio::test]
async fn a_tool_that_somebody_denies_or_nobody_allows_is_not_used() {
    let Some(mut it) = Asking::up().await else {
        return;
    };
    let id = it.submit(json!({"tools": true}), json!({})).await;
    let expired = it.submit(json!({"tools": true, "expires": "1s"}), json!({}));
    let expired = expired.await;
    asks(&mut it.story, id).await;
    let deny = ["approvals", "deny", &id.to_string(), "--text", "not there"];
    it.system.cli(&deny).await.ok();
    for id in [id, expired] {
        let (outcome, class, _) = end(&mut it.story, id).await;
        let denied = (Outcome::Failed, Some(OutcomeClass::Denied));
        assert_eq!((outcome, class), denied);
    }
    assert!(!it.has_written());
    let requests = std::fs::read_to_string(&it.api.log).unwrap();
    assert!(requests.contains("not there"), "the model was told why");
    let Some(Event::ApprovalDecided(e)) = it.story.find(expired, "approval.decided").unwrap().event
    else {
        panic!("it was decided")
    };
    assert_eq!((e.answer, e.control), (Answer::Deny, None));
}

#[tokio::test]
async fn what_somebody_says_reaches_the_models_next_turn() {
    let Some(mut it) = Asking::up().await else {
        return;
    };
    let id = it.submit(json!({"tools": true}), json!({})).await;
    asks(&mut it.story, id).await;
    let task = id.to_string();
    it.system
        .cli(&["task", "tell", &task, "mind the tests"])
        .await
        .ok();
    it.story.told(id, "attempt.told").await;
    it.system.cli(&["approvals", "approve", &task]).await.ok();
    assert_eq!(end(&mut it.story, id).await.0, Outcome::Succeeded);
    let log = it.api.log.clone();
    let heard = |request: &Value| {
        request["body"]["messages"]
            .to_string()
            .contains("mind the tests")
    };
    until(|| {
        let text = std::fs::read_to_string(&log).unwrap();
        let requests = text.lines().filter_map(|l| serde_json::from_str(l).ok());
        match requests.filter(heard).count() {
            0 => Err("no turn with what was said".to_owned()),
            n => Ok(n),
        }
    })
    .await;
    // It was answered after it was told, and the first turn came before both.
    let kinds = it.story.kinds(id);
    assert_eq!(kinds.iter().filter(|k| **k == "attempt.told").count(), 2);
}

/// A cancelled session is interrupted by its own protocol, and leaves a result with its cost.
#[tokio::test]
async fn a_question_of_a_cancelled_task_ends_with_it() {
    let Some(mut it) = Asking::up().await else {
        return;
    };
    let id = it.submit(json!({"tools": true}), json!({})).await;
    asks(&mut it.story, id).await;
    let task = id.to_string();
    it.system.cli(&["task", "cancel", &task]).await.ok();
    assert_eq!(it.story.outcome(id).await, Outcome::Cancelled);
    it.story.told(id, "attempt.stopped").await;
    let list = it.system.cli(&["approvals", "-o", "json"]).await.json();
    assert_eq!(list, json!([]));
    assert!(!it.has_written());
}

/// A budget that is used up asks, where the task says so: yes is as much again, no is the end.
#[tokio::test]
async fn a_budget_that_is_used_up_asks_before_it_ends_the_attempt() {
    let Some(mut it) = Asking::up().await else {
        return;
    };
    let claude = json!({"prompt": "[[loop]]", "allowed_tools": ["Bash"]});
    let budget = json!({"turns": 2, "on_reached": "ask"});
    let task = json!({"run": {"claude": claude}, "budget": budget});
    let id = it.system.submit(task).await;
    assert_eq!(asks(&mut it.story, id).await, 1);
    let list = it.system.cli(&["approvals", "-o", "json"]).await.json();
    assert_eq!(list[0]["question"], "budget", "{list:#}");
    let task = id.to_string();
    it.system
        .cli(&["approvals", "approve", &task, "1"])
        .await
        .ok();
    // As much again, and no more.
    let asks_again = |s: &Story| {
        let approvals = &s.state().tasks.get(&id)?.aside.approvals;
        approvals.get(&2).filter(|a| a.is_open()).map(|_| ())
    };
    it.story.until("the next question", asks_again).await;
    it.system.cli(&["approvals", "deny", &task, "2"]).await.ok();
    let (outcome, class, task) = end(&mut it.story, id).await;
    let ended = (Outcome::Failed, Some(OutcomeClass::Budget));
    assert_eq!((outcome, class), ended);
    let turns = task.aside.usage.as_ref().map(|u| u.turns);
    assert_eq!(turns, Some(4), "{:?}", task.aside.usage);
}
