//! `conductor doctor`: is what we stand on sound? Where it cannot see, it says "unknown",
//! never "ok".

use std::sync::Arc;
use std::time::Duration;

use conductor_domain::State;
use conductor_eventlog::jetstream::Connection;
use conductor_eventlog::jetstream::provision::{Durability, Provision};
use conductor_eventlog::{EventLog, SnapshotStore};
use conductor_protocol::human::DurationMs;
use conductor_protocol::subject::Role;
use conductor_replica::replica::Answer;
use serde_json::json;

use super::read;
use crate::exit::{Exit, Outcome};
use crate::out;
use crate::settings::Settings;

struct Findings {
    rows: Vec<serde_json::Value>,
    has_failed: bool,
    /// What a failure is called.
    failure: Exit,
}

impl Findings {
    fn note(&mut self, check: &str, verdict: &str, detail: impl std::fmt::Display) {
        self.has_failed |= verdict == "FAIL";
        self.rows
            .push(json!({"check": check, "verdict": verdict, "detail": detail.to_string()}));
    }
}

pub(crate) async fn run(settings: &Settings) -> Outcome {
    let mut findings = Findings {
        rows: Vec::new(),
        has_failed: false,
        failure: Exit::Failure,
    };
    match settings.open().await {
        Ok(connection) => check(&Arc::new(connection), settings, &mut findings).await,
        Err(e) => {
            findings.failure = e.code;
            findings.note("nats", "FAIL", e.message);
        }
    }
    let columns = [
        ("CHECK", "check"),
        ("VERDICT", "verdict"),
        ("DETAIL", "detail"),
    ];
    out::rows(settings.output, &columns, &findings.rows);
    Ok(if findings.has_failed {
        findings.failure
    } else {
        Exit::Ok
    })
}

async fn check(connection: &Arc<Connection>, settings: &Settings, findings: &mut Findings) {
    findings.note(
        "nats",
        "ok",
        format!("nats-server {}", connection.server_version()),
    );
    let how = Provision {
        monitor_url: settings.monitor_url(),
        ..Provision::default()
    };
    match connection.inspect_log(&how).await {
        Ok(log) => {
            let mut detail = format!("{} record(s), {} replica(s)", log.last_seq, log.replicas);
            let mut verdict = "ok";
            if log.missing > 0 {
                detail += &format!(
                    "; the server does not have {} of them: `conductor replay` says which",
                    log.missing
                );
                verdict = "FAIL";
            }
            findings.note("log", verdict, detail);
            let verdict = match log.durability {
                Durability::Always => "ok",
                Durability::Lazy(_) => "FAIL",
                Durability::Unknown(_) => "unknown",
            };
            findings.note("durability", verdict, log.durability);
        }
        Err(e) => {
            findings.note("log", "FAIL", e);
            return;
        }
    }
    match read::now(connection).await {
        Ok(reader) => {
            let verdict = match (reader.gaps.is_empty(), reader.began_at) {
                (true, 0) => "ok",
                (true, _) => "unknown",
                (false, _) => "FAIL",
            };
            let gaps: Vec<String> = reader.gaps.iter().map(ToString::to_string).collect();
            let detail = if gaps.is_empty() {
                "none".to_owned()
            } else {
                gaps.join(", ")
            };
            let before = match reader.began_at {
                0 => String::new(),
                seq => format!(
                    " after record {seq}; what came before was not read, `conductor replay` does"
                ),
            };
            findings.note("missing", verdict, detail + &before);
            check_cell(&reader.state, findings);
        }
        Err(e) => findings.note("state", "FAIL", e.message),
    }
    check_snapshots(connection, findings).await;
    check_replicas(connection, findings).await;
}

/// Whether somebody leads each role now: only live replicas can say.
async fn check_replicas(connection: &Connection, findings: &mut Findings) {
    let answers = connection
        .ask(Duration::from_secs(1))
        .await
        .unwrap_or_default();
    let answers: Vec<Answer> = answers
        .iter()
        .filter_map(|a| serde_json::from_slice(a).ok())
        .collect();
    let verdict = if answers.is_empty() { "warn" } else { "ok" };
    findings.note("replicas", verdict, format!("{} answer(s)", answers.len()));
    // Asked for after the answers: whoever is beyond this end read what is no longer there.
    let last = connection.last_seq().await.unwrap_or(u64::MAX);
    for answer in &answers {
        if answer.seq > last {
            let detail = format!(
                "the log has lost its end, at least records {}-{}: {} has read them",
                last + 1,
                answer.seq,
                answer.instance
            );
            findings.note("log", "FAIL", detail);
        }
        if !answer.gaps.is_empty() {
            let detail = format!(
                "{} found missing: {}",
                answer.instance,
                answer.gaps.join(", ")
            );
            findings.note("missing", "FAIL", detail);
        }
    }
    for role in Role::ALL {
        match answers.iter().find(|a| a.leads.contains(&role)) {
            Some(leader) => {
                findings.note(role.as_str(), "ok", format!("led by {}", leader.instance));
            }
            None => findings.note(role.as_str(), "warn", "no live replica says that it leads"),
        }
    }
}

fn check_cell(state: &State, findings: &mut Findings) {
    let there = state
        .agents
        .values()
        .filter(|a| a.status.is_there())
        .count();
    let verdict = if there == 0 { "warn" } else { "ok" };
    findings.note("agents", verdict, format!("{there} there"));
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let now_ms = now.map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(0));
    if state.time_ms > now_ms.saturating_add(1_000) {
        let ahead = DurationMs(state.time_ms - now_ms);
        findings.note(
            "clock",
            "warn",
            format!("the server's clock is {ahead} ahead of this machine's"),
        );
    }
}

async fn check_snapshots(connection: &Arc<Connection>, findings: &mut Findings) {
    let last = connection.last_seq().await.unwrap_or(0);
    match connection.list().await.map(|names| names.first().copied()) {
        Ok(Some(newest)) => {
            let behind = last.saturating_sub(newest.0);
            findings.note(
                "snapshot",
                "ok",
                format!("at record {}, {behind} behind", newest.0),
            );
        }
        Ok(None) => findings.note("snapshot", "ok", "none yet; a start folds the whole log"),
        Err(e) => findings.note("snapshot", "warn", e),
    }
}
