//! The standalone mode: one process supervises a local server and runs everything.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use conductor_eventlog::jetstream::{Connect, Connection};
use conductor_nats::guard::GuardProgram;
use conductor_nats::{DataDir, Refusals, Server, ServerConfig, StoreKeys, locate};
use conductor_protocol::AgentId;
use conductor_protocol::subject::Role as RoleName;
use tokio::sync::watch;

use super::access::LocalAccess;
use super::sight::Watched;
use super::stack::{AgentPlan, Place, Stack, signals};
use super::{UpArgs, plan};
use crate::exit::{Exit, Outcome};
use crate::out;
use crate::settings::Settings;

/// How long the server may take to be ready.
const SERVER_START: Duration = Duration::from_secs(60);

pub(super) async fn up(args: UpArgs, settings: &Settings) -> Outcome {
    let started = Instant::now();
    let data = DataDir::open(&settings.data_dir)?;
    let access = match (&settings.nats_url, args.open_server) {
        (None, false) => Some(LocalAccess::prepare(
            data.path(),
            &settings.cell,
            &agent_ids(args.agents),
        )?),
        _ => None,
    };
    let refusals = settings
        .nats_url
        .is_none()
        .then(|| Refusals::from_now(&server_dir(data.path())));
    let server = match &settings.nats_url {
        Some(_) => None,
        None => {
            let keys = args.store.keys()?;
            let port = Some(args.nats_port);
            Some(start_server(data.path(), port, access.as_ref(), keys)?)
        }
    };
    let place = place(settings, data.path(), server.as_ref(), access.as_ref());
    let mut stop = signals();
    if let Some(refusals) = refusals {
        tokio::spawn(super::refusals::watch(refusals, stop.clone()));
    }
    let mut watched = server.map(watch_server);
    let mut plan = up_plan(args);
    plan.traces = super::otlp_if_any();
    plan.live.clone_from(&plan.traces);
    let traces = plan.traces.clone();
    // The data directory is ours alone, and so is the server in it.
    plan.takes_over = settings.nats_url.is_none();
    let agents = plan.agents.clone();
    let sight = Arc::new(Watched::default());
    let shown_at = sight.show(settings).await?;
    if let Some(access) = access {
        tokio::spawn(issue(access, place.connect.clone(), stop.clone()));
    }
    let mut stack = tokio::select! {
        stack = Stack::start(&place, plan, &sight) => stack?,
        _ = stop.wait_for(|stop| *stop) => return Ok(Exit::Ok),
    };
    tokio::select! {
        _ = stack.wait_leading(2, Duration::from_secs(30)) => {}
        _ = stop.wait_for(|stop| *stop) => {}
    }
    introduce(&stack, &place, data.path(), &agents, started);
    if let Some(at) = shown_at {
        out::say(&format!("metrics on http://{at}/metrics"));
    }
    if let Some(traces) = traces {
        out::say(&format!("traces go to {}", traces.endpoint));
    }
    let outcome = stack.wait(&mut stop).await;
    out::say("draining (again Ctrl-C ends at once) …");
    stack.stop().await;
    if let Some((stop_server, watcher)) = watched.take() {
        stop_server.send_replace(true);
        // It was asked to end and is killed where it does not.
        let _ = tokio::task::spawn_blocking(move || watcher.join()).await;
    }
    for file in ["nats.url", "nats.monitor"] {
        // Stale files only cost the next command a clear error.
        let _ = std::fs::remove_file(data.path().join(file));
    }
    out::say("stopped");
    outcome
}

/// Gives agents credentials for as long as this process runs.
async fn issue(access: LocalAccess, connect: Connect, stop: watch::Receiver<bool>) {
    let connect = Connect {
        name: "conductor-issuer".to_owned(),
        credentials: Some(access.keys().path("issuer.creds")),
        ..connect
    };
    match Connection::open_patiently(&connect).await {
        Ok(connection) => {
            let (keys, connection) = (Arc::new(access.into_keys()), Arc::new(connection));
            super::issuer::serve(keys, connection, super::issuer::GOOD_FOR, stop).await;
        }
        Err(e) => tracing::error!(error = %e, "agents cannot be given credentials"),
    }
}

fn up_plan(args: UpArgs) -> super::stack::Plan {
    let labels: std::collections::BTreeMap<_, _> = args.labels.into_iter().collect();
    let agents = agent_ids(args.agents)
        .into_iter()
        .map(|id| AgentPlan {
            id,
            slots: args.slots,
            labels: labels.clone(),
        })
        .collect();
    let mut plan = plan(args.role, RoleName::ALL.to_vec(), agents);
    plan.drain_timeout = args.drain_timeout;
    plan.secrets_dir = args.secrets_dir;
    plan.boxes = args.boxes;
    plan
}

/// The agents of this process.
fn agent_ids(count: u32) -> Vec<AgentId> {
    (1..=count)
        .map(|n| AgentId::from_log(&format!("a{n}")))
        .collect()
}

/// Where the local server has its files.
pub(super) fn server_dir(data: &Path) -> PathBuf {
    data.join("nats")
}

/// Starts the local server in `data`, on `port` if it is free.
pub(super) fn start_server(
    data: &Path,
    port: Option<u16>,
    access: Option<&LocalAccess>,
    keys: Option<StoreKeys>,
) -> Outcome<Server> {
    let binary = locate()?;
    let dir = server_dir(data);
    std::fs::create_dir_all(&dir)?;
    let mut config = ServerConfig::standalone("conductor", dir.join("store"));
    // The server takes 0 for its default port, not for any.
    config.port = port.filter(|p| *p != 0 && TcpListener::bind(("127.0.0.1", *p)).is_ok());
    config.store_keys = keys;
    config.operator = access.map(|access| access.operator_mode().clone());
    let guard = GuardProgram::current_exe();
    let server = Server::start(config, &binary, &dir, guard, SERVER_START)?;
    std::fs::write(data.join("nats.url"), server.url())?;
    std::fs::write(data.join("nats.monitor"), server.monitor_url())?;
    Ok(server)
}

fn place(
    settings: &Settings,
    data: &Path,
    server: Option<&Server>,
    access: Option<&LocalAccess>,
) -> Place {
    let connect = settings.connect("conductor-up");
    match server {
        Some(server) => local_place(connect, data, server, access),
        None => Place {
            connect,
            monitor_url: settings.monitor_url(),
            data: data.join("attempts"),
            credentials: None,
            kept: data.join("kept"),
        },
    }
}

pub(super) fn local_place(
    connect: Connect,
    data: &Path,
    server: &Server,
    access: Option<&LocalAccess>,
) -> Place {
    let services = access.map(LocalAccess::services);
    Place {
        connect: Connect {
            url: server.url(),
            credentials: services.or(connect.credentials),
            ..connect
        },
        monitor_url: Some(server.monitor_url()),
        data: data.join("attempts"),
        credentials: access.map(LocalAccess::credentials),
        kept: data.join("kept"),
    }
}

/// Keeps the server running, from a thread of its own: starting one blocks.
fn watch_server(mut server: Server) -> (watch::Sender<bool>, std::thread::JoinHandle<()>) {
    let (stop, stopped) = watch::channel(false);
    let watcher = std::thread::spawn(move || {
        let mut pause = Duration::from_millis(100);
        while !*stopped.borrow() {
            if let Some(status) = server.exit_status() {
                tracing::error!(status, "nats-server ended; starting it again");
                std::thread::sleep(pause);
                pause = (pause * 2).min(Duration::from_secs(5));
                if let Err(e) = server.start_again(SERVER_START) {
                    tracing::error!(error = %e, "nats-server does not start");
                }
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        server.stop(Duration::from_secs(5));
    });
    (stop, watcher)
}

fn introduce(stack: &Stack, place: &Place, data: &Path, agents: &[AgentPlan], started: Instant) {
    let ready = started.elapsed().as_secs_f64();
    out::say(&format!("conductor is up after {ready:.2} s"));
    out::say(&format!("  nats      {}", place.connect.url));
    if let Some(monitor) = &place.monitor_url {
        out::say(&format!("  monitor   {monitor}"));
    }
    let cell = &place.connect.cell;
    if let Some(log) = &stack.provisioned {
        let state = if log.is_new { "new" } else { "continued" };
        out::say(&format!(
            "  log       LOG_{cell}, {state} at record {}, {} replica(s), {}",
            log.last_seq, log.replicas, log.durability
        ));
    }
    let agents: Vec<String> = agents
        .iter()
        .map(|a| format!("{} ({} slots)", a.id, a.slots))
        .collect();
    out::say(&format!("  agents    {}", agents.join(", ")));
    out::say(&format!("  data      {}", data.display()));
    let creds = place
        .credentials
        .as_ref()
        .map(|c| c.client.display().to_string());
    if let Some(creds) = &creds {
        out::say(&format!("  accounts  on; for other programs: {creds}"));
    }
    let creds = creds.map_or_else(String::new, |creds| format!(" --creds {creds}"));
    out::say("");
    out::say("submit a task with any NATS client, or with the CLI:");
    out::say(&format!(
        "  nats -s {}{creds} pub conductor.{cell}.submit.default '{{\"run\":{{\"command\":[\"sh\",\"-c\",\"echo hi\"]}}}}'",
        place.connect.url
    ));
    out::say("  conductor submit --wait -- sh -c 'echo hi'");
}
