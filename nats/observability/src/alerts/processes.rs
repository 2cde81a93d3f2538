//! Are processes well: connected, exporting, not restarting, not out of files?

use super::{Alert, Group, Runbook, Severity, Story};
use crate::limits;

pub(super) fn group() -> Group {
    Group {
        name: "conductor-processes",
        alerts: vec![
            cell_disconnected(),
            disconnected(),
            nats_slow(),
            exports_fail(),
            spans_dropped(),
            traces_refused(),
            restarts_often(),
            files_run_out(),
            versions_differ(),
        ],
    }
}

fn cell_disconnected() -> Alert {
    Alert {
        name: "ConductorNatsUnreachable",
        severity: Severity::Critical,
        expr: "max by (cell) (conductor_nats_connected) == 0".to_owned(),
        lasts: "30s",
        summary: "No process of cell {{ $labels.cell }} is connected to NATS",
        description: "All processes of cell {{ $labels.cell }} that are scraped have lost NATS.",
        runbook: Runbook {
            means: "The servers are down or out of reach. Nothing is accepted, assigned or reported; what \
                    runs goes on, and its results are told once NATS is back.",
            look: "`conductor doctor`; are the servers up, have they quorum, is their disk full, have \
                   addresses, certificates or credentials changed?",
            act: "Bring the servers back. Processes reconnect by themselves and continue; restart none.",
        },
        fires: Story {
            series: &[
                r#"conductor_nats_connected{cell="local",instance="o1:9090"} 1+0x4 0+0x20"#,
                r#"conductor_nats_connected{cell="local",instance="a1:9090"} 1+0x4 0+0x20"#,
            ],
            at: "5m",
        },
        labels: &[("cell", "local")],
        value: "0",
        quiet: Story {
            series: &[
                r#"conductor_nats_connected{cell="local",instance="o1:9090"} 1+0x24"#,
                r#"conductor_nats_connected{cell="local",instance="a1:9090"} 1+0x4 0+0x20"#,
            ],
            at: "5m",
        },
    }
}

fn disconnected() -> Alert {
    Alert {
        name: "ConductorNatsDisconnected",
        severity: Severity::Warning,
        expr: "min by (cell, instance) (conductor_nats_connected) == 0".to_owned(),
        lasts: "1m",
        summary: "{{ $labels.instance }} of cell {{ $labels.cell }} has lost NATS",
        description: "The process {{ $labels.instance }} of cell {{ $labels.cell }} has not been connected to \
                      NATS for a minute.",
        runbook: Runbook {
            means: "It decides and reports nothing. A leader gives way to a standby; an agent is declared \
                    lost after 45 seconds.",
            look: "its log; the way from its host to the servers; whether others are connected \
                   (ConductorNatsUnreachable: none is).",
            act: "Repair the network, its URL or its credentials. It reconnects by itself.",
        },
        fires: Story {
            series: &[
                r#"conductor_nats_connected{cell="local",instance="o1:9090"} 1+0x24"#,
                r#"conductor_nats_connected{cell="local",instance="a1:9090"} 1+0x4 0+0x20"#,
            ],
            at: "5m",
        },
        labels: &[("cell", "local"), ("instance", "a1:9090")],
        value: "0",
        quiet: Story {
            series: &[
                r#"conductor_nats_connected{cell="local",instance="a1:9090"} 1+0x4 0 1+0x20"#,
            ],
            at: "3m30s",
        },
    }
}

fn nats_slow() -> Alert {
    Alert {
        name: "ConductorNatsSlow",
        severity: Severity::Warning,
        expr: format!(
            "min_over_time((max by (cell, instance) (conductor_nats_rtt_seconds))[5m:30s]) > {}\n\
             or sum by (cell, instance) (increase(conductor_nats_reconnects_total[30m])) > 5",
            limits::RTT_S
        ),
        lasts: "1m",
        summary: "The link of {{ $labels.instance }} (cell {{ $labels.cell }}) to NATS is poor",
        description: "The link of {{ $labels.instance }} (cell {{ $labels.cell }}) to NATS breaks again and \
                      again, or a round trip takes a quarter of a second for five minutes.",
        runbook: Runbook {
            means: "Every append and every heartbeat takes this way; a leader may lose its lock, an agent \
                    its leases.",
            look: "dashboard \"NATS and processes\": one process or all. One: its host and network. All: \
                   the server's CPU and network; slow consumers in its log.",
            act: "Move the process nearer to the servers, or free the link. Roles and servers belong into \
                  one region.",
        },
        fires: Story {
            series: &[
                r#"conductor_nats_rtt_seconds{cell="local",instance="a1:9090"} 0.01+0x4 0.4+0x30"#,
            ],
            at: "12m",
        },
        labels: &[("cell", "local"), ("instance", "a1:9090")],
        value: "0.4",
        quiet: Story {
            series: &[
                r#"conductor_nats_rtt_seconds{cell="local",instance="a1:9090"} 0.01+0x20 0.4 0.01+0x20"#,
                r#"conductor_nats_reconnects_total{cell="local",instance="a1:9090"} 0+0x20 2+0x20"#,
            ],
            at: "12m",
        },
    }
}

fn exports_fail() -> Alert {
    Alert {
        name: "ConductorExportsFail",
        severity: Severity::Warning,
        expr: "sum by (cell) (increase(conductor_export_failures_total[10m])) > 0".to_owned(),
        lasts: "10m",
        summary: "Traces of cell {{ $labels.cell }} do not reach the collector",
        description: "{{ $value | printf \"%.0f\" }} exports of cell {{ $labels.cell }} failed in the last ten \
                      minutes.",
        runbook: Runbook {
            means: "Tasks are not touched by it. The projector waits and tries again: traces of ended tasks \
                    come late, none is lost; live spans may be.",
            look: "the log of `conductor projector` (the collector's words), the collector's log and \
                   memory, OTEL_EXPORTER_OTLP_ENDPOINT.",
            act: "Bring the collector back. What it took and lost after that is exported again by \
                  `conductor replay --traces --since <time>`.",
        },
        fires: Story {
            series: &[
                r#"conductor_export_failures_total{cell="local",instance="p1:9090"} 0+0x10 1+1x60"#,
            ],
            at: "25m",
        },
        labels: &[("cell", "local")],
        value: "20",
        quiet: Story {
            series: &[
                r#"conductor_export_failures_total{cell="local",instance="p1:9090"} 0+0x10 2+0x60"#,
            ],
            at: "14m",
        },
    }
}

fn spans_dropped() -> Alert {
    Alert {
        name: "ConductorSpansDropped",
        severity: Severity::Info,
        expr: "sum by (cell) (increase(conductor_spans_dropped_total[10m])) > 0".to_owned(),
        lasts: "10m",
        summary: "Live spans of cell {{ $labels.cell }} find no room",
        description: "{{ $value | printf \"%.0f\" }} live spans of cell {{ $labels.cell }} were dropped in the \
                      last ten minutes.",
        runbook: Runbook {
            means: "What processes trace of themselves comes faster than the collector takes it; memory is \
                    bounded, so some is dropped. Traces of tasks, which come from the log, are whole.",
            look: "exports and their failures (dashboard \"Log and readers\"); the collector's memory limit.",
            act: "Give the collector more room, or sample (OTEL_TRACES_SAMPLER).",
        },
        fires: Story {
            series: &[
                r#"conductor_spans_dropped_total{cell="local",instance="o1:9090"} 0+0x10 5+5x60"#,
            ],
            at: "25m",
        },
        labels: &[("cell", "local")],
        value: "100",
        quiet: Story {
            series: &[r#"conductor_spans_dropped_total{cell="local",instance="o1:9090"} 50+0x60"#],
            at: "25m",
        },
    }
}

fn traces_refused() -> Alert {
    Alert {
        name: "ConductorTracesRefused",
        severity: Severity::Info,
        expr: "sum by (cell) (increase(conductor_traces_refused_total[30m])) \
               + sum by (cell) (increase(conductor_spans_rejected_total[30m])) > 0"
            .to_owned(),
        lasts: "1m",
        summary: "The collector refuses traces of cell {{ $labels.cell }} for good",
        description: "{{ $value | printf \"%.0f\" }} traces or spans of cell {{ $labels.cell }} were refused \
                      by the collector in the last half an hour, and skipped.",
        runbook: Runbook {
            means: "The collector takes others and will never take these: something in them is not to its \
                    liking, or one is larger than it takes. They are not shown anywhere; their tasks are not \
                    touched by it.",
            look: "the log of `conductor projector`: \"the collector refuses a trace for good\" names task and \
                   code, \"did not keep all spans\" the collector's words; the collector's own log; its limits \
                   of size.",
            act: "Mend the collector or its limits, then export them again: \
                  `conductor replay --traces --since <time>`.",
        },
        fires: Story {
            series: &[
                r#"conductor_traces_refused_total{cell="local",instance="p1:9090"} 0+0x10 2+0x60"#,
                r#"conductor_spans_rejected_total{cell="local",instance="p1:9090"} 0+0x60"#,
            ],
            at: "10m",
        },
        labels: &[("cell", "local")],
        value: "2",
        quiet: Story {
            series: &[
                r#"conductor_traces_refused_total{cell="local",instance="p1:9090"} 5+0x60"#,
                r#"conductor_spans_rejected_total{cell="local",instance="p1:9090"} 7+0x60"#,
            ],
            at: "10m",
        },
    }
}

fn restarts_often() -> Alert {
    Alert {
        name: "ConductorRestartsOften",
        severity: Severity::Warning,
        // Others serve a metric of this name too; only ours have a cell.
        expr: format!(
            "max by (cell, instance) (changes(process_start_time_seconds{{cell!=\"\"}}[30m])) >= {}",
            limits::RESTARTS
        ),
        lasts: "0s",
        summary: "{{ $labels.instance }} of cell {{ $labels.cell }} starts again and again",
        description: "{{ $labels.instance }} of cell {{ $labels.cell }} has started {{ $value }} times in half \
                      an hour.",
        runbook: Runbook {
            means: "Something ends it: memory, a log that lost its end, a name that two agents share, a \
                    server that is refused.",
            look: "the last lines of its log and its exit code; memory (dashboard \"NATS and processes\") \
                   and what the kernel or the container runtime says of it; `conductor doctor`.",
            act: "Do what its last words say. Out of memory: more memory, or a smaller backlog \
                  (`conductor config put`). Two agents of one name: give one another with `conductor \
                  agent --name`.",
        },
        fires: Story {
            series: &[
                r#"process_start_time_seconds{cell="local",instance="s1:9090"} 1000+0x10 1300+0x10 1600+0x10 1900+0x20"#,
            ],
            at: "20m",
        },
        labels: &[("cell", "local"), ("instance", "s1:9090")],
        value: "3",
        quiet: Story {
            // Two restarts; and a process that is none of ours.
            series: &[
                r#"process_start_time_seconds{cell="local",instance="s1:9090"} 1000+0x10 1300+0x10 1600+0x30"#,
                r#"process_start_time_seconds{instance="other:9100"} 1000+10x60"#,
            ],
            at: "20m",
        },
    }
}

fn files_run_out() -> Alert {
    Alert {
        name: "ConductorFilesRunOut",
        severity: Severity::Warning,
        expr: format!(
            "max by (cell, instance) (process_open_fds{{cell!=\"\"}} / process_max_fds{{cell!=\"\"}}) > {}",
            limits::FILES_RATIO
        ),
        lasts: "10m",
        summary: "{{ $labels.instance }} of cell {{ $labels.cell }} runs out of files",
        description: "{{ $labels.instance }} of cell {{ $labels.cell }} has {{ $value | humanizePercentage }} \
                      of the files open that it may open.",
        runbook: Runbook {
            means: "An agent needs some for each attempt: pipes, output. Without any left attempts end as \
                    not_started.",
            look: "attempts that run there (dashboard \"Agents\"): does the number of files follow them, or \
                   grow by itself?",
            act: "Raise the limit (`ulimit -n`, LimitNOFILE), or give the agent fewer slots: `conductor \
                  agent --slots 8`. If it grows by itself, restart the process and report it.",
        },
        fires: Story {
            series: &[
                r#"process_open_fds{cell="local",instance="a1:9090"} 900+0x60"#,
                r#"process_max_fds{cell="local",instance="a1:9090"} 1000+0x60"#,
            ],
            at: "20m",
        },
        labels: &[("cell", "local"), ("instance", "a1:9090")],
        value: "90%",
        quiet: Story {
            series: &[
                r#"process_open_fds{cell="local",instance="a1:9090"} 900+0x10 50+0x50"#,
                r#"process_max_fds{cell="local",instance="a1:9090"} 1000+0x60"#,
            ],
            at: "20m",
        },
    }
}

fn versions_differ() -> Alert {
    Alert {
        name: "ConductorVersionsDiffer",
        severity: Severity::Info,
        expr: "count by (cell) (count by (cell, version) (conductor_build_info)) > 1".to_owned(),
        lasts: "2h",
        summary: "Processes of cell {{ $labels.cell }} run different versions",
        description: "{{ $value }} versions of Conductor have run in cell {{ $labels.cell }} for two hours.",
        runbook: Runbook {
            means: "An upgrade is half done. It works, but an older reader may not know what a newer \
                    writer writes.",
            look: "versions (dashboard \"NATS and processes\"); `conductor agent list -o json` has those of \
                   agents.",
            act: "Finish the upgrade: schedulers before orchestrators and agents. Old agents: `conductor \
                  agent drain <agent>`, then start the new one.",
        },
        fires: Story {
            series: &[
                r#"conductor_build_info{cell="local",instance="o1:9090",version="0.1.0"} 1+0x300"#,
                r#"conductor_build_info{cell="local",instance="a1:9090",version="0.2.0"} 1+0x300"#,
            ],
            at: "2h10m",
        },
        labels: &[("cell", "local")],
        value: "2",
        quiet: Story {
            series: &[
                r#"conductor_build_info{cell="local",instance="o1:9090",version="0.1.0"} 1+0x100 stale"#,
                r#"conductor_build_info{cell="local",instance="o1:9090",version="0.2.0"} _x100 1+0x200"#,
                r#"conductor_build_info{cell="local",instance="a1:9090",version="0.2.0"} 1+0x300"#,
            ],
            at: "2h10m",
        },
    }
}
