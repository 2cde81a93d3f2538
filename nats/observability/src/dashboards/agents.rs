//! Who carries out what, how long it takes, what goes wrong.

use super::{Dashboard, SLOW_TASKS, quantile};
use crate::limits;
use crate::panel::Panel;

pub(super) fn dashboard() -> Dashboard {
    Dashboard {
        slug: "agents",
        title: "Agents",
        description: "Who carries out what, how long it takes, and what goes wrong there.",
        panels: vec![
            status(),
            slots(),
            outcomes(),
            run_time(),
            attempts(),
            lost(),
            silence(),
            running(),
        ],
    }
}

fn status() -> Panel {
    Panel::areas(
        "Agents",
        "By status. Lost ones were not heard for 45 seconds: `conductor agent list --all` says which.",
    )
    .query(
        "{{status}}",
        r#"max by (status) (conductor_agents{cell="$cell"})"#,
    )
}

fn slots() -> Panel {
    Panel::lines(
        "Slots",
        "What agents that are up offer, and what is used of it. Both alike while tasks wait: more agents. \
         Apart while tasks wait: they ask for labels or keys that nobody has free.",
    )
    .query("offered", r#"max(conductor_slots{cell="$cell"})"#)
    .query("used", r#"max(conductor_slots_used{cell="$cell"})"#)
}

fn outcomes() -> Panel {
    Panel::areas(
        "Attempts that ended, per second, by outcome",
        "One class of failure points at one cause: auth, rate_limited, oom, not_started, heartbeat_lost …",
    )
    .query(
        "{{outcome}}",
        r#"sum by (outcome) (rate(conductor_attempt_run_seconds_count{cell="$cell"}[$__rate_interval]))"#,
    )
    .unit("cps")
}

fn run_time() -> Panel {
    let metric = "conductor_attempt_run_seconds";
    Panel::lines(
        "From begun to ended",
        "How long attempts run. Each dot leads to the trace of a task.",
    )
    .query("p50", quantile(0.5, metric, "", ""))
    .query("p95", quantile(0.95, metric, "", ""))
    .query_with_exemplars("p99", quantile(0.99, metric, "", ""))
    .unit("s")
    .link("Tasks this slow in Jaeger", SLOW_TASKS)
}

fn attempts() -> Panel {
    Panel::lines(
        "Attempts and retries per second",
        "Many retries: infrastructure breaks, or tasks ask for them.",
    )
    .query(
        "attempts",
        r#"max(rate(conductor_attempts_total{cell="$cell"}[$__rate_interval]))"#,
    )
    .query(
        "retries",
        r#"max(rate(conductor_retries_total{cell="$cell"}[$__rate_interval]))"#,
    )
    .unit("cps")
}

fn lost() -> Panel {
    Panel::lines(
        "Lost, in 15 minutes",
        "Agents declared lost, and attempts that ended because agent or heartbeat was lost. Attempts \
         without agents: they hang on agents that live. Those that an agent gave up because it was told \
         to end are no loss: give it a longer `--drain-timeout`.",
    )
    .query(
        "agents",
        r#"max(increase(conductor_agents_lost_total{cell="$cell"}[15m]))"#,
    )
    .query(
        "attempts",
        r#"sum(increase(conductor_leases_lost_total{cell="$cell"}[15m]))"#,
    )
    .query(
        "given up",
        r#"sum(increase(conductor_attempts_given_up_total{cell="$cell"}[15m]))"#,
    )
    .red_from(limits::LEASES_LOST as f64)
}

fn silence() -> Panel {
    Panel::lines(
        "Longest silence of an agent",
        "Heartbeats come every 15 seconds; 45 without one end an agent. High for longer: nobody is heard.",
    )
    .query("", r#"max(conductor_presence_age_seconds{cell="$cell"})"#)
    .unit("s")
    .red_from(limits::PRESENCE_S)
}

fn running() -> Panel {
    Panel::areas(
        "Attempts that run, by process",
        "As the processes with agents count them.",
    )
    .query(
        "{{instance}}",
        r#"sum by (instance) (conductor_attempts_running{cell="$cell"})"#,
    )
}
