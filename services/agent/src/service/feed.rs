//! What the actor is told from outside, for as long as it lives.

use std::sync::Arc;
use std::time::Duration;

use conductor_eventlog::EventLog;
use conductor_eventlog::jetstream::Connection;
use ractor::ActorRef;

use super::AgentMsg;
use crate::duty::{Input, words_of};

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

/// Hands the scheduler's words to the actor.
pub(super) async fn words(
    connection: Arc<Connection>,
    subjects: Vec<String>,
    mut next: u64,
    actor: ActorRef<AgentMsg>,
) {
    loop {
        let tail = connection.tail(next, subjects.clone()).await;
        let Ok(mut tail) = tail else {
            tokio::time::sleep(Duration::from_millis(200)).await;
            continue;
        };
        while let Ok(batch) = tail.next().await {
            let mut words = Vec::new();
            for record in batch.records {
                // A consumer that was made anew may begin with what was heard before.
                if record.seq < next {
                    continue;
                }
                next = record.seq + 1;
                let cell = connection.cell();
                words.extend(words_of(cell, record.seq, &record.subject, &record.payload));
            }
            if !words.is_empty() && actor.cast(AgentMsg::Told(Input::Heard(words))).is_err() {
                return;
            }
        }
    }
}
