//! What an agent hears of the log: a consumer that is made for it.
//!
//! An agent may neither make a consumer nor read the log otherwise (design section 2). Whoever
//! leads the scheduler makes one for it: in memory, on one server, of the agent's own subject and
//! the scheduler's elections alone. It is lost with its server; an agent that hears nothing says so
//! with its signs of life, and what it heard last, and is made another from there.
//!
//! The consumer acknowledges nothing: like an ordered consumer, the listener counts what arrives,
//! and has the consumer set back (`CONSUMER.RESET`) to what it misses.

use std::collections::HashMap;
use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, pull};
use async_nats::jetstream::message::Message;
use async_trait::async_trait;
use conductor_protocol::subject::{Role, Subject, log_stream};
use conductor_protocol::{AgentId, UnixMs};
use futures::{FutureExt, StreamExt};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::Connection;
use super::log::{PULL_EXPIRES_ALONE, PULL_EXPIRES_CLUSTER, record_of_message, restored};
use crate::port::{LogError, Tail, TailBatch};

/// How long a consumer outlives its agent's last sign of interest.
const KEPT: Duration = Duration::from_secs(300);
/// Messages that are asked for at once.
const BATCH: usize = 256;
/// Most records handed out at once.
const HANDED_OUT: usize = 256;
/// The entry of a consumer's metadata that names the incarnation it is made for: a process that
/// finds a later one there was replaced.
const INCARNATION: &str = "conductor-incarnation";
/// The entry that asks that incarnation to join anew.
const REJOIN: &str = "conductor-rejoin";
/// How many messages the consumer has sent, in its signs of life.
const LAST_SENT: &str = "Nats-Last-Consumer";
/// How long the answer to setting a consumer back is waited for: there is none where there is no
/// consumer.
const RESET_MAX: Duration = Duration::from_millis(500);
/// The server's code for a consumer that begins behind where it shall be set back to.
const BELOW_START: u64 = 10_204;

/// What an agent has heard, as it says with its signs of life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hearing {
    /// Sequence of the last record it heard; its own joining, before any.
    pub seq: u64,
    /// That record's time; 0 where it does not know.
    pub time_ms: UnixMs,
    /// It hears nothing: there is no consumer for it.
    pub is_deaf: bool,
}

/// Whom a consumer is made for, and what for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meant {
    /// For this incarnation, to hear.
    Hear(u64),
    /// For this incarnation, to join anew: the log has lost what it heard.
    Rejoin(u64),
}

impl Meant {
    /// The incarnation.
    pub fn incarnation(self) -> u64 {
        match self {
            Self::Hear(incarnation) | Self::Rejoin(incarnation) => incarnation,
        }
    }

    fn metadata(self) -> HashMap<String, String> {
        let mut metadata =
            HashMap::from([(INCARNATION.to_owned(), self.incarnation().to_string())]);
        if let Self::Rejoin(_) = self {
            metadata.insert(REJOIN.to_owned(), String::new());
        }
        metadata
    }

    fn of(metadata: &HashMap<String, String>) -> Option<Self> {
        let incarnation = metadata.get(INCARNATION)?.parse().ok()?;
        Some(if metadata.contains_key(REJOIN) {
            Self::Rejoin(incarnation)
        } else {
            Self::Hear(incarnation)
        })
    }
}

/// Name of the consumer of an agent.
pub fn consumer(agent: &AgentId) -> String {
    format!("agent-{agent}")
}

fn unavailable(e: impl std::fmt::Display) -> LogError {
    LogError::Unavailable(e.to_string())
}

impl Connection {
    /// Makes the consumer of an agent, to begin with record `from`.
    pub async fn make_ear(&self, agent: &AgentId, from: u64, meant: Meant) -> Result<(), LogError> {
        let stream = self.stream(&log_stream(&self.cell)).await;
        let stream = stream.map_err(LogError::Unavailable)?;
        let name = consumer(agent);
        // One that is there stands where somebody else let it stand; mostly there is none.
        let _ = stream.delete_consumer(&name).await;
        let subjects = [
            Subject::Scheduler(agent.clone()),
            Subject::Leader(Role::Scheduler),
        ];
        let config = pull::Config {
            name: Some(name),
            deliver_policy: DeliverPolicy::ByStartSequence {
                start_sequence: from.max(1),
            },
            ack_policy: AckPolicy::None,
            filter_subjects: subjects.map(|s| s.render(&self.cell)).to_vec(),
            memory_storage: true,
            num_replicas: 1,
            inactive_threshold: KEPT,
            metadata: meant.metadata(),
            ..Default::default()
        };
        let made = stream.create_consumer(config).await;
        made.map(|_| ()).map_err(unavailable)
    }

    /// Listens, from record `from` on, to the consumer that was made for an agent. An error where
    /// there is none.
    pub async fn listen(&self, agent: &AgentId, from: u64) -> Result<Ear, LogError> {
        // Before anything is asked for: a link that is lost from here on is noticed.
        let mut link = self.is_up();
        link.mark_unchanged();
        let inbox = self.client.new_inbox();
        let messages = self.client.subscribe(inbox.clone()).await;
        let expires = if self.client.server_info().cluster.is_none() {
            PULL_EXPIRES_ALONE
        } else {
            PULL_EXPIRES_CLUSTER
        };
        let mut ear = Ear {
            connection: self.clone(),
            api: format!("{}.{}", log_stream(&self.cell), consumer(agent)),
            inbox,
            messages: messages.map_err(unavailable)?,
            link,
            expires,
            next: from,
            heard: 0,
            outstanding: 0,
            meant: None,
            is_late: false,
        };
        ear.reset().await?;
        Ok(ear)
    }
}

/// A listener.
#[derive(Debug)]
pub struct Ear {
    connection: Connection,
    /// Stream and consumer, as the API's subjects end.
    api: String,
    inbox: String,
    messages: async_nats::Subscriber,
    link: watch::Receiver<bool>,
    expires: Duration,
    /// The record after the last that was handed out.
    next: u64,
    /// How many messages arrived since the consumer was set back.
    heard: u64,
    /// How many more were asked for.
    outstanding: usize,
    meant: Option<Meant>,
    /// Whether the consumer begins behind what is to be heard next.
    is_late: bool,
}

/// What an answer to `CONSUMER.RESET` is looked at for.
#[derive(Deserialize)]
struct ResetAnswer {
    #[serde(default)]
    error: Option<ResetError>,
    #[serde(default)]
    config: ResetConfig,
}

#[derive(Debug, Deserialize)]
struct ResetError {
    #[serde(default)]
    err_code: u64,
    #[serde(default)]
    description: String,
}

#[derive(Default, Deserialize)]
struct ResetConfig {
    #[serde(default)]
    metadata: HashMap<String, String>,
}

impl Ear {
    /// Whom it is made for.
    pub fn meant(&self) -> Option<Meant> {
        self.meant
    }

    /// Whether it begins behind what is to be heard next: it is not ours, whoever's it is.
    pub fn is_late(&self) -> bool {
        self.is_late
    }

    /// Has the consumer go on with the record after the last that was handed out.
    async fn reset(&mut self) -> Result<(), LogError> {
        let body = serde_json::json!({"seq": self.next.max(1)}).to_string();
        let mut answer = self.ask_reset(body).await?;
        let code = answer.error.as_ref().map(|e| e.err_code);
        self.is_late = code == Some(BELOW_START);
        if self.is_late {
            // Where it stands is as well as anywhere: wanted is only whose it is.
            answer = self.ask_reset(String::new()).await?;
        }
        if let Some(error) = answer.error {
            return Err(unavailable(error.description));
        }
        let meant = Meant::of(&answer.config.metadata);
        if self.meant.is_some() && self.meant != meant {
            // Made anew since, and not for whom it was: whoever listens has to look at that first.
            return Err(unavailable("the consumer is meant for another"));
        }
        self.meant = meant;
        self.heard = 0;
        Ok(())
    }

    async fn ask_reset(&self, body: String) -> Result<ResetAnswer, LogError> {
        let subject = format!("$JS.API.CONSUMER.RESET.{}", self.api);
        let asked = self.connection.client.request(subject, body.into());
        let answer = tokio::time::timeout(RESET_MAX, asked).await;
        let answer = answer.map_err(|_| unavailable("there is no consumer"))?;
        let answer = answer.map_err(unavailable)?;
        serde_json::from_slice(&answer.payload).map_err(unavailable)
    }

    /// Asks for more before all that was asked for has come.
    async fn ask(&mut self) -> Result<(), LogError> {
        if self.outstanding > BATCH / 2 {
            return Ok(());
        }
        let request = serde_json::json!({
            "batch": BATCH,
            "expires": nanos(self.expires),
            "idle_heartbeat": nanos(self.expires / 2),
        });
        let subject = format!("$JS.API.CONSUMER.MSG.NEXT.{}", self.api);
        let sent = self.connection.client.publish_with_reply(
            subject,
            self.inbox.clone(),
            request.to_string().into(),
        );
        sent.await.map_err(unavailable)?;
        self.outstanding += BATCH;
        Ok(())
    }

    /// Takes a message in; whether something before it was missed.
    fn take(
        &mut self,
        message: async_nats::Message,
        batch: &mut TailBatch,
    ) -> Result<bool, LogError> {
        if let Some(status) = message.status {
            match status.as_u16() {
                // A sign of life: it says whether something was sent that did not come.
                100 => {
                    let sent = message.headers.as_ref().and_then(|h| h.get(LAST_SENT));
                    let sent = sent.and_then(|n| n.as_str().parse().ok());
                    return Ok(sent.is_some_and(|sent: u64| sent > self.heard));
                }
                // What was asked for will not come any more.
                404 | 408 => self.outstanding = 0,
                _ => return Err(unavailable(format!("status {status}"))),
            }
            return Ok(false);
        }
        let message = Message {
            context: self.connection.js.clone(),
            message,
        };
        let info = message.info().map_err(unavailable)?;
        let (count, seq) = (info.consumer_sequence, info.stream_sequence);
        self.outstanding = self.outstanding.saturating_sub(1);
        if count != self.heard + 1 {
            // Before the first it was sent before the consumer was set back. Later something was
            // lost, or somebody else has set it back.
            return Ok(self.heard > 0);
        }
        self.heard = count;
        if seq >= self.next {
            self.next = seq + 1;
            let (record, pending) = record_of_message(message)?;
            batch.records.push(record);
            batch.pending = pending;
        }
        Ok(false)
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[async_trait]
impl Tail for Ear {
    async fn next(&mut self) -> Result<TailBatch, LogError> {
        let mut batch = TailBatch::default();
        while batch.records.is_empty() {
            self.ask().await?;
            let message = tokio::select! {
                message = self.messages.next() => message.ok_or(unavailable("the link is gone"))?,
                () = restored(&mut self.link) => return Err(unavailable("the link was lost")),
                // Twice no sign of life: the consumer is gone.
                () = tokio::time::sleep(self.expires + RESET_MAX) => {
                    return Err(unavailable("nothing is heard"));
                }
            };
            let mut is_missing = self.take(message, &mut batch)?;
            while batch.records.len() < HANDED_OUT && !is_missing {
                match self.messages.next().now_or_never() {
                    Some(message) => {
                        let message = message.ok_or(unavailable("the link is gone"))?;
                        is_missing = self.take(message, &mut batch)?;
                    }
                    None => break,
                }
            }
            if is_missing {
                self.reset().await?;
                if self.is_late {
                    return Err(unavailable("the consumer begins too late"));
                }
            }
        }
        Ok(batch)
    }
}
