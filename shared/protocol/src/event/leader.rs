//! Elections.

use serde::{Deserialize, Serialize};

/// A process takes a role. The record's sequence is the epoch of its decisions.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LeaderElected {
    /// Who took it: host, process and a random part.
    pub holder: String,
    /// Version of its software.
    pub version: String,
}
