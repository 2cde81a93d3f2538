//! The step between the agent and a program: it keeps the program's whole process tree.
//!
//! A process group is not enough: programs call setsid and leave the group (agent-facts,
//! finding 2). The reaper is a *subreaper*: orphans of the tree become its children, so
//! that it can find every one and kill it. Its standard input is a pipe from the agent;
//! the end of that pipe, whatever the reason, means that the agent is gone.
//!
//! Linux only.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use rustix::process::{
    Pid, Signal, WaitOptions, kill_process, kill_process_group, set_child_subreaper, wait,
};
use serde::{Deserialize, Serialize};

use crate::forward;

/// The hidden subcommand: `<binary> __reaper <stdin file> <status file> <program> <args…>`.
pub const SUBCOMMAND: &str = "__reaper";

/// What the agent may write into the pipe.
pub const INTERRUPT: u8 = b'I';
/// Ask the program to end.
pub const TERMINATE: u8 = b'T';

/// How the program ended; the reaper leaves it in the status file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// It exited.
    Exited(i32),
    /// A signal ended it.
    Signalled(i32),
    /// It could not be started.
    NotStarted(String),
}

/// The reaper's whole life. `args` are those after [`SUBCOMMAND`].
pub fn main(args: &[OsString]) -> ExitCode {
    let [stdin, status, program, rest @ ..] = args else {
        return ExitCode::from(2);
    };
    let status_file = PathBuf::from(status);
    let outcome = run(stdin, program, rest);
    let text = serde_json::to_vec(&outcome).unwrap_or_default();
    // Written whole or not at all: a missing status means that the reaper was killed.
    let unfinished = status_file.with_extension("part");
    let written = fs::write(&unfinished, text).and_then(|()| fs::rename(&unfinished, status_file));
    if written.is_ok() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn run(stdin: &OsString, program: &OsString, args: &[OsString]) -> Status {
    if let Err(e) = set_child_subreaper(Some(rustix::process::getpid())) {
        return Status::NotStarted(format!("cannot keep its process tree: {e}"));
    }
    let input = match fs::File::open(stdin) {
        Ok(file) => Stdio::from(file),
        Err(e) => return Status::NotStarted(format!("its input cannot be read: {e}")),
    };
    if let Ok(ports) = std::env::var(forward::VARIABLE)
        && let Err(problem) = forward::open(&ports)
    {
        return Status::NotStarted(problem);
    }
    let mut command = Command::new(program);
    let child = command.args(args).stdin(input).process_group(0).spawn();
    let child = match child {
        Ok(child) => child,
        Err(e) => {
            let program = program.to_string_lossy();
            return Status::NotStarted(format!("{program}: {e}"));
        }
    };
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let Some(pid) = pid else {
        return Status::NotStarted("it has no process id".to_owned());
    };
    std::thread::spawn(move || listen(pid));
    let status = wait_for(pid);
    kill_tree();
    status
}

/// Does what the agent says; when the agent is gone, kills everything.
fn listen(program: Pid) {
    let mut byte = [0_u8; 1];
    let mut control = std::io::stdin();
    while let Ok(1) = control.read(&mut byte) {
        // The program may just have ended: then there is nobody to signal.
        let _ = match byte {
            [INTERRUPT] => kill_process_group(program, Signal::INT),
            [TERMINATE] => kill_process_group(program, Signal::TERM),
            _ => Ok(()),
        };
    }
    loop {
        kill_tree();
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Reaps until the program itself has ended.
fn wait_for(program: Pid) -> Status {
    loop {
        match wait(WaitOptions::empty()) {
            Ok(Some((pid, status))) if pid == program => {
                return match (status.exit_status(), status.terminating_signal()) {
                    (Some(code), _) => Status::Exited(code),
                    (None, Some(signal)) => Status::Signalled(signal),
                    (None, None) => continue,
                };
            }
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Status::NotStarted(format!("it was lost: {e}")),
        }
    }
}

/// Kills every descendant, stopped first so that none escapes by forking, until none is left.
fn kill_tree() {
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
        while let Ok(Some(_)) = wait(WaitOptions::NOHANG) {}
        std::thread::sleep(Duration::from_millis(1));
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
