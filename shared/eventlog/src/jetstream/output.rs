//! `OUTPUT_<cell>`: what attempts print. Bulky, limited, never needed for replay.

use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::jetstream::consumer::{DeliverPolicy, pull};
use async_nats::jetstream::stream::{self, DiscardPolicy, PersistenceMode};
use bytes::Bytes;
use conductor_protocol::ids::{AgentId, Lease};
use conductor_protocol::subject::output;
use conductor_protocol::{TaskId, UnixMs};
use futures::StreamExt;
use futures::stream::BoxStream;

use super::Connection;
use crate::port::LogError;

/// How long output is kept.
const KEPT: Duration = Duration::from_secs(7 * 24 * 3600);
/// How much output is kept, in bytes; less where the server has less to give.
const BYTES_MAX: [i64; 4] = [4 << 30, 512 << 20, 64 << 20, 8 << 20];

/// A piece of an attempt's output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputChunk {
    /// Whose.
    pub task: TaskId,
    /// Of which try.
    pub attempt: u32,
    /// `stdout`, `stderr`, `tools` or `thinking`.
    pub channel: String,
    /// Where in the output of its attempt it stands, in bytes of all channels: what is missing
    /// before it was lost. Absent where its agent did not say.
    pub offset: Option<u64>,
    /// When the server got it.
    pub time_ms: UnixMs,
    /// The bytes, as the program wrote them.
    pub bytes: Bytes,
}

fn unavailable(e: impl std::fmt::Display) -> LogError {
    LogError::Unavailable(e.to_string())
}

impl Connection {
    pub(crate) async fn ensure_output(&self) -> Result<(), LogError> {
        let replicas = self.log_replicas().await;
        let config = stream::Config {
            name: self.stream_name("OUTPUT"),
            description: Some("What attempts print".to_owned()),
            subjects: vec![output(&self.cell, "*", "*")],
            max_age: KEPT,
            discard: DiscardPolicy::Old,
            num_replicas: replicas,
            allow_direct: true,
            max_consumers: 10_000,
            // Losing the last lines with the power is no harm; an fsync each would be.
            persist_mode: (replicas == 1).then_some(PersistenceMode::Async),
            ..Default::default()
        };
        self.make_beside(config, &BYTES_MAX).await
    }

    /// Publishes a piece of output and waits until the server has it. A stream that was lost
    /// is made again.
    pub async fn publish_output(
        &self,
        agent: &AgentId,
        lease: Lease,
        (channel, offset): (&str, u64),
        bytes: Bytes,
    ) -> Result<(), LogError> {
        let mut headers = HeaderMap::new();
        headers.insert("Conductor-Attempt", lease.attempt.to_string());
        headers.insert("Conductor-Channel", channel);
        headers.insert("Conductor-Offset", offset.to_string());
        let subject = output(&self.cell, agent.as_str(), &lease.task.to_string());
        self.publish_beside(subject, headers, bytes, self.ensure_output())
            .await
    }

    /// A task's output from its beginning; with `follow` it goes on, else it ends with
    /// what there is.
    pub async fn read_output(
        &self,
        task: TaskId,
        follow: bool,
    ) -> Result<BoxStream<'static, OutputChunk>, LogError> {
        let stream = self
            .stream(&self.stream_name("OUTPUT"))
            .await
            .map_err(unavailable)?;
        let subject = output(&self.cell, "*", &task.to_string());
        let config = pull::OrderedConfig {
            deliver_policy: DeliverPolicy::All,
            filter_subject: subject,
            ..Default::default()
        };
        let mut consumer = stream.create_consumer(config).await.map_err(unavailable)?;
        let there = consumer.info().await.map_err(unavailable)?.num_pending;
        if there == 0 && !follow {
            return Ok(futures::stream::empty().boxed());
        }
        let messages = consumer.messages().await.map_err(unavailable)?;
        let chunks = messages.filter_map(move |m| std::future::ready(chunk(task, m.ok())));
        if follow {
            return Ok(chunks.map(|(chunk, _)| chunk).boxed());
        }
        let until_last = chunks.scan(false, |is_over, (chunk, pending)| {
            let item = (!*is_over).then_some(chunk);
            *is_over = pending == 0;
            std::future::ready(item)
        });
        Ok(until_last
            .take(usize::try_from(there).unwrap_or(usize::MAX))
            .boxed())
    }
}

fn chunk(
    task: TaskId,
    message: Option<async_nats::jetstream::Message>,
) -> Option<(OutputChunk, u64)> {
    let message = message?;
    let info = message.info().ok()?;
    let (time_ms, pending) = (super::log::unix_ms(info.published), info.pending);
    let header = |name: &str| {
        message
            .headers
            .as_ref()
            .and_then(|h| h.get(name))
            .map(|v| v.as_str().to_owned())
    };
    let chunk = OutputChunk {
        task,
        attempt: header("Conductor-Attempt")
            .and_then(|a| a.parse().ok())
            .unwrap_or(0),
        channel: header("Conductor-Channel").unwrap_or_default(),
        offset: header("Conductor-Offset").and_then(|o| o.parse().ok()),
        time_ms,
        bytes: message.payload.clone(),
    };
    Some((chunk, pending))
}
