//! Whether a submission's terms can be kept.

use super::Submission;
use super::resolve::{check_duration, wrong};
use super::runs::check_command;
use crate::event::FieldError;
use crate::ids::is_valid_name;
use crate::limits::{SUBTASK_DEPTH_MAX, SUBTASKS_MAX, TERMS_BYTES_MAX, TERMS_ENTRIES_MAX};
use crate::spec::CommandSpec;
use crate::terms::{ApprovalSpec, Budget, GitSpec, Network, SandboxSpec, SubtaskSpec, Terms};

/// Least memory that is worth asking for: less holds no shell.
const MEMORY_LEAST: u64 = 4 << 20;

/// The terms, if there are any.
pub(super) fn checked(s: &Submission, errors: &mut Vec<FieldError>) -> Option<Terms> {
    if !s.has_terms() {
        return None;
    }
    let terms = s.terms();
    if terms.is_empty() {
        return None;
    }
    if let Some(sandbox) = &terms.sandbox {
        check_sandbox(errors, sandbox);
    }
    if let Some(workspace) = &terms.workspace {
        if workspace.name.as_deref().is_some_and(|n| !is_valid_name(n)) {
            wrong(errors, "workspace.name", "is not a name");
        }
        if let Some(git) = &workspace.git {
            check_git(errors, git);
        }
    }
    check_commands(errors, "setup", &terms.setup);
    check_commands(errors, "checks", &terms.checks);
    for (field, list) in [("models", &terms.models), ("secrets", &terms.secrets)] {
        check_count(errors, field, list.len());
        for (i, name) in list.iter().enumerate() {
            if name.is_empty() || name.contains(['\0', '/']) && field == "secrets" {
                wrong(errors, &format!("{field}[{i}]"), format!("is {name:?}"));
            }
        }
    }
    check_count(errors, "artifacts", terms.artifacts.len());
    for (i, path) in terms.artifacts.iter().enumerate() {
        if !is_inside(path) {
            wrong(errors, &format!("artifacts[{i}]"), format!("is {path:?}"));
        }
    }
    if let Some(budget) = &terms.budget {
        check_budget(errors, "budget", budget);
    }
    if let Some(approvals) = &terms.approvals {
        check_approvals(errors, approvals);
    }
    if let Some(subtasks) = &terms.subtasks {
        check_subtasks(errors, subtasks);
        if terms.approvals.as_ref().is_some_and(|a| a.tools) {
            let problem =
                "stands beside approvals.tools: nobody would be asked what a subtask runs";
            wrong(errors, "subtasks", problem);
        }
    }
    let schema = terms.result_schema.as_deref();
    if schema.is_some_and(|s| serde_json::from_str::<serde_json::Value>(s).is_err()) {
        wrong(errors, "result_schema", "is not JSON");
    }
    let bytes = rmp_serde::to_vec_named(&terms).map_or(0, |bytes| bytes.len());
    if bytes > TERMS_BYTES_MAX {
        errors.push(FieldError::new(
            "setup",
            format!("makes, with all that stands beside it, terms of {bytes} bytes"),
            format!("at most {TERMS_BYTES_MAX} bytes; put long scripts in a file of the workspace"),
        ));
    }
    Some(terms)
}

fn check_count(errors: &mut Vec<FieldError>, field: &str, count: usize) {
    if count > TERMS_ENTRIES_MAX {
        let problem = format!("has {count} entries, at most {TERMS_ENTRIES_MAX} are allowed");
        wrong(errors, field, problem);
    }
}

fn check_commands(errors: &mut Vec<FieldError>, field: &str, commands: &[CommandSpec]) {
    check_count(errors, field, commands.len());
    for (i, command) in commands.iter().enumerate() {
        check_command(errors, &format!("{field}[{i}]"), command);
    }
}

fn check_sandbox(errors: &mut Vec<FieldError>, s: &SandboxSpec) {
    if let Some(memory) = s.memory.filter(|m| m.0 < MEMORY_LEAST) {
        wrong(
            errors,
            "sandbox.memory",
            format!("is {memory}, at least 4 MiB are needed"),
        );
    }
    for (field, value) in [
        ("sandbox.cpu_millis", s.cpu_millis.map(u64::from)),
        ("sandbox.processes", s.processes.map(u64::from)),
        ("sandbox.file_size", s.file_size.map(|b| b.0)),
        ("sandbox.disk", s.disk.map(|b| b.0)),
    ] {
        if value == Some(0) {
            wrong(errors, field, "is 0");
        }
    }
    if let Network::Hosts(hosts) = &s.network {
        check_count(errors, "sandbox.network", hosts.len());
        for host in hosts {
            let name = host
                .rsplit_once(':')
                .map_or(host.as_str(), |(name, _)| name);
            let is_host = |c: char| c.is_ascii_alphanumeric() || "-._*".contains(c);
            if name.is_empty() || !name.chars().all(is_host) {
                wrong(errors, "sandbox.network", format!("{host:?} is no host"));
            }
        }
    }
}

fn check_git(errors: &mut Vec<FieldError>, git: &GitSpec) {
    // What begins with a dash would be an option of git.
    let is_bad =
        |text: &str| text.is_empty() || text.starts_with('-') || text.contains(['\0', '\n']);
    // What other tasks left in an agent's mirror.
    let is_ours = |text: &str| text.starts_with("refs/conductor");
    let is_known = git.url.starts_with('/')
        || ["https://", "http://", "ssh://", "git@", "file:///"]
            .iter()
            .any(|scheme| git.url.starts_with(scheme));
    if is_bad(&git.url) || !is_known {
        wrong(errors, "workspace.git.url", format!("is {:?}", git.url));
    }
    for (field, value) in [
        ("workspace.git.ref", &git.reference),
        ("workspace.git.push", &git.push),
    ] {
        if let Some(value) = value
            .as_deref()
            .filter(|v| is_bad(v) || v.contains([' ', ':', '~', '^']) || is_ours(v))
        {
            wrong(errors, field, format!("is {value:?}"));
        }
    }
}

fn check_budget(errors: &mut Vec<FieldError>, field: &str, b: &Budget) {
    if b.usd.is_some_and(|usd| !usd.is_finite() || usd <= 0.0) {
        wrong(errors, &format!("{field}.usd"), "is not above 0");
    }
    for (name, value) in [("tokens", b.tokens), ("turns", b.turns)] {
        if value == Some(0) {
            wrong(errors, &format!("{field}.{name}"), "is 0");
        }
    }
    check_duration(errors, &format!("{field}.time"), b.time.map(|t| t.0), 1);
}

fn check_subtasks(errors: &mut Vec<FieldError>, s: &SubtaskSpec) {
    for (field, value, most) in [
        ("subtasks.max", s.max, SUBTASKS_MAX),
        ("subtasks.depth", s.depth, SUBTASK_DEPTH_MAX),
    ] {
        if !(1..=most).contains(&value) {
            wrong(errors, field, format!("is {value}"));
        }
    }
    check_count(errors, "subtasks.queues", s.queues.len());
    for (i, queue) in s
        .queues
        .iter()
        .enumerate()
        .filter(|(_, q)| !is_valid_name(q))
    {
        let field = format!("subtasks.queues[{i}]");
        wrong(errors, &field, format!("{queue:?} is not a name"));
    }
    if let Some(budget) = &s.budget {
        check_budget(errors, "subtasks.budget", budget);
    }
}

fn check_approvals(errors: &mut Vec<FieldError>, a: &ApprovalSpec) {
    check_duration(errors, "approvals.expires", a.expires.map(|t| t.0), 1_000);
}

/// Whether a path stays inside of where it starts.
fn is_inside(path: &str) -> bool {
    !path.is_empty()
        && !path.starts_with('/')
        && !path.contains('\0')
        && path.split('/').all(|part| part != "..")
}
