//! A steady stream of tasks whose side effects can be counted, and the book of what was
//! acknowledged.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use conductor_eventlog::jetstream::{Connect, Connection};
use conductor_eventlog::{Append, AppendError, EventLog};
use conductor_harness::system::{cell, new_id};
use conductor_protocol::{Control, TaskId};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::sync::watch;

use crate::watcher::Watcher;
use crate::{now_ms, wire};
use conductor_simulation::random::Random;

/// How many submit at once; each waits for its acknowledgement.
const SUBMITTERS: usize = 4;
/// Pause of a submitter after each record.
const PAUSE: Duration = Duration::from_millis(350);
/// Most tasks that may be open: beyond it a stall would leave a backlog that hides the next.
const OPEN_MAX: usize = 80;

const SUBMIT: &str = "conductor.local.submit.default";
const CONTROL: &str = "conductor.local.control";

/// How a task must end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expect {
    /// Well.
    Success,
    /// Badly: its program always fails.
    Failure,
    /// Cancelled, unless it was quicker.
    Either,
}

/// A task of the load.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sent {
    /// How it must end.
    pub(crate) expect: Expect,
    /// Executions that its own retry policy asks for.
    pub(crate) wants: usize,
}

/// An acknowledgement.
#[derive(Clone, Debug)]
pub(crate) struct Ack {
    /// Where the record is said to be.
    pub(crate) seq: u64,
    /// Of what was published.
    pub(crate) digest: [u8; 32],
    /// Where.
    pub(crate) subject: &'static str,
}

/// Everything that was acknowledged.
#[derive(Debug, Default)]
pub(crate) struct Book {
    /// Records sent, however often each.
    pub(crate) submissions: u64,
    /// Every acknowledgement.
    pub(crate) acks: Vec<Ack>,
    /// Acknowledgements that said "duplicate".
    pub(crate) duplicate_acks: u64,
    /// Publishes without an answer, repeated.
    pub(crate) unanswered: u64,
    /// Tasks of acknowledged records.
    pub(crate) tasks: BTreeMap<TaskId, Sent>,
    /// When each was acknowledged, in that order.
    pub(crate) by_time: Vec<(u64, TaskId)>,
    /// Answers that no client should get.
    pub(crate) refusals: Vec<String>,
}

/// SHA-256.
pub(crate) fn digest(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// Submitters in the background.
#[derive(Debug)]
pub(crate) struct Load {
    book: Arc<Mutex<Book>>,
    stop: watch::Sender<bool>,
    submitters: tokio::task::JoinSet<()>,
}

impl Load {
    /// Begins; submitters connect by the client's links.
    pub(crate) async fn start(
        urls: String,
        effects: &Path,
        watcher: &Arc<Watcher>,
        random: &mut Random,
    ) -> Self {
        let (stop, stopped) = watch::channel(false);
        let book = Arc::new(Mutex::new(Book::default()));
        let mut submitters = tokio::task::JoinSet::new();
        let connect = Connect::to(&urls, "chaos", cell());
        let connection = Connection::open(&connect).await;
        let connection = Arc::new(connection.unwrap_or_else(|e| panic!("{e}")));
        for _ in 0..SUBMITTERS {
            let submitter = Submitter {
                book: Arc::clone(&book),
                connection: Arc::clone(&connection),
                watcher: Arc::clone(watcher),
                urls: urls.clone(),
                effects: effects.display().to_string(),
                random: random.fork(),
                before: None,
            };
            submitters.spawn(submitter.run(stopped.clone()));
        }
        Self {
            book,
            stop,
            submitters,
        }
    }

    /// Looks at the book.
    pub(crate) fn look<T>(&self, f: impl FnOnce(&Book) -> T) -> T {
        f(&self.book.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Stops once everything sent is acknowledged.
    pub(crate) async fn stop(&mut self) {
        self.stop.send_replace(true);
        while let Some(done) = self.submitters.join_next().await {
            done.expect("a submitter does not fail");
        }
    }
}

struct Submitter {
    book: Arc<Mutex<Book>>,
    connection: Arc<Connection>,
    watcher: Arc<Watcher>,
    urls: String,
    effects: String,
    random: Random,
    before: Option<TaskId>,
}

impl Submitter {
    async fn run(mut self, mut stopped: watch::Receiver<bool>) {
        while !*stopped.borrow_and_update() {
            let ended = self.watcher.look(|s| s.ended.len());
            let open = self.book(|b| b.tasks.len().saturating_sub(ended));
            if open < OPEN_MAX {
                self.submit().await;
            }
            let _ = tokio::time::timeout(PAUSE, stopped.changed()).await;
        }
    }

    async fn submit(&mut self) {
        let n = 1 + usize::from(self.random.below(3) == 0);
        let tasks: Vec<(TaskId, Sent, Value)> = (0..n).map(|_| self.task()).collect();
        let payload: Value = tasks.iter().map(|t| t.2.clone()).collect();
        let payload = payload.to_string();
        let is_plain = self.random.below(5) == 0;
        self.publish(SUBMIT, payload.as_bytes(), is_plain).await;
        let now = now_ms();
        self.book(|book| {
            for (id, sent, _) in &tasks {
                book.tasks.insert(*id, *sent);
                book.by_time.push((now, *id));
            }
        });
        // The same under another id: a client that does not know what became of the first.
        if self.random.below(12) == 0 {
            self.publish(SUBMIT, payload.as_bytes(), false).await;
        }
        self.before = tasks
            .iter()
            .find(|t| t.1.expect == Expect::Success)
            .map(|t| t.0);
        for (task, sent, _) in tasks {
            if sent.expect == Expect::Either {
                let cancel = Control::Cancel { task, reason: None };
                let body = conductor_harness::story::control(&cancel);
                self.publish(CONTROL, &body, false).await;
            }
        }
    }

    /// A task, and what is to be expected of it.
    fn task(&mut self) -> (TaskId, Sent, Value) {
        let id = new_id();
        let mark = format!(
            "echo \"$CONDUCTOR_TASK $CONDUCTOR_ATTEMPT\" >> {}",
            self.effects
        );
        let pause = self.random.between(1, 9);
        let sent = |expect, wants| Sent { expect, wants };
        let (script, sent, attempts) = match self.random.below(20) {
            0 => ("sleep 2".to_owned(), sent(Expect::Either, 1), 200),
            1 => ("exit 3".to_owned(), sent(Expect::Failure, 2), 2),
            2 | 3 => {
                let script = "[ \"$CONDUCTOR_ATTEMPT\" -gt 1 ]".to_owned();
                (script, sent(Expect::Success, 2), 200)
            }
            _ => (format!("sleep 0.0{pause}"), sent(Expect::Success, 1), 200),
        };
        let mut task = json!({
            "id": id,
            "run": {"command": ["sh", "-c", format!("{mark}; echo done; {script}")]},
            "retry": {"max_attempts": attempts, "backoff": "50ms", "max_backoff": "500ms"},
            "timeouts": {"heartbeat": "6s"},
        });
        if let Some(before) = self.before.filter(|_| self.random.below(6) == 0) {
            task["needs"] = json!([before]);
        }
        (id, sent, task)
    }

    /// Publishes until it is acknowledged.
    async fn publish(&mut self, subject: &'static str, payload: &[u8], is_plain: bool) {
        self.book(|b| b.submissions += 1);
        let append = Append {
            subject: subject.to_owned(),
            payload: payload.to_vec().into(),
            id: uuid::Uuid::new_v4().to_string(),
            expected_last: None,
        };
        let (seq, is_duplicate) = loop {
            let answer = if is_plain {
                self.publish_plainly(subject, payload).await
            } else {
                match self.connection.append(&append).await {
                    Ok(done) => Some((done.seq, done.is_duplicate)),
                    Err(AppendError::Unavailable(_)) => None,
                    Err(e) => {
                        self.book(|b| b.refusals.push(e.to_string()));
                        None
                    }
                }
            };
            match answer {
                Some(answer) => break answer,
                None => self.book(|b| b.unanswered += 1),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        };
        let ack = Ack {
            seq,
            digest: digest(payload),
            subject,
        };
        self.book(|b| {
            b.duplicate_acks += u64::from(is_duplicate);
            b.acks.push(ack);
        });
    }

    /// As `nats pub` with a reply subject does: no id, so that what is repeated may be there
    /// twice.
    async fn publish_plainly(&mut self, subject: &str, payload: &[u8]) -> Option<(u64, bool)> {
        let urls: Vec<&str> = self.urls.split(',').collect();
        let url = *self.random.pick(&urls).expect("there are servers");
        let answer = wire::ask(url, subject, payload, Duration::from_secs(3)).await;
        Some((answer.ok()?["seq"].as_u64()?, false))
    }

    fn book<T>(&self, f: impl FnOnce(&mut Book) -> T) -> T {
        f(&mut self.book.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
