//! The actor that brings a writer's events into the log: group commit and retry.
//!
//! One per term of a leader, or per incarnation of an agent; what it does is
//! [`GroupCommit`]'s to say. When the writer's time is over the actor is stopped and what it
//! had in flight no longer matters.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use conductor_eventlog::group_commit::repeat_pause;
use conductor_eventlog::{Append, AppendError, Appended, EventLog, Fate, GroupCommit};
use conductor_protocol::TraceContext;
use conductor_protocol::frame::{Elements, FrameHead};
use conductor_protocol::trace::SpanKind;
use conductor_telemetry::span::Side;
use conductor_telemetry::{Span, live, metrics};
use ractor::{Actor, ActorProcessingErr, ActorRef};

/// What the appender is told.
#[derive(Debug)]
pub enum AppenderMsg {
    /// Append these: subject and encoded events.
    Push(Vec<(String, Elements)>),
    /// Live spans are wanted of the next append on this subject, for these tasks.
    Trace(String, Vec<TraceContext>),
    /// The log says this of the append on this subject.
    Answered(String, Result<Appended, AppendError>),
}

/// Told that the log refused a frame for good.
pub type OnRefused = Arc<dyn Fn() + Send + Sync>;

/// How to start an appender.
#[derive(Clone)]
pub struct AppenderArgs {
    /// The log.
    pub log: Arc<dyn EventLog>,
    /// Authority of the frames.
    pub head: FrameHead,
    /// What writes, for figures: `orchestrator`, `scheduler` or `agent`.
    pub kind: &'static str,
    /// Unique to this writer.
    pub writer: String,
    /// On how many subjects an append may be in flight at once.
    pub in_flight_max: usize,
    /// Seen by whoever pushes.
    pub load: Arc<Load>,
    /// Told of frames that were refused.
    pub on_refused: OnRefused,
}

impl std::fmt::Debug for AppenderArgs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AppenderArgs")
            .field("writer", &self.writer)
            .finish_non_exhaustive()
    }
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
    /// When what is in flight on a subject was first sent, its events and its bytes.
    begun: BTreeMap<String, (Instant, usize, usize)>,
    /// Since when something waits for the next append of a subject, and tasks it speaks of.
    traced: BTreeMap<String, (u64, Vec<TraceContext>)>,
    /// The same of what is in flight.
    traced_in_flight: BTreeMap<String, (u64, Vec<TraceContext>)>,
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
            begun: BTreeMap::new(),
            traced: BTreeMap::new(),
            traced_in_flight: BTreeMap::new(),
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
                for (subject, elements) in events {
                    state.commit.push(&subject, elements);
                }
            }
            AppenderMsg::Trace(subject, contexts) => {
                let now = live::now_ns();
                let (_, waiting) = state.traced.entry(subject).or_insert((now, Vec::new()));
                let room = live::TASKS_MAX.saturating_sub(waiting.len());
                for context in contexts.into_iter().take(room) {
                    if !waiting.contains(&context) {
                        waiting.push(context);
                    }
                }
            }
            AppenderMsg::Answered(subject, answer) => {
                if let Err(AppendError::Unavailable(problem)) = &answer {
                    tracing::warn!(problem, subject, "append repeated");
                }
                let kind = state.args.kind;
                match state.commit.answered(&subject, answer) {
                    Fate::Repeat(append, pause) => {
                        metrics().append_repeated(kind);
                        state.append(&myself, append, pause);
                    }
                    Fate::Refused(e) => {
                        state.begun.remove(&subject);
                        state.traced_in_flight.remove(&subject);
                        metrics().append_refused(kind);
                        tracing::error!(error = %e, subject, "the log refused a frame");
                        (state.args.on_refused)();
                    }
                    Fate::Stored(seq) => {
                        state.trace_stored(&subject, seq);
                        if let Some((since, events, bytes)) = state.begun.remove(&subject) {
                            metrics().appended(kind, since.elapsed(), events, bytes);
                        }
                    }
                    Fate::Unknown => {}
                }
            }
        }
        while let Some(append) = state.commit.next_append() {
            let events = state.commit.in_flight_len(&append.subject);
            let begun = (Instant::now(), events, append.payload.len());
            state.begun.insert(append.subject.clone(), begun);
            if let Some(traced) = state.traced.remove(&append.subject) {
                state
                    .traced_in_flight
                    .insert(append.subject.clone(), traced);
            }
            state.append(&myself, append, Duration::ZERO);
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

impl AppenderState {
    /// An append that live spans were wanted of is in the log.
    fn trace_stored(&mut self, subject: &str, seq: u64) {
        let Some((since_ns, contexts)) = self.traced_in_flight.remove(subject) else {
            return;
        };
        let (_, events, bytes) = self
            .begun
            .get(subject)
            .copied()
            .unwrap_or((Instant::now(), 0, 0));
        let now = live::now_ns();
        for context in contexts {
            let id = context.span(SpanKind::Append, seq);
            let root = Some(context.span(SpanKind::Task, 0));
            let mut span = Span::new(context.trace, id, root, "append", (0, 0))
                .at_ns(since_ns, now)
                .with("messaging.system", "nats")
                .with("messaging.operation.type", "send")
                .with("messaging.destination.name", subject)
                .with("messaging.batch.message_count", events as u64)
                .with("messaging.message.body.size", bytes as u64)
                .with("conductor.writer", self.args.kind)
                .with("conductor.sequence", seq);
            span.side = Side::Producer;
            live::emit(span);
        }
    }

    fn append(&mut self, myself: &ActorRef<AppenderMsg>, append: Append, pause: Duration) {
        let (log, myself) = (Arc::clone(&self.args.log), myself.clone());
        self.appends.spawn(async move {
            if !pause.is_zero() {
                tokio::time::sleep(pause).await;
            }
            let answer = log.append(&append).await;
            // The actor may have been stopped meanwhile: then nobody waits for it.
            let _ = myself.cast(AppenderMsg::Answered(append.subject, answer));
        });
    }
}

/// Appends until the log has answered yes or no.
pub async fn append_until_known(log: &dyn EventLog, append: &Append) -> Result<u64, AppendError> {
    let mut tries = 0_u32;
    loop {
        tries = tries.saturating_add(1);
        match log.append(append).await {
            Ok(appended) => return Ok(appended.seq),
            Err(AppendError::Unavailable(problem)) => {
                let pause = repeat_pause(tries);
                tracing::warn!(problem, subject = append.subject, retry_in = ?pause, "append repeated");
                tokio::time::sleep(pause).await;
            }
            Err(e) => return Err(e),
        }
    }
}
