//! One attempt, from its assignment to its end.
//!
//! Its phases: a workspace is made, setup programs run, the program itself, then checks; what it
//! made and changed is kept, and its end is told. `program` runs one program under its reaper,
//! `watch` holds its clocks, `end` says what an end means.

mod end;
mod keep;
mod phases;
mod program;
mod reach;
mod talk;
mod watch;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use conductor_protocol::RunSpec;
use conductor_protocol::event::{
    AttemptAssigned, AttemptProgress, AttemptStarted, AttemptSucceeded, Event, Word,
};
use conductor_protocol::ids::Lease;
use tokio::sync::{mpsc, watch as channel};
use tokio::time::Instant;

use crate::dirs::AttemptDirs;
use crate::files;
use crate::mask::Masks;
use crate::models;
use crate::output::Output;
use crate::people::People;
use crate::runtime::{self, Host};
use crate::sandbox::{Boxes, Boxing};
use crate::sessions;
use crate::subtasks::Subtasks;
use crate::workspace::collect::ArtifactStore;
use crate::workspace::store::Keeper;
use end::End;
use reach::Reach;
use watch::Why;

/// How often the removal of an attempt's directories is tried.
const REMOVAL_TRIES: u32 = 5;
/// The pause between.
const REMOVAL_PAUSE: Duration = Duration::from_millis(50);

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
    /// Below here is what outlives attempts: mirrors of repositories, named workspaces, sessions
    /// of models.
    pub kept: PathBuf,
    /// Where its artifacts go.
    pub artifacts: Arc<dyn ArtifactStore>,
    /// What the agent lends it.
    pub host: Host,
    /// What it may be boxed in by.
    pub boxes: Boxes,
    /// Where its output goes.
    pub output: Output,
    /// What is masked in its output and facts: set before it starts.
    pub masks: Masks,
    /// Where its facts go, in order; the last is its end.
    pub facts: mpsc::UnboundedSender<Event>,
    /// Whether it shall stop.
    pub stop: channel::Receiver<Stop>,
    /// What it is told while it runs.
    pub words: mpsc::UnboundedReceiver<Word>,
    /// Whom it asks.
    pub people: People,
    /// What it submits.
    pub subtasks: Subtasks,
}

/// An attempt on its way through its phases.
#[derive(Debug)]
struct Course {
    of: Attempt,
    dirs: AttemptDirs,
    /// The model's session that it goes on with.
    session: Option<String>,
    /// How it is boxed in, once that is known.
    boxing: Option<Boxing>,
    /// What its programs reach the world by, once that is open.
    reach: Reach,
    /// When all its programs together have run for as long as they may.
    run_deadline: Option<Instant>,
    has_started: bool,
    /// What it says of how far it is.
    progress: files::Watched,
    /// Keeps its files.
    keeper: Keeper,
}

impl Attempt {
    /// Runs it to its end; nothing of it is left running afterwards.
    pub async fn run(self) {
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
        let mut course = Course {
            dirs: AttemptDirs::of(&self.base, &lease),
            session: None,
            boxing: None,
            reach: Reach::none(&self.host),
            run_deadline: None,
            has_started: false,
            progress: files::Watched::default(),
            keeper: Keeper::new(lease, Arc::clone(&self.artifacts)),
            of: self,
        };
        let end = course.go(runtime.as_mut()).await;
        if end.may_go_on() {
            // Before anybody knows that it is over: the next attempt wants the same place.
            let (kept, root) = (course.of.kept.clone(), course.dirs.root.clone());
            // What it takes to look through many files is no time of other attempts.
            let _ = tokio::task::spawn_blocking(move || sessions::salvage(&kept, &root)).await;
            course.dirs.remove();
        }
        course.report(end);
        // What was killed a moment ago may still write.
        for _ in 0..REMOVAL_TRIES {
            if course.dirs.remove() {
                break;
            }
            tokio::time::sleep(REMOVAL_PAUSE).await;
        }
    }

    fn tell(&self, fact: impl Into<Event>) {
        // The service lives longer than its attempts; when it is killed nobody reports.
        let _ = self.facts.send(fact.into());
    }
}

impl Course {
    /// Says that it began, once.
    fn tell_started(&mut self) {
        if std::mem::replace(&mut self.has_started, true) {
            return;
        }
        let run = self.of.assigned.run.as_ref();
        let session = match run {
            RunSpec::Claude(spec) => {
                let goes_on = spec.resume.clone().or_else(|| self.session.clone());
                Some(goes_on.unwrap_or_else(|| runtime::session_id(&self.of.lease)))
            }
            RunSpec::Codex(spec) => spec.resume.clone().or_else(|| self.session.clone()),
            RunSpec::Acp(spec) => spec.resume.clone().or_else(|| self.session.clone()),
            RunSpec::Command(_) | RunSpec::Noop(_) => None,
        };
        let version = self.of.host.versions.get(&run.runtime()).cloned();
        self.of.tell(AttemptStarted {
            version,
            sandbox: self.boxing.as_ref().map(Boxing::in_use),
            ..AttemptStarted::new(self.of.lease, session)
        });
    }

    fn tell_progress(&self, progress: files::Progress) {
        self.of.tell(AttemptProgress {
            lease: self.of.lease,
            percent: progress.percent,
            message: progress.message,
        });
    }

    /// Says how it ended; nobody waits for the end of one whose lease is over.
    fn report(&mut self, end: End) {
        self.of.output.flush();
        if end.why == Why::Stopped(Stop::Revoked) {
            return;
        }
        self.tell_started();
        let output = self.of.output.stats();
        self.of.tell(end.event(self.of.lease, output));
    }

    /// From now on the time of its programs counts.
    fn start_clock(&mut self) {
        let limit = models::time_limit(&self.of.assigned);
        self.run_deadline = limit.map(|limit| Instant::now() + limit.time);
        self.tell_tools(self.run_deadline);
    }

    /// Has its tools know until when it may run.
    fn tell_tools(&self, deadline: Option<Instant>) {
        if let Some(tools) = &self.reach.tools {
            tools.know_deadline(deadline);
        }
    }
}
