//! `conductor agent …`, `queue …`, `config …`: the cell as a whole.

use std::collections::BTreeMap;
use std::sync::Arc;

use conductor_domain::State;
use conductor_domain::config::DayBudget;
use conductor_protocol::Control;
use conductor_protocol::control::{ConfigChange, NamespaceBudget, OnReached};
use conductor_protocol::human::format_time;
use conductor_protocol::ids::{AgentId, Namespace, QueueName};
use conductor_protocol::limits::NAME_BYTES_MAX;
use serde_json::{Value, json};

use super::{control, read};
use crate::exit::{Exit, Failure, Outcome};
use crate::out;
use crate::settings::Settings;

/// Look at agents and take them out of service
#[derive(Debug, clap::Subcommand)]
pub(crate) enum AgentsCommand {
    /// Show agents
    List {
        /// Gone ones too
        #[arg(long, short)]
        all: bool,
    },
    /// Show one agent
    Show {
        /// Its name
        agent: AgentId,
    },
    /// Assign nothing more to an agent
    Drain {
        /// Its name
        agent: AgentId,
    },
    /// Assign to a drained agent again
    Resume {
        /// Its name
        agent: AgentId,
    },
    /// Let an agent in: prints a token that it gets its credentials with, once
    Enroll(super::access::EnrollArgs),
    /// Refuse all credentials of an agent from now on
    Revoke {
        #[command(flatten)]
        keys: super::access::KeysArgs,
        /// Its name
        agent: AgentId,
    },
}

/// Look at queues and hold them
#[derive(Debug, clap::Subcommand)]
pub(crate) enum QueueCommand {
    /// Show queues
    List,
    /// Assign nothing more from a queue
    Pause {
        /// Its name
        queue: QueueName,
    },
    /// Assign from a paused queue again
    Resume {
        /// Its name
        queue: QueueName,
    },
    /// Run all dead letters of a queue again
    Redrive {
        /// Its name
        queue: QueueName,
    },
}

/// Look at the cell's settings and change them
#[derive(Debug, clap::Subcommand)]
pub(crate) enum ConfigCommand {
    /// Show the settings in force
    Get,
    /// Change settings: a JSON object such as {"aging":"30s","backlog_max":1000}
    Put {
        /// What changes
        json: String,
    },
}

pub(crate) async fn agents(command: AgentsCommand, settings: &Settings) -> Outcome {
    match command {
        AgentsCommand::Enroll(args) => super::access::enroll(args, settings).await,
        AgentsCommand::Revoke { keys, agent } => {
            super::access::revoke(&keys, &agent, settings).await
        }
        command => on_cell(command, settings).await,
    }
}

async fn on_cell(command: AgentsCommand, settings: &Settings) -> Outcome {
    let connection = Arc::new(settings.open().await?);
    match command {
        // Those are about its credentials.
        AgentsCommand::Enroll(_) | AgentsCommand::Revoke { .. } => {}
        AgentsCommand::List { all } => {
            let state = read::now(&connection).await?.state;
            let shown = state
                .agents
                .iter()
                .filter(|(_, a)| all || a.status.is_there());
            let rows: Vec<Value> = shown.map(|(id, _)| agent_json(&state, id)).collect();
            let columns = [
                ("NAME", "name"),
                ("STATUS", "status"),
                ("SLOTS", "slots"),
                ("USED", "used"),
                ("LABELS", "labels"),
                ("RUNTIMES", "runtimes"),
                ("HOST", "host"),
                ("SINCE", "since"),
            ];
            out::rows(settings.output, &columns, &rows);
        }
        AgentsCommand::Show { agent } => {
            let state = read::now(&connection).await?.state;
            if !state.agents.contains_key(&agent) {
                return Err(Failure::new(
                    Exit::NotFound,
                    format!("there is no agent {agent}"),
                ));
            }
            out::one(settings.output, &agent_json(&state, &agent));
        }
        AgentsCommand::Drain { agent } => {
            control::say_one(
                &connection,
                Control::DrainAgent {
                    agent: agent.clone(),
                },
            )
            .await?;
            out::one(settings.output, &json!({"agent": agent, "drained": true}));
        }
        AgentsCommand::Resume { agent } => {
            control::say_one(
                &connection,
                Control::ResumeAgent {
                    agent: agent.clone(),
                },
            )
            .await?;
            out::one(settings.output, &json!({"agent": agent, "drained": false}));
        }
    }
    Ok(Exit::Ok)
}

fn agent_json(state: &State, id: &AgentId) -> Value {
    let Some(a) = state.agents.get(id) else {
        return Value::Null;
    };
    let status = if a.is_drained && a.status.is_there() {
        "drained"
    } else {
        a.status.as_str()
    };
    json!({
        "name": id, "status": status, "slots": a.joined.slots, "used": a.slots_used(),
        "labels": a.joined.labels, "runtimes": a.joined.runtimes, "host": a.joined.host,
        "version": a.joined.version, "incarnation": a.incarnation,
        "sandboxes": a.joined.sandboxes, "network_max": a.joined.network_max(),
        "since": format_time(a.since_ms),
        "tasks": a.slots.values().map(|s| s.task).collect::<Vec<_>>(),
    })
}

pub(crate) async fn queues(command: QueueCommand, settings: &Settings) -> Outcome {
    let connection = Arc::new(settings.open().await?);
    match command {
        QueueCommand::List => {
            let state = read::now(&connection).await?.state;
            let columns = [
                ("QUEUE", "queue"),
                ("PAUSED", "paused"),
                ("WAITING", "waiting"),
                ("READY", "ready"),
                ("RUNNING", "running"),
                ("DEAD", "dead"),
                ("CAP", "cap"),
            ];
            out::rows(settings.output, &columns, &queue_rows(&state));
        }
        QueueCommand::Pause { queue } => {
            control::say_one(
                &connection,
                Control::PauseQueue {
                    queue: queue.clone(),
                },
            )
            .await?;
            out::one(settings.output, &json!({"queue": queue, "paused": true}));
        }
        QueueCommand::Resume { queue } => {
            control::say_one(
                &connection,
                Control::ResumeQueue {
                    queue: queue.clone(),
                },
            )
            .await?;
            out::one(settings.output, &json!({"queue": queue, "paused": false}));
        }
        QueueCommand::Redrive { queue } => {
            let state = read::now(&connection).await?.state;
            let dead: Vec<Control> = state
                .tasks
                .iter()
                .filter(|(_, t)| t.spec.queue == queue && t.is_dead_letter())
                .map(|(id, _)| Control::Retry { task: *id })
                .collect();
            let mut redriven = 0;
            for part in dead.chunks(1_000) {
                let (_, verdicts) = control::say(&connection, part).await?;
                redriven += verdicts
                    .iter()
                    .filter(|v| **v == conductor_domain::Verdict::Applied)
                    .count();
            }
            out::one(
                settings.output,
                &json!({"queue": queue, "redriven": redriven}),
            );
        }
    }
    Ok(Exit::Ok)
}

fn queue_rows(state: &State) -> Vec<Value> {
    #[derive(Default)]
    struct Counts {
        waiting: u64,
        ready: u64,
        running: u64,
        dead: u64,
    }
    let mut queues: BTreeMap<QueueName, Counts> = BTreeMap::new();
    for queue in &state.paused {
        queues.entry(queue.clone()).or_default();
    }
    for task in state.tasks.values() {
        let counts = queues.entry(task.spec.queue.clone()).or_default();
        counts.waiting += u64::from(task.is_waiting());
        counts.ready += u64::from(task.state_name() == "ready");
        counts.running += u64::from(task.assigned().is_some());
        counts.dead += u64::from(task.is_dead_letter());
    }
    queues
        .into_iter()
        .map(|(queue, c)| {
            json!({
                "queue": queue, "paused": state.paused.contains(&queue), "waiting": c.waiting,
                "ready": c.ready, "running": c.running, "dead": c.dead,
                "cap": state.config.backlog_max_of(queue.as_str()),
            })
        })
        .collect()
}

/// Reads a change strictly: a mistyped setting must not look as if it had been changed.
fn read_change(json: &str) -> Outcome<ConfigChange> {
    let wrong = |e: String| Failure::usage(format!("not a change of the settings: {e}"));
    let mut unknown = Vec::new();
    let mut track = serde_path_to_error::Track::new();
    let mut de = serde_json::Deserializer::from_str(json);
    let de = serde_path_to_error::Deserializer::new(&mut de, &mut track);
    let change = serde_ignored::deserialize(de, |path| unknown.push(path.to_string()));
    let change: ConfigChange = change.map_err(|e: serde_json::Error| {
        wrong(match track.path().to_string().as_str() {
            "." => e.to_string(),
            field => format!("{field}: {e}"),
        })
    })?;
    if !unknown.is_empty() {
        let message = format!("there is no setting {}", unknown.join(", "));
        return Err(wrong(message).hint("`conductor config get` shows those there are"));
    }
    for (namespace, budget) in &change.namespace_budget {
        // One that was set under such a name may still be taken away.
        if budget.has_limit()
            && let Err(e) = namespace.parse::<Namespace>()
        {
            let mut shown: String = namespace.chars().take(NAME_BYTES_MAX).collect();
            if shown.len() < namespace.len() {
                shown.push('…');
            }
            let message = format!("namespace_budget.{shown:?}: the name {e}");
            return Err(wrong(message).hint("name a namespace that tasks can have"));
        }
        check_budget(budget).map_err(|(field, problem, remedy)| {
            let field = format!("namespace_budget.{namespace}.{field}");
            wrong(format!("{field}: {problem}")).hint(remedy)
        })?;
    }
    Ok(change)
}

/// What is wrong with a budget, though the log would take it: the field, and what to do.
fn check_budget(budget: &NamespaceBudget) -> Result<(), (&'static str, String, &'static str)> {
    if let Some(usd) = budget.usd_per_day
        && (usd < 0.0 || !usd.is_finite())
    {
        let remedy = "dollars, such as 20 or 0.5; without the field money is not limited";
        return Err(("usd_per_day", format!("is {usd}"), remedy));
    }
    if let Some(on_reached) = budget.on_reached
        && !budget.has_limit()
    {
        let remedy = "name what is limited as well: usd_per_day, tokens_per_day, turns_per_day or \
                      time_per_day; {} takes the budget away";
        let problem = format!("is {on_reached}, but nothing is limited");
        return Err(("on_reached", problem, remedy));
    }
    // As the log counts it: less than a millionth of a dollar is nothing, too.
    let limits = DayBudget::from(budget);
    let limits = [
        ("usd_per_day", limits.usd_micros),
        ("tokens_per_day", limits.tokens),
        ("turns_per_day", limits.turns),
        ("time_per_day", limits.ran_ms),
    ];
    let nothing = limits.into_iter().find(|(_, limit)| *limit == Some(0));
    if budget.on_reached == Some(OnReached::Ask)
        && let Some((field, _)) = nothing
    {
        let remedy = "more than 0, so that people can be asked for as much again; or on_reached wait \
                      or fail";
        let problem = "counts as 0, and as much again of nothing is nothing".to_owned();
        return Err((field, problem, remedy));
    }
    Ok(())
}

/// The settings in force, for people: what a budget leaves to the default stands there, too.
fn config_json(state: &State) -> Outcome<Value> {
    let mut config = serde_json::to_value(&state.config).map_err(std::io::Error::from)?;
    let budgets = config
        .get_mut("namespace_budget")
        .and_then(Value::as_object_mut);
    for (name, budget) in budgets.into_iter().flatten() {
        if let Some(known) = state.config.namespace_budget.get(name) {
            super::put(budget, "on_reached", known.on_reached.as_str());
        }
    }
    Ok(config)
}

pub(crate) async fn config(command: ConfigCommand, settings: &Settings) -> Outcome {
    let connection = Arc::new(settings.open().await?);
    let state = match command {
        ConfigCommand::Get => read::now(&connection).await?.state,
        ConfigCommand::Put { json } => {
            let change = read_change(&json)?;
            control::say_one(&connection, Control::PutConfig(change))
                .await?
                .state
        }
    };
    out::one(settings.output, &config_json(&state)?);
    Ok(Exit::Ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(json: &str) -> (String, Option<String>) {
        let failure = read_change(json).unwrap_err();
        assert_eq!(failure.code, Exit::Usage);
        (failure.message, failure.hint)
    }

    #[test]
    fn a_change_that_is_wrong_names_its_field_and_what_to_do() {
        let (unknown, _) =
            refused(r#"{"namespace_budget": {"team": {"usd_per_day": 1, "on_reached": "stop"}}}"#);
        assert!(
            unknown.contains("namespace_budget.team.on_reached: unknown variant `stop`")
                && unknown.contains("`wait`, `fail`, `ask`"),
            "{unknown}"
        );
        let (nothing, hint) = refused(r#"{"namespace_budget": {"team": {"on_reached": "ask"}}}"#);
        assert!(
            nothing.contains("namespace_budget.team.on_reached: is ask, but nothing is limited"),
            "{nothing}"
        );
        assert!(hint.unwrap().contains("usd_per_day"));
        let (less, hint) = refused(r#"{"namespace_budget": {"team": {"usd_per_day": -1}}}"#);
        assert!(less.contains("team.usd_per_day: is -1"), "{less}");
        assert!(hint.unwrap().contains("dollars"));
        let (mistyped, hint) = refused(r#"{"namespace_budget": {"team": {"usd": 1}}}"#);
        assert!(mistyped.contains("namespace_budget.team.usd"), "{mistyped}");
        assert!(hint.unwrap().contains("config get"));
    }

    #[test]
    fn as_much_again_of_nothing_is_not_asked_for() {
        for (field, limit) in [
            ("usd_per_day", "0"),
            ("usd_per_day", "1e-9"),
            ("tokens_per_day", "0"),
            ("turns_per_day", "0"),
            ("time_per_day", r#""0s""#),
        ] {
            let of = |budget: &str| format!(r#"{{"namespace_budget": {{"team": {{{budget}}}}}}}"#);
            let asks = of(&format!(r#""{field}": {limit}, "on_reached": "ask""#));
            let (nothing, hint) = refused(&asks);
            let expected = format!("namespace_budget.team.{field}: counts as 0");
            assert!(nothing.contains(&expected), "{nothing}");
            assert!(hint.unwrap().contains("more than 0"));
            let waits = of(&format!(r#""{field}": {limit}"#));
            assert!(read_change(&waits).is_ok(), "{waits}");
        }
        let enough = r#"{"namespace_budget": {"team": {"turns_per_day": 1, "on_reached": "ask"}}}"#;
        assert!(read_change(enough).is_ok());
    }

    #[test]
    fn no_budget_is_set_for_what_no_task_can_have() {
        let long = "x".repeat(200_000);
        for name in ["", "a b", &long] {
            let change = json!({"namespace_budget": {name: {"turns_per_day": 0}}}).to_string();
            let (problem, hint) = refused(&change);
            assert!(problem.contains("namespace_budget.\""), "{problem}");
            assert!(
                problem.contains("must be 1 to 64 characters") && problem.len() < 300,
                "{problem}"
            );
            assert!(hint.unwrap().contains("namespace"));
            let gone = json!({"namespace_budget": {name: {}}}).to_string();
            assert!(read_change(&gone).is_ok(), "it may be taken away");
        }
    }

    #[test]
    fn what_a_budget_leaves_out_is_shown() {
        let mut state = State::new("test".parse().unwrap());
        let change = r#"{"namespace_budget": {"a": {"turns_per_day": 1}, "b": {"turns_per_day": 1, "on_reached": "fail"}}}"#;
        state.config.change(&read_change(change).unwrap());
        let shown = config_json(&state).unwrap();
        let on_reached = |name: &str| shown["namespace_budget"][name]["on_reached"].clone();
        assert_eq!(
            (on_reached("a"), on_reached("b")),
            ("wait".into(), "fail".into())
        );
    }
}
