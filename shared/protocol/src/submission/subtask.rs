//! Tasks that attempts submit: what is true of any submission, and that none gets what its parent
//! has not.

use std::sync::Arc;

use super::Submission;
use super::resolve::{Context, Names, Resolved, resolve};
use crate::event::FieldError;
use crate::frame::Encoding;
use crate::ids::{CellId, Position, QueueName, TaskId, UnixMs};
use crate::spec::{RunSpec, TaskSpec};
use crate::terms::{Budget, OnReached, SandboxKind, SubtaskSpec, Terms, WorkspaceSpec};

/// The task whose attempt submits.
#[derive(Clone, Copy, Debug)]
pub struct Parent<'a> {
    /// Which.
    pub task: TaskId,
    /// What it is.
    pub spec: &'a TaskSpec,
    /// What its agent boxes in by where a task says nothing of that.
    pub sandbox: Option<SandboxKind>,
}

/// Reads what an attempt submitted at `at`, the JSON `body`; every wrong field otherwise.
pub fn resolve_subtask(
    cell: &CellId,
    at: Position,
    time_ms: UnixMs,
    parent: Parent<'_>,
    body: &str,
) -> Result<Resolved, Vec<FieldError>> {
    let (mut s, mut errors) = Submission::read(Encoding::Json, body.as_bytes());
    let mut rules = Rules {
        parent,
        terms: parent.spec.terms.as_deref(),
        errors: &mut errors,
    };
    rules.check(&mut s);
    let queue = s.queue.as_deref().map(QueueName::from_log);
    let context = Context {
        cell,
        seq: at.seq,
        time_ms,
        queue: queue.as_ref().unwrap_or(&parent.spec.queue),
        namespace: None,
        reply: None,
        traceparent: None,
    };
    let mut resolved = resolve(&context, at, s, errors, body.len(), &Names::new())?;
    let terms = resolved.spec.terms.take();
    let mut terms = terms.map_or_else(Terms::default, Arc::unwrap_or_clone);
    terms.parent = Some(parent.task);
    resolved.spec.terms = Some(Arc::new(terms));
    Ok(resolved)
}

/// What a parent allows.
struct Rules<'a> {
    parent: Parent<'a>,
    terms: Option<&'a Terms>,
    errors: &'a mut Vec<FieldError>,
}

impl Rules<'_> {
    /// Fills in what a subtask has of its parent, and refuses what the parent has not.
    fn check(&mut self, s: &mut Submission) {
        let Some(policy) = self.terms.and_then(|t| t.subtasks.clone()) else {
            self.wrong(
                "",
                "this task may submit none",
                "a task with `subtasks` among its terms",
            );
            return;
        };
        self.check_place(s, &policy);
        self.check_times(s);
        self.check_run(s, &policy);
        self.check_box(s);
        self.check_workspace(s.workspace.as_ref());
        self.check_budget(s, &policy);
        self.check_depth(s.subtasks.as_ref(), &policy);
    }

    fn wrong(&mut self, field: &str, problem: impl Into<String>, expected: impl Into<String>) {
        self.errors.push(FieldError::new(field, problem, expected));
    }

    /// Whose it is, where it waits, and who may run it.
    fn check_place(&mut self, s: &mut Submission, policy: &SubtaskSpec) {
        let spec = self.parent.spec;
        if s.id.take().is_some() {
            self.wrong("id", "is given", "none: give a key instead");
        }
        // A key is the parent's own: nobody else's task can be found by it.
        if let Some(key) = &mut s.key {
            *key = format!("{}/{key}", self.parent.task);
        }
        let own = spec.namespace.as_str();
        if let Some(other) = s.namespace.replace(own.to_owned()).filter(|n| n != own) {
            let problem = format!("is {other:?}");
            self.wrong(
                "namespace",
                problem,
                format!("the parent's, {own:?}, or none"),
            );
        }
        let queue = s
            .queue
            .clone()
            .filter(|q| !policy.allows_queue(&spec.queue, q));
        if let Some(queue) = queue {
            let mut allowed = policy.queues.clone();
            allowed.insert(0, spec.queue.to_string());
            let allowed = format!("one of {}", allowed.join(", "));
            self.wrong("queue", format!("is {queue:?}"), allowed);
        }
        let priority = *s.priority.get_or_insert(spec.priority);
        if priority > spec.priority {
            let most = format!("the parent's, {}, or less", spec.priority);
            self.wrong("priority", format!("is {priority}"), most);
        }
        if let Some(slots) = s.slots.filter(|n| *n > spec.slots) {
            let most = format!("the parent's, {}, or less", spec.slots);
            self.wrong("slots", format!("is {slots}"), most);
        }
        if s.concurrency.is_some() {
            self.wrong("concurrency", "is given", "none");
        }
        // What keeps the parent to certain agents keeps its subtasks there: the last of equal
        // names counts.
        s.labels = s.labels.iter().chain(&spec.labels).collect();
    }

    /// How long it may run and how often: as its parent.
    fn check_times(&mut self, s: &mut Submission) {
        for (field, is_given) in [
            ("start_at", s.start_at.is_some()),
            ("delay", s.delay.is_some()),
        ] {
            if is_given {
                self.wrong(field, "is given", "none: it starts at once");
            }
        }
        let parents = &*self.parent.spec.timeouts;
        let timeouts = s.timeouts.get_or_insert_default();
        let run = lower_one(&mut timeouts.run, parents.run);
        let total = lower_one(&mut timeouts.total, parents.total);
        for (field, is_more) in [("timeouts.run", run), ("timeouts.total", total)] {
            if is_more {
                self.wrong(field, "is more than the parent's", "the parent's, or less");
            }
        }
        let parents = &*self.parent.spec.retry;
        let retry = s.retry.get_or_insert(*parents);
        if retry.max_attempts > parents.max_attempts {
            let problem = format!("is {}", retry.max_attempts);
            let most = format!("the parent's, {}, or less", parents.max_attempts);
            self.wrong("retry.max_attempts", problem, most);
        }
    }

    /// What it runs: another runtime would bring the key of another model.
    fn check_run(&mut self, s: &Submission, policy: &SubtaskSpec) {
        let runtime = s.run.as_ref().map(RunSpec::runtime);
        let parents = self.parent.spec.runtime;
        if let Some(other) = runtime.filter(|r| !policy.allows_runtime(parents, *r)) {
            let problem = format!("is of runtime {other}");
            let expected = format!("command, {parents}, or one of subtasks.runtimes");
            self.wrong("run", problem, expected);
        }
        // Schemas that refer to themselves can take for ever to check, on the agent's own account.
        let schema = s.result_schema.as_deref().unwrap_or_default();
        if ["$ref", "$dynamicRef", "$recursiveRef"]
            .iter()
            .any(|r| schema.contains(r))
        {
            let expected = "a schema without references";
            self.wrong("result_schema", "refers to other schemas", expected);
        }
    }

    /// What boxes it in and what it may use: all that is its parent's, or less.
    fn check_box(&mut self, s: &mut Submission) {
        let parents = self.terms.cloned().unwrap_or_default();
        for (field, is_given) in [
            ("sandbox", s.sandbox.is_some()),
            ("approvals", s.approvals.is_some()),
        ] {
            if is_given {
                self.wrong(field, "is given", "none: it is the parent's");
            }
        }
        s.sandbox = parents.sandbox;
        if let Some(kind) = self.parent.sandbox {
            // Another agent may have a weaker one where nothing is said.
            let sandbox = s.sandbox.get_or_insert_default();
            if sandbox.level.is_none() {
                sandbox.kind.get_or_insert(kind);
            }
        }
        s.approvals = parents.approvals;
        for name in s.secrets.iter().filter(|n| !parents.secrets.contains(n)) {
            let problem = format!("{name:?} is not granted to the parent");
            self.errors
                .push(FieldError::new("secrets", problem, "secrets of the parent"));
        }
        if s.models.is_empty() {
            s.models.clone_from(&parents.models);
        }
        let is_any = parents.models.is_empty();
        for model in s
            .models
            .iter()
            .filter(|m| !is_any && !parents.models.contains(m))
        {
            let problem = format!("{model:?} is not allowed to the parent");
            self.errors
                .push(FieldError::new("models", problem, "models of the parent"));
        }
    }

    /// The agent's host has credentials for repositories that a program inside has not.
    fn check_workspace(&mut self, workspace: Option<&WorkspaceSpec>) {
        let Some(workspace) = workspace else { return };
        if workspace.name.is_some() {
            self.wrong(
                "workspace.name",
                "is given",
                "none: the parent may be in it",
            );
        }
        let Some(git) = &workspace.git else { return };
        let parents = self.terms.and_then(|t| t.workspace.as_ref()?.git.as_ref());
        if parents.is_none_or(|p| p.url != git.url) {
            let problem = format!("is {:?}", git.url);
            self.wrong("workspace.git.url", problem, "the repository of the parent");
        }
        if git.push.is_some() {
            self.wrong(
                "workspace.git.push",
                "is given",
                "none: only the parent pushes",
            );
        }
    }

    fn check_budget(&mut self, s: &mut Submission, policy: &SubtaskSpec) {
        let most = policy.budget.or_else(|| self.terms.and_then(|t| t.budget));
        let Some(most) = most else { return };
        let nested = s.subtasks.as_mut().map(|s| &mut s.budget);
        for (name, budget) in [("budget", Some(&mut s.budget)), ("subtasks.budget", nested)] {
            let Some(budget) = budget else { continue };
            for field in lower(budget.get_or_insert(most), &most) {
                let expected = "what is allowed for subtasks, or less";
                self.wrong(&format!("{name}.{field}"), "is more than allowed", expected);
            }
        }
    }

    fn check_depth(&mut self, wanted: Option<&SubtaskSpec>, policy: &SubtaskSpec) {
        let Some(wanted) = wanted else { return };
        if wanted.depth >= policy.depth {
            let expected = format!("below {}, that of the parent", policy.depth);
            self.wrong("subtasks.depth", format!("is {}", wanted.depth), expected);
        }
        if wanted.max > policy.max {
            let expected = format!("{}, that of the parent, or less", policy.max);
            self.wrong("subtasks.max", format!("is {}", wanted.max), expected);
        }
        let parents = self.parent.spec.runtime;
        let mut runtimes = wanted.runtimes.iter();
        if let Some(other) = runtimes.find(|r| !policy.allows_runtime(parents, **r)) {
            let expected = "runtimes that the parent's subtasks may have";
            self.wrong("subtasks.runtimes", format!("has {other}"), expected);
        }
        let queues = wanted.queues.iter();
        let foreign = queues.filter(|q| !policy.allows_queue(&self.parent.spec.queue, q));
        let foreign: Vec<&str> = foreign.map(String::as_str).collect();
        if !foreign.is_empty() {
            let problem = format!("has {}", foreign.join(", "));
            self.wrong("subtasks.queues", problem, "queues that the parent may use");
        }
    }
}

/// Takes each limit that is not given from `most`; names those that are given higher.
fn lower(given: &mut Budget, most: &Budget) -> Vec<&'static str> {
    let mut higher = Vec::new();
    let mut check = |field, is_higher: bool| {
        if is_higher {
            higher.push(field);
        }
    };
    check("usd", lower_one(&mut given.usd, most.usd));
    check("tokens", lower_one(&mut given.tokens, most.tokens));
    check("turns", lower_one(&mut given.turns, most.turns));
    check("time", lower_one(&mut given.time, most.time));
    let asks = given.on_reached == OnReached::Ask && most.on_reached == OnReached::Fail;
    check("on_reached", asks);
    higher
}

fn lower_one<T: PartialOrd + Copy>(given: &mut Option<T>, most: Option<T>) -> bool {
    let Some(most) = most else { return false };
    let given = *given.get_or_insert(most);
    given > most
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::RunSpec;
    use crate::terms::{Level, SandboxSpec};

    fn parent() -> TaskSpec {
        let terms = Terms {
            sandbox: Some(SandboxSpec {
                level: Some(Level::Strict),
                ..SandboxSpec::default()
            }),
            secrets: vec!["npm".to_owned()],
            models: vec!["small".to_owned()],
            budget: Some(Budget {
                usd: Some(1.0),
                ..Budget::default()
            }),
            subtasks: Some(SubtaskSpec {
                depth: 2,
                queues: vec!["tests".to_owned()],
                ..SubtaskSpec::default()
            }),
            ..Terms::default()
        };
        let body = r#"{"run":{"noop":{}},"priority":6,"namespace":"team","labels":{"zone":"a"},
            "timeouts":{"run":"10m","total":"1h"}}"#;
        let resolved = super::super::resolve_all(
            &Context {
                cell: &CellId::default(),
                seq: 1,
                time_ms: 1,
                queue: &QueueName::from_log("code"),
                namespace: None,
                reply: None,
                traceparent: None,
            },
            Encoding::Json,
            &[body.as_bytes()],
        );
        let spec = resolved.into_iter().next().unwrap().unwrap().spec;
        TaskSpec {
            terms: Some(Arc::new(terms)),
            ..spec
        }
    }

    fn task() -> TaskId {
        TaskId::from_parts(7, [7; 10])
    }

    fn read(body: &str) -> Result<Resolved, Vec<String>> {
        let spec = parent();
        let parent = Parent {
            task: task(),
            spec: &spec,
            sandbox: Some(SandboxKind::Bubblewrap),
        };
        let read = resolve_subtask(&CellId::default(), Position::new(9, 3), 5, parent, body);
        read.map_err(|errors| errors.into_iter().map(|e| e.field).collect())
    }

    #[test]
    fn a_subtask_has_what_its_parent_has() {
        let body = r#"{"run":{"command":["true"]},"queue":"tests","key":"k","labels":{"gpu":"1","zone":"b"}}"#;
        let resolved = read(body).unwrap();
        let (spec, parent) = (resolved.spec, parent());
        let terms = spec.terms.unwrap();
        assert_eq!(terms.parent, Some(task()));
        assert_eq!(terms.sandbox, parent.terms.as_ref().unwrap().sandbox);
        assert_eq!(terms.models, ["small"]);
        assert_eq!(terms.budget.unwrap().usd, Some(1.0));
        assert_eq!(spec.timeouts, parent.timeouts);
        assert!(terms.secrets.is_empty() && terms.subtasks.is_none());
        assert_eq!((spec.namespace.as_str(), spec.priority), ("team", 6));
        assert_eq!(spec.queue.as_str(), "tests");
        assert_eq!(spec.key.as_deref(), Some(format!("{}/k", task()).as_str()));
        assert_eq!(spec.labels, [("gpu", "1"), ("zone", "a")].into());
        assert!(matches!(spec.run.as_deref(), Some(RunSpec::Command(_))));
        let at = TaskId::derived(CellId::default().as_str(), Position::new(9, 3), 5);
        assert_eq!(resolved.task, at);
    }

    #[test]
    fn a_subtask_gets_nothing_that_its_parent_has_not() {
        for (field, value) in [
            ("id", r#""019aaaaa-0000-7000-8000-000000000000""#),
            ("namespace", r#""other""#),
            ("queue", r#""secret""#),
            ("priority", "7"),
            ("slots", "2"),
            ("concurrency", r#"{"key":"k","limit":1}"#),
            ("sandbox", r#""none""#),
            ("approvals", r#"{"tools":false}"#),
            ("secrets", r#"["prod"]"#),
            ("models", r#"["large"]"#),
            ("workspace.name", r#"{"name":"shared"}"#),
            ("workspace.git.url", r#"{"git":{"url":"/srv/secret.git"}}"#),
            ("budget.usd", r#"{"usd":2}"#),
            ("subtasks.depth", r#"{"depth":2}"#),
            ("subtasks.budget.usd", r#"{"depth":1,"budget":{"usd":2}}"#),
            ("subtasks.runtimes", r#"{"depth":1,"runtimes":["claude"]}"#),
            ("budget.on_reached", r#"{"on_reached":"ask"}"#),
            ("timeouts.run", r#"{"run":"11m"}"#),
            ("timeouts.total", r#"{"total":"2h"}"#),
            ("retry.max_attempts", r#"{"max_attempts":4}"#),
            ("delay", r#""1h""#),
            ("result_schema", r##""{\"$ref\":\"#\"}""##),
        ] {
            let top = field.split('.').next().unwrap();
            let body = format!(r#"{{"run":{{"noop":{{}}}},"{top}":{value}}}"#);
            assert_eq!(read(&body).unwrap_err(), [field], "{body}");
        }
        for runtime in ["claude", "codex"] {
            let body = format!(r#"{{"run":{{"{runtime}":{{"prompt":"p"}}}}}}"#);
            assert_eq!(read(&body).unwrap_err(), ["run"], "{body}");
        }
        assert_eq!(read("{").unwrap_err(), [""], "what cannot be read");
    }

    #[test]
    fn where_nothing_is_said_of_a_sandbox_it_is_the_one_that_the_parent_has() {
        let boxed = |sandbox: Option<SandboxSpec>| {
            let mut spec = parent();
            let terms = Arc::make_mut(spec.terms.as_mut().unwrap());
            terms.sandbox = sandbox;
            let parent = Parent {
                task: task(),
                spec: &spec,
                sandbox: Some(SandboxKind::Bubblewrap),
            };
            let (cell, at) = (CellId::default(), Position::new(9, 3));
            let read = resolve_subtask(&cell, at, 5, parent, r#"{"run":{"noop":{}}}"#);
            let sandbox = read.unwrap().spec.terms.unwrap().sandbox.clone().unwrap();
            (sandbox.kind, sandbox.level)
        };
        let bubblewrap = Some(SandboxKind::Bubblewrap);
        assert_eq!(boxed(None), (bubblewrap, None));
        assert_eq!(boxed(Some(SandboxSpec::default())), (bubblewrap, None));
        let strict = SandboxSpec {
            level: Some(Level::Strict),
            ..SandboxSpec::default()
        };
        assert_eq!(boxed(Some(strict)), (None, Some(Level::Strict)));
    }

    #[test]
    fn a_task_that_says_nothing_of_subtasks_may_submit_none() {
        let spec = TaskSpec {
            terms: None,
            ..parent()
        };
        let parent = Parent {
            task: task(),
            spec: &spec,
            sandbox: Some(SandboxKind::Bubblewrap),
        };
        let body = r#"{"run":{"noop":{}}}"#;
        let read = resolve_subtask(&CellId::default(), Position::new(9, 3), 5, parent, body);
        assert!(read.unwrap_err()[0].problem.contains("may submit none"));
    }
}
