//! The first step of a sandbox that another program makes: what that program must find when it
//! starts, and what only the process that becomes it can give.

use std::ffi::OsString;
use std::os::fd::{IntoRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use rustix::fs::{MemfdFlags, SeekFrom, memfd_create, seek};
use serde::{Deserialize, Serialize};

use crate::sandbox::filter;

/// Stands in the arguments for the number of the file that holds the filter of system calls.
pub const FILTER_FD: &str = "{filter}";
/// Its exit code when it could not become the program.
const NOT_STARTED: u8 = 125;

/// What is done before the program that makes the sandbox.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outer {
    /// The control group that all of it shall be in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<PathBuf>,
    /// Whether it is handed a filter of system calls.
    #[serde(default)]
    pub filter: bool,
}

impl Outer {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Does what is to be done, then becomes the program.
pub(super) fn main(how: &OsString, rest: &[OsString]) -> ExitCode {
    let problem = match (prepare(how), rest) {
        (Ok(filter), [program, args @ ..]) => {
            let number = filter.map(|fd| fd.into_raw_fd().to_string());
            let args = args.iter().map(|arg| match &number {
                Some(number) if arg == FILTER_FD => OsString::from(number),
                _ => arg.clone(),
            });
            let e = Command::new(program).args(args).exec();
            format!("{}: {e}", program.to_string_lossy())
        }
        (Ok(_), []) => "it names no program".to_owned(),
        (Err(problem), _) => problem,
    };
    eprintln!("its sandbox does not start: {problem}");
    ExitCode::from(NOT_STARTED)
}

fn prepare(how: &OsString) -> Result<Option<OwnedFd>, String> {
    let how = how.to_str().ok_or("what is to be done is no text")?;
    let outer: Outer = serde_json::from_str(how).map_err(|e| e.to_string())?;
    if let Some(cgroup) = &outer.cgroup {
        let procs = cgroup.join("cgroup.procs");
        // 0 means whoever writes it.
        std::fs::write(&procs, "0").map_err(|e| format!("{}: {e}", procs.display()))?;
    }
    if outer.filter {
        file_of_filter().map(Some)
    } else {
        Ok(None)
    }
}

/// The filter as a file that what we become inherits.
fn file_of_filter() -> Result<OwnedFd, String> {
    let bytes = filter::bytes()?;
    let written = memfd_create("filter", MemfdFlags::empty()).and_then(|fd| {
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let n = rustix::io::write(&fd, rest)?;
            rest = rest.get(n..).unwrap_or_default();
        }
        seek(&fd, SeekFrom::Start(0))?;
        Ok(fd)
    });
    written.map_err(|e| format!("the filter of system calls cannot be handed over: {e}"))
}
