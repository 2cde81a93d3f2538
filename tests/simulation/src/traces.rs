//! Every task that ends leaves one whole trace, whatever happened to it.

use std::collections::BTreeMap;

use conductor_domain::fold::Folded;
use conductor_domain::{Decoded, State};
use conductor_projector::{Trace, Tracer};
use conductor_protocol::trace::{SpanId, SpanKind, TraceId};
use conductor_telemetry::Span;

use crate::checkers::{Ruling, Violation};

/// The id of the rule.
const ONE_TRACE: &str = "one-trace";
/// Records between two times that the tracer goes through a checkpoint.
const SAVED_EVERY: u64 = 32;

/// The tracer, and the spans it has made.
#[derive(Debug, Default)]
pub(crate) struct Traces {
    tracer: Tracer,
    finished: u64,
    spans: BTreeMap<(TraceId, SpanId), (u64, u64)>,
}

impl Traces {
    /// A record was folded.
    pub(crate) fn see(
        &mut self,
        record: &Decoded,
        folded: &Folded,
        state: &State,
    ) -> Result<(), Violation> {
        let broken = |what| Violation {
            rule: ONE_TRACE,
            seq: record.seq,
            what,
        };
        for trace in self.tracer.apply(record, folded, state) {
            self.finished += 1;
            self.take(&trace).map_err(broken)?;
        }
        let ended: u64 = state.counters.ended.values().sum();
        if self.finished != ended {
            let what = format!(
                "{} traces were finished, {ended} tasks ended",
                self.finished
            );
            return Err(broken(what));
        }
        let open = state.tasks.values().filter(|t| !t.is_final()).count();
        if self.tracer.live() != open {
            let what = format!("{} traces go on, {open} tasks", self.tracer.live());
            return Err(broken(what));
        }
        if record.seq.is_multiple_of(SAVED_EVERY) {
            self.save(state).map_err(broken)?;
        }
        Ok(())
    }

    /// No span twice, no orphan, children within their parents, the root last.
    fn take(&mut self, trace: &Trace) -> Ruling {
        let root = trace.spans.last().ok_or("a trace without a span")?;
        for span in &trace.spans {
            if span.trace != trace.context.trace {
                return Err(format!("a span of another trace: {span:?}"));
            }
            let times = (span.start_ns, span.end_ns);
            if self.spans.insert((span.trace, span.id), times).is_some() {
                return Err(format!("a span twice: {span:?}"));
            }
        }
        let is_again = root.id != trace.context.span(SpanKind::Task, 0);
        for span in trace.spans.iter().filter(|s| s.id != root.id) {
            self.within(span)?;
        }
        let parent = if is_again {
            Some(trace.context.span(SpanKind::Task, 0))
        } else {
            trace.context.caller
        };
        if root.parent != parent {
            return Err(format!("a root below another span: {root:?}"));
        }
        Ok(())
    }

    fn within(&self, span: &Span) -> Ruling {
        let parent = span
            .parent
            .ok_or_else(|| format!("a second root: {span:?}"))?;
        let of_parent = self.spans.get(&(span.trace, parent));
        let (start, end) = of_parent.ok_or_else(|| format!("an orphan: {span:?}"))?;
        let is_within =
            *start <= span.start_ns && span.start_ns <= span.end_ns && span.end_ns <= *end;
        if is_within {
            Ok(())
        } else {
            Err(format!("a span beyond its parent, {start}–{end}: {span:?}"))
        }
    }

    /// What went through a checkpoint goes on the same.
    fn save(&mut self, state: &State) -> Ruling {
        let bytes = conductor_projector::checkpoint::encode(&self.tracer, state);
        let bytes = bytes.map_err(|e| e.to_string())?;
        // Whether the state comes back is another rule's to say.
        let (tracer, _) =
            conductor_projector::checkpoint::decode(&bytes).ok_or("a checkpoint cannot be read")?;
        self.tracer = tracer;
        Ok(())
    }
}
