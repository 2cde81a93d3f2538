//! Does what is written count? What does not stays in the log, void, with a reason.

use super::{Alert, Group, Runbook, Severity, Story};
use crate::limits;
use crate::promql::grown;

pub(super) fn group() -> Group {
    Group {
        name: "conductor-void-events",
        alerts: vec![wrong_writer(), refused(), stale_epoch(), unreadable()],
    }
}

fn wrong_writer() -> Alert {
    let grown = grown(
        "conductor_void_events_total",
        "cell, reason",
        "{reason=\"wrong_writer\"}",
        "1h",
    );
    Alert {
        name: "ConductorWrongWriter",
        severity: Severity::Critical,
        expr: format!("{grown} > 0"),
        lasts: "0s",
        summary: "Somebody writes into the log of cell {{ $labels.cell }} what is not theirs to write",
        description: "{{ $value }} event(s) of cell {{ $labels.cell }} in the last hour came on a subject \
                      whose writer may not write them. They are void.",
        runbook: Runbook {
            means: "No part of Conductor does this: a program with access to NATS publishes on subjects of \
                    roles or agents, by mistake or on purpose. It had no effect on any task.",
            look: "`conductor replay --void`: sequence, subject and kind of each; then, by the time of the \
                   record, the server's connections and accounts.",
            act: "Find the client and stop it. Let only roles and agents publish on their subjects: \
                  submitters need `conductor.<cell>.submit.>` and, to act on tasks, \
                  `conductor.<cell>.control`.",
        },
        fires: Story {
            series: &[
                r#"conductor_void_events_total{cell="local",instance="o1:9090",reason="wrong_writer"} 0+0x100 1+0x60"#,
            ],
            at: "60m",
        },
        labels: &[("cell", "local"), ("reason", "wrong_writer")],
        value: "1",
        quiet: Story {
            // Two hours ago; and another reason.
            series: &[
                r#"conductor_void_events_total{cell="local",instance="o1:9090",reason="wrong_writer"} 1+0x300"#,
                r#"conductor_void_events_total{cell="local",instance="o1:9090",reason="duplicate"} 1+1x300"#,
            ],
            at: "2h",
        },
    }
}

fn refused() -> Alert {
    Alert {
        name: "ConductorServerRefuses",
        severity: Severity::Warning,
        expr: "sum by (cell, kind) \
               (increase(conductor_server_refusals_total{kind=~\"publish|subscribe\"}[1h])) > 0"
            .to_owned(),
        lasts: "0s",
        summary: "Somebody tries to {{ $labels.kind }} where the server of cell {{ $labels.cell }} does not let them",
        description: "{{ $value | printf \"%.0f\" }} time(s) in the last hour a client of cell \
                      {{ $labels.cell }} tried to {{ $labels.kind }} on a subject that is not its own.",
        runbook: Runbook {
            means: "No part of Conductor does this with the credentials it is given: somebody uses them for \
                    something else, an agent's above all, or a person the wrong file. The server let nothing \
                    of it through.",
            look: "the log of `conductor up`: \"the server refused a client\" names account, user and subject. \
                   An account AGENT_… is an agent's, CLIENTS_… that of those who only submit.",
            act: "Find out who holds these credentials. An agent that does what it should not: \
                  `conductor agent revoke <name>`, then look at its host.",
        },
        fires: Story {
            series: &[
                r#"conductor_server_refusals_total{cell="local",instance="o1:9090",kind="publish"} 0+0x100 4+0x60"#,
            ],
            at: "55m",
        },
        labels: &[("cell", "local"), ("kind", "publish")],
        value: "4",
        quiet: Story {
            // Long ago; and credentials that are no longer good.
            series: &[
                r#"conductor_server_refusals_total{cell="local",instance="o1:9090",kind="publish"} 4+0x300"#,
                r#"conductor_server_refusals_total{cell="local",instance="o1:9090",kind="connect"} 0+1x300"#,
            ],
            at: "2h",
        },
    }
}

fn stale_epoch() -> Alert {
    let grown = grown(
        "conductor_void_events_total",
        "cell, reason",
        "{reason=\"stale_epoch\"}",
        "5m",
    );
    Alert {
        name: "ConductorStaleEpochs",
        severity: Severity::Warning,
        expr: format!("{grown} > {}", limits::STALE_EPOCH),
        // An election leaves behind what was in flight; that is over within one window.
        lasts: "10m",
        summary: "An old leader of cell {{ $labels.cell }} goes on deciding",
        description: "{{ $value }} events of cell {{ $labels.cell }} in five minutes were decided under an \
                      epoch that is over, and it does not end.",
        runbook: Runbook {
            means: "A process that has lost its role has not read of it. What it decides is void; it only \
                    fills the log.",
            look: "`conductor replay --void`: whose frames they are; `conductor doctor`: who says that it \
                   leads; tail lag of that process.",
            act: "Restart that process. If leaders change all the time, see ConductorElectionsRepeat.",
        },
        fires: Story {
            series: &[
                r#"conductor_void_events_total{cell="local",instance="o1:9090",reason="stale_epoch"} 0+5x80"#,
            ],
            at: "30m",
        },
        labels: &[("cell", "local"), ("reason", "stale_epoch")],
        value: "50",
        quiet: Story {
            // One takeover under load.
            series: &[
                r#"conductor_void_events_total{cell="local",instance="o1:9090",reason="stale_epoch"} 0+0x30 400+0x50"#,
            ],
            at: "19m",
        },
    }
}

fn unreadable() -> Alert {
    let grown = grown(
        "conductor_void_events_total",
        "cell, reason",
        "{reason=~\"malformed|unknown_kind|format_not_reached\"}",
        "1h",
    );
    Alert {
        name: "ConductorUnreadableEvents",
        severity: Severity::Warning,
        expr: format!("{grown} > 0"),
        lasts: "0s",
        summary: "The log of cell {{ $labels.cell }} has events that its readers do not understand",
        description: "{{ $value }} event(s) of cell {{ $labels.cell }} in the last hour are void as \
                      {{ $labels.reason }}.",
        runbook: Runbook {
            means: "unknown_kind, format_not_reached: a writer is newer than this reader, so an upgrade is \
                    half done. malformed: something that is not Conductor writes there, or bytes were \
                    damaged.",
            look: "`conductor replay --void`: which records; versions of all processes (dashboard \"NATS \
                   and processes\"); `conductor doctor` for damage of the log.",
            act: "Finish the upgrade (schedulers before orchestrators and agents). Find who writes \
                  malformed frames, as for ConductorWrongWriter.",
        },
        fires: Story {
            series: &[
                r#"conductor_void_events_total{cell="local",instance="o1:9090",reason="malformed"} 0+0x100 2+0x60"#,
            ],
            at: "60m",
        },
        labels: &[("cell", "local"), ("reason", "malformed")],
        value: "2",
        quiet: Story {
            series: &[
                r#"conductor_void_events_total{cell="local",instance="o1:9090",reason="malformed"} 2+0x300"#,
            ],
            at: "2h",
        },
    }
}
