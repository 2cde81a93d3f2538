//! Any bytes on any subject of the log: decoded, folded and decided upon, nothing may panic,
//! and what can be read must be written back as it was.
#![no_main]

use conductor_domain::decide::{self, Input, Overlay};
use conductor_domain::{Record, State, fold, record};
use conductor_protocol::Event;
use libfuzzer_sys::fuzz_target;

const SUBJECTS: [&str; 8] = [
    "submit.q", "control", "orchestrator", "scheduler.a1", "agent.a1", "leader.orchestrator",
    "leader.scheduler", "checkpoint",
];

fuzz_target!(|records: Vec<(u8, Vec<u8>)>| {
    let mut state = State::new("test".parse().unwrap());
    for (subject, payload) in records.into_iter().take(16) {
        if let Ok(event) = Event::decode(&payload) {
            assert_eq!(Event::decode(&event.encode()).as_ref(), Ok(&event));
        }
        let record = Record {
            seq: state.seq + 1,
            time_ms: 1_800_000_000_000 + state.seq,
            subject: format!("conductor.test.{}", SUBJECTS[usize::from(subject) % SUBJECTS.len()]),
            content_type: None,
            reply: None,
            traceparent: None,
            payload: payload.into(),
        };
        let decoded = record::decode(&state.cell, &record);
        if fold::apply(&mut state, &decoded).stop.is_some() {
            return;
        }
    }
    let input = Input {
        now_ms: state.time_ms,
        silent_agents: &[],
        silent_leases: &[],
        events_max: 100,
    };
    decide::decide(&state, &mut Overlay::default(), input, &mut || 0);
    assert_eq!(State::from_snapshot(&state.to_snapshot()).unwrap(), state);
});
