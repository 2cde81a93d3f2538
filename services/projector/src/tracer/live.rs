//! A task that has not ended, and the spans it has so far.

use std::sync::Arc;

use conductor_domain::fold::PastAttempt;
use conductor_domain::state::{Outcome, Task};
use conductor_protocol::event::{AttemptAssigned, TaskAccepted, Usage};
use conductor_protocol::ids::{AgentId, Position, QueueName};
use conductor_protocol::spec::Runtime;
use conductor_protocol::subject::Subject;
use conductor_protocol::trace::{SpanId, SpanKind};
use conductor_protocol::{CellId, Namespace, OutcomeClass, TaskId, TaskSpec, TraceContext, UnixMs};
use conductor_telemetry::Span;
use conductor_telemetry::span::Side;
use serde::{Deserialize, Serialize};

/// Most tasks a root names that it waited for (the SDKs' own limit).
const LINKS_MAX: usize = 128;
/// Most spans kept of one task; what is beyond is counted.
const SPANS_MAX: usize = 1_000;

/// What a task waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
enum Wait {
    Pending,
    Queue,
    Retry,
}

impl Wait {
    fn kind(self) -> SpanKind {
        match self {
            Self::Pending => SpanKind::Pending,
            Self::Queue => SpanKind::Queue,
            Self::Retry => SpanKind::Retry,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Pending => "wait for needs or time",
            Self::Queue => "wait for an agent",
            Self::Retry => "wait for retry",
        }
    }
}

/// A stretch of waiting that goes on.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Waiting {
    what: Wait,
    since_ms: UnixMs,
    delay_ms: Option<u64>,
}

/// The attempt that goes on: what is not in the state's own account of it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Attempt {
    slots: u32,
    session: Option<String>,
    usage: Option<Usage>,
    exit_code: Option<i32>,
    /// What its task had used before: reports of it count that, too.
    #[serde(default)]
    before: Option<Usage>,
}

/// What is needed of the task itself: never what it runs.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct About {
    queue: QueueName,
    namespace: Namespace,
    name: Option<Arc<str>>,
    runtime: Runtime,
    traceparent: Option<Arc<str>>,
}

impl From<&TaskSpec> for About {
    fn from(spec: &TaskSpec) -> Self {
        Self {
            queue: spec.queue.clone(),
            namespace: spec.namespace.clone(),
            name: spec.name.clone(),
            runtime: spec.runtime,
            traceparent: spec.traceparent.clone(),
        }
    }
}

/// A task that has not ended.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Live {
    about: About,
    root: Root,
    waiting: Option<Waiting>,
    attempt: Option<Attempt>,
    /// How many stretches of waiting there were: it tells their ids apart.
    stretches: u64,
    dropped: u64,
    spans: Vec<Span>,
}

/// What is known of the root from the beginning.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Root {
    task: TaskId,
    cell: CellId,
    id: SpanId,
    parent: Option<SpanId>,
    is_parent_remote: bool,
    is_again: bool,
    start_ms: UnixMs,
    began: Position,
    links: Vec<([u8; 16], SpanId)>,
}

impl Live {
    pub(super) fn accepted(
        e: &TaskAccepted,
        cell: &CellId,
        at: Position,
        submitted_ms: UnixMs,
        now: UnixMs,
    ) -> Self {
        let context = TraceContext::of(e.task, e.spec.traceparent.as_deref());
        let root = Root {
            task: e.task,
            cell: cell.clone(),
            id: context.span(SpanKind::Task, 0),
            parent: context.caller,
            is_parent_remote: context.caller.is_some(),
            is_again: false,
            start_ms: submitted_ms,
            began: e.submission,
            links: Vec::new(),
        };
        let waits = !e.spec.needs.is_empty() || e.spec.start_at_ms.is_some_and(|t| t > now);
        let what = if waits { Wait::Pending } else { Wait::Queue };
        let mut live = Self::new(root, &e.spec, what, now);
        let span = live.span(SpanKind::Accept, 0, "accept", (submitted_ms, now));
        let span = span
            .with("conductor.submission", e.submission.to_string())
            .with("conductor.sequence", at.seq);
        live.keep(span);
        live
    }

    /// Somebody had it run again: a part of its trace that has a root of its own below the first.
    pub(super) fn redriven(
        id: TaskId,
        task: &Task,
        cell: &CellId,
        at: Position,
        now: UnixMs,
    ) -> Self {
        let context = TraceContext::of(id, task.spec.traceparent.as_deref());
        let root = Root {
            task: id,
            cell: cell.clone(),
            id: context.span(SpanKind::Redrive, at.seq),
            parent: Some(context.span(SpanKind::Task, 0)),
            is_parent_remote: false,
            is_again: true,
            start_ms: now,
            began: at,
            links: Vec::new(),
        };
        let mut live = Self::new(root, &task.spec, Wait::Queue, now);
        // Ids of its waiting must not be those of the first time.
        live.stretches = at.seq << 16;
        live
    }

    fn new(root: Root, spec: &TaskSpec, what: Wait, now: UnixMs) -> Self {
        Self {
            about: About::from(spec),
            root,
            waiting: Some(Waiting {
                what,
                since_ms: now,
                delay_ms: None,
            }),
            attempt: None,
            stretches: 0,
            dropped: 0,
            spans: Vec::new(),
        }
    }

    /// With links to what it waited for.
    pub(super) fn following(mut self, needs: impl Iterator<Item = TraceContext>) -> Self {
        let links = needs.take(LINKS_MAX);
        self.root.links = links
            .map(|need| (need.trace, need.span(SpanKind::Task, 0)))
            .collect();
        self
    }

    pub(super) fn queue(&self) -> &QueueName {
        &self.about.queue
    }

    pub(super) fn context(&self, task: TaskId) -> TraceContext {
        TraceContext::of(task, self.about.traceparent.as_deref())
    }

    /// Everything there is to say of it.
    pub(super) fn into_spans(self) -> Vec<Span> {
        self.spans
    }

    pub(super) fn ready(&mut self, now: UnixMs) {
        self.stop_waiting(None, None, now);
        self.wait(Wait::Queue, now);
    }

    pub(super) fn retry_set(&mut self, delay_ms: u64) {
        if let Some(waiting) = &mut self.waiting {
            waiting.delay_ms = Some(delay_ms);
        }
    }

    pub(super) fn assigned(&mut self, e: &AttemptAssigned, agent: &AgentId, now: UnixMs) {
        self.stop_waiting(Some(agent), None, now);
        self.attempt = Some(Attempt {
            slots: e.slots,
            before: e.before.as_ref().and_then(|b| b.usage.clone()),
            ..Attempt::default()
        });
    }

    pub(super) fn started(&mut self, session: Option<&str>) {
        if let Some(attempt) = &mut self.attempt {
            attempt.session = session.map(str::to_owned);
        }
    }

    /// What the agent said of the attempt that goes on.
    pub(super) fn said(&mut self, usage: Option<Usage>, exit_code: Option<i32>) {
        if let Some(attempt) = &mut self.attempt {
            attempt.usage = usage.or(attempt.usage.take());
            attempt.exit_code = exit_code.or(attempt.exit_code);
        }
    }

    /// The queue is paused no more.
    pub(super) fn resumed(&mut self, at: Position, paused_ms: UnixMs, now: UnixMs) {
        if self.waiting.is_some_and(|w| w.what == Wait::Queue) {
            self.pause(at, paused_ms, now);
        }
    }

    pub(super) fn attempt_ended(
        &mut self,
        past: &PastAttempt,
        class: Option<OutcomeClass>,
        now: UnixMs,
    ) {
        let mut said = self.attempt.take().unwrap_or_default();
        if let (Some(usage), Some(before)) = (&mut said.usage, &said.before) {
            *usage = usage.since(before);
        }
        let n = u64::from(past.number);
        let error = class.map(|c| c.as_str().into());
        let parent = self.root.id;
        let mut whole = self
            .span(SpanKind::Attempt, n, "attempt", (past.assigned_ms, now))
            .with("conductor.task.id", self.root.task.to_string())
            .with("conductor.attempt", past.number)
            .with("conductor.agent", past.agent.as_str())
            .with("conductor.slots", said.slots)
            .with("conductor.sequence", past.assigned.seq)
            .with_some("conductor.outcome.class", class.map(OutcomeClass::as_str))
            .with_some("process.exit.code", said.exit_code);
        whole.parent = Some(parent);
        whole.error.clone_from(&error);
        let run = past.started_ms.map(|started_ms| {
            let name = self.run_name();
            let mut run = self
                .span(SpanKind::Run, n, name, (started_ms, now))
                .with_some("process.exit.code", said.exit_code);
            run = of_model(
                run,
                self.about.runtime,
                said.session.as_deref(),
                said.usage.as_ref(),
            );
            run.parent = Some(whole.id);
            run.error = error;
            run
        });
        self.keep(whole);
        if let Some(run) = run {
            self.keep(run);
        }
        self.wait(Wait::Retry, now);
    }

    pub(super) fn ended(
        &mut self,
        at: Position,
        paused_ms: Option<UnixMs>,
        outcome: Outcome,
        class: Option<OutcomeClass>,
        attempts: u32,
        now: UnixMs,
    ) {
        // What ends with its attempt, or soon after it, has not waited for another.
        let has_waited = |w: &Waiting| w.delay_ms.is_some() || w.what != Wait::Retry;
        if self.waiting.as_ref().is_some_and(has_waited) {
            self.stop_waiting(None, paused_ms.map(|ms| (at, ms)), now);
        }
        let root = &self.root;
        let subject = Subject::Submit(self.about.queue.clone()).render(&root.cell);
        let context = self.context(root.task);
        let times = (root.start_ms, now);
        let name = if root.is_again { "task again" } else { "task" };
        let mut span = Span::new(context.trace, root.id, root.parent, name, times)
            .with("messaging.system", "nats")
            .with("messaging.operation.name", "process")
            .with("messaging.operation.type", "process")
            .with("messaging.destination.name", subject)
            .with("messaging.message.id", root.task.to_string())
            .with("conductor.task.id", root.task.to_string())
            .with_some("conductor.task.name", self.about.name.as_deref())
            .with("conductor.cell", root.cell.as_str())
            .with("conductor.queue", self.about.queue.as_str())
            .with("conductor.namespace", self.about.namespace.as_str())
            .with("conductor.attempts", attempts)
            .with("conductor.submission", root.began.to_string())
            .with("conductor.sequence", at.seq)
            .with("conductor.outcome", outcome.as_str())
            .with_some("conductor.outcome.class", class.map(OutcomeClass::as_str));
        if self.dropped > 0 {
            span = span.with("conductor.spans.dropped", self.dropped);
        }
        span.side = Side::Consumer;
        span.is_parent_remote = root.is_parent_remote;
        span.links.clone_from(&root.links);
        if matches!(outcome, Outcome::Failed | Outcome::TimedOut) {
            let why = class.map_or(outcome.as_str(), OutcomeClass::as_str);
            span.error = Some(why.into());
        }
        self.spans.push(span);
    }

    fn wait(&mut self, what: Wait, now: UnixMs) {
        self.waiting = Some(Waiting {
            what,
            since_ms: now,
            delay_ms: None,
        });
    }

    fn stop_waiting(
        &mut self,
        agent: Option<&AgentId>,
        paused: Option<(Position, UnixMs)>,
        now: UnixMs,
    ) {
        if let (Some((at, paused_ms)), Some(Wait::Queue)) = (paused, self.waiting.map(|w| w.what)) {
            self.pause(at, paused_ms, now);
        }
        let Some(waiting) = self.waiting.take() else {
            return;
        };
        self.stretches += 1;
        let (kind, name) = (waiting.what.kind(), waiting.what.name());
        let span = self
            .span(kind, self.stretches, name, (waiting.since_ms, now))
            .with_some("conductor.agent", agent.map(AgentId::as_str))
            .with_some("conductor.retry.delay_ms", waiting.delay_ms);
        self.keep(span);
    }

    fn pause(&mut self, at: Position, paused_ms: UnixMs, now: UnixMs) {
        let since_ms = self.waiting.map_or(now, |w| w.since_ms.max(paused_ms));
        let span = self
            .span(
                SpanKind::Pause,
                at.seq << 16 | u64::from(at.index),
                "queue paused",
                (since_ms, now),
            )
            .with("conductor.queue", self.about.queue.as_str());
        self.keep(span);
    }

    /// A span right below the root.
    fn span(&self, kind: SpanKind, n: u64, name: &'static str, times: (UnixMs, UnixMs)) -> Span {
        let context = self.context(self.root.task);
        Span::new(
            context.trace,
            context.span(kind, n),
            Some(self.root.id),
            name,
            times,
        )
    }

    fn keep(&mut self, span: Span) {
        if self.spans.len() < SPANS_MAX {
            self.spans.push(span);
        } else {
            self.dropped += 1;
        }
    }

    fn run_name(&self) -> &'static str {
        match self.about.runtime {
            Runtime::Command => "run command",
            Runtime::Claude => "invoke_agent claude",
            Runtime::Codex => "invoke_agent codex",
            Runtime::Acp => "invoke_agent acp",
            Runtime::Noop => "run noop",
        }
    }
}

/// What the conventions for generative AI ask for.
fn of_model(span: Span, runtime: Runtime, session: Option<&str>, usage: Option<&Usage>) -> Span {
    let (provider, agent) = match runtime {
        Runtime::Claude => (Some("anthropic"), "claude"),
        Runtime::Codex => (Some("openai"), "codex"),
        Runtime::Acp => (None, "acp"),
        Runtime::Command | Runtime::Noop => return span,
    };
    let session = usage.and_then(|u| u.session.as_deref()).or(session);
    let mut span = span
        .with("gen_ai.operation.name", "invoke_agent")
        .with_some("gen_ai.provider.name", provider)
        .with("gen_ai.agent.name", agent)
        .with_some("gen_ai.conversation.id", session);
    if let Some(usage) = usage {
        span = span
            .with_some("gen_ai.response.model", usage.model.as_deref())
            .with("gen_ai.usage.input_tokens", usage.input_tokens)
            .with("gen_ai.usage.output_tokens", usage.output_tokens)
            .with("gen_ai.usage.cache_read.input_tokens", usage.cached_tokens)
            .with(
                "gen_ai.usage.cache_creation.input_tokens",
                usage.cache_write_tokens,
            )
            .with("conductor.model.turns", usage.turns)
            .with("conductor.model.cost_usd", usage.cost_usd);
    }
    span
}
