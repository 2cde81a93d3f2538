//! A log in memory, for tests and simulation: the same rules, no durability.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use conductor_domain::Record;
use conductor_protocol::{CellId, UnixMs};
use tokio::sync::Notify;

use crate::port::{
    Append, AppendError, Appended, EventLog, LogError, SnapshotName, SnapshotStore, Tail, TailBatch,
};

/// Most records a tail hands out at once.
const BATCH_MAX: usize = 256;

/// A log in memory. Clones share it.
#[derive(Clone, Debug)]
pub struct MemoryLog {
    cell: CellId,
    inner: Arc<Mutex<Inner>>,
    appended: Arc<Notify>,
}

#[derive(Debug, Default)]
struct Inner {
    records: Vec<Record>,
    ids: BTreeMap<String, u64>,
    now_ms: UnixMs,
    snapshots: BTreeMap<u64, Bytes>,
}

impl MemoryLog {
    /// An empty log.
    pub fn new(cell: CellId) -> Self {
        Self {
            cell,
            inner: Arc::default(),
            appended: Arc::default(),
        }
    }

    /// Sets the time that further records are stamped with.
    pub fn set_now(&self, now_ms: UnixMs) {
        self.lock().now_ms = now_ms;
    }

    /// Appends what somebody outside published, headers included; returns its sequence.
    pub fn publish(&self, mut record: Record) -> u64 {
        let mut inner = self.lock();
        record.seq = inner.records.len() as u64 + 1;
        record.time_ms = inner.now_ms;
        let seq = record.seq;
        inner.records.push(record);
        drop(inner);
        self.appended.notify_waiters();
        seq
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl EventLog for MemoryLog {
    fn cell(&self) -> &CellId {
        &self.cell
    }

    async fn append(&self, append: &Append) -> Result<Appended, AppendError> {
        {
            let mut inner = self.lock();
            if let Some(seq) = inner.ids.get(&append.id) {
                return Ok(Appended {
                    seq: *seq,
                    is_duplicate: true,
                });
            }
            if let Some(expected) = append.expected_last {
                let last = inner
                    .records
                    .iter()
                    .rev()
                    .find(|r| r.subject == append.subject);
                if last.map_or(0, |r| r.seq) != expected {
                    return Err(AppendError::Conflict);
                }
            }
            let seq = inner.records.len() as u64 + 1;
            inner.ids.insert(append.id.clone(), seq);
        }
        let seq = self.publish(Record {
            seq: 0,
            time_ms: 0,
            subject: append.subject.clone(),
            content_type: None,
            reply: None,
            traceparent: None,
            payload: append.payload.clone(),
        });
        Ok(Appended {
            seq,
            is_duplicate: false,
        })
    }

    async fn tail(&self, from: u64, subjects: Vec<String>) -> Result<Box<dyn Tail>, LogError> {
        let subjects = subjects.into_iter().collect();
        Ok(Box::new(MemoryTail {
            log: self.clone(),
            next: from.max(1),
            subjects,
        }))
    }

    async fn read(&self, seq: u64) -> Result<Option<Record>, LogError> {
        let index = usize::try_from(seq.saturating_sub(1)).unwrap_or(usize::MAX);
        Ok(self
            .lock()
            .records
            .get(index)
            .filter(|r| r.seq == seq)
            .cloned())
    }

    async fn last_on(&self, subject: &str) -> Result<Option<Record>, LogError> {
        Ok(self
            .lock()
            .records
            .iter()
            .rev()
            .find(|r| r.subject == subject)
            .cloned())
    }

    async fn last_seq(&self) -> Result<u64, LogError> {
        Ok(self.lock().records.len() as u64)
    }
}

#[async_trait]
impl SnapshotStore for MemoryLog {
    async fn save(&self, name: SnapshotName, bytes: Bytes) -> Result<(), LogError> {
        self.lock().snapshots.insert(name.0, bytes);
        Ok(())
    }

    async fn list(&self) -> Result<Vec<SnapshotName>, LogError> {
        Ok(self
            .lock()
            .snapshots
            .keys()
            .rev()
            .map(|seq| SnapshotName(*seq))
            .collect())
    }

    async fn load(&self, name: SnapshotName) -> Result<Bytes, LogError> {
        let found = self.lock().snapshots.get(&name.0).cloned();
        found.ok_or_else(|| LogError::Refused(format!("there is no snapshot at {}", name.0)))
    }
}

struct MemoryTail {
    log: MemoryLog,
    next: u64,
    subjects: BTreeSet<String>,
}

#[async_trait]
impl Tail for MemoryTail {
    async fn next(&mut self) -> Result<TailBatch, LogError> {
        loop {
            let appended = Arc::clone(&self.log.appended);
            let notified = appended.notified();
            let batch = self.ready();
            if !batch.records.is_empty() {
                return Ok(batch);
            }
            notified.await;
        }
    }
}

impl MemoryTail {
    fn ready(&mut self) -> TailBatch {
        let inner = self.log.lock();
        let start = usize::try_from(self.next - 1).unwrap_or(usize::MAX);
        let all = inner.records.get(start..).unwrap_or_default();
        let wanted = all
            .iter()
            .filter(|r| self.subjects.is_empty() || self.subjects.contains(&r.subject));
        let records: Vec<Record> = wanted.take(BATCH_MAX).cloned().collect();
        if let Some(last) = records.last() {
            self.next = last.seq + 1;
        }
        let pending = (inner.records.len() as u64).saturating_sub(self.next - 1);
        TailBatch { records, pending }
    }
}
