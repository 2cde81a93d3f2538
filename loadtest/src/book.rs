//! What became of the tasks: counted all, timed some.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::latency::Latency;
use crate::plan::Kind;
use crate::workload::{Workload, now_unix_ns};

/// How far apart two clocks may be read that are to be compared.
const CLOCKS_APART: Duration = Duration::from_micros(5);

/// Something that happened to so many tasks at a time, in nanoseconds from the beginning.
pub(crate) type Tally = (u64, u64);

/// The life of a task that is timed, in nanoseconds from the beginning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Life {
    /// Its number in the workload.
    number: u64,
    /// When it was meant to be submitted.
    pub(crate) intended: u64,
    acked: Option<u64>,
    started: Option<u64>,
    ended: Option<u64>,
}

/// The moments of a task that are timed.
pub(crate) const MOMENTS: [&str; 3] = ["acked", "started", "ended"];

impl Life {
    /// When something of [`MOMENTS`] happened.
    fn at(&self, moment: &str) -> Option<u64> {
        match moment {
            "acked" => self.acked,
            "started" => self.started,
            _ => self.ended,
        }
    }
}

#[derive(Debug, Default)]
struct Pages {
    living: HashMap<u64, Life>,
    done: Vec<Life>,
    acked: Vec<Tally>,
    started: Vec<Tally>,
    ended: Vec<Tally>,
}

/// What the generator and the observer write down.
#[derive(Debug)]
pub(crate) struct Book {
    start: Instant,
    /// When it began by the machine's clock, in nanoseconds.
    start_unix_ns: u64,
    group: u64,
    every: u64,
    /// Tasks handed to the client.
    pub(crate) submitted: AtomicU64,
    /// Tasks whose submission failed.
    pub(crate) failed: AtomicU64,
    /// Tasks that have ended, each once.
    pub(crate) ended: AtomicU64,
    pages: Mutex<Pages>,
}

/// What there is at the end.
#[derive(Debug, Default)]
pub(crate) struct Closed {
    /// Lives of the tasks that were timed and have ended.
    pub(crate) lives: Vec<Life>,
    /// Acknowledged tasks.
    pub(crate) acked: Vec<Tally>,
    /// Attempts begun.
    pub(crate) started: Vec<Tally>,
    /// Ends.
    pub(crate) ended: Vec<Tally>,
}

impl Book {
    /// Begins a book that times every so many groups of tasks.
    pub(crate) fn new(workload: &Workload, every: u64) -> Self {
        let (start, start_unix_ns) = same_moment();
        Self {
            start,
            start_unix_ns,
            group: workload.group_size(),
            every: every.max(1),
            submitted: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            ended: AtomicU64::new(0),
            pages: Mutex::default(),
        }
    }

    /// When it began by the machine's clock, in milliseconds.
    pub(crate) fn start_ms(&self) -> u64 {
        self.start_unix_ns / 1_000_000
    }

    /// A time of the machine's clock in nanoseconds since the beginning; 0 for any before it.
    pub(crate) fn since_start(&self, unix_ns: u64) -> u64 {
        unix_ns.saturating_sub(self.start_unix_ns)
    }

    /// Nanoseconds since the beginning.
    pub(crate) fn now(&self) -> u64 {
        self.start.elapsed().as_nanos() as u64
    }

    /// Whether a task is timed: the last of every so many groups.
    pub(crate) fn is_timed(&self, number: u64) -> bool {
        number % self.group == self.group - 1 && (number / self.group).is_multiple_of(self.every)
    }

    /// Groups are about to be submitted, each meant for its time.
    pub(crate) fn submit(&self, first: u64, intended: &[u64]) {
        let tasks = intended.len() as u64 * self.group;
        self.submitted.fetch_add(tasks, Ordering::Relaxed);
        let groups = (first..).zip(intended);
        let timed = groups
            .map(|(group, at)| ((group + 1) * self.group - 1, *at))
            .filter(|(number, _)| self.is_timed(*number));
        let timed: Vec<(u64, u64)> = timed.collect();
        if timed.is_empty() {
            return;
        }
        self.write(|pages| {
            for (number, intended) in timed {
                pages.living.entry(number).or_default().intended = intended;
            }
        });
    }

    /// So many groups from `first` on are in the log.
    pub(crate) fn acked(&self, first: u64, groups: u64) {
        let now = self.now();
        self.write(|pages| {
            pages.acked.push((now, groups * self.group));
            for group in first..first + groups {
                let number = (group + 1) * self.group - 1;
                if self.is_timed(number) {
                    pages.moment(number, |life| life.acked = Some(now));
                }
            }
        });
    }

    /// What was read at `now`: attempts begun and tasks ended, and the numbers of those that
    /// are timed.
    pub(crate) fn observed(&self, now: u64, started: u64, ended: u64, timed: &[(u64, bool)]) {
        self.ended.fetch_add(ended, Ordering::Relaxed);
        self.write(|pages| {
            if started > 0 {
                pages.started.push((now, started));
            }
            if ended > 0 {
                pages.ended.push((now, ended));
            }
            for (number, is_end) in timed {
                pages.moment(*number, |life| {
                    let moment = match is_end {
                        true => &mut life.ended,
                        false => &mut life.started,
                    };
                    moment.get_or_insert(now);
                });
            }
        });
    }

    /// Takes out everything that was written.
    pub(crate) fn close(&self) -> Closed {
        self.write(|pages| {
            let pages = std::mem::take(pages);
            Closed {
                lives: pages.done,
                acked: pages.acked,
                started: pages.started,
                ended: pages.ended,
            }
        })
    }

    fn write<T>(&self, what: impl FnOnce(&mut Pages) -> T) -> T {
        // Nothing panics with it in hand; if something did, the numbers stand all the same.
        what(&mut self.pages.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Pages {
    fn moment(&mut self, number: u64, note: impl FnOnce(&mut Life)) {
        let life = self.living.entry(number).or_default();
        life.number = number;
        note(life);
        if life.acked.is_some() && life.ended.is_some() {
            self.done.extend(self.living.remove(&number));
        }
    }
}

/// Both clocks at one moment: read again where something came between.
fn same_moment() -> (Instant, u64) {
    loop {
        let (start, unix_ns) = (Instant::now(), now_unix_ns());
        if start.elapsed() < CLOCKS_APART {
            return (start, unix_ns);
        }
    }
}

/// Every which group is timed: all where there are few, else so many that it costs nothing.
pub(crate) fn timed_every(kind: Kind, tasks_per_second: f64) -> u64 {
    match kind {
        Kind::Chain | Kind::Fan => 1,
        _ if tasks_per_second <= 2_000.0 => 1,
        _ => 64,
    }
}

/// How many of a tally are in `from..to`.
pub(crate) fn within(tally: &[Tally], from: u64, to: u64) -> u64 {
    let inside = tally.iter().filter(|(at, _)| (from..to).contains(at));
    inside.map(|(_, n)| n).sum()
}

/// How many a second, between the first and the last.
pub(crate) fn rate(tally: &[Tally]) -> f64 {
    let (Some(first), Some(last)) = (tally.first(), tally.last()) else {
        return 0.0;
    };
    // What was there with the first had been done before.
    let n: u64 = tally.iter().skip(1).map(|(_, n)| n).sum();
    n as f64 * 1e9 / (last.0 - first.0).max(1) as f64
}

/// A tally second by second.
pub(crate) fn by_second(tally: &[Tally], seconds: usize) -> Vec<u64> {
    let mut out = vec![0; seconds];
    for (at, n) in tally {
        if let Some(second) = out.get_mut((at / 1_000_000_000) as usize) {
            *second += n;
        }
    }
    out
}

/// Latencies until each of [`MOMENTS`], of tasks that were meant for `from..to`.
pub(crate) fn latencies(
    lives: &[Life],
    from: u64,
    to: u64,
    is_closed: bool,
) -> Vec<(String, Latency)> {
    let of = |moment: &str| until(lives, from, to, is_closed, |life| life.at(moment));
    let named = MOMENTS.map(|moment| Some((format!("submit to {moment}"), of(moment)?)));
    named.into_iter().flatten().collect()
}

/// Latency until attempts began by the times of their records: by number of the task, in
/// nanoseconds from the beginning. `None` as well where one began before it was submitted: then
/// the machine's clock was set meanwhile.
pub(crate) fn latency_by_log(
    lives: &[Life],
    from: u64,
    to: u64,
    is_closed: bool,
    started: &HashMap<u64, u64>,
) -> Option<Latency> {
    let at = |life: &Life| started.get(&life.number).copied();
    let is_early = |life: &Life| at(life).is_some_and(|at| at < life.intended);
    if lives.iter().any(is_early) {
        return None;
    }
    until(lives, from, to, is_closed, at)
}

fn until(
    lives: &[Life],
    from: u64,
    to: u64,
    is_closed: bool,
    at: impl Fn(&Life) -> Option<u64>,
) -> Option<Latency> {
    let inside = |life: &&Life| (from..to).contains(&life.intended);
    let values = lives.iter().filter(inside);
    let values = values.filter_map(|life| Some(at(life)?.saturating_sub(life.intended)));
    Latency::of(values, is_closed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_task_of_every_so_many_groups_is_timed() {
        let book = Book::new(&Workload::new(Kind::Chain, 256, 1), 2);
        let timed: Vec<u64> = (0..60).filter(|n| book.is_timed(*n)).collect();
        assert_eq!(timed, [9, 29, 49]);
        let noop = Book::new(&Workload::new(Kind::Noop, 256, 1), 64);
        let timed: Vec<u64> = (0..200).filter(|n| noop.is_timed(*n)).collect();
        assert_eq!(timed, [0, 64, 128, 192]);
    }

    #[test]
    fn a_life_is_whole_in_whatever_order_it_is_heard_of() {
        let book = Book::new(&Workload::new(Kind::Noop, 256, 1), 1);
        book.submit(0, &[5, 6]);
        book.observed(20, 1, 1, &[(0, false), (0, true)]);
        book.acked(0, 2);
        book.observed(30, 1, 1, &[(1, false), (1, true)]);
        let closed = book.close();
        assert_eq!(closed.lives.len(), 2);
        let first = latencies(&closed.lives, 0, 6, false);
        assert_eq!(first.len(), 3);
        assert_eq!(first[2].1.measured.count, 1);
        let by_log = latency_by_log(&closed.lives, 0, 7, true, &HashMap::from([(1, 2_000_006)]));
        let by_log = by_log.map(|l| (l.measured.count, (l.measured.p50 / 100.0).round()));
        assert_eq!(by_log, Some((1, 20.0)));
        let set_back = HashMap::from([(0, 3), (1, 2_000_006)]);
        assert!(latency_by_log(&closed.lives, 0, 7, true, &set_back).is_none());
        assert_eq!(within(&closed.ended, 0, 25), 1);
        assert_eq!(by_second(&closed.started, 1), [2]);
        assert!((rate(&closed.started) - 1e8).abs() < 1.0);
    }
}
