//! What a run gave, as parts of a report.

use crate::latency::{Latency, Percentiles};
use crate::load::Second;
use crate::plot::{Line, Plot, Scale};
use crate::report::{Part, Report};
use crate::result::RunResult;
use crate::table::{micros, number};
use crate::usage::Usage;

/// The report of one run.
pub(crate) fn report(result: &RunResult) -> Report {
    let mut parts = vec![Part::Text(head(result))];
    for problem in result.problems() {
        parts.push(Part::Text(format!("NOT SOUND: {problem}")));
    }
    parts.extend([latencies(result), usage(result), frames(result)]);
    parts.extend(plots(result));
    parts.push(Part::Commands(result.commands.clone()));
    Report {
        title: format!("Load test: {:?}", result.load_plan.workload),
        origin: result.origin.clone(),
        took_s: result.load_plan.warmup + result.load.seconds,
        parts,
    }
}

fn head(result: &RunResult) -> String {
    let load = &result.load;
    format!(
        "Durability: {}. {} tasks a second ended over {:.1} s (acknowledged {}, begun {}); \
         {} µs CPU of Conductor per task. In all {} submitted, {} failed, {} acknowledged, \
         {} ended, of {} bytes each.",
        result.durability,
        number(load.ended_per_s),
        load.seconds,
        number(load.acked_per_s),
        number(load.started_per_s),
        number(result.cpu_us_per_task()),
        number(load.submitted as f64),
        number(load.failed as f64),
        number(load.acked as f64),
        number(load.ended as f64),
        load.bytes,
    )
}

fn latencies(result: &RunResult) -> Part {
    let row = |name: &str, p: &Percentiles| {
        let mut row = vec![name.to_owned(), number(p.count as f64)];
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
    let title = format!(
        "Latencies, from the {} time of one in {} tasks",
        if result
            .load
            .latencies
            .iter()
            .any(|l| l.1.corrected.is_some())
        {
            "actual"
        } else {
            "intended"
        },
        result.load.timed_every
    );
    let head = ["latency", "n", "p50", "p90", "p99", "p99.9", "max"];
    Part::table(&title, &head, rows)
}

/// What every process used.
pub(crate) fn usage(result: &RunResult) -> Part {
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
    Part::table(
        "CPU and memory in the measured window",
        &head,
        rows.collect(),
    )
}

/// Sizes of records.
pub(crate) fn frames(result: &RunResult) -> Part {
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
        "writer",
        "records",
        "events p50",
        "p99",
        "max",
        "bytes p50",
        "max",
    ];
    Part::table("Frames: the last records of the log", &head, rows.collect())
}

/// Throughput, latencies, CPU, memory and frames of a run.
pub(crate) fn plots(result: &RunResult) -> Vec<Part> {
    let of_usage = |of: fn(&(f64, f64, u64)) -> f64| {
        let line = |u: &Usage| Line {
            name: u.name.clone(),
            points: u.series.iter().map(|p| (p.0, of(p))).collect(),
        };
        result.usage.iter().map(line).collect::<Vec<_>>()
    };
    let seconds = |title: &str, y: &str, lines| Plot {
        title: title.to_owned(),
        x: "seconds".to_owned(),
        y: y.to_owned(),
        lines,
        ..Plot::default()
    };
    let curve = |(name, latency): &(String, Latency)| Line {
        name: name.clone(),
        // The tail is what matters: distance from 100 % on a logarithmic axis.
        points: latency
            .curve
            .iter()
            .filter(|(p, us)| *p < 100.0 && *us > 0.0)
            .map(|(p, us)| (100.0 / (100.0 - p), *us))
            .collect(),
    };
    let latencies = Plot {
        title: "Latency percentiles".to_owned(),
        x: "1 in so many tasks took longer".to_owned(),
        y: "microseconds".to_owned(),
        x_scale: Scale::Log,
        y_scale: Scale::Log,
        lines: result.load.latencies.iter().map(curve).collect(),
    };
    let plots = [
        seconds(
            "Throughput",
            "tasks per second",
            throughput(&result.load.series),
        ),
        latencies,
        seconds(
            "CPU of every process",
            "percent of a core",
            of_usage(|p| p.1),
        ),
        seconds(
            "Memory of every process",
            "RSS in MB",
            of_usage(|p| p.2 as f64 / 1024.0),
        ),
        frames_plot(result),
    ];
    plots.into_iter().map(Part::Plot).collect()
}

fn throughput(series: &[Second]) -> Vec<Line> {
    let line = |name: &str, of: fn(&Second) -> u64| Line {
        name: name.to_owned(),
        points: (0..)
            .zip(series)
            .map(|(i, s)| (f64::from(i) + 1.0, of(s) as f64))
            .collect(),
    };
    vec![
        line("acknowledged", |s| s.acked),
        line("begun", |s| s.started),
        line("ended", |s| s.ended),
    ]
}

fn frames_plot(result: &RunResult) -> Plot {
    let line = |f: &crate::frames::Frames| {
        let points = [
            (50.0, f.events_p50),
            (99.0, f.events_p99),
            (100.0, f.events_max),
        ];
        Line {
            name: f.writer.clone(),
            points: points.map(|(p, n)| (p, n as f64)).to_vec(),
        }
    };
    Plot {
        title: "Events of a record, by its writer".to_owned(),
        x: "percentile of records".to_owned(),
        y: "events".to_owned(),
        y_scale: Scale::Log,
        lines: result.frames.iter().map(line).collect(),
        ..Plot::default()
    }
}
