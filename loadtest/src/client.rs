//! Ways to submit: through a library that gathers, or each task by a publish of its own.

use std::sync::Arc;

use bytes::Bytes;
use conductor_eventlog::{Append, EventLog};
use conductor_protocol::limits::SUBMISSIONS_PER_RECORD_MAX;
use conductor_protocol::subject::Subject;
use conductor_protocol::submission::Submission;
use conductor_protocol::{CellId, QueueName};
use tokio::sync::{mpsc, oneshot};

use crate::outcome::Outcome;

/// Most bytes of submissions in a record.
const RECORD_BYTES_MAX: usize = 768 * 1024;

/// Submits what it is given in as few records as it can.
#[derive(Clone, Debug)]
pub(crate) struct Submitter {
    asks: mpsc::UnboundedSender<Ask>,
}

#[derive(Debug)]
struct Ask {
    tasks: Vec<Vec<u8>>,
    done: oneshot::Sender<Result<u64, String>>,
}

impl Submitter {
    /// Submits to a queue of the log's cell.
    pub(crate) fn new(log: Arc<dyn EventLog>, queue: &QueueName) -> Self {
        let (asks, asked) = mpsc::unbounded_channel();
        let subject = Subject::Submit(queue.clone()).render(log.cell());
        tokio::spawn(gather(log, subject, asked));
        Self { asks }
    }

    /// Returns once all of them are in the log.
    pub(crate) async fn submit_all(&self, tasks: &[Submission]) -> Outcome<()> {
        let tasks: Result<Vec<_>, _> = tasks.iter().map(Submission::encode).collect();
        let (done, answer) = oneshot::channel();
        self.asks.send(Ask {
            tasks: tasks?,
            done,
        })?;
        answer.await??;
        Ok(())
    }
}

/// One append in flight; what is asked for meanwhile is in the next.
async fn gather(log: Arc<dyn EventLog>, subject: String, mut asks: mpsc::UnboundedReceiver<Ask>) {
    let mut waiting: Option<Ask> = None;
    loop {
        let first = match waiting.take() {
            Some(ask) => ask,
            None => match asks.recv().await {
                Some(ask) => ask,
                None => return,
            },
        };
        let (mut tasks, mut answers) = (first.tasks, vec![first.done]);
        let mut bytes: usize = tasks.iter().map(Vec::len).sum();
        while let Ok(ask) = asks.try_recv() {
            let more: usize = ask.tasks.iter().map(Vec::len).sum();
            let is_full = bytes + more > RECORD_BYTES_MAX
                || tasks.len() + ask.tasks.len() > SUBMISSIONS_PER_RECORD_MAX;
            if is_full {
                waiting = Some(ask);
                break;
            }
            bytes += more;
            tasks.extend(ask.tasks);
            answers.push(ask.done);
        }
        let appended = log.append(&record(&subject, &tasks)).await;
        let answer = appended.map(|a| a.seq).map_err(|e| e.to_string());
        for done in answers {
            // Whoever asked may have given up.
            let _ = done.send(answer.clone());
        }
    }
}

fn record(subject: &str, tasks: &[Vec<u8>]) -> Append {
    let bytes: usize = tasks.iter().map(Vec::len).sum();
    let mut payload = Vec::with_capacity(bytes + 5);
    payload.push(0xdd);
    payload.extend((tasks.len() as u32).to_be_bytes());
    tasks.iter().for_each(|task| payload.extend(task));
    Append {
        subject: subject.to_owned(),
        payload: payload.into(),
        id: uuid::Uuid::now_v7().to_string(),
        expected_last: None,
    }
}

/// Publishes one submission a message, as any NATS client would.
#[derive(Clone, Debug)]
pub(crate) struct Publisher {
    js: async_nats::jetstream::Context,
    subject: async_nats::Subject,
}

impl Publisher {
    /// Connects.
    pub(crate) async fn connect(url: &str, cell: &CellId, queue: &QueueName) -> Outcome<Self> {
        let servers: Vec<&str> = url.split(',').collect();
        let client = async_nats::ConnectOptions::new().connect(servers).await?;
        let subject = Subject::Submit(queue.clone()).render(cell).into();
        let js = async_nats::jetstream::new(client);
        Ok(Self { js, subject })
    }

    /// Publishes and waits for the acknowledgement.
    pub(crate) async fn publish(&self, payload: Bytes) -> Outcome<()> {
        self.js
            .publish(self.subject.clone(), payload)
            .await?
            .await?;
        Ok(())
    }
}
