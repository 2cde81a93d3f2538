//! Nothing outlives its parent.
//!
//! The kernel can send a process a signal when its parent dies; asking for that between
//! fork and exec would take unsafe code, so a child is started through a step in between:
//! a hidden subcommand of the same binary that asks, checks that the parent is still
//! there, and then becomes the program.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};

/// The hidden subcommand: `<binary> __guard <parent pid> <program> <args…>`.
pub const SUBCOMMAND: &str = "__guard";

/// The step in between.
#[derive(Clone, Debug, Default)]
pub enum GuardProgram {
    /// util-linux `setpriv`, for programs without the subcommand.
    #[default]
    Setpriv,
    /// A binary that calls [`exec_guarded`] for [`SUBCOMMAND`].
    Binary(PathBuf),
}

impl GuardProgram {
    /// This very binary.
    pub fn current_exe() -> Self {
        std::env::current_exe().map_or(Self::Setpriv, Self::Binary)
    }

    /// A command that becomes `program` and dies with the thread that spawns it: spawn
    /// it from a thread that lives as long as the child shall.
    pub fn command(&self, program: &std::path::Path) -> Command {
        match self {
            Self::Setpriv => {
                let mut command = Command::new("setpriv");
                command.args(["--pdeathsig", "KILL", "--"]).arg(program);
                command
            }
            Self::Binary(binary) => {
                let mut command = Command::new(binary);
                command
                    .arg(SUBCOMMAND)
                    .arg(std::process::id().to_string())
                    .arg(program);
                command
            }
        }
    }
}

/// Asks the kernel to be killed when the parent dies, then becomes the program. `args`
/// are those after [`SUBCOMMAND`]. Returns only what went wrong.
pub fn exec_guarded(args: &[OsString]) -> io::Error {
    let [parent, program, rest @ ..] = args else {
        return io::Error::other("usage: __guard <parent pid> <program> <args…>");
    };
    if let Err(e) = set_parent_process_death_signal(Some(Signal::KILL)) {
        return e.into();
    }
    // The parent may have died before the kernel was asked.
    let parent = parent
        .to_str()
        .and_then(|p| p.parse().ok())
        .and_then(Pid::from_raw);
    if parent.is_none() || getppid() != parent {
        return io::Error::other("the parent is gone");
    }
    Command::new(program).args(rest).exec()
}
