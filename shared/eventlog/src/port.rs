//! What a log is to those who use it.

use async_trait::async_trait;
use bytes::Bytes;
use conductor_domain::Record;
use conductor_protocol::CellId;

/// One record to append.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Append {
    /// The subject.
    pub subject: String,
    /// The frame.
    pub payload: Bytes,
    /// `Nats-Msg-Id`: the same for every repetition of this append.
    pub id: String,
    /// Append only if this is the sequence of the last record on the subject (0: none).
    pub expected_last: Option<u64>,
}

/// An append that is in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Its sequence.
    pub seq: u64,
    /// Whether it already was there under the same id.
    pub is_duplicate: bool,
}

/// Why an append is not known to be in the log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// It may or may not be there; repeat it until it is known.
    #[error("the log does not answer: {0}")]
    Unavailable(String),
    /// Another record is last on the subject: this one, where it is known.
    #[error("another record came first")]
    Conflict(Option<u64>),
    /// It is not there and repeating it will not help.
    #[error("the log refuses the record: {0}")]
    Refused(String),
}

/// Why the log cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// Trying again may help.
    #[error("the log does not answer: {0}")]
    Unavailable(String),
    /// Trying again will not help.
    #[error("{0}")]
    Refused(String),
    /// What was read of it is not there any more: whoever has read it must begin anew.
    #[error("the log has lost its end: {0}")]
    Lost(String),
}

/// Records in log order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TailBatch {
    /// At least one, in the order of their sequences.
    pub records: Vec<Record>,
    /// How many more the log held when the last of them was delivered.
    pub pending: u64,
}

/// Follows the log.
#[async_trait]
pub trait Tail: Send {
    /// The next records, waiting for the first. An error ends the tail; open another
    /// from the sequence after the last record seen.
    async fn next(&mut self) -> Result<TailBatch, LogError>;
}

/// The append-only log of one cell.
#[async_trait]
pub trait EventLog: Send + Sync + std::fmt::Debug {
    /// The cell.
    fn cell(&self) -> &CellId;

    /// Appends a record. The only acknowledgement there is: the record is stored.
    async fn append(&self, append: &Append) -> Result<Appended, AppendError>;

    /// Follows the log from sequence `from` on. With `subjects`, only records on those.
    async fn tail(&self, from: u64, subjects: Vec<String>) -> Result<Box<dyn Tail>, LogError>;

    /// The record at a sequence; `None` where there is none.
    async fn read(&self, seq: u64) -> Result<Option<Record>, LogError>;

    /// The last record on a subject.
    async fn last_on(&self, subject: &str) -> Result<Option<Record>, LogError>;

    /// Sequence of the last record; 0 for an empty log.
    async fn last_seq(&self) -> Result<u64, LogError>;
}

/// The name of a stored snapshot: the sequence it stands at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct SnapshotName(pub u64);

/// Snapshots: none is needed, they only save time.
#[async_trait]
pub trait SnapshotStore: Send + Sync + std::fmt::Debug {
    /// Stores a snapshot and drops all but the newest few.
    async fn save(&self, name: SnapshotName, bytes: Bytes) -> Result<(), LogError>;

    /// What is stored, newest first.
    async fn list(&self) -> Result<Vec<SnapshotName>, LogError>;

    /// The bytes of one, unverified.
    async fn load(&self, name: SnapshotName) -> Result<Bytes, LogError>;
}
