//! The processes below the reaper.

use std::collections::BTreeMap;
use std::fs;

use rustix::process::{Pid, Signal, kill_process};

/// How many there are, found without a look at all processes of the machine where the kernel
/// tells the children of each.
pub(super) fn size() -> usize {
    let own = rustix::process::getpid();
    let mut todo = vec![own.as_raw_nonzero().get()];
    let mut size = 0;
    while let Some(pid) = todo.pop() {
        let Some(children) = children(pid) else {
            // Those of one that has just ended are ours by now.
            if pid == own.as_raw_nonzero().get() {
                return descendants(own).len();
            }
            continue;
        };
        size += children.len();
        todo.extend(children);
    }
    size
}

/// The children of all threads of a process.
fn children(pid: i32) -> Option<Vec<i32>> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).ok()?;
    let mut out = Vec::new();
    for thread in threads.flatten() {
        let text = fs::read_to_string(thread.path().join("children")).ok()?;
        out.extend(
            text.split_whitespace()
                .filter_map(|n| n.parse::<i32>().ok()),
        );
    }
    Some(out)
}

/// Kills every descendant, stopped first so that none escapes by forking, until none is left.
/// Whoever waits for the program reaps them: a status that another took would be lost.
pub(super) fn kill() {
    let own = rustix::process::getpid();
    loop {
        let tree = descendants(own);
        if tree.is_empty() {
            return;
        }
        for signal in [Signal::STOP, Signal::KILL] {
            for pid in &tree {
                // Those that have ended meanwhile need no signal.
                let _ = kill_process(*pid, signal);
            }
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
}

/// Every process below `root`, zombies left out.
fn descendants(root: Pid) -> Vec<Pid> {
    let mut children: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let pid = entry
            .file_name()
            .to_str()
            .and_then(|n| n.parse::<i32>().ok());
        let Some((pid, parent)) = pid.and_then(|pid| Some((pid, parent_of(pid)?))) else {
            continue;
        };
        children.entry(parent).or_default().push(pid);
    }
    let mut out = Vec::new();
    let mut todo = vec![root.as_raw_nonzero().get()];
    while let Some(pid) = todo.pop() {
        for child in children.remove(&pid).unwrap_or_default() {
            todo.push(child);
            out.extend(Pid::from_raw(child));
        }
    }
    out
}

/// The parent of a live process.
fn parent_of(pid: i32) -> Option<i32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in brackets may hold anything, brackets included.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?;
    let parent = fields.next()?.parse().ok()?;
    (state != "Z" && state != "X").then_some(parent)
}

/// Kills every process whose environment holds `marker`: what is left when a reaper itself
/// was killed. Returns how many there were.
pub fn sweep(marker: &str) -> usize {
    let mut killed = 0;
    let own = rustix::process::getpid().as_raw_nonzero().get();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let pid = entry
            .file_name()
            .to_str()
            .and_then(|n| n.parse::<i32>().ok());
        let Some(pid) = pid.filter(|p| *p != own) else {
            continue;
        };
        let Ok(environ) = fs::read(format!("/proc/{pid}/environ")) else {
            continue;
        };
        let is_marked = environ.split(|b| *b == 0).any(|v| v == marker.as_bytes());
        if let Some(pid) = Pid::from_raw(pid).filter(|_| is_marked)
            && kill_process(pid, Signal::KILL).is_ok()
        {
            killed += 1;
        }
    }
    killed
}
