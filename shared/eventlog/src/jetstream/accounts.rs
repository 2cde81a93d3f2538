//! Telling the servers of accounts, with the system's credentials; and asking for credentials.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use conductor_protocol::AgentId;
use conductor_protocol::subject::credential;
use futures::StreamExt;
use futures::stream::BoxStream;
use serde::Deserialize;
use serde_json::Value;

use super::Connection;
use crate::port::LogError;

/// How long servers may take to answer.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// How much later than another a server may answer.
const ANSWERS_APART: Duration = Duration::from_secs(1);
/// How many links are being cut at once.
const CUTS_AT_ONCE: usize = 64;
/// Most links of a server that are looked at.
const LINKS_MAX: usize = 65_536;

/// What a server says of its links.
#[derive(Deserialize)]
struct Page {
    server: ServerId,
    #[serde(default)]
    data: Links,
}

#[derive(Deserialize)]
struct ServerId {
    id: String,
}

#[derive(Default, Deserialize)]
struct Links {
    #[serde(default)]
    connections: Vec<Link>,
}

#[derive(Deserialize)]
struct Link {
    cid: u64,
    #[serde(default)]
    account: String,
}

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

    /// Cuts all links of these accounts; whoever had one makes another. Needs the system's
    /// credentials.
    ///
    /// A server that takes another account's token forgets which answers are still on their way from
    /// there (2.15.1): a pull of such an account hears nothing more until it runs out, half a minute
    /// later. Over a new link it is asked anew at once.
    pub async fn cut_links(&self, accounts: &BTreeSet<String>) -> Result<(), LogError> {
        let servers = self.links_of(accounts).await?;
        let all = servers
            .iter()
            .flat_map(|(server, links)| links.iter().map(move |cid| (server, cid)));
        let cuts = all.map(|(server, cid)| {
            let body = serde_json::json!({"cid": cid}).to_string();
            self.ask_one(format!("$SYS.REQ.SERVER.{server}.KICK"), body.into())
        });
        // All of them, whatever becomes of one.
        let cuts = futures::stream::iter(cuts).buffer_unordered(CUTS_AT_ONCE);
        let failed: Vec<LogError> = cuts.filter_map(|cut| async { cut.err() }).collect().await;
        failed.into_iter().next().map_or(Ok(()), Err)
    }

    /// The links of these accounts, by number, of each server.
    async fn links_of(
        &self,
        accounts: &BTreeSet<String>,
    ) -> Result<Vec<(String, Vec<u64>)>, LogError> {
        let inbox = self.client.new_inbox();
        let answers = self.client.subscribe(inbox.clone()).await;
        let mut answers = answers.map_err(unavailable)?;
        let body = serde_json::json!({"auth": true, "limit": LINKS_MAX}).to_string();
        let subject = "$SYS.REQ.SERVER.PING.CONNZ";
        let sent = self
            .client
            .publish_with_reply(subject, inbox, body.into())
            .await;
        sent.map_err(unavailable)?;
        let mut found = Vec::new();
        let mut patience = ANSWER_MAX;
        // How many servers there are nobody says: after the first, all of them answer soon.
        while let Ok(Some(answer)) = tokio::time::timeout(patience, answers.next()).await {
            patience = ANSWERS_APART;
            let page: Page = serde_json::from_slice(&answer.payload).map_err(unavailable)?;
            let links = page.data.connections.into_iter();
            let links = links.filter(|link| accounts.contains(&link.account));
            found.push((page.server.id, links.map(|link| link.cid).collect()));
        }
        if found.is_empty() {
            return Err(unavailable("no server says which links it has"));
        }
        Ok(found)
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
