//! Processes of a run: started with a death signal, so that none outlives the run.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use conductor_nats::guard::GuardProgram;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};
use serde::de::DeserializeOwned;

use crate::outcome::Outcome;
use crate::usage;

/// The `conductor` beside our own binary.
pub(crate) fn conductor() -> Outcome<PathBuf> {
    let path = std::env::current_exe()?.with_file_name("conductor");
    if path.is_file() {
        return Ok(path);
    }
    let path = path.display();
    Err(format!("there is no {path}; build it with `cargo build --release -p conductor`").into())
}

/// A running process. Dropped, it is killed.
#[derive(Debug)]
pub(crate) struct Process {
    /// For people.
    pub(crate) name: String,
    /// The command, as a person would type it.
    pub(crate) command: String,
    child: Child,
    started: Instant,
    said: PathBuf,
    printed: PathBuf,
}

impl Process {
    /// Starts a program; what it says and prints goes into files in `dir`. It dies with the
    /// thread that starts it.
    pub(crate) fn start(name: &str, program: &Path, args: &[String], dir: &Path) -> Outcome<Self> {
        let nth = std::fs::read_dir(dir)?.count();
        let said = dir.join(format!("{name}-{nth}.log"));
        let printed = dir.join(format!("{name}-{nth}.out"));
        let guard = GuardProgram::Binary(conductor()?);
        let mut command = guard.command(program);
        command
            .args(args)
            .stdin(Stdio::null())
            .stdout(File::create(&printed)?)
            .stderr(File::create(&said)?);
        for (name, _) in std::env::vars_os() {
            // A setting of the person who measures must not change what is measured.
            if name.to_string_lossy().starts_with("CONDUCTOR_") {
                command.env_remove(name);
            }
        }
        let started = Instant::now();
        Ok(Self {
            name: name.to_owned(),
            command: shell(program, args, dir),
            child: command.spawn()?,
            started,
            said,
            printed,
        })
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it said on standard error so far.
    pub(crate) fn said(&self) -> String {
        std::fs::read_to_string(&self.said).unwrap_or_default()
    }

    /// Waits until it has said something; returns how long that took from its start.
    pub(crate) fn wait_says(&mut self, what: &str, at_most: Duration) -> Outcome<Duration> {
        while !self.said().contains(what) {
            if let Some(status) = self.child.try_wait()? {
                return Err(self.failure(&format!("ended ({status}) before it said {what:?}")));
            }
            if self.started.elapsed() > at_most {
                return Err(self.failure(&format!("did not say {what:?} within {at_most:?}")));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(self.started.elapsed())
    }

    /// Waits for its end and reads what it printed.
    pub(crate) fn result<T: DeserializeOwned>(&mut self) -> Outcome<T> {
        let status = self.child.wait()?;
        if !status.success() {
            return Err(self.failure(&format!("failed ({status})")));
        }
        Ok(serde_json::from_slice(&std::fs::read(&self.printed)?)?)
    }

    /// Waits for its end; returns how long it ran and the CPU seconds it took.
    pub(crate) fn end_and_cpu(&mut self) -> Outcome<(ExitStatus, Duration, f64)> {
        let pid = i32::try_from(self.pid()).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or("a process without an id")?;
        // What it used is there to be read as long as nobody has waited for it in earnest.
        waitid(
            WaitId::Pid(pid),
            WaitIdOptions::EXITED | WaitIdOptions::NOWAIT,
        )?;
        let took = self.started.elapsed();
        let cpu = usage::read(self.pid()).map_or(0.0, |used| used.cpu_s);
        Ok((self.child.wait()?, took, cpu))
    }

    /// What it printed.
    pub(crate) fn printed(&self) -> String {
        std::fs::read_to_string(&self.printed).unwrap_or_default()
    }

    /// SIGTERM, and SIGKILL where that does not end it in time.
    pub(crate) fn stop(&mut self, grace: Duration) {
        self.signal(Signal::TERM);
        let deadline = Instant::now() + grace;
        while Instant::now() < deadline {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        self.kill();
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        self.signal(Signal::KILL);
        // It has ended or is about to.
        let _ = self.child.wait();
    }

    fn signal(&mut self, signal: Signal) {
        // Once it has ended, its number may be another's.
        if !matches!(self.child.try_wait(), Ok(None)) {
            return;
        }
        if let Some(pid) = i32::try_from(self.pid()).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, signal);
        }
    }

    /// The end of what it said.
    pub(crate) fn last_words(&self) -> String {
        let said = self.said();
        let lines: Vec<&str> = said.lines().collect();
        let end = lines.get(lines.len().saturating_sub(8)..);
        end.unwrap_or_default().join("\n")
    }

    fn failure(&self, what: &str) -> Box<dyn std::error::Error + Send + Sync> {
        let words = self.last_words();
        format!("{} {what}; its last words:\n{words}", self.name).into()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A command as a person would type it, with directories of this machine left out.
fn shell(program: &Path, args: &[String], dir: &Path) -> String {
    let name = program.file_name().unwrap_or(program.as_os_str());
    let mut words = vec![name.to_string_lossy().into_owned()];
    let beside = program.parent().unwrap_or(dir).display().to_string();
    let dir = dir.display().to_string();
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_=./:,$".contains(c);
    words.extend(args.iter().map(|arg| {
        let arg = arg.replace(&dir, "$DIR").replace(&beside, "$BIN");
        if arg.chars().all(is_plain) {
            arg
        } else {
            format!("'{arg}'")
        }
    }));
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_name_no_directory_of_this_machine() {
        let args = ["--data-dir", "/b/x/data", "{\"a\":1}"].map(str::to_owned);
        let shown = shell(Path::new("/b/conductor"), &args, Path::new("/b/x"));
        assert_eq!(shown, "conductor --data-dir $DIR/data '{\"a\":1}'");
    }
}
