//! Streams beside the log: what is limited, may be lost, and is made again when it was.

use async_nats::HeaderMap;
use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::context::{CreateStreamError, CreateStreamErrorKind, PublishErrorKind};
use async_nats::jetstream::stream;
use bytes::Bytes;

use super::Connection;
use crate::port::LogError;

fn unavailable(e: impl std::fmt::Display) -> LogError {
    LogError::Unavailable(e.to_string())
}

fn is_for_want_of_storage(e: &CreateStreamError) -> bool {
    let code = match e.kind() {
        CreateStreamErrorKind::JetStream(e) => e.error_code(),
        _ => return false,
    };
    // One node says so, a cluster that it finds no node for it.
    code == ErrorCode::STORAGE_RESOURCES_EXCEEDED || code == ErrorCode::CLUSTER_NO_PEERS
}

impl Connection {
    /// Makes a stream if it is not there, of the first of `sizes` (in bytes) that the server has room
    /// for: it sets that aside, so where it has less to give, less is kept.
    pub(super) async fn make_beside(
        &self,
        mut config: stream::Config,
        sizes: &[i64],
    ) -> Result<(), LogError> {
        let mut refusal = None;
        for max_bytes in sizes {
            config.max_bytes = *max_bytes;
            match self.js.get_or_create_stream(config.clone()).await {
                Ok(_) => return Ok(()),
                Err(e) if is_for_want_of_storage(&e) => refusal = Some(e),
                Err(e) => return Err(unavailable(e)),
            }
        }
        Err(refusal.map_or_else(|| unavailable("no size to try"), unavailable))
    }

    /// Publishes into a stream beside the log and waits until the server has it. A stream that
    /// was lost, as these may be, is made again.
    pub(super) async fn publish_beside(
        &self,
        subject: String,
        headers: HeaderMap,
        payload: Bytes,
        make_again: impl Future<Output = Result<(), LogError>>,
    ) -> Result<(), LogError> {
        let publish = async |subject, headers, payload| {
            let sent = self.js.publish_with_headers(subject, headers, payload);
            sent.await?.await
        };
        let sent = publish(subject.clone(), headers.clone(), payload.clone()).await;
        match sent {
            Err(e) if e.kind() == PublishErrorKind::StreamNotFound => {
                make_again.await?;
                let again = publish(subject, headers, payload).await;
                again.map(|_| ()).map_err(unavailable)
            }
            sent => sent.map(|_| ()).map_err(unavailable),
        }
    }
}
