//! The processes of attempts, and what memory they take.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use conductor_harness::process::descendants;
use conductor_protocol::TaskId;

/// How often it is looked for peaks.
const EVERY: Duration = Duration::from_millis(100);
/// What marks a process of an attempt, in its environment.
const MARK: &str = "CONDUCTOR_TASK=";
/// Where the hierarchy of control groups may be.
const MOUNTS: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];

/// Processes of each attempt, by task.
pub(super) type Trees = BTreeMap<TaskId, BTreeSet<u32>>;

/// The processes of these tasks: those that name one in their environment, wherever they are, and
/// what those were started by, up to the agent's process.
pub(super) fn trees(agent: u32, tasks: &[TaskId]) -> Trees {
    let below: BTreeSet<u32> = descendants(agent).into_iter().collect();
    let mut trees = Trees::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let pid = entry.file_name().to_string_lossy().parse::<u32>();
        let found = pid.ok().and_then(|pid| Some((pid, task_of(pid)?)));
        let Some((pid, task)) = found.filter(|(_, task)| tasks.contains(task)) else {
            continue;
        };
        let tree = trees.entry(task).or_default();
        tree.insert(pid);
        let mut at = parent_of(pid);
        while let Some(pid) = at.filter(|pid| below.contains(pid)) {
            tree.insert(pid);
            at = parent_of(pid);
        }
    }
    trees
}

fn task_of(pid: u32) -> Option<TaskId> {
    let environ = fs::read(format!("/proc/{pid}/environ")).ok()?;
    let mut environ = environ.split(|b| *b == 0);
    let task = environ.find_map(|v| v.strip_prefix(MARK.as_bytes()))?;
    std::str::from_utf8(task).ok()?.parse().ok()
}

fn parent_of(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(1)?.parse().ok()
}

/// The control groups that these processes are in and their agent made.
pub(super) fn control_groups(trees: &Trees) -> BTreeSet<PathBuf> {
    let of = |pid: &u32| {
        let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        let own = groups
            .lines()
            .find_map(|l| l.strip_prefix("0::"))?
            .to_owned();
        let below = own.trim_start_matches('/').to_owned();
        own.contains("conductor-").then_some(below)
    };
    let named: BTreeSet<String> = trees.values().flatten().filter_map(of).collect();
    let there = |name: &String| {
        let paths = MOUNTS.map(|mount| PathBuf::from(mount).join(name));
        paths.into_iter().find(|path| path.exists())
    };
    named.iter().filter_map(there).collect()
}

/// A figure of a process's memory, in KiB, by the name it has in a file of `/proc`.
fn kib(pid: u32, file: &str, name: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
    let mut lines = text.lines().filter_map(|line| line.strip_prefix(name));
    let figure = lines.find_map(|rest| rest.strip_prefix(':')?.split_whitespace().next());
    figure.and_then(|n| n.parse().ok()).unwrap_or(0)
}

/// What the processes of an attempt take together, in KiB.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Memory {
    rss: u64,
    pss: u64,
    private: u64,
    processes: usize,
}

impl Memory {
    pub(super) fn of(tree: &BTreeSet<u32>) -> Self {
        let sum = |file: &str, name: &str| tree.iter().map(|pid| kib(*pid, file, name)).sum();
        let rollup = |name: &str| -> u64 { sum("smaps_rollup", name) };
        Self {
            rss: sum("status", "VmRSS"),
            pss: rollup("Pss"),
            private: rollup("Private_Clean") + rollup("Private_Dirty"),
            processes: tree.len(),
        }
    }
}

/// Looks for the largest sum of RSS of each attempt, until it is ended.
pub(super) struct Peaks {
    is_over: Arc<AtomicBool>,
    looks: JoinHandle<BTreeMap<TaskId, u64>>,
}

impl Peaks {
    pub(super) fn watch(agent: u32, tasks: Vec<TaskId>) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let ends = Arc::clone(&is_over);
        let looks = std::thread::spawn(move || {
            let mut peaks: BTreeMap<TaskId, u64> = BTreeMap::new();
            while !ends.load(Ordering::Relaxed) {
                for (task, tree) in trees(agent, &tasks) {
                    let rss: u64 = tree.iter().map(|pid| kib(*pid, "status", "VmRSS")).sum();
                    let peak = peaks.entry(task).or_default();
                    *peak = rss.max(*peak);
                }
                std::thread::sleep(EVERY);
            }
            peaks
        });
        Self { is_over, looks }
    }

    /// The peak of each, in KiB.
    pub(super) fn end(self) -> Vec<u64> {
        self.is_over.store(true, Ordering::Relaxed);
        self.looks.join().unwrap().into_values().collect()
    }
}

/// Prints what an attempt takes: median and most of all of them, and their sum where one is more
/// than a thought.
pub(super) fn print(there: &[Memory], peaks: &[u64]) {
    eprintln!(
        "  {:<44} {:>7} {:>7} {:>7}  MiB",
        "of each agent", "median", "max", "all"
    );
    let rows: [(&str, Vec<u64>, bool); 4] = [
        ("peak RSS of its processes", peaks.to_vec(), false),
        (
            "RSS while all are there",
            there.iter().map(|m| m.rss).collect(),
            false,
        ),
        (
            "PSS while all are there",
            there.iter().map(|m| m.pss).collect(),
            true,
        ),
        (
            "private memory while all are there",
            there.iter().map(|m| m.private).collect(),
            true,
        ),
    ];
    for (name, mut figures, is_summed) in rows {
        figures.sort_unstable();
        let [median, most] = [figures.len() / 2, figures.len() - 1].map(|n| figures[n] / 1024);
        let all: u64 = figures.iter().sum::<u64>() / 1024;
        let all = if is_summed {
            all.to_string()
        } else {
            "–".into()
        };
        eprintln!("  {name:<44} {median:>7} {most:>7} {all:>7}");
    }
    let most = there.iter().map(|m| m.processes).max().unwrap_or(0);
    eprintln!("  processes of each: at most {most}");
}
