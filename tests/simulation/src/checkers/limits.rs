//! What a task must wait for, and where it may run.

use conductor_domain::State;
use conductor_domain::state::Outcome;
use conductor_protocol::event::{AttemptAssigned, Event};
use conductor_protocol::ids::AgentId;
use conductor_protocol::spec::NeedPolicy;

use super::{Checker, Ruling};
use crate::ledger::{Agent, By, Ledger, Seen, Task, What};

/// An assignment that counted: the event, its task and its agent in the books.
fn assigned<'a>(
    ledger: &'a Ledger,
    seen: &Seen<'a>,
) -> Option<(&'a AttemptAssigned, &'a Task, &'a AgentId, &'a Agent)> {
    let (By::Leader(_, _, Some(id)), What::Event(Event::AttemptAssigned(e))) = (seen.by, seen.what)
    else {
        return None;
    };
    let (task, agent) = (ledger.tasks.get(&e.task)?, ledger.agents.get(id)?);
    seen.is_applied().then_some((e, task, id, agent))
}

/// A task runs only after what it needs has ended, and well if it asks for that.
pub(super) struct Needs;

impl Checker for Needs {
    fn id(&self) -> &'static str {
        "needs"
    }

    fn on_event(&mut self, ledger: &Ledger, _: &State, seen: &Seen<'_>) -> Ruling {
        let Some((e, task, ..)) = assigned(ledger, seen) else {
            return Ok(());
        };
        if task.redriven > 0 {
            return Ok(());
        }
        for need in &task.spec.needs {
            // A need that was run again by hand is waited for no more.
            let outcomes = ledger.tasks.get(need).map(|t| &t.outcomes);
            let is_met = outcomes.is_some_and(|o| match task.spec.on_need_failed {
                NeedPolicy::Run => !o.is_empty(),
                NeedPolicy::Fail | NeedPolicy::Skip => o.contains(&Outcome::Succeeded),
            });
            if !is_met {
                return Err(format!("{} runs though {need} is {outcomes:?}", e.task));
            }
        }
        Ok(())
    }
}

/// An agent has never more to do than it has slots.
pub(super) struct Slots;

impl Checker for Slots {
    fn id(&self) -> &'static str {
        "slots"
    }

    fn on_event(&mut self, ledger: &Ledger, _: &State, seen: &Seen<'_>) -> Ruling {
        let Some((e, task, id, agent)) = assigned(ledger, seen) else {
            return Ok(());
        };
        let busy: u32 = agent.busy.values().sum();
        if e.slots != task.spec.slots || busy + e.slots > agent.slots {
            return Err(format!(
                "{id} has {} slots, {busy} of them busy, and is given {} for {}",
                agent.slots, e.slots, task.spec.slots
            ));
        }
        Ok(())
    }

    fn at_end(&mut self, ledger: &Ledger, state: &State) -> Ruling {
        for (id, agent) in state.agents.iter().filter(|(_, a)| a.status.is_there()) {
            let busy = ledger.agents.get(id).map(|a| &a.busy);
            if !agent.slots.is_empty() || busy.is_some_and(|b| !b.is_empty()) {
                return Err(format!(
                    "nothing runs, but slots of {id} are taken: {:?}, by the books {busy:?}",
                    agent.slots
                ));
            }
        }
        Ok(())
    }
}

/// No more tasks run under a concurrency key than it allows.
pub(super) struct Keys;

impl Checker for Keys {
    fn id(&self) -> &'static str {
        "concurrency-keys"
    }

    fn on_event(&mut self, ledger: &Ledger, _: &State, seen: &Seen<'_>) -> Ruling {
        let Some((e, task, ..)) = assigned(ledger, seen) else {
            return Ok(());
        };
        let Some(c) = &task.spec.concurrency else {
            return Ok(());
        };
        let running = ledger.running_under(&c.key);
        if running >= c.limit {
            let (key, limit) = (&c.key, c.limit);
            return Err(format!(
                "{running} run under {key}, limit {limit}, and {} too",
                e.task
            ));
        }
        Ok(())
    }

    fn on_record(&mut self, ledger: &Ledger, state: &State) -> Ruling {
        for (key, running) in &state.key_running {
            let by_the_books = ledger.running_under(key);
            if by_the_books != *running {
                return Err(format!(
                    "{by_the_books} run under {key}, the state says {running}"
                ));
            }
        }
        Ok(())
    }
}

/// A task runs only where it fits: a queue that is not paused, an agent that takes work
/// and has the labels.
pub(super) struct Fitting;

impl Checker for Fitting {
    fn id(&self) -> &'static str {
        "fitting"
    }

    fn on_event(&mut self, ledger: &Ledger, _: &State, seen: &Seen<'_>) -> Ruling {
        let Some((e, task, id, agent)) = assigned(ledger, seen) else {
            return Ok(());
        };
        let problem = if ledger.paused.contains(&task.spec.queue) {
            "its queue is paused"
        } else if agent.is_drained || agent.is_draining || !agent.is_there {
            "the agent takes no work"
        } else if agent.incarnation != e.incarnation {
            "the agent is another by now"
        } else if !task
            .spec
            .labels
            .iter()
            .all(|(k, v)| agent.labels.get(k).map(String::as_str) == Some(v))
        {
            "the agent lacks a label"
        } else {
            return Ok(());
        };
        Err(format!("{} is given to {id}, but {problem}", e.task))
    }
}
