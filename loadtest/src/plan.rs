//! What is measured: everything that distinguishes one run from another.

use std::path::PathBuf;

use conductor_eventlog::jetstream::Connect;
use serde::{Deserialize, Serialize};

use crate::outcome::Outcome;

/// What the tasks are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Kind {
    /// Tasks without work
    Noop,
    /// Chains of ten, each needing the one before
    Chain,
    /// One, then a hundred that need it, then one that needs those
    Fan,
    /// Tasks without work, of all ten priorities
    Priorities,
    /// Tasks without work, of a thousand namespaces
    Namespaces,
    /// Programs that fail and are tried three times
    Retries,
    /// Programs that start and end well
    Command,
}

/// When tasks are submitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Arrivals {
    /// As soon as one of those in flight has ended
    Closed,
    /// At even distances, whatever the system does
    Constant,
    /// At random distances, whatever the system does
    Poisson,
}

/// How tasks are submitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Submit {
    /// Each by a publish of its own, as any NATS client would
    Single,
    /// By the client library, which gathers them
    Gather,
}

/// Which processes there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Layout {
    /// Server, both roles in one process, agents in another, load
    Split,
    /// Server, one process for each role, agents, load
    Roles,
    /// `conductor up` with everything, and load
    Up,
}

/// When the server syncs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
pub(crate) enum Sync {
    /// Before each acknowledgement
    #[serde(rename = "always")]
    #[value(name = "always")]
    Always,
    /// Every two minutes: a power cut loses what was acknowledged
    #[serde(rename = "2m")]
    #[value(name = "2m")]
    TwoMinutes,
}

impl Sync {
    /// As the server's configuration has it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Always => "always",
            Self::TwoMinutes => "2m",
        }
    }
}

/// What the load generator does.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct LoadPlan {
    /// The tasks.
    pub(crate) workload: Kind,
    /// Bytes of an encoded submission.
    pub(crate) bytes: usize,
    /// When they are submitted.
    pub(crate) arrivals: Arrivals,
    /// Tasks per second, where arrivals are open.
    pub(crate) rate: f64,
    /// Tasks submitted and not ended, where arrivals are closed.
    pub(crate) in_flight: usize,
    /// How they are submitted.
    pub(crate) submit: Submit,
    /// Connections that submit.
    pub(crate) connections: usize,
    /// Single publishes without an acknowledgement at once, per connection.
    pub(crate) publishes: usize,
    /// Seconds before the measured window.
    pub(crate) warmup: f64,
    /// Seconds of the measured window.
    pub(crate) duration: f64,
    /// End once so many tasks were submitted, whatever the duration.
    pub(crate) count: Option<u64>,
    /// Whether ends are waited for; without a system there are none.
    pub(crate) observe: bool,
    /// Whether to wait for the end of what is still in flight.
    pub(crate) drain: bool,
    /// Whether to look up when attempts began by the log's own time, once it is over.
    #[serde(default)]
    pub(crate) by_log: bool,
    /// Seconds without any end after which what is in flight counts as unfinished.
    pub(crate) patience: f64,
}

impl Default for LoadPlan {
    fn default() -> Self {
        Self {
            workload: Kind::Noop,
            bytes: 256,
            arrivals: Arrivals::Closed,
            rate: 1_000.0,
            in_flight: 20_000,
            submit: Submit::Gather,
            connections: 1,
            publishes: 16,
            warmup: 3.0,
            duration: 10.0,
            count: None,
            observe: true,
            drain: true,
            by_log: false,
            patience: 15.0,
        }
    }
}

/// What the system under load is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct SystemPlan {
    /// Which processes.
    pub(crate) layout: Layout,
    /// How many agents.
    pub(crate) agents: u32,
    /// Slots of each.
    pub(crate) slots: u32,
    /// When the server syncs.
    pub(crate) sync: Sync,
    /// Replicas of the log, and so how many servers: 1 or 3.
    pub(crate) replicas: usize,
    /// Whether it can be watched, as it can unless told otherwise: metrics, health, log.
    pub(crate) is_seen: bool,
    /// Whether the server of `conductor up` has accounts, as it has unless told otherwise.
    pub(crate) has_accounts: bool,
}

impl Default for SystemPlan {
    fn default() -> Self {
        Self {
            layout: Layout::Split,
            agents: 10,
            slots: 1_024,
            sync: Sync::Always,
            replicas: 1,
            is_seen: true,
            has_accounts: true,
        }
    }
}

/// Which servers to reach.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Target {
    /// Their addresses, comma-separated.
    pub(crate) url: String,
    /// The cell.
    pub(crate) cell: String,
    /// Credentials, where they want some: of who observes.
    pub(crate) credentials: Option<PathBuf>,
    /// Those of who submits.
    pub(crate) client: Option<PathBuf>,
}

impl Target {
    /// How to connect to them.
    pub(crate) fn connect(&self, name: &str) -> Outcome<Connect> {
        Ok(Connect {
            credentials: self.credentials.clone(),
            ..Connect::to(&self.url, name, self.cell.parse()?)
        })
    }

    /// The same as a client, who only submits.
    pub(crate) fn as_client(&self) -> Self {
        Self {
            credentials: self.client.clone(),
            ..self.clone()
        }
    }
}
