//! The parts of the system that run in this process, kept running.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use conductor_agent::runtime::Host;
use conductor_agent::sandbox::Boxes;
use conductor_agent::secrets::Secrets;
use conductor_agent::service::{Agent, AgentMsg, AgentOptions, PROBE_EVERY, hostname};
use conductor_eventlog::jetstream::provision::{Provision, Provisioned, Risk};
use conductor_eventlog::jetstream::{Connect, Connection};
use conductor_orchestrator::Orchestrator;
use conductor_projector::{Projector, ProjectorOptions};
use conductor_protocol::AgentId;
use conductor_protocol::subject::Role as RoleName;
use conductor_replica::replica::{ReplicaArgs, ReplicaMsg};
use conductor_replica::role::Role;
use conductor_replica::{Replica, ReplicaOptions, ReplicaStatus};
use conductor_scheduler::Scheduler;
use conductor_telemetry::{Otlp, live};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::boxes::BoxArgs;
use super::enrolment::renew;
use super::provision::provision_patiently;
use super::sight::Watched;
use crate::exit::{Exit, Failure, Outcome};
use crate::out;
use crate::settings::Settings;

/// What runs in this process.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) roles: Vec<RoleName>,
    pub(super) agents: Vec<AgentPlan>,
    /// What the agents box tasks in by.
    pub(super) boxes: BoxArgs,
    /// Where traces go, if this process makes them.
    pub(super) traces: Option<Otlp>,
    /// Where spans of what goes on in this process go.
    pub(super) live: Option<Otlp>,
    pub(super) replicas: usize,
    pub(super) accepted_risks: Vec<Risk>,
    pub(super) lock_ttl: Duration,
    pub(super) takes_over: bool,
    /// How long a projector waits for a silent one.
    pub(super) claim_ttl: Duration,
    pub(super) snapshot_every: u64,
    pub(super) drain_timeout: Duration,
    /// Files that are secrets of its agents.
    pub(super) secrets_dir: Option<PathBuf>,
}

/// An agent of this process.
#[derive(Clone, Debug)]
pub(super) struct AgentPlan {
    pub(super) id: AgentId,
    pub(super) slots: u32,
    pub(super) labels: BTreeMap<String, String>,
}

/// Where a stack runs.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) connect: Connect,
    pub(super) monitor_url: Option<String>,
    /// Below here attempts have their directories.
    pub(super) data: PathBuf,
    /// Further credentials, where the servers want them: `connect` has those of services.
    pub(super) credentials: Option<Credentials>,
    /// Below here agents keep what outlives attempts.
    pub(super) kept: PathBuf,
}

/// Where the credentials of those are that do not go by the services'.
#[derive(Clone, Debug)]
pub(super) struct Credentials {
    /// Of whoever provisions.
    pub(super) admin: PathBuf,
    /// Directory of those of agents.
    pub(super) agents: PathBuf,
    /// Of whoever submits.
    pub(super) client: PathBuf,
}

impl Place {
    /// Where streams are made: with rights that services do not have.
    async fn administrator(&self, services: &Arc<Connection>) -> Outcome<Arc<Connection>> {
        let Some(credentials) = &self.credentials else {
            return Ok(Arc::clone(services));
        };
        let connect = Connect {
            name: format!("{}-provision", self.connect.name),
            credentials: Some(credentials.admin.clone()),
            ..self.connect.clone()
        };
        Ok(Arc::new(Connection::open_patiently(&connect).await?))
    }

    /// Makes the streams that are not there, and looks at those that are.
    async fn provision(&self, plan: &Plan, services: &Arc<Connection>) -> Outcome<Provisioned> {
        let how = Provision {
            replicas: plan.replicas,
            accepted_risks: plan.accepted_risks.clone(),
            monitor_url: self.monitor_url.clone(),
        };
        let administrator = self.administrator(services).await?;
        let made = provision_patiently(&administrator, &how).await?;
        tracing::info!(durability = %made.durability, replicas = made.replicas, "the log is there");
        Ok(made)
    }

    /// Where the credentials of an agent are.
    fn agent_credentials(&self, id: &AgentId) -> Option<PathBuf> {
        match &self.credentials {
            Some(credentials) => Some(credentials.agents.join(format!("{id}.creds"))),
            None => self.connect.credentials.clone(),
        }
    }

    /// The connection of an agent: its own, where it has credentials of its own.
    async fn agent(&self, id: &AgentId, services: &Arc<Connection>) -> Outcome<Arc<Connection>> {
        if self.credentials.is_none() {
            return Ok(Arc::clone(services));
        }
        let connect = Connect {
            name: format!("conductor-agent-{id}"),
            credentials: self.agent_credentials(id),
            probe_every: PROBE_EVERY,
            ..self.connect.clone()
        };
        Ok(Arc::new(Connection::open_patiently(&connect).await?))
    }
}

/// What runs, until it is stopped.
#[derive(Debug)]
pub(super) struct Stack {
    pub(super) connection: Arc<Connection>,
    pub(super) provisioned: Option<Provisioned>,
    pub(super) status: watch::Receiver<ReplicaStatus>,
    stop: watch::Sender<bool>,
    parts: JoinSet<()>,
    superseded: Vec<Arc<AtomicBool>>,
}

/// Runs a plan against the settings' servers until SIGTERM or Ctrl-C.
pub(super) async fn serve(settings: &Settings, plan: Plan) -> Outcome {
    let what: Vec<String> = plan
        .roles
        .iter()
        .map(std::string::ToString::to_string)
        .chain(
            plan.agents
                .iter()
                .map(|a| format!("agent {} ({} slots)", a.id, a.slots)),
        )
        .chain(
            plan.traces
                .iter()
                .map(|to| format!("projector to {}", to.endpoint)),
        )
        .collect();
    let what = what.join(", ");
    let name = what.split(' ').next().unwrap_or("role");
    let mut connect = settings.connect(&format!("conductor-{name}"));
    if plan.roles.is_empty() && plan.traces.is_none() {
        connect.probe_every = PROBE_EVERY;
    }
    let place = Place {
        connect,
        monitor_url: settings.monitor_url(),
        data: settings.data_dir.join("attempts"),
        credentials: None,
        kept: settings.data_dir.join("kept"),
    };
    let mut stop = signals();
    // Before there is any link: a process that waits for NATS is alive.
    let watched = Arc::new(Watched::default());
    let shown_at = watched.show(settings).await?;
    let mut stack = tokio::select! {
        stack = Stack::start(&place, plan, &watched) => stack?,
        _ = stop.wait_for(|stop| *stop) => return Ok(Exit::Ok),
    };
    if let Some(at) = shown_at {
        out::say(&format!("metrics on http://{at}/metrics"));
    }
    out::say(&format!(
        "{what} on {} in cell {}",
        place.connect.url, place.connect.cell
    ));
    let outcome = stack.wait(&mut stop).await;
    out::say("draining …");
    stack.stop().await;
    outcome
}

/// Becomes true with the first SIGTERM or Ctrl-C; the second ends the process at once.
pub(crate) fn signals() -> watch::Receiver<bool> {
    use tokio::signal::unix::{SignalKind, signal};
    let (stop, stopped) = watch::channel(false);
    let (Ok(mut int), Ok(mut term)) = (
        signal(SignalKind::interrupt()),
        signal(SignalKind::terminate()),
    ) else {
        return stopped;
    };
    tokio::spawn(async move {
        for is_second in [false, true] {
            tokio::select! {
                _ = int.recv() => {}
                _ = term.recv() => {}
            }
            if is_second {
                std::process::exit(130);
            }
            stop.send_replace(true);
        }
    });
    stopped
}

impl Stack {
    /// Connects, provisions where this process leads anything, and starts the parts.
    pub(super) async fn start(place: &Place, plan: Plan, watched: &Arc<Watched>) -> Outcome<Self> {
        let connection = Arc::new(Connection::open_patiently(&place.connect).await?);
        // Nothing is started twice.
        let _ = watched.connection.set(Arc::clone(&connection));
        let provisioned = if plan.roles.is_empty() {
            None
        } else {
            Some(place.provision(&plan, &connection).await?)
        };
        start_live_spans(plan.live.as_ref(), &connection);
        let (stop, _) = watch::channel(false);
        let (shown, status) = watch::channel(ReplicaStatus::default());
        let mut parts = JoinSet::new();
        if !plan.roles.is_empty() {
            let _ = watched.replica.set(status.clone());
            let (connection, stop) = (Arc::clone(&connection), stop.subscribe());
            let watched = Arc::clone(watched);
            parts.spawn(keep_replica(connection, plan.clone(), shown, watched, stop));
        }
        if let Some(otlp) = &plan.traces {
            let options = ProjectorOptions {
                otlp: otlp.clone(),
                instance: ReplicaOptions::new_instance(&hostname()),
                takes_over: plan.takes_over,
                claim_ttl: plan.claim_ttl,
                checkpoint_every: plan.snapshot_every,
            };
            let (connection, stop) = (Arc::clone(&connection), stop.subscribe());
            parts.spawn(keep_projector(connection, options, stop));
        }
        let mut superseded = Vec::new();
        let host = host(&plan)?;
        let boxes = match plan.agents.as_slice() {
            [] => Boxes::none(std::env::current_exe()?),
            _ => plan.boxes.found(&host, &place.data).await?,
        };
        for agent in &plan.agents {
            let is_superseded = Arc::new(AtomicBool::new(false));
            superseded.push(Arc::clone(&is_superseded));
            let has_joined = watched.expects_agent();
            let options = AgentOptions {
                id: agent.id.clone(),
                slots: agent.slots,
                labels: agent.labels.clone(),
                data: place.data.join(agent.id.as_str()),
                boxes: boxes.clone(),
                kept: place.kept.join(agent.id.as_str()),
                host: host.clone(),
                drain_timeout: plan.drain_timeout,
                is_superseded,
                has_joined,
            };
            let connection = place.agent(&agent.id, &connection).await?;
            if let Some(path) = place.agent_credentials(&agent.id) {
                let renewing = renew(Arc::clone(&connection), agent.id.clone(), path);
                let stop = stop.subscribe();
                parts.spawn(until_stopped(renewing, stop));
            }
            parts.spawn(keep_agent(connection, options, stop.subscribe()));
        }
        watched.has_started.store(true, Ordering::Release);
        Ok(Self {
            connection,
            provisioned,
            status,
            stop,
            parts,
            superseded,
        })
    }

    /// Waits until it leads the roles it stands for, or at most so long.
    pub(super) async fn wait_leading(&mut self, roles: usize, at_most: Duration) -> bool {
        let leads = self
            .status
            .wait_for(|s| s.leads.len() >= roles && s.is_caught_up);
        tokio::time::timeout(at_most, leads)
            .await
            .is_ok_and(|r| r.is_ok())
    }

    /// Waits until it is told to stop, or something in it cannot go on.
    pub(super) async fn wait(&mut self, stop: &mut watch::Receiver<bool>) -> Outcome {
        loop {
            let stopped = self.status.borrow().stopped.clone();
            if let Some(problem) = stopped {
                return Err(Failure::new(Exit::Failure, problem));
            }
            if self.superseded.iter().any(|s| s.load(Ordering::Acquire)) {
                let message = "another process joined under the same agent name";
                return Err(Failure::new(Exit::Conflict, message)
                    .hint("give each agent a name of its own with --name"));
            }
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => return Ok(Exit::Ok),
                changed = self.status.changed() => {
                    if changed.is_err() {
                        // A process of agents alone has no replica to look at.
                        tokio::time::sleep(Duration::from_millis(250)).await;
                    }
                }
                () = tokio::time::sleep(Duration::from_secs(1)) => {}
            }
        }
    }

    /// Drains everything: agents first, so that their last reports are still counted.
    pub(super) async fn stop(mut self) {
        self.stop.send_replace(true);
        while self.parts.join_next().await.is_some() {}
        live::flush(Duration::from_secs(2)).await;
        self.connection.flush().await;
    }
}

/// What the agents of this process lend their attempts.
fn host(plan: &Plan) -> Outcome<Host> {
    let host = Host::from_env().map_err(|e| {
        Failure::usage(e)
            .hint("it is one of the variables that an agent reads; see README, Models without keys")
    })?;
    Ok(Host {
        secrets: Secrets::new(plan.secrets_dir.clone()),
        ..host
    })
}

/// Exports what goes on in this process; nobody is kept from working by that.
fn start_live_spans(otlp: Option<&Otlp>, connection: &Connection) {
    let resource = [
        ("service.version", env!("CARGO_PKG_VERSION").to_owned()),
        ("conductor.cell", connection.cell().to_string()),
    ];
    if let Some(Err(e)) = otlp.map(|otlp| live::start(otlp, &resource)) {
        tracing::warn!(error = %e, "no live spans are exported");
    }
}

fn role(name: RoleName, connection: &Connection) -> Box<dyn Role> {
    match name {
        RoleName::Orchestrator => {
            let seed = uuid::Uuid::new_v4().as_u64_pair().0;
            Box::new(Orchestrator::new(connection.cell(), seed))
        }
        RoleName::Scheduler => Box::new(Scheduler::new(connection.cell())),
    }
}

/// Returns once it is true, or nobody is left to say so.
pub(crate) async fn stopped(stop: &mut watch::Receiver<bool>) {
    // The value itself is a lock that must not be held over an await.
    let _ = stop.wait_for(|stop| *stop).await;
}

/// Does something until it is done or everything stops.
async fn until_stopped(work: impl Future<Output = ()>, mut stop: watch::Receiver<bool>) {
    tokio::select! {
        () = work => {}
        () = stopped(&mut stop) => {}
    }
}

/// Keeps a replica running; one that ends by itself is started again.
async fn keep_replica(
    connection: Arc<Connection>,
    plan: Plan,
    status: watch::Sender<ReplicaStatus>,
    watched: Arc<Watched>,
    mut stop: watch::Receiver<bool>,
) {
    let mut pause = Duration::from_millis(100);
    loop {
        let args = ReplicaArgs {
            connection: Arc::clone(&connection),
            roles: plan.roles.iter().map(|r| role(*r, &connection)).collect(),
            options: ReplicaOptions {
                instance: ReplicaOptions::new_instance(&hostname()),
                lock_ttl: plan.lock_ttl,
                takes_over: plan.takes_over,
                snapshot_every: plan.snapshot_every,
            },
            status: status.clone(),
        };
        let started = Replica::start(args).await;
        let actor = started.as_ref().ok().map(|(actor, _)| actor.clone());
        *watched.actor.lock().unwrap_or_else(PoisonError::into_inner) = actor;
        match started {
            Ok((actor, mut handle)) => tokio::select! {
                _ = &mut handle => tracing::error!("the replica ended; starting it again"),
                () = stopped(&mut stop) => {
                    // Agents report their last words first: they have their own patience.
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    let drained = ractor::call_t!(actor, ReplicaMsg::Drain, 10_000);
                    if drained.is_err() {
                        tracing::warn!("the replica did not drain in time");
                        actor.kill();
                    }
                    return;
                }
            },
            Err(e) => tracing::error!(error = %e, "the replica does not start"),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(5));
    }
}

/// Keeps a projector running; one that ends by itself is started again.
async fn keep_projector(
    connection: Arc<Connection>,
    options: ProjectorOptions,
    stop: watch::Receiver<bool>,
) {
    let mut pause = Duration::from_millis(100);
    loop {
        match Projector::run(Arc::clone(&connection), options.clone(), stop.clone()).await {
            Ok(()) => return,
            Err(e) => tracing::error!(error = %e, "the projector ended; starting it again"),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(5));
    }
}

/// Keeps an agent running; one that ends by itself is started again, unless another
/// process has its name now.
async fn keep_agent(
    connection: Arc<Connection>,
    options: AgentOptions,
    mut stop: watch::Receiver<bool>,
) {
    let mut pause = Duration::from_millis(100);
    let patience = options.drain_timeout + Duration::from_secs(20);
    while !options.is_superseded.load(Ordering::Acquire) {
        match Agent::start(Arc::clone(&connection), options.clone()).await {
            Ok((actor, mut handle)) => tokio::select! {
                _ = &mut handle => tracing::error!(agent = %options.id, "the agent ended"),
                () = stopped(&mut stop) => {
                    let patience = u64::try_from(patience.as_millis()).unwrap_or(u64::MAX);
                    if ractor::call_t!(actor, AgentMsg::Drain, patience).is_err() {
                        tracing::warn!(agent = %options.id, "the agent did not drain in time");
                        actor.kill();
                    }
                    return;
                }
            },
            Err(e) => tracing::error!(agent = %options.id, error = %e, "the agent does not start"),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(5));
    }
}
