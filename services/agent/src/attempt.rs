//! One attempt, from its assignment to its end.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use conductor_protocol::OutcomeClass;
use conductor_protocol::event::{
    AttemptAssigned, AttemptFailed, AttemptStarted, AttemptSucceeded, AttemptThrottled,
    AttemptUsage, Event,
};
use conductor_protocol::ids::Lease;
use conductor_protocol::limits::MESSAGE_BYTES_MAX;
use tokio::io::AsyncReadExt;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::dirs::AttemptDirs;
use crate::input::Voice;
use crate::inside::Inside;
use crate::kept;
use crate::output::{Channel, Output};
use crate::process::{Process, ReaperProgram};
use crate::reaper::Status;
use crate::runtime::{self, Host, Job, Runtime, Signal, Step, Verdict};

/// How long a program may take to end after its last word.
const GRACE_AFTER_FINAL: Duration = Duration::from_secs(10);

/// How long a reaper may take to end its tree before it is killed itself.
const REAPING_MAX: Duration = Duration::from_secs(10);

/// How often, at most, it is told what an attempt that goes on has used.
const USAGE_EVERY: Duration = Duration::from_secs(30);

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
        let goes_on = match self.start(runtime.as_mut(), &dirs) {
            Ok((started, voice)) => {
                inside.prepared();
                let watch = Watch::new(self.run_deadline(), runtime.as_ref(), voice, inside);
                let (why, status) = self.attend(runtime.as_mut(), started, watch).await;
                self.report_end(runtime.as_mut(), why, &status)
            }
            Err(problem) => {
                self.tell(AttemptStarted::new(lease, None));
                let status = Status::NotStarted(problem);
                self.report_end(runtime.as_mut(), Why::Ended, &status)
            }
        };
        if goes_on {
            kept::salvage(&self.base, &dirs.root);
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
        if let Some(reason) = runtime::refusal(&self.assigned) {
            return Err(reason);
        }
        let paths = dirs.paths();
        let before = self.assigned.before.as_deref();
        let session = before.and_then(|b| b.session.as_deref());
        let session = session.filter(|s| kept::can_go_on(&self.base, &self.assigned, s));
        let job = Job {
            lease: self.lease,
            assigned: &self.assigned,
            paths: &paths,
            host: &self.host,
            is_boxed: false,
            session,
        };
        let launch = runtime.prepare(&job)?;
        let made = dirs.create(&launch.stdin).and_then(|()| {
            if session.is_some() {
                kept::take(&self.base, self.lease.task, dirs)?;
            }
            if runtime.keeps_session() {
                kept::mark(dirs, &self.assigned)?;
            }
            dirs.furnish(&launch.files)
        });
        let voice = made.and_then(|()| launch.stdin.voice(&dirs.stdin)).map_err(|e| {
            format!("cannot make its directories below {}: {e}; free some space there or name another --data-dir", self.base.display())
        })?;
        let lease = format!(
            "{}/{}/{}",
            self.lease.task, self.lease.attempt, self.lease.assigned
        );
        let started = Process::start(&launch, dirs, &lease, &self.reaper)?;
        let version = self.host.versions.get(&self.assigned.run.runtime());
        self.tell(AttemptStarted {
            version: version.cloned(),
            ..AttemptStarted::new(self.lease, runtime.session().map(str::to_owned))
        });
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
            Some(bytes) => runtime.read(channel, bytes),
            None => runtime.end(channel),
        };
        if bytes.is_some() && !signals.contains(&Signal::Waiting) {
            watch.heard();
        }
        for signal in signals {
            match signal {
                Signal::Waiting => {}
                Signal::Throttled(until_ms) => self.tell(AttemptThrottled {
                    lease: self.lease,
                    until_ms,
                }),
                Signal::Text(channel, text) => self.output.write(channel, Bytes::from(text)),
                Signal::Usage(usage) if watch.may_tell_usage() => self.tell(AttemptUsage {
                    lease: self.lease,
                    usage,
                }),
                Signal::Usage(_) => {}
                Signal::Say(bytes) => watch.say(bytes),
                Signal::Final => watch.on_final(),
                Signal::Moment(moment) => watch.inside.saw(moment),
            }
        }
        bytes.is_some()
    }

    /// Says how it ended; returns whether another attempt may go on from here.
    fn report_end(&self, runtime: &mut dyn Runtime, why: Why, status: &Status) -> bool {
        let lease = self.lease;
        // What did not end by itself after its last word was ended by us: that says nothing of it.
        let judged = match why {
            Why::Lingering => &Status::Exited(0),
            _ => status,
        };
        let verdict = runtime.judge(judged);
        let output = self.output.stats();
        let failure = match why {
            // Nobody waits for its result; the agent says that it is over.
            Why::Stopped(Stop::Revoked) => return false,
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
        let goes_on = failure
            .as_ref()
            .is_some_and(|(class, _)| class.is_retried_by_default());
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
        goes_on
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
    usage_told: Option<Instant>,
    voice: Voice,
    inside: Inside,
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
            usage_told: None,
            voice,
            inside,
        }
    }

    fn heard(&mut self) {
        self.heard = Instant::now();
    }

    /// Whether what was used is told now; what is known at the end is told then in any case.
    fn may_tell_usage(&mut self) -> bool {
        let now = Instant::now();
        let is_due = self.usage_told.is_none_or(|at| now >= at + USAGE_EVERY);
        if is_due {
            self.usage_told = Some(now);
        }
        is_due
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
        let clocks = if self.why == Why::Ended {
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
