//! The thread of one task through the log: what speaks of it, and what ended its attempts
//! without speaking of it (its agent was lost, left, or came back as another).

use conductor_domain::Verdict;
use conductor_protocol::TaskId;
use serde_json::Value;

use super::read::Entry;

/// Follows one task; entries must be shown to it in the order of the log.
#[derive(Debug)]
pub(crate) struct Thread {
    id: TaskId,
    /// Who holds its current lease.
    holder: Option<String>,
}

impl Thread {
    pub(crate) fn of(id: TaskId) -> Self {
        Self { id, holder: None }
    }

    /// Whether an entry, which speaks of `task`, belongs to this thread.
    pub(crate) fn takes(&mut self, task: Option<TaskId>, entry: &Entry) -> bool {
        let text = |key: &str| entry.event.get(key).and_then(Value::as_str);
        let kind = text("type").unwrap_or_default();
        let is_applied = entry.verdict == Verdict::Applied;
        if task == Some(self.id) {
            match kind {
                "attempt.assigned" if is_applied => {
                    self.holder = text("agent").map(str::to_owned);
                }
                "attempt.started" | "attempt.progress" | "attempt.usage" | "attempt.artifact"
                | "attempt.changed" | "attempt.throttled" | "task.cancel" => {}
                _ if is_applied => self.holder = None,
                _ => {}
            }
            return true;
        }
        let ends_leases = ["agent.lost", "agent.left", "agent.joined"].contains(&kind);
        let is_its_agents = self.holder.is_some() && self.holder.as_deref() == text("agent");
        if is_applied && ends_leases && is_its_agents {
            self.holder = None;
            return true;
        }
        false
    }
}
