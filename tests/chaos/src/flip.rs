//! A flipped bit in a block file: JetStream may lose records; Conductor must say which.

use serde_json::Value;

use crate::ground::Topology;
use crate::random::Random;
use crate::run::Scene;

/// Flips bits, and returns what came of each, and what must not be.
pub(crate) async fn flips(
    _scene: &mut Scene,
    _topology: Topology,
    _random: &mut Random,
) -> (Vec<Value>, Vec<String>) {
    (Vec::new(), Vec::new())
}
