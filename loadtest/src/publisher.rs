//! Each task by a publish of its own, as any NATS client would submit it.

use bytes::Bytes;
use conductor_protocol::subject::Subject;
use conductor_protocol::{CellId, QueueName};

use crate::outcome::Outcome;

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
