//! From the bytes of a task file to a task with an identity: the same file is the same task.

use conductor_protocol::CellId;
use conductor_protocol::ids::QueueName;
use conductor_protocol::limits::{KEY_BYTES_MAX, SPEC_BYTES_MAX};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::names::NAME_BYTES_MAX;
use crate::cli::submit::file::order;
use crate::cli::submit::{self, Order};

/// Why a file is not taken.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Problem {
    /// One line for each thing that is wrong: field and remedy.
    pub(super) lines: Vec<String>,
    /// Whether somebody may still be writing it, so that it may be right in a moment.
    pub(super) may_be_unfinished: bool,
}

impl Problem {
    fn of(line: impl Into<String>) -> Self {
        Self {
            lines: vec![line.into()],
            may_be_unfinished: false,
        }
    }

    /// We may not read it.
    pub(super) fn unreadable(e: &std::io::Error) -> Self {
        Self::of(format!(
            "the file cannot be read: {e}; let the user read it that `conductor watch-folder` runs as"
        ))
    }

    fn unfinished(line: impl Into<String>) -> Self {
        Self {
            may_be_unfinished: true,
            ..Self::of(line)
        }
    }
}

/// Whether a file may be a task by its name and size: others are not even read.
pub(super) fn check(name: &str, bytes: u64) -> Result<(), Problem> {
    if name.len() > NAME_BYTES_MAX {
        let message = format!(
            "the name has {} bytes before `.task.json`; at most {NAME_BYTES_MAX} leave room for what \
             is written beside it",
            name.len()
        );
        return Err(Problem::of(message));
    }
    if bytes > SPEC_BYTES_MAX as u64 {
        let message = format!(
            "the file has {bytes} bytes; at most {SPEC_BYTES_MAX} are taken: put large inputs into \
             files of a workspace"
        );
        return Err(Problem::unfinished(message));
    }
    Ok(())
}

/// The task of a file.
///
/// JSON alone, and one object: of such a text no beginning is whole, so that nobody's half-written
/// file is taken for a task. Of YAML and of JSON lines many a beginning is.
pub(super) fn task(
    bytes: &[u8],
    name: &str,
    to: &QueueName,
    cell: &CellId,
) -> Result<Order, Problem> {
    let value: Value = serde_json::from_slice(bytes).map_err(|e| {
        Problem::unfinished(format!(
            "not JSON: {e}; write one task as a JSON object, such as \
             {{\"run\": {{\"command\": [\"make\"]}}}}"
        ))
    })?;
    if let Value::Array(tasks) = &value {
        let count = tasks.len();
        return Err(Problem::of(format!(
            "a list of {count} tasks; write each into a file of its own"
        )));
    }
    let mut order = order(value, to, name.to_owned()).map_err(|lines| Problem {
        lines,
        may_be_unfinished: false,
    })?;
    let wrong = submit::problems(&order, cell).map_err(|e| Problem::of(e.message))?;
    if !wrong.is_empty() {
        return Err(Problem {
            lines: wrong.iter().map(ToString::to_string).collect(),
            may_be_unfinished: false,
        });
    }
    if order.submission.name.is_none() && name.len() <= KEY_BYTES_MAX {
        order.submission.name = Some(name.to_owned());
    }
    Ok(order)
}

/// SHA-256 in hexadecimal.
pub(super) fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// The idempotency key of a file that names none: by it the orchestrator knows the file again
/// even where all that was written beside it is lost.
pub(super) fn key(folder: &str, name: &str, identity: &str, sha256: &str) -> String {
    let mut hash = Sha256::new();
    for part in [folder, name, identity, sha256] {
        // Their lengths too: where one ends and the next begins is part of what is hashed.
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    format!("folder/{}", hex(&hash.finalize()))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Order, Problem> {
        let (queue, cell) = ("q".parse().unwrap(), "local".parse().unwrap());
        task(text.as_bytes(), "build", &queue, &cell)
    }

    #[test]
    fn no_beginning_of_a_task_is_a_task() {
        let text = "{\"run\": {\"command\": [\"true\"]}, \"queue\": \"other\"}\n";
        let whole = text.trim_end().len();
        for end in 0..whole {
            let problem = read(&text[..end]).unwrap_err();
            assert!(problem.may_be_unfinished, "{}: {problem:?}", &text[..end]);
        }
        let order = read(text).unwrap();
        assert_eq!(order.queue.as_str(), "other");
        assert_eq!(order.submission.name.as_deref(), Some("build"));
        let named = read("{\"run\": {\"noop\": {}}, \"name\": \"n\"}").unwrap();
        assert_eq!(named.queue.as_str(), "q");
        assert_eq!(named.submission.name.as_deref(), Some("n"));
    }

    #[test]
    fn what_is_wrong_names_the_field_and_what_is_expected() {
        for (text, field) in [
            ("{}", "run: is missing; expected one of"),
            (
                "{\"run\": {\"noop\": {}}, \"prioritty\": 1}",
                "prioritty: is not a field",
            ),
            (
                "{\"run\": {\"noop\": {}}, \"priority\": 12}",
                "priority: is 12; expected",
            ),
            ("{\"run\": {\"command\": \"make\"}}", "run.command: "),
            ("{\"run\": {\"noop\": {}}, \"queue\": \"a b\"}", "queue: "),
            ("[]", "a list of 0 tasks"),
            ("7", "submission: is not an object"),
        ] {
            let problem = read(text).unwrap_err();
            let said = problem.lines.join("\n");
            assert!(said.starts_with(field), "{text}: {said}");
            assert!(!problem.may_be_unfinished, "{text}");
        }
    }

    #[test]
    fn what_cannot_be_a_task_is_not_read() {
        assert_eq!(check("a", SPEC_BYTES_MAX as u64), Ok(()));
        let large = check("a", SPEC_BYTES_MAX as u64 + 1).unwrap_err();
        assert!(large.lines[0].contains("at most 524288"), "{large:?}");
        assert!(check(&"a".repeat(NAME_BYTES_MAX + 1), 1).is_err());
    }

    #[test]
    fn keys_differ_where_anything_does() {
        let one = key("/d", "a", "1", "x");
        assert_eq!(one, key("/d", "a", "1", "x"));
        assert!(one.len() <= KEY_BYTES_MAX);
        for other in [
            key("/e", "a", "1", "x"),
            key("/d", "b", "1", "x"),
            key("/d", "a", "2", "x"),
            key("/d", "a", "1", "y"),
            key("/da", "", "1", "x"),
        ] {
            assert_ne!(one, other);
        }
    }
}
