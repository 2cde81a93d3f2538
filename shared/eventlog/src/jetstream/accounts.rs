//! Telling the servers of accounts, with the system's credentials; and asking for credentials.

use std::time::Duration;

use bytes::Bytes;
use conductor_protocol::AgentId;
use conductor_protocol::subject::credential;
use futures::StreamExt;
use futures::stream::BoxStream;
use serde_json::Value;

use super::Connection;
use crate::port::LogError;

/// How long servers may take to answer.
const ANSWER_MAX: Duration = Duration::from_secs(5);

fn unavailable(e: impl std::fmt::Display) -> LogError {
    LogError::Unavailable(e.to_string())
}

/// An agent asks for credentials.
#[derive(Debug)]
pub struct CredentialRequest {
    /// Who, as the servers know it.
    pub agent: AgentId,
    /// What it says.
    pub body: Bytes,
    connection: Connection,
    reply: async_nats::Subject,
}

impl CredentialRequest {
    /// Answers it.
    pub async fn answer(self, body: Bytes) {
        if let Err(e) = self.connection.client.publish(self.reply, body).await {
            tracing::debug!(error = %e, "an answer was not sent");
        }
    }
}

impl Connection {
    /// Has all servers take an account's token, new or changed. Needs the system's credentials.
    pub async fn put_account(&self, token: &str) -> Result<(), LogError> {
        let subject = "$SYS.REQ.CLAIMS.UPDATE";
        let answer = self
            .ask_one(subject.to_owned(), token.to_owned().into())
            .await?;
        let answer: Value = serde_json::from_slice(&answer).map_err(unavailable)?;
        match answer.get("error") {
            None | Some(Value::Null) => Ok(()),
            Some(error) => Err(LogError::Refused(format!(
                "the server refuses the account: {error}"
            ))),
        }
    }

    /// Asks the issuer for credentials, as `agent`.
    pub async fn ask_credential(&self, agent: &AgentId, body: Bytes) -> Result<Bytes, LogError> {
        self.ask_one(credential(&self.cell, agent.as_str()), body)
            .await
    }

    /// What agents ask of the issuer.
    pub async fn credential_requests(
        &self,
    ) -> Result<BoxStream<'static, CredentialRequest>, LogError> {
        let all = credential(&self.cell, "*");
        let prefix = credential(&self.cell, "");
        let group = "issuers".to_owned();
        let subscriber = self.client.queue_subscribe(all, group).await;
        let connection = self.clone();
        let requests = subscriber.map_err(unavailable)?.filter_map(move |m| {
            let agent = m.subject.strip_prefix(&prefix).and_then(|a| a.parse().ok());
            let request = agent.zip(m.reply).map(|(agent, reply)| CredentialRequest {
                agent,
                body: m.payload,
                connection: connection.clone(),
                reply,
            });
            std::future::ready(request)
        });
        Ok(requests.boxed())
    }

    async fn ask_one(&self, subject: String, body: Bytes) -> Result<Bytes, LogError> {
        let asked = tokio::time::timeout(ANSWER_MAX, self.client.request(subject, body)).await;
        let answer = asked.map_err(|_| unavailable("nobody answers"))?;
        answer.map(|m| m.payload).map_err(unavailable)
    }
}
