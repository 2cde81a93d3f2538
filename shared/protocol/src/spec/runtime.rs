//! What kind of program an agent has to offer for a task.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A way to run an attempt, as agents announce it and tasks require it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Runtime {
    /// Any program.
    Command,
    /// The Claude Code CLI.
    Claude,
    /// Nothing.
    Noop,
    /// The Codex CLI.
    Codex,
    /// Agents that speak the Agent Client Protocol.
    Acp,
}

impl Runtime {
    /// The wire name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Command => "command",
            Self::Claude => "claude",
            Self::Noop => "noop",
            Self::Codex => "codex",
            Self::Acp => "acp",
        }
    }

    /// Whether its model can be told something while it runs.
    pub fn can_be_told(self) -> bool {
        matches!(self, Self::Claude | Self::Acp)
    }
}

impl fmt::Display for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
