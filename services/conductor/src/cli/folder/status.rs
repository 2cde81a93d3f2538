//! What is written beside a task file.

use conductor_protocol::{Position, TaskId};
use serde::{Deserialize, Serialize};

/// `NAME.status.json`: what became of a task file so far. Written before the task is submitted, it is
/// also what a later start knows the file by.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Status {
    /// The task.
    pub(super) id: TaskId,
    /// Where it stands.
    pub(super) state: String,
    /// Attempts so far.
    #[serde(default)]
    pub(super) attempts: u32,
    /// The queue it was submitted to.
    pub(super) queue: String,
    /// The idempotency key it was submitted under.
    pub(super) key: Option<String>,
    /// SHA-256 of the file's bytes, in hexadecimal.
    pub(super) sha256: String,
    /// The last record that was known before it was submitted: all that is said of it comes after.
    pub(super) after_record: u64,
    /// Where its submission stands in the log, once that was acknowledged: record and index.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) submission: Option<Position>,
    /// Whether the file was seen to be gone: one that is put there again is another.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) file_removed: bool,
}

/// Its submission may or may not have reached the log.
pub(super) const SUBMITTING: &str = "submitting";
/// It is in the log, and not decided yet.
pub(super) const SUBMITTED: &str = "submitted";
/// The orchestrator refused it.
pub(super) const REJECTED: &str = "rejected";
/// Its file was removed before anybody tried to submit it.
pub(super) const WITHDRAWN: &str = "withdrawn";

impl Status {
    /// Whether nothing more will happen to it.
    pub(super) fn is_closed(&self) -> bool {
        let closed = [
            "succeeded",
            "failed",
            "cancelled",
            "timed_out",
            REJECTED,
            WITHDRAWN,
        ];
        closed.contains(&self.state.as_str())
    }

    /// Whether it is still to be submitted, or submitted again under the same key.
    pub(super) fn is_to_submit(&self) -> bool {
        self.state == SUBMITTING
    }

    /// As it stands in its file.
    pub(super) fn text(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).unwrap_or_default();
        text.push('\n');
        text
    }

    /// What a file says; `None` for one that is not ours, or was not written whole.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok()
    }
}

/// `NAME.error.txt`: what is wrong with a task file, one line for each.
pub(super) fn error(problems: &[String]) -> String {
    let mut text = String::from("This task file was not taken:\n");
    for problem in problems {
        text.push_str(&format!("  {problem}\n"));
    }
    text.push_str("Write the file anew; it is looked at again as soon as it has changed.\n");
    text
}

/// The same of a task file whose own status cannot be read, so that nobody knows what became of it.
pub(super) fn unknown(status: &str, problem: &str) -> String {
    format!(
        "This task file is left alone: {status} beside it cannot be read, so that it may have been \
         submitted before.\n  {problem}\nMake that file readable and start `conductor watch-folder` \
         anew, or remove it to submit the task again.\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(state: &str) -> Status {
        Status {
            id: TaskId::from_parts(1, [0; 10]),
            state: state.to_owned(),
            attempts: 0,
            queue: "default".to_owned(),
            key: None,
            sha256: "00".to_owned(),
            after_record: 7,
            submission: Some(Position::new(8, 0)),
            file_removed: false,
        }
    }

    #[test]
    fn a_status_is_read_as_it_was_written() {
        let status = status("running");
        assert_eq!(Status::read(status.text().as_bytes()), Some(status));
        for other in ["", "{", "{}", "[]", "{\"state\": \"running\"}"] {
            assert_eq!(Status::read(other.as_bytes()), None, "{other}");
        }
    }

    #[test]
    fn what_is_over_is_closed() {
        use conductor_domain::state::Outcome;
        for outcome in [
            Outcome::Succeeded,
            Outcome::Failed,
            Outcome::Cancelled,
            Outcome::TimedOut,
        ] {
            assert!(status(outcome.as_str()).is_closed());
        }
        for open in [SUBMITTING, SUBMITTED, "pending", "running"] {
            assert!(!status(open).is_closed(), "{open}");
        }
    }
}
