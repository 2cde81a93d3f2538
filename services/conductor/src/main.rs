//! The one binary: `conductor <role>` and the command line.

mod cli;
mod exit;
mod out;
mod run;
mod settings;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;

/// glibc's allocator took a third of the time of a busy orchestrator, since what is decoded on
/// one thread is freed on another; mimalloc half of that of a replay, since it asks the system
/// for each large buffer anew (loadtest).
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().collect();
    // The steps between us and our children: no runtime, no settings, nothing to fail.
    match args.get(1).and_then(|a| a.to_str()) {
        Some(conductor_nats::guard::SUBCOMMAND) => {
            let error = conductor_nats::guard::exec_guarded(args.get(2..).unwrap_or_default());
            out::error(&error.to_string(), None);
            return ExitCode::FAILURE;
        }
        Some(conductor_agent::reaper::SUBCOMMAND) => {
            return conductor_agent::reaper::main(args.get(2..).unwrap_or_default());
        }
        _ => {}
    }
    let cli = cli::Cli::parse();
    match cli::main(cli) {
        Ok(code) => code.into(),
        Err(failure) => {
            out::error(&failure.message, failure.hint.as_deref());
            failure.code.into()
        }
    }
}
