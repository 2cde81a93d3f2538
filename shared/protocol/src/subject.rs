//! Subjects of a cell: few, by intent, one writer each (design section 2).

use std::fmt;

use crate::ids::{AgentId, CellId, Namespace, QueueName, is_valid_name};

/// The two roles of which one process leads at a time.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Accepts, orders, retries, cancels, times out.
    Orchestrator,
    /// Decides which agent runs what, when.
    Scheduler,
}

impl Role {
    /// Both roles.
    pub const ALL: [Self; 2] = [Self::Orchestrator, Self::Scheduler];

    /// The role as a subject token.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Orchestrator => "orchestrator",
            Self::Scheduler => "scheduler",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A subject captured by the log, and with it the writer of the record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Subject {
    /// `submit.<queue>`: task submissions by anyone.
    Submit(QueueName),
    /// `submit.<queue>.<namespace>`: those of one namespace, so that a server can tell who may.
    SubmitIn(QueueName, Namespace),
    /// `control`: what operators and clients say.
    Control,
    /// `orchestrator`: decisions of the leading orchestrator.
    Orchestrator,
    /// `scheduler.<agent>`: the only words an agent ever hears.
    Scheduler(AgentId),
    /// `agent.<agent>`: reports of that agent alone.
    Agent(AgentId),
    /// `leader.<role>`: elections.
    Leader(Role),
    /// `checkpoint`: the notary's signed digests.
    Checkpoint,
}

impl Subject {
    /// The full subject text in `cell`.
    pub fn render(&self, cell: &CellId) -> String {
        match self {
            Self::Submit(q) => format!("conductor.{cell}.submit.{q}"),
            Self::SubmitIn(q, n) => format!("conductor.{cell}.submit.{q}.{n}"),
            Self::Control => format!("conductor.{cell}.control"),
            Self::Orchestrator => format!("conductor.{cell}.orchestrator"),
            Self::Scheduler(a) => format!("conductor.{cell}.scheduler.{a}"),
            Self::Agent(a) => format!("conductor.{cell}.agent.{a}"),
            Self::Leader(r) => format!("conductor.{cell}.leader.{r}"),
            Self::Checkpoint => format!("conductor.{cell}.checkpoint"),
        }
    }

    /// Reads a subject; `None` for one that no writer of `cell` owns.
    pub fn parse(cell: &CellId, subject: &str) -> Option<Self> {
        let rest = subject
            .strip_prefix("conductor.")?
            .strip_prefix(cell.as_str())?
            .strip_prefix('.')?;
        let (kind, name) = match rest.split_once('.') {
            Some((kind, name)) if is_valid_name(name) => (kind, Some(name)),
            Some(("submit", names)) => return Self::submit_in(names),
            Some(_) => return None,
            None => (rest, None),
        };
        match (kind, name) {
            ("submit", Some(q)) => Some(Self::Submit(QueueName::from_log(q))),
            ("control", None) => Some(Self::Control),
            ("orchestrator", None) => Some(Self::Orchestrator),
            ("scheduler", Some(a)) => Some(Self::Scheduler(AgentId::from_log(a))),
            ("agent", Some(a)) => Some(Self::Agent(AgentId::from_log(a))),
            ("leader", Some("orchestrator")) => Some(Self::Leader(Role::Orchestrator)),
            ("leader", Some("scheduler")) => Some(Self::Leader(Role::Scheduler)),
            ("checkpoint", None) => Some(Self::Checkpoint),
            _ => None,
        }
    }

    /// Reads `<queue>.<namespace>`.
    fn submit_in(names: &str) -> Option<Self> {
        let (queue, namespace) = names.split_once('.')?;
        let are_names = is_valid_name(queue) && is_valid_name(namespace);
        are_names
            .then(|| Self::SubmitIn(QueueName::from_log(queue), Namespace::from_log(namespace)))
    }
}

/// The subjects of submissions that say whose they are: a log made before there were any lacks them.
pub fn submissions_of_namespaces(cell: &CellId) -> String {
    format!("conductor.{cell}.submit.*.*")
}

/// The subjects the log of `cell` captures.
pub fn log_subjects(cell: &CellId) -> Vec<String> {
    [
        "submit.*",
        "submit.*.*",
        "control",
        "orchestrator",
        "scheduler.*",
        "agent.*",
        "leader.*",
        "checkpoint",
    ]
    .iter()
    .map(|s| format!("conductor.{cell}.{s}"))
    .collect()
}

/// Where `agent` publishes what a task's attempts print.
pub fn output(cell: &CellId, agent: &str, task: &str) -> String {
    format!("conductor.{cell}.output.{agent}.{task}")
}

/// Where `agent` publishes the pieces of an artifact, known by the hash of all its bytes.
pub fn artifact(cell: &CellId, agent: &str, sha256: &str) -> String {
    format!("conductor.{cell}.artifact.{agent}.{sha256}")
}

/// Where `agent` publishes its heartbeats.
pub fn presence(cell: &CellId, agent: &str) -> String {
    format!("conductor.{cell}.presence.{agent}")
}

/// Where `agent` asks for its next credentials (a plain request, not in the log).
pub fn credential(cell: &CellId, agent: &str) -> String {
    format!("conductor.{cell}.credential.{agent}")
}

/// Where replicas answer with their sequence and digest (a plain request, not in the log).
pub fn inspect(cell: &CellId) -> String {
    format!("conductor.{cell}.inspect")
}

/// Name of the log's stream.
pub fn log_stream(cell: &CellId) -> String {
    format!("LOG_{cell}")
}

/// Prefix of the inboxes that one client hears alone, of all that share the clients' account.
pub fn private_inbox(client: &str) -> String {
    format!("_INBOX_OF.{client}")
}

/// Where a word for a submitter is published besides `reply`, for clients in an account of their own:
/// they import it from there as `reply`.
pub fn answer(cell: &CellId, reply: &str) -> String {
    format!("conductor.{cell}.answer.{reply}")
}

/// What a reply subject may begin with.
pub fn reply_roots(cell: &CellId) -> [String; 3] {
    let own = format!("conductor.{cell}.reply.");
    ["_INBOX.".to_owned(), "_INBOX_OF.".to_owned(), own]
}

/// Whether a submitter may ask for replies on `subject`.
///
/// Replies are published with the orchestrator's rights, so a reply subject must not
/// reach into the log or the server's API (the confused deputy of nats-facts 7).
pub fn is_allowed_reply(cell: &CellId, subject: &str) -> bool {
    let roots = reply_roots(cell);
    roots.iter().any(|root| subject.starts_with(root))
        && subject.len() <= crate::limits::REPLY_BYTES_MAX
        && subject
            .split('.')
            .all(|t| !t.is_empty() && t != "*" && t != ">" && !t.contains(char::is_whitespace))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_subject_reads_back() {
        let cell = CellId::default();
        for subject in [
            Subject::Submit(QueueName::from_log("q")),
            Subject::SubmitIn(QueueName::from_log("q"), Namespace::from_log("team")),
            Subject::Control,
            Subject::Orchestrator,
            Subject::Scheduler(AgentId::from_log("a1")),
            Subject::Agent(AgentId::from_log("a1")),
            Subject::Leader(Role::Scheduler),
            Subject::Checkpoint,
        ] {
            assert_eq!(Subject::parse(&cell, &subject.render(&cell)), Some(subject));
        }
        for foreign in [
            "conductor.other.control",
            "conductor.local.agent.a.b",
            "conductor.local.submit.q.",
            "conductor.local.submit..team",
            "conductor.local.submit.q.team.x",
            "conductor.local",
            "x",
        ] {
            assert_eq!(Subject::parse(&cell, foreign), None, "{foreign}");
        }
    }

    #[test]
    fn replies_stay_out_of_the_log() {
        let cell = CellId::default();
        assert!(is_allowed_reply(&cell, "_INBOX.abc.1"));
        assert!(is_allowed_reply(
            &cell,
            &format!("{}.1", private_inbox("ci"))
        ));
        assert!(is_allowed_reply(&cell, "conductor.local.reply.me"));
        for bad in [
            "conductor.local.control",
            "$JS.API.STREAM.DELETE.LOG_local",
            "_INBOX.>",
            "",
            "_INBOX..a",
            "_INBOX_other.a",
            "_INBOX",
        ] {
            assert!(!is_allowed_reply(&cell, bad), "{bad}");
        }
    }
}
