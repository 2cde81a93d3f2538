//! `conductor submit`: one task from flags, or many from a file.

mod file;

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use conductor_domain::record::Content;
use conductor_domain::{Decoded, State};
use conductor_eventlog::jetstream::Connection;
use conductor_eventlog::{Append, EventLog};
use conductor_protocol::class::OutcomeClass;
use conductor_protocol::event::{Event, TaskDuplicate, TaskRejected};
use conductor_protocol::frame::Encoding;
use conductor_protocol::human::{DurationMs, TimeMs, parse_duration, parse_time};
use conductor_protocol::ids::QueueName;
use conductor_protocol::spec::{
    ClaudeSpec, CommandSpec, Concurrency, NeedPolicy, NoopSpec, PermissionMode, RetryPolicy,
    RunSpec, Timeouts,
};
use conductor_protocol::subject::Subject;
use conductor_protocol::submission::{Context, Submission, resolve_all};
use conductor_protocol::{Position, TaskId};
use conductor_replica::{ReadFrom, Reader};
use futures::StreamExt;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::{control, read};
use crate::exit::{Exit, Failure, Outcome};
use crate::out::{self, Format};
use crate::run::{duration, key_value};
use crate::settings::Settings;

/// Most tasks of one record.
const TASKS_PER_RECORD: usize = 500;
/// Most bytes of one record; a larger task goes alone.
const BYTES_PER_RECORD: usize = 256 * 1024;
/// Records in flight at once, where their order does not matter.
const IN_FLIGHT: usize = 8;

/// Submit tasks
#[derive(Debug, clap::Args)]
pub(crate) struct SubmitArgs {
    /// Program and arguments
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
    /// Tasks from a file: YAML, JSON or JSON lines; - for standard input
    #[arg(long, short, value_name = "FILE", conflicts_with_all = ["command", "claude", "noop"])]
    file: Option<PathBuf>,
    /// Run the Claude Code CLI with this prompt
    #[arg(long, value_name = "PROMPT", conflicts_with_all = ["command", "noop"])]
    claude: Option<String>,
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
    /// Model of the Claude Code CLI
    #[arg(long, requires = "claude")]
    model: Option<String>,
    /// Most turns
    #[arg(long, requires = "claude")]
    max_turns: Option<u32>,
    /// Tools that run without being asked for
    #[arg(long, requires = "claude", value_delimiter = ',')]
    allowed_tools: Vec<String>,
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
    let mut orders = match &args.file {
        Some(path) => file::read(path, &args.queue)?,
        None => vec![from_flags(&args)?],
    };
    file::name_all(&mut orders)?;
    let ordered = file::needs_first(&mut orders);
    validate(&orders, settings)?;
    let connection = Arc::new(settings.open().await?);
    let positions = send(&connection, &orders, ordered).await?;
    if args.wait {
        return wait(&connection, &args, settings, &orders, positions).await;
    }
    let rows: Vec<_> = orders
        .iter()
        .map(|o| json!({"id": o.submission.id, "name": o.submission.name, "queue": o.queue}))
        .collect();
    match (settings.output, rows.as_slice()) {
        (Format::Table, [one]) => out::line(one["id"].as_str().unwrap_or_default()),
        _ => out::rows(settings.output, &[("ID", "id"), ("NAME", "name"), ("QUEUE", "queue")], &rows),
    }
    Ok(Exit::Ok)
}

fn from_flags(args: &SubmitArgs) -> Outcome<Order> {
    let ms = |d: Option<Duration>| d.map(|d| DurationMs(u64::try_from(d.as_millis()).unwrap_or(u64::MAX)));
    let env: BTreeMap<_, _> = args.env.iter().cloned().collect();
    let run = if let Some(prompt) = &args.claude {
        RunSpec::Claude(ClaudeSpec {
            prompt: prompt.clone(),
            model: args.model.clone(),
            max_turns: args.max_turns,
            allowed_tools: args.allowed_tools.clone(),
            permission_mode: args.permission_mode,
            env,
            cwd: args.cwd.clone(),
            ..ClaudeSpec::default()
        })
    } else if args.noop {
        RunSpec::Noop(NoopSpec {})
    } else if args.command.is_empty() {
        return Err(Failure::usage("nothing to submit")
            .hint("conductor submit -- sh -c 'echo hi', or -f tasks.yaml, or --claude PROMPT"));
    } else {
        RunSpec::Command(CommandSpec {
            argv: args.command.clone(),
            env,
            stdin: args.stdin.clone(),
            cwd: args.cwd.clone(),
        })
    };
    let wants_retry = args.max_attempts.is_some() || !args.retry_on.is_empty();
    let base = RetryPolicy::default();
    let retry = wants_retry.then(|| RetryPolicy {
        max_attempts: args.max_attempts.unwrap_or(base.max_attempts),
        backoff: ms(args.backoff).unwrap_or(base.backoff),
        max_backoff: ms(args.max_backoff).unwrap_or(base.max_backoff),
        on: (!args.retry_on.is_empty()).then(|| args.retry_on.clone()),
        ..base
    });
    let timeouts = Timeouts {
        queue: ms(args.timeout_queue),
        run: ms(args.timeout_run),
        heartbeat: ms(args.timeout_heartbeat),
        total: ms(args.timeout_total),
    };
    let submission = Submission {
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
        concurrency: args
            .concurrency_key
            .clone()
            .map(|key| Concurrency { key, limit: args.concurrency_limit }),
        slots: args.slots,
        metadata: args.metadata.iter().cloned().collect(),
    };
    Ok(Order { queue: args.queue.clone(), submission, origin: "the flags".to_owned() })
}

/// Checks everything before anything is sent.
fn validate(orders: &[Order], settings: &Settings) -> Outcome<()> {
    let mut problems = Vec::new();
    for order in orders {
        let context = Context {
            cell: &settings.cell,
            seq: 1,
            time_ms: order.submission.id.map_or(0, |id| id.made_at_ms()),
            queue: &order.queue,
            reply: None,
            traceparent: None,
        };
        let bytes = serde_json::to_vec(&order.submission).map_err(std::io::Error::from)?;
        for result in resolve_all(&context, Encoding::Json, &[&bytes]) {
            let errors = result.err().unwrap_or_default();
            problems.extend(errors.iter().map(|e| format!("{}: {e}", order.origin)));
        }
    }
    if problems.is_empty() {
        return Ok(());
    }
    let message = format!("nothing was submitted:\n  {}", problems.join("\n  "));
    Err(Failure::usage(message))
}

/// Cuts orders into records: neighbours with the same queue, as many as fit.
fn records(connection: &Connection, orders: &[Order]) -> Outcome<Vec<(Append, usize)>> {
    let mut out = Vec::new();
    let mut open: Option<(&QueueName, Vec<String>, usize)> = None;
    let close = |out: &mut Vec<(Append, usize)>, (queue, tasks, _): (&QueueName, Vec<String>, usize)| {
        let append = Append {
            subject: Subject::Submit(queue.clone()).render(connection.cell()),
            payload: format!("[{}]", tasks.join(",")).into(),
            id: uuid::Uuid::new_v4().to_string(),
            expected_last: None,
        };
        out.push((append, tasks.len()));
    };
    for order in orders {
        let task = serde_json::to_string(&order.submission).map_err(std::io::Error::from)?;
        if let Some(record) = open.take_if(|(queue, tasks, bytes)| {
            *queue != &order.queue
                || tasks.len() >= TASKS_PER_RECORD
                || *bytes + task.len() > BYTES_PER_RECORD
        }) {
            close(&mut out, record);
        }
        let (_, tasks, bytes) = open.get_or_insert((&order.queue, Vec::new(), 0));
        *bytes += task.len() + 1;
        tasks.push(task);
    }
    if let Some(record) = open {
        close(&mut out, record);
    }
    Ok(out)
}

/// Appends the orders; returns where each of them stands in the log.
async fn send(
    connection: &Arc<Connection>,
    orders: &[Order],
    ordered: bool,
) -> Outcome<BTreeMap<Position, usize>> {
    let records = records(connection, orders)?;
    let bar = progress(orders.len());
    let in_flight = if ordered { 1 } else { IN_FLIGHT };
    let mut sending = futures::stream::iter(records)
        .map(|(record, tasks)| {
            let connection = Arc::clone(connection);
            async move { control::append(&connection, &record).await.map(|seq| (seq, tasks)) }
        })
        .buffered(in_flight);
    let mut positions = BTreeMap::new();
    while let Some(sent) = sending.next().await {
        let (seq, tasks) = sent?;
        for index in 0..tasks {
            positions.insert(Position::new(seq, index as u32), positions.len());
        }
        bar.inc(tasks as u64);
    }
    bar.finish_and_clear();
    Ok(positions)
}

/// A progress bar on the terminal, where there is much to wait for.
fn progress(len: usize) -> indicatif::ProgressBar {
    if len < 50 || !std::io::stderr().is_terminal() {
        return indicatif::ProgressBar::hidden();
    }
    let style = indicatif::ProgressStyle::with_template("{bar:40} {pos}/{len} {per_sec} {eta}");
    let bar = indicatif::ProgressBar::new(len as u64);
    match style {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

/// What is still waited for.
struct Waiting<'o> {
    orders: &'o [Order],
    positions: BTreeMap<Position, usize>,
    open: BTreeMap<TaskId, usize>,
    rows: Vec<serde_json::Value>,
    worst: Exit,
}

/// Follows the log until every task has ended, or was refused.
async fn wait(
    connection: &Arc<Connection>,
    args: &SubmitArgs,
    settings: &Settings,
    orders: &[Order],
    positions: BTreeMap<Position, usize>,
) -> Outcome {
    let log = Arc::clone(connection) as Arc<dyn EventLog>;
    let first = positions.keys().next().map_or(1, |p| p.seq);
    let snapshots = ReadFrom::Snapshot(connection.as_ref());
    let mut reader = Reader::open(log, snapshots, first - 1).await;
    let patience = args.wait_timeout.unwrap_or(Duration::from_secs(366 * 24 * 3600));
    let deadline = tokio::time::Instant::now() + patience;
    let bar = progress(orders.len());
    let ids = orders.iter().enumerate().filter_map(|(i, o)| Some((o.submission.id?, i)));
    let mut waiting =
        Waiting { orders, positions, open: ids.collect(), rows: Vec::new(), worst: Exit::Ok };
    while !waiting.open.is_empty() {
        let next = tokio::time::timeout_at(deadline, reader.next()).await;
        let (record, _) = next.map_err(|_| {
            let open = waiting.open.len();
            Failure::new(Exit::TimedOut, format!("{open} task(s) have not ended in time"))
        })??;
        waiting.see(&reader.state, &record);
        bar.set_position((orders.len() - waiting.open.len()) as u64);
    }
    bar.finish_and_clear();
    let columns = [
        ("ID", "id"),
        ("NAME", "name"),
        ("STATE", "state"),
        ("ATTEMPTS", "attempts"),
        ("CLASS", "class"),
    ];
    out::rows(settings.output, &columns, &waiting.rows);
    Ok(waiting.worst)
}

impl Waiting<'_> {
    fn see(&mut self, state: &State, record: &Decoded) {
        let (Content::Leader { items, .. } | Content::Agent { items, .. }) = &record.content else {
            return;
        };
        for event in items.iter().flatten() {
            match event {
                Event::TaskRejected(e) => self.rejected(e),
                Event::TaskDuplicate(e) => self.duplicate(e),
                _ => {}
            }
            if let Some(id) = event.task() {
                self.ended(state, id);
            }
        }
    }

    fn rejected(&mut self, e: &TaskRejected) {
        let Some(order) = self.positions.get(&e.submission).and_then(|i| self.orders.get(*i)) else {
            return;
        };
        for error in &e.errors {
            out::error(&format!("{}: rejected: {error}", order.origin), None);
        }
        let id = order.submission.id;
        if id.is_some_and(|id| self.open.remove(&id).is_some()) {
            self.rows.push(json!({"id": id, "name": order.submission.name, "state": "rejected"}));
            self.worst = Exit::TaskFailed;
        }
    }

    /// Our key was somebody else's task already: that one is waited for.
    fn duplicate(&mut self, e: &TaskDuplicate) {
        let Some(index) = self.positions.get(&e.submission).copied() else { return };
        let ours = self.orders.get(index).and_then(|o| o.submission.id);
        if ours.is_some_and(|id| id != e.task && self.open.remove(&id).is_some()) {
            out::say(&format!("it is task {} already", e.task));
            self.open.insert(e.task, index);
        }
    }

    fn ended(&mut self, state: &State, id: TaskId) {
        use conductor_domain::state::Outcome as How;
        let Some(outcome) = state.outcome_of(id) else { return };
        if self.open.remove(&id).is_none() {
            return;
        }
        match outcome {
            How::Succeeded => {}
            How::Failed | How::TimedOut => self.worst = Exit::TaskFailed,
            How::Cancelled if self.worst == Exit::Ok => self.worst = Exit::TaskCancelled,
            How::Cancelled => {}
        }
        self.rows.push(match state.tasks.get(&id) {
            Some(task) => read::task_json(state, id, task),
            None => json!({"id": id, "state": outcome.as_str()}),
        });
    }
}
