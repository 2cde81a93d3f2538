//! Does the log take what is written, and do readers keep up?

use super::{Alert, Group, Runbook, Severity, Story};
use crate::limits;

pub(super) fn group() -> Group {
    Group {
        name: "conductor-log",
        alerts: vec![
            append_slow(),
            appends_refused(),
            appends_repeat(),
            tail_lag(),
            projector_lag(),
            snapshot_old(),
        ],
    }
}

fn append_slow() -> Alert {
    Alert {
        name: "ConductorAppendSlow",
        severity: Severity::Warning,
        expr: format!(
            "histogram_quantile(0.99, sum by (cell, writer, le) (rate(conductor_append_seconds_bucket[5m]))) > {}",
            limits::APPEND_P99_S
        ),
        lasts: "5m",
        summary: "Appends of {{ $labels.writer }} to the log of cell {{ $labels.cell }} are slow",
        description: "One append in a hundred of {{ $labels.writer }} in cell {{ $labels.cell }} takes \
                      {{ $value | humanizeDuration }} or longer.",
        runbook: Runbook {
            means: "Every step of every task is an append that is on disk before anybody hears of it: all \
                    latencies grow with it.",
            look: "round trip (dashboard \"NATS and processes\"): if it is slow too, the network or the \
                   server's CPU, else its disk. On the server: disk latency, and what else writes there. \
                   In a cluster the slowest of two replicas counts.",
            act: "Give the server a disk of its own with a fast fsync, and memory; part noisy neighbours \
                  from it. Never by lazy syncing: `conductor doctor` reports that as FAIL.",
        },
        fires: Story {
            series: &[
                r#"conductor_append_seconds_bucket{cell="local",instance="o1:9090",writer="orchestrator",le="0.1"} 0+0x60"#,
                r#"conductor_append_seconds_bucket{cell="local",instance="o1:9090",writer="orchestrator",le="1"} 0+100x60"#,
                r#"conductor_append_seconds_bucket{cell="local",instance="o1:9090",writer="orchestrator",le="+Inf"} 0+100x60"#,
            ],
            at: "20m",
        },
        labels: &[("cell", "local"), ("writer", "orchestrator")],
        value: "991ms",
        quiet: Story {
            series: &[
                r#"conductor_append_seconds_bucket{cell="local",instance="o1:9090",writer="orchestrator",le="0.1"} 0+995x60"#,
                r#"conductor_append_seconds_bucket{cell="local",instance="o1:9090",writer="orchestrator",le="1"} 0+1000x60"#,
                r#"conductor_append_seconds_bucket{cell="local",instance="o1:9090",writer="orchestrator",le="+Inf"} 0+1000x60"#,
            ],
            at: "20m",
        },
    }
}

fn appends_refused() -> Alert {
    Alert {
        name: "ConductorAppendsRefused",
        severity: Severity::Critical,
        expr: "sum by (cell, writer) (increase(conductor_append_refused_total[10m])) > 0"
            .to_owned(),
        lasts: "1m",
        summary: "The log of cell {{ $labels.cell }} refuses what {{ $labels.writer }} writes",
        description: "{{ $value | printf \"%.0f\" }} append(s) of {{ $labels.writer }} in cell \
                      {{ $labels.cell }} were refused in the last ten minutes.",
        runbook: Runbook {
            means: "The server said no, not \"later\": its storage is full, the stream has a limit, is \
                    sealed or gone, or permissions do not allow the subject. Nothing is decided until \
                    that is over; what was refused is decided anew, not lost.",
            look: "the writer's log: it has the server's words; `conductor doctor` for the stream and its \
                   settings; free storage of the server (bytes of streams: dashboard \"NATS and \
                   processes\").",
            act: "Give JetStream storage, undo the change to stream or permissions. The log itself must \
                  not be deleted from.",
        },
        fires: Story {
            series: &[
                r#"conductor_append_refused_total{cell="local",instance="s1:9090",writer="scheduler"} 0+0x30 1+0x30"#,
            ],
            at: "18m",
        },
        labels: &[("cell", "local"), ("writer", "scheduler")],
        value: "1",
        quiet: Story {
            series: &[
                r#"conductor_append_refused_total{cell="local",instance="s1:9090",writer="scheduler"} 1+0x60"#,
            ],
            at: "18m",
        },
    }
}

fn appends_repeat() -> Alert {
    Alert {
        name: "ConductorAppendsRepeat",
        severity: Severity::Warning,
        expr: format!(
            "sum by (cell, writer) (rate(conductor_append_repeats_total[5m])) > {}",
            limits::REPEATS_PER_S
        ),
        lasts: "5m",
        summary: "Appends of {{ $labels.writer }} in cell {{ $labels.cell }} are not answered in time",
        description: "{{ $labels.writer }} in cell {{ $labels.cell }} sends {{ $value | humanize }} appends a \
                      second again, because no answer came.",
        runbook: Runbook {
            means: "The server, or the way to it, loses answers or takes seconds. Nothing is written \
                    twice: a repetition has the same id.",
            look: "round trip and reconnects (dashboard \"NATS and processes\"), append latency; whether \
                   the cluster of servers has a leader for the stream.",
            act: "See to the network and the server. After a change of the stream's leader it ends by \
                  itself.",
        },
        fires: Story {
            series: &[
                r#"conductor_append_repeats_total{cell="local",instance="o1:9090",writer="orchestrator"} 0+6x60"#,
            ],
            at: "20m",
        },
        labels: &[("cell", "local"), ("writer", "orchestrator")],
        value: "200m",
        quiet: Story {
            series: &[
                r#"conductor_append_repeats_total{cell="local",instance="o1:9090",writer="orchestrator"} 0+0x20 20+0x40"#,
            ],
            at: "20m",
        },
    }
}

fn tail_lag() -> Alert {
    Alert {
        name: "ConductorTailLag",
        severity: Severity::Warning,
        expr: format!(
            "max by (cell, reader, instance) (conductor_tail_lag_seconds{{reader!=\"projector\"}}) > {}",
            limits::TAIL_LAG_S
        ),
        // Long enough for a start that reads a long log.
        lasts: "2m",
        summary: "{{ $labels.reader }} on {{ $labels.instance }} is behind the log of cell \
                  {{ $labels.cell }}",
        description: "{{ $labels.reader }} on {{ $labels.instance }} (cell {{ $labels.cell }}) stands \
                      {{ $value | humanizeDuration }} behind the end of the log.",
        runbook: Runbook {
            means: "Who decides from an old state decides late, and more of it turns out void; a standby \
                    that is behind takes over late.",
            look: "is it the leader (dashboard \"Overview\"), does the lag fall or grow; the process's CPU \
                   (one full core: it cannot keep up) and its log (gaps, a tail that stands still); \
                   `conductor doctor` for missing records.",
            act: "After a start with a long log wait: it falls. If it stands still, restart the process; a \
                  standby takes over. If CPU is the limit, give it a faster core; more processes do not \
                  help, one leads.",
        },
        fires: Story {
            series: &[
                r#"conductor_tail_lag_seconds{cell="local",instance="s1:9090",reader="scheduler"} 0+0x10 15+30x20"#,
            ],
            at: "10m",
        },
        labels: &[
            ("cell", "local"),
            ("instance", "s1:9090"),
            ("reader", "scheduler"),
        ],
        value: "4m 45s",
        quiet: Story {
            // One that starts and catches up; and the projector, which has an alert of its own.
            series: &[
                r#"conductor_tail_lag_seconds{cell="local",instance="s1:9090",reader="scheduler"} 900 300 40 0+0x40"#,
                r#"conductor_tail_lag_seconds{cell="local",instance="p1:9090",reader="projector"} 100+0x40"#,
            ],
            at: "3m",
        },
    }
}

fn projector_lag() -> Alert {
    Alert {
        name: "ConductorTracesLate",
        severity: Severity::Info,
        expr: format!(
            "min by (cell) (conductor_tail_lag_records{{reader=\"projector\"}}) > {}",
            limits::PROJECTOR_LAG_RECORDS
        ),
        lasts: "10m",
        summary: "Traces of cell {{ $labels.cell }} come late",
        description: "The trace projector of cell {{ $labels.cell }} has {{ $value | humanize }} records of \
                      the log still to read.",
        runbook: Runbook {
            means: "Tasks are not touched by it. Traces of what ended lately are not in Jaeger yet; none \
                    is lost, the projector reads on where it stands.",
            look: "exports and their failures (dashboard \"Log and readers\"): if exports fail, see \
                   ConductorExportsFail; else its CPU.",
            act: "Give the collector or the projector more CPU, or trace a part of the tasks only \
                  (OTEL_TRACES_SAMPLER).",
        },
        fires: Story {
            series: &[
                r#"conductor_tail_lag_records{cell="local",instance="p1:9090",reader="projector"} 0+0x10 20000+0x60"#,
            ],
            at: "20m",
        },
        labels: &[("cell", "local")],
        value: "20k",
        quiet: Story {
            // One of two keeps up.
            series: &[
                r#"conductor_tail_lag_records{cell="local",instance="p1:9090",reader="projector"} 0+3000x60"#,
                r#"conductor_tail_lag_records{cell="local",instance="p2:9090",reader="projector"} 1+0x60"#,
            ],
            at: "20m",
        },
    }
}

fn snapshot_old() -> Alert {
    Alert {
        name: "ConductorSnapshotOld",
        severity: Severity::Warning,
        // Age alone says nothing: a quiet cell needs no new one.
        expr: format!(
            "max by (cell) (conductor_log_last_sequence)\n  \
             - max by (cell) (conductor_log_last_sequence offset 6h)\n> {}\n\
             unless on (cell) min by (cell) (min_over_time(conductor_snapshot_age_seconds[3h])) <= 10800",
            limits::RECORDS_WITHOUT_SNAPSHOT
        ),
        lasts: "10m",
        summary: "Cell {{ $labels.cell }} stores no snapshots",
        description: "In six hours {{ $value | humanize }} records came into the log of cell \
                      {{ $labels.cell }}; in at least three no process stored a snapshot.",
        runbook: Runbook {
            means: "Nothing is at risk: the state comes from the log. But a start or a takeover by a new \
                    process has to read all records since the last snapshot.",
            look: "`conductor doctor`: the newest snapshot and how far it is behind; the log of the leading \
                   orchestrator and scheduler; the SNAPSHOTS stream and storage of the server.",
            act: "Give JetStream storage, repair what the log says. Where snapshots are switched off \
                  (`conductor orchestrator --snapshot-every 0`) silence this alert.",
        },
        fires: Story {
            series: &[
                r#"conductor_log_last_sequence{cell="local",instance="o1:9090"} 0+500x900"#,
                r#"conductor_snapshot_age_seconds{cell="local",instance="o1:9090"} 0+30x900"#,
            ],
            at: "7h",
        },
        labels: &[("cell", "local")],
        value: "360k",
        quiet: Story {
            // As busy, with a snapshot now and then; and a cell without any that is quiet.
            series: &[
                r#"conductor_log_last_sequence{cell="local",instance="o1:9090"} 0+500x900"#,
                r#"conductor_snapshot_age_seconds{cell="local",instance="o1:9090"} 0+30x500 0+30x400"#,
                r#"conductor_log_last_sequence{cell="quiet",instance="q1:9090"} 0+5x900"#,
            ],
            at: "7h",
        },
    }
}
