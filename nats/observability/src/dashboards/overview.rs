//! Is the system well? Twelve lamps, then how much it does.

use super::{Dashboard, SLOW_TASKS, quantile};
use crate::limits;
use crate::panel::Panel;

pub(super) fn dashboard() -> Dashboard {
    let mut panels = lamps();
    panels.extend(more_lamps());
    panels.extend(curves());
    Dashboard {
        slug: "overview",
        title: "Overview",
        description: "Is the system well? All lamps green: yes.",
        panels,
    }
}

fn lamps() -> Vec<Panel> {
    vec![
        Panel::stat(
            "Leaders",
            "One process leads each role. None: nothing is decided; `conductor doctor` says more. Two for \
             longer than a takeover: see the alert ConductorTwoLeaders.",
        )
        .query(
            "orchestrator",
            r#"sum(conductor_is_leader{cell="$cell",role="orchestrator"}) or vector(0)"#,
        )
        .query(
            "scheduler",
            r#"sum(conductor_is_leader{cell="$cell",role="scheduler"}) or vector(0)"#,
        )
        .word(0, "nobody")
        .word(1, "leads")
        .word(2, "two lead")
        .red_below(1.0)
        .orange_from(2.0),
        Panel::stat(
            "Tasks that wait",
            "Accepted and neither assigned nor ended. By itself no sign of trouble; whether it grows, the \
             curve below says.",
        )
        .query("", r#"max(pending_tasks{cell="$cell"})"#),
        Panel::stat(
            "Longest wait",
            "How long a task has been ready without an agent taking it; paused queues do not count. Then: \
             dashboard Queues, `conductor why <task>`.",
        )
        .query(
            "",
            r#"max(
  max by (queue) (conductor_queue_oldest_seconds{cell="$cell"})
  unless max by (queue) (conductor_queue_paused{cell="$cell"}) == 1
) or vector(0)"#,
        )
        .unit("s")
        .orange_from(limits::OLDEST_S / 3.0)
        .red_from(limits::OLDEST_S),
        Panel::stat(
            "Failed, last 15 min",
            "Part of the tasks that ended which failed or timed out. Cancelled ones do not count. Then: \
             dashboard Agents, `conductor task list --all --state failed`.",
        )
        .query(
            "",
            r#"sum(max by (outcome) (increase(conductor_tasks_finished_total{cell="$cell",outcome=~"failed|timed_out"}[15m])))
/ (sum(max by (outcome) (increase(conductor_tasks_finished_total{cell="$cell",outcome!="cancelled"}[15m]))) > 0)
or vector(0)"#,
        )
        .unit("percentunit")
        .orange_from(limits::FAILURE_RATIO / 2.0)
        .red_from(limits::FAILURE_RATIO),
        Panel::stat(
            "Dead letters",
            "Ended tasks that can be run again: `conductor queue redrive <queue>`.",
        )
        .query("", r#"max(conductor_dead_letters{cell="$cell"})"#)
        .orange_from(1.0)
        .red_from(limits::DEAD_LETTERS as f64),
        Panel::stat(
            "Firing alerts",
            "Of this cell, beside those of severity info. Which: the table below.",
        )
        .query(
            "",
            r#"count(ALERTS{alertname=~"Conductor.*",alertstate="firing",severity!="info",cell=~"$cell|"}) or vector(0)"#,
        )
        .red_from(1.0),
    ]
}

fn more_lamps() -> Vec<Panel> {
    vec![
        Panel::stat(
            "Agents",
            "Agents that are up, and those declared lost in the last 15 minutes. Then: dashboard Agents, \
             `conductor agent list --all`.",
        )
        .query("up", r#"max(workers_active{cell="$cell"})"#)
        .query(
            "lost",
            r#"max(increase(conductor_agents_lost_total{cell="$cell"}[15m]))"#,
        )
        .hue_of("up", "red", 1.0, "green")
        .hue_of("lost", "green", 0.5, "orange"),
        Panel::stat(
            "Slots used",
            "Of those that agents offer. All of them for long, while tasks wait: more agents.",
        )
        .query(
            "",
            r#"max(conductor_slots_used{cell="$cell"})
/ (max(conductor_slots{cell="$cell"}) > 0) or vector(0)"#,
        )
        .unit("percentunit")
        .orange_from(0.95),
        Panel::stat(
            "Lag of the slowest reader",
            "How far orchestrators and schedulers stand behind the end of the log. Then: dashboard Log and \
             readers.",
        )
        .query(
            "",
            r#"max(conductor_tail_lag_seconds{cell="$cell",reader!="projector"})"#,
        )
        .unit("s")
        .orange_from(limits::TAIL_LAG_S / 5.0)
        .red_from(limits::TAIL_LAG_S),
        Panel::stat(
            "Append (p99)",
            "How long until the log has it on disk, by the slowest writer. Everything waits for this.",
        )
        .query(
            "",
            format!(
                "max({}) or vector(0)",
                quantile(0.99, "conductor_append_seconds", "writer", "")
            ),
        )
        .unit("s")
        .orange_from(limits::APPEND_P99_S / 2.0)
        .red_from(limits::APPEND_P99_S),
        Panel::stat(
            "Processes without NATS",
            "Processes that are scraped and not connected. Then: dashboard NATS and processes.",
        )
        .query(
            "",
            r#"count(conductor_nats_connected{cell="$cell"} == 0) or vector(0)"#,
        )
        .red_from(1.0),
        Panel::stat(
            "Suspicious void events, last hour",
            "Written by somebody who may not, or not understood. `conductor replay --void` shows them. Void \
             events of other reasons are normal: two decided at once.",
        )
        .query(
            "",
            r#"sum(max by (reason) (increase(conductor_void_events_total{cell="$cell",reason=~"wrong_writer|malformed|unknown_kind|format_not_reached"}[1h]))) or vector(0)"#,
        )
        .red_from(0.5),
    ]
}

fn curves() -> Vec<Panel> {
    vec![
        Panel::lines(
            "Tasks per second",
            "What comes in and what ends. Accepted above ended for long: the backlog grows.",
        )
        .query("accepted", r#"max(rate(tasks_total{cell="$cell"}[$__rate_interval]))"#)
        .query(
            "{{outcome}}",
            r#"max by (outcome) (rate(conductor_tasks_finished_total{cell="$cell"}[$__rate_interval]))"#,
        )
        .unit("cps"),
        Panel::areas(
            "Tasks that wait, by queue",
            "The ten longest queues. Paused ones are among them.",
        )
        .query(
            "{{queue}}",
            r#"topk(10, max by (queue) (conductor_queue_backlog{cell="$cell"}))"#,
        ),
        Panel::lines(
            "From accepted to ended",
            "How long tasks take in all, waiting included. Each dot is a task: it leads to its trace. A \
             click on a line leads to Jaeger, to tasks that took at least as long.",
        )
        .query("p50", quantile(0.5, "task_duration_seconds", "", ""))
        .query("p95", quantile(0.95, "task_duration_seconds", "", ""))
        .query_with_exemplars("p99", quantile(0.99, "task_duration_seconds", "", ""))
        .unit("s")
        .link("Tasks this slow in Jaeger", SLOW_TASKS),
        Panel::table(
            "Alerts that fire",
            "Of this cell. The annotation `runbook` of each says what it means, what to look at, what to do.",
        )
        .query(
            "firing",
            r#"max by (severity, alertname, queue, role, reader, writer, reason, instance) (ALERTS{alertname=~"Conductor.*",alertstate="firing",cell=~"$cell|"})"#,
        )
        .hide(&["Value"])
        .no_value("none"),
    ]
}
