//! Waiting for the end of what was submitted.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use conductor_domain::record::Content;
use conductor_domain::{Decoded, State};
use conductor_eventlog::EventLog;
use conductor_eventlog::jetstream::Connection;
use conductor_protocol::event::{Event, TaskDuplicate, TaskRejected};
use conductor_protocol::{Position, TaskId};
use conductor_replica::{ReadFrom, Reader};
use serde_json::json;

use super::send::progress;
use super::{Order, SubmitArgs};
use crate::cli::read;
use crate::exit::{Exit, Failure, Outcome};
use crate::out;
use crate::settings::Settings;

/// What is still waited for.
struct Waiting<'o> {
    orders: &'o [Order],
    positions: BTreeMap<Position, usize>,
    open: BTreeMap<TaskId, usize>,
    rows: Vec<serde_json::Value>,
    worst: Exit,
}

/// Follows the log until every task has ended, or was refused.
pub(super) async fn wait(
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
    let patience = args
        .wait_timeout
        .unwrap_or(Duration::from_secs(366 * 24 * 3600));
    let deadline = tokio::time::Instant::now() + patience;
    let bar = progress(orders.len());
    let ids = orders
        .iter()
        .enumerate()
        .filter_map(|(i, o)| Some((o.submission.id?, i)));
    let mut waiting = Waiting {
        orders,
        positions,
        open: ids.collect(),
        rows: Vec::new(),
        worst: Exit::Ok,
    };
    while !waiting.open.is_empty() {
        let next = tokio::time::timeout_at(deadline, reader.next()).await;
        let (record, _) = next.map_err(|_| {
            let open = waiting.open.len();
            Failure::new(
                Exit::TimedOut,
                format!("{open} task(s) have not ended in time"),
            )
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
        let Some(order) = self
            .positions
            .get(&e.submission)
            .and_then(|i| self.orders.get(*i))
        else {
            return;
        };
        for error in &e.errors {
            out::error(&format!("{}: rejected: {error}", order.origin), None);
        }
        let id = order.submission.id;
        if id.is_some_and(|id| self.open.remove(&id).is_some()) {
            self.rows
                .push(json!({"id": id, "name": order.submission.name, "state": "rejected"}));
            self.worst = Exit::TaskFailed;
        }
    }

    /// Our key was somebody else's task already: that one is waited for.
    fn duplicate(&mut self, e: &TaskDuplicate) {
        let Some(index) = self.positions.get(&e.submission).copied() else {
            return;
        };
        let ours = self.orders.get(index).and_then(|o| o.submission.id);
        if ours.is_some_and(|id| id != e.task && self.open.remove(&id).is_some()) {
            out::say(&format!("it is task {} already", e.task));
            self.open.insert(e.task, index);
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
