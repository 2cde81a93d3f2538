//! What waits, for how long, and what becomes of what is submitted.

use super::{Dashboard, SLOW_TASKS, quantile};
use crate::limits;
use crate::panel::Panel;

pub(super) fn dashboard() -> Dashboard {
    Dashboard {
        slug: "queues",
        title: "Queues",
        description: "What waits, for how long, and what becomes of what is submitted.",
        panels: vec![
            now(),
            backlog(),
            oldest(),
            wait(),
            submitted(),
            ended(),
            again(),
        ],
    }
}

fn now() -> Panel {
    Panel::table(
        "Queues now",
        "What waits in each queue. At most a hundred are told apart; the rest is `_other`. Held ones go on \
         with `conductor queue resume <queue>`.",
    )
    .query(
        "Waiting",
        r#"max by (queue) (conductor_queue_backlog{cell="$cell"})"#,
    )
    .query(
        "Longest wait",
        r#"max by (queue) (conductor_queue_oldest_seconds{cell="$cell"})"#,
    )
    .query(
        "Held",
        r#"max by (queue) (conductor_queue_paused{cell="$cell"})"#,
    )
    .unit_of("Longest wait", "s")
    .unit_of("Held", "bool_yes_no")
}

fn backlog() -> Panel {
    Panel::areas(
        "Tasks that wait, by queue",
        "The twenty longest queues. One that only grows gets more than agents carry out.",
    )
    .query(
        "{{queue}}",
        r#"topk(20, max by (queue) (conductor_queue_backlog{cell="$cell"}))"#,
    )
}

fn oldest() -> Panel {
    Panel::lines(
        "Longest wait of a ready task, by queue",
        "A line that climbs as fast as time passes is a task that nobody takes: `conductor why <task>` says \
         what it waits for.",
    )
    .query(
        "{{queue}}",
        r#"topk(20, max by (queue) (conductor_queue_oldest_seconds{cell="$cell"}))"#,
    )
    .unit("s")
    .red_from(limits::OLDEST_S)
}

fn wait() -> Panel {
    let metric = "conductor_task_wait_seconds";
    Panel::lines(
        "From ready to begun",
        "How long tasks wait for an agent. Of those that began: what still waits is in the panel before.",
    )
    .query("p50", quantile(0.5, metric, "", ""))
    .query("p95", quantile(0.95, metric, "", ""))
    .query_with_exemplars("p99", quantile(0.99, metric, "", ""))
    .unit("s")
    .link("Tasks this slow in Jaeger", SLOW_TASKS)
}

fn submitted() -> Panel {
    let rate = |name| format!("max(rate({name}{{cell=\"$cell\"}}[$__rate_interval]))");
    Panel::lines(
        "Submitted per second",
        "What becomes of submissions. Rejected ones: `conductor log tail` says what is wrong with them, \
         field by field.",
    )
    .query("submitted", rate("conductor_tasks_submitted_total"))
    .query("accepted", rate("tasks_total"))
    .query("rejected", rate("conductor_tasks_rejected_total"))
    .query("duplicate", rate("conductor_tasks_duplicate_total"))
    .unit("cps")
}

fn ended() -> Panel {
    Panel::areas("Ended per second, by outcome", "How tasks end.")
        .query(
            "{{outcome}}",
            r#"max by (outcome) (rate(conductor_tasks_finished_total{cell="$cell"}[$__rate_interval]))"#,
        )
        .unit("cps")
}

fn again() -> Panel {
    Panel::lines(
        "Ended so far, and dead letters",
        "Since the log began. Dead letters can be run again with `conductor queue redrive <queue>` while \
         they are kept; they fall when that is done, or when they expire.",
    )
    .query("succeeded", r#"max(tasks_completed{cell="$cell"})"#)
    .query("failed or timed out", r#"max(tasks_failed{cell="$cell"})"#)
    .query("dead letters", r#"max(conductor_dead_letters{cell="$cell"})"#)
}
