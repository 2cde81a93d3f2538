//! What agents box tasks in by, as flags say.

use std::path::{Path, PathBuf};

use conductor_agent::runtime::Host;
use conductor_agent::sandbox::{BoxOptions, Boxes};
use conductor_protocol::terms::{Reach, SandboxKind};

use crate::exit::{Exit, Failure, Outcome};
use crate::out;

/// How tasks are boxed in.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct BoxArgs {
    /// What tasks that ask for nothing are boxed in by: auto, none, landlock, bubblewrap, podman or
    /// docker. Nothing weaker is offered. auto means bubblewrap where it works, else none
    #[arg(
        long,
        env = "CONDUCTOR_SANDBOX",
        hide_env_values = true,
        default_value = "auto",
        value_name = "KIND"
    )]
    sandbox: Choice,
    /// How far the network of a task may go at most: none, hosts (those it names) or full. What asks
    /// for more waits for another agent
    #[arg(
        long,
        env = "CONDUCTOR_NETWORK_MAX",
        hide_env_values = true,
        default_value = "full",
        value_name = "REACH"
    )]
    network_max: Option<Reach>,
    /// Directories or files of this machine that tasks can read where they are
    #[arg(
        long = "sandbox-ro",
        env = "CONDUCTOR_SANDBOX_RO",
        value_delimiter = ':',
        value_name = "PATH"
    )]
    sandbox_ro: Vec<PathBuf>,
    /// Image of tasks in containers that name none; podman also takes rootfs:DIRECTORY
    #[arg(long, env = "CONDUCTOR_CONTAINER_IMAGE", value_name = "IMAGE")]
    container_image: Option<String>,
}

/// A sandbox by name, or the best that is usual.
#[derive(Debug, Clone, Copy, Default)]
struct Choice(Option<SandboxKind>);

impl std::str::FromStr for Choice {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        if text == "auto" {
            return Ok(Self(None));
        }
        let kind = text.parse().map_err(|e| format!("{e}, or auto"));
        kind.map(|kind| Self(Some(kind)))
    }
}

impl BoxArgs {
    /// Looks what works here; what was asked for by name must.
    pub(super) async fn found(&self, host: &Host, data: &Path) -> Outcome<Boxes> {
        let relative = self.sandbox_ro.iter().find(|path| !path.is_absolute());
        if let Some(path) = relative {
            let message = format!("--sandbox-ro {} is no absolute path", path.display());
            return Err(Failure::usage(message));
        }
        let boxes = Boxes::new(BoxOptions {
            kind: self.sandbox.0,
            network_max: self.network_max,
            read_only: self.sandbox_ro.clone(),
            image: self.container_image.clone(),
            tools: vec![host.claude.clone(), host.codex.clone(), "node".into()],
            path: host.path.clone(),
            reaper: std::env::current_exe()?,
            data: data.to_owned(),
        });
        let found = boxes.found().await.map_err(|problem| {
            Failure::new(Exit::Failure, problem)
                .hint("install what it needs, or choose another with --sandbox")
        })?;
        if let (None, Some(why)) = (self.sandbox.0, found.why_not_boxed()) {
            out::say(&format!("tasks are not boxed in: {why}"));
        }
        Ok(boxes)
    }
}
