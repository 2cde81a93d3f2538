use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use conductor_domain::Record;
use conductor_eventlog::memory::MemoryLog;
use conductor_eventlog::{Append, AppendError, Appended, LogError, Tail};
use conductor_protocol::frame::{self, Encoding};
use conductor_protocol::spec::{ClaudeSpec, NoopSpec, RunSpec};
use futures::future::join_all;

use super::*;

/// A log in memory that answers when a test lets it, and fails as told.
#[derive(Debug)]
struct TestLog {
    cell: CellId,
    log: Mutex<MemoryLog>,
    /// One permit for each answer.
    gate: Semaphore,
    /// So many appends are stored and their answers lost.
    lost: AtomicUsize,
    /// Larger records are refused; in bytes.
    bytes_max: AtomicUsize,
}

#[async_trait]
impl EventLog for TestLog {
    fn cell(&self) -> &CellId {
        &self.cell
    }

    async fn append(&self, append: &Append) -> Result<Appended, AppendError> {
        self.gate.acquire().await.unwrap().forget();
        if append.payload.len() > self.bytes_max.load(Ordering::Relaxed) {
            return Err(AppendError::Refused("too large".to_owned()));
        }
        let appended = self.log.lock().unwrap().append(append, 1)?;
        let less = |n: usize| n.checked_sub(1);
        let lost = self
            .lost
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        match lost {
            Ok(_) => Err(AppendError::Unavailable("the answer was lost".to_owned())),
            Err(_) => Ok(appended),
        }
    }

    async fn tail(&self, _: u64, _: Vec<String>) -> Result<Box<dyn Tail>, LogError> {
        Err(LogError::Refused("nobody follows it".to_owned()))
    }

    async fn read(&self, seq: u64) -> Result<Option<Record>, LogError> {
        Ok(self.log.lock().unwrap().read(seq).cloned())
    }

    async fn last_on(&self, subject: &str) -> Result<Option<Record>, LogError> {
        Ok(self.log.lock().unwrap().last_on(subject).cloned())
    }

    async fn last_seq(&self) -> Result<u64, LogError> {
        Ok(self.records())
    }
}

impl TestLog {
    /// One that gives so many answers until more are allowed.
    fn with(answers: usize) -> Arc<Self> {
        Arc::new(Self {
            cell: CellId::default(),
            log: Mutex::default(),
            gate: Semaphore::new(answers),
            lost: AtomicUsize::new(0),
            bytes_max: AtomicUsize::new(usize::MAX),
        })
    }

    fn open() -> Arc<Self> {
        Self::with(Semaphore::MAX_PERMITS)
    }

    fn submitter(self: &Arc<Self>) -> Submitter {
        Submitter::new(Arc::clone(self) as Arc<dyn EventLog>)
    }

    fn records(&self) -> u64 {
        self.log.lock().unwrap().last_seq()
    }

    /// The name of the submission at a position.
    fn name_at(&self, at: Position) -> String {
        let log = self.log.lock().unwrap();
        let mut elements =
            frame::split_public(Encoding::Msgpack, &log.read(at.seq).unwrap().payload)
                .unwrap()
                .into_iter()
                .map(|e| Submission::read(Encoding::Msgpack, e));
        let (submission, errors) = elements.nth(at.index as usize).unwrap();
        assert!(errors.is_empty(), "{errors:?}");
        submission.name.unwrap()
    }
}

fn noop(name: impl Into<String>) -> Submission {
    Submission {
        name: Some(name.into()),
        run: Some(RunSpec::Noop(NoopSpec {})),
        ..Submission::default()
    }
}

fn large(name: &str, bytes: usize) -> Submission {
    let prompt = ClaudeSpec {
        prompt: "x".repeat(bytes),
        ..ClaudeSpec::default()
    };
    Submission {
        run: Some(RunSpec::Claude(Box::new(prompt))),
        ..noop(name)
    }
}

fn queue(name: &str) -> QueueName {
    name.parse().unwrap()
}

/// Lets everybody else run until they wait for something that does not come.
async fn settle() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn submissions_gather_while_an_append_is_in_flight() {
    let log = TestLog::with(0);
    let (submitter, queue) = (log.submitter(), queue("q"));
    let tasks: Vec<_> = (0..100).map(|n| noop(format!("t{n}"))).collect();
    let calls = join_all(tasks.iter().map(|t| submitter.submit(&queue, t)));
    let opened = async {
        settle().await;
        log.gate.add_permits(Semaphore::MAX_PERMITS);
    };
    let first = submitter.submit(&queue, &tasks[0]);
    let (_, positions, ()) = tokio::join!(first, calls, opened);
    let positions: BTreeSet<_> = positions.into_iter().map(Result::unwrap).collect();
    assert_eq!(positions.len(), 100, "each stands by itself");
    assert_eq!(log.records(), 1, "all were there before the first append");
}

#[tokio::test]
async fn what_comes_later_goes_into_the_next_record() {
    let log = TestLog::with(0);
    let (submitter, q) = (log.submitter(), queue("q"));
    let (one, many) = (noop("one"), vec![noop("a"), noop("b"), noop("c")]);
    let other = queue("other");
    let later = async {
        settle().await;
        let both = async {
            settle().await;
            log.gate.add_permits(3);
        };
        let elsewhere = submitter.submit(&other, &one);
        let (many, elsewhere, ()) = tokio::join!(submitter.submit_all(&q, &many), elsewhere, both);
        (many.unwrap(), elsewhere.unwrap())
    };
    let (first, (positions, elsewhere)) = tokio::join!(submitter.submit(&q, &one), later);
    assert_eq!(first.unwrap(), Position::new(1, 0));
    assert_eq!(
        elsewhere,
        Position::new(2, 0),
        "queues do not wait for each other"
    );
    assert_eq!(positions, [0, 1, 2].map(|i| Position::new(3, i)));
    for (at, task) in positions.iter().zip(&many) {
        assert_eq!(Some(log.name_at(*at)), task.name);
    }
}

#[tokio::test]
async fn an_append_whose_answer_is_lost_is_stored_once() {
    let log = TestLog::open();
    log.lost.store(3, Ordering::Relaxed);
    let (submitter, queue) = (log.submitter(), queue("q"));
    let at = submitter.submit(&queue, &noop("a")).await.unwrap();
    assert_eq!((log.name_at(at).as_str(), log.records()), ("a", 1));
}

#[tokio::test]
async fn a_call_may_spread_over_records_and_learns_what_was_refused() {
    let log = TestLog::open();
    let (submitter, queue) = (log.submitter(), queue("q"));
    let call = [
        large("a", 500_000),
        large("b", 400_000),
        noop("c"),
        large("d", 500_000),
    ];
    let positions = submitter.submit_all(&queue, &call).await.unwrap();
    let places = [(1, 0), (2, 0), (2, 1), (3, 0)].map(|(seq, i)| Position::new(seq, i));
    assert_eq!(positions, places);
    log.bytes_max.store(450_000, Ordering::Relaxed);
    let (refused, fine) = tokio::join!(submitter.submit_all(&queue, &call), async {
        submitter.submit(&queue, &noop("e")).await
    });
    let Err(SubmitError::Refused { stored, .. }) = refused else {
        panic!("{refused:?}");
    };
    let is_stored: Vec<bool> = stored.iter().map(Option::is_some).collect();
    assert_eq!(is_stored, [false, true, true, false]);
    assert!(
        matches!(fine, Err(SubmitError::Refused { .. })),
        "it shared the last record"
    );
    assert!(submitter.submit(&queue, &noop("f")).await.is_ok());
}

#[tokio::test]
async fn what_cannot_share_a_record_is_refused_alone() {
    let log = TestLog::open();
    let (submitter, queue) = (log.submitter(), queue("q"));
    let call = [noop("a"), large("b", SPEC_BYTES_MAX)];
    let too_large = submitter.submit_all(&queue, &call).await.unwrap_err();
    assert!(matches!(too_large, SubmitError::TooLarge { index: 1, .. }));
    let text = too_large.to_string();
    assert!(text.contains("524288") && text.contains("file"), "{text}");
    let by_name = Submission {
        needs: vec!["a".to_owned()],
        ..noop("b")
    };
    let refused = submitter.submit(&queue, &by_name).await;
    assert!(matches!(refused, Err(SubmitError::NeedByName { .. })));
    assert_eq!(log.records(), 0);
    assert_eq!(submitter.submit_all(&queue, &[]).await.unwrap(), []);
    assert!(submitter.submit(&queue, &call[0]).await.is_ok());
}

#[tokio::test]
async fn whoever_submits_faster_than_the_log_takes_waits() {
    let log = TestLog::with(0);
    let (submitter, queue) = (log.submitter(), queue("q"));
    let task = large("a", 500_000);
    let many = vec![task.clone(); 20];
    let opened = async {
        settle().await;
        let room = submitter.room.available_permits();
        assert!(room < 500_000, "{room} bytes of room are left");
        log.gate.add_permits(Semaphore::MAX_PERMITS);
    };
    let calls = join_all((0..20).map(|_| submitter.submit(&queue, &task)));
    let more = submitter.submit_all(&queue, &many);
    let (stored, larger_than_all_room, ()) = tokio::join!(calls, more, opened);
    assert!(stored.iter().all(Result::is_ok));
    assert_eq!(larger_than_all_room.unwrap().len(), 20);
    assert_eq!(submitter.room.available_permits(), WAITING_BYTES_MAX);
}

#[tokio::test]
async fn what_was_handed_over_is_stored_though_nobody_waits() {
    let log = TestLog::with(0);
    let (submitter, queue) = (log.submitter(), queue("q"));
    let clone = submitter.clone();
    let caller = tokio::spawn(async move { clone.submit(&queue, &noop("a")).await });
    settle().await;
    caller.abort();
    assert!(caller.await.unwrap_err().is_cancelled());
    drop(submitter);
    settle().await;
    assert_eq!(
        Arc::strong_count(&log),
        3,
        "the task and its append are there"
    );
    log.gate.add_permits(1);
    settle().await;
    assert_eq!(log.records(), 1);
    assert_eq!(Arc::strong_count(&log), 1, "the task has ended");
}
