//! One program of an attempt under its reaper: setup, the program itself and checks alike.

use std::time::Duration;

use bytes::Bytes;
use conductor_protocol::event::{AttemptThrottled, AttemptUsage};
use conductor_protocol::terms::SandboxKind;
use tokio::io::AsyncReadExt;
use tokio::process::{ChildStderr, ChildStdout};
use tokio::time::{Instant, MissedTickBehavior};

use super::watch::{Watch, Why};
use super::{Course, Stop};
use crate::files;
use crate::input::Voice;
use crate::inside::Inside;
use crate::output::Channel;
use crate::process::Process;
use crate::reaper::{self, Status};
use crate::runtime::{Job, Runtime, Signal};
use crate::sandbox::disk::DiskWatch;
use crate::workspace::no_room;

/// How long after a reaper's end its outputs may stay open before its tree is looked for again.
const SWEEP_PAUSE: Duration = Duration::from_millis(500);

/// A program that runs, and its outputs.
type Started = (Process, ChildStdout, ChildStderr);

/// How a program ended, and what ended the waiting for it.
#[derive(Clone, Debug)]
pub(super) struct Ended {
    pub(super) why: Why,
    pub(super) status: Status,
    /// What brought that about, where it was one of its limits.
    pub(super) limit: Option<String>,
    /// Whether the kernel killed one of its processes for want of memory.
    pub(super) oom: bool,
}

impl Ended {
    pub(super) fn of(why: Why, end: reaper::End) -> Self {
        Self {
            why,
            status: end.status,
            limit: end.limit,
            oom: end.oom,
        }
    }
}

impl Course {
    /// Runs one program to its end; nothing of it is left running afterwards.
    pub(super) async fn run_program(
        &mut self,
        runtime: &mut dyn Runtime,
        inside: &mut Inside,
    ) -> Ended {
        match self.start(runtime) {
            Ok((started, voice)) => {
                self.tell_started();
                inside.prepared();
                let watch = Watch::new(self.run_deadline, runtime, voice);
                self.attend(runtime, started, watch, inside).await
            }
            Err(problem) => Ended::of(Why::Ended, Status::NotStarted(problem).into()),
        }
    }

    fn start(&self, runtime: &mut dyn Runtime) -> Result<(Started, Voice), String> {
        let (attempt, dirs) = (&self.of, &self.dirs);
        let boxing = self.boxing.as_ref().ok_or("nothing boxes it in")?;
        let paths = boxing.paths(dirs);
        let job = Job {
            lease: attempt.lease,
            assigned: &attempt.assigned,
            paths: &paths,
            host: &self.reach.host,
            is_boxed: boxing.in_use().kind != SandboxKind::None,
            session: self.session.as_deref(),
            tools: self.reach.endpoint.as_ref(),
        };
        let mut launch = runtime.prepare(&job)?;
        launch.env.extend(self.reach.env.clone());
        let placed = dirs.place(&launch.stdin);
        let placed = placed.and_then(|()| dirs.furnish(&launch.files));
        let voice = placed.and_then(|()| launch.stdin.voice(&dirs.stdin));
        let voice = voice.map_err(|e| no_room(&attempt.base, &e))?;
        let started = Process::start(&launch, dirs, boxing)?;
        Ok((started, voice))
    }

    /// Reads the program's outputs and waits for its end, or brings it about.
    async fn attend(
        &mut self,
        runtime: &mut dyn Runtime,
        (mut process, mut stdout, mut stderr): Started,
        mut watch: Watch,
        inside: &mut Inside,
    ) -> Ended {
        let (mut out, mut err) = (vec![0_u8; 32 * 1024], vec![0_u8; 32 * 1024]);
        let (mut out_open, mut err_open) = (true, true);
        let mut sweep_at = Instant::now();
        let mut polls = tokio::time::interval(files::POLL_EVERY);
        polls.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut stop = self.of.stop.clone();
        let mut waiting = self.of.people.waiting();
        let mut disk = self.disk();
        self.pause(&mut watch, *waiting.borrow_and_update());
        while out_open || err_open {
            tokio::select! {
                read = stdout.read(&mut out), if out_open => {
                    let signals = read_by(runtime, Channel::Stdout, read, &out, &mut watch);
                    out_open = signals.is_some();
                    self.take(runtime, Channel::Stdout, signals, &mut watch, inside);
                }
                read = stderr.read(&mut err), if err_open => {
                    let signals = read_by(runtime, Channel::Stderr, read, &err, &mut watch);
                    err_open = signals.is_some();
                    self.take(runtime, Channel::Stderr, signals, &mut watch, inside);
                }
                reason = stopped(&mut stop), if watch.why == Why::Ended => {
                    watch.begin_stop(Why::Stopped(reason));
                    watch.step(runtime, &mut process).await;
                }
                () = disk.exceeded(), if watch.why == Why::Ended => {
                    watch.kill(Why::Disk, runtime, &mut process).await;
                }
                Some(word) = self.of.words.recv() => self.hear(runtime, word, &mut watch, inside),
                Ok(()) = waiting.changed() => {
                    self.pause(&mut watch, *waiting.borrow_and_update());
                }
                notice = self.reach.line.next() => self.notice(notice, &mut watch),
                () = tokio::time::sleep_until(watch.next()) => {
                    watch.on_time(runtime, &mut process).await;
                }
                now = polls.tick() => self.look_for_progress(now),
                // Should the reaper be killed, nothing else ends what holds the outputs open.
                () = process.leave_nothing(sweep_at) => sweep_at = Instant::now() + SWEEP_PAUSE,
            }
        }
        let end = loop {
            tokio::select! {
                end = process.wait() => break end,
                reason = stopped(&mut stop), if watch.why == Why::Ended => {
                    watch.begin_stop(Why::Stopped(reason));
                    process.kill();
                }
                () = tokio::time::sleep_until(watch.next()) => {
                    watch.on_time(runtime, &mut process).await;
                }
            }
        };
        if watch.why == Why::Ended && disk.exceeds_now().await {
            watch.why = Why::Disk;
        }
        // Whoever stopped it ends all that was asked; else what follows may take long.
        if !matches!(watch.why, Why::Stopped(_)) {
            self.of.people.program_ended();
        }
        // Waiting for people takes nothing from what runs after it.
        self.run_deadline = watch.run_deadline();
        Ended::of(watch.why, end)
    }

    /// Looks at how much its files take.
    fn disk(&self) -> DiskWatch {
        let dirs = &self.dirs;
        let own = [&dirs.workspace, &dirs.home, &dirs.tmp, &dirs.run];
        let limit = self.boxing.as_ref().and_then(|b| b.limits.disk);
        DiskWatch::new(own.map(Clone::clone).to_vec(), limit)
    }

    /// Its clocks stand still while any question waits for people.
    fn pause(&self, watch: &mut Watch, questions: usize) {
        watch.pause(questions > 0);
        self.tell_tools(watch.run_deadline());
    }

    /// Tells how far it is, where it says so in its file or by its tools.
    fn look_for_progress(&mut self, now: Instant) {
        self.hear_tools();
        if let Some(progress) = self.progress.poll(&self.dirs.workspace, now) {
            self.tell_progress(progress);
        }
    }

    /// Does what the runtime makes of what was read; at the end of an output, of that.
    fn take(
        &self,
        runtime: &mut dyn Runtime,
        channel: Channel,
        signals: Option<Vec<Signal>>,
        watch: &mut Watch,
        inside: &mut Inside,
    ) {
        let signals = signals.unwrap_or_else(|| runtime.end(channel));
        self.act(signals, watch, inside);
    }

    /// Does what a runtime says is to be done.
    pub(super) fn act(&self, signals: Vec<Signal>, watch: &mut Watch, inside: &mut Inside) {
        for signal in signals {
            match signal {
                Signal::Text(channel, text) => self.of.output.write(channel, Bytes::from(text)),
                // What is metered needs no figures of the program's own.
                Signal::Usage(_) if self.reach.line.is_metered() => {}
                Signal::Usage(usage) if watch.may_tell_usage() => self.of.tell(AttemptUsage {
                    lease: self.of.lease,
                    usage,
                }),
                Signal::Usage(_) | Signal::Waiting => {}
                Signal::Throttled(until_ms) => self.of.tell(AttemptThrottled {
                    lease: self.of.lease,
                    until_ms,
                }),
                Signal::Say(bytes) => watch.say(bytes),
                Signal::Ask(name, question, summary) => {
                    self.of.people.ask_for_runtime(name, question, &summary);
                }
                Signal::Withdraw(name) => self.of.people.withdraw(&name),
                Signal::Warning(problem) => {
                    let (lease, problem) = (&self.of.lease, problem.as_str());
                    tracing::warn!(task = %lease.task, attempt = lease.attempt, problem, "an attempt does without something");
                    self.note(&format!("[{problem}]"));
                }
                Signal::Final => watch.on_final(),
                Signal::Moment(moment) => inside.saw(moment),
            }
        }
    }
}

/// Hands what was read to the runtime; `None` at the end of the output.
fn read_by(
    runtime: &mut dyn Runtime,
    channel: Channel,
    read: std::io::Result<usize>,
    buffer: &[u8],
    watch: &mut Watch,
) -> Option<Vec<Signal>> {
    let bytes = read.ok().filter(|n| *n > 0).and_then(|n| buffer.get(..n))?;
    let signals = runtime.read(channel, bytes);
    if !signals.contains(&Signal::Waiting) {
        watch.heard();
    }
    Some(signals)
}

/// Why it shall stop, once it shall.
pub(super) async fn stopped(stop: &mut tokio::sync::watch::Receiver<Stop>) -> Stop {
    match stop.wait_for(|reason| *reason != Stop::No).await {
        Ok(reason) => *reason,
        // Nobody is left who could say.
        Err(_) => Stop::Shutdown,
    }
}
