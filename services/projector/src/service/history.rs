//! Whether the log is still the one that was exported.

use std::time::Duration;

use conductor_domain::Record;
use conductor_eventlog::{EventLog, LogError};
use conductor_protocol::UnixMs;

/// How often in a row a record must be found lost before that is believed: a server that has just
/// begun to lead may not know all of it yet.
const LOST_TIMES: u32 = 5;
/// Pause between two looks.
const PAUSE: Duration = Duration::from_secs(1);

/// The last record up to this one, which bore this time, that the log still holds. A log that lost
/// its end gives the lost sequences out again, for later records.
pub(super) async fn last_shared(
    log: &dyn EventLog,
    (seq, time_ms): (u64, UnixMs),
) -> Result<(u64, UnixMs), LogError> {
    for _ in 0..LOST_TIMES {
        if is_there(log, seq, time_ms).await? {
            return Ok((seq, time_ms));
        }
        tokio::time::sleep(PAUSE).await;
    }
    let shared = search(log, seq, time_ms).await?;
    tracing::error!(
        seq,
        from = shared.0,
        "the log has lost its end: traces go on behind the last record that is still there"
    );
    Ok(shared)
}

async fn is_there(log: &dyn EventLog, seq: u64, time_ms: UnixMs) -> Result<bool, LogError> {
    if seq == 0 {
        return Ok(true);
    }
    match log.read(seq).await? {
        Some(record) => Ok(record.time_ms == time_ms),
        // Nothing was put in its place: what follows still follows.
        None => Ok(log.last_seq().await? >= seq),
    }
}

/// By halves: up to the one looked for all are as old as the position or older, behind it none is.
async fn search(log: &dyn EventLog, seq: u64, time_ms: UnixMs) -> Result<(u64, UnixMs), LogError> {
    let mut shared = (0, 0);
    let mut high = seq.min(log.last_seq().await?);
    while shared.0 < high {
        let middle = shared.0 + (high - shared.0).div_ceil(2);
        match before(log, middle, shared.0).await? {
            Some(record) if record.time_ms > time_ms => high = record.seq - 1,
            Some(record) => shared = (middle, record.time_ms),
            None => shared.0 = middle,
        }
    }
    Ok(shared)
}

/// The last record up to `seq` and after `after`; single ones may be missing.
async fn before(log: &dyn EventLog, seq: u64, after: u64) -> Result<Option<Record>, LogError> {
    for seq in (after + 1..=seq).rev() {
        if let Some(record) = log.read(seq).await? {
            return Ok(Some(record));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use async_trait::async_trait;
    use conductor_eventlog::{Append, AppendError, Appended, Tail};
    use conductor_protocol::CellId;

    /// A log of records of these times; of 0 there is none.
    #[derive(Debug)]
    struct Times(CellId, Vec<UnixMs>);

    #[async_trait]
    impl EventLog for Times {
        fn cell(&self) -> &CellId {
            &self.0
        }
        async fn append(&self, _: &Append) -> Result<Appended, AppendError> {
            unreachable!()
        }
        async fn tail(&self, _: u64, _: Vec<String>) -> Result<Box<dyn Tail>, LogError> {
            unreachable!()
        }
        async fn read(&self, seq: u64) -> Result<Option<Record>, LogError> {
            let time_ms = self.1.get(usize::try_from(seq).unwrap() - 1).copied();
            Ok(time_ms.filter(|t| *t > 0).map(|time_ms| Record {
                seq,
                time_ms,
                subject: String::new(),
                content_type: None,
                reply: None,
                traceparent: None,
                payload: bytes::Bytes::new(),
            }))
        }
        async fn last_on(&self, _: &str) -> Result<Option<Record>, LogError> {
            unreachable!()
        }
        async fn last_seq(&self) -> Result<u64, LogError> {
            Ok(self.1.len() as u64)
        }
    }

    async fn shared(times: &[UnixMs], position: (u64, UnixMs)) -> (u64, UnixMs) {
        let log = Times("local".parse().unwrap(), times.to_vec());
        last_shared(&log, position).await.unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_log_that_goes_on_is_read_on() {
        assert_eq!(shared(&[10, 20, 30, 40], (3, 30)).await, (3, 30));
        assert_eq!(shared(&[], (0, 0)).await, (0, 0));
        // The record was lost, not the end.
        assert_eq!(shared(&[10, 20, 0, 40], (3, 30)).await, (3, 30));
    }

    #[tokio::test(start_paused = true)]
    async fn of_a_log_that_lost_its_end_the_last_record_that_both_share() {
        // It ends before.
        assert_eq!(shared(&[10, 20], (4, 40)).await, (2, 20));
        assert_eq!(shared(&[], (4, 40)).await, (0, 0));
        // It grew again, beyond the position and not so far.
        assert_eq!(shared(&[10, 20, 50, 60, 70], (4, 40)).await, (2, 20));
        assert_eq!(shared(&[10, 20, 50], (4, 40)).await, (2, 20));
        assert_eq!(shared(&[50, 60, 70], (3, 40)).await, (0, 0));
        // With records missing in between.
        assert_eq!(shared(&[10, 0, 20, 0, 50, 60], (6, 40)).await, (4, 20));
        // All of every length.
        for (length, lost) in (1..40_u64).flat_map(|n| (0..=n).map(move |l| (n, l))) {
            let kept = length - lost;
            let times = (1..=kept).chain(kept + 1_001..=1_000 + length);
            let found = shared(&times.collect::<Vec<_>>(), (length, length)).await;
            assert_eq!(found.0, kept, "{lost} of {length}");
        }
    }
}
