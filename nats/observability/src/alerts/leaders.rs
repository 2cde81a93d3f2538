//! Is anybody there, and does exactly one of them lead each role?

use super::{Alert, Group, Runbook, Severity, Story};

pub(super) fn group() -> Group {
    Group {
        name: "conductor-leaders",
        alerts: vec![
            no_metrics(),
            nobody_decides(),
            no_leader(),
            two_leaders(),
            elections_repeat(),
        ],
    }
}

fn no_metrics() -> Alert {
    Alert {
        name: "ConductorNoMetrics",
        severity: Severity::Critical,
        // Every process serves this one. Without it all other alerts are blind, and silent.
        expr: "absent(conductor_build_info)".to_owned(),
        lasts: "5m",
        summary: "No process of Conductor is scraped",
        description: "Prometheus has seen no metrics of any cell for five minutes.",
        runbook: Runbook {
            means: "Either everything is down, or Prometheus does not reach it. No other alert can fire.",
            look: "the targets page of Prometheus; `conductor doctor`, which goes through NATS and not \
                   through Prometheus.",
            act: "If `conductor doctor` is content, repair the scrape configuration (every role serves \
                  :9090/metrics). Otherwise start what is missing: `conductor orchestrator`, \
                  `conductor scheduler`, `conductor agent`.",
        },
        fires: Story {
            series: &[r#"up{job="conductor",instance="o1:9090"} 0+0x60"#],
            at: "6m",
        },
        labels: &[],
        value: "1",
        quiet: Story {
            series: &[
                r#"conductor_build_info{cell="local",instance="o1:9090",version="0.1.0"} 1+0x60"#,
            ],
            at: "6m",
        },
    }
}

fn nobody_decides() -> Alert {
    Alert {
        name: "ConductorNobodyDecides",
        severity: Severity::Critical,
        // Figures of the cell come from processes with a replica: orchestrators and schedulers.
        expr: "count by (cell) (conductor_build_info)\n  unless on (cell) max by (cell) (pending_tasks)"
            .to_owned(),
        lasts: "2m",
        summary: "Cell {{ $labels.cell }} has neither orchestrator nor scheduler",
        description: "{{ $value }} process(es) of cell {{ $labels.cell }} are scraped, none of which \
                      holds its state.",
        runbook: Runbook {
            means: "Agents finish what they run; nothing is accepted, assigned or retried. Submissions \
                    that NATS acknowledges are kept in the log.",
            look: "`conductor doctor`: it says who leads each role; then the logs of orchestrator and \
                   scheduler, or of what should have started them.",
            act: "Start them: `conductor orchestrator`, `conductor scheduler`. They continue where the \
                  log stands. If they run, Prometheus does not scrape them: repair that.",
        },
        fires: Story {
            series: &[
r#"conductor_build_info{cell="local",instance="a1:9090",version="0.1.0"} 1+0x60"#,
],
            at: "5m",
        },
        labels: &[("cell", "local")],
        value: "1",
        quiet: Story {
            series: &[
r#"conductor_build_info{cell="local",instance="a1:9090",version="0.1.0"} 1+0x60"#,
r#"pending_tasks{cell="local",instance="o1:9090"} 0+0x60"#,
],
            at: "5m",
        },
    }
}

fn no_leader() -> Alert {
    Alert {
        name: "ConductorNoLeader",
        severity: Severity::Critical,
        // The epoch is known to every replica: it names the role even when all processes of the
        // role, and their `conductor_is_leader` with them, are gone.
        expr: "(\n    max by (cell, role) (conductor_leader_epoch)\n    \
               or max by (cell, role) (conductor_is_leader)\n)\n\
               unless on (cell, role) sum by (cell, role) (conductor_is_leader) > 0"
            .to_owned(),
        lasts: "1m",
        summary: "Nobody leads the {{ $labels.role }} of cell {{ $labels.cell }}",
        description: "For a minute no process has led the {{ $labels.role }} of cell \
                      {{ $labels.cell }}; a takeover takes a few seconds.",
        runbook: Runbook {
            means: "Without an orchestrator nothing is accepted, retried or ended; without a scheduler \
                    nothing is assigned. What runs goes on, and the log keeps what comes in.",
            look: "`conductor doctor`: which role is not led, and whether NATS and the log are sound; \
                   the logs of that role's processes: do they run, do they reach NATS, do they catch \
                   up (dashboard \"Log and readers\")?",
            act: "Start one more process of the role: `conductor orchestrator` or `conductor \
                  scheduler`. If several run and none leads, the LOCKS or the log stream does not take \
                  writes: see to NATS (quorum, disk). Restarting a process of the role is always safe. \
                  With a `--lock-ttl` near a minute a takeover takes as long: give this alert a longer `for`.",
        },
        fires: Story {
            // The scheduler is gone; the orchestrator knows of its role.
            series: &[
                r#"conductor_leader_epoch{cell="local",instance="o1:9090",role="orchestrator"} 12+0x60"#,
                r#"conductor_leader_epoch{cell="local",instance="o1:9090",role="scheduler"} 15+0x60"#,
                r#"conductor_is_leader{cell="local",instance="o1:9090",role="orchestrator"} 1+0x60"#,
                r#"conductor_is_leader{cell="local",instance="s1:9090",role="scheduler"} 1+0x5 stale"#,
            ],
            at: "10m",
        },
        labels: &[("cell", "local"), ("role", "scheduler")],
        value: "15",
        quiet: Story {
            // A takeover: half a minute without anybody.
            series: &[
                r#"conductor_leader_epoch{cell="local",instance="s1:9090",role="scheduler"} 15+0x10 90+0x50"#,
                r#"conductor_is_leader{cell="local",instance="s1:9090",role="scheduler"} 1+0x10 0+0x50"#,
                r#"conductor_is_leader{cell="local",instance="s2:9090",role="scheduler"} 0+0x11 1+0x49"#,
            ],
            at: "6m",
        },
    }
}

fn two_leaders() -> Alert {
    Alert {
        name: "ConductorTwoLeaders",
        severity: Severity::Warning,
        expr: "sum by (cell, role) (conductor_is_leader) > 1".to_owned(),
        // A lock lives for at most a minute (`--lock-ttl`).
        lasts: "2m",
        summary: "{{ $value }} processes believe that they lead the {{ $labels.role }} of cell \
                  {{ $labels.cell }}",
        description: "{{ $value }} processes have claimed the {{ $labels.role }} of cell \
                      {{ $labels.cell }} for two minutes: longer than any lock lives.",
        runbook: Runbook {
            means: "The log is not at risk: decisions under an older epoch are void. But the older \
                    leader should have read of the newer one; its tail stands still, or the two \
                    follow different logs under the name of one cell.",
            look: "`conductor doctor`: which process says that it leads; `conductor replay --void`: \
                   are there events void as stale_epoch; the tail lag of both processes (dashboard \
                   \"Log and readers\"), and which servers each is connected to.",
            act: "Restart the process with the older epoch. If both are connected to different NATS \
                  clusters, stop one of them at once: their logs diverge.",
        },
        fires: Story {
            series: &[
                r#"conductor_is_leader{cell="local",instance="o1:9090",role="orchestrator"} 1+0x60"#,
                r#"conductor_is_leader{cell="local",instance="o2:9090",role="orchestrator"} 0+0x4 1+0x56"#,
            ],
            at: "10m",
        },
        labels: &[("cell", "local"), ("role", "orchestrator")],
        value: "2",
        quiet: Story {
            // A takeover: for a minute both were seen to lead.
            series: &[
                r#"conductor_is_leader{cell="local",instance="o1:9090",role="orchestrator"} 1+0x6 0+0x54"#,
                r#"conductor_is_leader{cell="local",instance="o2:9090",role="orchestrator"} 0+0x4 1+0x56"#,
            ],
            at: "3m30s",
        },
    }
}

fn elections_repeat() -> Alert {
    Alert {
        name: "ConductorElectionsRepeat",
        severity: Severity::Warning,
        expr: "changes(max by (cell, role) (conductor_leader_epoch)[15m:30s]) >= 4".to_owned(),
        lasts: "1m",
        summary: "The {{ $labels.role }} of cell {{ $labels.cell }} changes its leader again and again",
        description: "{{ $value }} elections of the {{ $labels.role }} of cell {{ $labels.cell }} \
                      within 15 minutes.",
        runbook: Runbook {
            means: "Leaders lose their lock although they live: they do not get to renew it in time. \
                    Every change costs a few seconds in which nobody decides.",
            look: "round trips, reconnects and CPU of the role's processes (dashboard \"NATS and \
                   processes\"); append latency; `conductor log tail -n 200` for the elections.",
            act: "Give the processes and the server the CPU or disk they lack, or a longer lock: \
                  `conductor orchestrator --lock-ttl 15s`, `conductor scheduler --lock-ttl 15s`. If \
                  processes restart, see ConductorRestartsOften.",
        },
        fires: Story {
            series: &[
                r#"conductor_leader_epoch{cell="local",instance="o1:9090",role="orchestrator"} 10+0x4 20+0x4 30+0x4 40+0x4 50+0x20"#,
            ],
            at: "13m",
        },
        labels: &[("cell", "local"), ("role", "orchestrator")],
        value: "4",
        quiet: Story {
            series: &[
                r#"conductor_leader_epoch{cell="local",instance="o1:9090",role="orchestrator"} 10+0x4 20+0x40"#,
            ],
            at: "13m",
        },
    }
}
