//! Figures of the process itself, as `/proc` and the executor tell them.

use std::future::Future;
use std::pin::Pin;

use crate::sample::{Sample, Source};

/// Ticks a second in `/proc/self/stat` (`USER_HZ`, 100 on every Linux there is).
const TICKS: f64 = 100.0;
/// Bytes of a page, as on every machine the binary is built for.
const PAGE: f64 = 4096.0;

/// This process.
#[derive(Clone, Copy, Debug, Default)]
pub struct ThisProcess;

impl Source for ThisProcess {
    fn samples(&self) -> Pin<Box<dyn Future<Output = Vec<Sample>> + Send + '_>> {
        Box::pin(async {
            let mut samples = executor();
            samples.extend(process().unwrap_or_default());
            samples
        })
    }
}

fn executor() -> Vec<Sample> {
    let metrics = tokio::runtime::Handle::current().metrics();
    let gauge = |name, help, n: usize| Sample::gauge(name, help, n as f64);
    vec![
        Sample::gauge("conductor_build_info", "The version that runs", 1.0)
            .label("version", env!("CARGO_PKG_VERSION")),
        gauge(
            "conductor_tokio_workers",
            "Threads of the executor",
            metrics.num_workers(),
        ),
        gauge(
            "conductor_tokio_alive_tasks",
            "Tasks of the executor",
            metrics.num_alive_tasks(),
        ),
        gauge(
            "conductor_tokio_global_queue_depth",
            "Tasks that no thread of the executor has taken yet",
            metrics.global_queue_depth(),
        ),
    ]
}

/// Names and meanings are those of every Prometheus client.
fn process() -> Option<Vec<Sample>> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The name in brackets may hold anything.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let field = |n: usize| fields.get(n)?.parse::<f64>().ok();
    let (user, system, threads, started) = (field(11)?, field(12)?, field(17)?, field(19)?);
    let mut samples = vec![
        // As a float: what a process spends is less than a second for long.
        Sample {
            kind: crate::sample::Kind::Counter,
            ..Sample::gauge(
                "process_cpu_seconds",
                "CPU time of the process",
                (user + system) / TICKS,
            )
        },
        Sample::gauge(
            "process_resident_memory_bytes",
            "Memory of the process that is resident",
            field(21)? * PAGE,
        ),
        Sample::gauge("process_threads", "Threads of the process", threads),
    ];
    if let Some(booted) = booted() {
        samples.push(Sample::gauge(
            "process_start_time_seconds",
            "When the process started, in seconds since 1970",
            booted + started / TICKS,
        ));
    }
    if let Ok(open) = std::fs::read_dir("/proc/self/fd") {
        samples.push(Sample::gauge(
            "process_open_fds",
            "Open file descriptors",
            open.count() as f64,
        ));
    }
    samples.extend(
        descriptors_max()
            .map(|n| Sample::gauge("process_max_fds", "Most file descriptors it may open", n)),
    );
    Some(samples)
}

fn booted() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/stat").ok()?;
    let line = stat.lines().find_map(|l| l.strip_prefix("btime "))?;
    line.trim().parse().ok()
}

fn descriptors_max() -> Option<f64> {
    let limits = std::fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits
        .lines()
        .find_map(|l| l.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}
