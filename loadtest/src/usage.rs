//! CPU time and memory of processes, as the kernel accounts them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::workload::now_ms;

/// How often it is looked.
const PERIOD: Duration = Duration::from_millis(250);

/// What a process has used.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Used {
    /// CPU seconds since it started, with those of children it has waited for.
    pub(crate) cpu_s: f64,
    /// Memory in use, in KB.
    pub(crate) rss_kb: u64,
}

/// What a process has used until now.
pub(crate) fn read(pid: u32) -> Option<Used> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let tick = rustix::param::clock_ticks_per_second();
    Some(Used {
        cpu_s: ticks(&stat)? as f64 / tick as f64,
        rss_kb: rss_kb(&status),
    })
}

fn ticks(stat: &str) -> Option<u64> {
    // The name before it may hold anything, brackets too.
    let rest = stat.rsplit_once(')')?.1;
    let fields = rest.split_whitespace().skip(11).take(4);
    fields.map(|f| f.parse::<u64>().ok()).sum()
}

fn rss_kb(status: &str) -> u64 {
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"));
    let number = line.and_then(|l| l.split_whitespace().next());
    number.and_then(|n| n.parse().ok()).unwrap_or(0)
}

/// The processes that a process started and that still run.
pub(crate) fn children(parent: u32) -> Vec<u32> {
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = processes.filter_map(|e| e.file_name().to_str()?.parse::<u32>().ok());
    let is_child = |pid: &u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let rest = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        rest.split_whitespace().nth(1) == Some(parent.to_string().as_str())
    };
    pids.filter(is_child).collect()
}

/// A process to look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Watched {
    /// For people.
    pub(crate) name: String,
    /// Its process id.
    pub(crate) pid: u32,
    /// Whether it is part of Conductor: neither server nor load.
    pub(crate) is_ours: bool,
}

/// One look at all processes.
#[derive(Clone, Debug, Default)]
struct Look {
    at_ms: u64,
    used: Vec<Option<Used>>,
}

/// Looks at processes until it is stopped.
#[derive(Debug)]
pub(crate) struct Sampler {
    watched: Vec<Watched>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<Look>>,
}

impl Sampler {
    /// Begins to look.
    pub(crate) fn start(watched: Vec<Watched>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, pids) = (Arc::clone(&stop), watched.clone());
        let thread = std::thread::spawn(move || {
            let mut looks = Vec::new();
            while !stopped.load(Ordering::Relaxed) {
                looks.push(Look {
                    at_ms: now_ms(),
                    used: pids.iter().map(|w| read(w.pid)).collect(),
                });
                std::thread::sleep(PERIOD);
            }
            looks
        });
        Self {
            watched,
            stop,
            thread,
        }
    }

    /// What every process used in a window of time.
    pub(crate) fn stop(self, window_ms: (u64, u64)) -> Vec<Usage> {
        self.stop.store(true, Ordering::Relaxed);
        let looks = self.thread.join().unwrap_or_default();
        let each = self.watched.iter().enumerate();
        each.map(|(i, watched)| usage(watched, i, &looks, window_ms))
            .collect()
    }
}

/// What a process used in the measured window.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Usage {
    /// Which.
    pub(crate) name: String,
    /// Whether it is part of Conductor.
    pub(crate) is_ours: bool,
    /// CPU seconds.
    pub(crate) cpu_s: f64,
    /// CPU seconds of each second, in percent of a core.
    pub(crate) core_percent: f64,
    /// Memory at the beginning of the window, in KB.
    pub(crate) rss_first_kb: u64,
    /// At its end.
    pub(crate) rss_last_kb: u64,
    /// The most.
    pub(crate) rss_max_kb: u64,
    /// Seconds from the beginning of the window, percent of a core since the point before,
    /// and memory in KB.
    pub(crate) series: Vec<(f64, f64, u64)>,
}

fn usage(watched: &Watched, i: usize, looks: &[Look], (from, to): (u64, u64)) -> Usage {
    let inside = looks.iter().filter(|l| (from..=to).contains(&l.at_ms));
    let seen = inside.filter_map(|l| Some((l.at_ms, (*l.used.get(i)?)?)));
    let seen: Vec<(u64, Used)> = seen.collect();
    let (first, last) = match (seen.first(), seen.last()) {
        (Some(first), Some(last)) => (*first, *last),
        _ => return Usage::default(),
    };
    let seconds = (last.0 - first.0) as f64 / 1e3;
    // The looks do not fall on the edges of the window.
    let rate = (last.1.cpu_s - first.1.cpu_s) / seconds.max(1e-3);
    let pairs = seen.iter().zip(seen.iter().skip(4)).step_by(4);
    let series = pairs.map(|(a, b)| {
        let rate = (b.1.cpu_s - a.1.cpu_s) * 1e3 / (b.0 - a.0).max(1) as f64;
        let at = b.0.saturating_sub(from) as f64 / 1e3;
        (at, rate * 100.0, b.1.rss_kb)
    });
    Usage {
        name: watched.name.clone(),
        is_ours: watched.is_ours,
        cpu_s: rate * (to - from) as f64 / 1e3,
        core_percent: rate * 100.0,
        rss_first_kb: first.1.rss_kb,
        rss_last_kb: last.1.rss_kb,
        rss_max_kb: seen.iter().map(|s| s.1.rss_kb).max().unwrap_or(0),
        series: series.collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_read_past_any_name() {
        let stat = "12 (a ) (b) S 1 12 12 0 -1 4194304 1 2 3 4 50 20 7 3 20 0 5 0";
        assert_eq!(ticks(stat), Some(80));
        assert_eq!(rss_kb("VmPeak:  9 kB\nVmRSS:\t  1234 kB\n"), 1234);
        assert!(read(std::process::id()).is_some_and(|used| used.rss_kb > 100));
    }

    #[test]
    fn only_the_window_counts() {
        let watched = Watched {
            name: "x".to_owned(),
            pid: 1,
            is_ours: true,
        };
        let look = |second: u64| {
            // Half a core all along, but a whole one in the window.
            let cpu_s = if second < 10 { 0.5 } else { 1.0 } * second as f64;
            let rss_kb = 1_000 + second;
            Look {
                at_ms: second * 1_000,
                used: vec![Some(Used { cpu_s, rss_kb })],
            }
        };
        let looks: Vec<Look> = (0..30).map(look).collect();
        let used = usage(&watched, 0, &looks, (10_000, 20_500));
        assert!((used.core_percent - 100.0).abs() < 1e-6);
        assert!((used.cpu_s - 10.5).abs() < 1e-6);
        assert_eq!((used.rss_first_kb, used.rss_max_kb), (1_010, 1_020));
    }
}
