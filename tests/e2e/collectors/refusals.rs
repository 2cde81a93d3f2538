//! One trace that a collector never takes; a collector that takes none.

use conductor_harness::otlp::Refusal;
use conductor_harness::system::new_id;
use conductor_harness::{Collector, System, http, until, until_asked};
use conductor_protocol::{TaskId, TraceContext};
use serde_json::json;

use super::{ENDPOINT, PROTOCOL, replay, set};
use crate::sight::{OPEN_METRICS, shown_at, value};
use crate::traces::tree::{is_live, of_log, trace};

fn hex(id: TaskId) -> String {
    TraceContext::of(id, None).trace_hex()
}

/// A system that exports there; no program of a task is told of a trace of its own.
async fn exporting(collector: &Collector, protocol: &str) -> System {
    let mut system = System::bare().await;
    let endpoint = if protocol == "grpc" {
        &collector.grpc
    } else {
        &collector.http
    };
    set(
        &mut system.env,
        &[(ENDPOINT, endpoint), (PROTOCOL, protocol)],
    );
    system.start_up(&[]).await;
    system
}

/// Submits so many tasks in one record.
async fn submit(system: &System, tasks: usize) -> Vec<TaskId> {
    let ids: Vec<TaskId> = (0..tasks).map(|_| new_id()).collect();
    let record: Vec<_> = ids
        .iter()
        .map(|id| json!({"id": id, "run": {"noop": {}}}))
        .collect();
    let record = serde_json::to_vec(&record).unwrap();
    system.submit_raw("default", record).await;
    ids
}

async fn all_end(system: &System, ids: &[TaskId]) {
    let mut story = system.story().await;
    for id in ids {
        story.outcome(*id).await;
    }
}

async fn asked_more(collector: &Collector, times: usize) {
    let wanted = collector.asked() + times;
    until(|| match collector.asked() {
        asked if asked >= wanted => Ok(()),
        asked => Err(format!("{wanted} tries, not {asked}")),
    })
    .await;
}

/// The value of a counter of the process that runs everything, once it is this.
async fn counts(system: &mut System, name: &str, expected: f64) {
    let at = shown_at(system.process("up")).await;
    let series = format!("{name}{{cell=\"local\"}}");
    until_asked(async || {
        let page = http::get(&at, "/metrics", OPEN_METRICS).await.body;
        match value(&page, &series) {
            Some(found) if (found - expected).abs() < 0.5 => Ok(()),
            found => Err(format!("{series} {expected}, not {found:?}")),
        }
    })
    .await;
}

async fn one_refused(protocol: &str) {
    let collector = Collector::start().await;
    collector.refuse(true);
    let mut system = exporting(&collector, protocol).await;
    let ids = submit(&system, 200).await;
    all_end(&system, &ids).await;
    // Meanwhile a large batch has gathered.
    asked_more(&collector, 2).await;
    let refused = ids[77];
    collector.refuse_as(Refusal::Trace(hex(refused)));
    for id in ids.iter().filter(|id| **id != refused) {
        trace(&collector, *id, 1).await;
    }
    counts(&mut system, "conductor_traces_refused_total", 1.0).await;
    let of_refused = |c: &Collector| of_log(c).iter().any(|s| s.trace == hex(refused));
    assert!(!of_refused(&collector));
    let said = system.process("up").said();
    let skipped: Vec<&str> = said
        .lines()
        .filter(|l| l.contains("refuses a trace for good; it is skipped"))
        .collect();
    assert_eq!(skipped.len(), 1, "{said}");
    assert!(skipped[0].contains(&format!("\"task\":\"{refused}\"")));
    assert!(skipped[0].contains(&format!("\"trace\":\"{}\"", hex(refused))));
    // What comes later passes at once, and a replay does the same.
    let later = submit(&system, 1).await;
    trace(&collector, later[0], 1).await;
    let again = Collector::start().await;
    again.refuse_as(Refusal::Trace(hex(refused)));
    let mut env = Vec::new();
    let endpoint = if protocol == "grpc" {
        &again.grpc
    } else {
        &again.http
    };
    set(&mut env, &[(ENDPOINT, endpoint), (PROTOCOL, protocol)]);
    let report = replay(&system, &env).await.json();
    assert_eq!(
        (&report["traces"], &report["refused"]),
        (&json!(200), &json!(1))
    );
    assert!(!of_refused(&again));
}

#[tokio::test]
async fn one_trace_refused_for_good_over_grpc_holds_up_no_other() {
    one_refused("grpc").await;
}

#[tokio::test]
async fn one_trace_refused_for_good_over_http_holds_up_no_other() {
    one_refused("http/protobuf").await;
}

#[tokio::test]
async fn a_collector_that_takes_nothing_from_us_is_waited_for() {
    for protocol in ["grpc", "http/json"] {
        let collector = Collector::start().await;
        collector.refuse_as(Refusal::Stranger);
        let mut system = exporting(&collector, protocol).await;
        let ids = submit(&system, 10).await;
        all_end(&system, &ids).await;
        // Halved down to one of ten, refused three times, asked whether it takes anything.
        system
            .process("up")
            .says("traces wait for the collector")
            .await;
        asked_more(&collector, 4).await;
        collector.refuse_as(Refusal::None);
        for id in &ids {
            trace(&collector, *id, 1).await;
        }
        counts(&mut system, "conductor_traces_refused_total", 0.0).await;
    }
}

#[tokio::test]
async fn what_is_too_much_at_once_is_sent_in_parts() {
    for protocol in ["grpc", "http/protobuf"] {
        let collector = Collector::start().await;
        collector.refuse_as(Refusal::MoreThan(3));
        let mut system = exporting(&collector, protocol).await;
        let ids = submit(&system, 20).await;
        all_end(&system, &ids).await;
        // Spans of one trace come in several exports here: looked at once all have come.
        let of = |id: TaskId| {
            let spans = of_log(&collector);
            spans.iter().filter(|s| s.trace == hex(id)).count()
        };
        until(|| {
            let whole = ids.iter().filter(|id| of(**id) == 5).count();
            if whole == ids.len() {
                Ok(())
            } else {
                Err(format!("{whole} whole traces"))
            }
        })
        .await;
        for id in &ids {
            trace(&collector, *id, 1).await;
        }
        counts(&mut system, "conductor_traces_refused_total", 0.0).await;
    }
}

#[tokio::test]
async fn spans_that_are_rejected_of_an_export_are_counted() {
    for protocol in ["grpc", "http/protobuf", "http/json"] {
        let collector = Collector::start().await;
        let mut system = System::bare().await;
        // Whatever is exported comes from the log alone.
        let endpoint = if protocol == "grpc" {
            &collector.grpc
        } else {
            &collector.http
        };
        set(
            &mut system.env,
            &[
                (ENDPOINT, endpoint),
                (PROTOCOL, protocol),
                ("OTEL_TRACES_SAMPLER", "parentbased_always_off"),
            ],
        );
        system.start_up(&[]).await;
        let (kept, rejected) = (new_id(), new_id());
        collector.refuse_as(Refusal::Only(hex(rejected)));
        for id in [kept, rejected] {
            let fails = json!({"id": id, "run": {"command": ["false"]}});
            system.submit(fails).await;
        }
        all_end(&system, &[kept, rejected]).await;
        let spans = trace(&collector, kept, 1).await;
        assert!(!spans.iter().any(is_live));
        let n = spans.len() as f64;
        counts(&mut system, "conductor_spans_rejected_total", n).await;
        counts(&mut system, "conductor_spans_exported_total", n).await;
        let said = system.process("up").said();
        assert!(
            said.contains("the collector did not keep all spans"),
            "{said}"
        );
        assert!(said.contains("told to reject them"), "{said}");
    }
}
