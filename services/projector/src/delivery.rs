//! What waits for the collector: whole traces, sent a part at a time, fewer at a time after the
//! collector did not take them. Of a single one that it refuses for good the others go on.

use std::collections::VecDeque;

use conductor_protocol::TaskId;
use conductor_telemetry::otlp::Verdict;
use conductor_telemetry::{ExportError, Span};

use crate::tracer::Trace;

/// How often a single trace is refused for good before it may be skipped.
const STRIKES_MAX: u32 = 3;

/// What to do about spans that were not taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Next {
    /// Fewer are tried at once.
    AtOnce,
    /// They are tried again after a pause.
    Wait,
    /// A single trace was refused for good often enough: if the collector takes anything at all
    /// it is skipped, or else this is about more than one trace, and it is as with
    /// [`Self::Wait`].
    Ask,
}

/// A trace that was skipped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// Whose.
    pub task: TaskId,
    /// Its id, in hexadecimal.
    pub trace: String,
    /// Spans of it that were not sent.
    pub spans: usize,
}

/// Traces on their way.
#[derive(Debug)]
pub struct Delivery {
    spans: Vec<Span>,
    /// Whose those are, in their order.
    marks: VecDeque<Skipped>,
    size_max: usize,
    /// Most spans of the next try.
    size: usize,
    strikes: u32,
}

impl Delivery {
    /// Nothing yet; tries of at most so many spans.
    pub fn new(size_max: usize) -> Self {
        Self {
            spans: Vec::new(),
            marks: VecDeque::new(),
            size_max: size_max.max(1),
            size: size_max.max(1),
            strikes: 0,
        }
    }

    /// Takes in a finished trace.
    pub fn push(&mut self, trace: Trace) {
        if trace.spans.is_empty() {
            return;
        }
        self.marks.push_back(Skipped {
            task: trace.task,
            trace: trace.context.trace_hex(),
            spans: trace.spans.len(),
        });
        self.spans.extend(trace.spans);
    }

    /// How many spans wait.
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// What is to be tried next: whole traces, or as much of a larger one as may be sent at a
    /// time.
    pub fn portion(&self) -> &[Span] {
        let mut whole = 0;
        for mark in &self.marks {
            if whole + mark.spans > self.size {
                break;
            }
            whole += mark.spans;
        }
        let n = if whole == 0 { self.size } else { whole };
        self.spans.get(..n).unwrap_or(&self.spans)
    }

    /// That was taken.
    pub fn taken(&mut self) {
        let mut n = self.portion().len();
        self.spans.drain(..n);
        while let Some(first) = self.marks.front_mut() {
            let of_first = first.spans.min(n);
            first.spans -= of_first;
            n -= of_first;
            if first.spans > 0 {
                break;
            }
            self.marks.pop_front();
        }
        self.size = (self.size * 2).min(self.size_max);
        self.strikes = 0;
    }

    /// That was not.
    pub fn refused(&mut self, problem: &ExportError) -> Next {
        let n = self.portion().len();
        let first = self.marks.front().map_or(0, |m| m.spans);
        let half = (n / 2).max(1);
        match problem.verdict() {
            // It may be too much at once nevertheless.
            Verdict::Later => {
                self.size = half;
                Next::Wait
            }
            Verdict::TooLarge if n > 1 => {
                self.size = half;
                Next::AtOnce
            }
            // Never less than a trace: none is sent in parts that can be sent whole.
            Verdict::ForGood if n > first => {
                self.size = half.max(first);
                Next::AtOnce
            }
            Verdict::ForGood | Verdict::TooLarge => {
                self.strikes += 1;
                if self.strikes >= STRIKES_MAX {
                    Next::Ask
                } else {
                    Next::Wait
                }
            }
        }
    }

    /// Leaves out what is left of the first trace.
    pub fn skip(&mut self) -> Option<Skipped> {
        self.strikes = 0;
        let skipped = self.marks.pop_front()?;
        self.spans.drain(..skipped.spans.min(self.spans.len()));
        Some(skipped)
    }
}

#[cfg(test)]
mod tests;
