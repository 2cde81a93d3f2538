//! What the server gives without Conductor, on servers of its own: what a ratio divides by.

use conductor_eventlog::jetstream::provision::{Provision, Risk};

use serde::{Deserialize, Serialize};

use crate::bench::rows::Spread;
use crate::ground::Ground;
use crate::latency::Latency;
use crate::load::LoadResult;
use crate::nats;
use crate::origin;
use crate::outcome::{Outcome, put};
use crate::plan::{LoadPlan, Sync, SystemPlan, Target};
use crate::raw::{Consumer, RawPlan, RawResult};
use crate::report::Part;
use crate::run::{Scene, load, replicas};
use crate::system::role;
use crate::table::{micros, number};

/// What to measure without Conductor.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct RawArgs {
    /// Publishes without an acknowledgement at once; several to see which is best
    #[arg(long, value_delimiter = ',', default_value = "1,256,1024")]
    pub(crate) windows: Vec<usize>,
    /// Who consumes what is published; several to see which is best
    #[arg(long, value_enum, value_delimiter = ',', default_value = "file,memory")]
    pub(crate) consumers: Vec<Consumer>,
    /// Seconds for each
    #[arg(long, default_value_t = 4.0)]
    pub(crate) seconds: f64,
    /// How often the round trip is measured
    #[arg(long, default_value_t = 1)]
    pub(crate) repeat: usize,
    /// When the server syncs
    #[arg(long, value_enum, default_value = "always")]
    pub(crate) sync: Sync,
    /// Replicas of the stream: 1, or 3 on a cluster of three servers
    #[arg(long, default_value_t = 1, value_parser = replicas)]
    pub(crate) replicas: usize,
}

/// What the bare client and server give.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Baseline {
    /// The round trip of one acknowledged publish at a time, as often as it was measured.
    pub(crate) round_trips: Vec<Latency>,
    /// Events published and consumed, of every variant that was tried.
    pub(crate) variants: Vec<RawResult>,
    /// The commands.
    pub(crate) commands: Vec<String>,
}

impl Baseline {
    /// Tasks a second of the best variant.
    pub(crate) fn tasks_per_s(&self) -> f64 {
        let each = self.variants.iter().map(|v| v.tasks_per_s);
        each.fold(0.0, f64::max)
    }

    /// The median round trip, in microseconds.
    pub(crate) fn round_trip_p50(&self) -> f64 {
        Spread::of(self.round_trips.iter().map(|r| r.measured.p50)).median()
    }

    /// For people.
    pub(crate) fn part(&self, title: &str) -> Part {
        let round_trips = self.round_trips.iter().map(|round_trip| {
            let p = &round_trip.measured;
            vec![
                "one acknowledged publish at a time".to_owned(),
                // The longest is what the machine itself adds to every tail.
                format!(
                    "p50 {}, p99 {}, longest {}",
                    micros(p.p50),
                    micros(p.p99),
                    micros(p.max)
                ),
                String::new(),
                String::new(),
            ]
        });
        let mut rows: Vec<Vec<String>> = round_trips.collect();
        rows.extend(self.variants.iter().map(|v| {
            vec![
                format!("window {}, consumer {:?}", v.window, v.consumer),
                number(v.published_per_s),
                number(v.consumed_per_s),
                number(v.tasks_per_s),
            ]
        }));
        let head = [
            "bare client",
            "published a second",
            "consumed",
            "tasks a second",
        ];
        Part::table(title, &head, rows)
    }
}

/// Measures the bare client on a server of its own: the round trip first, alone.
pub(crate) fn raw(args: &RawArgs) -> Outcome<Baseline> {
    let plan = SystemPlan {
        sync: args.sync,
        replicas: args.replicas,
        ..SystemPlan::default()
    };
    let ground = Ground::start(&plan)?;
    let mut baseline = Baseline::default();
    let mut measure = |plan: &RawPlan| -> Outcome<RawResult> {
        let mut role = role("raw", &ground.target(), plan, ground.dir())?;
        baseline.commands.push(role.command.clone());
        role.result()
    };
    let mut plan = RawPlan::round_trips(args.seconds, args.replicas);
    let mut round_trips = Vec::new();
    for _ in 0..args.repeat.max(1) {
        round_trips.extend(measure(&plan)?.round_trip);
    }
    plan.round_trips = 0.0;
    plan.seconds = args.seconds;
    let mut variants = Vec::new();
    for consumer in &args.consumers {
        for window in &args.windows {
            plan.consumer = *consumer;
            plan.window = *window;
            variants.push(measure(&plan)?);
        }
    }
    Ok(Baseline {
        round_trips,
        variants,
        ..baseline
    })
}

/// How many submissions the server takes without anybody who reads them: the log as
/// Conductor makes it, and the same load.
pub(crate) fn accepted(system: &SystemPlan, plan: &LoadPlan) -> Outcome<LoadResult> {
    let ground = Ground::start(system)?;
    make_log(&ground.target(), system)?;
    let scene = Scene {
        target: ground.target(),
        dir: ground.dir(),
        watched: ground.watched(),
    };
    let plan = LoadPlan {
        observe: false,
        ..plan.clone()
    };
    Ok(load(&scene, &plan)?.0)
}

fn make_log(target: &Target, system: &SystemPlan) -> Outcome<()> {
    nats::with(target, async |connection| {
        let how = Provision {
            replicas: system.replicas,
            accepted_risks: vec![Risk::LazySync],
            ..Provision::default()
        };
        connection.provision(&how).await?;
        Ok(())
    })
}

/// The command.
pub(crate) fn main(args: &RawArgs) -> Outcome<()> {
    let plan = SystemPlan {
        sync: args.sync,
        replicas: args.replicas,
        ..SystemPlan::default()
    };
    let title = format!("Without Conductor, {}", origin::durability(&plan));
    put(&raw(args)?.part(&title).markdown());
    Ok(())
}
