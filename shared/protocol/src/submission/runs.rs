//! Whether what a submission runs can be run.

use std::collections::BTreeMap;

use super::Submission;
use super::resolve::wrong;
use crate::event::FieldError;
use crate::spec::{CommandSpec, RunSpec};

/// The run, if it is there and right.
pub(super) fn checked(s: &Submission, errors: &mut Vec<FieldError>) -> Option<RunSpec> {
    match &s.run {
        None => {
            if !errors
                .iter()
                .any(|e| e.field.is_empty() || e.field.starts_with("run"))
            {
                wrong(errors, "run", "is missing");
            }
            return None;
        }
        Some(RunSpec::Command(c)) => {
            check_command(errors, "run.command", c);
        }
        Some(RunSpec::Claude(c)) => {
            check_prompt(errors, "run.claude.prompt", &c.prompt);
            if c.max_turns == Some(0) {
                wrong(errors, "run.claude.max_turns", "is 0");
            }
            if c.max_budget_usd
                .is_some_and(|usd| !usd.is_finite() || usd <= 0.0)
            {
                wrong(errors, "run.claude.max_budget_usd", "is not above 0");
            }
            check_env(errors, "run.claude.env", &c.env);
            check_cwd(errors, "run.claude.cwd", c.cwd.as_deref());
        }
        Some(RunSpec::Codex(c)) => {
            check_prompt(errors, "run.codex.prompt", &c.prompt);
            check_env(errors, "run.codex.env", &c.env);
            check_cwd(errors, "run.codex.cwd", c.cwd.as_deref());
        }
        Some(RunSpec::Acp(c)) => {
            check_argv(errors, "run.acp.argv", &c.argv);
            check_prompt(errors, "run.acp.prompt", &c.prompt);
            check_env(errors, "run.acp.env", &c.env);
            check_cwd(errors, "run.acp.cwd", c.cwd.as_deref());
        }
        Some(RunSpec::Noop(_)) => {}
    }
    s.run.clone()
}

/// Checks a program at `field`.
pub(super) fn check_command(errors: &mut Vec<FieldError>, field: &str, c: &CommandSpec) {
    check_argv(errors, &format!("{field}.argv"), &c.argv);
    check_env(errors, &format!("{field}.env"), &c.env);
    check_cwd(errors, &format!("{field}.cwd"), c.cwd.as_deref());
}

fn check_argv(errors: &mut Vec<FieldError>, field: &str, argv: &[String]) {
    if argv.first().is_none_or(String::is_empty) {
        wrong(errors, field, "names no program");
    }
    if argv.iter().any(|a| a.contains('\0')) {
        wrong(errors, field, "holds a zero byte");
    }
}

fn check_prompt(errors: &mut Vec<FieldError>, field: &str, prompt: &str) {
    if prompt.trim().is_empty() {
        wrong(errors, field, "is empty");
    }
}

fn check_env(errors: &mut Vec<FieldError>, field: &str, env: &BTreeMap<String, String>) {
    for (key, value) in env {
        if key.is_empty() || key.contains(['=', '\0']) || value.contains('\0') {
            let problem = format!("{key:?} cannot be an environment variable");
            errors.push(FieldError::new(
                field,
                problem,
                "names without = and zero bytes",
            ));
        }
    }
}

fn check_cwd(errors: &mut Vec<FieldError>, field: &str, cwd: Option<&str>) {
    if cwd.is_some_and(|c| c.is_empty() || c.contains('\0')) {
        errors.push(FieldError::new(
            field,
            "is empty or holds a zero byte",
            "a path",
        ));
    }
}
