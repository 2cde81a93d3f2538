//! Every line of log about a task says which: whoever greps one id finds them all.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

use std::path::{Path, PathBuf};

/// Where tasks are decided, run and followed.
const FOLDERS: [&str; 5] = [
    "services/agent/src",
    "services/orchestrator/src",
    "services/projector/src",
    "services/scheduler/src",
    "shared/replica/src",
];
/// A message with one of these words speaks of a task.
const WORDS: [&str; 7] = [
    "attempt",
    "attempts",
    "lease",
    "output",
    "submission",
    "task",
    "tasks",
];
const MACROS: [&str; 5] = ["error", "warn", "info", "debug", "trace"];

/// A call that writes a line.
#[derive(Debug, PartialEq, Eq)]
struct Call {
    line: usize,
    /// All between its brackets, texts left out.
    fields: String,
    message: String,
}

/// All such calls of a source text, its tests left out.
fn calls(source: &str) -> Vec<Call> {
    let source = source.split("#[cfg(test)]").next().unwrap_or_default();
    let mut found = Vec::new();
    for (at, _) in source.match_indices("tracing::") {
        let rest = &source[at + "tracing::".len()..];
        let Some(inside) = MACROS
            .iter()
            .find_map(|m| rest.strip_prefix(m)?.strip_prefix("!("))
        else {
            continue;
        };
        let line = source[..at].matches('\n').count() + 1;
        let (fields, message) = arguments(inside);
        found.push(Call {
            line,
            fields,
            message,
        });
    }
    found
}

/// What stands between the brackets, without its texts; and the last of those.
fn arguments(inside: &str) -> (String, String) {
    let (mut fields, mut message, mut depth) = (String::new(), String::new(), 1);
    let mut chars = inside.chars();
    while let Some(c) = chars.next() {
        match c {
            '"' => {
                message.clear();
                while let Some(c) = chars.next().filter(|c| *c != '"') {
                    message.push(c);
                    if c == '\\' {
                        message.extend(chars.next());
                    }
                }
                continue;
            }
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            break;
        }
        fields.push(c);
    }
    (fields, message)
}

fn speaks_of_a_task(message: &str) -> bool {
    let words = message.split(|c: char| !c.is_ascii_alphanumeric() && c != '\'');
    words
        .map(|w| w.trim_end_matches("'s").to_lowercase())
        .any(|w| WORDS.contains(&w.as_str()))
}

/// Whether a field of that name is there: `task = …`, `%task` or `task`.
fn names(fields: &str, name: &str) -> bool {
    fields.split(',').any(|field| {
        let of = field.split('=').next().unwrap_or_default().trim();
        of.trim_start_matches(['%', '?']) == name
    })
}

fn offences(source: &str) -> Vec<Call> {
    let mut found = calls(source);
    found.retain(|c| speaks_of_a_task(&c.message) && !names(&c.fields, "task"));
    found
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(rust_files(&path));
        } else if path.extension().is_some_and(|e| e == "rs") && !path.ends_with("tests.rs") {
            found.push(path);
        }
    }
    found
}

#[test]
fn every_line_about_a_task_names_it() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let (mut wrong, mut seen) = (Vec::new(), 0);
    for file in FOLDERS.iter().flat_map(|f| rust_files(&root.join(f))) {
        let source = std::fs::read_to_string(&file).unwrap();
        seen += calls(&source).len();
        for call in offences(&source) {
            let (line, message) = (call.line, call.message);
            wrong.push(format!("{}:{line}: {message:?}", file.display()));
        }
    }
    assert!(seen > 40, "only {seen} lines were found");
    assert!(
        wrong.is_empty(),
        "lines about a task without `task`:\n  {}",
        wrong.join("\n  ")
    );
}

#[test]
fn what_is_found_is_what_is_meant() {
    let source = r#"
        tracing::warn!(task = %lease.task, error = %e, "output was lost");
        tracing::warn!(%task, "a task (of many) waits");
        tracing::debug!(seq, reason = "task", "a record is read");
        tracing::error!(
            seq = task.seq(),
            "an attempt's \"directory\" is left"
        );
        tracing::info!("tasks wait");
        tracing::info!(agent = %task, "an agent attempts nothing");
        #[cfg(test)]
        tracing::info!("a task");
    "#;
    assert_eq!(calls(source).len(), 6);
    let lines: Vec<usize> = offences(source).iter().map(|c| c.line).collect();
    assert_eq!(lines, [5, 9, 10]);
}
