//! Does the log take what is written, do readers keep up, does it count?

use super::{Dashboard, quantile};
use crate::limits;
use crate::panel::Panel;

pub(super) fn dashboard() -> Dashboard {
    let mut panels = writing();
    panels.extend(reading());
    Dashboard {
        slug: "log-and-readers",
        title: "Log and readers",
        description: "Does the log take what is written, do its readers keep up, and does it count?",
        panels,
    }
}

fn writing() -> Vec<Panel> {
    vec![
        Panel::lines(
            "Records per second",
            "What the log takes in. A node syncs a few thousand a second, however many events each holds.",
        )
        .query(
            "records",
            r#"max(deriv(conductor_log_last_sequence{cell="$cell"}[$__rate_interval]))"#,
        )
        .unit("cps"),
        Panel::lines(
            "Append, by writer",
            "How long until the log has it on disk: the server's fsync and the way to it. Everything waits \
             for this.",
        )
        .query(
            "{{writer}} p50",
            quantile(0.5, "conductor_append_seconds", "writer", ""),
        )
        .query(
            "{{writer}} p99",
            quantile(0.99, "conductor_append_seconds", "writer", ""),
        )
        .unit("s")
        .red_from(limits::APPEND_P99_S),
        Panel::lines(
            "Events in a frame",
            "While an append is in flight, events gather into the next frame: many mean load, not trouble.",
        )
        .query(
            "{{writer}}",
            r#"sum by (writer) (rate(conductor_frame_events_sum{cell="$cell"}[$__rate_interval]))
/ sum by (writer) (rate(conductor_frame_events_count{cell="$cell"}[$__rate_interval]))"#,
        ),
        Panel::lines("Bytes in a frame", "A frame has at most 768 KiB.")
            .query(
                "{{writer}}",
                r#"sum by (writer) (rate(conductor_frame_bytes_sum{cell="$cell"}[$__rate_interval]))
/ sum by (writer) (rate(conductor_frame_bytes_count{cell="$cell"}[$__rate_interval]))"#,
            )
            .unit("bytes"),
        Panel::lines(
            "Appends that did not go through at once, in 5 minutes",
            "Refused: the server said no; its words are in the writer's log. Repeated: no answer in time, \
             sent again under the same id. Conflicts: another candidate was faster, which is harmless.",
        )
        .query(
            "refused: {{writer}}",
            r#"sum by (writer) (increase(conductor_append_refused_total{cell="$cell"}[5m]))"#,
        )
        .query(
            "repeated: {{writer}}",
            r#"sum by (writer) (increase(conductor_append_repeats_total{cell="$cell"}[5m]))"#,
        )
        .query(
            "conflicts",
            r#"sum(increase(conductor_election_conflicts_total{cell="$cell"}[5m]))"#,
        ),
        Panel::lines(
            "Void events per second, by reason",
            "In the log and without effect. stale_epoch around an election and duplicate are normal; \
             wrong_writer and malformed never are. `conductor replay --void` shows each.",
        )
        .query(
            "{{reason}}",
            r#"max by (reason) (rate(conductor_void_events_total{cell="$cell"}[$__rate_interval])) > 0"#,
        )
        .unit("cps"),
    ]
}

fn reading() -> Vec<Panel> {
    vec![
        Panel::lines(
            "Lag, in seconds",
            "How far each reader stands behind the end of the log. Who decides from an old state decides \
             late.",
        )
        .query(
            "{{reader}} {{instance}}",
            r#"max by (reader, instance) (conductor_tail_lag_seconds{cell="$cell"})"#,
        )
        .unit("s")
        .red_from(limits::TAIL_LAG_S),
        Panel::lines(
            "Lag, in records",
            "The same, counted. A reader that starts begins high and falls.",
        )
        .query(
            "{{reader}} {{instance}}",
            r#"max by (reader, instance) (conductor_tail_lag_records{cell="$cell"})"#,
        ),
        Panel::lines(
            "Elections",
            "The position of each role's last election. A step is a new leader; many steps: leaders lose \
             their lock although they live.",
        )
        .query(
            "{{role}}",
            r#"max by (role) (conductor_leader_epoch{cell="$cell"})"#,
        ),
        Panel::lines(
            "Age of the last snapshot",
            "By the processes that stored one. Old while the log grows: starts and takeovers take longer; \
             nothing is at risk.",
        )
        .query(
            "{{instance}}",
            r#"min by (instance) (conductor_snapshot_age_seconds{cell="$cell"})"#,
        )
        .unit("s"),
        Panel::lines("Size of a snapshot", "Grows with tasks that wait and ids that are remembered.")
            .query(
                "{{instance}}",
                r#"max by (instance) (conductor_snapshot_bytes{cell="$cell"})"#,
            )
            .unit("bytes"),
        Panel::lines(
            "Traces",
            "Spans that left for the collector per second, exports that failed, live spans that found no \
             room; spans that the collector rejected, and traces that it refused for good.",
        )
        .query(
            "exported",
            r#"sum(rate(conductor_spans_exported_total{cell="$cell"}[$__rate_interval]))"#,
        )
        .query(
            "failed exports",
            r#"sum(rate(conductor_export_failures_total{cell="$cell"}[$__rate_interval]))"#,
        )
        .query(
            "dropped",
            r#"sum(rate(conductor_spans_dropped_total{cell="$cell"}[$__rate_interval]))"#,
        )
        .query(
            "rejected",
            r#"sum(rate(conductor_spans_rejected_total{cell="$cell"}[$__rate_interval]))"#,
        )
        .query(
            "refused traces",
            r#"sum(rate(conductor_traces_refused_total{cell="$cell"}[$__rate_interval]))"#,
        )
        .unit("cps"),
    ]
}
