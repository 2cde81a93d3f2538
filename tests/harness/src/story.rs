//! The log as a test sees it: the state after the last record, and all that was told.

use std::sync::Arc;

use conductor_domain::record::Content;
use conductor_domain::state::{Outcome, Task};
use conductor_domain::{State, Verdict, VoidReason};
use conductor_eventlog::EventLog;
use conductor_eventlog::jetstream::Connection;
use conductor_protocol::event::Event;
use conductor_protocol::{Control, TaskId};
use conductor_replica::{ReadFrom, Reader};

use crate::PATIENCE;

/// An event, and what became of it.
#[derive(Clone, Debug)]
pub struct Told {
    /// Its record.
    pub seq: u64,
    /// The server's time of the record, in milliseconds since 1970.
    pub time_ms: u64,
    /// Its kind; `submit` for submissions.
    pub kind: &'static str,
    /// The task it speaks of.
    pub task: Option<TaskId>,
    /// The event, where it is one.
    pub event: Option<Event>,
    /// What became of it.
    pub verdict: Verdict,
}

/// Follows the log from its first record.
#[derive(Debug)]
pub struct Story {
    reader: Reader,
    /// Everything told so far.
    pub told: Vec<Told>,
}

impl Story {
    /// Begins at the first record.
    pub async fn open(connection: &Arc<Connection>) -> Self {
        let log = Arc::clone(connection) as Arc<dyn EventLog>;
        Self {
            reader: Reader::open(log, ReadFrom::Genesis, 0).await,
            told: Vec::new(),
        }
    }

    /// The state after everything told so far.
    pub fn state(&self) -> &State {
        &self.reader.state
    }

    /// Reads on until something is so.
    pub async fn until<T>(&mut self, what: &str, mut is: impl FnMut(&Self) -> Option<T>) -> T {
        let waiting = async {
            loop {
                if let Some(found) = is(self) {
                    return found;
                }
                self.read_one().await;
            }
        };
        let Ok(found) = tokio::time::timeout(PATIENCE, waiting).await else {
            panic!("waited in vain for {what}; the log:\n{}", self.text());
        };
        found
    }

    /// Reads on until something is so, for as long as the log goes on: of very much work it is not
    /// known how long it takes, but that there is always something more.
    pub async fn patiently<T>(&mut self, what: &str, is: impl Fn(&Self) -> Option<T>) -> T {
        loop {
            if let Some(found) = is(self) {
                return found;
            }
            let more = tokio::time::timeout(PATIENCE, self.read_one()).await;
            assert!(
                more.is_ok(),
                "nothing goes on before {what}; the log:\n{}",
                self.text()
            );
        }
    }

    /// Reads on until a task has ended; returns it as it then is.
    pub async fn ended(&mut self, task: TaskId) -> Box<Task> {
        let is_final = |s: &Self| s.state().tasks.get(&task).filter(|t| t.is_final()).cloned();
        self.until(&format!("the end of {task}"), is_final).await
    }

    /// Reads on until a task has ended, and how.
    pub async fn outcome(&mut self, task: TaskId) -> Outcome {
        self.until(&format!("the end of {task}"), |s| {
            s.state().outcome_of(task)
        })
        .await
    }

    /// Reads on until an event of this kind counts for a task.
    pub async fn told(&mut self, task: TaskId, kind: &str) -> Told {
        self.until(&format!("{kind} of {task}"), |s| s.find(task, kind))
            .await
    }

    /// The first event of this kind that counted for a task.
    pub fn find(&self, task: TaskId, kind: &str) -> Option<Told> {
        let is =
            |t: &&Told| t.task == Some(task) && t.kind == kind && t.verdict == Verdict::Applied;
        self.told.iter().find(is).cloned()
    }

    /// The kinds of all events that counted for a task, in order.
    pub fn kinds(&self, task: TaskId) -> Vec<&'static str> {
        self.applied(task).map(|t| t.kind).collect()
    }

    /// All events that counted for a task, in order.
    pub fn applied(&self, task: TaskId) -> impl Iterator<Item = &Told> {
        self.told
            .iter()
            .filter(move |t| t.task == Some(task) && t.verdict == Verdict::Applied)
    }

    /// How many events were void for a reason.
    pub fn void(&self, reason: VoidReason) -> usize {
        self.told
            .iter()
            .filter(|t| t.verdict == Verdict::Void(reason))
            .count()
    }

    /// The end of the story, for people.
    pub fn text(&self) -> String {
        let from = self.told.len().saturating_sub(60);
        let lines = self.told[from..].iter().map(|t| {
            let task = t.task.map(|t| t.to_string()).unwrap_or_default();
            format!("  {:>5} {:<18} {task} {:?}", t.seq, t.kind, t.verdict)
        });
        lines.collect::<Vec<_>>().join("\n")
    }

    async fn read_one(&mut self) {
        let (record, folded) = self.reader.next().await.expect("the log can be read");
        let mut verdicts = folded.verdicts.iter();
        let mut tell = |kind, task, event| {
            let verdict = verdicts.next().copied().unwrap_or(Verdict::Applied);
            let (seq, time_ms) = (record.seq, record.time_ms);
            self.told.push(Told {
                seq,
                time_ms,
                kind,
                task,
                event,
                verdict,
            });
        };
        match &record.content {
            Content::Void { .. } => tell("void", None, None),
            Content::Submit(s) => (0..s.count).for_each(|_| tell("submit", None, None)),
            Content::Control { items, .. } => items.iter().for_each(|item| match item {
                Ok(control) => tell(control.kind(), control.task(), None),
                Err(_) => tell("void", None, None),
            }),
            Content::Leader { items, .. }
            | Content::Agent { items, .. }
            | Content::Election { items, .. } => items.iter().for_each(|item| match item {
                Ok(event) => tell(event.kind(), event.task(), Some(event.clone())),
                Err(_) => tell("void", None, None),
            }),
        }
    }
}

/// A control element as JSON bytes.
pub fn control(control: &Control) -> Vec<u8> {
    serde_json::to_vec(control).expect("controls are JSON")
}
