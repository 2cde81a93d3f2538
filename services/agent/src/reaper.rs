//! The step between the agent and a program: it keeps the program's whole process tree.
//!
//! A process group is not enough: programs call setsid and leave the group (agent-facts,
//! finding 2). The reaper is a *subreaper*: orphans of the tree become its children, so
//! that it can find every one and kill it. Its standard input is a pipe from the agent;
//! the end of that pipe, whatever the reason, means that the agent is gone.
//!
//! It runs inside the sandbox, where there is one, and knows of it no more than its [`Plan`]
//! says: how a program is told, ended and looked after is the same for all of them.
//!
//! Linux only.

mod enter;
mod outer;
mod plan;
mod tree;

use std::ffi::OsString;
use std::fs;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use std::os::unix::process::CommandExt;

use rustix::process::{Pid, Signal, WaitOptions, kill_process_group, set_child_subreaper, wait};
use serde::{Deserialize, Serialize};

use crate::forward;

pub use enter::Restrict;
pub use outer::{FILTER_FD, Outer};
pub use plan::{PLAN, Plan, STATUS, STDIN};
pub use tree::sweep;

/// The hidden subcommand; what follows says which of its steps is meant.
pub const SUBCOMMAND: &str = "__reaper";
/// `__reaper run <directory>`: does what the plan in that directory says.
pub const RUN: &str = "run";
/// `__reaper enter <restrictions> <program> <args…>`: restricts itself, then becomes the program.
pub const ENTER: &str = "enter";
/// `__reaper outer <how> <program> <args…>`: becomes the program that makes the sandbox.
pub const OUTER: &str = "outer";

/// What the agent may write into the pipe.
pub const INTERRUPT: u8 = b'I';
/// Ask the program to end.
pub const TERMINATE: u8 = b'T';

/// How often processes are counted, where the kernel does not.
const COUNT_EVERY: Duration = Duration::from_millis(50);

/// How the program ended.
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

/// What is known of the end; the reaper leaves it in the status file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// How the program ended.
    pub status: Status,
    /// What brought that about, where it was one of its limits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<String>,
    /// Whether the kernel killed one of its processes for want of memory.
    #[serde(default)]
    pub oom: bool,
}

impl From<Status> for End {
    fn from(status: Status) -> Self {
        Self {
            status,
            limit: None,
            oom: false,
        }
    }
}

/// The whole life of one of the steps. `args` are those after [`SUBCOMMAND`].
pub fn main(args: &[OsString]) -> ExitCode {
    let [step, what, rest @ ..] = args else {
        return ExitCode::from(2);
    };
    match step.to_str() {
        Some(RUN) => keep(Path::new(what)),
        Some(ENTER) => enter::main(what, rest),
        Some(OUTER) => outer::main(what, rest),
        _ => ExitCode::from(2),
    }
}

/// Runs the plan in `dir`, and leaves there how that ended.
fn keep(dir: &Path) -> ExitCode {
    let end = run(dir);
    let written = serde_json::to_vec(&end).map_err(std::io::Error::from);
    match written.and_then(|text| leave(dir, &text)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// Written whole or not at all, and over whatever the program may have put there.
fn leave(dir: &Path, text: &[u8]) -> std::io::Result<()> {
    let unfinished = dir.join("status.part");
    // Nothing of the program is left that could put it back.
    let _ = fs::remove_file(&unfinished);
    let mut file = fs::File::create_new(&unfinished)?;
    file.write_all(text)?;
    fs::rename(&unfinished, dir.join(STATUS))
}

fn run(dir: &Path) -> End {
    if let Err(e) = set_child_subreaper(Some(rustix::process::getpid())) {
        return Status::NotStarted(format!("cannot keep its process tree: {e}")).into();
    }
    match Plan::take(dir).and_then(|plan| Ok((start(&plan, dir)?, plan))) {
        Ok((program, plan)) => attend(program, &plan, dir),
        Err(problem) => Status::NotStarted(problem).into(),
    }
}

/// Starts the program, as a process group of its own.
fn start(plan: &Plan, dir: &Path) -> Result<Pid, String> {
    if let Some(ports) = plan.env.get(forward::VARIABLE) {
        forward::open(ports)?;
    }
    let input =
        fs::File::open(dir.join(STDIN)).map_err(|e| format!("its input cannot be read: {e}"))?;
    let cwd = plan.working_dir()?;
    let program = plan.find(cwd)?;
    let mut command = match &plan.restrict {
        None => Command::new(&program),
        Some(restrict) => enter::command(restrict, dir, &program)?,
    };
    command.args(&plan.args).env_clear().envs(&plan.env);
    command.current_dir(cwd).process_group(0);
    let child = command.stdin(Stdio::from(input)).spawn();
    let child = child.map_err(|e| format!("{}: {e}", program.display()))?;
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    pid.ok_or_else(|| "it has no process id".to_owned())
}

/// Waits for the program's end, does meanwhile what the agent says, and ends what is left.
fn attend(program: Pid, plan: &Plan, dir: &Path) -> End {
    static HAS_TOO_MANY: AtomicBool = AtomicBool::new(false);
    std::thread::spawn(move || listen(program));
    if let Some(max) = plan.processes {
        std::thread::spawn(move || count(max, &HAS_TOO_MANY));
    }
    let status = wait_for(program);
    tree::kill();
    let status = enter::problem(dir, &status).map_or(status, Status::NotStarted);
    let limit = plan
        .processes
        .filter(|_| HAS_TOO_MANY.load(Ordering::Acquire))
        .map(|max| format!("it had more than {max} processes"));
    let oom = plan.oom_at.iter().any(|file| has_oom(file));
    End { status, limit, oom }
}

/// Whether a file of the kernel counts processes killed for want of memory.
pub(crate) fn has_oom(file: &Path) -> bool {
    let text = fs::read_to_string(file).unwrap_or_default();
    let mut lines = text.lines().filter_map(|line| line.split_once(' '));
    lines.any(|(name, n)| name == "oom_kill" && n.trim() != "0")
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
        tree::kill();
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Ends everything once there are more than `max` processes.
fn count(max: u32, has_too_many: &AtomicBool) {
    loop {
        if tree::size() > max as usize {
            has_too_many.store(true, Ordering::Release);
            tree::kill();
        }
        std::thread::sleep(COUNT_EVERY);
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
