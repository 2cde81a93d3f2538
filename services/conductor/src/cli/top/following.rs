//! Reads the log, and keeps what views are made of.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use conductor_eventlog::jetstream::Connection;
use conductor_eventlog::{EventLog, LogError};
use conductor_protocol::UnixMs;
use conductor_replica::clock::ServerClock;
use conductor_replica::reader::{ReadError, Until};
use conductor_replica::{ReadFrom, Reader};

use super::seen::Seen;
use super::view::{Asked, View};
use crate::exit::Outcome;

/// How long the log may take to say where it ends, while somebody watches.
const ANSWER: Duration = Duration::from_secs(2);
/// Records read between two looks at the time.
const STEP: u64 = 1_000;

/// A state that follows the log, with what was seen on the way.
#[derive(Debug)]
pub(super) struct Following {
    log: Arc<dyn EventLog>,
    reader: Reader,
    seen: Seen,
    clock: ServerClock,
    /// Where the log ended when it was last asked.
    last_seq: u64,
    /// Why it could not be asked, or read.
    silence: Option<String>,
}

impl Following {
    /// Begins at the newest snapshot, or else at the first record.
    pub(super) async fn open(connection: &Arc<Connection>) -> Outcome<Self> {
        let log = Arc::clone(connection) as Arc<dyn EventLog>;
        let last_seq = log.last_seq().await?;
        let from = ReadFrom::Snapshot(connection.as_ref());
        let reader = Reader::open(Arc::clone(&log), from, last_seq).await;
        Ok(Self {
            log,
            seen: Seen::begin(&reader.state),
            reader,
            clock: ServerClock::default(),
            last_seq,
            silence: None,
        })
    }

    /// Asks where the log ends and reads up to there, or until the deadline.
    ///
    /// Not `Reader::next`, which would have to be dropped at each refresh of a silent log: what
    /// it was asking for one by one would be lost with it. This one is always waited for, since
    /// what it reads is there.
    pub(super) async fn read(&mut self, deadline: Option<Instant>) -> Result<(), ReadError> {
        let known = self.last_seq;
        self.last_seq = ask(self.log.as_ref()).await?;
        let (seen, clock) = (&mut self.seen, &mut self.clock);
        let mut upto = self.reader.state.seq;
        while upto < self.last_seq && deadline.is_none_or(|at| Instant::now() < at) {
            upto = (upto + STEP).min(self.last_seq);
            let read = |record: &_, folded: &_, state: &_| {
                seen.saw(record, folded, state);
            };
            self.reader
                .read_until(Until::Seq(upto), self.last_seq, read)
                .await?;
        }
        // What came since it was last asked is fresh, and tells the time.
        if self.reader.state.seq > known {
            clock.saw(self.reader.state.time_ms, Instant::now());
        }
        Ok(())
    }

    /// The same, while somebody watches: a log that is away for a moment ends nothing, but is
    /// said.
    pub(super) async fn look(&mut self, at_most: Duration) -> Result<(), ReadError> {
        match self.read(Some(Instant::now() + at_most)).await {
            Ok(()) => self.silence = None,
            Err(ReadError::Log(LogError::Unavailable(why))) => self.silence = Some(why),
            Err(e) => return Err(e),
        }
        Ok(())
    }

    /// The picture now, with rates over the last so many seconds.
    pub(super) fn view(&mut self, over_s: u64) -> View {
        self.seen.waits.trim(&self.reader.state);
        let asked = Asked {
            now_ms: self.now_ms(),
            last_seq: self.silence.is_none().then_some(self.last_seq),
            over_s,
            problem: self.problem(),
        };
        View::of(&self.reader.state, &self.seen, asked)
    }

    /// The server's clock where fresh records told it, else our own; never before the last
    /// record.
    fn now_ms(&self) -> UnixMs {
        let ours = || {
            let since = SystemTime::now().duration_since(UNIX_EPOCH);
            since.map_or(0, |d| d.as_millis() as u64)
        };
        let now_ms = self.clock.now_ms(Instant::now()).unwrap_or_else(ours);
        now_ms.max(self.reader.state.time_ms)
    }

    fn problem(&self) -> Option<String> {
        let seq = self.reader.state.seq;
        if let Some(why) = &self.silence {
            return Some(format!(
                "the log does not answer ({why}); this is as of record {seq}"
            ));
        }
        if self.last_seq < seq {
            let end = self.last_seq;
            return Some(format!(
                "the log ends at record {end}, but record {seq} was read; see `conductor doctor`"
            ));
        }
        let gaps: Vec<String> = self.reader.gaps.iter().map(ToString::to_string).collect();
        (!gaps.is_empty()).then(|| {
            let gaps = gaps.join(", ");
            format!("the log has lost records {gaps}; see `conductor replay`")
        })
    }
}

async fn ask(log: &dyn EventLog) -> Result<u64, LogError> {
    let silent = || LogError::Unavailable(format!("nothing came within {ANSWER:?}"));
    tokio::time::timeout(ANSWER, log.last_seq())
        .await
        .unwrap_or_else(|_| Err(silent()))
}
