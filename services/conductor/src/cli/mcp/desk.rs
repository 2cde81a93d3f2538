//! What the tools do. Each call reads the log anew: nothing a client was told is remembered here.

use std::sync::Arc;
use std::time::Duration;

use conductor_eventlog::jetstream::Connection;
use conductor_protocol::ids::QueueName;
use serde_json::{Value, json};
use tokio::sync::{OnceCell, mpsc};

use super::heard;
use super::params::{Cancel, Decide, List, Show, Submit, Watch};
use crate::cli::submit::file::now_ms;
use crate::cli::task::detail::{self, Detail};
use crate::cli::task::listing::{self, Filter};
use crate::cli::{approvals, control, put, read, submit, task};
use crate::exit::{Exit, Failure, Outcome};
use crate::settings::Settings;

/// Where tasks go that name no queue.
const QUEUE: &str = "default";

/// Where what happens to a watched task is told, event by event.
pub(super) type Told = mpsc::UnboundedSender<String>;

/// A cell, as clients deal with it.
#[derive(Debug)]
pub(super) struct Desk {
    settings: Settings,
    connection: OnceCell<Arc<Connection>>,
}

impl Desk {
    pub(super) fn new(settings: Settings) -> Self {
        Self {
            settings,
            connection: OnceCell::new(),
        }
    }

    /// Connects with the first call that needs it, and tries again with the next where that
    /// fails: clients start their servers long before anybody asks for anything.
    async fn connection(&self) -> Outcome<&Arc<Connection>> {
        let open = async || self.settings.open().await.map(Arc::new);
        self.connection.get_or_try_init(open).await
    }

    pub(super) async fn submit(&self, submit: Submit) -> Outcome<Value> {
        let queue: QueueName = QUEUE
            .parse()
            .map_err(|e| Failure::usage(format!("queue: {e}")))?;
        let order = submit::file::order(submit.into_task()?, &queue, "the task".to_owned());
        let order = order.map_err(|wrong| {
            let message = format!("nothing was submitted:\n  {}", wrong.join("\n  "));
            Failure::usage(message)
        })?;
        submit::one(self.connection().await?, order).await
    }

    pub(super) async fn list(&self, list: List) -> Outcome<Value> {
        let limit = list.limit()?;
        let reader = read::now(self.connection().await?).await?;
        let filter = Filter {
            includes_ended: list.include_ended,
            state: list.state.map(super::params::TaskState::as_str),
            queue: list.queue.as_deref(),
            namespace: list.namespace.as_deref(),
            // One more tells whether there are more.
            limit: limit + 1,
        };
        let mut rows = listing::rows(&reader.state, &filter);
        let has_more = rows.len() > limit;
        let start = rows.len().saturating_sub(limit);
        rows.drain(..start);
        let mut value = json!({"tasks": rows, "has_more": has_more});
        heard::mark_tasks(&mut value);
        Ok(value)
    }

    pub(super) async fn show(&self, show: Show) -> Outcome<Value> {
        let detail = detail::of(self.connection().await?, &show.task).await?;
        Ok(shown(detail, show.include_events))
    }

    /// Waits for the end of a task, for so long; whatever happens meanwhile is told.
    pub(super) async fn watch(&self, watch: Watch, told: &Told) -> Outcome<Value> {
        let patience = Duration::from_secs(watch.timeout_seconds()?);
        let connection = self.connection().await?;
        let mut reader = read::now(connection).await?;
        let id = read::find(&reader.state, &watch.task)?;
        if !reader.state.knows(id) {
            let message = format!("task: no task {id} is known, or it ended long ago");
            return Err(Failure::new(Exit::NotFound, message)
                .hint("show_task with include_events reads the whole log"));
        }
        let seen = |entry: &read::Entry| {
            // Nobody need listen.
            let _ = told.send(entry.in_short());
        };
        let waited = control::wait_for_end(&mut reader, id, Some(patience), seen).await;
        let has_ended = match waited {
            Ok(_) => true,
            Err(failure) if failure.code == Exit::TimedOut => false,
            Err(failure) => return Err(failure),
        };
        let mut value = shown(detail::of(connection, &id.to_string()).await?, false);
        put(&mut value, "has_ended", has_ended);
        Ok(value)
    }

    pub(super) async fn cancel(&self, cancel: Cancel) -> Outcome<Value> {
        task::cancel(self.connection().await?, &cancel.task, cancel.reason).await
    }

    pub(super) async fn approvals(&self) -> Outcome<Value> {
        let reader = read::now(self.connection().await?).await?;
        let mut value = json!({"approvals": approvals::asked(&reader.state, now_ms())});
        heard::mark_questions(&mut value);
        Ok(value)
    }

    pub(super) async fn decide(&self, decide: Decide) -> Outcome<Value> {
        let (reply, answer) = decide.into_reply()?;
        approvals::answer(self.connection().await?, reply, answer).await
    }
}

/// A task in one object.
fn shown(detail: Detail, includes_events: bool) -> Value {
    let mut value = detail.value;
    if !detail.artifacts.is_empty() {
        put(&mut value, "artifacts", detail.artifacts);
    }
    if includes_events {
        let events: Vec<Value> = detail.timeline.iter().map(read::Entry::to_json).collect();
        put(&mut value, "events", events);
    }
    heard::mark_task(&mut value);
    value
}
