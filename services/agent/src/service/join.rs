//! Joining: a new incarnation, with a tail, a heartbeat and an appender of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use conductor_eventlog::group_commit::repeat_pause;
use conductor_eventlog::{AppendError, EventLog};
use conductor_protocol::event::{AgentJoined, Event};
use conductor_protocol::frame::FrameHead;
use conductor_protocol::limits::{FORMAT_KNOWN, SLOTS_MAX};
use conductor_protocol::terms::Reach;
use conductor_replica::Bid;
use conductor_replica::appender::{Appender, AppenderArgs, AppenderMsg, Load, append_until_known};
use conductor_telemetry::metrics;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::task::JoinSet;

use super::feed::Hears;
use super::{AgentMsg, AgentOptions, AgentState};
use crate::dirs::AttemptDirs;
use crate::duty::Input;
use crate::process::marker;
use crate::reaper;
use crate::runtime::probe;
use crate::sessions;
use crate::workspace;

/// So many bids may be lost to what an earlier life of ours had under way.
const BIDS_FEW: u32 = 8;

/// What belongs to one incarnation.
#[derive(Debug)]
pub(super) struct Membership {
    pub(super) appender: ActorRef<AppenderMsg>,
    pub(super) load: Arc<Load>,
    pub(super) hears: Arc<Hears>,
    /// What goes on in its name alone.
    pub(super) sources: JoinSet<()>,
}

impl Membership {
    pub(super) fn end(mut self) {
        self.sources.abort_all();
        self.appender.kill();
    }
}

/// Kills and removes what an earlier life of this agent may have left.
pub(super) async fn clear_leftovers(options: &AgentOptions) {
    for entry in std::fs::read_dir(&options.data)
        .into_iter()
        .flatten()
        .flatten()
    {
        if let Some(lease) = AttemptDirs::lease_of(&entry.path()) {
            while reaper::sweep(&marker(&lease)) > 0 {}
        }
        workspace::rescue_left(&entry.path(), &options.kept, &options.host.path).await;
        sessions::salvage(&options.kept, &entry.path());
        // What cannot be removed now is met again when its place is needed.
        let _ = sessions::clear(&entry.path());
    }
    sessions::prune(&options.kept);
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
        self.options.host.versions = probe(&self.options.host).await;
        let incarnation = self.take_name().await?;
        let load = Arc::new(Load::default());
        let args = AppenderArgs {
            log: Arc::clone(&self.connection) as Arc<dyn EventLog>,
            head: FrameHead::incarnation(incarnation),
            kind: "agent",
            writer: format!("{}-{incarnation}", self.options.id),
            in_flight_max: 1,
            load: Arc::clone(&load),
            // A lease whose facts were lost is missed in the heartbeats.
            on_refused: Arc::new(|| {}),
        };
        let (appender, _) = Actor::spawn(None, Appender, args).await?;
        let mut sources = JoinSet::new();
        let hears = Arc::new(Hears::since(incarnation));
        sources.spawn(super::feed::words(
            Arc::clone(&self.connection),
            self.options.id.clone(),
            incarnation,
            Arc::clone(&hears),
            myself.clone(),
        ));
        sources.spawn(super::feed::clock(
            Arc::clone(&self.connection),
            myself.clone(),
        ));
        self.membership = Some(Membership {
            appender,
            load,
            hears,
            sources,
        });
        self.options.has_joined.store(true, Ordering::Release);
        tracing::info!(agent = %self.options.id, incarnation, slots = self.options.slots, "joined");
        Ok(Input::Joined(incarnation))
    }

    /// Appends `agent.joined`, to follow what is last on our subject: one that an earlier
    /// life of ours sent and that comes late must not take the name from us again. An agent cannot
    /// read what that is: the log's refusal says it. Where the answer to a bid that was stored is
    /// lost, it may join once more, after itself.
    async fn take_name(&self) -> Result<u64, ActorProcessingErr> {
        let log = self.connection.as_ref();
        let process = unique(self.options.id.as_str());
        let joined = Event::from(self.introduce(process.clone()).await?);
        let (mut bids, mut before) = (0_u32, 0);
        loop {
            let bid = Bid::after(self.subject.clone(), &joined, &process, before);
            match append_until_known(log, &bid.append).await {
                Ok(seq) => return Ok(seq),
                Err(AppendError::Conflict(last)) => {
                    // The first bid is a guess.
                    if bids > 0 {
                        metrics().election_conflicts.inc();
                    }
                    before = last.unwrap_or(before);
                }
                Err(e) => return Err(e.into()),
            }
            bids = bids.saturating_add(1);
            if bids.is_power_of_two() && bids >= BIDS_FEW {
                tracing::warn!(agent = %self.options.id, bids, "cannot join: another process of this name reports without pause");
            }
            // What was refused with the answer is asked for at once, the first time.
            if bids > 1 {
                tokio::time::sleep(repeat_pause(bids)).await;
            }
        }
    }

    async fn introduce(&self, process: String) -> Result<AgentJoined, ActorProcessingErr> {
        let found = self.options.boxes.found().await?;
        let version = env!("CARGO_PKG_VERSION").to_owned();
        Ok(AgentJoined {
            version: format!("{version} (format {FORMAT_KNOWN})"),
            host: hostname(),
            process,
            slots: self.options.slots.min(SLOTS_MAX),
            labels: self.options.labels.clone(),
            runtimes: self.options.host.versions.clone(),
            sandboxes: found.offers(),
            sandbox: Some(found.default),
            network_max: Some(found.network_max).filter(|max| *max != Reach::Full),
            format: FORMAT_KNOWN,
        })
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

fn unique(who: &str) -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let n = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("{who}-{}-{n}", uuid::Uuid::new_v4())
}
