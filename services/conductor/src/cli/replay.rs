//! `conductor replay`: the state from the log alone, for an auditor.

mod traces;

use std::sync::Arc;
use std::time::{Duration, Instant};

use conductor_domain::State;
use conductor_eventlog::EventLog;
use conductor_eventlog::jetstream::Connection;
use conductor_protocol::TaskId;
use conductor_protocol::human::{format_time, parse_time};
use conductor_replica::reader::Until;
use conductor_replica::replica::Answer;
use conductor_replica::{ReadFrom, Reader};
use serde_json::{Value, json};

use super::read::{self, Entry};
use super::thread::Thread;
use crate::exit::{Exit, Failure, Outcome};
use crate::out::{self, Colour, Format};
use crate::settings::Settings;

/// How long live replicas are waited for.
const ANSWERS: Duration = Duration::from_secs(2);

/// Rebuild the state from the log alone, and compare it with the live one
#[derive(Debug, clap::Args)]
pub(crate) struct ReplayArgs {
    /// As of this sequence, or this RFC 3339 time
    #[arg(long, value_name = "SEQ|TIME")]
    as_of: Option<String>,
    /// Show what happened to one task (id, beginning of one, or name)
    #[arg(long)]
    task: Option<String>,
    /// Begin from the newest snapshot instead of the first record
    #[arg(long)]
    from_snapshot: bool,
    /// Compare with the live replicas, at the sequence each has reached
    #[arg(long)]
    compare_live: bool,
    /// Show every void event
    #[arg(long)]
    void: bool,
    /// Export the traces of tasks that ended in this range again, as the OTEL_* variables say
    #[arg(long, conflicts_with_all = ["task", "void", "from_snapshot", "compare_live"])]
    traces: bool,
    /// With --traces: only tasks that ended after this sequence, or this RFC 3339 time
    #[arg(long, value_name = "SEQ|TIME", requires = "traces")]
    since: Option<String>,
}

/// What was collected on the way.
#[derive(Default)]
struct Seen {
    /// With the task each speaks of.
    entries: Vec<(Option<TaskId>, Entry)>,
    /// The thread of the task asked for, where it was named by its id.
    thread: Option<Thread>,
    events: u64,
}

pub(crate) async fn run(args: ReplayArgs, settings: &Settings) -> Outcome {
    if args.traces {
        let until = until("--as-of", args.as_of.as_deref())?;
        let since = match args.since.as_deref() {
            None => Until::Seq(0),
            since => self::until("--since", since)?,
        };
        return traces::run(since, until, settings).await;
    }
    let connection = Arc::new(settings.open().await?);
    let log = Arc::clone(&connection) as Arc<dyn EventLog>;
    let last = log.last_seq().await?;
    let until = until("--as-of", args.as_of.as_deref())?;
    let at_most = match until {
        Until::Seq(seq) => seq,
        // A snapshot may lie beyond the time asked for: then it is of no use.
        Until::TimeMs(_) => 0,
    };
    let from = if args.from_snapshot {
        ReadFrom::Snapshot(connection.as_ref())
    } else {
        ReadFrom::Genesis
    };
    let mut reader = Reader::open(Arc::clone(&log), from, at_most.min(last)).await;
    let by_id = args.task.as_ref().and_then(|text| text.parse().ok());
    let mut seen = Seen {
        thread: by_id.map(Thread::of),
        ..Seen::default()
    };
    let started = Instant::now();
    let wants_entries = args.task.is_some() || args.void;
    reader
        .read_until(until, last, |record, folded, _| {
            seen.events += folded.verdicts.len() as u64;
            if wants_entries {
                collect(&args, record, folded, &mut seen);
            }
        })
        .await?;
    let took = started.elapsed();
    let digest = reader.state.digest().to_string();
    let mut report = report(&reader, &seen, took, &digest);
    let mut exit = if reader.gaps.is_empty() {
        Exit::Ok
    } else {
        Exit::Failure
    };
    if args.compare_live {
        let compared = compare(&connection, &log, last).await?;
        if compared
            .iter()
            .any(|c| c.get("agrees") != Some(&Value::Bool(true)))
        {
            exit = Exit::Failure;
        }
        for answer in &compared {
            if let (Some(lost), Some(who)) = (answer["lost"].as_str(), answer["instance"].as_str())
            {
                out::error(
                    &format!("the log has lost its end: {who} has read at least records {lost}"),
                    Some(
                        "stop every process and repair the log from a mirror; what was acknowledged there is not in this log any more",
                    ),
                );
            }
        }
        super::put(&mut report, "live", compared);
    }
    show(&args, settings.output, &reader.state, &mut report, &seen)?;
    for gap in &reader.gaps {
        out::error(
            &format!("the log has lost records {gap}"),
            Some(
                "repair it from a mirror; what was acknowledged there is not in this log any more",
            ),
        );
    }
    Ok(exit)
}

/// The end of a range, as a flag names it.
pub(super) fn until(flag: &str, text: Option<&str>) -> Outcome<Until> {
    let Some(text) = text else {
        return Ok(Until::Seq(u64::MAX));
    };
    if let Ok(seq) = text.parse() {
        return Ok(Until::Seq(seq));
    }
    parse_time(text).map(|t| Until::TimeMs(t.0)).ok_or_else(|| {
        Failure::usage(format!(
            "{flag} {text:?} is neither a sequence nor an RFC 3339 time"
        ))
    })
}

fn collect(
    args: &ReplayArgs,
    record: &conductor_domain::Decoded,
    folded: &conductor_domain::fold::Folded,
    seen: &mut Seen,
) {
    for (task, entry) in read::entries(record, folded) {
        let is_void = entry.verdict != conductor_domain::Verdict::Applied;
        let is_wanted = match (&args.task, &mut seen.thread) {
            (Some(_), Some(thread)) => thread.takes(task, &entry),
            // A name says whose it is only once everything is read.
            (Some(_), None) => true,
            (None, _) => args.void && is_void,
        };
        if is_wanted {
            seen.entries.push((task, entry));
        }
    }
}

fn report(reader: &Reader, seen: &Seen, took: Duration, digest: &str) -> Value {
    let state = &reader.state;
    let mut tasks = std::collections::BTreeMap::<&str, u64>::new();
    for task in state.tasks.values() {
        *tasks.entry(task.state_name()).or_default() += 1;
    }
    let records = state.seq.saturating_sub(reader.began_at);
    json!({
        "cell": state.cell, "seq": state.seq, "time": format_time(state.time_ms),
        "from": if reader.began_at == 0 { "the first record".to_owned() } else { format!("the snapshot at {}", reader.began_at) },
        "records": records, "events": seen.events,
        "seconds": took.as_secs_f64(),
        "tasks": tasks, "tombstones": state.tombstones.len(),
        "submitted": state.counters.submitted, "accepted": state.counters.accepted,
        "rejected": state.counters.rejected, "duplicates": state.counters.duplicates,
        "attempts": state.counters.attempts, "retries": state.counters.retries,
        "ended": state.counters.ended,
        "void": state.counters.void,
        "leaders": state.leaders.iter().map(|(r, l)| (r.to_string(), format!("{} (epoch {})", l.holder, l.epoch))).collect::<std::collections::BTreeMap<_, _>>(),
        "gaps": reader.gaps.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "digest": digest,
    })
}

/// Folds the log up to where each live replica is, and compares digests there.
pub(crate) async fn compare(
    connection: &Arc<Connection>,
    log: &Arc<dyn EventLog>,
    last: u64,
) -> Outcome<Vec<Value>> {
    let answers = connection.ask(ANSWERS).await?;
    let mut answers: Vec<Answer> = answers
        .iter()
        .filter_map(|a| serde_json::from_slice(a).ok())
        .collect();
    if answers.is_empty() {
        return Err(Failure::new(Exit::Unreachable, "no live replica answers")
            .hint("is `conductor up`, or an orchestrator or scheduler, running in this cell?"));
    }
    answers.sort_by_key(|a| a.seq);
    // Asked for after the answers: whoever is beyond this end read what is no longer there.
    let last = last.max(log.last_seq().await?);
    let mut reader = Reader::open(Arc::clone(log), ReadFrom::Genesis, 0).await;
    let mut out = Vec::new();
    for answer in answers {
        if answer.seq > last {
            out.push(json!({
                "instance": answer.instance, "leads": answer.leads, "seq": answer.seq,
                "digest": answer.digest, "agrees": false,
                "lost": format!("{}-{}", last + 1, answer.seq),
            }));
            continue;
        }
        reader
            .read_until(Until::Seq(answer.seq), last, |_, _, _| {})
            .await?;
        let ours = reader.state.digest().to_string();
        let agrees = ours == answer.digest && reader.state.seq == answer.seq;
        out.push(json!({
            "instance": answer.instance, "leads": answer.leads, "seq": answer.seq,
            "digest": answer.digest, "replayed": ours, "agrees": agrees,
        }));
    }
    Ok(out)
}

/// The last task of this name, though it may have left the state.
fn named_once(seen: &Seen, name: &str) -> Option<TaskId> {
    let mut entries = seen.entries.iter().rev();
    let is_it = |e: &Entry| e.event.pointer("/spec/name").and_then(Value::as_str) == Some(name);
    entries
        .find(|(_, entry)| is_it(entry))
        .and_then(|(task, _)| *task)
}

fn show(
    args: &ReplayArgs,
    format: Format,
    state: &State,
    report: &mut Value,
    seen: &Seen,
) -> Outcome<()> {
    let entries: Vec<&Entry> = match &args.task {
        Some(text) => {
            let id = read::find(state, text).or_else(|e| named_once(seen, text).ok_or(e))?;
            let shown = match state.tasks.get(&id) {
                Some(task) => read::task_json(state, id, task),
                None => json!({"id": id, "outcome": state.outcome_of(id)}),
            };
            super::put(report, "task", shown);
            let mut thread = Thread::of(id);
            let entries = seen.entries.iter();
            let of_it = entries.filter(|(task, entry)| thread.takes(*task, entry));
            of_it.map(|(_, entry)| entry).collect()
        }
        None => seen.entries.iter().map(|(_, entry)| entry).collect(),
    };
    if format != Format::Table {
        let listed: Vec<Value> = entries.iter().map(|e| e.to_json()).collect();
        if args.task.is_some() || args.void {
            super::put(report, "timeline", listed);
        } else {
            let tasks = state
                .tasks
                .iter()
                .map(|(id, t)| read::task_json(state, *id, t));
            super::put(report, "task_list", tasks.collect::<Vec<_>>());
        }
        out::one(format, report);
        return Ok(());
    }
    let live = report.as_object_mut().and_then(|m| m.remove("live"));
    out::one(format, report);
    for answer in live.iter().filter_map(Value::as_array).flatten() {
        let verdict = if answer["agrees"] == true {
            "agrees"
        } else {
            &out::paint(Colour::Red, "DIFFERS")
        };
        out::line(&format!(
            "{:<14} {} at {} {verdict} ({})",
            "live",
            answer["instance"].as_str().unwrap_or("?"),
            answer["seq"],
            answer["digest"].as_str().unwrap_or("?")
        ));
    }
    if !entries.is_empty() {
        out::line("");
        for entry in &entries {
            out::line(&entry.line());
        }
    }
    Ok(())
}
