//! The last step before a program: what becomes it is restricted first. The reaper stays
//! outside of that: where signals are confined, the program cannot reach it.

use std::ffi::OsString;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use serde::{Deserialize, Serialize};

use super::{ENTER, SUBCOMMAND, Status};
use crate::sandbox::landlock::{self, Rules};
use crate::sandbox::limits::Rlimits;
use crate::sandbox::privileges;

/// Where it says why the program did not start, within the reaper's directory.
const PROBLEM: &str = "problem";
/// Its exit code then.
const NOT_STARTED: u8 = 126;

/// What a program is kept from by itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restrict {
    /// Its limits.
    pub limits: Rlimits,
    /// What it may reach, by Landlock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rules: Option<Rules>,
    /// Whether it gives up capabilities, and the chance to gain any.
    #[serde(default)]
    pub is_unprivileged: bool,
}

/// The command that becomes `program`, restricted.
pub(super) fn command(restrict: &Restrict, dir: &Path, program: &Path) -> Result<Command, String> {
    let own = std::env::current_exe().map_err(|e| format!("it does not find itself: {e}"))?;
    let how = serde_json::to_string(restrict).map_err(|e| e.to_string())?;
    let mut command = Command::new(own);
    command.args([SUBCOMMAND, ENTER, &how]);
    command.arg(dir).arg(program);
    Ok(command)
}

/// Restricts itself, then becomes the program.
pub(super) fn main(how: &OsString, rest: &[OsString]) -> ExitCode {
    let [dir, program, args @ ..] = rest else {
        return ExitCode::from(2);
    };
    let problem = match enter(how) {
        Ok(()) => {
            let e = Command::new(program).args(args).exec();
            format!("{}: {e}", program.to_string_lossy())
        }
        Err(problem) => problem,
    };
    // Without it the exit code alone tells.
    let _ = fs::write(PathBuf::from(dir).join(PROBLEM), problem);
    ExitCode::from(NOT_STARTED)
}

fn enter(how: &OsString) -> Result<(), String> {
    let how = how.to_str().ok_or("its restrictions are no text")?;
    let restrict: Restrict = serde_json::from_str(how)
        .map_err(|e| format!("its restrictions cannot be understood: {e}"))?;
    restrict.limits.apply()?;
    if restrict.is_unprivileged {
        privileges::drop_all()?;
    }
    match &restrict.rules {
        Some(rules) => landlock::enforce(rules).map(|_| ()),
        None => Ok(()),
    }
}

/// Why the program did not start, where that is what the status means.
pub(super) fn problem(dir: &Path, status: &Status) -> Option<String> {
    if *status != Status::Exited(i32::from(NOT_STARTED)) {
        return None;
    }
    fs::read_to_string(dir.join(PROBLEM)).ok()
}
