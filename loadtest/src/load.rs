//! The load: a generator that submits and an observer that reads what became of it, in a
//! process of their own.

mod begun;
mod observer;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use conductor_client::Submitter;
use conductor_eventlog::EventLog;
use conductor_eventlog::jetstream::Connection;
use conductor_protocol::submission::Submission;
use conductor_protocol::{CellId, QueueName};
use futures::future::try_join_all;
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::arrivals::Schedule;
use crate::book::{self, Book};
use crate::latency::Latency;
use crate::outcome::{Outcome, say};
use crate::plan::{Arrivals, LoadPlan, Submit, Target};
use crate::publisher::Publisher;
use crate::workload::Workload;

/// Calls of the client library under way at once, per connection.
const CALLERS: usize = 8;
/// Most groups of tasks in one call of the client library.
const CALL_MAX: usize = 500;
/// What is said once everything was submitted and acknowledged.
pub(crate) const SUBMITTED: &str = "everything is submitted";
/// Name of the latency until attempts began by the times of their records.
pub(crate) const BY_LOG: &str = "submit to started, by the log";
/// The queue tasks are submitted to.
const QUEUE: &str = "default";

/// What happened in one second.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Second {
    /// Tasks acknowledged.
    pub(crate) acked: u64,
    /// Attempts begun.
    pub(crate) started: u64,
    /// Tasks ended.
    pub(crate) ended: u64,
}

/// What the load saw.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct LoadResult {
    /// The measured window by the machine's clock, in milliseconds since 1970.
    pub(crate) window_ms: (u64, u64),
    /// Seconds of the window.
    pub(crate) seconds: f64,
    /// Tasks acknowledged in the window, a second.
    pub(crate) acked_per_s: f64,
    /// Attempts begun in the window, a second.
    pub(crate) started_per_s: f64,
    /// Tasks ended in the window, a second.
    pub(crate) ended_per_s: f64,
    /// Attempts begun a second, between the first and the last of all.
    pub(crate) begun_per_s: f64,
    /// Tasks submitted in all.
    pub(crate) submitted: u64,
    /// Of them, those whose submission failed.
    pub(crate) failed: u64,
    /// Tasks acknowledged in all.
    pub(crate) acked: u64,
    /// Tasks ended in all, each counted once.
    pub(crate) ended: u64,
    /// Every how many tasks were timed.
    pub(crate) timed_every: u64,
    /// Bytes of a submission.
    pub(crate) bytes: usize,
    /// By name.
    pub(crate) latencies: Vec<(String, Latency)>,
    /// From the beginning on.
    pub(crate) series: Vec<Second>,
}

/// How tasks are handed over.
enum Senders {
    Gather(Vec<Submitter>),
    Single(Vec<Publisher>),
}

struct Load {
    plan: LoadPlan,
    workload: Workload,
    book: Arc<Book>,
    /// Tasks that may be submitted now, where arrivals are closed.
    free: Arc<Semaphore>,
    next_group: AtomicU64,
    queue: QueueName,
    senders: Senders,
}

/// Loads the target as planned.
pub(crate) fn main(target: &Target, plan: LoadPlan) -> Outcome<LoadResult> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(run(target, plan))
}

async fn connect(target: &Target, name: &str) -> Outcome<Arc<Connection>> {
    Ok(Arc::new(Connection::open(&target.connect(name)?).await?))
}

async fn senders(target: &Target, plan: &LoadPlan) -> Outcome<Senders> {
    let (cell, queue): (CellId, QueueName) = (target.cell.parse()?, QUEUE.parse()?);
    let n = plan.connections.max(1);
    let client = target.as_client();
    Ok(match plan.submit {
        Submit::Gather => {
            let connections = (0..n).map(|_| connect(&client, "loadtest-submit"));
            let connections = try_join_all(connections).await?;
            let submitters = connections
                .into_iter()
                .map(|c| Submitter::new(c as Arc<dyn EventLog>));
            Senders::Gather(submitters.collect())
        }
        Submit::Single => {
            let connecting = (0..n).map(|_| Publisher::connect(&target.url, &cell, &queue));
            Senders::Single(try_join_all(connecting).await?)
        }
    })
}

async fn run(target: &Target, plan: LoadPlan) -> Outcome<LoadResult> {
    let log: Arc<dyn EventLog> = connect(target, "loadtest-observe").await?;
    let from = log.last_seq().await? + 1;
    let workload = Workload::new(plan.workload, plan.bytes, fastrand::u16(..));
    let per_second = match plan.arrivals {
        // A few in flight are slow enough for all of them to be timed.
        Arrivals::Closed => plan.in_flight as f64 * 100.0,
        _ => plan.rate,
    };
    let every = book::timed_every(plan.workload, per_second);
    let senders = senders(target, &plan).await?;
    let book = Arc::new(Book::new(&workload, every));
    let free = plan.in_flight.max(workload.group_size() as usize);
    let load = Arc::new(Load {
        free: Arc::new(Semaphore::new(free)),
        next_group: AtomicU64::new(0),
        queue: QUEUE.parse()?,
        senders,
        workload,
        book,
        plan,
    });
    let (workload, book, free) = (load.workload.clone(), &load.book, &load.free);
    let observing = load.plan.observe.then(|| {
        let observed = observer::observe(log, from, workload, Arc::clone(book), Arc::clone(free));
        tokio::spawn(observed)
    });
    generate(&load).await?;
    say(SUBMITTED);
    if load.plan.observe && load.plan.drain {
        drain(&load.book, Duration::from_secs_f64(load.plan.patience)).await;
    }
    if let Some(observing) = observing {
        observing.abort();
    }
    let has_ended = load.book.ended.load(Ordering::Relaxed) > 0;
    let mut begun = HashMap::new();
    if load.plan.by_log && has_ended {
        begun = begun::begun(target, from, &load.workload, &load.book).await?;
    }
    Ok(load.result(every, &begun))
}

/// Submits until the plan's time is over, or its count reached.
async fn generate(load: &Arc<Load>) -> Outcome<()> {
    let time = Duration::from_secs_f64(load.plan.warmup + load.plan.duration);
    if load.plan.arrivals != Arrivals::Closed {
        return open(load, time).await;
    }
    let mut workers = JoinSet::new();
    for worker in 0..load.workers() {
        workers.spawn(closed(Arc::clone(load), worker));
    }
    let all = async { while workers.join_next().await.is_some() {} };
    if load.plan.count.is_some() {
        all.await;
    } else if tokio::time::timeout(time, all).await.is_err() {
        load.free.close();
        while workers.join_next().await.is_some() {}
    }
    Ok(())
}

/// Submits whenever there is room for more.
async fn closed(load: Arc<Load>, worker: usize) {
    let size = load.workload.group_size();
    let last = load.plan.count.map_or(u64::MAX, |n| n / size);
    let call = load.groups_per_call() as u64;
    loop {
        let first = load.next_group.fetch_add(call, Ordering::Relaxed);
        if first >= last {
            return;
        }
        let groups = call.min(last - first);
        // No more room than it needs: the last call would wait for ends that wait for it.
        let Ok(permit) = load.free.acquire_many((groups * size) as u32).await else {
            return;
        };
        permit.forget();
        let now = load.book.now();
        load.send(worker, first, &vec![now; groups as usize]).await;
    }
}

/// Submits at the planned times, however many are still in flight. A thread of its own keeps
/// the time: timers of the runtime are a millisecond coarse.
async fn open(load: &Arc<Load>, time: Duration) -> Outcome<()> {
    let runtime = tokio::runtime::Handle::current();
    let pacing = Arc::clone(load);
    let paced = tokio::task::spawn_blocking(move || {
        let load = pacing;
        let group = load.workload.group_size() as f64;
        let rate = load.plan.rate / group;
        let mut schedule = Schedule::new(load.plan.arrivals, rate, fastrand::u64(..));
        let (begin, end) = (load.book.now(), time.as_nanos() as u64);
        let mut sent = Vec::new();
        loop {
            let now = load.book.now() - begin;
            if now >= end {
                return sent;
            }
            let due = schedule.due(now);
            for call in due.chunks(CALL_MAX) {
                let intended: Vec<u64> = call.iter().map(|at| at + begin).collect();
                let n = intended.len() as u64;
                let first = load.next_group.fetch_add(n, Ordering::Relaxed);
                let load = Arc::clone(&load);
                sent.push(runtime.spawn(async move { load.send(0, first, &intended).await }));
            }
            let next = Duration::from_nanos(schedule.next_ns().saturating_sub(now));
            // One call a millisecond carries all that arrive in it.
            std::thread::sleep(next.clamp(Duration::from_micros(20), Duration::from_millis(100)));
        }
    });
    for sent in paced.await? {
        sent.await?;
    }
    Ok(())
}

/// Waits until all that was submitted has ended, or nothing more does.
async fn drain(book: &Book, patience: Duration) {
    let mut seen = (0, tokio::time::Instant::now());
    loop {
        let ended = book.ended.load(Ordering::Relaxed);
        let failed = book.failed.load(Ordering::Relaxed);
        if ended + failed >= book.submitted.load(Ordering::Relaxed) {
            return;
        }
        if ended != seen.0 {
            seen = (ended, tokio::time::Instant::now());
        }
        if seen.1.elapsed() > patience {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

impl Load {
    fn workers(&self) -> usize {
        match &self.senders {
            Senders::Gather(submitters) => submitters.len() * CALLERS,
            Senders::Single(publishers) => publishers.len() * self.plan.publishes,
        }
    }

    /// All callers together keep the window full, and none of them empties it.
    fn groups_per_call(&self) -> usize {
        let window = self.plan.in_flight / self.workload.group_size() as usize;
        match &self.senders {
            Senders::Gather(_) => (window / (2 * self.workers())).clamp(1, CALL_MAX),
            Senders::Single(_) => 1,
        }
    }

    /// Submits groups of tasks and waits until they are in the log.
    async fn send(&self, worker: usize, first: u64, intended: &[u64]) {
        self.book.submit(first, intended);
        let groups = intended.len() as u64;
        let groups_of_tasks = (first..first + groups).map(|group| self.workload.group(group));
        let sent = match &self.senders {
            Senders::Gather(submitters) => {
                let tasks: Vec<Submission> = groups_of_tasks.flatten().collect();
                match submitters.get(worker % submitters.len().max(1)) {
                    Some(submitter) => {
                        let done = submitter.submit_all(&self.queue, &tasks).await;
                        done.map(|_| ()).map_err(Into::into)
                    }
                    None => Ok(()),
                }
            }
            Senders::Single(publishers) => {
                let publishing = groups_of_tasks.enumerate().map(|(i, tasks)| {
                    let publisher = publishers.get((worker + i) % publishers.len().max(1));
                    publish_each(publisher, tasks)
                });
                try_join_all(publishing).await.map(|_| ())
            }
        };
        let tasks = groups * self.workload.group_size();
        // Nobody is told of their end.
        let mut is_over = !self.plan.observe;
        match sent {
            Ok(()) => self.book.acked(first, groups),
            Err(e) => {
                tracing::warn!(error = %e, tasks, "a submission failed");
                self.book.failed.fetch_add(tasks, Ordering::Relaxed);
                is_over = true;
            }
        }
        if is_over {
            self.free.add_permits(tasks as usize);
        }
    }

    fn result(&self, every: u64, begun: &HashMap<u64, u64>) -> LoadResult {
        let closed = self.book.close();
        let last = |tally: &[book::Tally]| tally.last().map_or(0, |(at, _)| *at);
        let (from, to) = match self.plan.count {
            Some(_) => (0, last(&closed.ended).max(last(&closed.acked)) + 1),
            None => {
                let from = (self.plan.warmup * 1e9) as u64;
                (from, from + (self.plan.duration * 1e9) as u64)
            }
        };
        let seconds = (to - from) as f64 / 1e9;
        let per_second = |tally| book::within(tally, from, to) as f64 / seconds;
        let length = (to / 1_000_000_000) as usize + usize::from(self.plan.count.is_some());
        let [acked, started, ended] = [&closed.acked, &closed.started, &closed.ended]
            .map(|tally| book::by_second(tally, length));
        let series = acked.into_iter().zip(started).zip(ended);
        let is_closed = self.plan.arrivals == Arrivals::Closed;
        let task = self.workload.group(0).into_iter().next();
        let mut latencies = book::latencies(&closed.lives, from, to, is_closed);
        let by_log = book::latency_by_log(&closed.lives, from, to, is_closed, begun);
        latencies.extend(by_log.map(|latency| (BY_LOG.to_owned(), latency)));
        LoadResult {
            window_ms: (
                self.book.start_ms() + from / 1_000_000,
                self.book.start_ms() + to / 1_000_000,
            ),
            seconds,
            acked_per_s: per_second(&closed.acked),
            started_per_s: per_second(&closed.started),
            ended_per_s: per_second(&closed.ended),
            begun_per_s: book::rate(&closed.started),
            submitted: self.book.submitted.load(Ordering::Relaxed),
            failed: self.book.failed.load(Ordering::Relaxed),
            acked: book::within(&closed.acked, 0, u64::MAX),
            ended: self.book.ended.load(Ordering::Relaxed),
            timed_every: every,
            bytes: task.and_then(|t| t.encode().ok()).map_or(0, |b| b.len()),
            latencies,
            series: series
                .map(|((acked, started), ended)| Second {
                    acked,
                    started,
                    ended,
                })
                .collect(),
        }
    }
}

/// One after the other, since a task may need the one before.
async fn publish_each(publisher: Option<&Publisher>, tasks: Vec<Submission>) -> Outcome<()> {
    for task in tasks {
        if let Some(publisher) = publisher {
            publisher.publish(task.encode()?.into()).await?;
        }
    }
    Ok(())
}
