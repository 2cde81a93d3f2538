//! Decisions that need several records of the log: read one after the other, however long that
//! takes.

use std::collections::BTreeMap;
use std::time::Duration;

use ractor::ActorStatus;

use super::bodies::{Bodies, PAUSE_MAX, PAUSE_MIN};
use crate::appender::AppenderMsg;
use crate::role::Gather;

/// How often a record that is not there, but could be done without, is asked for: a server that
/// has just begun to lead may not know all of the log yet.
const LOOKS: u32 = 6;

impl Bodies {
    /// Completes a decision once all it needs was read.
    pub(super) fn gather(&self, gather: Gather) {
        tokio::spawn(self.clone().read_all(gather));
    }

    async fn read_all(self, gather: Gather) {
        let mut records = BTreeMap::new();
        for seq in gather.seqs {
            let is_required = Some(seq) == gather.required;
            let (mut pause, mut looks) = (PAUSE_MIN, 0);
            loop {
                if (self.appender.get_status() as u8) >= ActorStatus::Stopping as u8 {
                    return;
                }
                match self.read_one(seq).await {
                    Ok(Some(record)) => {
                        records.insert(seq, record);
                        break;
                    }
                    Ok(None) if !is_required && looks >= LOOKS => {
                        let task = gather.task;
                        tracing::error!(%task, seq, "the log has lost a result that it needs");
                        break;
                    }
                    Ok(None) => looks += 1,
                    Err(e) => {
                        let task = gather.task;
                        tracing::warn!(%task, seq, error = %e, "a task's record cannot be read yet");
                    }
                }
                tokio::time::sleep(pause).await;
                pause = double(pause);
            }
        }
        let task = gather.task;
        match (gather.complete)(&records) {
            Some((subject, events)) => {
                let push = AppenderMsg::Push(vec![(subject, events)]);
                // An appender that is gone needs nothing.
                let _ = self.appender.cast(push);
            }
            None => tracing::error!(%task, "its body cannot be read: it cannot run"),
        }
    }
}

fn double(pause: Duration) -> Duration {
    (pause * 2).min(PAUSE_MAX)
}
