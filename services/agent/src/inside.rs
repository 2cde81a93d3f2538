//! Live spans of what an attempt does, below the span of what it runs.

use std::collections::BTreeMap;

use conductor_protocol::TraceContext;
use conductor_protocol::event::AttemptAssigned;
use conductor_protocol::ids::Lease;
use conductor_protocol::trace::{SpanId, SpanKind};
use conductor_telemetry::span::Side;
use conductor_telemetry::{Span, live, metrics};

use crate::reaper::Status;

/// Most spans of one attempt; what is beyond is counted as dropped.
const SPANS_MAX: usize = 1_024;
/// Most calls of tools that may be open at once.
const OPEN_MAX: usize = 256;

/// What a runtime noticed of its program, as it happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Moment {
    /// The model begins to answer.
    TurnBegan,
    /// It has answered.
    TurnEnded,
    /// It calls a tool: the call's id and the tool's name.
    ToolBegan(String, String),
    /// The tool answered: the call's id, and whether it failed.
    ToolEnded(String, bool),
}

/// Makes the live spans of one attempt; does nothing where nobody wants them. They leave when it
/// has ended: only then it is known whether the log says of it that it ran.
#[derive(Debug, Default)]
pub(crate) struct Inside {
    of: Option<(TraceContext, SpanId, u64)>,
    began_ns: u64,
    turn_ns: Option<u64>,
    tools: BTreeMap<String, (u64, String)>,
    turns: u64,
    calls: u64,
    made: Vec<Span>,
}

impl Inside {
    pub(crate) fn of(lease: &Lease, assigned: &AttemptAssigned) -> Self {
        let context = TraceContext::of(lease.task, assigned.traceparent.as_deref());
        if !live::wants(&context) {
            return Self::default();
        }
        let attempt = u64::from(lease.attempt);
        let run = context.span(SpanKind::Run, attempt);
        Self {
            of: Some((context, run, attempt)),
            began_ns: live::now_ns(),
            ..Self::default()
        }
    }

    /// What was made ready before the program started.
    pub(crate) fn prepared(&mut self) {
        let now = live::now_ns();
        if let Some(span) = self.span(SpanKind::Prepare, 0, "prepare", self.began_ns) {
            self.keep(span);
        }
        self.began_ns = now;
    }

    /// The program is gone. `is_known` says that the log is told of its end; of one that was
    /// revoked it may not even say that it began.
    pub(crate) fn ended(&mut self, status: &Status, is_known: bool) {
        let Some(span) = self.span(SpanKind::Process, 0, "process", self.began_ns) else {
            return;
        };
        let (code, signal) = match status {
            Status::Exited(code) => (Some(*code), None),
            Status::Signalled(signal) => (None, Some(*signal)),
            Status::NotStarted(_) => (None, None),
        };
        let span = span
            .with_some("process.exit.code", code)
            .with_some("conductor.signal", signal);
        self.keep(span);
        let Some((context, ..)) = self.of else { return };
        let root = context.span(SpanKind::Task, 0);
        for mut span in std::mem::take(&mut self.made) {
            if !is_known {
                span.parent = Some(root);
            }
            live::emit(span);
        }
    }

    fn keep(&mut self, span: Span) {
        if self.made.len() < SPANS_MAX {
            self.made.push(span);
        } else {
            metrics().spans_dropped.inc();
        }
    }

    pub(crate) fn saw(&mut self, moment: Moment) {
        if self.of.is_none() {
            return;
        }
        let now = live::now_ns();
        match moment {
            Moment::TurnBegan => self.turn_ns = Some(now),
            Moment::TurnEnded => {
                let Some(began_ns) = self.turn_ns.take() else {
                    return;
                };
                self.turns += 1;
                if let Some(span) = self.span(SpanKind::Turn, self.turns, "chat", began_ns) {
                    let mut span = span
                        .with("gen_ai.operation.name", "chat")
                        .with("conductor.model.turn", self.turns);
                    span.side = Side::Client;
                    self.keep(span);
                }
            }
            Moment::ToolBegan(call, tool) => {
                if self.tools.len() < OPEN_MAX {
                    self.tools.insert(call, (now, tool));
                }
            }
            Moment::ToolEnded(call, has_failed) => {
                let Some((began_ns, tool)) = self.tools.remove(&call) else {
                    return;
                };
                self.calls += 1;
                if let Some(span) = self.span(SpanKind::Tool, self.calls, "execute_tool", began_ns)
                {
                    let mut span = span
                        .with("gen_ai.operation.name", "execute_tool")
                        .with("gen_ai.tool.name", tool)
                        .with("gen_ai.tool.call.id", call);
                    span.error = has_failed.then(|| "tool failed".into());
                    self.keep(span);
                }
            }
        }
    }

    /// A span of this attempt that ends now; `n` tells several of a kind apart.
    fn span(&self, kind: SpanKind, n: u64, name: &'static str, began_ns: u64) -> Option<Span> {
        let (context, run, attempt) = self.of.as_ref()?;
        let id = context.span(kind, attempt << 32 | n);
        let span = Span::new(context.trace, id, Some(*run), name, (0, 0));
        Some(span.at_ns(began_ns, live::now_ns()))
    }
}
