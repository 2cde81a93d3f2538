//! Programs that submit tasks of their own.

use conductor_agent::duty::Input;
use conductor_protocol::event::{AttemptAssigned, AttemptSubmitted};
use conductor_protocol::ids::Lease;
use serde_json::{Value, json};

use super::programs::Step;
use super::{Life, Next, World};
use crate::checkers::Violation;
use crate::random::Random;

impl World {
    /// Draws what the program of an attempt submits while it runs: sometimes more than it may.
    pub(super) fn plan_subtasks(
        &mut self,
        life: Life,
        lease: Lease,
        assigned: &AttemptAssigned,
        begins: u64,
        takes: u64,
    ) {
        let terms = assigned.terms.as_deref();
        let Some(policy) = terms.and_then(|t| t.subtasks.as_ref()) else {
            return;
        };
        let submitting = self.scenario.options.submitting;
        let mut luck = self.luck(&format!("subtasks {} {}", lease.task, lease.attempt));
        if !luck.chance(submitting) {
            return;
        }
        let wanted = luck.between(1, u64::from(policy.max) + 1);
        for number in 1..=wanted as u32 {
            // In any order.
            let at = begins + 1 + luck.below(takes.max(1));
            let step = Box::new(Step::Submits(number));
            self.push_in(at, Next::Program(life, lease.assigned, step));
        }
    }

    /// A program submits a task.
    pub(super) fn submits(
        &mut self,
        life: Life,
        lease: Lease,
        number: u32,
    ) -> Result<(), Violation> {
        let mut luck = self.luck(&format!("subtask {} {number}", lease.assigned));
        let fact = AttemptSubmitted {
            lease,
            number,
            body: submission(&mut luck).to_string(),
        };
        self.tell_agent(life, Input::Fact(fact.into()))
    }
}

fn submission(r: &mut Random) -> Value {
    let stdin = if r.chance(200) { 1_200 } else { 0 };
    let mut task = json!({
        "run": {"command": {"argv": ["work"], "stdin": "x".repeat(stdin)}},
        // Nothing waits for ever for an agent that is not there.
        "timeouts": {"total": r.between(5_000, 600_000)},
    });
    let Some(fields) = task.as_object_mut() else {
        return task;
    };
    if r.chance(300) {
        fields.insert("key".to_owned(), json!(format!("key-{}", r.below(2))));
    }
    if r.chance(200) {
        fields.insert("subtasks".to_owned(), json!({"max": 1}));
    }
    if r.chance(100) {
        // Refused.
        fields.insert("sandbox".to_owned(), json!("none"));
    }
    task
}
