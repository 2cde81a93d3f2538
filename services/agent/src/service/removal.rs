//! Removing named workspaces that are to go.

use std::path::Path;
use std::time::Duration;

use conductor_protocol::event::WorkspaceDropped;
use ractor::ActorRef;

use super::{AgentMsg, AgentState};
use crate::duty::Input;
use crate::workspace::named::{Found, Named};

/// The pause before a removal is tried again, at first: an attempt that was stopped may still be
/// ending there.
const PAUSE: Duration = Duration::from_millis(100);
/// The longest such pause.
const PAUSE_MAX: Duration = Duration::from_secs(30);

impl AgentState {
    /// Removes a workspace once nobody uses it, and then says so. It ends with the incarnation that
    /// was told: the next is told itself.
    pub(super) fn remove_workspace(&mut self, myself: &ActorRef<AgentMsg>, e: WorkspaceDropped) {
        let Some(membership) = &mut self.membership else {
            return;
        };
        let (kept, myself) = (self.options.kept.clone(), myself.clone());
        membership.sources.spawn(async move {
            remove(&kept, &e).await;
            tracing::info!(namespace = %e.namespace, name = %e.name, "workspace removed");
            // An actor that is gone has nobody left to report to.
            let _ = myself.cast(AgentMsg::Told(Input::Removed(e)));
        });
    }
}

/// Tries until nothing of it is left.
async fn remove(kept: &Path, e: &WorkspaceDropped) {
    let mut pause = PAUSE;
    loop {
        match try_remove(kept, e).await {
            Ok(true) => return,
            Ok(false) => {}
            Err(problem) => {
                tracing::warn!(namespace = %e.namespace, name = %e.name, problem, "a workspace is not removed yet");
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// Removes it unless somebody uses it; whether nothing of it is left.
async fn try_remove(kept: &Path, e: &WorkspaceDropped) -> Result<bool, String> {
    let held = match Named::find(kept, &e.namespace, &e.name)? {
        Found::Nothing => return Ok(true),
        Found::InUse => return Ok(false),
        Found::Held(held) => held,
    };
    // It is held while its files go, even should this incarnation be over before they are gone.
    let removed = tokio::task::spawn_blocking(move || held.remove()).await;
    removed.map_err(|e| e.to_string())?.map(|()| true)
}

#[cfg(test)]
mod tests;
