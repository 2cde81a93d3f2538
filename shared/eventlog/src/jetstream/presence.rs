//! `PRESENCE_<cell>`: heartbeats. In memory, last per agent; they never enter the log.

use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::jetstream::consumer::{DeliverPolicy, pull};
use async_nats::jetstream::stream::{self, DiscardPolicy, StorageType};
use conductor_protocol::AgentId;
use conductor_protocol::ids::Lease;
use conductor_protocol::subject::presence;
use futures::StreamExt;
use futures::stream::BoxStream;
use serde::{Deserialize, Serialize};

use super::Connection;
use super::ears::Hearing;
use crate::port::LogError;

/// How long a beat is kept: longer than any heartbeat timeout makes no sense.
const KEPT: Duration = Duration::from_secs(300);

/// A sign of life.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Beat {
    /// Who.
    pub agent: AgentId,
    /// Sequence of its `agent.joined`.
    pub incarnation: u64,
    /// What it runs.
    pub leases: Vec<Lease>,
    /// What it has heard of the log.
    #[serde(default)]
    pub hearing: Hearing,
}

fn unavailable(e: impl std::fmt::Display) -> LogError {
    LogError::Unavailable(e.to_string())
}

impl Connection {
    /// Makes the presence stream if it is not there: a server that restarts forgets it.
    pub(crate) async fn ensure_presence(&self) -> Result<(), LogError> {
        let config = stream::Config {
            name: self.stream_name("PRESENCE"),
            description: Some("Heartbeats of agents; the last of each".to_owned()),
            subjects: vec![presence(&self.cell, "*")],
            storage: StorageType::Memory,
            max_messages_per_subject: 1,
            max_age: KEPT,
            discard: DiscardPolicy::Old,
            num_replicas: self.log_replicas().await,
            max_consumers: 1_000,
            ..Default::default()
        };
        self.js
            .get_or_create_stream(config)
            .await
            .map(|_| ())
            .map_err(unavailable)
    }

    /// Publishes a beat. Success means that the servers have it: the lease goes on. Failures in
    /// silence have the connection made anew: whoever beats need not be probed often.
    pub async fn beat(&self, beat: &Beat) -> Result<(), LogError> {
        let payload: bytes::Bytes = serde_json::to_vec(beat).map_err(unavailable)?.into();
        let subject = presence(&self.cell, beat.agent.as_str());
        let heard = self.bytes_heard();
        let sent = self
            .publish_beside(subject, HeaderMap::new(), payload, self.ensure_presence())
            .await;
        let is_silent = sent.is_err() && self.bytes_heard() == heard;
        self.note_beat(is_silent).await;
        sent
    }

    /// The last beat of every agent, then every further one. Ends on trouble.
    pub async fn beats(&self) -> Result<BoxStream<'static, Beat>, LogError> {
        self.ensure_presence().await?;
        let stream = self
            .stream(&self.stream_name("PRESENCE"))
            .await
            .map_err(unavailable)?;
        let config = pull::OrderedConfig {
            deliver_policy: DeliverPolicy::LastPerSubject,
            filter_subject: presence(&self.cell, "*"),
            ..Default::default()
        };
        let consumer = stream.create_consumer(config).await.map_err(unavailable)?;
        let messages = consumer.messages().await.map_err(unavailable)?;
        let beats = messages
            .take_while(|m| {
                let goes_on = match m {
                    Ok(_) => true,
                    Err(e) => e.kind() == pull::OrderedErrorKind::MissingHeartbeat,
                };
                std::future::ready(goes_on)
            })
            .filter_map(|m| {
                let beat = m.ok().and_then(|m| serde_json::from_slice(&m.payload).ok());
                std::future::ready(beat)
            });
        Ok(beats.boxed())
    }
}
