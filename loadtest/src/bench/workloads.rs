//! Workloads that have no target: graphs, priorities, namespaces, failures, programs, and
//! everything in one process.

use super::Bench;
use super::throughput::brief;
use crate::outcome::Outcome;
use crate::plan::{Kind, Layout, LoadPlan, SystemPlan};
use crate::report::Part;
use crate::result::RunResult;
use crate::run;
use crate::table::{micros, number};

/// Programs that run at once: this machine has few cores.
const PROGRAMS: usize = 16;

fn row(name: &str, result: &RunResult) -> Vec<String> {
    let ended = result
        .load
        .latencies
        .iter()
        .find(|(n, _)| n == "submit to ended");
    let (p50, p99) = ended.map_or((0.0, 0.0), |(_, l)| (l.measured.p50, l.measured.p99));
    vec![
        name.to_owned(),
        number(result.load_plan.in_flight as f64),
        number(result.load.ended_per_s),
        micros(p50),
        micros(p99),
        number(result.cpu_us_per_task()),
    ]
}

const HEAD: [&str; 6] = [
    "workload",
    "in flight",
    "tasks a second",
    "submit to ended p50",
    "p99",
    "CPU µs per task",
];

/// One brief run of each.
pub(super) fn workloads(bench: &mut Bench) -> Outcome<()> {
    let usual = LoadPlan::default().in_flight;
    let kinds = [
        ("no-op tasks of 4 KB", Kind::Noop, 4_096, usual),
        ("chains of ten", Kind::Chain, 256, usual),
        ("fan-out and fan-in, 1:100", Kind::Fan, 256, usual),
        ("mixed priorities", Kind::Priorities, 256, usual),
        ("1,000 namespaces", Kind::Namespaces, 256, usual),
        ("programs that end well", Kind::Command, 256, PROGRAMS),
        (
            "programs that fail, tried three times",
            Kind::Retries,
            256,
            PROGRAMS,
        ),
    ];
    let mut rows = Vec::new();
    for (name, workload, bytes, in_flight) in kinds {
        let plan = LoadPlan {
            workload,
            bytes,
            in_flight,
            ..brief(bench)
        };
        let result = run::run(&SystemPlan::default(), &plan)?;
        bench.note(name, &result);
        rows.push(row(name, &result));
    }
    let title = "Other workloads, one run of each";
    bench.parts.push(Part::table(title, &HEAD, rows));
    Ok(())
}

/// `conductor up`, which holds it all.
pub(super) fn up(bench: &mut Bench) -> Outcome<()> {
    let system = SystemPlan {
        layout: Layout::Up,
        ..SystemPlan::default()
    };
    let result = run::run(&system, &brief(bench))?;
    bench.note("conductor up", &result);
    let rows = vec![row("no-op tasks of 256 B", &result)];
    let title = "Everything in one `conductor up`, one run";
    bench.parts.push(Part::table(title, &HEAD, rows));
    Ok(())
}
