//! `conductor workspace …`: named workspaces, and which agent has each.

use std::sync::Arc;

use conductor_protocol::Control;
use conductor_protocol::human::format_time;
use conductor_protocol::ids::Namespace;
use serde_json::{Value, json};

use super::{control, read};
use crate::exit::{Exit, Outcome};
use crate::out;
use crate::settings::Settings;

/// Look at named workspaces, and free those whose agents are gone
#[derive(Debug, clap::Subcommand)]
pub(crate) enum WorkspaceCommand {
    /// Show which agent has which workspace
    List,
    /// Forget which agent has a workspace: the next task in it begins anew, wherever it runs
    Release {
        /// Its name
        name: String,
        /// Its namespace
        #[arg(long, short, default_value = "default")]
        namespace: Namespace,
    },
}

pub(crate) async fn run(command: WorkspaceCommand, settings: &Settings) -> Outcome {
    let connection = Arc::new(settings.open().await?);
    match command {
        WorkspaceCommand::List => {
            let state = read::now(&connection).await?.state;
            let rows: Vec<Value> = state
                .workspaces
                .iter()
                .map(|((namespace, name), held)| {
                    json!({
                        "namespace": namespace, "name": name, "agent": held.agent,
                        "task": held.task, "since": format_time(held.since_ms),
                    })
                })
                .collect();
            let columns = [
                ("NAMESPACE", "namespace"),
                ("NAME", "name"),
                ("AGENT", "agent"),
                ("TASK", "task"),
                ("SINCE", "since"),
            ];
            out::rows(settings.output, &columns, &rows);
        }
        WorkspaceCommand::Release { name, namespace } => {
            let release = Control::ReleaseWorkspace {
                namespace: namespace.clone(),
                name: name.clone(),
            };
            control::say_one(&connection, release).await?;
            let released = json!({"namespace": namespace, "workspace": name, "released": true});
            out::one(settings.output, &released);
        }
    }
    Ok(Exit::Ok)
}
