//! Do tasks come in, get their turn, and succeed?

use super::{Alert, Group, Runbook, Severity, Story};
use crate::limits;
use crate::promql::grown;

pub(super) fn group() -> Group {
    Group {
        name: "conductor-tasks",
        alerts: vec![
            backlog_grows(),
            oldest_waits(),
            queue_paused(),
            failure_ratio(),
            dead_letters(),
            rejected(),
        ],
    }
}

fn backlog_grows() -> Alert {
    Alert {
        name: "ConductorBacklogGrows",
        severity: Severity::Warning,
        expr: format!(
            "deriv(max by (cell, queue) (conductor_queue_backlog)[30m:1m]) * 3600\n    \
             > {growth} * max by (cell, queue) (conductor_queue_backlog)\n\
             and max by (cell, queue) (conductor_queue_backlog) > {min}\n\
             unless max by (cell, queue) (conductor_queue_paused) == 1",
            growth = limits::BACKLOG_GROWTH_PER_HOUR,
            min = limits::BACKLOG_MIN,
        ),
        lasts: "15m",
        summary: "Queue {{ $labels.queue }} of cell {{ $labels.cell }} fills faster than it is worked off",
        description: "Queue {{ $labels.queue }} of cell {{ $labels.cell }} grows by {{ $value | humanize }} \
                      tasks an hour, more than half of what waits there.",
        runbook: Runbook {
            means: "More comes in than the agents carry out. Tasks are not lost, they wait longer.",
            look: "`conductor queue list`; `conductor why <task>` for one of those that wait; slots used \
                   and agents lost (dashboard \"Agents\"). All slots used: too few agents. Slots free: \
                   labels that no agent has, a concurrency key at its limit, needs that do not end.",
            act: "Start more agents or slots (`conductor agent --slots 8`), or hold back what submits. \
                  A queue that must not wait gets more weight: `conductor config put`.",
        },
        fires: Story {
            series: &[
                r#"conductor_queue_backlog{cell="local",instance="o1:9090",queue="default"} 200+10x140"#,
            ],
            at: "60m",
        },
        labels: &[("cell", "local"), ("queue", "default")],
        value: "1.2k",
        quiet: Story {
            // It grew as fast, and is paused; another one is large and stays as it is.
            series: &[
                r#"conductor_queue_backlog{cell="local",instance="o1:9090",queue="held"} 200+10x140"#,
                r#"conductor_queue_paused{cell="local",instance="o1:9090",queue="held"} 1+0x140"#,
                r#"conductor_queue_backlog{cell="local",instance="o1:9090",queue="night"} 50000+0x140"#,
                r#"conductor_queue_paused{cell="local",instance="o1:9090",queue="night"} 0+0x140"#,
            ],
            at: "60m",
        },
    }
}

fn oldest_waits() -> Alert {
    Alert {
        name: "ConductorTaskWaitsLong",
        severity: Severity::Warning,
        expr: format!(
            "max by (cell, queue) (conductor_queue_oldest_seconds) > {}\n\
             unless max by (cell, queue) (conductor_queue_paused) == 1",
            limits::OLDEST_S
        ),
        lasts: "5m",
        summary: "A ready task of queue {{ $labels.queue }} of cell {{ $labels.cell }} waits too long",
        description: "The task of queue {{ $labels.queue }} of cell {{ $labels.cell }} that has waited \
                      longest has been ready for {{ $value | humanizeDuration }}.",
        runbook: Runbook {
            means: "Either there is no room, or no agent may run this very task: its labels, its runtime, \
                    its slots or its concurrency key keep it waiting, while others pass.",
            look: "`conductor task list --queue <queue> --state ready`, then `conductor why <task>`: it \
                   says in one sentence what the task waits for. `conductor agent list` for labels and \
                   free slots.",
            act: "Start an agent with the labels and slots it needs, correct the task (`conductor task \
                  cancel <task>`, then submit it anew), or raise the limit of its key. Where waiting is \
                  meant to be long, raise the threshold of this alert.",
        },
        fires: Story {
            series: &[
                r#"conductor_queue_oldest_seconds{cell="local",instance="o1:9090",queue="default"} 0+30x80"#,
            ],
            at: "30m",
        },
        labels: &[("cell", "local"), ("queue", "default")],
        value: "30m 0s",
        quiet: Story {
            series: &[
                r#"conductor_queue_oldest_seconds{cell="local",instance="o1:9090",queue="default"} 880+0x80"#,
                r#"conductor_queue_oldest_seconds{cell="local",instance="o1:9090",queue="held"} 5000+30x80"#,
                r#"conductor_queue_paused{cell="local",instance="o1:9090",queue="held"} 1+0x80"#,
            ],
            at: "30m",
        },
    }
}

fn queue_paused() -> Alert {
    Alert {
        name: "ConductorQueuePaused",
        severity: Severity::Info,
        expr: "max by (cell, queue) (conductor_queue_backlog) > 0\n\
               and on (cell, queue) max by (cell, queue) (conductor_queue_paused) == 1"
            .to_owned(),
        lasts: "1h",
        summary: "Queue {{ $labels.queue }} of cell {{ $labels.cell }} is paused, and tasks wait there",
        description: "{{ $value }} task(s) wait in queue {{ $labels.queue }} of cell {{ $labels.cell }}, \
                      which has been paused for an hour.",
        runbook: Runbook {
            means: "Somebody held the queue and has not let it go.",
            look: "`conductor queue list`; who paused it stands in the log: `conductor log tail -n 500`.",
            act: "`conductor queue resume <queue>`, or leave it if it is meant to be so.",
        },
        fires: Story {
            series: &[
                r#"conductor_queue_backlog{cell="local",instance="o1:9090",queue="held"} 7+0x160"#,
                r#"conductor_queue_paused{cell="local",instance="o1:9090",queue="held"} 1+0x160"#,
            ],
            at: "70m",
        },
        labels: &[("cell", "local"), ("queue", "held")],
        value: "7",
        quiet: Story {
            series: &[
                r#"conductor_queue_backlog{cell="local",instance="o1:9090",queue="held"} 7+0x160"#,
                r#"conductor_queue_paused{cell="local",instance="o1:9090",queue="held"} 1+0x100 0+0x60"#,
            ],
            at: "70m",
        },
    }
}

fn failure_ratio() -> Alert {
    let failed = grown("tasks_failed", "cell", "", "15m");
    let succeeded = grown("tasks_completed", "cell", "", "15m");
    Alert {
        name: "ConductorTasksFail",
        severity: Severity::Warning,
        expr: format!(
            "({failed})\n/ (({failed})\n   + ({succeeded}))\n> {ratio}\n\
             and on (cell) ({failed}) >= {min}",
            ratio = limits::FAILURE_RATIO,
            min = limits::FAILURES_MIN,
        ),
        lasts: "5m",
        summary: "Many tasks of cell {{ $labels.cell }} fail",
        description: "Of the tasks of cell {{ $labels.cell }} that ended in the last 15 minutes \
                      {{ $value | humanizePercentage }} failed or timed out.",
        runbook: Runbook {
            means: "What tasks run fails, or agents cannot run it. Cancelled tasks do not count.",
            look: "by what they end (dashboard \"Agents\", attempts by outcome): one class points at one \
                   cause, such as auth, rate_limited, oom, not_started. `conductor task list --all \
                   --state failed`, `conductor task show <task>`, `conductor task logs <task>`.",
            act: "Mend the cause; if it is one agent, `conductor agent drain <agent>`. Then run again \
                  what failed: `conductor queue redrive <queue>`, or `conductor task retry <task>`.",
        },
        fires: Story {
            series: &[
                r#"tasks_failed{cell="local",instance="o1:9090"} 5+1x100"#,
                r#"tasks_completed{cell="local",instance="o1:9090"} 100+1x100"#,
            ],
            at: "45m",
        },
        labels: &[("cell", "local")],
        value: "50%",
        quiet: Story {
            // One in eleven; and a process that starts and reads all history once more.
            series: &[
                r#"tasks_failed{cell="local",instance="o1:9090"} 5000+1x60 100 5062+1x40"#,
                r#"tasks_completed{cell="local",instance="o1:9090"} 10000+10x60 200 10620+10x40"#,
            ],
            at: "45m",
        },
    }
}

fn dead_letters() -> Alert {
    Alert {
        name: "ConductorDeadLetters",
        severity: Severity::Warning,
        expr: format!(
            "max by (cell) (conductor_dead_letters) > {}",
            limits::DEAD_LETTERS
        ),
        lasts: "30m",
        summary: "Dead letters pile up in cell {{ $labels.cell }}",
        description: "{{ $value }} tasks of cell {{ $labels.cell }} ended otherwise than asked for and can \
                      be run again.",
        runbook: Runbook {
            means: "Nobody has looked at what failed. They can be run again only while they are kept: the \
                    last 10,000 ended tasks, for a day, unless the settings say otherwise.",
            look: "`conductor queue list`: which queue has them; `conductor task list --all --state \
                   failed`; `conductor task show <task>`.",
            act: "Run them again with `conductor queue redrive <queue>` once the cause is gone, or let \
                  them expire. To keep them for longer: `conductor config put \
                  '{\"finished_retention\": \"72h\"}'`.",
        },
        fires: Story {
            series: &[r#"conductor_dead_letters{cell="local",instance="o1:9090"} 150+0x120"#],
            at: "40m",
        },
        labels: &[("cell", "local")],
        value: "150",
        quiet: Story {
            // Seen to within half an hour.
            series: &[r#"conductor_dead_letters{cell="local",instance="o1:9090"} 150+0x40 3+0x80"#],
            at: "40m",
        },
    }
}

fn rejected() -> Alert {
    let rejected = grown("conductor_tasks_rejected_total", "cell", "", "15m");
    let submitted = grown("conductor_tasks_submitted_total", "cell", "", "15m");
    Alert {
        name: "ConductorSubmissionsRejected",
        severity: Severity::Warning,
        expr: format!(
            "({rejected})\n/ ({submitted})\n> {ratio}\nand on (cell) ({rejected}) >= {min}",
            ratio = limits::REJECTED_RATIO,
            min = limits::FAILURES_MIN,
        ),
        lasts: "5m",
        summary: "Cell {{ $labels.cell }} rejects what is submitted",
        description: "{{ $value | humanizePercentage }} of what was submitted to cell {{ $labels.cell }} in \
                      the last 15 minutes was rejected.",
        runbook: Runbook {
            means: "Submissions are malformed, need something that does not exist, or meet a full \
                    backlog. The submitter is told only if it asked for a reply.",
            look: "`conductor log tail -n 200`: task.rejected says what is wrong, field by field; \
                   `conductor config get` for backlog_max.",
            act: "Tell whoever submits. If the backlog is full, see ConductorBacklogGrows, or raise the \
                  cap: `conductor config put '{\"backlog_max\": 4000000}'`.",
        },
        fires: Story {
            series: &[
                r#"conductor_tasks_rejected_total{cell="local",instance="o1:9090"} 0+1x100"#,
                r#"conductor_tasks_submitted_total{cell="local",instance="o1:9090"} 0+4x100"#,
            ],
            at: "45m",
        },
        labels: &[("cell", "local")],
        value: "25%",
        quiet: Story {
            series: &[
                r#"conductor_tasks_rejected_total{cell="local",instance="o1:9090"} 0+1x100"#,
                r#"conductor_tasks_submitted_total{cell="local",instance="o1:9090"} 0+20x100"#,
            ],
            at: "45m",
        },
    }
}
