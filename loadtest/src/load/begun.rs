//! When attempts began by the log's own time: read once the load is over, so that it costs
//! nothing while something is measured.

use std::collections::HashMap;

use async_nats::jetstream::consumer::{DeliverPolicy, pull};
use conductor_protocol::subject::log_stream;
use conductor_protocol::{CellId, frame};
use futures::StreamExt;

use crate::book::Book;
use crate::outcome::Outcome;
use crate::plan::Target;
use crate::raw::context;
use crate::workload::Workload;

/// Of each task of this run, by number, the time that the server gave the record of its
/// attempt's beginning as it stored it, in nanoseconds from the beginning of the book.
pub(super) async fn begun(
    target: &Target,
    from: u64,
    workload: &Workload,
    book: &Book,
) -> Outcome<HashMap<u64, u64>> {
    let cell: CellId = target.cell.parse()?;
    let stream = context(target).await?.get_stream(log_stream(&cell)).await?;
    let config = pull::OrderedConfig {
        deliver_policy: DeliverPolicy::ByStartSequence {
            start_sequence: from,
        },
        filter_subject: format!("conductor.{cell}.agent.*"),
        ..Default::default()
    };
    let consumer = stream.create_consumer(config).await?;
    let mut messages = consumer.messages().await?;
    let mut begun = HashMap::new();
    while let Some(message) = messages.next().await {
        let message = message?;
        let info = message.info()?;
        let unix_ns = u64::try_from(info.published.unix_timestamp_nanos())?;
        let frame = frame::split(&message.payload)?;
        for news in frame.events.iter().filter_map(|e| workload.news(e)) {
            if !news.is_end {
                begun.insert(news.number, book.since_start(unix_ns));
            }
        }
        if info.pending == 0 {
            break;
        }
    }
    Ok(begun)
}
