//! Joining: a new incarnation, with a tail, a heartbeat and an appender of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use conductor_eventlog::jetstream::Connection;
use conductor_eventlog::{Append, EventLog};
use conductor_protocol::event::{AgentJoined, Event};
use conductor_protocol::frame::{self, FrameHead};
use conductor_protocol::limits::{FORMAT_KNOWN, SLOTS_MAX};
use conductor_protocol::spec::Runtime;
use conductor_protocol::subject::{Role, Subject};
use conductor_replica::appender::{Appender, AppenderArgs, AppenderMsg, Load, append_until_known};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::task::JoinSet;

use super::{AgentMsg, AgentOptions, AgentState};
use crate::duty::Input;
use crate::reaper;
use crate::runtime::probe_claude;

/// What belongs to one incarnation.
#[derive(Debug)]
pub(super) struct Membership {
    pub(super) appender: ActorRef<AppenderMsg>,
    pub(super) load: Arc<Load>,
    sources: JoinSet<()>,
}

impl Membership {
    pub(super) fn end(mut self) {
        self.sources.abort_all();
        self.appender.kill();
    }
}

/// Kills and removes what an earlier life of this agent may have left.
pub(super) fn clear_leftovers(options: &AgentOptions) {
    for entry in std::fs::read_dir(&options.data)
        .into_iter()
        .flatten()
        .flatten()
    {
        let marker = format!(
            "CONDUCTOR_WORKSPACE={}",
            entry.path().join("workspace").display()
        );
        while reaper::sweep(&marker) > 0 {}
        // What cannot be removed now is met again when its place is needed.
        let _ = std::fs::remove_dir_all(entry.path());
    }
}

impl AgentState {
    /// Joins. Whatever an earlier incarnation of us was doing ends there and then.
    pub(super) async fn join(
        &mut self,
        myself: &ActorRef<AgentMsg>,
    ) -> Result<Input, ActorProcessingErr> {
        if let Some(old) = self.membership.take() {
            old.end();
        }
        let event = Event::from(self.introduce().await).encode();
        let append = Append {
            subject: self.subject.clone(),
            payload: frame::join(FrameHead::default(), &[event]).into(),
            id: unique("joined", self.options.id.as_str()),
            expected_last: None,
        };
        let incarnation = append_until_known(self.connection.as_ref(), &append).await?;
        let scheduler = scheduler_epoch(&self.connection).await;
        let load = Arc::new(Load::default());
        let args = AppenderArgs {
            log: Arc::clone(&self.connection) as Arc<dyn EventLog>,
            head: FrameHead::incarnation(incarnation),
            writer: format!("{}-{incarnation}", self.options.id),
            in_flight_max: 1,
            load: Arc::clone(&load),
            // A lease whose facts were lost is missed in the heartbeats.
            on_refused: Arc::new(|| {}),
        };
        let (appender, _) = Actor::spawn(None, Appender, args).await?;
        let mut sources = JoinSet::new();
        let subjects = [
            Subject::Scheduler(self.options.id.clone()),
            Subject::Leader(Role::Scheduler),
        ]
        .map(|s| s.render(self.connection.cell()))
        .to_vec();
        let (connection, actor) = (Arc::clone(&self.connection), myself.clone());
        sources.spawn(super::feed::words(
            connection,
            subjects,
            incarnation + 1,
            actor,
        ));
        sources.spawn(super::feed::clock(
            Arc::clone(&self.connection),
            myself.clone(),
        ));
        self.membership = Some(Membership {
            appender,
            load,
            sources,
        });
        tracing::info!(agent = %self.options.id, incarnation, slots = self.options.slots, "joined");
        Ok(Input::Joined(incarnation, scheduler))
    }

    async fn introduce(&self) -> AgentJoined {
        let host = &self.options.host;
        let version = env!("CARGO_PKG_VERSION").to_owned();
        let mut runtimes: std::collections::BTreeMap<Runtime, String> =
            [Runtime::Command, Runtime::Noop]
                .map(|r| (r, version.clone()))
                .into();
        if let Some(found) = probe_claude(&host.claude, &host.path).await {
            runtimes.insert(Runtime::Claude, found);
        }
        AgentJoined {
            version: format!("{version} (format {FORMAT_KNOWN})"),
            host: hostname(),
            slots: self.options.slots.min(SLOTS_MAX),
            labels: self.options.labels.clone(),
            runtimes,
        }
    }
}

/// The epoch of the scheduler that leads, so that words of an earlier one are known as such.
async fn scheduler_epoch(connection: &Connection) -> u64 {
    let subject = Subject::Leader(Role::Scheduler).render(connection.cell());
    loop {
        match connection.last_on(&subject).await {
            Ok(record) => return record.map_or(0, |r| r.seq),
            Err(e) => {
                tracing::warn!(error = %e, "cannot learn who schedules, trying again");
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
    }
}

/// This machine's name, for people.
pub fn hostname() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim();
    if name.is_empty() {
        "localhost".to_owned()
    } else {
        name.to_owned()
    }
}

fn unique(what: &str, who: &str) -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let n = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("{what}-{who}-{}-{n}", uuid::Uuid::new_v4())
}
