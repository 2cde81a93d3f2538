//! The handle that callers hold.

use std::sync::Arc;

use conductor_eventlog::EventLog;
use conductor_protocol::frame::Elements;
use conductor_protocol::ids::{CellId, Namespace, QueueName};
use conductor_protocol::limits::SPEC_BYTES_MAX;
use conductor_protocol::subject::Subject;
use conductor_protocol::submission::Submission;
use conductor_protocol::{Position, TaskId};
use tokio::sync::{Semaphore, mpsc, oneshot};

use crate::SubmitError;
use crate::ledger::{Answer, Caller};
use crate::worker::{Call, Worker};

/// Most bytes of submissions that wait for the log or are on their way, of all clones of a
/// submitter together. Whoever comes then waits for room. One call that is larger by itself
/// goes when nothing else waits.
pub const WAITING_BYTES_MAX: usize = 8 * 1024 * 1024;

/// What a submission takes beside its own bytes, so that very many tiny ones are bounded too.
const OVERHEAD_BYTES: usize = 128;

/// Submits tasks. Clones are cheap and share one task, which gathers what all of them submit;
/// it ends when the last clone is gone and everything handed over has been answered.
///
/// # What a caller must know
/// - An append whose answer was lost is repeated, the same, for as long as it takes. Who does
///   not want to wait puts a timeout around the call; what was handed over is then stored all
///   the same, sooner or later.
/// - The log recognises a repetition for two minutes. A task that must not run twice even if
///   the log was away for longer has an `id` or a `key`: the second is then a duplicate.
/// - A stored submission is not yet an accepted task: the orchestrator decides that.
#[derive(Clone, Debug)]
pub struct Submitter {
    cell: CellId,
    namespace: Option<Namespace>,
    calls: mpsc::UnboundedSender<Call>,
    room: Arc<Semaphore>,
}

impl Submitter {
    /// A submitter into this log, on the current runtime.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn new(log: Arc<dyn EventLog>) -> Self {
        let cell = log.cell().clone();
        let (calls, inbox) = mpsc::unbounded_channel();
        tokio::spawn(Worker::new(log, inbox).run());
        Self {
            cell,
            namespace: None,
            calls,
            room: Arc::new(Semaphore::new(WAITING_BYTES_MAX)),
        }
    }

    /// The same submitter, whose tasks are all of one namespace: it submits on the subject that
    /// says so, the only one that is allowed to credentials of that namespace. A submission that
    /// names another is rejected.
    ///
    /// The log must take such subjects: one that was made before there were any has them added by
    /// `conductor provision`.
    #[must_use]
    pub fn in_namespace(mut self, namespace: Namespace) -> Self {
        self.namespace = Some(namespace);
        self
    }

    /// Submits one task to a queue. Returns, once it is stored, where: the record's sequence,
    /// and its index among the submissions there.
    pub async fn submit(
        &self,
        queue: &QueueName,
        submission: &Submission,
    ) -> Result<Position, SubmitError> {
        let one = std::slice::from_ref(submission);
        let positions = self.submit_all(queue, one).await?;
        positions.first().copied().ok_or(SubmitError::Ended)
    }

    /// Submits many tasks to a queue, handed over at once. They are stored in this order, in
    /// as few records as they fit into beside those of others; a task goes behind those it
    /// needs. Returns, once all are stored, where each of them is.
    ///
    /// They are not one transaction: where the log refuses one record of several, the others
    /// are stored.
    pub async fn submit_all(
        &self,
        queue: &QueueName,
        submissions: &[Submission],
    ) -> Result<Vec<Position>, SubmitError> {
        if submissions.is_empty() {
            return Ok(Vec::new());
        }
        let mut elements = Elements::default();
        for (index, submission) in submissions.iter().enumerate() {
            elements.push(&encode(index, submission)?);
        }
        let subject = match &self.namespace {
            Some(namespace) => Subject::SubmitIn(queue.clone(), namespace.clone()),
            None => Subject::Submit(queue.clone()),
        };
        let answer = self.hand_over(subject.render(&self.cell), elements).await?;
        positions(answer)
    }

    /// Waits for room, hands over and waits for the answer.
    async fn hand_over(&self, subject: String, elements: Elements) -> Result<Answer, SubmitError> {
        let bytes = elements.as_bytes().len() + elements.len() * OVERHEAD_BYTES;
        let room = Arc::clone(&self.room)
            .acquire_many_owned(bytes.min(WAITING_BYTES_MAX) as u32)
            .await
            .map_err(|_| SubmitError::Ended)?;
        let (reply, answer) = oneshot::channel();
        let call = Call {
            subject,
            caller: Caller {
                len: elements.len(),
                reply,
                room,
            },
            elements,
        };
        self.calls.send(call).map_err(|_| SubmitError::Ended)?;
        answer.await.map_err(|_| SubmitError::Ended)
    }
}

/// The submission as it goes into a record, unless it cannot share one.
fn encode(index: usize, submission: &Submission) -> Result<Vec<u8>, SubmitError> {
    let by_name = |need: &&String| need.parse::<TaskId>().is_err();
    if let Some(need) = submission.needs.iter().find(by_name) {
        let need = need.clone();
        return Err(SubmitError::NeedByName { index, need });
    }
    let element = submission
        .encode()
        .map_err(|problem| SubmitError::Unencodable { index, problem })?;
    let bytes = element.len();
    if bytes > SPEC_BYTES_MAX {
        return Err(SubmitError::TooLarge { index, bytes });
    }
    Ok(element)
}

fn positions(answer: Answer) -> Result<Vec<Position>, SubmitError> {
    let stored = answer.positions;
    match answer.refused {
        Some(error) => Err(SubmitError::Refused { error, stored }),
        None => Ok(stored.into_iter().flatten().collect()),
    }
}

#[cfg(test)]
mod tests;
