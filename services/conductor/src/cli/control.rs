//! Saying something on the control subject, and learning whether it counted.

use std::sync::Arc;
use std::time::Duration;

use conductor_domain::record::Content;
use conductor_domain::{Verdict, VoidReason};
use conductor_eventlog::jetstream::Connection;
use conductor_eventlog::{Append, AppendError, EventLog};
use conductor_protocol::Control;
use conductor_protocol::subject::Subject;
use conductor_replica::Reader;

use super::read;
use crate::exit::{Exit, Failure, Outcome};

/// How long an append is tried.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long until it is tried again.
const PAUSE: Duration = Duration::from_millis(200);

/// Appends a record a client may append, repeating it until it is known.
pub(crate) async fn append(connection: &Connection, append: &Append) -> Outcome<u64> {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let problem = match tokio::time::timeout_at(deadline, connection.append(append)).await {
            Ok(Ok(appended)) => return Ok(appended.seq),
            Ok(Err(AppendError::Unavailable(problem))) => problem,
            Ok(Err(e)) => return Err(e.into()),
            Err(_) => "no answer".to_owned(),
        };
        // The same bytes under the same id again, so that it counts once.
        tokio::time::sleep(PAUSE).await;
        if tokio::time::Instant::now() >= deadline {
            let message = format!("the log does not take it: {problem}");
            return Err(Failure::new(Exit::Unreachable, message).hint(
                "nothing was acknowledged; `conductor doctor` says what is wrong, and \
                 `conductor up` or `conductor orchestrator` provisions a cell",
            ));
        }
    }
}

/// Says `controls` and waits for their verdicts; returns a reader that has seen them.
pub(crate) async fn say(
    connection: &Arc<Connection>,
    controls: &[Control],
) -> Outcome<(Reader, Vec<Verdict>)> {
    let payload = serde_json::to_vec(controls).map_err(std::io::Error::from)?;
    let record = Append {
        subject: Subject::Control.render(connection.cell()),
        payload: payload.into(),
        id: uuid::Uuid::new_v4().to_string(),
        expected_last: None,
    };
    let seq = append(connection, &record).await?;
    let mut verdicts = Vec::new();
    let from = conductor_replica::ReadFrom::Snapshot(connection.as_ref());
    // A snapshot that already holds the record could not tell its verdict.
    let log = Arc::clone(connection) as Arc<dyn EventLog>;
    let mut reader = Reader::open(log, from, seq - 1).await;
    reader
        .read_until(
            conductor_replica::reader::Until::Seq(seq),
            seq,
            |record, folded, _| {
                if record.seq == seq && matches!(record.content, Content::Control { .. }) {
                    verdicts.clone_from(&folded.verdicts);
                }
            },
        )
        .await?;
    Ok((reader, verdicts))
}

/// Says one thing; what did not count is a failure.
pub(crate) async fn say_one(connection: &Arc<Connection>, control: Control) -> Outcome<Reader> {
    let kind = control.kind();
    let (reader, verdicts) = say(connection, &[control]).await?;
    match verdicts.first() {
        Some(Verdict::Void(VoidReason::NoChange) | Verdict::Applied) => Ok(reader),
        Some(Verdict::Void(reason)) => {
            let code = match reason {
                VoidReason::UnknownTask | VoidReason::UnknownAgent => Exit::NotFound,
                _ => Exit::Conflict,
            };
            Err(Failure::new(
                code,
                format!("{kind} had no effect: {}", explain(*reason)),
            ))
        }
        None => Err(Failure::new(
            Exit::Failure,
            format!("{kind} was not read back"),
        )),
    }
}

/// What a reason means, for people.
pub(crate) fn explain(reason: VoidReason) -> String {
    match reason {
        VoidReason::AlreadyFinal => "the task has ended".to_owned(),
        VoidReason::NotFinal => "the task has not ended yet".to_owned(),
        VoidReason::UnknownTask => "no such task, or it has left the state".to_owned(),
        VoidReason::UnknownAgent => "no such agent".to_owned(),
        VoidReason::Duplicate => "it was asked for already".to_owned(),
        VoidReason::NotAsked => "it asks no such question, or no longer".to_owned(),
        VoidReason::Answered => "somebody has answered that already".to_owned(),
        VoidReason::WorkspaceBusy => "a task works in it, or its agent is removing it".to_owned(),
        VoidReason::NotPending => "the task is not in a state for it".to_owned(),
        VoidReason::FormatNotReached => {
            "an agent is there that does not know it yet; update all agents".to_owned()
        }
        other => other.to_string(),
    }
}

/// Waits until a task has ended and says how, as an exit code.
pub(crate) async fn wait_for_end(
    reader: &mut Reader,
    id: conductor_protocol::TaskId,
    at_most: Option<Duration>,
    mut seen: impl FnMut(&read::Entry),
) -> Outcome {
    let deadline = at_most.map(|d| tokio::time::Instant::now() + d);
    loop {
        if let Some(outcome) = reader.state.outcome_of(id) {
            use conductor_domain::state::Outcome as How;
            return Ok(match outcome {
                How::Succeeded => Exit::Ok,
                How::Failed | How::TimedOut => Exit::TaskFailed,
                How::Cancelled => Exit::TaskCancelled,
            });
        }
        let next = reader.next();
        let (record, folded) = match deadline {
            Some(deadline) => tokio::time::timeout_at(deadline, next)
                .await
                .map_err(|_| {
                    Failure::new(Exit::TimedOut, format!("task {id} has not ended in time"))
                })??,
            None => next.await?,
        };
        for (task, entry) in read::entries(&record, &folded) {
            if task == Some(id) {
                seen(&entry);
            }
        }
    }
}
