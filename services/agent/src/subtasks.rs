//! Tasks that an attempt submits: through facts of its own, as everything that an agent says. That
//! one is accepted, or why not, and how it ended, is told by the scheduler.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use async_trait::async_trait;
use conductor_protocol::event::{
    AttemptAssigned, AttemptSubmitted, Event, FieldError, SubtaskNews,
};
use conductor_protocol::ids::Lease;
use conductor_protocol::limits::{SUBMITTED_MAX, SUBTASK_BYTES_MAX};
use conductor_protocol::{Outcome, OutcomeClass, TaskId};
use serde_json::Value;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use crate::tools::{ChildState, Children, Created};

/// Submissions of an attempt that may wait for their decision at once.
const OPEN_MAX: usize = 16;
/// How long after a submission it is said again, should nobody have decided it: it was void for a
/// log that had not reached its format. Said twice, it counts once.
const REMIND_AFTER: Duration = Duration::from_secs(30);
/// The longest pause between, as it grows.
const REMIND_AFTER_MAX: Duration = Duration::from_secs(600);

/// What is known of a task that the attempt submitted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subtask {
    /// Which of its submissions.
    pub number: u32,
    /// How it ended, once it has.
    pub outcome: Option<Outcome>,
    /// Why, where it did not succeed.
    pub class: Option<OutcomeClass>,
    /// Its result.
    pub result: Option<String>,
}

/// The tasks that an attempt submits. Clones share them.
#[derive(Clone, Debug)]
pub struct Subtasks(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    lease: Lease,
    /// Whether its task may submit any.
    is_allowed: bool,
    /// The trace that they belong to.
    traceparent: Option<String>,
    facts: mpsc::UnboundedSender<Event>,
    desk: Mutex<Desk>,
    /// Changes with every piece of news.
    news: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct Desk {
    last: u32,
    open: BTreeMap<u32, (AttemptSubmitted, oneshot::Sender<Decided>)>,
    known: BTreeMap<TaskId, Subtask>,
}

type Decided = Result<Created, Vec<FieldError>>;

impl Subtasks {
    /// The subtasks of an attempt; `traceparent` is the span that they stand below.
    pub fn new(
        lease: Lease,
        assigned: &AttemptAssigned,
        traceparent: Option<String>,
        facts: mpsc::UnboundedSender<Event>,
    ) -> Self {
        let terms = assigned.terms.as_deref();
        Self(Arc::new(Shared {
            lease,
            is_allowed: terms.is_some_and(|t| t.subtasks.is_some()),
            traceparent,
            facts,
            desk: Mutex::default(),
            news: watch::Sender::new(()),
        }))
    }

    /// What tools know of them. Whoever holds it keeps no attempt from its end.
    pub fn line(&self) -> Line {
        Line(Arc::downgrade(&self.0), self.0.is_allowed)
    }

    /// Takes in what the scheduler says.
    pub fn hear(&self, number: u32, news: SubtaskNews) {
        let mut desk = self.0.desk();
        let decided = match news {
            SubtaskNews::Accepted { task } => {
                desk.known.entry(task).or_default().number = number;
                Ok(Created { number, task })
            }
            SubtaskNews::Rejected { errors } => Err(errors),
            SubtaskNews::Ended {
                task,
                outcome,
                class,
                result,
            } => {
                let ended = Subtask {
                    number,
                    outcome: Some(outcome),
                    class,
                    result,
                };
                desk.known.insert(task, ended);
                Ok(Created { number, task })
            }
        };
        if let Some((_, waiting)) = desk.open.remove(&number) {
            // Whoever asked may have gone meanwhile.
            let _ = waiting.send(decided);
        }
        drop(desk);
        self.0.news.send_replace(());
    }
}

/// An attempt's way to its subtasks, for as long as it runs.
#[derive(Clone, Debug)]
pub struct Line(Weak<Shared>, bool);

impl Line {
    /// What is known of a task of the attempt's, once it has ended or so long has passed; `None` for
    /// every other.
    async fn wait_for(&self, task: TaskId, wait: Duration) -> Option<Subtask> {
        let (mut news, until) = (self.0.upgrade()?.news.subscribe(), Instant::now() + wait);
        loop {
            let subtask = self.0.upgrade()?.get(task)?;
            if subtask.outcome.is_some() {
                return Some(subtask);
            }
            let is_news = tokio::time::timeout_at(until, news.changed()).await;
            if !matches!(is_news, Ok(Ok(()))) {
                return Some(subtask);
            }
        }
    }
}

#[async_trait]
impl Children for Line {
    fn allowed(&self) -> bool {
        self.1
    }

    async fn create(&self, submission: Value) -> Result<Created, Vec<FieldError>> {
        let over = || FieldError::new("", "the attempt is over", "an attempt that runs");
        let decided = match self.0.upgrade() {
            Some(shared) => shared.submit(submission).map_err(|e| vec![e])?,
            None => return Err(vec![over()]),
        };
        decided.await.unwrap_or_else(|_| Err(vec![over()]))
    }

    async fn get(&self, task: TaskId, wait: Duration) -> Option<ChildState> {
        let subtask = self.wait_for(task, wait).await?;
        Some(ChildState {
            task,
            number: subtask.number,
            state: subtask.outcome.map_or("open", Outcome::as_str).to_owned(),
            is_final: subtask.outcome.is_some(),
            result: subtask.result,
            failure: subtask.class.map(|class| class.to_string()),
        })
    }
}

impl Shared {
    /// Submits a task as JSON; what is decided comes later.
    fn submit(
        self: &Arc<Self>,
        submission: Value,
    ) -> Result<oneshot::Receiver<Decided>, FieldError> {
        let body = self.body(submission)?;
        let mut desk = self.desk();
        if desk.last >= SUBMITTED_MAX {
            let problem = format!("this attempt has submitted {SUBMITTED_MAX} times");
            return Err(FieldError::new("", problem, "that you go on without"));
        }
        if desk.open.len() >= OPEN_MAX {
            let problem = format!("{OPEN_MAX} submissions wait for their decision");
            return Err(FieldError::new("", problem, "one of them decided first"));
        }
        Ok(self.open(&mut desk, body))
    }

    fn body(&self, mut submission: Value) -> Result<String, FieldError> {
        if !self.is_allowed {
            let expected = "a task with `subtasks` among its terms";
            return Err(FieldError::new("", "this task may submit none", expected));
        }
        let Some(fields) = submission.as_object_mut() else {
            return Err(FieldError::new(
                "",
                "is no object",
                "an object with at least run",
            ));
        };
        if let Some(trace) = &self.traceparent {
            // Whatever it says: a program names no trace but its own.
            fields.insert("traceparent".to_owned(), trace.as_str().into());
        }
        let body = submission.to_string();
        if body.len() > SUBTASK_BYTES_MAX {
            let problem = format!("has {} bytes", body.len());
            let expected = format!("at most {SUBTASK_BYTES_MAX} bytes; put large inputs in a file");
            return Err(FieldError::new("", problem, expected));
        }
        Ok(body)
    }

    fn get(&self, task: TaskId) -> Option<Subtask> {
        self.desk().known.get(&task).cloned()
    }

    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open(self: &Arc<Self>, desk: &mut Desk, body: String) -> oneshot::Receiver<Decided> {
        desk.last += 1;
        let (waiting, decided) = oneshot::channel();
        let fact = AttemptSubmitted {
            lease: self.lease,
            number: desk.last,
            body,
        };
        self.say(&fact);
        desk.open.insert(desk.last, (fact, waiting));
        tokio::spawn(remind(Arc::downgrade(self), desk.last));
        decided
    }

    fn say(&self, fact: &AttemptSubmitted) {
        // The service lives longer than its attempts; when it is killed nobody reports.
        let _ = self.facts.send(fact.clone().into());
    }
}

/// Says it again for as long as nobody has decided it.
async fn remind(shared: Weak<Shared>, number: u32) {
    let mut pause = REMIND_AFTER;
    loop {
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(REMIND_AFTER_MAX);
        let Some(shared) = shared.upgrade() else {
            return;
        };
        let desk = shared.desk();
        let Some((fact, _)) = desk.open.get(&number) else {
            return;
        };
        shared.say(fact);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use conductor_protocol::ids::Position;
    use conductor_protocol::spec::{NoopSpec, RunSpec};
    use conductor_protocol::terms::{SubtaskSpec, Terms};
    use serde_json::json;

    use super::*;
    use crate::runtime::testing;

    fn subtasks(is_allowed: bool) -> (Subtasks, mpsc::UnboundedReceiver<Event>) {
        let (facts, told) = mpsc::unbounded_channel();
        let lease = Lease {
            task: TaskId::from_parts(0, [1; 10]),
            attempt: 1,
            assigned: Position::new(1, 0),
        };
        let terms = Terms {
            subtasks: is_allowed.then(SubtaskSpec::default),
            ..Terms::default()
        };
        let assigned = AttemptAssigned {
            terms: Some(Arc::new(terms)),
            ..testing::assigned(RunSpec::Noop(NoopSpec {}))
        };
        let trace = Some("00-trace".to_owned());
        (Subtasks::new(lease, &assigned, trace, facts), told)
    }

    fn said(told: &mut mpsc::UnboundedReceiver<Event>) -> Vec<(u32, Value)> {
        let mut out = Vec::new();
        while let Ok(Event::AttemptSubmitted(e)) = told.try_recv() {
            out.push((e.number, serde_json::from_str(&e.body).unwrap()));
        }
        out
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_submits_learns_what_became_of_it() {
        let (subtasks, mut told) = subtasks(true);
        let task = TaskId::from_parts(5, [5; 10]);
        let (first, second) = (subtasks.line(), subtasks.line());
        let first = tokio::spawn(async move { first.create(json!({"run": {"noop": {}}})).await });
        let second = tokio::spawn(async move { second.create(json!({})).await });
        while subtasks.0.desk().open.len() < 2 {
            tokio::task::yield_now().await;
        }
        let with_trace = json!({"run": {"noop": {}}, "traceparent": "00-trace"});
        assert_eq!(said(&mut told)[0], (1, with_trace));
        subtasks.hear(1, SubtaskNews::Accepted { task });
        let errors = vec![FieldError::new("run", "is missing", "one")];
        let news = SubtaskNews::Rejected {
            errors: errors.clone(),
        };
        subtasks.hear(2, news);
        assert_eq!(first.await.unwrap(), Ok(Created { number: 1, task }));
        assert_eq!(second.await.unwrap(), Err(errors));
        let open = subtasks.line().wait_for(task, Duration::from_secs(9)).await;
        assert_eq!(open.unwrap().outcome, None);
        let waits = subtasks.line();
        let waits = tokio::spawn(async move { Children::get(&waits, task, REMIND_AFTER).await });
        tokio::task::yield_now().await;
        let ended = SubtaskNews::Ended {
            task,
            outcome: Outcome::Succeeded,
            class: None,
            result: Some("r".to_owned()),
        };
        subtasks.hear(1, ended);
        let ended = waits.await.unwrap().unwrap();
        assert_eq!((ended.state.as_str(), ended.number), ("succeeded", 1));
        assert_eq!(ended.result.as_deref(), Some("r"));
        assert_eq!(subtasks.0.get(TaskId::from_parts(6, [6; 10])), None);
    }

    #[tokio::test(start_paused = true)]
    async fn what_nobody_decides_is_said_again() {
        let (subtasks, mut told) = subtasks(true);
        let waiting = subtasks.line();
        let waiting = tokio::spawn(async move { waiting.create(json!({})).await });
        tokio::time::sleep(REMIND_AFTER * 3 + Duration::from_secs(1)).await;
        let numbers: Vec<u32> = said(&mut told).into_iter().map(|(n, _)| n).collect();
        assert_eq!(numbers, [1, 1, 1]);
        waiting.abort();
    }

    #[tokio::test]
    async fn what_may_not_be_submitted_is_refused_at_once() {
        let (none, mut told) = subtasks(false);
        let refused = none
            .line()
            .create(json!({"run": {"noop": {}}}))
            .await
            .unwrap_err();
        assert!(refused[0].problem.contains("may submit none"));
        let (some, _told) = subtasks(true);
        let long = json!({"name": "n".repeat(SUBTASK_BYTES_MAX)});
        let refused = some.line().create(long).await.unwrap_err();
        assert!(
            refused[0].expected.contains("at most 49152 bytes"),
            "{refused:?}"
        );
        assert!(
            some.line().create(json!([])).await.unwrap_err()[0]
                .problem
                .contains("no object")
        );
        assert_eq!(said(&mut told), []);
    }
}
