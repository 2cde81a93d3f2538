//! A view in words: lines for the head of the screen, and tables.

use conductor_protocol::UnixMs;
use conductor_protocol::human::format_time;
use conductor_protocol::subject::Role;

use super::failures::Failed;
use super::view::{AgentRow, QueueRow, View};
use crate::out;

/// A table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sheet {
    /// What is in it.
    pub(crate) name: &'static str,
    /// Titles of the columns, at their widths.
    pub(crate) titles: String,
    /// Rows, at the same widths.
    pub(crate) rows: Vec<String>,
}

impl Sheet {
    fn of<const N: usize>(name: &'static str, titles: [&str; N], rows: &[[String; N]]) -> Self {
        let mut widths = titles.map(width);
        for row in rows {
            for (widest, cell) in widths.iter_mut().zip(row) {
                *widest = (*widest).max(width(cell));
            }
        }
        Self {
            name,
            titles: aligned(titles.as_slice(), &widths),
            rows: rows.iter().map(|row| aligned(row, &widths)).collect(),
        }
    }
}

fn width(text: impl AsRef<str>) -> usize {
    text.as_ref().chars().count()
}

/// Cells at their widths, two spaces apart.
fn aligned<C: AsRef<str>>(cells: &[C], widths: &[usize]) -> String {
    let padded = cells.iter().zip(widths).map(|(cell, width)| {
        let cell = cell.as_ref();
        format!("{cell:<width$}")
    });
    let line = padded.collect::<Vec<_>>().join("  ");
    line.trim_end().to_owned()
}

/// The tables: queues, agents, last failures.
pub(crate) fn sheets(view: &View) -> [Sheet; 3] {
    [
        Sheet::of(
            "queues",
            ["QUEUE", "PAUSED", "WAITING", "RUNNING", "OLDEST READY"],
            &view.queues.iter().map(queue).collect::<Vec<_>>(),
        ),
        Sheet::of(
            "agents",
            ["AGENT", "STATUS", "USED/SLOTS", "FOR"],
            &view.agents.iter().map(agent).collect::<Vec<_>>(),
        ),
        Sheet::of(
            "last failures",
            ["TIME", "TASK", "QUEUE", "CLASS", "AGENT", "TRY", "ENDED"],
            &view.failures.iter().map(failure).collect::<Vec<_>>(),
        ),
    ]
}

fn queue(row: &QueueRow) -> [String; 5] {
    [
        row.name.to_string(),
        if row.is_paused { "paused" } else { "-" }.to_owned(),
        row.waiting.to_string(),
        row.running.to_string(),
        row.oldest_ready_ms.map_or_else(none, span),
    ]
}

fn agent(row: &AgentRow) -> [String; 4] {
    [
        row.name.to_string(),
        row.status.to_owned(),
        format!("{}/{}", row.used, row.slots),
        span(row.for_ms),
    ]
}

fn failure(failed: &Failed) -> [String; 7] {
    [
        time_of_day(failed.time_ms),
        failed.task.to_string(),
        failed.queue.as_ref().map_or_else(none, ToString::to_string),
        failed.class.to_string(),
        failed.agent.as_ref().map_or_else(none, ToString::to_string),
        failed.attempt.map_or_else(none, |n| n.to_string()),
        if failed.ends_task { "task" } else { "try" }.to_owned(),
    ]
}

fn none() -> String {
    "-".to_owned()
}

/// What stands above the tables, line by line.
pub(crate) fn head(view: &View) -> Vec<String> {
    let mut lines = vec![place(view), leaders(view), tasks(view)];
    if view.tasks.asking > 0 {
        let asking = view.tasks.asking;
        lines.push(format!(
            "people       {asking} task(s) wait for an answer: `conductor approvals`"
        ));
    }
    let rates = &view.rates;
    lines.push(format!(
        "per second   {:.1} accepted, {:.1} started, {:.1} ended (over {} s)",
        rates.accepted, rates.started, rates.ended, rates.over_s
    ));
    let most = view.ended.iter().max().copied().unwrap_or(0);
    lines.push(format!(
        "last minute  {}  {most}/s at most",
        bars(&view.ended)
    ));
    lines.extend(
        view.problem
            .as_deref()
            .map(|p| format!("PROBLEM      {}", out::plain(p))),
    );
    lines
}

fn place(view: &View) -> String {
    let lag = view
        .lag
        .map_or_else(|| "?".to_owned(), |lag| lag.to_string());
    let last = view.last_record_ms.map_or_else(
        || "no record yet".to_owned(),
        |at| {
            let ago = span(view.now_ms.saturating_sub(at));
            format!("last record {} ({ago} ago)", time_of_day(at))
        },
    );
    let (cell, seq, undecided) = (&view.cell, view.seq, view.tasks.undecided);
    format!("cell {cell}   seq {seq}   lag {lag}   undecided {undecided}   {last}")
}

fn leaders(view: &View) -> String {
    let leader = |(role, who): &(Role, Option<conductor_domain::state::Leader>)| match who {
        Some(who) => format!("{role} {} (epoch {})", out::plain(&who.holder), who.epoch),
        None => format!("{role} none yet"),
    };
    let leaders: Vec<String> = view.leaders.iter().map(leader).collect();
    format!("leaders      {}", leaders.join(", "))
}

fn tasks(view: &View) -> String {
    let t = &view.tasks;
    format!(
        "tasks        {} accepted, {} succeeded, {} failed, {} timed out, {} cancelled",
        t.accepted, t.succeeded, t.failed, t.timed_out, t.cancelled
    )
}

/// Everything as plain text, for scripts.
pub(crate) fn plain(view: &View) -> String {
    let mut lines = head(view);
    for sheet in sheets(view) {
        lines.push(String::new());
        if sheet.rows.is_empty() {
            lines.push(format!("{}: none", sheet.name));
            continue;
        }
        lines.push(sheet.name.to_owned());
        lines.push(sheet.titles);
        lines.extend(sheet.rows);
    }
    lines.join("\n")
}

/// One bar for each number, the largest full.
pub(crate) fn bars(numbers: &[u64]) -> String {
    const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let most = numbers.iter().max().copied().unwrap_or(0).max(1);
    let bar = |n: &u64| {
        // Only nothing is shown as nothing.
        let step = (*n * (BARS.len() as u64 - 1)).div_ceil(most) as usize;
        BARS.get(step).copied().unwrap_or('█')
    };
    numbers.iter().map(bar).collect()
}

/// A span in milliseconds, at a glance.
pub(crate) fn span(ms: u64) -> String {
    let s = ms / 1_000;
    match s {
        0..10 => format!("{}.{}s", s, ms % 1_000 / 100),
        10..60 => format!("{s}s"),
        60..3_600 => format!("{}m {}s", s / 60, s % 60),
        3_600..86_400 => format!("{}h {}m", s / 3_600, s % 3_600 / 60),
        _ => format!("{}d {}h", s / 86_400, s % 86_400 / 3_600),
    }
}

/// Hour, minute and second in UTC.
fn time_of_day(ms: UnixMs) -> String {
    let time = format_time(ms);
    time.get(11..19).unwrap_or(&time).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_and_bars_are_read_at_a_glance() {
        let spans = [0, 950, 9_999, 59_000, 61_000, 3_660_000, 90_000_000].map(span);
        let want = ["0.0s", "0.9s", "9.9s", "59s", "1m 1s", "1h 1m", "1d 1h"];
        assert_eq!(spans, want);
        assert_eq!(bars(&[0, 1, 50, 100]), "▁▂▅█");
        assert_eq!(bars(&[0, 0]), "▁▁");
    }
}
