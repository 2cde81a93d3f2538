//! The clocks of one program, and how far it is on the way to being stopped.

use std::time::Duration;

use tokio::time::Instant;

use super::Stop;
use crate::input::Voice;
use crate::process::Process;
use crate::runtime::{Runtime, Step};

/// How long a program may take to end after its last word.
const GRACE_AFTER_FINAL: Duration = Duration::from_secs(10);

/// How long a program may take to end when nothing it asks is answered any more.
const GRACE_AFTER_REFUSAL: Duration = Duration::from_secs(10);

/// How long a reaper may take to end its tree before it is killed itself.
const REAPING_MAX: Duration = Duration::from_secs(10);

/// How often, at most, it is told what an attempt that goes on has used.
const USAGE_EVERY: Duration = Duration::from_secs(30);

/// Far enough to mean never.
const NEVER: Duration = Duration::from_secs(366 * 24 * 3600);

/// What ended the waiting for a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    Ended,
    Stopped(Stop),
    RunTimeout,
    Silent,
    Lingering,
    /// Nothing it asks is answered any more, and it did not end by itself.
    Refused,
    /// Its files took more than they may.
    Disk,
}

pub(super) struct Watch {
    run_deadline: Option<Instant>,
    silence: Option<Duration>,
    heard: Instant,
    is_final: bool,
    pub(super) why: Why,
    ladder: std::slice::Iter<'static, Step>,
    step_deadline: Option<Instant>,
    usage_told: Option<Instant>,
    /// When it must have ended by itself, since nothing it asks is answered.
    refused_until: Option<Instant>,
    voice: Voice,
    /// Since when it waits for people: that is neither running nor silence.
    paused: Option<Instant>,
}

impl Watch {
    pub(super) fn new(run_deadline: Option<Instant>, runtime: &dyn Runtime, voice: Voice) -> Self {
        Self {
            run_deadline,
            silence: runtime.silence(),
            heard: Instant::now(),
            is_final: false,
            why: Why::Ended,
            ladder: runtime.ladder().iter(),
            step_deadline: None,
            usage_told: None,
            refused_until: None,
            voice,
            paused: None,
        }
    }

    /// It waits for people from now on, or does no longer.
    pub(super) fn pause(&mut self, is_waiting: bool) {
        let now = Instant::now();
        if is_waiting {
            self.paused.get_or_insert(now);
        } else if let Some(since) = self.paused.take() {
            self.run_deadline = self.run_deadline.map(|at| at + (now - since));
            self.heard = now;
        }
    }

    /// Until when it may run, by what it has waited.
    pub(super) fn run_deadline(&self) -> Option<Instant> {
        let waits = self.paused.map_or(Duration::ZERO, |since| since.elapsed());
        self.run_deadline.map(|at| at + waits)
    }

    pub(super) fn heard(&mut self) {
        self.heard = Instant::now();
    }

    /// Whether what was used is told now; what is known at the end is told then in any case.
    pub(super) fn may_tell_usage(&mut self) -> bool {
        let now = Instant::now();
        let is_due = self.usage_told.is_none_or(|at| now >= at + USAGE_EVERY);
        if is_due {
            self.usage_told = Some(now);
        }
        is_due
    }

    pub(super) fn on_final(&mut self) {
        self.is_final = true;
        self.voice.close();
    }

    pub(super) fn say(&self, bytes: Vec<u8>) {
        if !self.voice.say(bytes) {
            tracing::debug!("a word was not heard: its input is closed or full");
        }
    }

    /// Nothing it asks is answered any more: it may end by itself, but not take long.
    pub(super) fn on_refusal(&mut self) {
        let until = Instant::now() + GRACE_AFTER_REFUSAL;
        self.refused_until.get_or_insert(until);
    }

    fn silent_at(&self) -> Option<(Instant, Why)> {
        if let Some(until) = self.refused_until {
            return Some((until, Why::Refused));
        }
        if self.is_final {
            return Some((self.heard + GRACE_AFTER_FINAL, Why::Lingering));
        }
        self.silence
            .map(|silence| (self.heard + silence, Why::Silent))
    }

    /// When something is due next.
    pub(super) fn next(&self) -> Instant {
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

    pub(super) async fn on_time(&mut self, runtime: &mut dyn Runtime, process: &mut Process) {
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

    pub(super) fn begin_stop(&mut self, why: Why) {
        self.why = why;
    }

    /// Ends it at once: every step of the ladder would give it time to do more harm.
    pub(super) async fn kill(
        &mut self,
        why: Why,
        runtime: &mut dyn Runtime,
        process: &mut Process,
    ) {
        self.why = why;
        self.ladder = [].iter();
        self.step(runtime, process).await;
    }

    /// The next step of the ladder; at its end the whole tree is killed.
    pub(super) async fn step(&mut self, runtime: &mut dyn Runtime, process: &mut Process) {
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
