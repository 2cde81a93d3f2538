//! The processes of Conductor that a run measures.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::agents::AgentsPlan;
use crate::ground::Ground;
use crate::outcome::Outcome;
use crate::plan::{Layout, Sync, SystemPlan, Target};
use crate::process::{Process, conductor};
use crate::usage::{self, Watched};

/// How long a process may take until it is ready.
const START: Duration = Duration::from_secs(120);
/// How long it may take to drain.
const STOP: Duration = Duration::from_secs(15);
/// What `conductor up` says when it leads and has read everything.
const UP: &str = "conductor is up";

/// Running processes of Conductor.
#[derive(Debug)]
pub(crate) struct System {
    /// The processes that decide.
    pub(crate) deciders: Vec<Process>,
    /// The simulated agents.
    pub(crate) agents: Option<Process>,
    /// How long the deciders took until they led and had read everything.
    pub(crate) ready: Duration,
    layout: Layout,
    data: PathBuf,
}

impl System {
    /// Starts what the plan says against running servers.
    pub(crate) fn start(plan: &SystemPlan, ground: &Ground) -> Outcome<Self> {
        let mut system = Self::start_deciders(plan, ground)?;
        system.start_agents(plan, ground)?;
        Ok(system)
    }

    /// Starts all but the agents.
    pub(crate) fn start_deciders(plan: &SystemPlan, ground: &Ground) -> Outcome<Self> {
        let (data, binary) = (ground.dir().join("conductor"), conductor()?);
        let common = against(plan, ground, &data);
        let commands: &[&[&str]] = match plan.layout {
            Layout::Roles => &[&["orchestrator"], &["scheduler"]],
            _ => &[&["up", "--agents", "0"]],
        };
        let mut deciders = Vec::new();
        for words in commands {
            let words = words.iter().map(|w| (*w).to_owned());
            let args: Vec<String> = words.chain(common.iter().cloned()).collect();
            let name = args.first().map_or("conductor", String::as_str);
            let name = if name == "up" { "system" } else { name };
            deciders.push(Process::start(name, &binary, &args, ground.dir())?);
        }
        let mut ready = Duration::ZERO;
        for decider in &mut deciders {
            let says = if plan.layout == Layout::Roles {
                " on nats://"
            } else {
                UP
            };
            ready = ready.max(decider.wait_says(says, START)?);
        }
        Ok(Self {
            deciders,
            agents: None,
            ready,
            layout: plan.layout,
            data,
        })
    }

    /// Starts the agents.
    pub(crate) fn start_agents(&mut self, plan: &SystemPlan, ground: &Ground) -> Outcome<()> {
        if plan.agents == 0 {
            return Ok(());
        }
        let agents = AgentsPlan {
            agents: plan.agents,
            slots: plan.slots,
            data: self.data.clone(),
            conductor: conductor()?,
        };
        let mut agents = role("agents", &ground.target(), &agents, ground.dir())?;
        agents.wait_says("agents are started", START)?;
        self.agents = Some(agents);
        Ok(())
    }

    /// Starts `conductor up` with a server of its own and agents in the same process.
    pub(crate) fn start_up(plan: &SystemPlan, dir: &Path) -> Outcome<(Self, Target)> {
        if plan.sync != Sync::Always || plan.replicas != 1 {
            let problem = "`conductor up` starts one server that syncs always; \
                           take --layout split for anything else";
            return Err(problem.into());
        }
        let data = dir.join("up");
        let args = [
            "up",
            "--agents",
            &plan.agents.to_string(),
            "--slots",
            &plan.slots.to_string(),
            "--nats-port",
            "0",
            "--data-dir",
            &data.display().to_string(),
        ];
        let mut args = args.map(str::to_owned).to_vec();
        if !plan.has_accounts {
            args.push("--open-server".to_owned());
        }
        let mut up = Process::start("up", &conductor()?, &args, dir)?;
        let ready = up.wait_says(UP, START)?;
        let target = Target {
            url: std::fs::read_to_string(data.join("nats.url"))?,
            cell: "local".to_owned(),
            credentials: plan.has_accounts.then(|| data.join("keys/operator.creds")),
            client: plan.has_accounts.then(|| data.join("keys/client.creds")),
        };
        let system = Self {
            deciders: vec![up],
            agents: None,
            ready,
            layout: plan.layout,
            data,
        };
        Ok((system, target))
    }

    /// Its processes, and the server that `conductor up` started.
    pub(crate) fn watched(&self) -> Vec<Watched> {
        let processes = self.deciders.iter().chain(&self.agents);
        let mut watched: Vec<Watched> = processes
            .map(|p| Watched {
                name: p.name.clone(),
                pid: p.pid(),
                is_ours: true,
            })
            .collect();
        if self.layout == Layout::Up {
            let servers = self.deciders.iter().flat_map(|p| usage::children(p.pid()));
            watched.extend(servers.map(|pid| Watched {
                name: "nats-server".to_owned(),
                pid,
                is_ours: false,
            }));
        }
        watched
    }

    /// Their commands.
    pub(crate) fn commands(&self) -> Vec<String> {
        let processes = self.deciders.iter().chain(&self.agents);
        processes.map(|p| p.command.clone()).collect()
    }

    /// The end of what each of them said, for people.
    pub(crate) fn last_words(&self) -> String {
        let processes = self.deciders.iter().chain(&self.agents);
        let words = processes.map(|p| format!("---- {}\n{}\n", p.name, p.last_words()));
        words.collect()
    }

    /// Stops the agents.
    pub(crate) fn stop_agents(&mut self) {
        if let Some(mut agents) = self.agents.take() {
            agents.stop(STOP);
        }
    }

    /// Stops everything in an orderly way.
    pub(crate) fn stop(mut self) {
        self.stop_agents();
        self.deciders.iter_mut().for_each(|p| p.stop(STOP));
    }
}

/// What every decider is told.
fn against(plan: &SystemPlan, ground: &Ground, data: &Path) -> Vec<String> {
    let mut args = vec![
        "--nats-url".to_owned(),
        ground.target().url,
        "--data-dir".to_owned(),
        data.display().to_string(),
        "--replicas".to_owned(),
        plan.replicas.to_string(),
    ];
    if !plan.is_seen {
        args.extend(["--log", "off", "--metrics-addr", "off"].map(str::to_owned));
    }
    if let Some(monitor) = ground.monitor_url() {
        args.extend(["--nats-monitor-url".to_owned(), monitor]);
    }
    if plan.sync != Sync::Always {
        args.extend(["--accept-risk".to_owned(), "lazy-sync".to_owned()]);
    }
    args
}

/// Starts a role of this very program as a process of its own.
pub(crate) fn role(
    name: &str,
    target: &Target,
    plan: &impl serde::Serialize,
    dir: &Path,
) -> Outcome<Process> {
    let args = [
        format!("role-{name}"),
        serde_json::to_string(target)?,
        serde_json::to_string(plan)?,
    ];
    Process::start(name, &std::env::current_exe()?, &args, dir)
}
