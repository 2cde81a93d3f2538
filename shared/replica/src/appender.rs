//! The actor that brings a writer's events into the log: group commit and retry.
//!
//! One per term of a leader, or per incarnation of an agent. An append whose ack is lost is
//! repeated, same frame and same id, until it is known; when the writer's time is over
//! the actor is stopped and what it had in flight no longer matters.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use conductor_eventlog::{Append, AppendError, EventLog, GroupCommit};
use conductor_protocol::frame::FrameHead;
use ractor::{Actor, ActorProcessingErr, ActorRef};

/// What the appender is told.
#[derive(Debug)]
pub enum AppenderMsg {
    /// Append these: subject and encoded event.
    Push(Vec<(String, Vec<u8>)>),
    /// The append on this subject is done.
    Done(String, Result<u64, AppendError>),
}

/// How to start an appender.
#[derive(Debug, Clone)]
pub struct AppenderArgs {
    /// The log.
    pub log: Arc<dyn EventLog>,
    /// Authority of the frames.
    pub head: FrameHead,
    /// Unique to this writer.
    pub writer: String,
    /// On how many subjects an append may be in flight at once.
    pub in_flight_max: usize,
    /// Seen by whoever pushes.
    pub load: Arc<Load>,
}

/// How much an appender has to do; shared with whoever pushes.
#[derive(Debug, Default)]
pub struct Load {
    bytes: AtomicUsize,
    is_busy: AtomicBool,
}

impl Load {
    /// Bytes of events that wait for a frame.
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Whether anything waits or is in flight.
    pub fn is_busy(&self) -> bool {
        self.is_busy.load(Ordering::Acquire)
    }

    /// Notes that something was pushed, before the actor gets to it.
    pub fn mark_busy(&self) {
        self.is_busy.store(true, Ordering::Release);
    }
}

/// The appender's state.
#[derive(Debug)]
pub struct AppenderState {
    args: AppenderArgs,
    commit: GroupCommit,
    appends: tokio::task::JoinSet<()>,
}

/// The actor.
#[derive(Debug)]
pub struct Appender;

impl Actor for Appender {
    type Msg = AppenderMsg;
    type State = AppenderState;
    type Arguments = AppenderArgs;

    async fn pre_start(
        &self,
        _: ActorRef<AppenderMsg>,
        args: AppenderArgs,
    ) -> Result<AppenderState, ActorProcessingErr> {
        let commit = GroupCommit::new(args.head, args.writer.clone(), args.in_flight_max);
        Ok(AppenderState {
            args,
            commit,
            appends: tokio::task::JoinSet::new(),
        })
    }

    async fn handle(
        &self,
        myself: ActorRef<AppenderMsg>,
        msg: AppenderMsg,
        state: &mut AppenderState,
    ) -> Result<(), ActorProcessingErr> {
        match msg {
            AppenderMsg::Push(events) => {
                for (subject, event) in events {
                    state.commit.push(&subject, event);
                }
            }
            AppenderMsg::Done(subject, result) => {
                if let Err(e) = result {
                    // Nothing of ours is refused unless it is too large, which the
                    // limits rule out; the decision stays undecided and is seen so.
                    tracing::error!(error = %e, subject, "the log refused a frame");
                }
                state.commit.done(&subject);
            }
        }
        while let Some(append) = state.commit.next_append() {
            let (log, myself) = (Arc::clone(&state.args.log), myself.clone());
            state.appends.spawn(async move {
                let result = append_until_known(log.as_ref(), &append).await;
                // The actor may have been stopped meanwhile: then nobody waits for it.
                let _ = myself.cast(AppenderMsg::Done(append.subject, result));
            });
        }
        while state.appends.try_join_next().is_some() {}
        state
            .args
            .load
            .bytes
            .store(state.commit.waiting_bytes(), Ordering::Relaxed);
        state
            .args
            .load
            .is_busy
            .store(!state.commit.is_idle(), Ordering::Release);
        Ok(())
    }
}

/// Appends until the log has answered yes or no.
pub async fn append_until_known(log: &dyn EventLog, append: &Append) -> Result<u64, AppendError> {
    let mut pause = Duration::from_millis(20);
    loop {
        match log.append(append).await {
            Ok(appended) => return Ok(appended.seq),
            Err(AppendError::Unavailable(problem)) => {
                tracing::warn!(problem, subject = append.subject, retry_in = ?pause, "append repeated");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(Duration::from_secs(1));
            }
            Err(e) => return Err(e),
        }
    }
}
