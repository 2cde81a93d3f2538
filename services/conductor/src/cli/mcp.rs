//! `conductor mcp`: the cell as a tool of people's own AI clients.
//!
//! Reading order: [`server`] (the protocol; the only place that names its library) → [`tools`]
//! (which tools there are) → [`params`] (what each is told) → [`desk`] (what each does, by the
//! operations of the other commands) → [`heard`] (which of that programs have said).
//!
//! No tool addresses an agent: a client submits, looks, answers and cancels, like everybody.
//!
//! What tasks' programs say comes to a model that may have tools to submit and to decide: it is marked,
//! so that nobody takes it for the word of the client's user. That is no boundary; `--read-only` is.

mod desk;
mod heard;
mod params;
mod server;
mod tools;

use crate::exit::Outcome;
use crate::settings::Settings;
use desk::Desk;
use tools::Tool;

/// Serve the Model Context Protocol on standard input and output, for AI clients
#[derive(Debug, clap::Args)]
pub(crate) struct McpArgs {
    /// Only tools that look: none to submit, cancel or decide
    #[arg(long)]
    read_only: bool,
}

/// Serves the Model Context Protocol on standard input and output, until the input ends.
pub(crate) async fn run(args: McpArgs, settings: &Settings) -> Outcome {
    let tools = Tool::of(args.read_only);
    server::serve(Desk::new(settings.clone()), tools).await
}
