//! `conductor log tail`: the records themselves, decoded, with their verdicts.

use std::sync::Arc;

use conductor_eventlog::EventLog;
use conductor_replica::reader::Until;
use conductor_replica::{ReadFrom, Reader};

use super::read;
use crate::exit::{Exit, Outcome};
use crate::out::{self, Format};
use crate::settings::Settings;

/// Look at the log itself
#[derive(Debug, clap::Subcommand)]
pub(crate) enum LogCommand {
    /// Show the last records, decoded, each event with its verdict
    Tail {
        /// How many records
        #[arg(short = 'n', long, default_value_t = 20)]
        records: u64,
        /// From this sequence on, instead of the last
        #[arg(long)]
        from: Option<u64>,
        /// Go on
        #[arg(long, short)]
        follow: bool,
    },
}

pub(crate) async fn run(command: LogCommand, settings: &Settings) -> Outcome {
    let LogCommand::Tail {
        records,
        from,
        follow,
    } = command;
    let connection = Arc::new(settings.open().await?);
    let log = Arc::clone(&connection) as Arc<dyn EventLog>;
    let last = log.last_seq().await?;
    let first = from
        .unwrap_or_else(|| last.saturating_sub(records.saturating_sub(1)))
        .max(1);
    let format = settings.output;
    let snapshots = ReadFrom::Snapshot(connection.as_ref());
    let mut reader = Reader::open(log, snapshots, first - 1).await;
    let show = |record: &conductor_domain::Decoded, folded: &conductor_domain::fold::Folded| {
        for (_, entry) in read::entries(record, folded) {
            match format {
                Format::Table => out::line(&entry.line()),
                _ => out::line(&entry.to_json().to_string()),
            }
        }
    };
    reader
        .read_until(Until::Seq(last), last, |record, folded, _| {
            if record.seq >= first {
                show(record, folded);
            }
        })
        .await?;
    if !follow {
        return Ok(Exit::Ok);
    }
    loop {
        let (record, folded) = reader.next().await?;
        show(&record, &folded);
    }
}
