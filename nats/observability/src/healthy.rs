//! A cell that is well, as Prometheus sees it: an orchestrator that leads and one that stands by,
//! a scheduler, an agent and a projector. No alert fires there, and every panel has something to
//! show.

/// Who holds a replica, and so serves the figures of the cell.
const REPLICAS: [&str; 3] = ["o1", "o2", "s1"];

/// Figures of the cell: name and labels, then values.
const CELL: &str = r#"
tasks_total 1000+30x400
tasks_completed 900+29x400
tasks_failed 20+1x400
pending_tasks 40+0x400
workers_active 2+0x400
conductor_tasks_submitted_total 1000+32x400
conductor_tasks_rejected_total 10+1x400
conductor_tasks_duplicate_total 5+1x400
conductor_tasks_finished_total{outcome="succeeded"} 900+29x400
conductor_tasks_finished_total{outcome="failed"} 15+1x400
conductor_tasks_finished_total{outcome="timed_out"} 5+0x400
conductor_tasks_finished_total{outcome="cancelled"} 7+0x400
conductor_attempts_total 1000+31x400
conductor_retries_total 10+1x400
conductor_dead_letters 12+0x400
conductor_agents{status="up"} 2+0x400
conductor_agents{status="draining"} 0+0x400
conductor_agents{status="left"} 1+0x400
conductor_agents{status="lost"} 0+0x400
conductor_agents_lost_total 3+0x400
conductor_slots 16+0x400
conductor_slots_used 9+0x400
conductor_queue_backlog{queue="default"} 30+0x400
conductor_queue_backlog{queue="held"} 0+0x400
conductor_queue_oldest_seconds{queue="default"} 12+0x400
conductor_queue_oldest_seconds{queue="held"} 0+0x400
conductor_queue_paused{queue="default"} 0+0x400
conductor_queue_paused{queue="held"} 1+0x400
conductor_void_events_total{reason="stale_epoch"} 40+0x400
conductor_void_events_total{reason="duplicate"} 5+1x400
conductor_void_events_total{reason="wrong_writer"} 2+0x400
conductor_void_events_total{reason="malformed"} 0+0x400
conductor_void_events_total{reason="unknown_kind"} 0+0x400
conductor_void_events_total{reason="format_not_reached"} 0+0x400
conductor_leader_epoch{role="orchestrator"} 12+0x400
conductor_leader_epoch{role="scheduler"} 15+0x400
conductor_log_last_sequence 5000+90x400
conductor_stream_messages{stream="log"} 5000+90x400
conductor_stream_messages{stream="output"} 800+5x400
conductor_stream_messages{stream="presence"} 40+0x400
conductor_stream_messages{stream="snapshots"} 6+0x400
conductor_stream_messages{stream="positions"} 1+0x400
conductor_stream_messages{stream="locks"} 2+0x400
conductor_stream_bytes{stream="log"} 2500000+45000x400
conductor_stream_bytes{stream="output"} 400000+2500x400
conductor_stream_bytes{stream="presence"} 9000+0x400
conductor_stream_bytes{stream="snapshots"} 700000+0x400
conductor_stream_bytes{stream="positions"} 200+0x400
conductor_stream_bytes{stream="locks"} 300+0x400
"#;

/// Who serves it, name and labels, then values; a histogram has none of its own.
const PROCESSES: &str = r#"
o1 conductor_is_leader{role="orchestrator"} 1+0x400
o2 conductor_is_leader{role="orchestrator"} 0+0x400
s1 conductor_is_leader{role="scheduler"} 1+0x400
o1 task_duration_seconds{outcome="succeeded"} histogram
o1 task_duration_seconds{outcome="failed"} histogram
o1 conductor_task_wait_seconds histogram
o1 conductor_attempt_run_seconds{outcome="succeeded"} histogram
o1 conductor_attempt_run_seconds{outcome="failed"} histogram
o1 conductor_leases_lost_total 2+0x400
o1 conductor_attempts_given_up_total 1+0x400
o1 conductor_append_seconds{writer="orchestrator"} histogram
s1 conductor_append_seconds{writer="scheduler"} histogram
a1 conductor_append_seconds{writer="agent"} histogram
o1 conductor_frame_events{writer="orchestrator"} histogram
s1 conductor_frame_events{writer="scheduler"} histogram
a1 conductor_frame_events{writer="agent"} histogram
o1 conductor_frame_bytes{writer="orchestrator"} histogram
s1 conductor_frame_bytes{writer="scheduler"} histogram
a1 conductor_frame_bytes{writer="agent"} histogram
o1 conductor_append_repeats_total{writer="orchestrator"} 1+0x400
o1 conductor_append_refused_total{writer="orchestrator"} 0+0x400
o1 conductor_election_conflicts_total 1+0x400
o1 conductor_tail_lag_records{reader="orchestrator"} 3+0x400
o2 conductor_tail_lag_records{reader="replica"} 5+0x400
s1 conductor_tail_lag_records{reader="scheduler"} 2+0x400
p1 conductor_tail_lag_records{reader="projector"} 40+0x400
o1 conductor_tail_lag_seconds{reader="orchestrator"} 0.002+0x400
o2 conductor_tail_lag_seconds{reader="replica"} 0.003+0x400
s1 conductor_tail_lag_seconds{reader="scheduler"} 0.002+0x400
o1 conductor_snapshot_age_seconds 60+30x100 0+30x299
o1 conductor_snapshot_bytes 120000+0x400
o1 conductor_presence_age_seconds 14+0x400
o1 conductor_nats_connected 1+0x400
o2 conductor_nats_connected 1+0x400
s1 conductor_nats_connected 1+0x400
a1 conductor_nats_connected 1+0x400
p1 conductor_nats_connected 1+0x400
o1 conductor_nats_rtt_seconds 0.0004+0x400
a1 conductor_nats_rtt_seconds 0.002+0x400
o1 conductor_nats_reconnects_total 1+0x400
a1 conductor_nats_reconnects_total 0+0x400
o1 conductor_server_refusals_total{kind="publish"} 3+0x400
o1 conductor_server_refusals_total{kind="subscribe"} 0+0x400
o1 conductor_server_refusals_total{kind="connect"} 1+0x400
o1 conductor_server_refusals_total{kind="limit"} 0+0x400
a1 conductor_attempts_running 9+0x400
p1 conductor_spans_exported_total 1000+90x400
p1 conductor_export_failures_total 2+0x400
o1 conductor_spans_dropped_total 0+0x400
p1 conductor_spans_rejected_total 0+0x400
p1 conductor_traces_refused_total 0+0x400
o1 conductor_metrics_connections_refused_total 0+0x400
o1 conductor_log_lines_suppressed_total 0+0x400
o1 conductor_build_info{version="0.1.0"} 1+0x400
o2 conductor_build_info{version="0.1.0"} 1+0x400
s1 conductor_build_info{version="0.1.0"} 1+0x400
a1 conductor_build_info{version="0.1.0"} 1+0x400
p1 conductor_build_info{version="0.1.0"} 1+0x400
o1 process_cpu_seconds_total 100+6x400
o1 process_resident_memory_bytes 90000000+0x400
o1 process_open_fds 40+0x400
o1 process_max_fds 1024+0x400
o1 process_start_time_seconds 100+0x400
o1 process_threads 9+0x400
o1 conductor_tokio_workers 2+0x400
o1 conductor_tokio_alive_tasks 31+0x400
o1 conductor_tokio_global_queue_depth 0+0x400
"#;

/// What a histogram counts up to each bound: most of it is fast.
const BUCKETS: [(&str, u32); 5] = [
    ("0.01", 700),
    ("0.1", 990),
    ("1", 999),
    ("10", 1000),
    ("+Inf", 1000),
];

/// All series, each with its values.
pub fn series() -> Vec<(String, String)> {
    let mut all = Vec::new();
    for line in CELL.lines() {
        for instance in REPLICAS {
            add(&mut all, instance, line);
        }
    }
    for line in PROCESSES.lines() {
        if let Some((instance, rest)) = line.split_once(' ') {
            add(&mut all, instance, rest);
        }
    }
    all
}

fn add(all: &mut Vec<(String, String)>, instance: &str, line: &str) {
    let Some((what, values)) = line.split_once(' ') else {
        return;
    };
    let (name, labels) = what.split_once('{').unwrap_or((what, ""));
    let labels = match labels.trim_end_matches('}') {
        "" => format!("cell=\"local\",instance=\"{instance}:9090\""),
        own => format!("cell=\"local\",instance=\"{instance}:9090\",{own}"),
    };
    if values != "histogram" {
        all.push((format!("{name}{{{labels}}}"), values.to_owned()));
        return;
    }
    for (le, count) in BUCKETS {
        let bucket = format!("{name}_bucket{{{labels},le=\"{le}\"}}");
        all.push((bucket, format!("0+{count}x400")));
    }
    all.push((format!("{name}_count{{{labels}}}"), "0+1000x400".to_owned()));
    all.push((format!("{name}_sum{{{labels}}}"), "0+30x400".to_owned()));
}
