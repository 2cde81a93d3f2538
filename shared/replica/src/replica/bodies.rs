//! Bodies that are too large for the state: read from the log, each record once for all the
//! tasks in it that are assigned at about the same time.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use conductor_domain::Record;
use conductor_domain::record::Submissions;
use conductor_eventlog::{EventLog, LogError};
use conductor_protocol::TaskId;
use conductor_protocol::frame::Elements;
use ractor::{ActorRef, ActorStatus};
use tokio::sync::Semaphore;

use crate::appender::AppenderMsg;
use crate::role::Complete;

/// Records read at once: each may have as much as the server's largest payload.
const READS_AT_ONCE: usize = 8;
/// Bytes of records that are kept for further tasks in them.
const KEPT_BYTES_MAX: usize = 16 << 20;
/// Pause before a record is asked for again; doubled before each further time.
pub(super) const PAUSE_MIN: Duration = Duration::from_millis(20);
/// Longest such pause.
pub(super) const PAUSE_MAX: Duration = Duration::from_secs(5);

/// The task of a decision, and how to complete it.
type Decision = (TaskId, Complete);

/// The bodies that a term's decisions wait for.
#[derive(Clone)]
pub(super) struct Bodies {
    log: Arc<dyn EventLog>,
    pub(super) appender: ActorRef<AppenderMsg>,
    reads: Arc<Semaphore>,
    shelf: Arc<Mutex<Shelf>>,
}

#[derive(Default)]
struct Shelf {
    /// What waits for a record that is being read.
    waiting: BTreeMap<u64, Vec<Decision>>,
    /// Records read last, newest last.
    kept: VecDeque<(u64, Submissions)>,
    kept_bytes: usize,
}

impl Shelf {
    fn find(&self, seq: u64) -> Option<Submissions> {
        let found = self.kept.iter().rev().find(|(kept, _)| *kept == seq);
        found.map(|(_, submissions)| submissions.clone())
    }

    fn keep(&mut self, seq: u64, submissions: Submissions) {
        self.kept_bytes += submissions.bytes();
        self.kept.push_back((seq, submissions));
        while self.kept_bytes > KEPT_BYTES_MAX
            && let Some((_, oldest)) = self.kept.pop_front()
        {
            self.kept_bytes -= oldest.bytes();
        }
    }
}

impl Bodies {
    /// Bodies for what `appender` brings into the log.
    pub(super) fn new(log: Arc<dyn EventLog>, appender: ActorRef<AppenderMsg>) -> Self {
        Self {
            log,
            appender,
            reads: Arc::new(Semaphore::new(READS_AT_ONCE)),
            shelf: Arc::default(),
        }
    }

    /// Completes decisions with the record at `seq`, now or when it was read.
    pub(super) fn complete(&self, seq: u64, decisions: Vec<Decision>) {
        let mut locked = self.shelf.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(submissions) = locked.find(seq) {
            drop(locked);
            self.push(seq, &submissions, decisions);
            return;
        }
        let is_read = locked.waiting.contains_key(&seq);
        locked.waiting.entry(seq).or_default().extend(decisions);
        drop(locked);
        if !is_read {
            tokio::spawn(self.clone().read(seq));
        }
    }

    /// Reads a record, however long that takes, for as long as somebody appends.
    async fn read(self, seq: u64) {
        let mut pause = PAUSE_MIN;
        while (self.appender.get_status() as u8) < ActorStatus::Stopping as u8 {
            match self.read_one(seq).await {
                Ok(Some(record)) => {
                    self.has_read(seq, Submissions::of(&record));
                    return;
                }
                Ok(None) => {
                    for task in self.waiting_for(seq) {
                        tracing::error!(%task, seq, "the log has lost a record that is needed to run a task");
                    }
                }
                Err(e) => {
                    for task in self.waiting_for(seq) {
                        tracing::warn!(%task, seq, error = %e, "a task's record cannot be read yet");
                    }
                }
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// Reads a record, once few enough others are read.
    pub(super) async fn read_one(&self, seq: u64) -> Result<Option<Record>, LogError> {
        // Nobody closes the semaphore.
        let _permit = self.reads.acquire().await;
        self.log.read(seq).await
    }

    /// The tasks that cannot be told to run before this record is read.
    fn waiting_for(&self, seq: u64) -> Vec<TaskId> {
        let locked = self.shelf.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting = locked.waiting.get(&seq);
        let tasks = waiting.into_iter().flatten().map(|(task, _)| *task);
        tasks.collect()
    }

    fn has_read(&self, seq: u64, submissions: Option<Submissions>) {
        let mut locked = self.shelf.lock().unwrap_or_else(PoisonError::into_inner);
        let decisions = locked.waiting.remove(&seq).unwrap_or_default();
        let Some(submissions) = submissions else {
            for (task, _) in decisions {
                tracing::error!(%task, seq, "a submission's body cannot be read: it cannot run");
            }
            return;
        };
        locked.keep(seq, submissions.clone());
        drop(locked);
        self.push(seq, &submissions, decisions);
    }

    fn push(&self, seq: u64, submissions: &Submissions, decisions: Vec<Decision>) {
        let mut by_subject: BTreeMap<String, Elements> = BTreeMap::new();
        for (task, complete) in decisions {
            match complete(submissions) {
                Some((subject, events)) => by_subject.entry(subject).or_default().append(events),
                None => tracing::error!(%task, seq, "its body cannot be read: it cannot run"),
            }
        }
        // An appender that is gone needs nothing.
        let _ = self
            .appender
            .cast(AppenderMsg::Push(by_subject.into_iter().collect()));
    }
}
