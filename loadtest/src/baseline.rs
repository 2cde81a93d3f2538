//! What the server gives without Conductor, on servers of its own: what a ratio divides by.

use std::sync::Arc;

use conductor_eventlog::jetstream::provision::{Provision, Risk};
use conductor_eventlog::jetstream::{Connect, Connection};

use crate::ground::Ground;
use crate::load::LoadResult;
use crate::outcome::{Outcome, put};
use crate::plan::{LoadPlan, Sync, SystemPlan, Target};
use crate::raw::{RawPlan, RawResult};
use crate::run::{Scene, load, replicas};
use crate::system::role;
use crate::table::{micros, number};

/// What to measure without Conductor.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct RawArgs {
    /// Publishes without an acknowledgement at once; several to see which is best
    #[arg(long, value_delimiter = ',', default_value = "256,512,1024")]
    windows: Vec<usize>,
    /// Seconds for each window
    #[arg(long, default_value_t = 4.0)]
    seconds: f64,
    /// When the server syncs
    #[arg(long, value_enum, default_value = "always")]
    sync: Sync,
    /// Replicas of the stream: 1, or 3 on a cluster of three servers
    #[arg(long, default_value_t = 1, value_parser = replicas)]
    replicas: usize,
}

/// Measures the bare client on servers that are there: the round trip first, alone.
pub(crate) fn raw(
    ground: &Ground,
    windows: &[usize],
    seconds: f64,
    replicas: usize,
) -> Outcome<Vec<RawResult>> {
    let round_trip = RawPlan {
        window: 1,
        seconds: 0.0,
        round_trips: seconds,
        replicas,
    };
    let events = windows.iter().map(|window| RawPlan {
        window: *window,
        seconds,
        round_trips: 0.0,
        replicas,
    });
    let plans = [round_trip].into_iter().chain(events);
    plans
        .map(|plan| role("raw", &ground.target(), &plan, ground.dir())?.result())
        .collect()
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
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let connect = Connect {
            url: target.url.clone(),
            name: "loadtest-provision".to_owned(),
            cell: target.cell.parse()?,
            credentials: None,
        };
        let connection = Arc::new(Connection::open(&connect).await?);
        let how = Provision {
            replicas: system.replicas,
            accepted_risks: vec![Risk::LazySync],
            monitor_url: None,
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
    let ground = Ground::start(&plan)?;
    for result in raw(&ground, &args.windows, args.seconds, args.replicas)? {
        if let Some(round_trip) = &result.round_trip {
            let p = &round_trip.measured;
            let (p50, p99) = (micros(p.p50), micros(p.p99));
            put(&format!("one acknowledged publish: p50 {p50}, p99 {p99}"));
        } else {
            put(&format!(
                "window {}: {} published a second, {} consumed: {} tasks a second",
                result.window,
                number(result.published_per_s),
                number(result.consumed_per_s),
                number(result.tasks_per_s)
            ));
        }
    }
    Ok(())
}
