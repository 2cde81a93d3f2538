//! What a reaper is told to do: a file, since others can see what stands in arguments.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Restrict;

/// The plan, within the directory that the reaper is given.
pub const PLAN: &str = "plan.json";
/// What the program reads on standard input, within that directory.
pub const STDIN: &str = "stdin";
/// How it ended, within that directory.
pub const STATUS: &str = "status.json";

/// What to run, and how. Every path is one inside the sandbox.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// The program; looked up on its own PATH.
    pub program: String,
    /// Its arguments.
    pub args: Vec<String>,
    /// Its whole environment.
    pub env: BTreeMap<String, String>,
    /// Where it begins.
    pub cwd: PathBuf,
    /// A `cwd` below here is made, where it is not there.
    pub workspace: PathBuf,
    /// What it is kept from by itself, before it becomes the program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restrict: Option<Restrict>,
    /// How many processes it may have, where nobody else counts them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub processes: Option<u32>,
    /// Files of the kernel that may say that it had too little memory.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub oom_at: Vec<PathBuf>,
}

impl Plan {
    /// Reads the plan in `dir` and removes it: there may be secrets in it.
    pub(super) fn take(dir: &Path) -> Result<Self, String> {
        let path = dir.join(PLAN);
        let text = fs::read(&path).map_err(|e| format!("its plan cannot be read: {e}"))?;
        fs::remove_file(&path).map_err(|e| format!("its plan cannot be removed: {e}"))?;
        serde_json::from_slice(&text).map_err(|e| format!("its plan cannot be understood: {e}"))
    }

    /// The directory the program starts in. One in the workspace is made; any other must be there.
    pub(super) fn working_dir(&self) -> Result<&Path, String> {
        let cwd = self.cwd.as_path();
        if cwd.starts_with(&self.workspace) {
            fs::create_dir_all(cwd).map_err(|e| format!("cannot make {}: {e}", cwd.display()))?;
        }
        if cwd.is_dir() {
            Ok(cwd)
        } else {
            Err(format!(
                "its working directory {} is not there; name one that is, or none",
                cwd.display()
            ))
        }
    }

    /// The program's path, looked up as the program itself would.
    pub(super) fn find(&self, cwd: &Path) -> Result<PathBuf, String> {
        let program = self.program.as_str();
        if program.contains('/') {
            return Ok(cwd.join(program));
        }
        let path = self.env.get("PATH").map(String::as_str).unwrap_or_default();
        std::env::split_paths(path)
            .map(|dir| dir.join(program))
            .find(|candidate| candidate.is_file())
            .ok_or_else(|| {
                format!("the program {program:?} is not on the agent's PATH ({path}), as far as its sandbox shows it; install it, name its full path, or start the agent with --sandbox-ro and its directory")
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(program: &str, path: &str) -> Plan {
        Plan {
            program: program.to_owned(),
            env: [("PATH".to_owned(), path.to_owned())].into(),
            ..Plan::default()
        }
    }

    #[test]
    fn a_plan_is_read_once() {
        let dir = tempfile::tempdir().unwrap();
        let written = plan("sh", "/bin");
        let text = serde_json::to_vec(&written).unwrap();
        fs::write(dir.path().join(PLAN), text).unwrap();
        assert_eq!(Plan::take(dir.path()), Ok(written));
        let again = Plan::take(dir.path()).unwrap_err();
        assert!(again.contains("cannot be read"), "{again}");
    }

    #[test]
    fn a_program_is_looked_up_on_its_own_path() {
        let found = plan("sh", "/nonexistent:/bin")
            .find(Path::new("/"))
            .unwrap();
        assert_eq!(found, Path::new("/bin/sh"));
        let here = plan("./run", "/bin").find(Path::new("/workspace")).unwrap();
        assert_eq!(here, Path::new("/workspace/./run"));
        let missing = plan("no-such-program", "/bin")
            .find(Path::new("/"))
            .unwrap_err();
        assert!(
            missing.contains("is not on the agent's PATH (/bin)"),
            "{missing}"
        );
    }

    #[test]
    fn a_directory_in_the_workspace_is_made_and_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let at = |cwd: &str| Plan {
            cwd: dir.path().join(cwd),
            workspace: dir.path().join("workspace"),
            ..Plan::default()
        };
        assert!(at("workspace/a/b").working_dir().unwrap().is_dir());
        let problem = at("elsewhere").working_dir().unwrap_err();
        assert!(problem.contains("is not there"), "{problem}");
    }
}
