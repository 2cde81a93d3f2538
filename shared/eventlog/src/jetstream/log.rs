//! Appending to and tailing `LOG_<cell>`.

use std::collections::VecDeque;
use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::jetstream::consumer::{DeliverPolicy, pull};
use async_nats::jetstream::context::{PublishError, PublishErrorKind};
use async_nats::jetstream::message::{Message, PublishMessage, StreamMessage};
use async_trait::async_trait;
use conductor_domain::Record;
use conductor_protocol::CellId;
use conductor_protocol::subject::log_stream;
use futures::{FutureExt, StreamExt};
use tokio::sync::watch;

use super::Connection;
use super::connection::ACK_TIMEOUT;
use crate::port::{Append, AppendError, Appended, EventLog, LogError, Tail, TailBatch};

/// Most records a tail hands out at once.
const BATCH_MAX: usize = 256;
/// How often a record that one of several replicas does not have is asked for. Any of them
/// may answer: with one of three damaged, all answers are its own once in 10^11 times.
const DIRECT_TRIES: usize = 24;
/// Bytes that are asked for at once: the server cuts off whoever lets it wait with more than
/// its `max_pending` (64 MB by default), and half as much again may be under way.
const PULL_BYTES: u64 = 24 << 20;
/// Fewest records that are asked for at once, all of which may be as large as they can be.
const PULL_MIN: u64 = 48;
/// Most records that are asked for at once.
const PULL_MAX: u64 = 500;
/// How long the servers of a cluster keep a pull open. Half as often they say that they are
/// there: a consumer whose node died is noticed after two of those.
pub(super) const PULL_EXPIRES_CLUSTER: Duration = Duration::from_secs(4);
/// How long a lone server keeps a pull open: its consumers die with the link to it alone, and
/// a thousand agents that wait shall cost it little (loadtest).
pub(super) const PULL_EXPIRES_ALONE: Duration = Duration::from_secs(30);

#[async_trait]
impl EventLog for Connection {
    fn cell(&self) -> &CellId {
        &self.cell
    }

    async fn append(&self, append: &Append) -> Result<Appended, AppendError> {
        let mut message = PublishMessage::build()
            .payload(append.payload.clone())
            .message_id(&append.id);
        if let Some(seq) = append.expected_last {
            message = message.expected_last_subject_sequence(seq);
        }
        let mut link = self.is_up();
        if !*link.borrow_and_update() {
            // Sent now it would wait in a buffer; a little later it is sent for certain.
            let _ = tokio::time::timeout(ACK_TIMEOUT, restored(&mut link)).await;
        }
        let acknowledged = async {
            let sent = self.js.send_publish(append.subject.clone(), message).await;
            sent.map_err(|e| append_error(&e))?
                .await
                .map_err(|e| append_error(&e))
        };
        tokio::select! {
            ack = acknowledged => {
                let ack = ack?;
                Ok(Appended { seq: ack.sequence, is_duplicate: ack.duplicate })
            }
            // The acknowledgement went down with the link: whoever repeats the append
            // learns sooner what became of it than by waiting.
            () = restored(&mut link) => {
                Err(AppendError::Unavailable("the link was lost".to_owned()))
            }
        }
    }

    async fn tail(&self, from: u64, subjects: Vec<String>) -> Result<Box<dyn Tail>, LogError> {
        let unavailable = |e: String| LogError::Unavailable(e);
        let stream = self.js.get_stream(log_stream(&self.cell)).await;
        let stream = stream.map_err(|e| unavailable(e.to_string()))?;
        let state = &stream.cached_info().state;
        let config = pull::OrderedConfig {
            max_batch: batch_max(state.messages, state.bytes),
            deliver_policy: DeliverPolicy::ByStartSequence {
                start_sequence: from.max(1),
            },
            filter_subjects: subjects,
            max_expires: if self.client.server_info().cluster.is_none() {
                PULL_EXPIRES_ALONE
            } else {
                PULL_EXPIRES_CLUSTER
            },
            ..Default::default()
        };
        // Before anything is asked for: a link that is lost from here on is noticed.
        let mut link = self.is_up();
        link.mark_unchanged();
        let consumer = stream.create_consumer(config).await;
        let consumer = consumer.map_err(|e| LogError::Unavailable(e.to_string()))?;
        let messages = consumer.messages().await;
        let messages = messages.map_err(|e| LogError::Unavailable(e.to_string()))?;
        Ok(Box::new(JetStreamTail {
            messages,
            ready: VecDeque::new(),
            link,
        }))
    }

    async fn read(&self, seq: u64) -> Result<Option<Record>, LogError> {
        use async_nats::jetstream::stream::DirectGetErrorKind;
        let stream = self
            .stream(&log_stream(&self.cell))
            .await
            .map_err(LogError::Unavailable)?;
        // Whichever replica is near answers; one that is damaged must not speak for all.
        let is_alone = self.client.server_info().cluster.is_none();
        for _ in 0..if is_alone { 1 } else { DIRECT_TRIES } {
            match stream.direct_get(seq).await {
                Ok(message) => return Ok(Some(record_of_stored(message))),
                Err(e) if e.kind() == DirectGetErrorKind::NotFound => {}
                Err(e) => return Err(LogError::Unavailable(e.to_string())),
            }
        }
        self.read_from_leader(seq).await
    }

    /// Asks the stream's leader, not whichever replica is near: who reads this wants
    /// to append after it.
    async fn last_on(&self, subject: &str) -> Result<Option<Record>, LogError> {
        use async_nats::jetstream::stream::LastRawMessageErrorKind;
        let stream = self
            .stream(&log_stream(&self.cell))
            .await
            .map_err(LogError::Unavailable)?;
        match stream.get_last_raw_message_by_subject(subject).await {
            Ok(message) => Ok(Some(record_of_stored(message))),
            Err(e) if matches!(e.kind(), LastRawMessageErrorKind::NoMessageFound) => Ok(None),
            Err(e) => Err(LogError::Unavailable(e.to_string())),
        }
    }

    async fn last_seq(&self) -> Result<u64, LogError> {
        let stream = self.js.get_stream(log_stream(&self.cell)).await;
        let stream = stream.map_err(|e| LogError::Unavailable(e.to_string()))?;
        Ok(stream.cached_info().state.last_sequence)
    }
}

impl Connection {
    /// A replica that lags does not have what is there: that it is not, only the stream's
    /// leader can say.
    async fn read_from_leader(&self, seq: u64) -> Result<Option<Record>, LogError> {
        use async_nats::jetstream::stream::RawMessageErrorKind;
        let stream = self
            .stream(&log_stream(&self.cell))
            .await
            .map_err(LogError::Unavailable)?;
        match stream.get_raw_message(seq).await {
            Ok(message) => Ok(Some(record_of_stored(message))),
            Err(e) if matches!(e.kind(), RawMessageErrorKind::NoMessageFound) => Ok(None),
            Err(e) => Err(LogError::Unavailable(e.to_string())),
        }
    }
}

fn append_error(e: &PublishError) -> AppendError {
    use async_nats::jetstream::{Error, ErrorCode};
    use std::error::Error as _;
    match e.kind() {
        PublishErrorKind::WrongLastSequence => AppendError::Conflict(last_of(e)),
        PublishErrorKind::MaxPayloadExceeded => AppendError::Refused(e.to_string()),
        // On replicated streams a conflict in flight has a code of its own (nats-facts 2).
        _ => match e.source().and_then(|s| s.downcast_ref::<Error>()) {
            Some(s) if s.error_code() == ErrorCode::STREAM_WRONG_LAST_SEQUENCE_CONSTANT => {
                AppendError::Conflict(None)
            }
            Some(s) if s.error_code() == ErrorCode::STREAM_MESSAGE_EXCEEDS_MAXIMUM => {
                AppendError::Refused(e.to_string())
            }
            _ => AppendError::Unavailable(e.to_string()),
        },
    }
}

/// The record that is last in fact, as the server says it: `wrong last sequence: 17`.
fn last_of(e: &PublishError) -> Option<u64> {
    use std::error::Error as _;
    let text = e
        .source()
        .map_or_else(|| e.to_string(), ToString::to_string);
    let (_, after) = text.rsplit_once("wrong last sequence: ")?;
    let digits = after.split(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse().ok()
}

/// How many records to ask for at once, by the average size of those there are.
fn batch_max(records: u64, bytes: u64) -> i64 {
    let average = bytes.checked_div(records).unwrap_or(1).max(1);
    i64::try_from((PULL_BYTES / average).clamp(PULL_MIN, PULL_MAX)).unwrap_or(1)
}

struct JetStreamTail {
    messages: pull::Ordered,
    ready: VecDeque<(Record, u64)>,
    link: watch::Receiver<bool>,
}

#[async_trait]
impl Tail for JetStreamTail {
    async fn next(&mut self) -> Result<TailBatch, LogError> {
        while self.ready.is_empty() {
            tokio::select! {
                item = self.messages.next() => self.take(item)?,
                // What was asked for before is forgotten; opening again goes on at once,
                // where waiting for missed heartbeats would take many seconds.
                () = restored(&mut self.link) => {
                    return Err(LogError::Unavailable("the link was lost".to_owned()));
                }
            }
        }
        while self.ready.len() < BATCH_MAX {
            match self.messages.next().now_or_never() {
                Some(item) => self.take(item)?,
                None => break,
            }
        }
        let mut batch = TailBatch::default();
        for (record, pending) in self.ready.drain(..) {
            batch.records.push(record);
            batch.pending = pending;
        }
        Ok(batch)
    }
}

/// Returns once a lost link is up again.
pub(super) async fn restored(link: &mut watch::Receiver<bool>) {
    loop {
        if link.changed().await.is_err() {
            // The connection is gone for good; the stream itself says so.
            std::future::pending::<()>().await;
        }
        if *link.borrow_and_update() {
            return;
        }
    }
}

impl JetStreamTail {
    fn take(&mut self, item: Option<Result<Message, pull::OrderedError>>) -> Result<(), LogError> {
        match item {
            Some(Ok(message)) => {
                self.ready.push_back(record_of_message(message)?);
                Ok(())
            }
            // A warning only: the stream goes on or reopens by itself (nats-facts 9.3).
            Some(Err(e)) if e.kind() == pull::OrderedErrorKind::MissingHeartbeat => Ok(()),
            Some(Err(e)) => Err(LogError::Unavailable(e.to_string())),
            None => Err(LogError::Unavailable("the tail has ended".to_owned())),
        }
    }
}

pub(super) fn record_of_message(message: Message) -> Result<(Record, u64), LogError> {
    let info = message
        .info()
        .map_err(|e| LogError::Unavailable(e.to_string()))?;
    let (seq, pending) = (info.stream_sequence, info.pending);
    let time_ms = unix_ms(info.published);
    let (message, _) = message.split();
    let headers = message.headers.unwrap_or_default();
    let subject = message.subject.to_string();
    Ok((
        record(seq, time_ms, subject, &headers, message.payload),
        pending,
    ))
}

fn record_of_stored(m: StreamMessage) -> Record {
    record(
        m.sequence,
        unix_ms(m.time),
        m.subject.to_string(),
        &m.headers,
        m.payload,
    )
}

fn record(
    seq: u64,
    time_ms: u64,
    subject: String,
    headers: &HeaderMap,
    payload: bytes::Bytes,
) -> Record {
    let header = |name: &str| headers.get(name).map(|v| v.as_str().to_owned());
    Record {
        seq,
        time_ms,
        subject,
        content_type: header("Content-Type"),
        reply: header("Conductor-Reply"),
        traceparent: header("traceparent"),
        payload,
    }
}

pub(super) fn unix_ms(time: time::OffsetDateTime) -> u64 {
    u64::try_from(time.unix_timestamp_nanos() / 1_000_000).unwrap_or(0)
}
