//! `conductor submit`: one task from flags, or many from a file.

mod boxed;
pub(crate) mod file;
pub(crate) mod send;
mod wait;
mod works;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use conductor_eventlog::jetstream::Connection;
use conductor_protocol::class::OutcomeClass;
use conductor_protocol::event::FieldError;
use conductor_protocol::frame::Encoding;
use conductor_protocol::human::{DurationMs, TimeMs, parse_duration, parse_time};
use conductor_protocol::ids::QueueName;
use conductor_protocol::spec::{
    AcpSpec, ClaudeSpec, CodexSpec, CommandSpec, Concurrency, NeedPolicy, NoopSpec, PermissionMode,
    RetryPolicy, RunSpec, Timeouts,
};
use conductor_protocol::submission::{Context, Submission, resolve_all};
use conductor_protocol::{CellId, TaskId};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::exit::{Exit, Failure, Outcome};
use crate::run::{duration, key_value};
use crate::settings::Settings;
use wait::Word;

/// Submit tasks
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct SubmitArgs {
    /// Program and arguments
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
    /// Tasks from a file: YAML, JSON or JSON lines; - for standard input
    #[arg(long, short, value_name = "FILE", conflicts_with_all = ["command", "claude", "codex", "acp", "noop"])]
    file: Option<PathBuf>,
    /// Run the Claude Code CLI with this prompt
    #[arg(long, value_name = "PROMPT", group = "cli", conflicts_with_all = ["command", "noop"])]
    claude: Option<String>,
    /// Run the Codex CLI with this prompt
    #[arg(long, value_name = "PROMPT", group = "cli", conflicts_with_all = ["command", "noop"])]
    codex: Option<String>,
    /// Give this prompt to the agent that COMMAND starts (Agent Client Protocol)
    #[arg(long, value_name = "PROMPT", requires = "command", conflicts_with_all = ["cli", "noop"])]
    acp: Option<String>,
    /// Run nothing
    #[arg(long)]
    noop: bool,
    /// The queue
    #[arg(long, short, default_value = "default")]
    queue: QueueName,
    /// Whose task it is
    #[arg(long)]
    namespace: Option<String>,
    /// What people call it
    #[arg(long)]
    name: Option<String>,
    /// A UUIDv7 of your own making
    #[arg(long)]
    id: Option<TaskId>,
    /// Idempotency key: the same key again is the same task
    #[arg(long)]
    key: Option<String>,
    /// W3C trace context that the task's trace joins
    #[arg(long, env = "TRACEPARENT", value_name = "CONTEXT")]
    traceparent: Option<String>,
    /// 0 (lowest) to 9
    #[arg(long)]
    priority: Option<u8>,
    /// Labels the agent must have
    #[arg(long = "label", value_parser = key_value, value_name = "KEY=VALUE")]
    labels: Vec<(String, String)>,
    /// Tasks that must end first
    #[arg(long = "need", value_name = "ID")]
    needs: Vec<String>,
    /// What happens when one of them does not succeed: fail, skip or run
    #[arg(long, value_parser = wire::<NeedPolicy>)]
    on_need_failed: Option<NeedPolicy>,
    /// Most attempts
    #[arg(long)]
    max_attempts: Option<u32>,
    /// Delay before the second attempt; doubles from there
    #[arg(long, value_parser = duration)]
    backoff: Option<Duration>,
    /// Longest delay between attempts
    #[arg(long, value_parser = duration)]
    max_backoff: Option<Duration>,
    /// Outcome classes that are retried
    #[arg(long, value_delimiter = ',', value_parser = wire::<OutcomeClass>)]
    retry_on: Vec<OutcomeClass>,
    /// Longest time from ready to started
    #[arg(long, value_parser = duration)]
    timeout_queue: Option<Duration>,
    /// Longest time from started to ended, for each attempt
    #[arg(long, value_parser = duration)]
    timeout_run: Option<Duration>,
    /// Longest time without a sign of life
    #[arg(long, value_parser = duration)]
    timeout_heartbeat: Option<Duration>,
    /// Longest time in all
    #[arg(long, value_parser = duration)]
    timeout_total: Option<Duration>,
    /// Not before this time (RFC 3339)
    #[arg(long, value_parser = |s: &str| parse_time(s).ok_or("not an RFC 3339 time"))]
    start_at: Option<TimeMs>,
    /// Not before this long from now
    #[arg(long, value_parser = |s: &str| parse_duration(s).ok_or("not a duration"))]
    delay: Option<DurationMs>,
    /// At most so many tasks with the same key run at once
    #[arg(long)]
    concurrency_key: Option<String>,
    /// How many
    #[arg(long, default_value_t = 1, requires = "concurrency_key")]
    concurrency_limit: u32,
    /// Slots it takes
    #[arg(long)]
    slots: Option<u32>,
    /// Your own notes
    #[arg(long = "meta", value_parser = key_value, value_name = "KEY=VALUE")]
    metadata: Vec<(String, String)>,
    /// Environment of the program
    #[arg(long = "env", value_parser = key_value, value_name = "KEY=VALUE")]
    env: Vec<(String, String)>,
    /// Working directory, relative to the attempt's workspace
    #[arg(long)]
    cwd: Option<String>,
    /// Text on standard input
    #[arg(long)]
    stdin: Option<String>,
    #[command(flatten)]
    boxed: boxed::BoxedArgs,
    #[command(flatten)]
    works: works::WorksArgs,
    /// Model of the Claude Code CLI or the Codex CLI
    #[arg(long, requires = "cli")]
    model: Option<String>,
    /// Most turns
    #[arg(long, requires = "claude")]
    max_turns: Option<u32>,
    /// Tools that run without being asked for
    #[arg(long, requires = "claude", value_delimiter = ',')]
    allowed_tools: Vec<String>,
    /// Answer with yes when an agent asks whether a tool may run
    #[arg(long, requires = "acp")]
    allow_tools: bool,
    /// default, acceptEdits, dontAsk, plan or bypassPermissions
    #[arg(long, requires = "claude", value_parser = wire::<PermissionMode>)]
    permission_mode: Option<PermissionMode>,
    /// Wait until all have ended; the exit code says how
    #[arg(long, short)]
    wait: bool,
    /// Wait no longer than this
    #[arg(long, requires = "wait", value_parser = duration)]
    wait_timeout: Option<Duration>,
}

/// Reads a word as it stands on the wire.
fn wire<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    serde_json::from_value(text.into()).map_err(|e| e.to_string())
}

/// A task and where it goes.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Order {
    pub(crate) queue: QueueName,
    pub(crate) submission: Submission,
    /// Where in the file it stands, for error messages.
    pub(crate) origin: String,
}

pub(crate) async fn run(args: SubmitArgs, settings: &Settings) -> Outcome {
    check_flags(&args)?;
    let mut orders = match &args.file {
        Some(path) => file::read(path, &args.queue)?,
        None => vec![from_flags(&args)?],
    };
    file::name_all(&mut orders)?;
    if args.file.is_some() {
        let orders = orders.iter_mut();
        for order in orders.filter(|o| o.submission.traceparent.is_none()) {
            order.submission.traceparent.clone_from(&args.traceparent);
        }
    }
    let ordered = file::needs_first(&mut orders);
    validate(&orders, &settings.cell)?;
    let connection = Arc::new(settings.open().await?);
    let may_read = send::may_read(&connection);
    if args.wait && !may_read {
        let message = "these credentials may not read the log, so no end can be waited for";
        let hint = "submit without --wait, or with credentials of an operator";
        return Err(Failure::new(Exit::Denied, message).hint(hint));
    }
    let positions = send::send(&connection, &orders, ordered).await?;
    if !may_read {
        wait::unread(settings, &orders, &positions);
        return Ok(Exit::Ok);
    }
    if args.wait {
        return wait::ended(&connection, &args, settings, &orders, positions).await;
    }
    wait::decided(&connection, settings, &orders, positions).await
}

/// Task flags mean nothing beside a file: better said than ignored.
fn check_flags(args: &SubmitArgs) -> Outcome<()> {
    let plain = Submission {
        run: None,
        // It may come from the environment, and goes with a file, too.
        traceparent: None,
        ..from_flags(&SubmitArgs {
            noop: true,
            file: None,
            ..args.clone()
        })?
        .submission
    };
    let has_flags = plain != Submission::default();
    let has_run_flags = !args.env.is_empty() || args.cwd.is_some() || args.stdin.is_some();
    if args.file.is_some() && (has_flags || has_run_flags || args.noop) {
        return Err(Failure::usage("flags of a task do not go with --file")
            .hint("write them into the file; --queue is where tasks go that name none"));
    }
    if args.noop && (has_run_flags || !args.command.is_empty()) {
        return Err(Failure::usage(
            "--noop runs nothing: no command, --env, --cwd or --stdin",
        ));
    }
    Ok(())
}

fn from_flags(args: &SubmitArgs) -> Outcome<Order> {
    let ms = |d: Option<Duration>| {
        d.map(|d| DurationMs(u64::try_from(d.as_millis()).unwrap_or(u64::MAX)))
    };
    let run = run_from_flags(args)?;
    let wants_retry = args.max_attempts.is_some() || !args.retry_on.is_empty();
    let base = RetryPolicy::default();
    let retry = wants_retry.then(|| RetryPolicy {
        max_attempts: args.max_attempts.unwrap_or(base.max_attempts),
        backoff: ms(args.backoff).unwrap_or(base.backoff),
        max_backoff: ms(args.max_backoff).unwrap_or(base.max_backoff),
        on: (!args.retry_on.is_empty()).then(|| args.retry_on.iter().copied().collect()),
        ..base
    });
    let timeouts = Timeouts {
        queue: ms(args.timeout_queue),
        run: ms(args.timeout_run),
        heartbeat: ms(args.timeout_heartbeat),
        total: ms(args.timeout_total),
    };
    let mut submission = Submission {
        id: args.id,
        key: args.key.clone(),
        name: args.name.clone(),
        run: Some(run),
        queue: None,
        namespace: args.namespace.clone(),
        priority: args.priority,
        labels: args.labels.iter().cloned().collect(),
        needs: args.needs.clone(),
        on_need_failed: args.on_need_failed,
        retry,
        timeouts: (timeouts != Timeouts::default()).then_some(timeouts),
        start_at: args.start_at,
        delay: args.delay,
        concurrency: args.concurrency_key.clone().map(|key| Concurrency {
            key,
            limit: args.concurrency_limit,
        }),
        slots: args.slots,
        metadata: args.metadata.iter().cloned().collect(),
        traceparent: args.traceparent.clone(),
        sandbox: args.boxed.spec(),
        ..Submission::default()
    };
    args.works.put(&mut submission);
    Ok(Order {
        queue: args.queue.clone(),
        submission,
        origin: "the flags".to_owned(),
    })
}

/// What the flags say is run.
fn run_from_flags(args: &SubmitArgs) -> Outcome<RunSpec> {
    let env: BTreeMap<_, _> = args.env.iter().cloned().collect();
    let cwd = args.cwd.clone();
    Ok(if let Some(prompt) = args.claude.clone() {
        RunSpec::Claude(Box::new(ClaudeSpec {
            prompt,
            model: args.model.clone(),
            max_turns: args.max_turns,
            allowed_tools: args.allowed_tools.clone(),
            permission_mode: args.permission_mode,
            env,
            cwd,
            ..ClaudeSpec::default()
        }))
    } else if let Some(prompt) = args.codex.clone() {
        RunSpec::Codex(Box::new(CodexSpec {
            prompt,
            model: args.model.clone(),
            env,
            cwd,
            ..CodexSpec::default()
        }))
    } else if let Some(prompt) = args.acp.clone() {
        RunSpec::Acp(Box::new(AcpSpec {
            argv: args.command.clone(),
            prompt,
            allow_tools: args.allow_tools,
            env,
            cwd,
            ..AcpSpec::default()
        }))
    } else if args.noop {
        RunSpec::Noop(NoopSpec {})
    } else if args.command.is_empty() {
        return Err(Failure::usage("nothing to submit")
            .hint("conductor submit -- sh -c 'echo hi', or -f tasks.yaml, or --claude PROMPT"));
    } else {
        RunSpec::Command(Box::new(CommandSpec {
            argv: args.command.clone(),
            env,
            stdin: args.stdin.clone(),
            cwd,
        }))
    })
}

/// Submits one task and says what was decided about it; a refusal names every wrong field.
pub(crate) async fn one(connection: &Arc<Connection>, order: Order) -> Outcome<Value> {
    let mut orders = vec![order];
    file::name_all(&mut orders)?;
    validate(&orders, connection.cell())?;
    let positions = send::send(connection, &orders, true).await?;
    let mut refusals = Vec::new();
    let mut heard = |word: Word| {
        if let Word::Refused(why) = word {
            refusals.push(why);
        }
    };
    let decisions = wait::decisions(connection, &orders, positions, &mut heard).await?;
    if !refusals.is_empty() {
        let message = format!("the task was refused:\n  {}", refusals.join("\n  "));
        return Err(Failure::new(Exit::Failure, message));
    }
    let unseen = || Failure::new(Exit::Failure, "the submission was not read back");
    decisions.rows.into_iter().next().ok_or_else(unseen)
}

/// Checks everything before anything is sent.
fn validate(orders: &[Order], cell: &CellId) -> Outcome<()> {
    let mut wrong = Vec::new();
    for order in orders {
        let of_it = problems(order, cell)?;
        wrong.extend(of_it.iter().map(|e| format!("{}: {e}", order.origin)));
    }
    if wrong.is_empty() {
        return Ok(());
    }
    let message = format!("nothing was submitted:\n  {}", wrong.join("\n  "));
    Err(Failure::usage(message))
}

/// What the orchestrator would find wrong with a task, whatever else there is.
pub(crate) fn problems(order: &Order, cell: &CellId) -> Outcome<Vec<FieldError>> {
    let context = Context {
        cell,
        seq: 1,
        time_ms: order.submission.id.map_or(0, |id| id.made_at_ms()),
        queue: &order.queue,
        namespace: None,
        reply: None,
        traceparent: None,
    };
    let bytes = serde_json::to_vec(&order.submission).map_err(std::io::Error::from)?;
    let resolved = resolve_all(&context, Encoding::Json, &[&bytes]);
    Ok(resolved
        .into_iter()
        .filter_map(Result::err)
        .flatten()
        .collect())
}
