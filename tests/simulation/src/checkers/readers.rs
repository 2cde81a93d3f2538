//! The state itself.

use conductor_domain::State;

use super::{Checker, Ruling};
use crate::ledger::Ledger;

/// Records between two looks at the whole state.
const EVERY: u64 = 16;

/// A state that went through a snapshot is the same, what is derived from it included.
pub(super) struct RoundTrip;

impl Checker for RoundTrip {
    fn id(&self) -> &'static str {
        "round-trip"
    }

    fn on_record(&mut self, _: &Ledger, state: &State) -> Ruling {
        if !state.seq.is_multiple_of(EVERY) {
            return Ok(());
        }
        self.at_end(&Ledger::default(), state)
    }

    fn at_end(&mut self, _: &Ledger, state: &State) -> Ruling {
        match State::from_snapshot(&state.to_snapshot()) {
            Ok(again) if again == *state => Ok(()),
            Ok(again) if again.index != state.index => Err(format!(
                "the index is\n{:?}\nand derived anew\n{:?}",
                state.index, again.index
            )),
            Ok(_) => Err("a snapshot gives another state".to_owned()),
            Err(e) => Err(e.to_string()),
        }
    }
}

/// The state holds what is open, and of what is over no more than its limits.
pub(super) struct Size;

impl Checker for Size {
    fn id(&self) -> &'static str {
        "state-size"
    }

    fn on_record(&mut self, ledger: &Ledger, state: &State) -> Ruling {
        let finished = state.tasks.values().filter(|t| t.is_final()).count();
        let open = state.tasks.len() - finished;
        let records: usize = state.intake.values().map(|i| i.undecided.len()).sum();
        let undecided = records + state.subtasks.len();
        let config = &state.config;
        if open != ledger.open.len() {
            return Err(format!(
                "{open} tasks are open, by the books {}",
                ledger.open.len()
            ));
        }
        if undecided != ledger.undecided.len() {
            let books = ledger.undecided.len();
            return Err(format!(
                "{undecided} submissions are undecided, by the books {books}"
            ));
        }
        if finished as u64 > config.finished_max {
            return Err(format!(
                "{finished} finished tasks are kept, {} may",
                config.finished_max
            ));
        }
        let tombstones = state.tombstones.len() as u64;
        if tombstones > config.tombstones_max {
            return Err(format!(
                "{tombstones} tombstones, {} may be",
                config.tombstones_max
            ));
        }
        let is_fresh = |(_, until_ms): &&(_, u64)| *until_ms >= state.time_ms;
        let fresh = ledger.keys.values().filter(is_fresh).count();
        if state.keys.len() > fresh {
            let known = state.keys.len();
            return Err(format!(
                "{known} keys are known, {fresh} are within their window"
            ));
        }
        if state.agents.len() > ledger.agents.len() {
            let (known, joined) = (state.agents.len(), ledger.agents.len());
            return Err(format!("{known} agents are known, {joined} have joined"));
        }
        Ok(())
    }
}
