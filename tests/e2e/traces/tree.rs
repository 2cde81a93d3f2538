//! A task's spans as a collector has them, and what holds of all of them.

use std::collections::BTreeMap;

use conductor_harness::otlp::Seen;
use conductor_harness::{Collector, until};
use conductor_protocol::TaskId;

/// Spans that processes make as they go: they come when they come, by the process' own clock.
const LIVE: [&str; 7] = [
    "append",
    "chat",
    "decide",
    "execute_tool",
    "plan",
    "prepare",
    "process",
];

pub(crate) fn is_live(span: &Seen) -> bool {
    LIVE.contains(&span.name.as_str())
}

/// What the log alone says.
pub(crate) fn of_log(collector: &Collector) -> Vec<Seen> {
    let spans = collector.spans().into_iter();
    spans.filter(|s| !is_live(s)).collect()
}

/// The trace of a task, once its root is there: names by span, checked for what holds of all.
pub(crate) async fn trace(collector: &Collector, task: TaskId, roots: usize) -> Vec<Seen> {
    let id = task.to_string();
    let is_root = |s: &Seen| s.name.starts_with("task") && s.attributes["conductor.task.id"] == id;
    let spans = until(|| {
        let spans = collector.spans();
        let found = spans.iter().filter(|s| is_root(s)).count();
        if found >= roots {
            Ok(spans)
        } else {
            Err(format!("{found} of {roots} roots of {id}"))
        }
    })
    .await;
    let root = spans.iter().find(|s| is_root(s)).unwrap();
    let of_trace: Vec<Seen> = spans
        .iter()
        .filter(|s| s.trace == root.trace)
        .cloned()
        .collect();
    whole(&of_trace, &root.parent);
    of_trace.into_iter().filter(|s| !is_live(s)).collect()
}

/// What holds of every trace: one root below the caller, no orphan, no span twice, children
/// within their parents.
pub(crate) fn whole(spans: &[Seen], caller: &str) {
    let by_id: BTreeMap<&str, &Seen> = spans.iter().map(|s| (s.id.as_str(), s)).collect();
    assert_eq!(by_id.len(), spans.len(), "a span twice: {spans:#?}");
    let roots = spans.iter().filter(|s| s.parent == caller);
    assert!(roots.count() >= 1, "{spans:#?}");
    for span in spans.iter().filter(|s| s.parent != caller) {
        let Some(parent) = by_id.get(span.parent.as_str()) else {
            panic!("an orphan: {span:#?} in {spans:#?}");
        };
        assert!(span.times_ns.0 <= span.times_ns.1, "{span:#?}");
        let is_again = span.name == "task again";
        let is_within =
            parent.times_ns.0 <= span.times_ns.0 && span.times_ns.1 <= parent.times_ns.1;
        assert!(
            is_within || is_again || is_live(span),
            "{span:#?} is not within {parent:#?}"
        );
    }
}

/// Names in the order of their beginnings.
pub(crate) fn names(spans: &[Seen]) -> Vec<&str> {
    let mut sorted: Vec<&Seen> = spans.iter().collect();
    sorted.sort_by_key(|s| (s.times_ns.0, std::cmp::Reverse(s.times_ns.1)));
    sorted.iter().map(|s| s.name.as_str()).collect()
}

pub(crate) fn named<'a>(spans: &'a [Seen], name: &str) -> Vec<&'a Seen> {
    let mut found: Vec<&Seen> = spans.iter().filter(|s| s.name == name).collect();
    found.sort_by_key(|s| s.times_ns);
    found
}

/// Counted by name: the order of those that begin together says nothing.
pub(crate) fn counts(spans: &[Seen]) -> BTreeMap<&str, usize> {
    let mut counts = BTreeMap::new();
    for span in spans {
        *counts.entry(span.name.as_str()).or_default() += 1;
    }
    counts
}
