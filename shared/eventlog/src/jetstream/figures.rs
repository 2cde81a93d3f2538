//! How the link and the streams are, for those who watch.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use conductor_protocol::subject::log_stream;

use super::Connection;
use crate::port::LogError;

/// A stream's size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamSize {
    /// What is in it: `log`, `output`, `presence`, `snapshots`, `positions` or `locks`.
    pub stream: &'static str,
    /// Messages.
    pub messages: u64,
    /// Bytes on disk, or in memory for the presence stream.
    pub bytes: u64,
    /// Sequence of the last message.
    pub last_seq: u64,
}

/// The streams of a cell but the log, by what people call them, and the names of theirs before
/// the cell's.
const BESIDE: [(&str, &str); 5] = [
    ("output", "OUTPUT"),
    ("presence", "PRESENCE"),
    ("snapshots", "OBJ_SNAPSHOTS"),
    ("positions", "KV_POSITIONS"),
    ("locks", "KV_LOCKS"),
];

impl Connection {
    /// Sequence of the last message of a stream beside the log, such as `OUTPUT`.
    pub async fn last_seq_of(&self, of: &str) -> Result<u64, LogError> {
        let found = self.js.get_stream(self.stream_name(of)).await;
        let found = found.map_err(|e| LogError::Unavailable(e.to_string()))?;
        Ok(found.cached_info().state.last_sequence)
    }

    /// How often the link came back after it was lost.
    pub fn reconnects(&self) -> u64 {
        let connects = self.client.statistics().connects.load(Ordering::Relaxed);
        connects.saturating_sub(1)
    }

    /// The log's size, and how long it took to ask for it: the round trip of a request to
    /// JetStream. `None` where nothing answers.
    pub async fn log_size(&self) -> Option<(StreamSize, Duration)> {
        let asked = Instant::now();
        let size = self.size("log", &log_stream(&self.cell)).await?;
        Some((size, asked.elapsed()))
    }

    /// The sizes of the streams beside the log that there are.
    pub async fn sizes_beside(&self) -> Vec<StreamSize> {
        let mut sizes = Vec::new();
        for (stream, of) in BESIDE {
            sizes.extend(self.size(stream, &self.stream_name(of)).await);
        }
        sizes
    }

    async fn size(&self, stream: &'static str, name: &str) -> Option<StreamSize> {
        let found = self.js.get_stream(name).await.ok()?;
        let state = &found.cached_info().state;
        Some(StreamSize {
            stream,
            messages: state.messages,
            bytes: state.bytes,
            last_seq: state.last_sequence,
        })
    }
}
