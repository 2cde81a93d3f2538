//! Long-running commands: the whole system, one role, or a demonstration.

pub(crate) mod access;
mod boxes;
mod demo;
mod enrolment;
mod issuer;
mod local;
mod provision;
mod refusals;
mod sight;
mod stack;
mod store;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use conductor_eventlog::jetstream::provision::Risk;
use conductor_telemetry::Otlp;

use crate::exit::{Failure, Outcome};
use crate::settings::Settings;
use boxes::BoxArgs;
pub(crate) use provision::provision_patiently;
use stack::{AgentPlan, Plan};
pub(crate) use stack::{signals, stopped};
use store::StoreArgs;

/// How long a projector waits for a silent one unless told otherwise.
const CLAIM_TTL: Duration = Duration::from_secs(15);

/// What to run.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum RunCommand {
    /// Run the whole system on this machine: server, orchestrator, scheduler, agents
    Up(UpArgs),
    /// Run an orchestrator; any number may run, one leads
    Orchestrator(RoleArgs),
    /// Run a scheduler; any number may run, one leads
    Scheduler(RoleArgs),
    /// Export a trace of each task over OTLP, as the OTEL_* variables say; any number may run,
    /// one exports
    Projector(ProjectorArgs),
    /// Give agents credentials: for the tokens of `agent enroll`, and new ones before those end
    Issuer(IssuerArgs),
    /// Show it all in a minute: start, run sample tasks, replay, stop
    Demo,
}

/// How to provision and lead.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct RoleArgs {
    /// Accept a risk by name: lazy-sync, new-log
    #[arg(long, value_name = "RISK")]
    accept_risk: Vec<Risk>,
    /// Replicas of the streams, where they do not exist yet
    #[arg(long, default_value_t = 1)]
    replicas: usize,
    /// How long a dead leader's lock outlives it
    #[arg(long, default_value = "5s", value_parser = lock_ttl)]
    lock_ttl: Duration,
    /// Records between snapshots; 0 for none
    #[arg(long, default_value_t = 100_000)]
    snapshot_every: u64,
}

/// How to give agents credentials.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct IssuerArgs {
    #[command(flatten)]
    keys: crate::cli::access::KeysArgs,
    /// How long credentials of agents are good; they are renewed at half of that
    #[arg(long, default_value = "24h", value_parser = duration)]
    good_for: Duration,
}

/// How to project traces.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct ProjectorArgs {
    /// Records between checkpoints, which only save time at a start; 0 for none
    #[arg(long, default_value_t = 100_000)]
    checkpoint_every: u64,
    /// How long another projector waits for a silent one before it goes on instead
    #[arg(long, default_value = "15s", value_parser = claim_ttl)]
    claim_ttl: Duration,
}

/// How to run the whole system.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct UpArgs {
    #[command(flatten)]
    role: RoleArgs,
    /// How many agents
    #[arg(long, default_value_t = 2)]
    agents: u32,
    /// Slots of each agent
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    slots: u32,
    /// Labels of the agents, as key=value
    #[arg(long = "label", value_parser = key_value, value_name = "KEY=VALUE")]
    labels: Vec<(String, String)>,
    /// Client port of the server it starts; another free one when it is taken
    #[arg(long, default_value_t = 4222)]
    nats_port: u16,
    /// Start the server without accounts: whoever reaches it may do everything
    #[arg(long)]
    open_server: bool,
    #[command(flatten)]
    store: StoreArgs,
    /// How long running attempts may go on after Ctrl-C
    #[arg(long, default_value = "10s", value_parser = duration)]
    drain_timeout: Duration,
    /// Files that are secrets tasks may be granted, each named as its secret is
    #[arg(long, env = "CONDUCTOR_SECRETS_DIR", value_name = "DIR")]
    secrets_dir: Option<PathBuf>,
    #[command(flatten)]
    boxes: BoxArgs,
}

/// How to run an agent.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct AgentArgs {
    /// Its name, stable across restarts [default: the host's name]
    #[arg(long)]
    name: Option<String>,
    /// How many slots it offers
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    slots: u32,
    /// Its labels, as key=value
    #[arg(long = "label", value_parser = key_value, value_name = "KEY=VALUE")]
    labels: Vec<(String, String)>,
    /// Token of `conductor agent enroll`, for its first start
    #[arg(
        long,
        env = "CONDUCTOR_AGENT_TOKEN",
        value_name = "TOKEN",
        hide_env_values = true
    )]
    token: Option<String>,
    /// How long running attempts may go on after SIGTERM
    #[arg(long, default_value = "30s", value_parser = duration)]
    drain_timeout: Duration,
    /// Files that are secrets tasks may be granted, each named as its secret is
    #[arg(long, env = "CONDUCTOR_SECRETS_DIR", value_name = "DIR")]
    secrets_dir: Option<PathBuf>,
    #[command(flatten)]
    boxes: BoxArgs,
}

pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    conductor_protocol::human::parse_duration(text)
        .map(|d| Duration::from_millis(d.0))
        .ok_or_else(|| format!("{text:?} is no duration; write 90s, 5m or 1h 30m"))
}

/// The server counts the time of a lock in whole seconds, and three renewals must fit in.
fn lock_ttl(text: &str) -> Result<Duration, String> {
    let ttl = duration(text)?;
    if (Duration::from_secs(1)..=Duration::from_secs(60)).contains(&ttl) {
        Ok(ttl)
    } else {
        Err(format!("{text:?} is not between 1s and 60s"))
    }
}

/// Three renewals must fit in, each of which may wait for the servers.
fn claim_ttl(text: &str) -> Result<Duration, String> {
    let ttl = duration(text)?;
    if (Duration::from_secs(1)..=Duration::from_secs(300)).contains(&ttl) {
        Ok(ttl)
    } else {
        Err(format!("{text:?} is not between 1s and 5m"))
    }
}

pub(crate) fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(format!("{text:?} is not of the form key=value")),
    }
}

/// Runs it until it is told to stop.
pub(crate) async fn main(command: RunCommand, settings: &Settings) -> Outcome {
    match command {
        RunCommand::Up(args) => Box::pin(local::up(args, settings)).await,
        RunCommand::Orchestrator(args) => {
            let roles = vec![conductor_protocol::subject::Role::Orchestrator];
            stack::serve(settings, traced(plan(args, roles, Vec::new()))).await
        }
        RunCommand::Scheduler(args) => {
            let roles = vec![conductor_protocol::subject::Role::Scheduler];
            stack::serve(settings, traced(plan(args, roles, Vec::new()))).await
        }
        RunCommand::Projector(args) => Box::pin(projector(args, settings)).await,
        RunCommand::Issuer(args) => issuer::run(args, settings).await,
        RunCommand::Demo => Box::pin(demo::run(settings)).await,
    }
}

fn plan(
    args: RoleArgs,
    roles: Vec<conductor_protocol::subject::Role>,
    agents: Vec<AgentPlan>,
) -> Plan {
    Plan {
        roles,
        agents,
        boxes: BoxArgs::default(),
        traces: None,
        live: None,
        replicas: args.replicas,
        accepted_risks: args.accept_risk,
        lock_ttl: args.lock_ttl,
        takes_over: false,
        claim_ttl: CLAIM_TTL,
        snapshot_every: args.snapshot_every,
        drain_timeout: Duration::from_secs(10),
        secrets_dir: None,
    }
}

async fn projector(args: ProjectorArgs, settings: &Settings) -> Outcome {
    let Some(otlp) = Otlp::from_env()? else {
        return Err(
            Failure::usage("nothing says where traces go".to_owned()).hint(
                "set OTEL_EXPORTER_OTLP_ENDPOINT to a collector, such as http://127.0.0.1:4317",
            ),
        );
    };
    let mut plan = no_role_plan(Vec::new());
    plan.snapshot_every = args.checkpoint_every;
    plan.claim_ttl = args.claim_ttl;
    plan.traces = Some(otlp);
    stack::serve(settings, plan).await
}

/// With live spans where the environment names a collector.
fn traced(plan: Plan) -> Plan {
    Plan {
        live: otlp_if_any(),
        ..plan
    }
}

/// Where traces go; what is wrong with that keeps nobody from working.
fn otlp_if_any() -> Option<Otlp> {
    Otlp::from_env().unwrap_or_else(|e| {
        tracing::warn!(error = %e, "no traces are exported");
        None
    })
}

/// What runs without leading anything.
fn no_role_plan(agents: Vec<AgentPlan>) -> Plan {
    let role = RoleArgs {
        accept_risk: Vec::new(),
        replicas: 1,
        lock_ttl: Duration::from_secs(5),
        snapshot_every: 0,
    };
    plan(role, Vec::new(), agents)
}

/// Runs one agent until it is told to stop.
pub(crate) async fn agent(args: AgentArgs, settings: &Settings) -> Outcome {
    let name = args.name.unwrap_or_else(|| {
        conductor_agent::service::hostname().replace(|c: char| !c.is_ascii_alphanumeric(), "-")
    });
    let id = name
        .parse()
        .map_err(|e| Failure::usage(format!("--name {name:?}: {e}")))?;
    let labels: BTreeMap<_, _> = args.labels.into_iter().collect();
    let agent = AgentPlan {
        id,
        slots: args.slots,
        labels,
    };
    let mut settings = settings.clone();
    if settings.creds.is_none() {
        let path = enrolment::path(&settings.data_dir, &agent.id);
        if let Some(token) = &args.token {
            let connect = settings.connect("conductor-enrol");
            enrolment::enrol(&connect, &agent.id, token, &path).await?;
        }
        settings.creds = path.exists().then_some(path);
    }
    let mut plan = traced(no_role_plan(vec![agent]));
    plan.drain_timeout = args.drain_timeout;
    plan.secrets_dir = args.secrets_dir;
    plan.boxes = args.boxes;
    stack::serve(&settings, plan).await
}
