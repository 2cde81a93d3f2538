//! What the actor is told from outside, for as long as it lives.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use conductor_domain::Record;
use conductor_eventlog::Tail;
use conductor_eventlog::jetstream::Connection;
use conductor_eventlog::jetstream::ears::{Ear, Hearing, Meant};
use conductor_protocol::AgentId;
use ractor::ActorRef;

use super::AgentMsg;
use crate::duty::{Input, words_of};

/// How long it waits for a consumer of its own before it looks and says so again, at first.
const DEAF_PAUSE_MIN: Duration = Duration::from_millis(20);
/// The same at last.
const DEAF_PAUSE_MAX: Duration = Duration::from_secs(1);
/// How often leases are looked at, and beats considered.
const TICK: Duration = Duration::from_millis(250);

/// Reminds the actor to look at its leases, and of a beat when the link is back.
pub(super) async fn clock(connection: Arc<Connection>, actor: ActorRef<AgentMsg>) {
    let mut up = connection.is_up();
    loop {
        let input = tokio::select! {
            () = tokio::time::sleep(TICK) => Input::Tick,
            changed = up.changed() => match changed {
                Ok(()) => Input::LinkRestored,
                Err(_) => return,
            },
        };
        if actor.cast(AgentMsg::Told(input)).is_err() {
            return;
        }
    }
}

/// What the agent has heard, as its signs of life say.
#[derive(Debug)]
pub(super) struct Hears {
    seq: AtomicU64,
    time_ms: AtomicU64,
    is_deaf: AtomicBool,
}

impl Hears {
    /// Nothing yet but its own joining: there may be no consumer for it.
    pub(super) fn since(incarnation: u64) -> Self {
        Self {
            seq: AtomicU64::new(incarnation),
            time_ms: AtomicU64::new(0),
            is_deaf: AtomicBool::new(true),
        }
    }

    /// What it has heard by now.
    pub(super) fn now(&self) -> Hearing {
        Hearing {
            seq: self.seq.load(Ordering::Acquire),
            time_ms: self.time_ms.load(Ordering::Acquire),
            is_deaf: self.is_deaf.load(Ordering::Acquire),
        }
    }

    fn heard(&self, record: &Record) {
        self.time_ms.store(record.time_ms, Ordering::Release);
        self.seq.store(record.seq, Ordering::Release);
    }
}

/// Hands the scheduler's words to the actor. While it hears nothing it has a sign of life say so.
pub(super) async fn words(
    connection: Arc<Connection>,
    agent: AgentId,
    incarnation: u64,
    hears: Arc<Hears>,
    actor: ActorRef<AgentMsg>,
) {
    let mut pause = DEAF_PAUSE_MIN;
    loop {
        if hears.now().is_deaf {
            // Until one is made for it.
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(DEAF_PAUSE_MAX);
        }
        let next = hears.now().seq + 1;
        match connection.listen(&agent, next).await {
            Ok(ear) if ear.meant() == Some(Meant::Rejoin(incarnation)) => {
                tracing::error!(%agent, seq = next - 1, "the log has lost its end: joining anew");
                let _ = actor.cast(AgentMsg::Told(Input::Rejoin));
                return;
            }
            Ok(ear) if ear.meant().is_some_and(|m| m.incarnation() > incarnation) => {
                let _ = actor.cast(AgentMsg::Told(Input::Replaced));
                return;
            }
            // That of an earlier joining of ours, or not from where we are: ours is still to be made.
            Ok(ear) if ear.is_late() || ear.meant() != Some(Meant::Hear(incarnation)) => {}
            Ok(ear) => {
                hears.is_deaf.store(false, Ordering::Release);
                pause = DEAF_PAUSE_MIN;
                if hear(&connection, ear, &hears, &actor).await.is_err() {
                    return;
                }
                // What ended it may have taken nothing with it: the same consumer may go on.
                continue;
            }
            Err(e) => tracing::debug!(%agent, error = %e, "nothing can be heard"),
        }
        hears.is_deaf.store(true, Ordering::Release);
        if actor.cast(AgentMsg::Told(Input::Deaf)).is_err() {
            return;
        }
    }
}

/// Hands on what is heard until that ends; an error where nobody is left to hear it.
async fn hear(
    connection: &Connection,
    mut ear: Ear,
    hears: &Hears,
    actor: &ActorRef<AgentMsg>,
) -> Result<(), ()> {
    while let Ok(batch) = ear.next().await {
        let mut words = Vec::new();
        for record in &batch.records {
            let cell = connection.cell();
            words.extend(words_of(cell, record.seq, &record.subject, &record.payload));
            hears.heard(record);
        }
        if !words.is_empty() && actor.cast(AgentMsg::Told(Input::Heard(words))).is_err() {
            return Err(());
        }
    }
    Ok(())
}
