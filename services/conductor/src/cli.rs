//! The command line.

use clap::Parser;

use crate::exit::{Failure, Outcome};
use crate::run::{self, RunCommand};
use crate::settings::{Global, Settings};

/// Runs fleets of AI coding agents over one append-only log, and says afterwards exactly
/// what happened.
#[derive(Debug, Parser)]
#[command(name = "conductor", version, propagate_version = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    #[command(flatten)]
    Run(RunCommand),
}

/// Runs a command.
pub(crate) fn main(cli: Cli) -> Outcome {
    let settings = Settings::resolve(cli.global)?;
    let is_service = matches!(&cli.command, Command::Run(c) if !matches!(c, RunCommand::Demo));
    init_logging(settings.log.as_deref(), is_service);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|e| Failure::from(std::io::Error::other(e)))?;
    runtime.block_on(async {
        match cli.command {
            Command::Run(command) => run::main(command, &settings).await,
        }
    })
}

/// Logs on stderr: for people on a terminal, as JSON otherwise when a service runs.
fn init_logging(level: Option<&str>, is_service: bool) {
    use std::io::IsTerminal;
    use tracing_subscriber::EnvFilter;
    let default = if is_service { "info,async_nats=warn" } else { "error,async_nats=off" };
    let filter = EnvFilter::new(level.unwrap_or(default));
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if is_service && !std::io::stderr().is_terminal() {
        logs.json().init();
    } else {
        logs.with_target(false).init();
    }
}
