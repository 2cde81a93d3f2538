//! Removing a sandbox that outlives the program which made it.

use std::ffi::OsString;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::task::JoinHandle;

/// Longest that is waited for it: an engine that hangs must not keep an attempt from its end.
const PATIENCE: Duration = Duration::from_secs(60);

/// What removes a sandbox: run once, however often whoever waits for it is called away.
#[derive(Debug)]
pub(super) struct Removal {
    command: Option<Vec<OsString>>,
    under_way: Option<JoinHandle<()>>,
}

impl Removal {
    /// By this command line, if any is needed.
    pub(super) fn by(command: Option<Vec<OsString>>) -> Self {
        Self {
            command,
            under_way: None,
        }
    }

    /// Begins it, where that was not done, and returns once it is done. It may be dropped and called
    /// again.
    pub(super) async fn finish(&mut self) {
        if let Some(command) = self.command.take() {
            self.under_way = Some(tokio::spawn(run(command)));
        }
        if let Some(under_way) = &mut self.under_way {
            // It does not panic; should it, there is nothing more to wait for.
            let _ = under_way.await;
            self.under_way = None;
        }
    }
}

async fn run(line: Vec<OsString>) {
    let Some((program, args)) = line.split_first() else {
        return;
    };
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null()).kill_on_drop(true);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    // One that is gone already cannot be removed.
    let done = tokio::time::timeout(PATIENCE, command.status()).await;
    if done.is_err() {
        let program = program.display();
        tracing::warn!(%program, ?args, "a sandbox is not removed: its engine does not end");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_is_done_once_though_whoever_waits_is_called_away() {
        let dir = tempfile::tempdir().unwrap();
        let (began, go_on) = (dir.path().join("began"), dir.path().join("go-on"));
        let script = format!(
            "echo once >> {}; while [ ! -e {} ]; do sleep 0.01; done",
            began.display(),
            go_on.display()
        );
        let mut removal = Removal::by(Some(["sh", "-c", &script].map(OsString::from).to_vec()));
        while !began.exists() {
            // Far less than it takes.
            let called_away = Duration::from_millis(1);
            let _ = tokio::time::timeout(called_away, removal.finish()).await;
        }
        std::fs::write(go_on, "").unwrap();
        removal.finish().await;
        assert_eq!(std::fs::read_to_string(began).unwrap(), "once\n");
        removal.finish().await;
    }
}
