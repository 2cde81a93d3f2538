//! The server and the links to it, and the processes themselves.

use super::Dashboard;
use crate::limits;
use crate::panel::Panel;

pub(super) fn dashboard() -> Dashboard {
    let mut panels = links();
    panels.extend(processes());
    Dashboard {
        slug: "nats",
        title: "NATS and processes",
        description: "Are processes connected, how large do streams grow, and what do processes take?",
        panels,
    }
}

fn links() -> Vec<Panel> {
    vec![
        Panel::stat("Connected", "Each process, and whether it is connected to NATS.")
            .query(
                "{{instance}}",
                r#"min by (instance) (conductor_nats_connected{cell="$cell"})"#,
            )
            .width(24)
            .word(0, "lost")
            .word(1, "connected")
            .red_below(1.0)
            .with_names(),
        Panel::lines(
            "Round trip",
            "From each process to the server and back. All high: the server; one: its host or network.",
        )
        .query(
            "{{instance}}",
            r#"max by (instance) (conductor_nats_rtt_seconds{cell="$cell"})"#,
        )
        .unit("s")
        .red_from(limits::RTT_S),
        Panel::lines("Reconnects in 5 minutes", "A link that breaks again and again is poor.")
            .query(
                "{{instance}}",
                r#"sum by (instance) (increase(conductor_nats_reconnects_total{cell="$cell"}[5m]))"#,
            ),
        Panel::lines(
            "Refused by the server, in an hour",
            "What the server of `conductor up` did not let its clients do: publish, subscribe, connect, or \
             have more than they may. The log of `up` names account, user and subject of each. Of servers \
             of your own their log says so.",
        )
        .query(
            "{{kind}}",
            r#"sum by (kind) (increase(conductor_server_refusals_total{cell="$cell"}[1h]))"#,
        )
        .red_from(1.0),
        Panel::areas(
            "Bytes in streams",
            "`log` is never deleted from: it has to have room for as long as it is to live. The others are \
             bounded.",
        )
        .query(
            "{{stream}}",
            r#"max by (stream) (conductor_stream_bytes{cell="$cell"})"#,
        )
        .unit("bytes"),
        Panel::lines(
            "Growth of the log, per day",
            "At the pace of the last hour. Storage divided by this is the time that is left.",
        )
        .query(
            "log",
            r#"max(deriv(conductor_stream_bytes{cell="$cell",stream="log"}[1h])) * 86400"#,
        )
        .unit("bytes"),
        Panel::lines("Messages in streams", "`presence` and `output` come and go; `log` only grows.")
            .query(
                "{{stream}}",
                r#"max by (stream) (conductor_stream_messages{cell="$cell"})"#,
            ),
    ]
}

fn processes() -> Vec<Panel> {
    vec![
        Panel::table("Versions", "Which process runs which version, and since when.")
            .query(
                "running",
                r#"max by (instance, version) (conductor_build_info{cell="$cell"})"#,
            )
            .query(
                "Up for",
                r#"max by (instance) (time() - process_start_time_seconds{cell="$cell"})"#,
            )
            .unit_of("Up for", "s")
            .hide(&["Value #A"]),
        Panel::lines("CPU", "Cores that each process takes. Who leads decides on one core.")
            .query(
                "{{instance}}",
                r#"sum by (instance) (rate(process_cpu_seconds_total{cell="$cell"}[$__rate_interval]))"#,
            ),
        Panel::lines(
            "Memory",
            "A waiting task takes some 800 bytes in every replica; ended ones are remembered by id.",
        )
        .query(
            "{{instance}}",
            r#"max by (instance) (process_resident_memory_bytes{cell="$cell"})"#,
        )
        .unit("bytes"),
        Panel::lines(
            "Open files",
            "Part of those that a process may open. Agents need some for each attempt.",
        )
        .query(
            "{{instance}}",
            r#"max by (instance) (process_open_fds{cell="$cell"} / process_max_fds{cell="$cell"})"#,
        )
        .unit("percentunit")
        .red_from(limits::FILES_RATIO),
        Panel::lines(
            "Threads and runtime tasks",
            "Runtime tasks that only grow are a leak; a queue that stays long is a process without CPU.",
        )
        .query(
            "threads: {{instance}}",
            r#"max by (instance) (process_threads{cell="$cell"})"#,
        )
        .query(
            "workers: {{instance}}",
            r#"max by (instance) (conductor_tokio_workers{cell="$cell"})"#,
        )
        .query(
            "tasks: {{instance}}",
            r#"max by (instance) (conductor_tokio_alive_tasks{cell="$cell"})"#,
        )
        .query(
            "queued: {{instance}}",
            r#"max by (instance) (conductor_tokio_global_queue_depth{cell="$cell"})"#,
        ),
        Panel::lines(
            "Log lines held back, per second",
            "A process that says the same thing too often is cut short; what it said last is in its log.",
        )
        .query(
            "{{instance}}",
            r#"sum by (instance) (rate(conductor_log_lines_suppressed_total{cell="$cell"}[$__rate_interval]))"#,
        )
        .unit("cps"),
        Panel::lines(
            "Looks at metrics and health refused, per second",
            "A process shows them over so many connections at once; more are answered 503. Somebody asks \
             without end, or never hangs up.",
        )
        .query(
            "{{instance}}",
            r#"sum by (instance) (rate(conductor_metrics_connections_refused_total{cell="$cell"}[$__rate_interval]))"#,
        )
        .unit("cps"),
    ]
}
