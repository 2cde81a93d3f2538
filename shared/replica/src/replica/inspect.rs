//! What a live replica answers to those who compare.

use std::sync::Arc;
use std::time::Duration;

use conductor_eventlog::jetstream::Connection;
use conductor_eventlog::jetstream::requests::Question;
use futures::StreamExt;
use ractor::ActorRef;
use serde::{Deserialize, Serialize};

use super::{ReplicaMsg, ReplicaState};
use crate::follow::Gap;

/// What a live replica says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// Who it is.
    pub instance: String,
    /// Roles it stands for.
    pub roles: Vec<conductor_protocol::subject::Role>,
    /// Roles it leads.
    pub leads: Vec<conductor_protocol::subject::Role>,
    /// Last record folded.
    pub seq: u64,
    /// SHA-256 over its state's bytes after that record, in hexadecimal.
    pub digest: String,
    /// Sequences it found missing, as `from-to`.
    pub gaps: Vec<String>,
}

pub(super) async fn feed_questions(connection: Arc<Connection>, actor: ActorRef<ReplicaMsg>) {
    loop {
        if let Ok(mut questions) = connection.questions().await {
            while let Some(question) = questions.next().await {
                if actor.cast(ReplicaMsg::Question(question)).is_err() {
                    return;
                }
            }
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

pub(super) fn answer(replica: &ReplicaState, question: Question) {
    let answer = Answer {
        instance: replica.options.instance.clone(),
        roles: replica.host.names(),
        leads: replica.host.leading(),
        seq: replica.host.state().seq,
        digest: replica.host.state().digest().to_string(),
        gaps: replica
            .status
            .borrow()
            .gaps
            .iter()
            .map(Gap::to_string)
            .collect(),
    };
    if let Ok(body) = serde_json::to_vec(&answer) {
        tokio::spawn(question.answer(body.into()));
    }
}
