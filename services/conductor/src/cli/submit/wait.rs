//! Waiting for the end of what was submitted.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use conductor_domain::record::Content;
use conductor_domain::{Decoded, State};
use conductor_eventlog::EventLog;
use conductor_eventlog::jetstream::Connection;
use conductor_protocol::event::{Event, TaskAccepted, TaskDuplicate, TaskRejected};
use conductor_protocol::{Position, TaskId};
use conductor_replica::{ReadFrom, Reader};
use serde_json::{Value, json};

use super::send::progress;
use super::{Order, SubmitArgs};
use crate::cli::read;
use crate::exit::{Exit, Failure, Outcome};
use crate::out::{self, Format};
use crate::settings::Settings;

/// How long a decision is waited for: only a cell without an orchestrator takes longer.
const DECISION_MAX: Duration = Duration::from_secs(10);
/// Most ids an error names.
const NAMED_MAX: usize = 5;

/// What is waited for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Goal {
    /// That each submission is accepted or refused.
    Decided,
    /// That each task ends.
    Ended,
}

/// What is heard of a submission besides that it was accepted.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Word {
    /// It was refused: which one, and what is wrong with it.
    Refused(String),
    /// It is this task already.
    Duplicate(TaskId),
}

impl Word {
    /// Says it to the person at the terminal.
    fn say(self) {
        match self {
            Self::Refused(why) => out::error(&why, None),
            Self::Duplicate(task) => out::say(&format!("it is task {task} already")),
        }
    }
}

/// What became of submissions.
#[derive(Debug)]
pub(super) struct Decisions {
    /// One for each, in the order of the decisions: id, name, queue, and what was decided.
    pub(super) rows: Vec<Value>,
    /// How the worst of them went.
    worst: Exit,
    /// Whether all were decided in time.
    is_complete: bool,
}

/// What is still waited for.
struct Waiting<'o> {
    goal: Goal,
    orders: &'o [Order],
    positions: BTreeMap<Position, usize>,
    open: BTreeMap<TaskId, usize>,
    rows: Vec<Value>,
    words: Vec<Word>,
    worst: Exit,
}

/// Follows the log until every submission is decided, or nobody decides.
pub(super) async fn decisions(
    connection: &Arc<Connection>,
    orders: &[Order],
    positions: BTreeMap<Position, usize>,
    heard: &mut (dyn FnMut(Word) + Send),
) -> Outcome<Decisions> {
    let mut waiting = Waiting::new(Goal::Decided, orders, positions);
    let is_complete = waiting.follow(connection, DECISION_MAX, heard).await?;
    let open: Vec<usize> = waiting.open.values().copied().collect();
    for index in open {
        waiting.row(index, "submitted", None);
    }
    Ok(Decisions {
        rows: waiting.rows,
        worst: waiting.worst,
        is_complete,
    })
}

/// Says where what was submitted stands, to whoever may read no more of the log.
pub(super) fn unread(settings: &Settings, orders: &[Order], positions: &BTreeMap<Position, usize>) {
    out::say("submitted; these credentials read nothing, so others see whether it is accepted");
    let row = |(at, index): (&Position, &usize)| {
        let order = orders.get(*index)?;
        let (id, name) = (&order.submission.id, &order.submission.name);
        Some(json!({
            "id": id, "name": name, "queue": order.queue, "state": "submitted",
            "submission": at.to_string(),
        }))
    };
    let rows: Vec<Value> = positions.iter().filter_map(row).collect();
    let columns = [
        ("SUBMISSION", "submission"),
        ("NAME", "name"),
        ("QUEUE", "queue"),
        ("STATE", "state"),
    ];
    out::rows(settings.output, &columns, &rows);
}

/// Follows the log until every submission is decided; says under which id each is known.
pub(super) async fn decided(
    connection: &Arc<Connection>,
    settings: &Settings,
    orders: &[Order],
    positions: BTreeMap<Position, usize>,
) -> Outcome {
    let decisions = decisions(connection, orders, positions, &mut Word::say).await?;
    if !decisions.is_complete {
        out::say("submitted; no orchestrator has decided yet whether to accept");
    }
    match (settings.output, decisions.rows.as_slice()) {
        // For scripts: just the id of what will run.
        (Format::Table, [one]) => {
            if let Some(id) = one
                .get("id")
                .and_then(Value::as_str)
                .filter(|_| decisions.worst == Exit::Ok)
            {
                out::line(id);
            }
        }
        _ => {
            let columns = [
                ("ID", "id"),
                ("NAME", "name"),
                ("QUEUE", "queue"),
                ("STATE", "state"),
            ];
            out::rows(settings.output, &columns, &decisions.rows);
        }
    }
    Ok(decisions.worst)
}

/// Follows the log until every task has ended, or was refused.
pub(super) async fn ended(
    connection: &Arc<Connection>,
    args: &SubmitArgs,
    settings: &Settings,
    orders: &[Order],
    positions: BTreeMap<Position, usize>,
) -> Outcome {
    let mut waiting = Waiting::new(Goal::Ended, orders, positions);
    let patience = args
        .wait_timeout
        .unwrap_or(Duration::from_secs(366 * 24 * 3600));
    if !waiting.follow(connection, patience, &mut Word::say).await? {
        let open = waiting.open.len();
        let ids: Vec<String> = waiting
            .open
            .keys()
            .take(NAMED_MAX)
            .map(ToString::to_string)
            .collect();
        let more = if open > NAMED_MAX { ", …" } else { "" };
        let message = format!(
            "{open} task(s) have not ended in time: {}{more}",
            ids.join(", ")
        );
        return Err(
            Failure::new(Exit::TimedOut, message).hint("they go on; `conductor task watch`")
        );
    }
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

impl<'o> Waiting<'o> {
    fn new(goal: Goal, orders: &'o [Order], positions: BTreeMap<Position, usize>) -> Self {
        let ids = orders.iter().enumerate();
        let open = ids
            .filter_map(|(i, o)| Some((o.submission.id?, i)))
            .collect();
        Self {
            goal,
            orders,
            positions,
            open,
            rows: Vec::new(),
            words: Vec::new(),
            worst: Exit::Ok,
        }
    }

    /// Reads the log until nothing is waited for any more; `false` when time is up.
    async fn follow(
        &mut self,
        connection: &Arc<Connection>,
        at_most: Duration,
        heard: &mut (dyn FnMut(Word) + Send),
    ) -> Outcome<bool> {
        let log = Arc::clone(connection) as Arc<dyn EventLog>;
        let first = self.positions.keys().next().map_or(1, |p| p.seq);
        let snapshots = ReadFrom::Snapshot(connection.as_ref());
        let mut reader = Reader::open(log, snapshots, first - 1).await;
        let deadline = tokio::time::Instant::now() + at_most;
        let bar = progress(self.orders.len());
        while !self.open.is_empty() {
            let Ok(next) = tokio::time::timeout_at(deadline, reader.next()).await else {
                bar.finish_and_clear();
                return Ok(false);
            };
            let (record, _) = next?;
            self.see(&reader.state, &record);
            self.words.drain(..).for_each(&mut *heard);
            bar.set_position((self.orders.len() - self.open.len()) as u64);
        }
        bar.finish_and_clear();
        Ok(true)
    }

    fn row(&mut self, index: usize, state: &str, id: Option<TaskId>) {
        let Some(order) = self.orders.get(index) else {
            return;
        };
        let id = id.or(order.submission.id);
        let name = &order.submission.name;
        let queue = &order.queue;
        self.rows
            .push(json!({"id": id, "name": name, "queue": queue, "state": state}));
    }

    fn accepted(&mut self, e: &TaskAccepted) {
        if self.goal == Goal::Decided
            && self.positions.contains_key(&e.submission)
            && let Some(index) = self.open.remove(&e.task)
        {
            self.row(index, "accepted", None);
        }
    }

    fn see(&mut self, state: &State, record: &Decoded) {
        let (Content::Leader { items, .. } | Content::Agent { items, .. }) = &record.content else {
            return;
        };
        for event in items.iter().flatten() {
            match event {
                Event::TaskAccepted(e) => self.accepted(e),
                Event::TaskRejected(e) => self.rejected(e),
                Event::TaskDuplicate(e) => self.duplicate(e),
                _ => {}
            }
            if let Some(id) = event.task().filter(|_| self.goal == Goal::Ended) {
                self.ended(state, id);
            }
        }
    }

    fn rejected(&mut self, e: &TaskRejected) {
        let Some(order) = self
            .positions
            .get(&e.submission)
            .and_then(|i| self.orders.get(*i))
        else {
            return;
        };
        for error in &e.errors {
            let why = format!("{}: rejected: {error}", order.origin);
            self.words.push(Word::Refused(why));
        }
        let index = order.submission.id.and_then(|id| self.open.remove(&id));
        if let Some(index) = index {
            self.row(index, "rejected", None);
            self.worst = match self.goal {
                Goal::Decided => Exit::Failure,
                Goal::Ended => Exit::TaskFailed,
            };
        }
    }

    /// Our key was somebody else's task already: that one is waited for.
    fn duplicate(&mut self, e: &TaskDuplicate) {
        let Some(index) = self.positions.get(&e.submission).copied() else {
            return;
        };
        let ours = self.orders.get(index).and_then(|o| o.submission.id);
        if ours.is_none_or(|id| self.open.remove(&id).is_none()) {
            return;
        }
        self.words.push(Word::Duplicate(e.task));
        match self.goal {
            Goal::Decided => self.row(index, "duplicate", Some(e.task)),
            Goal::Ended => {
                self.open.insert(e.task, index);
            }
        }
    }

    fn ended(&mut self, state: &State, id: TaskId) {
        use conductor_domain::state::Outcome as How;
        let Some(outcome) = state.outcome_of(id) else {
            return;
        };
        if self.open.remove(&id).is_none() {
            return;
        }
        match outcome {
            How::Failed | How::TimedOut => self.worst = Exit::TaskFailed,
            How::Cancelled if self.worst == Exit::Ok => self.worst = Exit::TaskCancelled,
            How::Succeeded | How::Cancelled => {}
        }
        self.rows.push(match state.tasks.get(&id) {
            Some(task) => read::task_json(state, id, task),
            None => json!({"id": id, "state": outcome.as_str()}),
        });
    }
}
