//! Model services of our own on loopback, for the real CLIs.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use conductor_harness::binary;

/// The script that plays Anthropic's service.
pub(crate) const ANTHROPIC: &str = "fake-anthropic-server.py";
/// The script that plays OpenAI's.
pub(crate) const OPENAI: &str = "fake-openai-responses-server.py";

/// A model service. Dropped, it ends.
pub(crate) struct ModelApi {
    child: Child,
    pub(crate) url: String,
    /// Every request, a line each.
    pub(crate) log: PathBuf,
}

impl ModelApi {
    /// Starts it; its log is in `dir`, and that is where its model wants to write files.
    pub(crate) fn start(script: &str, dir: &Path) -> Self {
        Self::start_with(script, dir, None)
    }

    /// Anthropic's service, whose model does as one of `plays` says.
    pub(crate) fn playing(play: &str, dir: &Path) -> Self {
        Self::start_with(ANTHROPIC, dir, Some(play))
    }

    fn start_with(script: &str, dir: &Path, play: Option<&str>) -> Self {
        let log = dir.join("api.log");
        let script = binary::workspace()
            .join("services/agent/tests/fixtures")
            .join(script);
        let mut command = Command::new("python3");
        if let Some(play) = play {
            let plays = binary::workspace().join("tests/e2e/plays");
            command.env("FAKE_PLAY", plays.join(format!("{play}.py")));
        }
        let mut child = command
            .arg(script)
            .arg("0")
            .env("FAKE_LOG", &log)
            .env("FAKE_WD", dir)
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3 runs");
        let mut line = String::new();
        let stdout = child.stdout.take().unwrap();
        BufReader::new(stdout).read_line(&mut line).unwrap();
        let port = line.trim().rsplit(' ').next().unwrap();
        Self {
            child,
            url: format!("http://127.0.0.1:{port}"),
            log,
        }
    }
}

impl Drop for ModelApi {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
