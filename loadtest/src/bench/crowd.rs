//! Many agents: what they cost while there is nothing to do, and what they slow down.

use std::time::Duration;

use super::Bench;
use super::rows::Row;
use super::throughput::brief;
use crate::ground::Ground;
use crate::nats;
use crate::outcome::Outcome;
use crate::plan::SystemPlan;
use crate::run;
use crate::system::System;
use crate::table::number;
use crate::usage::{Sampler, Usage};
use crate::workload::now_ms;

/// How long a log may take until it is quiet.
const QUIET: Duration = Duration::from_secs(60);

/// Each with as many slots as few agents have.
pub(crate) fn plan(agents: u32) -> SystemPlan {
    SystemPlan {
        agents,
        ..SystemPlan::default()
    }
}

/// What everything uses while nothing is to be done.
pub(crate) fn idle(ground: &Ground, system: &System, seconds: f64) -> Outcome<Vec<Usage>> {
    nats::wait_quiet(&ground.target(), QUIET)?;
    let mut watched = ground.watched();
    watched.extend(system.watched());
    let begin = now_ms();
    let sampler = Sampler::start(watched);
    std::thread::sleep(Duration::from_secs_f64(seconds));
    Ok(sampler.stop((begin, now_ms())))
}

/// Percent of a core of all processes whose name begins so.
pub(crate) fn percent(usage: &[Usage], name: &str) -> f64 {
    let named = usage.iter().filter(|u| u.name.starts_with(name));
    named.map(|u| u.core_percent).sum()
}

/// Idle, then under load.
pub(super) fn crowd(bench: &mut Bench) -> Outcome<()> {
    let plan = plan(bench.scale.crowd);
    let ground = Ground::start(&plan)?;
    let system = System::start(&plan, &ground)?;
    let usage = idle(&ground, &system, bench.scale.idle)?;
    let (ours, server) = (percent(&usage, "system"), percent(&usage, "nats-server"));
    let agents = number(f64::from(plan.agents));
    bench.rows.push(Row::new(
        &format!(
            "{agents} connected agents, idle for {:.0} s",
            bench.scale.idle
        ),
        "system <= 3 %, server <= 5 % of a core",
        format!("system {} %, server {} %", number(ours), number(server)),
        1,
        ours <= 3.0 && server <= 5.0,
    ));
    let result = run::on(&ground, &system, &plan, &brief(bench))?;
    system.stop();
    bench.note("many agents", &result);
    let ratio = result.load.ended_per_s / bench.sustained;
    bench.rows.push(
        Row::new(
            &format!("no-op tasks with {agents} agents"),
            &format!(">= 0.6 times those with 10 ({}/s)", number(bench.sustained)),
            format!("{}/s", number(result.load.ended_per_s)),
            1,
            ratio.is_finite() && ratio >= 0.6,
        )
        .ratio(ratio),
    );
    Ok(())
}
