//! Measures what users of Conductor care about, beside what JetStream alone gives on the
//! same machine in the same run.

mod pipeline;

use std::process::ExitCode;

use clap::Parser;

/// Measure Conductor
#[derive(Debug, Parser)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// The rules alone, in memory and on one thread: what a task costs without any server
    Pipeline(pipeline::PipelineArgs),
}

fn main() -> ExitCode {
    match Args::parse().command {
        Command::Pipeline(args) => pipeline::main(&args),
    }
}
