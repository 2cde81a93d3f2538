//! What the actor is told from outside, for as long as it lives.

use std::sync::Arc;
use std::time::Duration;

use conductor_domain::Record;
use conductor_eventlog::EventLog;
use conductor_eventlog::jetstream::Connection;
use ractor::ActorRef;

use super::AgentMsg;
use crate::duty::{Input, words_of};

/// How often, a second apart, what was heard last must be found lost before that is believed.
const LOST_TIMES: u32 = 9;
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

/// Whether a record that was heard is not there any more, or is another: the log has lost its
/// end, and with it perhaps our joining. A server that has just begun to lead may not know all
/// of it yet.
async fn is_lost(connection: &Connection, last: Option<&Record>) -> bool {
    let Some(last) = last else { return false };
    for _ in 0..LOST_TIMES {
        match connection.read(last.seq).await {
            Ok(Some(record)) if record == *last => return false,
            Ok(None) if connection.last_seq().await.is_ok_and(|end| end >= last.seq) => {
                return false;
            }
            Ok(_) => {}
            Err(_) => return false,
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    true
}

/// Hands the scheduler's words to the actor.
pub(super) async fn words(
    connection: Arc<Connection>,
    subjects: Vec<String>,
    mut next: u64,
    actor: ActorRef<AgentMsg>,
) {
    let mut last: Option<Record> = None;
    loop {
        if is_lost(&connection, last.as_ref()).await {
            tracing::error!(seq = next - 1, "the log has lost its end: joining anew");
            let _ = actor.cast(AgentMsg::Told(Input::Rejoin));
            return;
        }
        if last.is_none() {
            // Our own joining, at first.
            last = connection.read(next - 1).await.ok().flatten();
        }
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
                last = Some(record);
            }
            if !words.is_empty() && actor.cast(AgentMsg::Told(Input::Heard(words))).is_err() {
                return;
            }
        }
    }
}
