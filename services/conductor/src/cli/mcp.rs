//! `conductor mcp`: the cell as a tool of people's own AI clients.
//!
//! Reading order: [`server`] (the protocol; the only place that names its library) → [`tools`]
//! (which tools there are) → [`params`] (what each is told) → [`desk`] (what each does, by the
//! operations of the other commands).
//!
//! No tool addresses an agent: a client submits, looks, answers and cancels, like everybody.

mod desk;
mod params;
mod server;
mod tools;

use crate::exit::Outcome;
use crate::settings::Settings;
use desk::Desk;

/// Serves the Model Context Protocol on standard input and output, until the input ends.
pub(crate) async fn run(settings: &Settings) -> Outcome {
    server::serve(Desk::new(settings.clone())).await
}
