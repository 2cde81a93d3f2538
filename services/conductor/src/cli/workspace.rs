//! `conductor workspace …`: named workspaces, and which agent has each.

use std::sync::Arc;

use conductor_domain::state::{Workspace, WorkspaceKey};
use conductor_domain::{Verdict, VoidReason};
use conductor_eventlog::jetstream::Connection;
use conductor_protocol::Control;
use conductor_protocol::human::format_time;
use conductor_protocol::ids::{AgentId, Namespace};
use serde_json::{Value, json};

use super::{control, read};
use crate::exit::{Exit, Failure, Outcome};
use crate::out;
use crate::settings::Settings;

/// Look at named workspaces, remove them, and free those whose agents are gone
#[derive(Debug, clap::Subcommand)]
pub(crate) enum WorkspaceCommand {
    /// Show which agent has which workspace, and whether it holds work that is nowhere else
    List,
    /// Have the agent that has a workspace remove it, with all that is in it
    ///
    /// Refused while it holds work that is nowhere else: changes that are not committed, files that
    /// are not in the repository, commits that were not pushed; without a repository any file.
    Remove {
        /// Its name
        name: String,
        /// Its namespace
        #[arg(long, short, default_value = "default")]
        namespace: Namespace,
        /// Its name once more: remove it although what it holds may be nowhere else
        #[arg(long, value_name = "NAME")]
        discard: Option<String>,
    },
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
            let rows: Vec<Value> = state.workspaces.iter().map(row).collect();
            let columns = [
                ("NAMESPACE", "namespace"),
                ("NAME", "name"),
                ("AGENT", "agent"),
                ("TASK", "task"),
                ("UNPUSHED", "unpushed"),
                ("REMOVING", "removing"),
                ("SINCE", "since"),
            ];
            out::rows(settings.output, &columns, &rows);
        }
        WorkspaceCommand::Remove {
            name,
            namespace,
            discard,
        } => {
            let agent = remove(&connection, (&namespace, &name), discard).await?;
            let asked = json!({
                "namespace": namespace, "workspace": name, "removing": true, "agent": agent,
            });
            out::one(settings.output, &asked);
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

fn row(((namespace, name), held): (&WorkspaceKey, &Workspace)) -> Value {
    json!({
        "namespace": namespace, "name": name, "agent": held.agent, "task": held.task,
        "unpushed": held.unpushed, "removing": held.removal.is_some(),
        "since": format_time(held.since_ms),
    })
}

/// Asks for a removal; the agent that will do it.
async fn remove(
    connection: &Arc<Connection>,
    (namespace, name): (&Namespace, &str),
    discard: Option<String>,
) -> Outcome<AgentId> {
    if let Some(other) = discard.as_ref().filter(|discard| *discard != name) {
        return Err(Failure::usage(format!(
            "--discard is {other:?}, the workspace is {name:?}; repeat its name"
        )));
    }
    let remove = Control::RemoveWorkspace {
        namespace: namespace.clone(),
        name: name.to_owned(),
        discard,
    };
    let (reader, verdicts) = control::say(connection, &[remove]).await?;
    let held = reader
        .state
        .workspaces
        .get(&(namespace.clone(), name.to_owned()));
    let Some((held, verdict)) = held.zip(verdicts.first()) else {
        let message = format!("there is no workspace {name:?} in namespace {namespace}");
        return Err(Failure::new(Exit::NotFound, message)
            .hint("`conductor workspace list` names all of them"));
    };
    match verdict {
        Verdict::Applied => Ok(held.agent.clone()),
        Verdict::Void(reason) => {
            let of = format!("workspace {name:?} on {}", held.agent);
            let reason = *reason;
            Err(refused(reason, &of, name, namespace))
        }
    }
}

/// Why a removal is refused, and what helps.
fn refused(reason: VoidReason, of: &str, name: &str, namespace: &Namespace) -> Failure {
    let refused = |why: &str| Failure::new(Exit::Conflict, format!("{of} is not removed: {why}"));
    match reason {
        VoidReason::WorkspaceUnpushed => {
            refused("it holds, or may hold, work that is nowhere else").hint(format!(
                "have a task push it (`conductor submit --namespace {namespace} --workspace {name} \
                 --git … --push …`), or give it up with `--discard {name}`"
            ))
        }
        VoidReason::WorkspaceBusy => refused("a task works in it").hint(format!(
            "wait for the task, or cancel it; `conductor workspace list` names it ({namespace}/{name})"
        )),
        VoidReason::Duplicate => refused("it was asked for already").hint(
            "its agent does so once it is there and nobody works in it; where that agent is gone for \
             good, `conductor workspace release`",
        ),
        VoidReason::NoCapacity => refused("too many others are being removed")
            .hint("`conductor workspace list` shows which, and on which agents"),
        other => refused(&control::explain(other)),
    }
}
