//! The command line.

pub(crate) mod access;
mod approvals;
mod artifact;
mod cell;
pub(crate) mod control;
mod doctor;
mod folder;
mod log;
mod logs;
mod mcp;
pub(crate) mod read;
pub(crate) mod replay;
pub(crate) mod submit;
pub(crate) mod task;
mod thread;
mod top;
mod usage;
mod workspace;

use clap::{CommandFactory, Parser};
use conductor_telemetry::logs::Logs;

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
    Submit(Box<submit::SubmitArgs>),
    #[command(subcommand)]
    Task(task::TaskCommand),
    #[command(subcommand)]
    Artifact(artifact::ArtifactCommand),
    /// Say in one sentence what a task waits for
    Why {
        /// Id, beginning of one, or name
        task: String,
    },
    /// Show what people are asked; or answer
    #[command(args_conflicts_with_subcommands = true)]
    Approvals(ApprovalsArgs),
    /// Run an agent; or list, show and drain agents
    #[command(args_conflicts_with_subcommands = true)]
    Agent(AgentCommand),
    #[command(subcommand)]
    Queue(cell::QueueCommand),
    #[command(subcommand)]
    Workspace(workspace::WorkspaceCommand),
    #[command(subcommand)]
    Log(log::LogCommand),
    Replay(replay::ReplayArgs),
    Top(top::TopArgs),
    Usage(usage::UsageArgs),
    #[command(subcommand)]
    Config(cell::ConfigCommand),
    Mcp(mcp::McpArgs),
    WatchFolder(folder::FolderArgs),
    #[command(subcommand)]
    Access(access::AccessCommand),
    Provision(access::ProvisionArgs),
    /// Check what Conductor runs on
    Doctor,
    /// Print a completion script
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// `conductor agent` runs one; with a word behind it, it speaks of those that run.
#[derive(Debug, clap::Args)]
struct AgentCommand {
    #[command(flatten)]
    run: run::AgentArgs,
    #[command(subcommand)]
    command: Option<cell::AgentsCommand>,
}

/// `conductor approvals` lists; with a word behind it, it answers.
#[derive(Debug, clap::Args)]
struct ApprovalsArgs {
    #[command(subcommand)]
    command: Option<approvals::ApprovalsCommand>,
}

impl Command {
    /// What its lines of log call it.
    fn role(&self) -> &'static str {
        match self {
            Self::Run(RunCommand::Up(_)) => "up",
            Self::Run(RunCommand::Orchestrator(_)) => "orchestrator",
            Self::Run(RunCommand::Scheduler(_)) => "scheduler",
            Self::Run(RunCommand::Projector(_)) => "projector",
            Self::Run(RunCommand::Issuer(_)) => "issuer",
            Self::Agent(_) => "agent",
            Self::WatchFolder(_) => "watch-folder",
            Self::Mcp(_) => "mcp",
            _ => "cli",
        }
    }

    /// Whether it runs until it is stopped, and logs as services do.
    fn is_service(&self) -> bool {
        match self {
            Self::Run(run) => !matches!(run, RunCommand::Demo),
            Self::Agent(agent) => agent.command.is_none(),
            Self::WatchFolder(_) => true,
            _ => false,
        }
    }

    /// Whether it draws on the terminal, where logs would be drawn over it.
    fn has_the_screen(&self, format: crate::out::Format) -> bool {
        use std::io::IsTerminal;
        matches!(self, Self::Top(args) if args.draws(format)) && std::io::stderr().is_terminal()
    }
}

/// Runs a command.
pub(crate) fn main(cli: Cli) -> Outcome {
    crate::out::set_colour(!cli.global.no_color);
    let settings = Settings::resolve(cli.global)?;
    if !cli.command.has_the_screen(settings.output) {
        init_logging(&settings, &cli.command);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|e| Failure::from(std::io::Error::other(e)))?;
    runtime.block_on(async {
        match cli.command {
            Command::Run(command) => Box::pin(run::main(command, &settings)).await,
            Command::Submit(args) => submit::run(*args, &settings).await,
            Command::Task(command) => task::run(command, &settings).await,
            Command::Artifact(command) => artifact::run(command, &settings).await,
            Command::Why { task } => task::why(&task, &settings).await,
            Command::Approvals(ApprovalsArgs { command }) => {
                approvals::run(command, &settings).await
            }
            Command::Agent(AgentCommand {
                command: Some(command),
                ..
            }) => cell::agents(command, &settings).await,
            Command::Agent(AgentCommand { run, command: None }) => {
                Box::pin(run::agent(run, &settings)).await
            }
            Command::Queue(command) => cell::queues(command, &settings).await,
            Command::Workspace(command) => workspace::run(command, &settings).await,
            Command::Log(command) => log::run(command, &settings).await,
            Command::Replay(args) => replay::run(args, &settings).await,
            Command::Top(args) => top::run(args, &settings).await,
            Command::Usage(args) => usage::run(args, &settings).await,
            Command::Config(command) => cell::config(command, &settings).await,
            Command::Mcp(args) => Box::pin(mcp::run(args, &settings)).await,
            Command::WatchFolder(args) => Box::pin(folder::run(args, &settings)).await,
            Command::Access(command) => access::access(command, &settings).await,
            Command::Provision(args) => access::provision(args, &settings).await,
            Command::Doctor => doctor::run(&settings).await,
            Command::Completions { shell } => {
                let mut script = Vec::new();
                clap_complete::generate(shell, &mut Cli::command(), "conductor", &mut script);
                crate::out::bytes(&script);
                Ok(crate::exit::Exit::Ok)
            }
        }
    })
}

/// Adds a field to an object.
fn put(object: &mut serde_json::Value, field: &str, value: impl Into<serde_json::Value>) {
    if let Some(map) = object.as_object_mut() {
        map.insert(field.to_owned(), value.into());
    }
}

/// Logs on stderr: for people on a terminal, as JSON otherwise when a service runs.
fn init_logging(settings: &Settings, command: &Command) {
    let is_service = command.is_service();
    let default = if is_service {
        "info,async_nats=warn"
    } else {
        "error,async_nats=off"
    };
    let logs = Logs {
        filter: settings.log.clone().unwrap_or_else(|| default.to_owned()),
        is_service,
        cell: settings.cell.to_string(),
        role: command.role().to_owned(),
    };
    logs.init();
}
