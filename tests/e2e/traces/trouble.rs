//! Traces where something is away, killed or there twice.

use std::collections::{BTreeMap, BTreeSet};

use conductor_eventlog::jetstream::positions::Position;
use conductor_harness::otlp::Seen;
use conductor_harness::system::{new_id, sh};
use conductor_harness::{Collector, Story, System, until, until_asked};
use conductor_protocol::{TaskId, TraceContext};
use serde_json::json;

use super::tree::{counts, is_live, of_log, trace, whole};
use super::{export_to, traced};

#[tokio::test]
async fn while_the_collector_is_away_the_log_keeps_the_traces() {
    let collector = Collector::start().await;
    collector.refuse(true);
    let mut system = traced(&collector.grpc).await;
    let mut story = system.story().await;
    let mut ids = Vec::new();
    for _ in 0..20 {
        ids.push(system.submit(json!({"run": {"noop": {}}})).await);
    }
    for id in &ids {
        story.outcome(*id).await;
    }
    until(|| {
        if collector.asked() >= 2 {
            Ok(())
        } else {
            Err("asked twice".to_owned())
        }
    })
    .await;
    // Ended without a collector, and started again with one.
    system.process("up").terminate().await;
    let said = system.process("up").said();
    assert_eq!(
        said.matches("traces wait for the collector").count(),
        1,
        "{said}"
    );
    collector.refuse(false);
    system.start_up(&[]).await;
    for id in &ids {
        let spans = trace(&collector, *id, 1).await;
        assert_eq!(counts(&spans)["task"], 1);
    }
    replayed(&system, &collector, ids.len()).await;
}

/// Replay says the same again, span for span.
async fn replayed(system: &System, collector: &Collector, tasks: usize) {
    let live: BTreeMap<String, Seen> = collector
        .spans()
        .into_iter()
        .map(|s| (s.id.clone(), s))
        .collect();
    let again = Collector::start().await;
    let env = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", again.http.as_str()),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
    ];
    let args = [
        "--nats-url",
        &system.url,
        "replay",
        "--traces",
        "-o",
        "json",
    ];
    let args: Vec<String> = args.iter().map(|a| (*a).to_owned()).collect();
    let report = conductor_harness::process::run(&args, &env, b"")
        .await
        .json();
    assert_eq!(report["traces"], tasks, "{report}");
    let replayed: BTreeMap<String, Seen> = again
        .spans()
        .into_iter()
        .map(|s| (s.id.clone(), s))
        .collect();
    assert_eq!(replayed, live);
}

/// One that is killed now and then, and goes on soon.
const PROJECTOR: [&str; 5] = [
    "projector",
    "--claim-ttl",
    "2s",
    "--checkpoint-every",
    "200",
];

#[tokio::test]
async fn a_thousand_tasks_through_kills_are_a_thousand_traces() {
    const TASKS: usize = 1_000;
    let collector = Collector::start().await;
    let mut system = System::bare().await;
    export_to(&mut system, &collector.grpc);
    system.start("projector", &PROJECTOR);
    system.start_split().await;
    let mut story = system.story().await;
    let submitted = submit(&system, TASKS).await;
    let mut ended = 0;
    for victim in [
        "projector",
        "orchestrator",
        "projector",
        "scheduler",
        "projector",
    ] {
        ended += TASKS / 6;
        story
            .until("some to end", |s| (count(s) >= ended).then_some(()))
            .await;
        system.process(victim).kill9();
        match victim {
            "projector" => system.start(victim, &PROJECTOR),
            role => system.start_role(role, role),
        }
    }
    story
        .until("all to end", |s| (count(s) >= TASKS).then_some(()))
        .await;
    let spans = until(|| {
        let spans = of_log(&collector);
        let roots: BTreeSet<&str> = spans
            .iter()
            .filter(|s| s.name == "task")
            .map(|s| s.trace.as_str())
            .collect();
        if roots.len() >= TASKS {
            Ok(spans.clone())
        } else {
            Err(format!("{} roots", roots.len()))
        }
    })
    .await;
    let all = collector.spans();
    // A kill between an export and the word that it was made has that one export said again:
    // the same spans, byte for byte, which whoever keeps spans by id sees once.
    let mut by_id: BTreeMap<(&str, &str), &Seen> = BTreeMap::new();
    let mut again = 0;
    for span in &spans {
        if let Some(before) = by_id.insert((&span.trace, &span.id), span) {
            assert_eq!(before, span);
            again += 1;
        }
    }
    assert!(again <= 3 * 600, "{again} spans came twice");
    let mut traces: BTreeMap<&str, Vec<Seen>> = BTreeMap::new();
    for span in by_id.values() {
        traces.entry(&span.trace).or_default().push((*span).clone());
    }
    // Of what the processes saw no span is without its parent.
    let ids: BTreeSet<&str> = spans.iter().map(|s| s.id.as_str()).collect();
    let is_orphan = |s: &&Seen| is_live(s) && !ids.contains(s.parent.as_str());
    let orphans: Vec<&Seen> = all.iter().filter(is_orphan).collect();
    assert!(orphans.is_empty(), "{orphans:#?}");
    let expected: BTreeSet<String> = submitted
        .iter()
        .map(|id| TraceContext::of(*id, None).trace_hex())
        .collect();
    assert_eq!(
        traces
            .keys()
            .map(|t| (*t).to_owned())
            .collect::<BTreeSet<_>>(),
        expected
    );
    for spans in traces.values() {
        whole(spans, "");
        assert_eq!(counts(spans)["task"], 1);
    }
}

#[tokio::test]
async fn of_two_projectors_one_exports_though_the_collector_was_long_away() {
    let collector = Collector::start().await;
    collector.refuse(true);
    let mut system = System::bare().await;
    export_to(&mut system, &collector.grpc);
    system.start("first", &["projector", "--claim-ttl", "4s"]);
    system.start("second", &["projector", "--claim-ttl", "4s"]);
    system.env.clear();
    system.start_split().await;
    let mut story = system.story().await;
    let ids = submit(&system, 100).await;
    story
        .until("all to end", |s| (count(s) >= 100).then_some(()))
        .await;
    // One that says nothing is waited for as long as its claim lasts; this one has said for longer
    // that it is there.
    let first = position(&system).await;
    let tries = collector.asked();
    until_asked(async || {
        let now = position(&system).await;
        assert_eq!(now.holder, first.holder);
        if now.at_ms > first.at_ms + 6_000 && collector.asked() >= tries + 2 {
            Ok(())
        } else {
            Err("a long outage".to_owned())
        }
    })
    .await;
    collector.refuse(false);
    for id in &ids {
        trace(&collector, *id, 1).await;
    }
    let said = ["first", "second"].map(|name| system.process(name).said());
    let begun = said
        .iter()
        .filter(|s| s.contains("traces are exported from here"));
    assert_eq!(begun.count(), 1, "{said:?}");
}

/// Where the projector stands, once it does.
async fn position(system: &System) -> Position {
    until_asked(async || {
        let stored = system.connection.position("traces").await;
        let stored = stored.map_err(|e| e.to_string())?;
        Ok(stored.ok_or("nobody projects")?.position)
    })
    .await
}

#[tokio::test]
async fn of_a_log_that_lost_its_end_the_new_end_is_exported_too() {
    let collector = Collector::start().await;
    let mut system = System::bare().await;
    export_to(&mut system, &collector.grpc);
    start_all(&mut system).await;
    let first = run_one(&system, &collector).await;
    let log = stop_all(&mut system).await;
    let kept = system.server.as_ref().unwrap().dir().join("kept");
    copy(&log, &kept);
    system.server.as_mut().unwrap().start_again();
    start_all(&mut system).await;
    let lost = submit(&system, 100).await;
    for id in &lost {
        trace(&collector, *id, 1).await;
    }
    let before = position(&system).await;
    // The end of the log is lost; the position, which is stored beside it, is not.
    stop_all(&mut system).await;
    std::fs::remove_dir_all(&log).unwrap();
    copy(&kept, &log);
    std::fs::remove_dir_all(&kept).unwrap();
    system.server.as_mut().unwrap().start_again();
    start_all(&mut system).await;
    let again = run_one(&system, &collector).await;
    let mut story = system.story().await;
    story.outcome(again).await;
    let end = story.find(again, "attempt.succeeded").unwrap().seq;
    assert!(
        end < before.seq,
        "{end} was not given out again: {before:?}"
    );
    assert!(story.state().outcome_of(lost[0]).is_none());
    assert_ne!(first, again);
    let said = system.process("projector").said();
    assert!(
        said.contains("traces go on behind the last record"),
        "{said}"
    );
    until_asked(async || {
        let after = position(&system).await;
        if after.time_ms > before.time_ms && after.seq >= end {
            Ok(())
        } else {
            Err(format!("beyond {before:?}, not {after:?}"))
        }
    })
    .await;
}

/// Runs a task; its trace has arrived.
async fn run_one(system: &System, collector: &Collector) -> TaskId {
    let id = system.submit(sh("true")).await;
    trace(collector, id, 1).await;
    id
}

async fn start_all(system: &mut System) {
    system.start("projector", &["projector", "--claim-ttl", "4s"]);
    system.start_split().await;
}

/// Ends all processes, then the server; returns where it keeps the log.
async fn stop_all(system: &mut System) -> std::path::PathBuf {
    let names: Vec<String> = system.processes.keys().cloned().collect();
    for name in names {
        system.process(&name).terminate().await;
    }
    let server = system.server.as_mut().unwrap();
    server.server.stop(std::time::Duration::from_secs(10));
    let streams = server.dir().join("store/jetstream/$G/streams");
    streams.join("LOG_local")
}

fn copy(from: &std::path::Path, to: &std::path::Path) {
    let copied = std::process::Command::new("cp")
        .arg("-a")
        .args([from, to])
        .status();
    assert!(copied.unwrap().success(), "{}", from.display());
}

#[tokio::test]
async fn what_exports_traces_ends_when_told_though_nats_is_away() {
    let collector = Collector::start().await;
    let mut system = traced(&collector.grpc).await;
    let mut story = system.story().await;
    let id = system.submit(sh("true")).await;
    story.outcome(id).await;
    trace(&collector, id, 1).await;
    system.server.as_mut().unwrap().server.kill();
    // Not for ever: how it ends where it can say nothing more is another matter.
    system.process("up").terminate().await;
}

async fn submit(system: &System, tasks: usize) -> Vec<TaskId> {
    let mut ids = Vec::new();
    for _ in 0..tasks / 100 {
        let some: Vec<TaskId> = (0..100).map(|_| new_id()).collect();
        let record: Vec<_> = some
            .iter()
            .map(|id| json!({"id": id, "run": {"command": ["true"]}}))
            .collect();
        let record = serde_json::to_vec(&record).unwrap();
        system.submit_raw("default", record).await;
        ids.extend(some);
    }
    ids
}

fn count(story: &Story) -> usize {
    story.state().counters.ended.values().sum::<u64>() as usize
}
