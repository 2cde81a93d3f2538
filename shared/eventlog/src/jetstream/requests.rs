//! Questions to live replicas, words for submitters, and publishing as anybody does.

use std::time::Duration;

use async_nats::HeaderMap;
use bytes::Bytes;
use conductor_protocol::subject::{answer, inspect};
use futures::StreamExt;
use futures::stream::BoxStream;

use super::Connection;
use crate::port::{Append, AppendError, Appended, EventLog, LogError};

/// How long after an answer another one is waited for.
const QUIET: Duration = Duration::from_millis(400);

/// A question that waits for an answer.
#[derive(Debug)]
pub struct Question {
    connection: Connection,
    reply: async_nats::Subject,
}

impl Question {
    /// Answers it. Nobody waits for the answer to arrive.
    pub async fn answer(self, body: Bytes) {
        if let Err(e) = self.connection.client.publish(self.reply, body).await {
            tracing::debug!(error = %e, "an answer was not sent");
        }
    }
}

impl Connection {
    /// Questions for this replica.
    pub async fn questions(&self) -> Result<BoxStream<'static, Question>, LogError> {
        let subscriber = self.client.subscribe(inspect(&self.cell)).await;
        let subscriber = subscriber.map_err(|e| LogError::Unavailable(e.to_string()))?;
        let connection = self.clone();
        let questions = subscriber.filter_map(move |m| {
            let connection = connection.clone();
            std::future::ready(m.reply.map(|reply| Question { connection, reply }))
        });
        Ok(questions.boxed())
    }

    /// Asks every live replica: waits up to `at_most` for an answer, and then for more
    /// until none has come for a while.
    pub async fn ask(&self, at_most: Duration) -> Result<Vec<Bytes>, LogError> {
        let unavailable = |e: String| LogError::Unavailable(e);
        let inbox = self.client.new_inbox();
        let subscriber = self.client.subscribe(inbox.clone()).await;
        let mut answers = subscriber.map_err(|e| unavailable(e.to_string()))?;
        let sent = self
            .client
            .publish_with_reply(inspect(&self.cell), inbox, Bytes::new())
            .await;
        sent.map_err(|e| unavailable(e.to_string()))?;
        let mut out = Vec::new();
        let mut patience = at_most;
        while let Ok(Some(answer)) = tokio::time::timeout(patience, answers.next()).await {
            // A server that knows no subscriber says so with an empty status message.
            if answer.status.is_some() {
                break;
            }
            out.push(answer.payload);
            patience = QUIET.min(at_most);
        }
        Ok(out)
    }

    /// Publishes a word for a submitter, who may be of this account or of the clients': outside the log,
    /// nothing depends on it.
    pub async fn notify(&self, reply: String, body: Bytes) {
        for subject in [answer(&self.cell, &reply), reply] {
            if let Err(e) = self.client.publish(subject, body.clone()).await {
                tracing::debug!(error = %e, "a reply was not sent");
            }
        }
    }

    /// A fresh subject that only this connection hears, and what arrives there.
    pub async fn inbox(&self) -> Result<(String, BoxStream<'static, Bytes>), LogError> {
        let inbox = self.client.new_inbox();
        let subscriber = self.client.subscribe(inbox.clone()).await;
        let subscriber = subscriber.map_err(|e| LogError::Unavailable(e.to_string()))?;
        Ok((inbox, subscriber.map(|m| m.payload).boxed()))
    }

    /// Appends what a client says, with the headers a client may set.
    pub async fn submit(
        &self,
        append: &Append,
        headers: &[(&str, &str)],
    ) -> Result<Appended, AppendError> {
        if headers.is_empty() {
            return self.append(append).await;
        }
        let mut map = HeaderMap::new();
        map.insert("Nats-Msg-Id", append.id.as_str());
        for (name, value) in headers {
            map.insert(*name, *value);
        }
        let unavailable = |e: String| AppendError::Unavailable(e);
        let sent =
            self.js
                .publish_with_headers(append.subject.clone(), map, append.payload.clone());
        let ack = sent.await.map_err(|e| unavailable(e.to_string()))?;
        let ack = ack.await.map_err(|e| unavailable(e.to_string()))?;
        Ok(Appended {
            seq: ack.sequence,
            is_duplicate: ack.duplicate,
        })
    }
}
