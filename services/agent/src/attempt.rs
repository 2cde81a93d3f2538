//! One attempt, from its assignment to its end.

mod talk;

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use conductor_protocol::OutcomeClass;
use conductor_protocol::event::{
    AttemptAssigned, AttemptFailed, AttemptStarted, AttemptSucceeded, AttemptUsage, Event, Word,
};
use conductor_protocol::ids::Lease;
use conductor_protocol::limits::MESSAGE_BYTES_MAX;
use tokio::io::AsyncReadExt;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::dirs::AttemptDirs;
use crate::input::Voice;
use crate::inside::Inside;
use crate::output::{Channel, Output};
use crate::people::People;
use crate::process::{Process, ReaperProgram};
use crate::reaper::Status;
use crate::runtime::{self, Host, Job, Runtime, Signal, Step, Verdict};
use talk::Acceptance;

/// How long a program may take to end after its last word.
const GRACE_AFTER_FINAL: Duration = Duration::from_secs(10);

/// How long a reaper may take to end its tree before it is killed itself.
const REAPING_MAX: Duration = Duration::from_secs(10);

/// How long after a reaper's end its outputs may stay open before its tree is looked for again.
const SWEEP_PAUSE: Duration = Duration::from_millis(500);

/// Why an attempt shall stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// It shall not.
    No,
    /// Its lease is over: nobody waits for its result.
    Revoked,
    /// The log could not be reached for longer than the lease.
    LeaseExpired,
    /// The agent shuts down and waits no longer.
    Shutdown,
}

/// What an attempt needs.
#[derive(Debug)]
pub struct Attempt {
    /// The lease.
    pub lease: Lease,
    /// The assignment.
    pub assigned: AttemptAssigned,
    /// Below here its directories are made.
    pub base: PathBuf,
    /// What the agent lends it.
    pub host: Host,
    /// How its reaper is started.
    pub reaper: ReaperProgram,
    /// Where its output goes.
    pub output: Output,
    /// Where its facts go, in order; the last is its end.
    pub facts: mpsc::UnboundedSender<Event>,
    /// Whether it shall stop.
    pub stop: watch::Receiver<Stop>,
    /// What it is told while it runs.
    pub words: mpsc::UnboundedReceiver<Word>,
    /// Whom it asks.
    pub people: People,
}

/// A program that runs, and its outputs.
type Started = (
    Process,
    tokio::process::ChildStdout,
    tokio::process::ChildStderr,
);

/// What ended the waiting for a program.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Why {
    Ended,
    Stopped(Stop),
    RunTimeout,
    Silent,
    Lingering,
}

impl Attempt {
    /// Runs it to its end; nothing of it is left running afterwards.
    pub async fn run(mut self) {
        let lease = self.lease;
        let Some(mut runtime) = runtime::of(&self.assigned.run, &self.host) else {
            self.tell(AttemptStarted::new(lease, None));
            self.tell(AttemptSucceeded {
                lease,
                result: None,
                exit_code: None,
                usage: None,
                output: None,
            });
            return;
        };
        let dirs = AttemptDirs::of(&self.base, &lease);
        let mut inside = Inside::of(&lease, &self.assigned);
        match self.start(runtime.as_mut(), &dirs) {
            Ok((started, voice)) => {
                inside.prepared();
                let watch = Watch::new(self.run_deadline(), runtime.as_ref(), voice, inside);
                let (why, status) = self.attend(runtime.as_mut(), started, watch).await;
                self.report_end(runtime.as_mut(), why, &status).await;
            }
            Err(problem) => {
                self.tell(AttemptStarted::new(lease, None));
                let status = Status::NotStarted(problem);
                self.report_end(runtime.as_mut(), Why::Ended, &status).await;
            }
        }
        dirs.remove();
    }

    fn tell(&self, fact: impl Into<Event>) {
        // The service lives longer than its attempts; when it is killed nobody reports.
        let _ = self.facts.send(fact.into());
    }

    fn start(
        &self,
        runtime: &mut dyn Runtime,
        dirs: &AttemptDirs,
    ) -> Result<(Started, Voice), String> {
        let paths = dirs.paths();
        let job = Job {
            lease: self.lease,
            assigned: &self.assigned,
            paths: &paths,
            host: &self.host,
        };
        let launch = runtime.prepare(&job)?;
        let made = dirs.create(&launch.stdin);
        let voice = made.and_then(|()| launch.stdin.voice(&dirs.stdin)).map_err(|e| {
            format!("cannot make its directories below {}: {e}; free some space there or name another --data-dir", self.base.display())
        })?;
        let lease = format!(
            "{}/{}/{}",
            self.lease.task, self.lease.attempt, self.lease.assigned
        );
        let started = Process::start(&launch, dirs, &lease, &self.reaper)?;
        let session = match self.assigned.run.as_ref() {
            conductor_protocol::RunSpec::Claude(spec) => Some(
                spec.resume
                    .clone()
                    .unwrap_or_else(|| runtime::session_id(&self.lease)),
            ),
            _ => None,
        };
        self.tell(AttemptStarted::new(self.lease, session));
        Ok((started, voice))
    }

    fn run_deadline(&self) -> Option<Instant> {
        let limit = self.assigned.timeouts.run;
        limit.map(|t| Instant::now() + Duration::from_millis(t.0))
    }

    /// Reads the program's outputs and waits for its end, or brings it about.
    async fn attend(
        &mut self,
        runtime: &mut dyn Runtime,
        (mut process, mut stdout, mut stderr): Started,
        mut watch: Watch,
    ) -> (Why, Status) {
        let (mut out, mut err) = (vec![0_u8; 32 * 1024], vec![0_u8; 32 * 1024]);
        let (mut out_open, mut err_open) = (true, true);
        let mut sweep_at = Instant::now();
        let mut stop = self.stop.clone();
        let mut waiting = self.people.waiting();
        while out_open || err_open {
            tokio::select! {
                read = stdout.read(&mut out), if out_open => {
                    out_open = self.take(runtime, Channel::Stdout, read, &out, &mut watch);
                }
                read = stderr.read(&mut err), if err_open => {
                    err_open = self.take(runtime, Channel::Stderr, read, &err, &mut watch);
                }
                changed = stop.changed(), if watch.why == Why::Ended => {
                    let reason = if changed.is_ok() { *stop.borrow_and_update() } else { Stop::Shutdown };
                    if reason != Stop::No {
                        watch.begin_stop(Why::Stopped(reason));
                        watch.step(runtime, &mut process).await;
                    }
                }
                Some(word) = self.words.recv() => self.hear(runtime, word, &mut watch),
                Ok(()) = waiting.changed() => watch.pause(*waiting.borrow_and_update() > 0),
                () = tokio::time::sleep_until(watch.next()) => {
                    watch.on_time(runtime, &mut process).await;
                }
                // Should the reaper be killed, nothing else ends what holds the outputs open.
                () = process.leave_nothing(sweep_at) => sweep_at = Instant::now() + SWEEP_PAUSE,
            }
        }
        let status = loop {
            tokio::select! {
                status = process.wait() => break status,
                changed = stop.changed(), if watch.why == Why::Ended => {
                    let reason = if changed.is_ok() { *stop.borrow_and_update() } else { Stop::Shutdown };
                    if reason != Stop::No {
                        watch.begin_stop(Why::Stopped(reason));
                        process.kill();
                    }
                }
                () = tokio::time::sleep_until(watch.next()) => {
                    watch.on_time(runtime, &mut process).await;
                }
            }
        };
        let is_known = watch.why != Why::Stopped(Stop::Revoked);
        watch.inside.ended(&status, is_known);
        (watch.why, status)
    }

    /// Hands what was read to the runtime; returns whether there can be more.
    fn take(
        &self,
        runtime: &mut dyn Runtime,
        channel: Channel,
        read: std::io::Result<usize>,
        buffer: &[u8],
        watch: &mut Watch,
    ) -> bool {
        let bytes = read.ok().filter(|n| *n > 0).and_then(|n| buffer.get(..n));
        let signals = match bytes {
            Some(bytes) => {
                watch.heard();
                runtime.read(channel, bytes)
            }
            None => runtime.end(channel),
        };
        self.act(signals, watch);
        bytes.is_some()
    }

    /// Does what a runtime says is to be done.
    fn act(&self, signals: Vec<Signal>, watch: &mut Watch) {
        for signal in signals {
            match signal {
                Signal::Text(channel, text) => self.output.write(channel, Bytes::from(text)),
                Signal::Usage(usage) => self.tell(AttemptUsage {
                    lease: self.lease,
                    usage,
                }),
                Signal::Say(bytes) => watch.say(bytes),
                Signal::Ask(name, question, summary) => {
                    self.people.ask_for_runtime(name, question, &summary);
                }
                Signal::Final => watch.on_final(),
                Signal::Moment(moment) => watch.inside.saw(moment),
            }
        }
    }

    async fn report_end(&mut self, runtime: &mut dyn Runtime, mut why: Why, status: &Status) {
        let lease = self.lease;
        let mut verdict = runtime.judge(status);
        if matches!(why, Why::Ended | Why::Lingering) && verdict.failure.is_none() {
            match self.accept(verdict.result.as_deref()).await {
                Acceptance::Accepted => {}
                Acceptance::Denied(text) => {
                    let said = text.map_or_else(String::new, |text| format!(": {text}"));
                    let message = format!("its result was not accepted{said}");
                    verdict.failure = Some((OutcomeClass::Denied, message));
                }
                Acceptance::Stopped(stop) => why = Why::Stopped(stop),
            }
        }
        let output = self.output.stats();
        let failure = match why {
            // Nobody waits for its result; the agent says that it is over.
            Why::Stopped(Stop::Revoked) => return,
            Why::Ended | Why::Lingering => verdict.failure,
            Why::RunTimeout => {
                let limit = self.assigned.timeouts.run.unwrap_or_default();
                Some((OutcomeClass::Timeout, format!("ran longer than {limit}")))
            }
            Why::Silent => {
                let limit = runtime.silence().unwrap_or_default();
                Some((OutcomeClass::Stalled, format!("said nothing for {limit:?}")))
            }
            Why::Stopped(Stop::LeaseExpired) => Some((
                OutcomeClass::LeaseExpired,
                "the log could not be reached".to_owned(),
            )),
            Why::Stopped(_) => Some((OutcomeClass::AgentLost, "the agent shut down".to_owned())),
        };
        let Verdict { result, usage, .. } = verdict;
        let (exit_code, signal) = match status {
            Status::Exited(code) => (Some(*code), None),
            Status::Signalled(signal) => (None, Some(*signal)),
            Status::NotStarted(_) => (None, None),
        };
        match failure {
            None => self.tell(AttemptSucceeded {
                lease,
                result,
                exit_code,
                usage,
                output,
            }),
            Some((class, message)) => self.tell(AttemptFailed {
                lease,
                class,
                message: cut(message),
                result,
                exit_code,
                signal,
                usage,
                output,
            }),
        }
    }
}

fn cut(mut message: String) -> String {
    if message.len() > MESSAGE_BYTES_MAX {
        let end = (0..=MESSAGE_BYTES_MAX - 4)
            .rev()
            .find(|i| message.is_char_boundary(*i));
        message.truncate(end.unwrap_or(0));
        message.push('…');
    }
    message
}

/// The clocks of an attempt, and how far it is on the way to being stopped.
struct Watch {
    run_deadline: Option<Instant>,
    silence: Option<Duration>,
    heard: Instant,
    is_final: bool,
    why: Why,
    ladder: std::slice::Iter<'static, Step>,
    step_deadline: Option<Instant>,
    voice: Voice,
    inside: Inside,
    /// Since when it waits for people: that is neither running nor silence.
    paused: Option<Instant>,
}

/// Far enough to mean never.
const NEVER: Duration = Duration::from_secs(366 * 24 * 3600);

impl Watch {
    fn new(
        run_deadline: Option<Instant>,
        runtime: &dyn Runtime,
        voice: Voice,
        inside: Inside,
    ) -> Self {
        Self {
            run_deadline,
            silence: runtime.silence(),
            heard: Instant::now(),
            is_final: false,
            why: Why::Ended,
            ladder: runtime.ladder().iter(),
            step_deadline: None,
            voice,
            inside,
            paused: None,
        }
    }

    /// It waits for people from now on, or does no longer.
    fn pause(&mut self, is_waiting: bool) {
        let now = Instant::now();
        if is_waiting {
            self.paused.get_or_insert(now);
        } else if let Some(since) = self.paused.take() {
            self.run_deadline = self.run_deadline.map(|at| at + (now - since));
            self.heard = now;
        }
    }

    fn heard(&mut self) {
        self.heard = Instant::now();
    }

    fn on_final(&mut self) {
        self.is_final = true;
        self.voice.close();
    }

    fn say(&self, bytes: Vec<u8>) {
        if !self.voice.say(bytes) {
            tracing::debug!("a word was not heard: its input is closed or full");
        }
    }

    fn silent_at(&self) -> Option<(Instant, Why)> {
        if self.is_final {
            return Some((self.heard + GRACE_AFTER_FINAL, Why::Lingering));
        }
        self.silence
            .map(|silence| (self.heard + silence, Why::Silent))
    }

    /// When something is due next.
    fn next(&self) -> Instant {
        let clocks = if self.why == Why::Ended && self.paused.is_some() {
            [None, None]
        } else if self.why == Why::Ended {
            [self.run_deadline, self.silent_at().map(|(at, _)| at)]
        } else {
            [self.step_deadline, None]
        };
        clocks
            .into_iter()
            .flatten()
            .min()
            .unwrap_or_else(|| Instant::now() + NEVER)
    }

    async fn on_time(&mut self, runtime: &mut dyn Runtime, process: &mut Process) {
        let now = Instant::now();
        if self.why == Why::Ended && self.paused.is_some() {
            return;
        }
        if self.why == Why::Ended {
            match self.silent_at() {
                _ if self.run_deadline.is_some_and(|at| at <= now) => {
                    self.begin_stop(Why::RunTimeout);
                }
                Some((at, why)) if at <= now => self.begin_stop(why),
                _ => return,
            }
        }
        self.step(runtime, process).await;
    }

    fn begin_stop(&mut self, why: Why) {
        self.why = why;
    }

    /// The next step of the ladder; at its end the whole tree is killed.
    async fn step(&mut self, runtime: &mut dyn Runtime, process: &mut Process) {
        let pause = match self.ladder.next() {
            Some(Step::Say(pause)) => match runtime.interrupt() {
                Some(bytes) => {
                    self.say(bytes);
                    *pause
                }
                None => Duration::ZERO,
            },
            Some(Step::Interrupt(pause)) => {
                process.interrupt().await;
                *pause
            }
            Some(Step::Terminate(pause)) => {
                process.terminate().await;
                *pause
            }
            None if process.kill() => REAPING_MAX,
            None => {
                process.kill_reaper();
                NEVER
            }
        };
        self.step_deadline = Some(Instant::now() + pause);
    }
}
