//! `ARTIFACTS_<cell>`: the files that attempts leave. Limited by age and size; never needed for
//! replay, since events name what was there by its hash.
//!
//! A file is cut into pieces on a subject of its agent and of the hash of all its bytes. JetStream's
//! object store would do the same on subjects that every agent had to be allowed to write to.

use std::io::Read;
use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::jetstream::consumer::{DeliverPolicy, pull};
use async_nats::jetstream::stream::{self, DiscardPolicy};
use bytes::Bytes;
use conductor_protocol::ids::AgentId;
use conductor_protocol::subject::artifact;
use futures::StreamExt;
use sha2::{Digest, Sha256};

use super::Connection;
use crate::port::LogError;

/// How long artifacts are kept.
const KEPT: Duration = Duration::from_secs(30 * 24 * 3600);
/// How much of them is kept, in bytes; less where the server has less to give.
const BYTES_MAX: [i64; 4] = [16 << 30, 2 << 30, 256 << 20, 32 << 20];
/// Most bytes of one piece: well below what the server takes.
const CHUNK_BYTES_MAX: usize = 512 * 1024;
/// Most pieces of an artifact that are put together: no agent makes us hold more.
const CHUNKS_MAX: usize = 1_024;
/// Says which piece of how many it is.
const CHUNK: &str = "Conductor-Chunk";
/// How long the next piece is waited for.
const PATIENCE: Duration = Duration::from_secs(20);

/// Why an artifact cannot be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ArtifactError {
    /// Nothing of it is there.
    #[error(
        "artifact {0} is not stored any more: artifacts are kept for 30 days, and less where the server has little room"
    )]
    Gone(String),
    /// No agent's copy of it is whole and what its hash says.
    #[error("artifact {sha256} cannot be restored: {}", problems.join("; "))]
    Damaged {
        /// Its hash.
        sha256: String,
        /// What is wrong with each copy.
        problems: Vec<String>,
    },
    /// The file cannot be read.
    #[error("the file cannot be read: {0}")]
    Unreadable(String),
    /// The server does not answer.
    #[error(transparent)]
    Log(#[from] LogError),
}

fn unavailable(e: impl std::fmt::Display) -> LogError {
    LogError::Unavailable(e.to_string())
}

impl Connection {
    pub(crate) async fn ensure_artifacts(&self) -> Result<(), LogError> {
        let config = stream::Config {
            name: self.stream_name("ARTIFACTS"),
            description: Some("Files that attempts left, in pieces, by their hash".to_owned()),
            subjects: vec![artifact(&self.cell, "*", "*")],
            max_age: KEPT,
            discard: DiscardPolicy::Old,
            num_replicas: self.log_replicas().await,
            allow_direct: true,
            max_consumers: 10_000,
            ..Default::default()
        };
        self.make_beside(config, &BYTES_MAX).await
    }

    /// Stores what a reader gives, `size` bytes with this hash; returns once the server has all of
    /// it. A piece that was stored just before is not stored again.
    pub async fn store_artifact(
        &self,
        agent: &AgentId,
        sha256: &str,
        size: u64,
        reader: &mut (impl Read + Send),
    ) -> Result<(), ArtifactError> {
        let subject = artifact(&self.cell, agent.as_str(), sha256);
        let chunks = size.div_ceil(CHUNK_BYTES_MAX as u64).max(1);
        for number in 1..=chunks {
            let mut bytes = Vec::new();
            let mut piece = Read::take(&mut *reader, CHUNK_BYTES_MAX as u64);
            let read = piece.read_to_end(&mut bytes);
            read.map_err(|e| ArtifactError::Unreadable(e.to_string()))?;
            let mut headers = HeaderMap::new();
            headers.insert(CHUNK, format!("{number}/{chunks}"));
            headers.insert("Nats-Msg-Id", format!("{agent}/{sha256}/{number}"));
            let made = self.ensure_artifacts();
            self.publish_beside(subject.clone(), headers, Bytes::from(bytes), made)
                .await?;
        }
        Ok(())
    }

    /// The bytes of an artifact, of whichever agent's copy is what its hash says.
    pub async fn read_artifact(&self, sha256: &str) -> Result<Vec<u8>, ArtifactError> {
        let stream = self.stream(&self.stream_name("ARTIFACTS")).await;
        let stream = stream.map_err(unavailable)?;
        let filter = artifact(&self.cell, "*", sha256);
        let mut info = stream
            .info_with_subjects(filter)
            .await
            .map_err(unavailable)?;
        let mut copies = Vec::new();
        while let Some(copy) = info.next().await {
            copies.push(copy.map_err(unavailable)?);
        }
        let mut problems = Vec::new();
        for (subject, messages) in copies {
            match read_copy(&stream, &subject, messages).await?.whole(sha256) {
                Ok(bytes) => return Ok(bytes),
                Err(problem) => {
                    let agent = subject.rsplit('.').nth(1).unwrap_or_default();
                    problems.push(format!("what agent {agent} stored {problem}"));
                }
            }
        }
        let sha256 = sha256.to_owned();
        if problems.is_empty() {
            return Err(ArtifactError::Gone(sha256));
        }
        Err(ArtifactError::Damaged { sha256, problems })
    }
}

/// What is stored on one subject.
async fn read_copy(
    stream: &stream::Stream<()>,
    subject: &str,
    messages: usize,
) -> Result<Pieces, LogError> {
    let config = pull::OrderedConfig {
        deliver_policy: DeliverPolicy::All,
        filter_subject: subject.to_owned(),
        ..Default::default()
    };
    let consumer = stream.create_consumer(config).await.map_err(unavailable)?;
    let mut stored = consumer
        .messages()
        .await
        .map_err(unavailable)?
        .take(messages);
    let mut pieces = Pieces::default();
    while let Ok(Some(message)) = tokio::time::timeout(PATIENCE, stored.next()).await {
        let message = message.map_err(unavailable)?;
        let pending = message.info().map(|info| info.pending);
        let headers = message.headers.as_ref();
        let number = headers
            .and_then(|h| h.get(CHUNK))
            .map(|v| v.as_str().to_owned());
        pieces.put(number.as_deref(), message.payload.clone());
        if pending.is_ok_and(|pending| pending == 0) {
            break;
        }
    }
    Ok(pieces)
}

/// The pieces of one copy. It may have been stored more than once, and in part be gone: the last of
/// each counts.
#[derive(Debug, Default)]
struct Pieces {
    of: usize,
    there: std::collections::BTreeMap<usize, Bytes>,
    strange: usize,
}

impl Pieces {
    fn put(&mut self, number: Option<&str>, bytes: Bytes) {
        let parsed = number.and_then(|n| {
            let (i, of) = n.split_once('/')?;
            let (i, of): (usize, usize) = (i.parse().ok()?, of.parse().ok()?);
            ((1..=of).contains(&i) && of <= CHUNKS_MAX).then_some((i, of))
        });
        match parsed {
            Some((i, of)) => {
                self.of = self.of.max(of);
                self.there.insert(i, bytes);
            }
            None => self.strange += 1,
        }
    }

    /// All of it, if it is there and is what its hash says.
    fn whole(self, sha256: &str) -> Result<Vec<u8>, String> {
        if self.strange > 0 {
            return Err(format!("has {} pieces that are not numbered", self.strange));
        }
        if let Some(missing) = (1..=self.of).find(|i| !self.there.contains_key(i)) {
            return Err(format!("lacks piece {missing} of {}", self.of));
        }
        let mut hash = Sha256::new();
        let mut bytes = Vec::new();
        for piece in self.there.values() {
            hash.update(piece);
            bytes.extend_from_slice(piece);
        }
        let found: String = hash.finalize().iter().map(|b| format!("{b:02x}")).collect();
        if found == sha256 {
            Ok(bytes)
        } else {
            Err(format!("was changed: its hash is {found}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    fn whole(pieces: &[(&str, &'static str)]) -> Result<String, String> {
        let mut all = Pieces::default();
        for (number, bytes) in pieces {
            all.put(
                Some(*number).filter(|n| !n.is_empty()),
                Bytes::from_static(bytes.as_bytes()),
            );
        }
        all.whole(ABC)
            .map(|bytes| String::from_utf8(bytes).unwrap())
    }

    #[test]
    fn pieces_make_a_whole_or_it_is_said_what_is_wrong() {
        assert_eq!(whole(&[("1/2", "ab"), ("2/2", "c")]).unwrap(), "abc");
        assert_eq!(
            whole(&[("1/1", "abc"), ("1/1", "abc")]).unwrap(),
            "abc",
            "stored twice"
        );
        for (pieces, problem) in [
            (&[("1/3", "ab"), ("3/3", "c")][..], "lacks piece 2 of 3"),
            (&[("1/2", "ab"), ("2/2", "x")], "was changed"),
            (&[("1/1", "abc"), ("", "x")], "not numbered"),
            (&[("0/1", "abc")], "not numbered"),
            (&[], "was changed"),
        ] {
            let said = whole(pieces).unwrap_err();
            assert!(said.contains(problem), "{said}");
        }
    }
}
