//! Doing a fault, and undoing it.

use std::time::Duration;

use conductor_eventlog::jetstream::Connection;
use conductor_harness::Link;
use conductor_replica::replica::Answer;

use crate::fault::{Fault, Harm, Planned};
use crate::field::{CLIENT, Field, Kind};
use crate::wire;

/// How late a slow link is, each way.
const LATE: Duration = Duration::from_millis(150);
/// Streams that nothing depends on.
const BESIDE: [&str; 4] = ["OUTPUT", "PRESENCE", "KV_LOCKS", "OBJ_SNAPSHOTS"];

/// Does a fault, holds it, undoes it. Returns who was hit.
pub(crate) async fn strike(field: &mut Field, planned: Planned, connection: &Connection) -> String {
    let hold = Duration::from_millis(planned.hold_ms);
    let node = planned.victim as usize % field.ground.nodes.len();
    let of = |names: &[&'static str]| names[planned.victim as usize % names.len()];
    match planned.fault {
        Fault::Kill(kind) => {
            let name = of(kind.names());
            kill(field, name, Duration::ZERO).await;
            name.to_owned()
        }
        Fault::KillLeader(kind) => {
            let leader = leader(field, kind, connection).await;
            let name = leader.unwrap_or(of(kind.names()));
            kill(field, name, hold).await;
            name.to_owned()
        }
        Fault::Freeze(kind) => {
            let name = of(kind.names());
            freeze(field, name, hold).await;
            name.to_owned()
        }
        Fault::FreezeLeader(kind) => {
            let leader = leader(field, kind, connection).await;
            let name = leader.unwrap_or(of(kind.names()));
            freeze(field, name, hold).await;
            name.to_owned()
        }
        Fault::Link(harm) => {
            let mut names = Field::processes();
            names.push(CLIENT);
            let name = of(&names);
            field.link(name, link(harm));
            tokio::time::sleep(hold).await;
            field.link(name, Link::Open);
            name.to_owned()
        }
        Fault::RestartAll => {
            restart_all(field);
            "all".to_owned()
        }
        Fault::LoseSnapshots => delete(field, &["OBJ_SNAPSHOTS"]).await,
        Fault::LoseStreams => delete(field, &BESIDE).await,
        Fault::KillServer
        | Fault::FreezeServer
        | Fault::StepDown
        | Fault::ServerLinks(_)
        | Fault::Routes(_)
        | Fault::DiskFull => strike_server(field, planned.fault, node, hold).await,
    }
}

/// The same for what is done to a server.
async fn strike_server(field: &mut Field, fault: Fault, node: usize, hold: Duration) -> String {
    match fault {
        Fault::KillServer => {
            field.ground.kill(&[node]);
            tokio::time::sleep(hold).await;
            field.ground.start_again(&[node]);
        }
        Fault::FreezeServer => {
            field.ground.nodes[node].pause();
            tokio::time::sleep(hold).await;
            field.ground.nodes[node].resume();
        }
        Fault::StepDown => {
            let subject = "$JS.API.STREAM.LEADER.STEPDOWN.LOG_local";
            let answer = wire::ask_any(&field.ground.urls(), subject, b"{}").await;
            return answer.map_or_else(|e| e.to_string(), |a| a["success"].to_string());
        }
        Fault::ServerLinks(harm) => {
            field.link_node(node, link(harm));
            field.ground.isolate(node, link(harm));
            tokio::time::sleep(hold).await;
            field.link_node(node, Link::Open);
            field.ground.isolate(node, Link::Open);
        }
        Fault::Routes(harm) => {
            field.ground.isolate(node, link(harm));
            tokio::time::sleep(hold).await;
            field.ground.isolate(node, Link::Open);
        }
        _ => {
            // Only the first has a disk that can be full.
            let server = field.ground.nodes[0].pid();
            field.ground.disk.fill(server);
            tokio::time::sleep(hold).await;
            field.ground.disk.free(server);
            let was_unwell = field.ground.mend(0);
            return format!("n0, had to be restarted: {was_unwell}");
        }
    }
    format!("n{node}")
}

async fn kill(field: &mut Field, name: &'static str, away: Duration) {
    field.process(name).kill9();
    tokio::time::sleep(away).await;
    field.run(name);
}

fn link(harm: Harm) -> Link {
    match harm {
        Harm::Cut => Link::Cut,
        Harm::BlackHole => Link::BlackHole,
        Harm::Delay => Link::Delay(LATE),
    }
}

async fn freeze(field: &mut Field, name: &str, hold: Duration) {
    field.process(name).freeze();
    tokio::time::sleep(hold).await;
    field.process(name).thaw();
}

/// Kills every process and every server, and starts all of them again.
fn restart_all(field: &mut Field) {
    for name in Field::processes() {
        field.process(name).kill9();
    }
    let nodes: Vec<usize> = (0..field.ground.nodes.len()).collect();
    field.ground.kill(&nodes);
    field.ground.start_again(&nodes);
    for name in Field::processes() {
        field.run(name);
    }
}

/// Who leads a role, by what the replicas say.
async fn leader(field: &Field, kind: Kind, connection: &Connection) -> Option<&'static str> {
    let answers = connection.ask(Duration::from_secs(1)).await.ok()?;
    let leads = |a: &Answer| a.leads.iter().any(|r| r.as_str() == kind.name());
    let answers = answers
        .iter()
        .filter_map(|a| serde_json::from_slice(a).ok());
    let leader = answers.into_iter().find(leads)?;
    // An instance is a host, a process id and something random.
    let pid = leader.instance.rsplit('-').nth(1)?.parse().ok()?;
    field.name_of(pid)
}

async fn delete(field: &Field, streams: &[&str]) -> String {
    let mut done = Vec::new();
    for stream in streams {
        let subject = format!("$JS.API.STREAM.DELETE.{stream}_local");
        let answer = wire::ask_any(&field.ground.urls(), &subject, b"").await;
        if answer.is_ok_and(|a| a["success"] == true) {
            done.push(*stream);
        }
    }
    done.join(" ")
}

/// Streams beside the log that are not there.
pub(crate) async fn missing_streams(field: &Field) -> Vec<&'static str> {
    let mut missing = Vec::new();
    // Snapshots come back with the next one that is due.
    for stream in &BESIDE[..3] {
        let subject = format!("$JS.API.STREAM.INFO.{stream}_local");
        let answer = wire::ask_any(&field.ground.urls(), &subject, b"").await;
        if !answer.is_ok_and(|a| a["config"].is_object()) {
            missing.push(*stream);
        }
    }
    missing
}
