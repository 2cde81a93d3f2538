//! What a run gave, for machines: everything a reader needs to judge it or repeat it.

use serde::{Deserialize, Serialize};

use crate::frames::Frames;
use crate::load::LoadResult;
use crate::plan::{LoadPlan, SystemPlan};
use crate::usage::Usage;

/// On what the run was measured.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Machine {
    /// Model of the processor.
    pub(crate) cpu: String,
    /// How many cores.
    pub(crate) cores: usize,
    /// Memory, in MB.
    pub(crate) memory_mb: u64,
    /// The kernel.
    pub(crate) kernel: String,
}

/// What survives when the power goes: runs that differ in it are not compared.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Durability {
    /// When the server syncs.
    pub(crate) sync_interval: String,
    /// Replicas of the log.
    pub(crate) replicas: usize,
    /// Where the log is kept.
    pub(crate) storage: String,
}

impl std::fmt::Display for Durability {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "sync_interval {}, {} replica(s), {} storage",
            self.sync_interval, self.replicas, self.storage
        )
    }
}

/// Of what and where.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Origin {
    /// Version of Conductor.
    pub(crate) version: String,
    /// Its commit, where that is known.
    pub(crate) commit: Option<String>,
    /// Version of the server.
    pub(crate) server: String,
    /// When, RFC 3339.
    pub(crate) date: String,
    /// The machine.
    pub(crate) machine: Machine,
}

/// A run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct RunResult {
    /// Of what and where.
    pub(crate) origin: Origin,
    /// The durability it was measured at.
    pub(crate) durability: Durability,
    /// The load.
    pub(crate) load_plan: LoadPlan,
    /// The system.
    pub(crate) system_plan: SystemPlan,
    /// Every process's command.
    pub(crate) commands: Vec<String>,
    /// Seconds until the system led and had read everything.
    pub(crate) ready_s: f64,
    /// What the load saw.
    pub(crate) load: LoadResult,
    /// What every process used.
    pub(crate) usage: Vec<Usage>,
    /// Sizes of records.
    pub(crate) frames: Vec<Frames>,
}

impl RunResult {
    /// CPU time of a task in microseconds, of all of Conductor's processes together.
    pub(crate) fn cpu_us_per_task(&self) -> f64 {
        let ours = self.usage.iter().filter(|u| u.is_ours);
        let tasks = self.load.ended_per_s * self.load.seconds;
        ours.map(|u| u.cpu_s).sum::<f64>() * 1e6 / tasks.max(1.0)
    }

    /// Tasks that were acknowledged and have not ended.
    pub(crate) fn unfinished(&self) -> u64 {
        self.load.acked.saturating_sub(self.load.ended)
    }

    /// Sums up what a person must know before believing the figures.
    pub(crate) fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if self.load.failed > 0 {
            problems.push(format!("{} submissions failed", self.load.failed));
        }
        if self.load_plan.observe && self.load_plan.drain && self.unfinished() > 0 {
            let n = self.unfinished();
            problems.push(format!("{n} acknowledged tasks did not end"));
        }
        problems
    }
}
