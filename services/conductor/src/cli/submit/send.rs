//! Appending orders, many to a record.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::sync::Arc;

use conductor_access::Credentials;
use conductor_access::rights::Rights;
use conductor_eventlog::Append;
use conductor_eventlog::jetstream::Connection;
use conductor_protocol::Position;
use conductor_protocol::ids::CellId;
use conductor_protocol::subject::{Subject, log_stream};
use futures::StreamExt;

use super::Order;
use crate::cli::control;
use crate::exit::{Exit, Failure, Outcome};

/// Most tasks of one record.
const TASKS_PER_RECORD: usize = 500;
/// Most bytes of one record; a larger task goes alone.
const BYTES_PER_RECORD: usize = 256 * 1024;
/// Records in flight at once, where their order does not matter.
const IN_FLIGHT: usize = 8;

/// What our credentials allow, where that can be read from them.
fn rights(connection: &Connection) -> Option<Rights> {
    let credentials = Credentials::read(connection.credentials()?).ok()?;
    credentials.rights().ok()
}

/// Whether our credentials allow to read the log, as far as they say.
pub(super) fn may_read(connection: &Connection) -> bool {
    let info = format!("$JS.API.STREAM.INFO.{}", log_stream(connection.cell()));
    rights(connection).is_none_or(|rights| rights.may_publish(&info))
}

/// The subject of an order: that of its queue, which every log takes; only with credentials that
/// allow namespaces of theirs alone the one that says whose it is.
fn subject(order: &Order, cell: &CellId, rights: Option<&Rights>) -> Outcome<String> {
    let may = |subject: &String| rights.is_none_or(|r| r.may_publish(subject));
    let queue = &order.queue;
    let plain = Subject::Submit(queue.clone()).render(cell);
    if may(&plain) {
        return Ok(plain);
    }
    let denied = |what: String| {
        let message = format!("{}: these credentials may not submit {what}", order.origin);
        Err(Failure::new(Exit::Denied, message).hint(
            "name a queue and a namespace that they were granted, or ask for others: conductor \
             access grant … --queue … --namespace …",
        ))
    };
    let namespace = order.submission.namespace.as_deref();
    let Some(namespace) = namespace.and_then(|n| n.parse().ok()) else {
        return denied(format!("to queue {queue} in no namespace"));
    };
    let own = Subject::SubmitIn(queue.clone(), namespace).render(cell);
    if may(&own) {
        return Ok(own);
    }
    let namespace = order.submission.namespace.as_deref().unwrap_or_default();
    denied(format!("to queue {queue} in namespace {namespace}"))
}

/// Cuts orders into records: neighbours with the same subject, as many as fit.
fn records(
    cell: &CellId,
    rights: Option<&Rights>,
    orders: &[Order],
) -> Outcome<Vec<(Append, usize)>> {
    let mut out = Vec::new();
    let mut open: Option<(String, Vec<String>, usize)> = None;
    let close = |out: &mut Vec<(Append, usize)>,
                 (subject, tasks, _): (String, Vec<String>, usize)| {
        let append = Append {
            subject,
            payload: format!("[{}]", tasks.join(",")).into(),
            id: uuid::Uuid::new_v4().to_string(),
            expected_last: None,
        };
        out.push((append, tasks.len()));
    };
    for order in orders {
        let task = serde_json::to_string(&order.submission).map_err(std::io::Error::from)?;
        let subject = subject(order, cell, rights)?;
        if let Some(record) = open.take_if(|(of, tasks, bytes)| {
            *of != subject
                || tasks.len() >= TASKS_PER_RECORD
                || *bytes + task.len() > BYTES_PER_RECORD
        }) {
            close(&mut out, record);
        }
        let (_, tasks, bytes) = open.get_or_insert((subject, Vec::new(), 0));
        *bytes += task.len() + 1;
        tasks.push(task);
    }
    if let Some(record) = open {
        close(&mut out, record);
    }
    Ok(out)
}

/// Appends the orders; returns where each of them stands in the log.
pub(crate) async fn send(
    connection: &Arc<Connection>,
    orders: &[Order],
    ordered: bool,
) -> Outcome<BTreeMap<Position, usize>> {
    let records = records(connection.cell(), rights(connection).as_ref(), orders)?;
    let bar = progress(orders.len());
    let in_flight = if ordered { 1 } else { IN_FLIGHT };
    let mut sending = futures::stream::iter(records)
        .map(|(record, tasks)| {
            let connection = Arc::clone(connection);
            async move {
                control::append(&connection, &record)
                    .await
                    .map(|seq| (seq, tasks))
            }
        })
        .buffered(in_flight);
    let mut positions = BTreeMap::new();
    while let Some(sent) = sending.next().await {
        let (seq, tasks) = sent?;
        for index in 0..tasks {
            positions.insert(Position::new(seq, index as u32), positions.len());
        }
        bar.inc(tasks as u64);
    }
    bar.finish_and_clear();
    Ok(positions)
}

/// A progress bar on the terminal, where there is much to wait for.
pub(super) fn progress(len: usize) -> indicatif::ProgressBar {
    if len < 50 || !std::io::stderr().is_terminal() {
        return indicatif::ProgressBar::hidden();
    }
    let style = indicatif::ProgressStyle::with_template("{bar:40} {pos}/{len} {per_sec} {eta}");
    let bar = indicatif::ProgressBar::new(len as u64);
    match style {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}
