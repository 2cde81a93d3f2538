//! Tasks that a task's attempt submits by its tools: from inside its sandbox to their results.

use conductor_domain::state::Outcome;
use conductor_harness::{Story, System};
use conductor_protocol::TaskId;
use conductor_protocol::event::Event;
use serde_json::{Value, json};

use crate::tools::{program, result};

/// Submits what it is told to, and says what became of it.
const PARENT: &str = "
def end(task):
    while True:
        state = call('get_task', task=task, wait_seconds=20)
        if state['is_final']:
            return state

first = call('create_subtask', task={'run': {'command': ['sh', '-c', 'echo one']}, 'name': 'first', 'key': 'k'})
one = end(first['task'])
again = call('create_subtask', task={'run': {'command': ['sh', '-c', 'echo two']}, 'key': 'k'})
second = call('create_subtask', task={
    'run': {'command': ['sh', '-c', 'exit 3']},
    'needs': [first['task']], 'retry': {'max_attempts': 1},
})
two = end(second['task'])
call('complete', summary='s', structured={
    'first': first, 'one': one, 'again': again, 'two': two,
})
";

#[tokio::test]
async fn a_program_submits_tasks_and_learns_how_they_ended() {
    let (system, mut story) = up().await;
    let task = json!({
        "run": program(PARENT), "sandbox": {"kind": "landlock"}, "namespace": "team", "priority": 7,
        "subtasks": {"max": 2}, "timeouts": {"run": "5m"},
    });
    let id = system.submit(task).await;
    let said: Value = serde_json::from_str(&result(&mut story, id).await).unwrap();
    assert_eq!(said["one"]["state"], "succeeded", "{said}");
    assert_eq!(said["one"]["result"], "one", "{said}");
    assert_eq!(said["again"]["task"], said["first"]["task"], "the same key");
    assert_eq!(said["two"]["state"], "failed", "{said}");
    assert_eq!(said["two"]["failure"], "failed", "{said}");
    let child: TaskId = said["first"]["task"].as_str().unwrap().parse().unwrap();
    let Some(Event::AttemptStarted(started)) = story.find(child, "attempt.started").unwrap().event
    else {
        panic!("it started");
    };
    let boxed = started.sandbox.unwrap();
    assert_eq!(boxed.kind.as_str(), "landlock", "as its parent is");
    let shown = system
        .cli(&["task", "show", &id.to_string(), "-o", "json"])
        .await
        .json();
    assert_eq!(shown["subtasks"].as_array().unwrap().len(), 2, "{shown}");
    let shown = system
        .cli(&["task", "show", &child.to_string(), "-o", "json"])
        .await
        .json();
    assert_eq!(shown["parent"], json!(id));
    assert_eq!(
        (&shown["namespace"], &shown["priority"]),
        (&json!("team"), &json!(7))
    );
    system.assert_replay_agrees().await;
}

#[tokio::test]
async fn what_its_task_may_not_have_a_program_gets_by_no_subtask() {
    const SCRIPT: &str = "
refused = []
for task in [
    {'run': {'command': ['true']}, 'sandbox': 'none'},
    {'run': {'command': ['true']}, 'secrets': ['TOKEN']},
    {'run': {'command': ['true']}, 'queue': 'other'},
    {'run': {'command': ['true']}, 'workspace': {'git': {'url': '/srv/other.git'}}},
    {'run': {'command': ['true']}, 'needs': [FOREIGN]},
    {'run': {'command': ['true'], 'typo': 1}},
]:
    refused.append(problem('create_subtask', task=task))
for _ in range(2):
    refused.append(problem('create_subtask', task={'run': {'noop': {}}}))
foreign = problem('get_task', task=FOREIGN)
call('complete', summary='s', structured={'refused': refused, 'foreign': foreign})
";
    let (system, mut story) = up().await;
    let foreign = system.submit(json!({"run": {"noop": {}}})).await;
    let script = SCRIPT.replace("FOREIGN", &format!("'{foreign}'"));
    let task = json!({"run": program(&script), "subtasks": {"max": 1}});
    let id = system.submit(task).await;
    let said: Value = serde_json::from_str(&result(&mut story, id).await).unwrap();
    let refused = said["refused"].as_array().unwrap();
    for (problem, named) in refused.iter().zip([
        "sandbox",
        "secrets",
        "queue",
        "workspace.git.url",
        "needs[0]",
        "run",
    ]) {
        let problem = problem.as_str().unwrap();
        assert!(problem.contains(named), "{named}: {problem}");
    }
    assert_eq!(
        refused[6],
        Value::Null,
        "the one that it may submit: {said}"
    );
    assert!(refused[7].as_str().unwrap().contains("at most 1"), "{said}");
    assert!(
        said["foreign"].as_str().unwrap().contains("is no subtask"),
        "{said}"
    );
    // Where a task says nothing of subtasks there is no such tool.
    let none = json!({"run": program("call('complete', summary='s', structured=problem('create_subtask', task={}))")});
    let id = system.submit(none).await;
    let said = result(&mut story, id).await;
    assert!(said.contains("there is no such tool"), "{said}");
    system.assert_replay_agrees().await;
}

#[tokio::test]
async fn whoever_cancels_a_task_cancels_what_it_submitted() {
    const SCRIPT: &str = "
child = call('create_subtask', task={'run': {'command': ['sleep', '600']}})
open('child', 'w').write(child['task'])
__import__('time').sleep(600)
";
    let (system, mut story) = up().await;
    let id = system
        .submit(json!({"run": program(SCRIPT), "subtasks": {}}))
        .await;
    let child = |s: &Story| s.state().tasks.get(&id)?.aside.subtasks.first().copied();
    let child = story.until("its subtask", child).await;
    story
        .until("it runs", |s| {
            let is_running = s.state().tasks.get(&child)?.state_name() == "running";
            is_running.then_some(())
        })
        .await;
    system.cli(&["task", "cancel", &id.to_string()]).await.ok();
    for task in [id, child] {
        assert_eq!(story.outcome(task).await, Outcome::Cancelled);
    }
    system.assert_replay_agrees().await;
}

async fn up() -> (System, Story) {
    let mut system = System::bare().await;
    system.start_up(&["--sandbox", "none"]).await;
    let story = system.story().await;
    (system, story)
}
