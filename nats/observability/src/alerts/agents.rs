//! Are there agents, are they heard, and do they keep what they were given?

use super::{Alert, Group, Runbook, Severity, Story};
use crate::limits;
use crate::promql::grown;

pub(super) fn group() -> Group {
    Group {
        name: "conductor-agents",
        alerts: vec![no_agents(), agent_lost(), leases_lost(), presence_silent()],
    }
}

fn no_agents() -> Alert {
    Alert {
        name: "ConductorNoAgents",
        severity: Severity::Critical,
        // Ready tasks, not pending ones: a task for tomorrow needs no agent today. Nor does one
        // of a queue that somebody holds.
        expr: "max by (cell) (\n  max by (cell, queue) (conductor_queue_oldest_seconds)\n  \
               unless max by (cell, queue) (conductor_queue_paused) == 1\n) > 0\n\
               and on (cell) max by (cell) (workers_active) == 0"
            .to_owned(),
        lasts: "5m",
        summary: "Cell {{ $labels.cell }} has no agent, and tasks wait",
        description: "No agent of cell {{ $labels.cell }} is up; a task has been ready for \
                      {{ $value | humanizeDuration }}.",
        runbook: Runbook {
            means: "Nothing runs until an agent joins.",
            look: "`conductor agent list --all`: which there were, and whether they left or were lost; \
                   the logs of their hosts.",
            act: "Start agents: `conductor agent --slots 8`. If their processes run, they do not reach \
                  NATS, or do not catch up: their logs say which.",
        },
        fires: Story {
            series: &[
                r#"conductor_queue_oldest_seconds{cell="local",instance="o1:9090",queue="default"} 0+30x60"#,
                r#"workers_active{cell="local",instance="o1:9090"} 0+0x60"#,
            ],
            at: "10m",
        },
        labels: &[("cell", "local")],
        value: "10m 0s",
        quiet: Story {
            // No agent, and all that is ready is in a queue that is held.
            series: &[
                r#"conductor_queue_oldest_seconds{cell="local",instance="o1:9090",queue="held"} 0+30x60"#,
                r#"conductor_queue_paused{cell="local",instance="o1:9090",queue="held"} 1+0x60"#,
                r#"workers_active{cell="local",instance="o1:9090"} 0+0x60"#,
            ],
            at: "10m",
        },
    }
}

fn agent_lost() -> Alert {
    Alert {
        name: "ConductorAgentLost",
        severity: Severity::Warning,
        expr: format!(
            "{} > 0",
            grown("conductor_agents_lost_total", "cell", "", "15m")
        ),
        lasts: "30s",
        summary: "Cell {{ $labels.cell }} lost an agent",
        description: "{{ $value }} agent(s) of cell {{ $labels.cell }} were declared lost in the last 15 \
                      minutes.",
        runbook: Runbook {
            means: "No heartbeat of it came for 45 seconds: its process or host died, hangs, or lost the \
                    network. Its attempts ended as agent_lost and are retried where the policy allows.",
            look: "`conductor agent list --all`: which one; its log and its host; \
                   `conductor agent show <agent>`.",
            act: "If the host is gone, start the agent elsewhere. One that comes back joins by itself. \
                  One that is lost again and again: `conductor agent drain <agent>`, then see to its \
                  memory, CPU and network.",
        },
        fires: Story {
            series: &[
                r#"conductor_agents_lost_total{cell="local",instance="o1:9090"} 3+0x70 4+0x50"#,
            ],
            at: "40m",
        },
        labels: &[("cell", "local")],
        value: "1",
        quiet: Story {
            // Lost long ago; and two processes that start and read of it.
            series: &[
                r#"conductor_agents_lost_total{cell="local",instance="o1:9090"} 4+0x50 0 2 4+0x70"#,
                r#"conductor_agents_lost_total{cell="local",instance="s1:9090"} _x70 0 4+0x50"#,
            ],
            at: "40m",
        },
    }
}

fn leases_lost() -> Alert {
    Alert {
        name: "ConductorLeasesLost",
        severity: Severity::Warning,
        expr: format!(
            "sum by (cell) (increase(conductor_leases_lost_total[15m])) >= {}",
            limits::LEASES_LOST
        ),
        lasts: "1m",
        summary: "Attempts of cell {{ $labels.cell }} lose their agent or their heartbeat",
        description: "{{ $value | printf \"%.0f\" }} attempts of cell {{ $labels.cell }} ended in the last 15 \
                      minutes because agent or heartbeat was lost.",
        runbook: Runbook {
            means: "Work that had begun is done again, and side effects of the first try may have \
                    happened. With ConductorAgentLost: that agent's attempts. Without: attempts hang on \
                    agents that live, or agents are too busy to say that they live.",
            look: "`conductor replay --task <task>` for one of them: agent.lost or attempt.timed_out, and why; \
                   CPU and memory of the agents' hosts; outcome classes agent_lost and heartbeat_lost (dashboard \
                   \"Agents\").",
            act: "Fewer slots on agents that are too busy. For work that is silent for long: a longer \
                  `heartbeat` in its timeouts (`conductor submit --timeout-heartbeat 5m`).",
        },
        fires: Story {
            series: &[
                r#"conductor_leases_lost_total{cell="local",instance="o1:9090"} 0+0x20 0+1x60"#,
            ],
            at: "30m",
        },
        labels: &[("cell", "local")],
        value: "30",
        quiet: Story {
            series: &[
                r#"conductor_leases_lost_total{cell="local",instance="o1:9090"} 0+0x20 1+0x60"#,
            ],
            at: "20m",
        },
    }
}

fn presence_silent() -> Alert {
    Alert {
        name: "ConductorPresenceSilent",
        severity: Severity::Warning,
        expr: format!(
            "max by (cell) (conductor_presence_age_seconds) > {}",
            limits::PRESENCE_S
        ),
        // A single agent is declared lost before that; then nobody is silent any more.
        lasts: "1m",
        summary: "Heartbeats of cell {{ $labels.cell }} are not heard",
        description: "An agent of cell {{ $labels.cell }} that counts as up has not been heard of for \
                      {{ $value | humanizeDuration }}; heartbeats come every 15 seconds.",
        runbook: Runbook {
            means: "One agent that falls silent is lost after 45 seconds, and this is over. If it lasts, \
                    the orchestrator hears nobody: while heartbeats cannot be heard no agent is declared \
                    lost, so one that really dies is not noticed.",
            look: "`conductor doctor`; the PRESENCE stream (dashboard \"NATS and processes\"): does it \
                   still grow; the log of the leading orchestrator.",
            act: "See to NATS. If the stream is sound and others hear it, restart the leading \
                  orchestrator; another takes over within seconds.",
        },
        fires: Story {
            series: &[r#"conductor_presence_age_seconds{cell="local",instance="o1:9090"} 5+30x20"#],
            at: "4m",
        },
        labels: &[("cell", "local")],
        value: "4m 5s",
        quiet: Story {
            // One agent that dies: silent, then lost.
            series: &[
                r#"conductor_presence_age_seconds{cell="local",instance="o1:9090"} 5 10 14 42 9 3 12+0x20"#,
            ],
            at: "2m",
        },
    }
}
