//! Tables for people.

use comfy_table::{Table, presets};

use crate::latency::Percentiles;
use crate::result::RunResult;

/// A table with a head; plain, so that it also reads well in a file.
pub(crate) fn table(head: &[&str], rows: Vec<Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    table.set_header(head.to_vec());
    for row in rows {
        table.add_row(row);
    }
    table.to_string()
}

/// A number with three significant digits or so, and its thousands apart.
pub(crate) fn number(n: f64) -> String {
    let digits = match n.abs() {
        n if n >= 100.0 => 0,
        n if n >= 10.0 => 1,
        _ => 2,
    };
    let text = format!("{n:.digits$}");
    let (whole, rest) = text
        .split_once('.')
        .map_or((text.as_str(), None), |(w, r)| (w, Some(r)));
    let mut out = String::new();
    let length = whole.len();
    for (i, c) in whole.chars().enumerate() {
        if i > 0 && (length - i).is_multiple_of(3) && c.is_ascii_digit() && !out.ends_with('-') {
            out.push(',');
        }
        out.push(c);
    }
    rest.map_or(out.clone(), |rest| format!("{out}.{rest}"))
}

/// A time in microseconds, in a unit that suits it.
pub(crate) fn micros(us: f64) -> String {
    match us {
        us if us >= 1e6 => format!("{} s", number(us / 1e6)),
        us if us >= 1e3 => format!("{} ms", number(us / 1e3)),
        us => format!("{} µs", number(us)),
    }
}

/// Everything of a run.
pub(crate) fn run(result: &RunResult) -> String {
    let mut parts = vec![
        head(result),
        latencies(result),
        usage(result),
        frames(result),
    ];
    for problem in result.problems() {
        parts.push(format!("NOT SOUND: {problem}\n"));
    }
    parts.join("\n")
}

fn head(result: &RunResult) -> String {
    let load = &result.load;
    let origin = &result.origin;
    format!(
        "conductor {} ({}), nats-server {}, {}\n{} ended a second over {:.1} s \
         (acknowledged {}, begun {}); {} µs CPU of Conductor per task\n\
         {} submitted, {} failed, {} acknowledged, {} ended, of {} bytes each\n",
        origin.version,
        origin.commit.as_deref().unwrap_or("no commit"),
        origin.server,
        result.durability,
        number(load.ended_per_s),
        load.seconds,
        number(load.acked_per_s),
        number(load.started_per_s),
        number(result.cpu_us_per_task()),
        load.submitted,
        load.failed,
        load.acked,
        load.ended,
        load.bytes,
    )
}

fn latencies(result: &RunResult) -> String {
    let row = |name: &str, p: &Percentiles| {
        let mut row = vec![name.to_owned(), p.count.to_string()];
        row.extend([p.p50, p.p90, p.p99, p.p999, p.max].map(micros));
        row
    };
    let mut rows = Vec::new();
    for (name, latency) in &result.load.latencies {
        rows.push(row(name, &latency.measured));
        if let Some(corrected) = &latency.corrected {
            rows.push(row(&format!("{name}, corrected"), corrected));
        }
    }
    table(&["latency", "n", "p50", "p90", "p99", "p99.9", "max"], rows) + "\n"
}

/// What every process used.
pub(crate) fn usage(result: &RunResult) -> String {
    let tasks = (result.load.ended_per_s * result.load.seconds).max(1.0);
    let mb = |kb: u64| number(kb as f64 / 1024.0);
    let rows = result.usage.iter().map(|u| {
        vec![
            u.name.clone(),
            number(u.cpu_s),
            format!("{} %", number(u.core_percent)),
            number(u.cpu_s * 1e6 / tasks),
            mb(u.rss_first_kb),
            mb(u.rss_last_kb),
            mb(u.rss_max_kb),
        ]
    });
    let head = [
        "process",
        "CPU s",
        "of a core",
        "µs per task",
        "RSS MB first",
        "last",
        "max",
    ];
    table(&head, rows.collect()) + "\n"
}

/// Sizes of records.
pub(crate) fn frames(result: &RunResult) -> String {
    let rows = result.frames.iter().map(|f| {
        let numbers = [
            f.records,
            f.events_p50,
            f.events_p99,
            f.events_max,
            f.bytes_p50,
            f.bytes_max,
        ];
        let mut row = vec![f.writer.clone()];
        row.extend(numbers.map(|n| number(n as f64)));
        row
    });
    let head = [
        "writer of the last records",
        "records",
        "events p50",
        "p99",
        "max",
        "bytes p50",
        "max",
    ];
    table(&head, rows.collect()) + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_and_readable() {
        assert_eq!(number(1_234_567.8), "1,234,568");
        assert_eq!(number(999.6), "1,000");
        assert_eq!(number(12.34), "12.3");
        assert_eq!(number(-123.0), "-123");
        assert_eq!(number(0.5), "0.50");
        assert_eq!(micros(1_500.0), "1.50 ms");
    }
}
