//! Following the log: every record, in order, through reconnects; gaps are reported.

use std::sync::Arc;
use std::time::Duration;

use conductor_domain::{Decoded, Record, record};
use conductor_eventlog::{EventLog, LogError, Tail, TailBatch};

/// Sequences that the log should hold and does not (design section 5: a flipped bit in
/// a block file can make the server drop messages without a word).
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Gap {
    /// First missing sequence.
    pub from: u64,
    /// Last missing sequence.
    pub to: u64,
}

impl std::fmt::Display for Gap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.from, self.to)
    }
}

/// Adds gaps to those known before; those that touch become one.
pub(crate) fn add_gaps(known: &mut Vec<Gap>, more: impl IntoIterator<Item = Gap>) {
    for gap in more {
        match known.last_mut() {
            Some(last) if last.to + 1 == gap.from => last.to = gap.to,
            _ => known.push(gap),
        }
    }
}

/// Records in log order, read.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// At least one, unless there are gaps.
    pub records: Vec<Decoded>,
    /// Sequences found missing before or between them.
    pub gaps: Vec<Gap>,
    /// How many more the log held when the last of them was delivered.
    pub pending: u64,
}

impl Batch {
    fn take(&mut self, other: Self) {
        self.records.extend(other.records);
        add_gaps(&mut self.gaps, other.gaps);
    }
}

/// Follows the whole log from a sequence on.
pub struct Follower {
    log: Arc<dyn EventLog>,
    next: u64,
    /// The last record handed on: when the tail is opened again, it must still be there.
    last: Option<Record>,
    tail: Option<Box<dyn Tail>>,
    pause: Duration,
    /// Records up to here do not come by the tail, and are asked for one by one.
    asks_up_to: u64,
    /// How often in a row what was read last was found lost.
    times_lost: u32,
}

impl std::fmt::Debug for Follower {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Follower")
            .field("next", &self.next)
            .finish_non_exhaustive()
    }
}

const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// How long the log may be silent about records that are said to be there.
const SILENCE_MAX: Duration = Duration::from_secs(5);
/// Most records asked for one by one before what was found is handed on.
const FETCH_MAX: u64 = 256;
/// How often what was read last must be found lost before that is believed, which takes some
/// nine seconds: a server that has just begun to lead may not know all of it yet.
const LOST_TIMES: u32 = 10;

impl Follower {
    /// Follows from sequence `next` on.
    pub fn new(log: Arc<dyn EventLog>, next: u64) -> Self {
        Self {
            log,
            next: next.max(1),
            last: None,
            tail: None,
            pause: PAUSE_MIN,
            asks_up_to: 0,
            times_lost: 0,
        }
    }

    /// The next records, however long the log is away in between; an error only when what was
    /// read before is lost, so that reading on would mix two histories.
    pub async fn next(&mut self) -> Result<Batch, LogError> {
        loop {
            match self.try_next().await {
                Ok(batch) if batch.records.is_empty() && batch.gaps.is_empty() => {}
                Ok(batch) => return Ok(batch),
                Err(e @ LogError::Lost(_)) if self.times_lost >= LOST_TIMES => return Err(e),
                Err(e) => {
                    tracing::warn!(error = %e, retry_in = ?self.pause, "the tail broke off");
                    tokio::time::sleep(self.pause).await;
                    self.pause = (self.pause * 2).min(PAUSE_MAX);
                }
            }
        }
    }

    /// The next records, or why there are none; trying again goes on where it stopped.
    pub async fn try_next(&mut self) -> Result<Batch, LogError> {
        let batch = self.tail().await?.next().await;
        self.came(batch).await
    }

    /// The same, where records up to `last` are said to be there: those that do not come are
    /// asked for one by one, so that at the latest then it is known which are missing. The
    /// batch may be empty but for gaps.
    pub async fn try_next_up_to(&mut self, last: u64) -> Result<Batch, LogError> {
        if self.next <= self.asks_up_to {
            return self.fetch(last).await;
        }
        match tokio::time::timeout(SILENCE_MAX, self.tail().await?.next()).await {
            Ok(batch) => self.came(batch).await,
            Err(_) => {
                self.tail = None;
                self.asks_up_to = last;
                self.fetch(last).await
            }
        }
    }

    /// The tail, opened where it is not.
    async fn tail(&mut self) -> Result<&mut Box<dyn Tail>, LogError> {
        if self.tail.is_none() {
            let checked = check_history(self.log.as_ref(), self.next, self.last.as_ref()).await;
            self.times_lost = match checked {
                Err(LogError::Lost(_)) => self.times_lost + 1,
                _ => 0,
            };
            checked?;
            self.tail = Some(self.log.tail(self.next, Vec::new()).await?);
        }
        let closed = || LogError::Unavailable("there is no tail".to_owned());
        self.tail.as_mut().ok_or_else(closed)
    }

    async fn came(&mut self, batch: Result<TailBatch, LogError>) -> Result<Batch, LogError> {
        match batch {
            Ok(batch) => {
                self.pause = PAUSE_MIN;
                self.read(batch).await
            }
            Err(e) => {
                self.tail = None;
                Err(e)
            }
        }
    }

    /// The sequence that comes next.
    pub fn next_seq(&self) -> u64 {
        self.next
    }

    /// The tail left out records up to `to`: they may be damaged on the server that it comes
    /// from and whole on another, so each is asked for; not all at once, so that what is found
    /// is handed on even if the rest takes long.
    async fn fetch(&mut self, to: u64) -> Result<Batch, LogError> {
        let mut out = Batch::default();
        let from = self.next;
        for seq in from..=to.min(from + FETCH_MAX - 1) {
            match self.log.read(seq).await {
                Ok(Some(record)) => {
                    out.records.push(record::decode(self.log.cell(), &record));
                    self.last = Some(record);
                }
                Ok(None) => add_gaps(&mut out.gaps, [Gap { from: seq, to: seq }]),
                Err(e) if seq == from => return Err(e),
                Err(_) => break,
            }
            self.next = seq + 1;
        }
        out.pending = (to + 1).saturating_sub(self.next);
        if !out.records.is_empty() {
            let (found, upto) = (out.records.len(), self.next - 1);
            tracing::warn!(
                from,
                upto,
                found,
                "a server left out records that others have; it may be damaged"
            );
        }
        Ok(out)
    }

    async fn read(&mut self, batch: TailBatch) -> Result<Batch, LogError> {
        let mut out = Batch {
            pending: batch.pending,
            ..Batch::default()
        };
        for item in batch.records {
            if item.seq < self.next {
                continue;
            }
            if item.seq > self.next {
                match self.fetch(item.seq - 1).await {
                    Ok(fetched) => out.take(fetched),
                    Err(e) if out.records.is_empty() => {
                        self.tail = None;
                        return Err(e);
                    }
                    Err(_) => {}
                }
            }
            if item.seq > self.next {
                // Until it is known what is there, only what came before is handed on, and the
                // tail begins again from there.
                self.tail = None;
                out.pending = out.pending.max(1);
                break;
            }
            self.next = item.seq + 1;
            out.records.push(record::decode(self.log.cell(), &item));
            self.last = Some(item);
        }
        Ok(out)
    }
}

/// A server that lost the end of its log gives the lost sequences out again: whoever has
/// read the first records there must not take the second for their continuation.
async fn check_history(
    log: &dyn EventLog,
    next: u64,
    last: Option<&Record>,
) -> Result<(), LogError> {
    let Some(last) = last else {
        // It begins after a snapshot, which may hold what the log has lost.
        let end = if next > 1 { log.last_seq().await? } else { 0 };
        if next > 1 && end + 1 < next {
            return Err(LogError::Lost(format!(
                "it ends at record {end}, and a snapshot holds all up to {}",
                next - 1
            )));
        }
        return Ok(());
    };
    let problem = match log.read(last.seq).await? {
        Some(record) if record == *last => return Ok(()),
        Some(_) => "another record stands there now",
        None if log.last_seq().await? < last.seq => "the log ends before it",
        None => {
            // Nothing was put in its place: what follows still follows.
            tracing::error!(
                seq = last.seq,
                "the log has lost records since they were read: see `conductor replay`"
            );
            return Ok(());
        }
    };
    let seq = last.seq;
    tracing::error!(
        seq,
        problem,
        "the log has lost its end: a record that was read is not there"
    );
    Err(LogError::Lost(format!(
        "record {seq} was read, and {problem}"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;
    use async_trait::async_trait;
    use conductor_domain::Record;
    use conductor_eventlog::{Append, AppendError, Appended};
    use conductor_protocol::CellId;
    use std::collections::VecDeque;
    use std::sync::Mutex;

    /// A log that does as it is told: what each tail hands out, and what each look finds.
    #[derive(Debug)]
    struct Scripted {
        cell: CellId,
        tails: Mutex<VecDeque<Vec<u64>>>,
        looks: Mutex<VecDeque<Result<bool, ()>>>,
        opened_at: Mutex<Vec<u64>>,
        /// What became of the end of the log: a later time of the last record, or the new end.
        end: Mutex<(u64, u64)>,
    }

    /// What it hands out; then it ends, or is silent.
    struct ScriptedTail(Option<Vec<u64>>, bool);

    fn record(seq: u64) -> Record {
        Record {
            seq,
            time_ms: seq,
            subject: "conductor.local.control".into(),
            content_type: None,
            reply: None,
            traceparent: None,
            payload: bytes::Bytes::new(),
        }
    }

    #[async_trait]
    impl Tail for ScriptedTail {
        async fn next(&mut self) -> Result<TailBatch, LogError> {
            let Some(seqs) = self.0.take() else {
                if self.1 {
                    std::future::pending::<()>().await;
                }
                return Err(LogError::Unavailable("over".into()));
            };
            Ok(TailBatch {
                records: seqs.into_iter().map(record).collect(),
                pending: 0,
            })
        }
    }

    #[async_trait]
    impl EventLog for Scripted {
        fn cell(&self) -> &CellId {
            &self.cell
        }
        async fn append(&self, _: &Append) -> Result<Appended, AppendError> {
            unreachable!()
        }
        async fn tail(&self, from: u64, _: Vec<String>) -> Result<Box<dyn Tail>, LogError> {
            self.opened_at.lock().unwrap().push(from);
            let records = self.tails.lock().unwrap().pop_front();
            Ok(Box::new(ScriptedTail(records, false)))
        }
        async fn read(&self, seq: u64) -> Result<Option<Record>, LogError> {
            let (later, end) = *self.end.lock().unwrap();
            if self.looks.lock().unwrap().is_empty() {
                let mut found = record(seq);
                found.time_ms += later;
                return Ok((seq <= end).then_some(found));
            }
            match self.looks.lock().unwrap().pop_front().unwrap() {
                Ok(is_there) => Ok(is_there.then(|| record(seq))),
                Err(()) => Err(LogError::Unavailable("away".into())),
            }
        }
        async fn last_on(&self, _: &str) -> Result<Option<Record>, LogError> {
            unreachable!()
        }
        async fn last_seq(&self) -> Result<u64, LogError> {
            Ok(self.end.lock().unwrap().1)
        }
    }

    fn follow(tails: &[&[u64]], looks: &[Result<bool, ()>]) -> (Arc<Scripted>, Follower) {
        let log = Arc::new(Scripted {
            cell: "local".parse().unwrap(),
            tails: Mutex::new(tails.iter().map(|t| t.to_vec()).collect()),
            looks: Mutex::new(looks.iter().copied().collect()),
            opened_at: Mutex::new(Vec::new()),
            end: Mutex::new((0, u64::MAX)),
        });
        (Arc::clone(&log), Follower::new(log, 1))
    }

    fn seqs(batch: &Batch) -> Vec<u64> {
        batch.records.iter().map(|r| r.seq).collect()
    }

    #[tokio::test]
    async fn a_record_that_is_really_missing_is_a_gap() {
        let (_, mut follower) = follow(&[&[1, 2, 4]], &[Ok(false)]);
        let batch = follower.try_next().await.unwrap();
        assert_eq!(
            (seqs(&batch), batch.gaps),
            (vec![1, 2, 4], vec![Gap { from: 3, to: 3 }])
        );
    }

    #[tokio::test]
    async fn nothing_is_skipped_when_it_cannot_be_known_whether_a_record_is_missing() {
        let (log, mut follower) = follow(&[&[1, 2, 4], &[3, 4]], &[Err(())]);
        let first = follower.try_next().await.unwrap();
        assert_eq!((seqs(&first), first.gaps.len()), (vec![1, 2], 0));
        let second = follower.try_next().await.unwrap();
        assert_eq!((seqs(&second), second.gaps.len()), (vec![3, 4], 0));
        assert_eq!(*log.opened_at.lock().unwrap(), [1, 3]);
    }

    #[tokio::test]
    async fn what_one_server_left_out_is_taken_from_another() {
        let looks = [Ok(true), Ok(false), Ok(false), Ok(true)];
        let (_, mut follower) = follow(&[&[1, 6]], &looks);
        let batch = follower.try_next().await.unwrap();
        assert_eq!(
            (seqs(&batch), batch.gaps),
            (vec![1, 2, 5, 6], vec![Gap { from: 3, to: 4 }])
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_record_that_is_missing_at_the_very_end_is_a_gap() {
        let (_, mut follower) = follow(&[&[1, 2]], &[Ok(false)]);
        assert_eq!(seqs(&follower.try_next_up_to(3).await.unwrap()), [1, 2]);
        follower.tail = Some(Box::new(ScriptedTail(None, true)));
        let batch = follower.try_next_up_to(3).await.unwrap();
        assert_eq!(batch.gaps, [Gap { from: 3, to: 3 }]);
        assert_eq!(follower.next_seq(), 4);
    }

    #[tokio::test]
    async fn a_log_that_ends_before_the_snapshot_is_not_read() {
        let (log, _) = follow(&[&[5]], &[]);
        let mut follower = Follower::new(Arc::clone(&log) as Arc<dyn EventLog>, 5);
        *log.end.lock().unwrap() = (0, 3);
        assert!(follower.try_next().await.is_err());
        *log.end.lock().unwrap() = (0, 4);
        assert_eq!(seqs(&follower.try_next().await.unwrap()), [5]);
    }

    #[tokio::test]
    async fn what_was_handed_on_before_is_not_handed_on_again() {
        let (_, mut follower) = follow(&[&[1, 2, 2, 1, 3]], &[]);
        assert_eq!(seqs(&follower.try_next().await.unwrap()), [1, 2, 3]);
    }

    #[tokio::test]
    async fn a_log_that_lost_its_end_is_not_read_on_until_it_is_back() {
        let (log, mut follower) = follow(&[&[1, 2, 3], &[4]], &[]);
        assert_eq!(seqs(&follower.try_next().await.unwrap()), [1, 2, 3]);
        follower.tail = None;
        // It ends before, then it has grown again with other records.
        for lost in [(0, 2), (1, u64::MAX)] {
            *log.end.lock().unwrap() = lost;
            assert!(follower.try_next().await.is_err(), "{lost:?}");
        }
        *log.end.lock().unwrap() = (0, u64::MAX);
        assert_eq!(seqs(&follower.try_next().await.unwrap()), [4]);
        assert_eq!(*log.opened_at.lock().unwrap(), [1, 4]);
    }
}
