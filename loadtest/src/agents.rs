//! Simulated agents: the real agent actor, many of them in one process, with a connection
//! each. Tasks without work are done by the agent itself; for others it starts programs.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use conductor_agent::runtime::Host;
use conductor_agent::sandbox::Boxes;
use conductor_agent::service::{Agent, AgentMsg, AgentOptions, PROBE_EVERY};
use conductor_eventlog::jetstream::{Connect, Connection};
use conductor_protocol::AgentId;
use futures::{StreamExt, TryStreamExt};
use ractor::ActorRef;
use serde::{Deserialize, Serialize};
use tokio::signal::unix::{SignalKind, signal};

use crate::outcome::{Outcome, say};
use crate::plan::Target;

/// How long attempts may go on after SIGTERM.
const DRAIN: Duration = Duration::from_secs(2);

/// How many are started at once.
const STARTED_AT_ONCE: usize = 16;

/// Which agents to run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct AgentsPlan {
    /// How many.
    pub(crate) agents: u32,
    /// Slots of each.
    pub(crate) slots: u32,
    /// Below here attempts have their directories.
    pub(crate) data: PathBuf,
    /// The binary that reaps attempts.
    pub(crate) conductor: PathBuf,
}

/// Runs them until SIGTERM.
pub(crate) fn main(target: &Target, plan: &AgentsPlan) -> Outcome<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut stop = signal(SignalKind::terminate())?;
        let starting = (1..=plan.agents).map(|number| start(target, plan, number));
        let started = futures::stream::iter(starting).buffer_unordered(STARTED_AT_ONCE);
        let agents: Vec<_> = started.try_collect().await?;
        say(&format!("{} agents are started", agents.len()));
        let _ = stop.recv().await;
        let draining = agents.iter().map(drain);
        futures::future::join_all(draining).await;
        Ok(())
    })
}

async fn start(target: &Target, plan: &AgentsPlan, number: u32) -> Outcome<ActorRef<AgentMsg>> {
    let name = format!("a{number}");
    let connect = Connect {
        probe_every: PROBE_EVERY,
        ..target.connect(&format!("loadtest-{name}"))?
    };
    let connection = Arc::new(Connection::open_patiently(&connect).await?);
    let options = AgentOptions {
        data: data_of(&plan.data, &name),
        kept: plan.data.join("kept").join(&name),
        id: AgentId::from_log(&name),
        slots: plan.slots,
        labels: [].into(),
        boxes: Boxes::none(plan.conductor.clone()),
        host: Host::from_env()?,
        drain_timeout: DRAIN,
        is_superseded: Arc::new(AtomicBool::new(false)),
        has_joined: Arc::default(),
    };
    let (actor, _) = Agent::start(connection, options).await?;
    Ok(actor)
}

fn data_of(base: &Path, name: &str) -> PathBuf {
    base.join("attempts").join(name)
}

async fn drain(agent: &ActorRef<AgentMsg>) {
    // One that does not leave in time ends with the process.
    let _ = ractor::call_t!(agent, AgentMsg::Drain, 5_000);
}
