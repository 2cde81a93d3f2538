//! `conductor usage`: what models were used for, from the log alone.

mod sums;

use std::sync::Arc;

use conductor_domain::Decoded;
use conductor_domain::State;
use conductor_domain::Verdict;
use conductor_domain::fold::Folded;
use conductor_domain::record::Content;
use conductor_eventlog::EventLog;
use conductor_protocol::event::Event;
use conductor_protocol::human::format_time;
use conductor_protocol::ids::Position;
use conductor_replica::reader::Until;
use conductor_replica::{ReadFrom, Reader};
use serde_json::{Value, json};

use super::replay;
use crate::exit::{Exit, Outcome};
use crate::out::{self, Format};
use crate::settings::Settings;
use sums::{Of, Sum, Sums};

/// Show what models were used: tokens and money, each attempt counted once
#[derive(Debug, clap::Args)]
pub(crate) struct UsageArgs {
    /// What it is summed by
    #[arg(long, value_delimiter = ',', default_value = "namespace,queue,model")]
    by: Vec<By>,
    /// Only what was used after this sequence, or this RFC 3339 time
    #[arg(long, value_name = "SEQ|TIME")]
    since: Option<String>,
    /// Only what was used up to this sequence, or this RFC 3339 time
    #[arg(long, value_name = "SEQ|TIME")]
    until: Option<String>,
}

/// What sums are told apart by.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
enum By {
    Namespace,
    Queue,
    Model,
    Day,
}

impl By {
    fn name(self) -> &'static str {
        match self {
            Self::Namespace => "namespace",
            Self::Queue => "queue",
            Self::Model => "model",
            Self::Day => "day",
        }
    }

    fn title(self) -> &'static str {
        match self {
            Self::Namespace => "NAMESPACE",
            Self::Queue => "QUEUE",
            Self::Model => "MODEL",
            Self::Day => "DAY",
        }
    }

    fn of(self, of: &Of) -> &str {
        match self {
            Self::Namespace => &of.namespace,
            Self::Queue => &of.queue,
            Self::Model => &of.model,
            Self::Day => &of.day,
        }
    }
}

pub(crate) async fn run(args: UsageArgs, settings: &Settings) -> Outcome {
    let until = replay::until("--until", args.until.as_deref())?;
    let since = match args.since.as_deref() {
        None => Until::Seq(0),
        since => replay::until("--since", since)?,
    };
    let connection = Arc::new(settings.open().await?);
    let log = Arc::clone(&connection) as Arc<dyn EventLog>;
    let last = log.last_seq().await?;
    let mut reader = Reader::open(log, ReadFrom::Genesis, 0).await;
    let mut sums = Sums::default();
    reader
        .read_until(until, last, |record, folded, state| {
            let is_in = match since {
                Until::Seq(seq) => record.seq > seq,
                Until::TimeMs(ms) => record.time_ms > ms,
            };
            read(&mut sums, record, folded, state, is_in);
        })
        .await?;
    show(&args.by, &sums, settings.output);
    Ok(Exit::Ok)
}

/// Takes in what a record says of usage.
fn read(sums: &mut Sums, record: &Decoded, folded: &Folded, state: &State, is_in: bool) {
    let (Content::Leader { items, .. } | Content::Agent { items, .. }) = &record.content else {
        return;
    };
    for (index, item) in items.iter().enumerate() {
        let verdict = folded.verdicts.get(index);
        let is_applied = verdict.is_none_or(|v| *v == Verdict::Applied);
        let Some(event) = item.as_ref().ok().filter(|_| is_applied) else {
            continue;
        };
        let (lease, usage, is_end) = match event {
            Event::AttemptAssigned(e) => {
                let at = Position::new(record.seq, index as u32);
                let before = e.before.as_ref().and_then(|b| b.usage.clone());
                sums.begin(at, before.unwrap_or_default());
                continue;
            }
            Event::AttemptUsage(e) => (e.lease, Some(&e.usage), false),
            Event::AttemptSucceeded(e) => (e.lease, e.usage.as_ref(), true),
            Event::AttemptFailed(e) => (e.lease, e.usage.as_ref(), true),
            Event::AttemptStopped(e) => (e.lease, None, true),
            _ => continue,
        };
        if let Some(usage) = usage {
            let spec = state.tasks.get(&lease.task).map(|t| &t.spec);
            let of = Of {
                namespace: spec.map_or("?".to_owned(), |s| s.namespace.to_string()),
                queue: spec.map_or("?".to_owned(), |s| s.queue.to_string()),
                model: usage.model.clone().unwrap_or_else(|| "?".to_owned()),
                day: format_time(record.time_ms).chars().take(10).collect(),
            };
            sums.take(lease.assigned, usage, of, is_in);
        }
        if is_end {
            sums.end(lease.assigned);
        }
    }
}

fn show(by: &[By], sums: &Sums, format: Format) {
    let key = |of: &Of| by.iter().map(|by| by.of(of).to_owned()).collect::<Vec<_>>();
    let grouped = sums.grouped(key);
    let mut rows: Vec<Value> = grouped
        .iter()
        .map(|(key, sum)| {
            let mut row = figures(sum);
            for (by, value) in by.iter().zip(key) {
                super::put(&mut row, by.name(), value.clone());
            }
            row
        })
        .collect();
    if format == Format::Table && rows.len() > 1 {
        let mut total = figures(&grouped.values().fold(Sum::default(), Sum::plus));
        if let Some(first) = by.first() {
            super::put(&mut total, first.name(), "total");
        }
        rows.push(total);
    }
    let mut columns: Vec<(&str, &str)> = by.iter().map(|by| (by.title(), by.name())).collect();
    columns.extend([
        ("ATTEMPTS", "attempts"),
        ("TURNS", "turns"),
        ("INPUT", "input_tokens"),
        ("CACHED", "cached_tokens"),
        ("CACHE-WRITE", "cache_write_tokens"),
        ("OUTPUT", "output_tokens"),
        ("USD", "cost_usd"),
    ]);
    out::rows(format, &columns, &rows);
}

fn figures(sum: &Sum) -> Value {
    let usage = &sum.usage;
    json!({
        "attempts": sum.attempts, "turns": usage.turns,
        "input_tokens": usage.input_tokens, "cached_tokens": usage.cached_tokens,
        "cache_write_tokens": usage.cache_write_tokens, "output_tokens": usage.output_tokens,
        // Prices have more digits than a sum is worth.
        "cost_usd": (usage.cost_usd * 1e6).round() / 1e6,
    })
}
