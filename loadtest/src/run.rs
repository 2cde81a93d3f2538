//! One measured run: servers, system, load, and a look at what all of them used.

use std::path::PathBuf;

use crate::describe;
use crate::frames;
use crate::ground::{Ground, directory};
use crate::load::LoadResult;
use crate::origin;
use crate::outcome::{Outcome, put, say};
use crate::plan::{Arrivals, Kind, Layout, LoadPlan, Submit, Sync, SystemPlan, Target};
use crate::result::RunResult;
use crate::system::{System, role};
use crate::usage::{Sampler, Usage, Watched};

/// What to measure.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct RunArgs {
    /// The tasks
    #[arg(long, value_enum, default_value = "noop")]
    workload: Kind,
    /// Bytes of an encoded submission
    #[arg(long, default_value_t = 256)]
    bytes: usize,
    /// When tasks are submitted
    #[arg(long, value_enum, default_value = "closed")]
    arrivals: Arrivals,
    /// Tasks per second, for constant and poisson arrivals
    #[arg(long, default_value_t = 1_000.0)]
    rate: f64,
    /// Tasks submitted and not ended, for closed arrivals
    #[arg(long, default_value_t = 20_000)]
    in_flight: usize,
    /// How they are submitted
    #[arg(long, value_enum, default_value = "gather")]
    submit: Submit,
    /// Connections that submit
    #[arg(long, default_value_t = 1)]
    connections: usize,
    /// Single publishes without an acknowledgement at once, per connection
    #[arg(long, default_value_t = 16)]
    publishes: usize,
    /// Seconds before the measured window
    #[arg(long, default_value_t = 3.0)]
    warmup: f64,
    /// Seconds of the measured window
    #[arg(long, default_value_t = 10.0)]
    duration: f64,
    /// End once so many tasks were submitted, instead of by time
    #[arg(long)]
    count: Option<u64>,
    #[command(flatten)]
    system: SystemArgs,
    /// Write the result as JSON
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Write a report with plots
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

/// The system to measure.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct SystemArgs {
    /// Which processes there are
    #[arg(long, value_enum, default_value = "split")]
    layout: Layout,
    /// Simulated agents
    #[arg(long, default_value_t = 10)]
    agents: u32,
    /// Slots of each agent
    #[arg(long, default_value_t = 1_024)]
    slots: u32,
    /// When the server syncs
    #[arg(long, value_enum, default_value = "always")]
    sync: Sync,
    /// Replicas of the log: 1, or 3 on a cluster of three servers
    #[arg(long, default_value_t = 1, value_parser = replicas)]
    replicas: usize,
}

pub(crate) fn replicas(text: &str) -> Result<usize, String> {
    match text {
        "1" => Ok(1),
        "3" => Ok(3),
        other => Err(format!("{other:?} is neither 1 nor 3")),
    }
}

impl SystemArgs {
    fn plan(&self) -> SystemPlan {
        SystemPlan {
            layout: self.layout,
            agents: self.agents,
            slots: self.slots,
            sync: self.sync,
            replicas: self.replicas,
            ..SystemPlan::default()
        }
    }
}

impl RunArgs {
    fn load_plan(&self) -> LoadPlan {
        LoadPlan {
            workload: self.workload,
            bytes: self.bytes,
            arrivals: self.arrivals,
            rate: self.rate,
            in_flight: self.in_flight,
            submit: self.submit,
            connections: self.connections,
            publishes: self.publishes,
            warmup: self.warmup,
            duration: self.duration,
            count: self.count,
            ..LoadPlan::default()
        }
    }
}

/// Where the load goes, and what is watched meanwhile.
pub(crate) struct Scene<'a> {
    /// The servers.
    pub(crate) target: Target,
    /// Where files may be kept.
    pub(crate) dir: &'a std::path::Path,
    /// Every process but the load.
    pub(crate) watched: Vec<Watched>,
}

/// Runs the load against what is there; returns what it saw, what every process used
/// meanwhile, and its command.
pub(crate) fn load(scene: &Scene, plan: &LoadPlan) -> Outcome<(LoadResult, Vec<Usage>, String)> {
    let mut load = role("load", &scene.target, plan, scene.dir)?;
    let mut watched = scene.watched.clone();
    watched.push(Watched {
        name: "load".to_owned(),
        pid: load.pid(),
        is_ours: false,
    });
    let sampler = Sampler::start(watched);
    let result: Outcome<LoadResult> = load.result();
    let window = result.as_ref().map_or((0, 0), |r| r.window_ms);
    let usage = sampler.stop(window);
    Ok((result?, usage, load.command.clone()))
}

/// Measures one plan on servers and a system of its own.
pub(crate) fn run(system_plan: &SystemPlan, load_plan: &LoadPlan) -> Outcome<RunResult> {
    if system_plan.layout == Layout::Up {
        let dir = directory()?;
        let (system, target) = System::start_up(system_plan, dir.path())?;
        let scene = Scene {
            target,
            dir: dir.path(),
            watched: system.watched(),
        };
        let result = measure(&scene, &system, Vec::new(), system_plan, load_plan);
        system.stop();
        return result;
    }
    let ground = Ground::start(system_plan)?;
    let system = System::start(system_plan, &ground)?;
    let result = on(&ground, &system, system_plan, load_plan);
    system.stop();
    result
}

/// Measures a plan on servers and a system that are there.
pub(crate) fn on(
    ground: &Ground,
    system: &System,
    system_plan: &SystemPlan,
    load_plan: &LoadPlan,
) -> Outcome<RunResult> {
    let mut watched = ground.watched();
    watched.extend(system.watched());
    let scene = Scene {
        target: ground.target(),
        dir: ground.dir(),
        watched,
    };
    measure(&scene, system, ground.commands(), system_plan, load_plan)
}

fn measure(
    scene: &Scene,
    system: &System,
    mut commands: Vec<String>,
    system_plan: &SystemPlan,
    load_plan: &LoadPlan,
) -> Outcome<RunResult> {
    let (load, usage, command) = load(scene, load_plan)?;
    commands.extend(system.commands());
    commands.push(command);
    let result = RunResult {
        origin: origin::here(),
        durability: origin::durability(system_plan),
        load_plan: load_plan.clone(),
        system_plan: system_plan.clone(),
        commands,
        ready_s: system.ready.as_secs_f64(),
        load,
        usage,
        frames: frames::read(&scene.target)?,
    };
    for problem in result.problems() {
        say(&format!("NOT SOUND: {problem}\n{}", system.last_words()));
    }
    Ok(result)
}

/// The command.
pub(crate) fn main(args: &RunArgs) -> Outcome<()> {
    let result = run(&args.system.plan(), &args.load_plan())?;
    let report = describe::report(&result);
    put(&report.markdown());
    if let Some(path) = &args.out {
        std::fs::write(path, serde_json::to_string_pretty(&result)?)?;
    }
    if let Some(path) = &args.html {
        report.write_html(path)?;
    }
    Ok(())
}
