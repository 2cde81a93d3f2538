//! A collector that does as it is told.

use conductor_protocol::TraceContext;

use super::*;

const LIMIT: usize = 1_000;

fn problem(verdict: Verdict) -> ExportError {
    ExportError::Refused {
        endpoint: String::new(),
        problem: String::new(),
        verdict,
    }
}

fn task(n: usize) -> TaskId {
    TaskId::from_parts(1, [u8::try_from(n).unwrap(); 10])
}

fn trace(n: usize, spans: usize) -> Trace {
    let context = TraceContext::of(task(n), None);
    let span = |i: usize| {
        let id = (i as u64).to_be_bytes();
        Span::new(context.trace, id, None, "span", (0, 0))
    };
    Trace {
        task: task(n),
        context,
        has_failed: false,
        spans: (0..spans).map(span).collect(),
    }
}

/// Delivers traces of so many spans to a collector that refuses as `judge` says. Returns the
/// sizes of what was taken, the traces that were skipped, and how often it was waited for.
fn deliver(
    traces: &[usize],
    size_max: usize,
    judge: impl Fn(&[Span]) -> Option<Verdict>,
) -> (Vec<usize>, Vec<TaskId>, usize) {
    let mut delivery = Delivery::new(size_max);
    for (n, spans) in traces.iter().enumerate() {
        delivery.push(trace(n, *spans));
    }
    let (mut taken, mut skipped, mut waits) = (Vec::new(), Vec::new(), 0);
    for _ in 0..LIMIT {
        if delivery.is_empty() {
            return (taken, skipped, waits);
        }
        let Some(verdict) = judge(delivery.portion()) else {
            taken.push(delivery.portion().len());
            delivery.taken();
            continue;
        };
        match delivery.refused(&problem(verdict)) {
            Next::AtOnce => {}
            Next::Wait => waits += 1,
            Next::Ask => skipped.push(delivery.skip().unwrap().task),
        }
    }
    panic!("it comes to no end: {taken:?} {skipped:?} {waits}");
}

fn holds(spans: &[Span], n: usize) -> bool {
    let of = TraceContext::of(task(n), None).trace;
    spans.iter().any(|s| s.trace == of)
}

#[test]
fn whole_traces_are_sent_and_those_that_are_larger_in_parts() {
    let sizes = |traces: &[usize]| deliver(traces, 10, |_| None).0;
    assert_eq!(sizes(&[4, 4, 4]), [8, 4]);
    assert_eq!(sizes(&[3, 25, 3]), [3, 10, 10, 8]);
    assert_eq!(sizes(&[]), [0; 0]);
}

#[test]
fn of_many_traces_the_one_that_is_refused_for_good_is_skipped() {
    let refuses = |n: usize| move |s: &[Span]| holds(s, n).then_some(Verdict::ForGood);
    for refused in [0, 7, 31] {
        let (taken, skipped, waits) = deliver(&[5; 32], 512, refuses(refused));
        assert_eq!(taken.iter().sum::<usize>(), 31 * 5);
        assert_eq!(skipped, [task(refused)]);
        assert_eq!(waits, 2, "the third refusal is the last");
        assert!(taken.iter().all(|n| n % 5 == 0), "in parts: {taken:?}");
    }
}

#[test]
fn what_is_too_large_is_sent_in_parts_down_to_a_span() {
    let too_large = |max: usize| move |s: &[Span]| (s.len() > max).then_some(Verdict::TooLarge);
    let (taken, skipped, waits) = deliver(&[5, 5, 5], 512, too_large(2));
    assert!(taken.iter().all(|n| *n <= 2));
    assert_eq!(taken.iter().sum::<usize>(), 15);
    assert_eq!((skipped, waits), (vec![], 0));
    let (taken, skipped, _) = deliver(&[2, 2], 512, too_large(0));
    assert_eq!((taken, skipped), (vec![], vec![task(0), task(1)]));
}

#[test]
fn what_may_be_taken_later_is_never_skipped() {
    let tries = std::cell::Cell::new(0);
    let (taken, skipped, waits) = deliver(&[5; 4], 512, |_| {
        tries.set(tries.get() + 1);
        (tries.get() <= 100).then_some(Verdict::Later)
    });
    assert_eq!(taken.iter().sum::<usize>(), 20);
    assert_eq!((skipped, waits), (vec![], 100));
}
