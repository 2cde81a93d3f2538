//! Sees every record the moment it is in the log: folds it, keeps the books, calls the
//! checkers, and remembers what readers must come to.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hasher};

use conductor_domain::record::Content;
use conductor_domain::state::{Outcome, Phase};
use conductor_domain::{Decoded, Record, State, Verdict, fold, record};
use conductor_protocol::ids::Position;
use conductor_protocol::{CellId, TaskId};

use crate::checkers::{self, Checker, Violation};
use crate::ledger::{By, Ledger, Seen, What};
use crate::traces::Traces;

/// A reader's state is compared at every sequence divisible by this.
pub const COMPARED_EVERY: u64 = 8;

/// What was met in a run: `phase kind verdict`, and void reasons.
pub type Coverage = BTreeMap<String, u64>;

/// The referee.
pub struct Referee {
    /// The state after the last record.
    pub state: State,
    /// The books.
    pub ledger: Ledger,
    /// Every record, read.
    pub decoded: Vec<Decoded>,
    /// What was met.
    pub coverage: Coverage,
    marks: BTreeMap<u64, u64>,
    checkers: Vec<Box<dyn Checker>>,
    phases: BTreeMap<TaskId, &'static str>,
    traces: Traces,
}

/// A fingerprint of a state's bytes.
pub fn mark(state: &State) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(&state.to_bytes());
    hasher.finish()
}

impl Referee {
    /// Nothing was seen yet.
    pub fn new(cell: CellId, decides_again: bool) -> Self {
        Self {
            state: State::new(cell),
            ledger: Ledger::default(),
            decoded: Vec::new(),
            coverage: Coverage::new(),
            marks: BTreeMap::new(),
            checkers: checkers::all(decides_again),
            phases: BTreeMap::new(),
            traces: Traces::default(),
        }
    }

    /// A record is in the log.
    pub fn see(&mut self, record: &Record, is_repeat: bool) -> Result<(), Violation> {
        let decoded = record::decode(&self.state.cell, record);
        let ruling = self.judge(&decoded, is_repeat);
        self.note_phases(&decoded);
        self.decoded.push(decoded);
        ruling
    }

    fn judge(&mut self, decoded: &Decoded, is_repeat: bool) -> Result<(), Violation> {
        let is_scheduler = matches!(&decoded.content, Content::Leader { agent: Some(_), .. });
        let before = is_scheduler.then(|| self.state.clone());
        let folded = fold::apply(&mut self.state, decoded);
        self.ledger.submitted(decoded);
        for (index, verdict) in folded.verdicts.iter().enumerate() {
            let Some((by, what)) = said(decoded, index) else {
                let met = format!("- - {}", word(*verdict));
                *self.coverage.entry(met).or_default() += 1;
                continue;
            };
            let seen = Seen {
                at: Position::new(decoded.seq, index as u32),
                time_ms: self.state.time_ms,
                by,
                what,
                verdict: *verdict,
                is_repeat,
            };
            self.cover(&seen);
            let state = before.as_ref().unwrap_or(&self.state);
            for checker in &mut self.checkers {
                let ruling = checker.on_event(&self.ledger, state, &seen);
                ruling.map_err(|what| violation(checker.as_ref(), decoded.seq, what))?;
            }
            self.ledger.note(&seen);
        }
        for checker in &mut self.checkers {
            let ruling = checker.on_record(&self.ledger, &self.state);
            ruling.map_err(|what| violation(checker.as_ref(), decoded.seq, what))?;
        }
        // Last: a rule that was broken says more than a trace that shows it.
        self.traces.see(decoded, &folded, &self.state)?;
        if decoded.seq.is_multiple_of(COMPARED_EVERY) {
            self.marks.insert(decoded.seq, mark(&self.state));
        }
        Ok(())
    }

    /// A reader has come to this state.
    pub fn compare(&self, reader: &str, state: &State) -> Result<(), Violation> {
        let expected = if state.seq == self.state.seq {
            mark(&self.state)
        } else {
            match self.marks.get(&state.seq) {
                Some(mark) => *mark,
                None => return Ok(()),
            }
        };
        if mark(state) == expected {
            return Ok(());
        }
        Err(Violation {
            rule: checkers::SAME_DIGEST,
            seq: state.seq,
            what: format!("{reader} has another state than the fold from the first record"),
        })
    }

    /// Trouble has ceased, and the system had all the time it may take.
    pub fn end(&mut self) -> Result<(), Violation> {
        for checker in &mut self.checkers {
            let ruling = checker.at_end(&self.ledger, &self.state);
            ruling.map_err(|what| violation(checker.as_ref(), self.state.seq, what))?;
        }
        Ok(())
    }

    /// Whether everything submitted is decided and everything accepted has ended, with
    /// nothing left running.
    pub fn is_settled(&self) -> bool {
        let agents = self.state.agents.values();
        self.ledger.undecided.is_empty()
            && self.ledger.open.is_empty()
            && agents
                .filter(|a| a.status.is_there())
                .all(|a| a.slots.is_empty())
            && self.state.tasks.values().all(|t| t.aside.redrive.is_none())
            && self.are_workspaces_gone()
    }

    /// Whether no agent that is there has still to remove a workspace.
    fn are_workspaces_gone(&self) -> bool {
        let is_there = |w: &conductor_domain::state::Workspace| {
            let agent = self.state.agents.get(&w.agent);
            agent.is_some_and(|a| a.status.is_there())
        };
        let mut leaving = self
            .state
            .workspaces
            .values()
            .filter(|w| w.removal.is_some());
        !leaving.any(is_there)
    }

    /// A record in words: one line an event.
    pub(crate) fn tell(&self, seq: u64) -> Vec<String> {
        let Some(decoded) = self.decoded.get(seq as usize - 1) else {
            return Vec::new();
        };
        let event = |index| said(decoded, index);
        (0..)
            .map_while(event)
            .map(|(by, what)| match what {
                What::Event(e) => format!("{by:?} {}", e.to_json()),
                What::Control(c) => format!("{c:?}"),
            })
            .collect()
    }

    fn cover(&mut self, seen: &Seen<'_>) {
        let (task, kind) = match seen.what {
            What::Event(event) => (event.task(), event.kind()),
            What::Control(control) => (control.task(), conductor_protocol::Control::kind(control)),
        };
        let phase = match task {
            Some(id) => self.phases.get(&id).copied().unwrap_or("unknown"),
            None => "-",
        };
        let met = format!("{phase} {kind} {}", word(seen.verdict));
        *self.coverage.entry(met).or_default() += 1;
    }

    fn note_phases(&mut self, decoded: &Decoded) {
        let mut touched = BTreeSet::new();
        for index in 0.. {
            match said(decoded, index) {
                Some((_, What::Event(event))) => touched.extend(event.task()),
                Some((_, What::Control(control))) => touched.extend(control.task()),
                None => break,
            }
        }
        for id in touched {
            if let Some(task) = self.state.tasks.get(&id) {
                self.phases.insert(id, phase_name(task));
            }
        }
    }
}

fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Applied => "applied",
        Verdict::Void(reason) => reason.as_str(),
    }
}

fn violation(checker: &dyn Checker, seq: u64, what: String) -> Violation {
    Violation {
        rule: checker.id(),
        seq,
        what,
    }
}

/// Who said the event at an index of a record, and what it is; `None` for what cannot be
/// read.
fn said(record: &Decoded, index: usize) -> Option<(By<'_>, What<'_>)> {
    match &record.content {
        Content::Control { items, .. } => match items.get(index) {
            Some(Ok(control)) => Some((By::Operator, What::Control(control))),
            _ => None,
        },
        Content::Leader {
            role,
            agent,
            head,
            items,
        } => {
            let event = items.get(index)?.as_ref().ok()?;
            let by = By::Leader(*role, head.epoch, agent.as_ref());
            Some((by, What::Event(event)))
        }
        Content::Agent { agent, head, items } => {
            let event = items.get(index)?.as_ref().ok()?;
            Some((By::Agent(agent, head.incarnation), What::Event(event)))
        }
        Content::Election { role, items } => {
            let event = items.get(index)?.as_ref().ok()?;
            Some((By::Candidate(*role), What::Event(event)))
        }
        Content::Submit(_) | Content::Void { .. } => None,
    }
}

fn phase_name(task: &conductor_domain::state::Task) -> &'static str {
    match &task.phase {
        Phase::Pending { .. } if task.aside.failed_need.is_some() => "pending(need failed)",
        Phase::Pending { .. } if !task.aside.open_needs.is_empty() => "pending(needs)",
        Phase::Pending { .. } => "pending",
        Phase::Undecided => "undecided",
        Phase::Ready { .. } if task.aside.cancel.is_some() => "ready(cancel asked)",
        Phase::Ready { .. } => "ready",
        Phase::Leased(_) if task.aside.cancel.is_some() => "leased(cancel asked)",
        Phase::Leased(_) => "leased",
        Phase::Running { .. } if task.aside.cancel.is_some() => "running(cancel asked)",
        Phase::Running { .. } if task.is_asking() => "running(asking)",
        Phase::Running { .. } => "running",
        Phase::Ended(e) => match e.outcome {
            Outcome::Succeeded => "succeeded",
            Outcome::Failed => "failed",
            Outcome::Cancelled => "cancelled",
            Outcome::TimedOut => "timed_out",
        },
    }
}
