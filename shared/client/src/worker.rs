//! The task behind a submitter: it owns what waits and what is in flight.

use std::sync::Arc;
use std::time::Duration;

use conductor_eventlog::{Append, AppendError, Appended, EventLog, Fate, GroupCommit};
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use tokio::sync::mpsc;

use crate::ledger::{Caller, Ledger};

/// On how many queues an append may be in flight at once.
const IN_FLIGHT_MAX: usize = 8;
/// Most calls taken in at once.
const CALLS_AT_ONCE: usize = 1024;

/// What a caller hands over.
#[derive(Debug)]
pub(crate) struct Call {
    /// The queue's subject.
    pub(crate) subject: String,
    /// The encoded submissions; as many as the caller's `len`.
    pub(crate) elements: Vec<Vec<u8>>,
    /// Who waits.
    pub(crate) caller: Caller,
}

/// An append that the log has answered: its subject, and the answer.
type Answered = (String, Result<Appended, AppendError>);

/// The task's state.
pub(crate) struct Worker {
    log: Arc<dyn EventLog>,
    inbox: mpsc::UnboundedReceiver<Call>,
    commit: GroupCommit,
    ledger: Ledger,
    appends: FuturesUnordered<BoxFuture<'static, Answered>>,
}

impl Worker {
    /// A worker that writes what arrives in `inbox`.
    pub(crate) fn new(log: Arc<dyn EventLog>, inbox: mpsc::UnboundedReceiver<Call>) -> Self {
        let writer = uuid::Uuid::new_v4().to_string();
        Self {
            log,
            inbox,
            commit: GroupCommit::of_submissions(writer, IN_FLIGHT_MAX),
            ledger: Ledger::default(),
            appends: FuturesUnordered::new(),
        }
    }

    /// Works until nobody can call any more and every call has its answer.
    pub(crate) async fn run(mut self) {
        let mut calls = Vec::new();
        let mut is_open = true;
        // Something waits only while something is in flight.
        while is_open || !self.appends.is_empty() {
            tokio::select! {
                // Callers first, so that a record takes all there is. They cannot starve the
                // answers: what may wait is bounded, and only answers make room.
                biased;
                taken = self.inbox.recv_many(&mut calls, CALLS_AT_ONCE), if is_open => {
                    is_open = taken > 0;
                    for call in calls.drain(..) {
                        self.take(call);
                    }
                }
                Some((subject, answer)) = self.appends.next() => self.answered(&subject, answer),
            }
            while let Some(append) = self.commit.next_append() {
                self.append(append, Duration::ZERO);
            }
        }
    }

    fn take(&mut self, call: Call) {
        for element in call.elements {
            self.commit.push(&call.subject, element);
        }
        self.ledger.note(call.subject, call.caller);
    }

    fn append(&self, append: Append, pause: Duration) {
        let log = Arc::clone(&self.log);
        self.appends.push(Box::pin(async move {
            if !pause.is_zero() {
                tokio::time::sleep(pause).await;
            }
            let answer = log.append(&append).await;
            (append.subject, answer)
        }));
    }

    fn answered(&mut self, subject: &str, answer: Result<Appended, AppendError>) {
        if let Err(AppendError::Unavailable(problem)) = &answer {
            tracing::warn!(problem, subject, "submissions repeated");
        }
        let len = self.commit.in_flight_len(subject);
        match self.commit.answered(subject, answer) {
            Fate::Stored(seq) => self.ledger.settle(subject, len, &Ok(seq)),
            Fate::Refused(e) => {
                tracing::error!(error = %e, subject, "the log refused submissions");
                self.ledger.settle(subject, len, &Err(e));
            }
            Fate::Repeat(append, pause) => self.append(append, pause),
            Fate::Unknown => {}
        }
    }
}
