//! Why a task waits, in one sentence.

use conductor_protocol::TaskId;
use conductor_protocol::human::{DurationMs, format_time};
use conductor_protocol::terms::Guarantee;

use crate::state::{Agent, AgentStatus, Phase, State, Task};

/// So much of a question is repeated.
const SUMMARY_CHARS: usize = 120;

/// What a task waits for, or what became of it; `None` for one that is not known.
pub fn why(state: &State, id: TaskId) -> Option<String> {
    let Some(task) = state.tasks.get(&id) else {
        return state
            .tombstones
            .get(&id)
            .map(|outcome| format!("it ended ({}) and has left the state", outcome.as_str()));
    };
    Some(match &task.phase {
        Phase::Ended(e) => match e.class {
            Some(class) => format!("it ended as {} ({class})", e.outcome.as_str()),
            None => format!("it ended as {}", e.outcome.as_str()),
        },
        Phase::Running { .. } if task.is_asking() => asking(task),
        Phase::Running {
            assigned,
            started_ms,
        } => format!(
            "it does not wait: attempt {} runs on {} since {}",
            task.attempts,
            assigned.agent,
            format_time(*started_ms)
        ),
        Phase::Leased(assigned) => {
            format!(
                "attempt {} is assigned to {}, which has not started it yet",
                task.attempts, assigned.agent
            )
        }
        Phase::Undecided => "its last attempt did not succeed, and the orchestrator has not \
                             decided yet what follows"
            .to_owned(),
        Phase::Pending { not_before_ms } => pending(state, task, *not_before_ms),
        Phase::Ready { .. } => ready(state, task),
    })
}

/// Who is asked what, and until when.
fn asking(task: &Task) -> String {
    let undecided = task.aside.approvals.iter().filter(|(_, a)| !a.is_decided);
    let (mut count, mut first) = (0, None);
    for (number, approval) in undecided {
        count += 1;
        first = first.or(Some((number, approval)));
    }
    let Some((number, approval)) = first else {
        return "its attempt asks nothing any more".to_owned();
    };
    if !approval.is_open() {
        return format!("question {number} was answered; the orchestrator has not decided so yet");
    }
    let others = if count > 1 {
        format!(" (and {} more)", count - 1)
    } else {
        String::new()
    };
    let what: String = approval.summary.chars().take(SUMMARY_CHARS).collect();
    format!(
        "attempt {} waits for somebody to answer its question {number}{others}: {what:?}; until {}, \
         then the answer is {}",
        task.attempts,
        format_time(approval.expires_ms),
        approval.default.as_str(),
    )
}

fn pending(state: &State, task: &Task, not_before_ms: u64) -> String {
    if !task.aside.open_needs.is_empty() {
        let open = task.aside.open_needs.first();
        let first = open.map_or_else(String::new, |n| {
            let of = state.tasks.get(n);
            let what = of.map_or("gone", |t| t.state_name());
            let name = of.and_then(|t| t.spec.name.as_deref()).unwrap_or("unnamed");
            format!(", first {n} ({name}, {what})")
        });
        return format!(
            "it needs {} task(s) that have not ended{first}",
            task.aside.open_needs.len()
        );
    }
    if not_before_ms > state.time_ms {
        let wait = DurationMs(not_before_ms - state.time_ms);
        let what = if task.attempts_now() > 0 {
            "its next attempt"
        } else {
            "its start"
        };
        return format!(
            "{what} is set for {} (in {wait})",
            format_time(not_before_ms)
        );
    }
    "everything it waited for is there; the orchestrator has not made it ready yet".to_owned()
}

/// Which sandbox no agent gives, and what is missing, where that is what a task waits for.
fn lacking_box(there: &[&Agent], task: &Task) -> Option<String> {
    let terms = task.spec.terms.as_deref()?;
    if there.iter().any(|a| a.joined.can_box(Some(terms))) {
        return None;
    }
    let furthest = there.iter().map(|a| a.joined.network_max()).max()?;
    if terms.reach() > furthest {
        return Some(format!(
            "none of {} agent(s) lets a task have the network {}; the most is {furthest}",
            there.len(),
            terms.reach()
        ));
    }
    if let Some(level) = terms.level() {
        let offers = there.iter().flat_map(|a| a.joined.sandboxes.iter());
        let of_kind = offers.filter(|(kind, _)| terms.sandbox_kind().is_none_or(|k| k == **kind));
        let nearest = of_kind.min_by_key(|(_, offer)| offer.lacks(level).count());
        if let Some((kind, offer)) = nearest {
            let missing: Vec<_> = offer.lacks(level).map(Guarantee::as_str).collect();
            return Some(format!(
                "none of {} agent(s) gives the sandbox level {level}; {kind} lacks {}",
                there.len(),
                missing.join(", ")
            ));
        }
        return Some(format!(
            "none of {} agent(s) gives the sandbox level {level}",
            there.len()
        ));
    }
    let kind = terms.sandbox_kind()?;
    Some(format!(
        "none of {} agent(s) offers the sandbox {kind}",
        there.len()
    ))
}

/// Why a task cannot work in its workspace now.
fn workspace(state: &State, task: &Task) -> Option<String> {
    let (namespace, name) = task.workspace()?;
    let held = state.workspace_of(task)?;
    if let Some(other) = held.task {
        return Some(format!("task {other} works in its workspace {name:?}"));
    }
    let agent = state.agents.get(&held.agent);
    if agent.is_some_and(|a| a.status == AgentStatus::Up) {
        let leaves = held.removal.is_some();
        return leaves.then(|| {
            format!(
                "its workspace {name:?} is being removed by {}; after that it begins anew",
                held.agent
            )
        });
    }
    let status = agent.map_or("gone", |a| a.status.as_str());
    Some(format!(
        "its workspace {name:?} is on {}, which is {status}; `conductor workspace release {name} \
         --namespace {namespace}` has it begin anew elsewhere",
        held.agent
    ))
}

fn ready(state: &State, task: &Task) -> String {
    let spec = &task.spec;
    if state.paused.contains(&spec.queue) {
        return format!("queue {} is paused", spec.queue);
    }
    if let Some(c) = &spec.concurrency {
        let running = state.key_running.get(&c.key).copied().unwrap_or(0);
        if running >= c.limit {
            return format!(
                "{running} of {} tasks with concurrency key {:?} run",
                c.limit, c.key
            );
        }
    }
    if let Some(spent) = state.why_over_budget(task, state.time_ms) {
        return spent;
    }
    if let Some(elsewhere) = workspace(state, task) {
        return elsewhere;
    }
    let is_up = |(_, a): &(_, &Agent)| a.status == AgentStatus::Up;
    let named: Vec<_> = state.agents.iter().filter(is_up).collect();
    let there: Vec<&Agent> = named.iter().map(|(_, a)| *a).collect();
    if there.is_empty() {
        return "no agent is there".to_owned();
    }
    let able = named.iter().filter(|(id, a)| state.may_run(id, a, task));
    let capable: Vec<&Agent> = able.map(|(_, a)| *a).collect();
    if capable.is_empty() {
        let labels: Vec<_> = spec
            .labels
            .iter()
            .map(|(k, v)| format!("{k}={v}"))
            .collect();
        if let Some(lacking) = lacking_box(&there, task) {
            return lacking;
        }
        return format!(
            "none of {} agent(s) offers the runtime {}{}",
            there.len(),
            spec.runtime,
            if labels.is_empty() {
                String::new()
            } else {
                format!(" with labels {}", labels.join(", "))
            }
        );
    }
    let open: Vec<_> = capable.iter().filter(|a| !a.is_drained).collect();
    if open.is_empty() {
        return format!(
            "all {} agent(s) that could run it are drained",
            capable.len()
        );
    }
    let most = open.iter().map(|a| a.joined.slots).max().unwrap_or(0);
    if most < spec.slots {
        return format!(
            "it takes {} slots, and the largest agent has {most}",
            spec.slots
        );
    }
    let free = open
        .iter()
        .map(|a| a.joined.slots.saturating_sub(a.slots_used()))
        .max();
    if free.unwrap_or(0) < spec.slots {
        return format!(
            "all {} agent(s) that could run it are busy; {} task(s) wait in queue {}",
            open.len(),
            state.backlog(&spec.queue),
            spec.queue
        );
    }
    "an agent is free; the scheduler has not assigned it yet".to_owned()
}
