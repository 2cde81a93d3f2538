//! `conductor watch-folder`: files that are put into a folder become tasks, and what became of them
//! is written beside them.
//!
//! Reading order: [`names`] (who wrote which file) → [`status`] (what is written beside a task file)
//! → [`claim`] (from a file to a task) → [`ledger`] (what is known of each, pure) → [`disk`] (the
//! folder) → [`looker`] (what is found in it) → here, where all of that runs.
//!
//! What makes a file count once: its status, with the task's id and an idempotency key, is on disk
//! before it is submitted. A process that dies in between leaves a status that says `submitting`,
//! and the next one submits the same again, under the same key, unless the log says that it is there.

mod claim;
mod disk;
mod ledger;
mod looker;
mod names;
mod status;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use conductor_eventlog::EventLog;
use conductor_eventlog::jetstream::Connection;
use conductor_protocol::ids::QueueName;
use conductor_replica::reader::Until;
use conductor_replica::{ReadFrom, Reader};
use tokio::sync::Notify;
use tokio::time::MissedTickBehavior;

use crate::cli::submit::{Order, send};
use crate::cli::task::detail;
use crate::exit::{Exit, Failure, Outcome};
use crate::run::{duration, signals, stopped};
use crate::settings::Settings;
use disk::Folder;
use ledger::{Ledger, Writing};
use looker::{Before, Looker};

/// How long until the log is asked again for its end, where it does not answer yet.
const PAUSE: Duration = Duration::from_secs(1);

/// Submit the task files that are put into a folder, and write beside them what became of them
#[derive(Debug, clap::Args)]
pub(crate) struct FolderArgs {
    /// The folder. NAME.task.json is a task as `submit --file` takes it, one JSON object; beside it
    /// are written NAME.status.json, NAME.result.json when it has ended, and NAME.error.txt where it
    /// cannot be taken
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// The queue of tasks that name none
    #[arg(long, short, default_value = "default")]
    queue: QueueName,
    /// How often the folder is looked at
    #[arg(long, default_value = "1s", value_parser = interval)]
    interval: Duration,
}

fn interval(text: &str) -> Result<Duration, String> {
    let interval = duration(text)?;
    if (Duration::from_millis(10)..=Duration::from_secs(3_600)).contains(&interval) {
        Ok(interval)
    } else {
        Err(format!("{text:?} is not between 10ms and 1h"))
    }
}

/// What the two halves share: one looks at the folder, the other reads the log.
#[derive(Debug, Default)]
struct Shared {
    ledger: Mutex<Ledger>,
    /// Something is to be written.
    news: Notify,
}

impl Shared {
    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Watches a folder until it is told to stop.
pub(crate) async fn run(args: FolderArgs, settings: &Settings) -> Outcome {
    let mut stop = signals();
    let folder = Folder::open(&args.dir)?;
    let path = folder.path().display().to_string();
    let connect = settings.connect("conductor-watch-folder");
    let (mut watch, reader) = tokio::select! {
        begun = Watch::begin(folder, args.queue, &connect) => begun?,
        () = stopped(&mut stop) => return Ok(Exit::Ok),
    };
    let open = watch.shared.ledger().open();
    tracing::info!(folder = path, open, "watching the folder");
    let following = follow(reader, Arc::clone(&watch.shared));
    let failure = tokio::select! {
        never = Box::pin(watch.work(args.interval)) => match never {},
        // On a thread of its own: what it was asking for must not be dropped with a tick.
        failure = tokio::spawn(following) => Some(failure.unwrap_or_else(|e| {
            Failure::new(Exit::Failure, format!("the reader of the log broke: {e}"))
        })),
        () = stopped(&mut stop) => None,
    };
    // Wherever it was stopped, the next start goes on: what is not written yet is in the log.
    watch.write();
    failure.map_or(Ok(Exit::Ok), Err)
}

/// Reads the log for as long as it can be read.
async fn follow(mut reader: Reader, shared: Arc<Shared>) -> Failure {
    loop {
        let (record, folded) = match reader.next().await {
            Ok(read) => read,
            Err(e) => return e.into(),
        };
        let mut ledger = shared.ledger();
        ledger.see(&reader.state, &record, &folded);
        if ledger.has_news() {
            shared.news.notify_one();
        }
    }
}

/// The half that looks at the folder, submits and writes.
#[derive(Debug)]
struct Watch {
    folder: Folder,
    connection: Arc<Connection>,
    looker: Looker,
    shared: Arc<Shared>,
}

impl Watch {
    /// Takes up what an earlier process left: reads the log from before the first submission that
    /// is not known to be over.
    async fn begin(
        folder: Folder,
        queue: QueueName,
        connect: &conductor_eventlog::jetstream::Connect,
    ) -> Outcome<(Self, Reader)> {
        let connection = Arc::new(Connection::open_patiently(connect).await?);
        let log = Arc::clone(&connection) as Arc<dyn EventLog>;
        let last = loop {
            match log.last_seq().await {
                Ok(last) => break last,
                // A client that may only submit is given no answer either.
                Err(e) => tracing::warn!(
                    error = %e, retry_in = ?PAUSE,
                    "the log does not answer: is this its cell, and are the credentials an operator's?"
                ),
            }
            tokio::time::sleep(PAUSE).await;
        };
        let before = Before::read(&folder)?;
        let (mut ledger, from) = Ledger::resume(before.statuses, last);
        let snapshots = ReadFrom::Snapshot(connection.as_ref());
        let mut reader = Reader::open(log, snapshots, from).await;
        let see = |record: &_, folded: &_, state: &_| ledger.see(state, record, folded);
        reader.read_until(Until::Seq(last), last, see).await?;
        ledger.settle(&reader.state);
        for name in ledger.unknown_to(&reader.state) {
            tracing::warn!(
                file = names::task(name),
                "the log knows nothing of this task, though it was submitted: is this another cell, \
                 or was its log made anew? remove its status file to submit it again"
            );
        }
        let watch = Self {
            looker: Looker::new(queue, connection.cell().clone(), before.unknown),
            folder,
            connection,
            shared: Arc::new(Shared {
                ledger: Mutex::new(ledger),
                news: Notify::new(),
            }),
        };
        Ok((watch, reader))
    }

    /// Looks at the folder at intervals, and writes what is read in between.
    ///
    /// At intervals, because folders of containers and of other machines tell nobody of what happens
    /// in them; because what is half-written must be looked at again in any case; and because the
    /// library that would tell (`notify`) is about to change its interfaces and has a licence that is
    /// not among ours. A look at 5,600 files that have ended took 4 % of a second, unoptimised.
    async fn work(&mut self, interval: Duration) -> Infallible {
        let mut ticks = tokio::time::interval(interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let shared = Arc::clone(&self.shared);
        loop {
            tokio::select! {
                _ = ticks.tick() => self.look().await,
                () = shared.news.notified() => {}
            }
            self.read_back().await;
            self.write();
        }
    }

    /// Submits the files that are new.
    async fn look(&mut self) {
        loop {
            let claims = self.looker.look(&self.folder, &mut self.shared.ledger());
            let is_all = claims.len() < looker::CLAIMS_MAX;
            if claims.is_empty() || !self.submit(claims).await || is_all {
                return;
            }
        }
    }

    /// Submits tasks whose status is on disk; returns whether the log has them now.
    async fn submit(&self, claims: Vec<(String, Order)>) -> bool {
        let (files, orders): (Vec<String>, Vec<Order>) = claims.into_iter().unzip();
        self.shared.ledger().sending(&files);
        let sent = send::send(&self.connection, &orders, false).await;
        let mut ledger = self.shared.ledger();
        match sent {
            Ok(positions) => {
                let named = positions.into_iter();
                let named = named.filter_map(|(at, i)| Some((at, files.get(i)?.clone())));
                ledger.sent(&named.collect::<BTreeMap<_, _>>());
                tracing::info!(files = files.len(), "submitted");
                true
            }
            Err(e) => {
                ledger.not_sent();
                let problem = e.message;
                tracing::warn!(problem, "what was not acknowledged is submitted again");
                false
            }
        }
    }

    /// Reads the story of tasks that had begun before they were followed: of files that name the
    /// key or id of another task.
    async fn read_back(&self) {
        let unread = self.shared.ledger().take_unread();
        for (name, id) in unread {
            let detail = detail::of(&self.connection, &id.to_string()).await;
            let mut ledger = self.shared.ledger();
            match detail {
                Ok(detail) => ledger.was_read(&name, &detail),
                Err(e) => {
                    let problem = e.message;
                    tracing::warn!(task = %id, problem, "the task is read again");
                    ledger.still_unread(name);
                }
            }
        }
    }

    /// Writes what is new; what cannot be written is tried again.
    fn write(&self) {
        let writings = self.shared.ledger().take_writings();
        for writing in writings {
            let written = write(&self.folder, &writing);
            let mut ledger = self.shared.ledger();
            match written {
                Ok(()) => ledger.written(&writing),
                Err(e) => {
                    let file = names::status(&writing.name);
                    tracing::warn!(file, error = %e, "it cannot be written; it is tried again");
                    ledger.not_written(&writing);
                }
            }
        }
    }
}

fn write(folder: &Folder, writing: &Writing) -> std::io::Result<()> {
    let status = names::status(&writing.name);
    // Whoever took all of it away has no more use for it.
    if writing.status.file_removed && folder.look_at(&status).is_err() {
        return Ok(());
    }
    if let Some(result) = &writing.result {
        let text = serde_json::to_string_pretty(result).map_err(std::io::Error::from)?;
        folder.write(&names::result(&writing.name), &format!("{text}\n"))?;
    }
    if let Some(error) = &writing.error {
        folder.write(&names::error(&writing.name), error)?;
    }
    folder.write(&status, &writing.status.text())
}
