//! One run of a scenario.

use crate::checkers::Violation;
use crate::referee::Coverage;
use crate::scenario::Scenario;
use crate::world::World;

/// What became of a run.
pub struct Run {
    /// The rule that was broken, if one was.
    pub violation: Option<Violation>,
    /// What was met.
    pub coverage: Coverage,
    /// Records in the log at the end.
    pub records: u64,
    /// Tasks accepted.
    pub tasks: u64,
    /// How long after trouble had ceased everything was done, in milliseconds.
    pub settled_ms: u64,
    /// The log's bytes.
    pub log: Vec<u8>,
    /// What happened, if it was asked for.
    pub story: Vec<String>,
}

/// Runs a scenario, telling its story if asked to.
pub fn run(scenario: &Scenario, tells_story: bool) -> Run {
    let mut world = World::new(scenario, tells_story);
    let violation = world.run().err();
    Run {
        violation,
        records: world.referee.state.seq,
        tasks: world.referee.ledger.tasks.len() as u64,
        settled_ms: world.settled_ms(),
        log: if tells_story {
            world.log_bytes()
        } else {
            Vec::new()
        },
        coverage: std::mem::take(&mut world.referee.coverage),
        story: world.story.take().unwrap_or_default(),
    }
}
