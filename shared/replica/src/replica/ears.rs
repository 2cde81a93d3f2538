//! Consumers for agents that hear nothing, made by whoever leads the scheduler.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use conductor_eventlog::jetstream::Connection;
use conductor_eventlog::jetstream::ears::{Hearing, Meant};
use conductor_eventlog::jetstream::presence::Beat;
use conductor_eventlog::{EventLog, LogError};
use conductor_protocol::AgentId;
use conductor_protocol::subject::Subject;

/// How often, a second apart, what an agent heard last must be found lost before that is believed:
/// a server that has just begun to lead may not know all of it yet.
const LOST_TIMES: u32 = 9;

/// Agents for which a consumer is being made.
#[derive(Debug, Default)]
pub(super) struct Ears {
    making: Arc<Mutex<BTreeSet<AgentId>>>,
}

impl Ears {
    /// Makes the consumer of an agent that said that it hears nothing, unless that is under way.
    pub(super) fn make(&self, connection: &Arc<Connection>, beat: &Beat) {
        let making = Arc::clone(&self.making);
        if !lock(&making).insert(beat.agent.clone()) {
            return;
        }
        let (connection, beat) = (Arc::clone(connection), beat.clone());
        tokio::spawn(async move {
            if let Err(e) = make(&connection, &beat).await {
                // Its next sign of life asks again.
                tracing::debug!(agent = %beat.agent, error = %e, "no consumer was made for an agent");
            }
            lock(&making).remove(&beat.agent);
        });
    }
}

fn lock(making: &Mutex<BTreeSet<AgentId>>) -> MutexGuard<'_, BTreeSet<AgentId>> {
    making.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn make(connection: &Connection, beat: &Beat) -> Result<(), LogError> {
    let (agent, heard) = (&beat.agent, beat.hearing);
    for _ in 0..LOST_TIMES {
        if is_there(connection, agent, heard).await? {
            let meant = Meant::Hear(beat.incarnation);
            return connection.make_ear(agent, heard.seq + 1, meant).await;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    tracing::error!(%agent, seq = heard.seq, "the log has lost what an agent has heard: it is to join anew");
    connection
        .make_ear(agent, heard.seq + 1, Meant::Rejoin(beat.incarnation))
        .await
}

/// Whether the log has the record that was heard last, and the same.
async fn is_there(
    connection: &Connection,
    agent: &AgentId,
    heard: Hearing,
) -> Result<bool, LogError> {
    match connection.read(heard.seq).await? {
        // All it knows of its own joining is the sequence.
        Some(record) if heard.time_ms == 0 => {
            Ok(record.subject == Subject::Agent(agent.clone()).render(connection.cell()))
        }
        Some(record) => Ok(record.time_ms == heard.time_ms),
        // A single record that is lost takes nothing of what follows with it.
        None => Ok(connection.last_seq().await? >= heard.seq),
    }
}
