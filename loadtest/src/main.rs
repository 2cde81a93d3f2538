//! Measures what users of Conductor care about, beside what JetStream alone gives on the
//! same machine in the same run.
//!
//! Reading order: [`plan`] (what is measured) → [`workload`], [`arrivals`], [`publisher`] (what
//! is submitted, when and how) → [`load`] with [`book`] and [`latency`] (what is seen of it)
//! → [`ground`], [`system`], [`process`], [`usage`] (the processes) → [`run`] (one run)
//! → [`result`], [`table`] (what it gave). [`raw`], [`relay`] and [`baseline`] are what it
//! is compared with. [`bench`], [`growth`] and [`soak`] run many of them and write [`results`] by
//! way of [`report`], [`describe`], [`plot`] and [`html`].

mod agents;
mod arrivals;
mod baseline;
mod bench;
mod book;
mod compare;
mod describe;
mod frames;
mod ground;
mod growth;
mod html;
mod instructions;
mod latency;
mod load;
mod nats;
mod origin;
mod outcome;
mod pipeline;
mod plan;
mod plot;
mod process;
mod publisher;
mod raw;
mod relay;
mod report;
mod result;
mod results;
mod run;
mod soak;
mod system;
mod table;
mod usage;
mod workload;

use std::process::ExitCode;

use clap::Parser;
use outcome::{Outcome, put, say};

/// The same as in the program that is measured.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Measure Conductor
#[derive(Debug, Parser)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// One measured run
    Run(run::RunArgs),
    /// The standard set: every target, beside what the bare client gives; writes RESULTS.md
    Bench(bench::BenchArgs),
    /// How costs grow with backlog, agents, payload and history
    Growth(growth::GrowthArgs),
    /// Ten minutes at a fixed rate: does memory stay what it is?
    Soak(soak::SoakArgs),
    /// Two results of `run --out` side by side; refuses where their durability differs
    Compare(compare::CompareArgs),
    /// What the bare client and server give: the figures that others are measured by
    Raw(baseline::RawArgs),
    /// The rules alone, in memory and on one thread: what a task costs without any server
    Pipeline(pipeline::PipelineArgs),
    /// Instructions a task costs, counted by valgrind and compared with those that were kept
    Instructions(instructions::InstructionsArgs),
    /// An operation whose instructions are counted
    #[command(hide = true)]
    Operation(instructions::OperationArgs),
    /// A process of a run: submits and observes
    #[command(hide = true)]
    RoleLoad(Json<plan::LoadPlan>),
    /// A process of a run: simulated agents
    #[command(hide = true)]
    RoleAgents(Json<agents::AgentsPlan>),
    /// A process of a run: what the bare client gives
    #[command(hide = true)]
    RoleRaw(Json<raw::RawPlan>),
    /// A process of a run: hands records on without any rules
    #[command(hide = true)]
    RoleRelay(Json<relay::RelayPlan>),
}

/// What a role is told.
#[derive(Debug, clap::Args)]
struct Json<T: Clone + Send + Sync + serde::de::DeserializeOwned + 'static> {
    #[arg(value_parser = json::<plan::Target>)]
    target: plan::Target,
    #[arg(value_parser = json::<T>)]
    plan: T,
}

fn json<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, String> {
    serde_json::from_str(text).map_err(|e| e.to_string())
}

fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_env_filter("warn,async_nats=error")
        .with_writer(std::io::stderr)
        .init();
    let done = match Args::parse().command {
        Command::Pipeline(args) => return pipeline::main(&args),
        Command::Instructions(args) => instructions::main(&args),
        Command::Operation(args) => instructions::operation(&args),
        Command::Run(args) => run::main(&args),
        Command::Bench(args) => bench::main(&args),
        Command::Growth(args) => growth::main(&args),
        Command::Soak(args) => soak::main(&args),
        Command::Compare(args) => {
            return compare::main(&args).unwrap_or_else(|e| failed(&*e));
        }
        Command::Raw(args) => baseline::main(&args),
        Command::RoleLoad(role) => load::main(&role.target, role.plan).and_then(|r| print(&r)),
        Command::RoleAgents(role) => agents::main(&role.target, &role.plan),
        Command::RoleRaw(role) => raw::main(&role.target, &role.plan).and_then(|r| print(&r)),
        Command::RoleRelay(role) => relay::main(&role.target, &role.plan).and_then(|r| print(&r)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => failed(&*e),
    }
}

fn failed(e: &dyn std::error::Error) -> ExitCode {
    say(&format!("error: {e}"));
    ExitCode::FAILURE
}

fn print(result: &impl serde::Serialize) -> Outcome<()> {
    put(&serde_json::to_string(result)?);
    Ok(())
}
