//! Running git on the host, so that nothing of a workspace runs there.
//!
//! A repository's own settings can name programs: hooks, `core.fsmonitor`, `core.sshCommand`,
//! filters (`filter.*.clean`), `diff.external`, text conversions, signing. A program may have
//! written all of them. So no command of ours ever reads the settings of a workspace: they run with
//! the agent's own bare repositories as `GIT_DIR`, the workspace is at most `GIT_WORK_TREE`. What
//! `.gitattributes` name is then undefined and does nothing. Settings of the machine and of the
//! user count only where their rights are needed: to fetch from a remote and to push to it.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};

use crate::output::Tail;

/// Longest that one command may take.
const COMMAND_MAX: Duration = Duration::from_secs(600);
/// Most bytes of an answer that is read whole.
const ANSWER_BYTES_MAX: u64 = 64 << 20;
/// How much of what it said last is kept.
const LAST_WORDS: usize = 800;

/// Settings that stand above those of every file. Nothing is run but git.
const SETTINGS: [&str; 16] = [
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "core.attributesFile=/dev/null",
    "core.excludesFile=/dev/null",
    "core.alternateRefsCommand=",
    "protocol.file.allow=always",
    "protocol.ext.allow=never",
    "safe.directory=*",
    "gc.auto=0",
    "maintenance.auto=false",
    "submodule.recurse=false",
    "fetch.recurseSubmodules=false",
    "push.recurseSubmodules=no",
    "commit.gpgSign=false",
    "tag.gpgSign=false",
    "push.gpgSign=false",
];

/// Protocols that a remote may be reached by.
const PROTOCOLS: &str = "file:http:https:ssh";

/// Git, as it is run for one attempt.
#[derive(Clone, Debug)]
pub(crate) struct Git {
    /// `PATH`.
    pub(crate) path: String,
    /// Marks its processes, so that those of an agent that was killed are found.
    pub(crate) lease: Option<String>,
}

/// One command of git.
#[derive(Debug)]
pub(crate) struct Call {
    args: Vec<OsString>,
    env: Vec<(String, OsString)>,
    cwd: PathBuf,
    stdin: Input,
    /// Whether it speaks to a remote, with the rights of the user.
    is_remote: bool,
    /// Whether it may say that it could not do all of it.
    is_partial: bool,
}

#[derive(Debug)]
enum Input {
    Bytes(Vec<u8>),
    File(File),
}

impl Git {
    /// A command on a repository of the agent's own.
    pub(crate) fn on(&self, repository: &Path) -> Call {
        self.call(repository).env("GIT_DIR", repository.as_os_str())
    }

    /// A command that makes a repository at a place.
    pub(crate) fn at(&self, place: &Path) -> Call {
        self.call(place)
    }

    fn call(&self, cwd: &Path) -> Call {
        let mut env: Vec<(String, OsString)> = [
            ("PATH", self.path.as_str()),
            ("LC_ALL", "C.UTF-8"),
            ("GIT_TERMINAL_PROMPT", "0"),
            ("GIT_OPTIONAL_LOCKS", "0"),
            ("GIT_NO_LAZY_FETCH", "1"),
            ("GIT_NO_REPLACE_OBJECTS", "1"),
            ("GIT_ATTR_NOSYSTEM", "1"),
            ("GIT_ALLOW_PROTOCOL", PROTOCOLS),
        ]
        .map(|(name, value)| (name.to_owned(), value.into()))
        .to_vec();
        let mark = self.lease.iter();
        env.extend(mark.map(|lease| ("CONDUCTOR_LEASE".to_owned(), lease.into())));
        Call {
            args: settings(),
            env,
            cwd: cwd.to_owned(),
            stdin: Input::Bytes(Vec::new()),
            is_remote: false,
            is_partial: false,
        }
    }
}

fn settings() -> Vec<OsString> {
    let each = SETTINGS.iter().flat_map(|s| ["-c".into(), (*s).into()]);
    each.collect()
}

impl Call {
    /// More words of its command line.
    pub(crate) fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.args
            .extend(args.into_iter().map(|a| a.as_ref().to_owned()));
        self
    }

    /// A variable of its environment.
    pub(crate) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.env.push((name.to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Where it runs.
    pub(crate) fn within(mut self, cwd: &Path) -> Self {
        cwd.clone_into(&mut self.cwd);
        self
    }

    /// What it reads.
    pub(crate) fn reads(mut self, bytes: Vec<u8>) -> Self {
        self.stdin = Input::Bytes(bytes);
        self
    }

    /// The file that it reads.
    pub(crate) fn reads_file(mut self, file: File) -> Self {
        self.stdin = Input::File(file);
        self
    }

    /// It speaks to a remote.
    pub(crate) fn remote(mut self) -> Self {
        self.is_remote = true;
        self
    }

    /// Doing a part of it is enough.
    pub(crate) fn partial(mut self) -> Self {
        self.is_partial = true;
        self
    }

    /// The command, with its whole environment.
    fn command(&self) -> Command {
        let mut command = Command::new("git");
        command.args(&self.args).current_dir(&self.cwd);
        if self.is_remote {
            // The user's settings, keys and proxies; nothing that points at another repository.
            let of_git = |name: &OsString| name.to_string_lossy().starts_with("GIT_");
            let names = std::env::vars_os().map(|(name, _)| name);
            let kept = [OsString::from("GIT_SSH_COMMAND"), "GIT_SSH".into()];
            for name in names.filter(of_git).filter(|name| !kept.contains(name)) {
                command.env_remove(name);
            }
            // Nobody is there to be asked.
            command.envs([
                ("GIT_ASKPASS", "false"),
                ("SSH_ASKPASS", "false"),
                ("SSH_ASKPASS_REQUIRE", "force"),
            ]);
        } else {
            command.env_clear().envs([
                ("HOME", "/nonexistent"),
                ("GIT_CONFIG_NOSYSTEM", "1"),
                ("GIT_CONFIG_GLOBAL", "/dev/null"),
            ]);
        }
        command.envs(self.env.iter().map(|(k, v)| (k, v)));
        command
    }

    /// Runs it; what it answered.
    pub(crate) async fn run(self) -> Result<Vec<u8>, String> {
        let name = self.name();
        let answer = self.run_capped(ANSWER_BYTES_MAX).await?;
        answer.ok_or_else(|| format!("git {name} answered more than {ANSWER_BYTES_MAX} bytes"))
    }

    /// Runs it; the line it answered.
    pub(crate) async fn line(self) -> Result<String, String> {
        let answer = self.run().await?;
        Ok(String::from_utf8_lossy(&answer).trim().to_owned())
    }

    /// Runs it; `None` where it answered more than `max` bytes.
    pub(crate) async fn run_capped(self, max: u64) -> Result<Option<Vec<u8>>, String> {
        self.carry_out(Stdio::piped(), max).await
    }

    /// Runs it; its answer goes into a file.
    pub(crate) async fn run_into(self, file: File) -> Result<(), String> {
        self.carry_out(Stdio::from(file), 0).await.map(|_| ())
    }

    async fn carry_out(self, stdout: Stdio, max: u64) -> Result<Option<Vec<u8>>, String> {
        let (name, is_partial) = (self.name(), self.is_partial);
        let mut command = self.command();
        let (stdin, bytes) = match self.stdin {
            Input::Bytes(bytes) => (Stdio::piped(), bytes),
            Input::File(file) => (Stdio::from(file), Vec::new()),
        };
        command.stdin(stdin).stdout(stdout).stderr(Stdio::piped());
        command.process_group(0).kill_on_drop(true);
        let mut child = command
            .spawn()
            .map_err(|e| format!("git does not start: {e}; install it where the agent runs"))?;
        let mut group = Group::of(&child);
        let (mut input, output) = (child.stdin.take(), child.stdout.take());
        let errors = child.stderr.take();
        let speak = async {
            if let Some(pipe) = &mut input {
                // One that wants no more says at its end whether that was well.
                let _ = pipe.write_all(&bytes).await;
            }
            drop(input);
        };
        let all = async {
            tokio::join!(speak, last_words(errors), async {
                let answer = answer(output, max).await;
                if answer.is_none() {
                    group.kill();
                }
                answer
            })
        };
        let Ok(((), words, answer)) = tokio::time::timeout(COMMAND_MAX, all).await else {
            return Err(format!("git {name} took longer than {COMMAND_MAX:?}"));
        };
        let status = child.wait().await;
        let status = status.map_err(|e| format!("git {name} was lost: {e}"))?;
        group.is_over = true;
        match answer {
            None => Ok(None),
            Some(_) if !is_well(status, is_partial) => Err(format!(
                "git {name} failed: {}",
                words.map_or_else(|| status.to_string(), |words| anonymous(&words))
            )),
            answer => Ok(answer),
        }
    }

    /// What is done, for people.
    fn name(&self) -> String {
        let own = self.args.iter().skip(2 * SETTINGS.len());
        let words = own.map(|a| a.to_string_lossy().into_owned());
        words.take(1).collect()
    }
}

fn is_well(status: ExitStatus, is_partial: bool) -> bool {
    status.success() || is_partial && status.code() == Some(1)
}

/// All that is answered; `None` for more than `max` bytes.
async fn answer(output: Option<impl AsyncRead + Unpin>, max: u64) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    if let Some(output) = output {
        // What broke off shows in its end.
        let _ = output.take(max + 1).read_to_end(&mut bytes).await;
    }
    (bytes.len() as u64 <= max).then_some(bytes)
}

async fn last_words(errors: Option<impl AsyncRead + Unpin>) -> Option<String> {
    let (mut errors, mut tail) = (errors?, Tail::default());
    let mut buffer = vec![0; 4096];
    while let Ok(n @ 1..) = errors.read(&mut buffer).await {
        tail.push(buffer.get(..n).unwrap_or_default(), LAST_WORDS);
    }
    tail.text()
}

/// The text without names and keys in its URLs: the user's settings may put them there.
fn anonymous(text: &str) -> String {
    let mut parts = text.split("://");
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let end = part.find(|c: char| c == '/' || c == '\'' || c.is_whitespace());
        let (host, rest) = part.split_at(end.unwrap_or(part.len()));
        let host = host
            .rsplit_once('@')
            .map_or_else(|| host.to_owned(), |(_, host)| format!("***@{host}"));
        out += &format!("://{host}{rest}");
    }
    out
}

/// All processes of a command; dropped before its end, they are killed.
struct Group {
    leader: Option<Pid>,
    is_over: bool,
}

impl Group {
    fn of(child: &Child) -> Self {
        let leader = child.id().and_then(|id| i32::try_from(id).ok());
        Self {
            leader: leader.and_then(Pid::from_raw),
            is_over: false,
        }
    }

    fn kill(&self) {
        if let Some(leader) = self.leader {
            // It may just have ended.
            let _ = kill_process_group(leader, Signal::KILL);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if !self.is_over {
            self.kill();
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn git() -> Git {
        Git {
            path: std::env::var("PATH").unwrap(),
            lease: None,
        }
    }

    /// What a user would see of git in a directory.
    pub(crate) fn users(dir: &Path, args: &[&str]) -> String {
        let output = std::process::Command::new("git")
            .args(args)
            .current_dir(dir)
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .envs([("GIT_AUTHOR_NAME", "u"), ("GIT_AUTHOR_EMAIL", "u@h")])
            .envs([("GIT_COMMITTER_NAME", "u"), ("GIT_COMMITTER_EMAIL", "u@h")])
            .output()
            .unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "git {args:?}: {errors}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn environment(call: &Call) -> Vec<(String, Option<String>)> {
        let command = call.command();
        let text = |s: &OsStr| s.to_string_lossy().into_owned();
        let envs = command.as_std().get_envs();
        envs.map(|(k, v)| (text(k), v.map(text))).collect()
    }

    #[test]
    fn only_what_speaks_to_a_remote_has_the_users_settings() {
        let value = |call: &Call, name: &str| {
            let env = environment(call);
            let found = env.into_iter().rfind(|(k, _)| k == name);
            found.and_then(|(_, v)| v)
        };
        let own = git().on(Path::new("/r")).args(["status"]);
        assert_eq!(value(&own, "HOME").as_deref(), Some("/nonexistent"));
        assert_eq!(
            value(&own, "GIT_CONFIG_GLOBAL").as_deref(),
            Some("/dev/null")
        );
        assert_eq!(value(&own, "GIT_DIR").as_deref(), Some("/r"));
        let remote = git().on(Path::new("/r")).args(["fetch"]).remote();
        assert_eq!(value(&remote, "HOME"), None, "the agent's own");
        assert_eq!(value(&remote, "GIT_CONFIG_GLOBAL"), None);
        assert_eq!(value(&remote, "GIT_TERMINAL_PROMPT").as_deref(), Some("0"));
        assert_eq!(value(&remote, "GIT_ASKPASS").as_deref(), Some("false"));
    }

    #[test]
    fn every_command_switches_off_what_a_repository_could_run() {
        let call = git().on(Path::new("/r")).args(["add"]);
        let args: Vec<_> = call.args.iter().map(|a| a.to_string_lossy()).collect();
        for setting in ["core.hooksPath=/dev/null", "core.fsmonitor=false"] {
            let at = args.iter().position(|a| a == setting).unwrap();
            assert_eq!(args[at - 1], "-c");
        }
        assert_eq!(call.name(), "add");
    }

    #[test]
    fn keys_in_urls_are_not_repeated() {
        for (text, shown) in [
            ("no url", "no url"),
            (
                "'https://u:key@h.org/x' and ssh://git@h",
                "'https://***@h.org/x' and ssh://***@h",
            ),
            ("https://h.org/a@b", "https://h.org/a@b"),
        ] {
            assert_eq!(anonymous(text), shown);
        }
    }

    #[tokio::test]
    async fn a_failure_has_gits_own_words() {
        let dir = tempfile::tempdir().unwrap();
        let failed = git().on(dir.path()).args(["rev-parse", "HEAD"]).run().await;
        assert!(failed.unwrap_err().contains("not a git repository"));
    }

    #[tokio::test]
    async fn an_answer_that_is_too_long_is_left() {
        let call = git().at(Path::new("/")).args(["--version"]);
        assert_eq!(call.run_capped(3).await, Ok(None));
        let call = git().at(Path::new("/")).args(["--version"]);
        assert!(call.line().await.unwrap().starts_with("git version"));
    }
}
