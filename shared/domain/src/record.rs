//! Records as they come from the log, and what they say.

use std::sync::Arc;

use bytes::Bytes;
use conductor_protocol::event::{Event, EventError, Writer};
use conductor_protocol::frame::{self, Encoding, FrameHead};
use conductor_protocol::ids::{AgentId, Namespace, QueueName};
use conductor_protocol::subject::{Role, Subject};
use conductor_protocol::submission::Submission;
use conductor_protocol::{CellId, Control, UnixMs};

use crate::void::VoidReason;

/// One JetStream message of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its stream sequence, from 1: its identity.
    pub seq: u64,
    /// The server's timestamp.
    pub time_ms: UnixMs,
    /// The subject it was published on.
    pub subject: String,
    /// `Content-Type`.
    pub content_type: Option<String>,
    /// `Conductor-Reply`.
    pub reply: Option<String>,
    /// `traceparent`.
    pub traceparent: Option<String>,
    /// The frame.
    pub payload: Bytes,
}

/// A record, read.
#[derive(Clone, Debug, PartialEq)]
pub struct Decoded {
    /// Its stream sequence.
    pub seq: u64,
    /// The server's timestamp.
    pub time_ms: UnixMs,
    /// What it says.
    pub content: Content,
}

/// An event of a frame, or why it is none.
pub type Item<T> = Result<T, VoidReason>;

/// What a record says.
#[derive(Clone, Debug, PartialEq)]
pub enum Content {
    /// Submissions, not looked into yet: only their number is known.
    Submit(SubmitRecord),
    /// What operators and clients say.
    Control {
        /// One per element.
        items: Vec<Item<Control>>,
        /// Where verdicts are also published.
        reply: Option<String>,
    },
    /// Decisions of a leader.
    Leader {
        /// Orchestrator, or scheduler.
        role: Role,
        /// The agent spoken to, for the scheduler.
        agent: Option<AgentId>,
        /// The frame's authority.
        head: FrameHead,
        /// One per event.
        items: Vec<Item<Event>>,
    },
    /// Reports of an agent.
    Agent {
        /// Who.
        agent: AgentId,
        /// The frame's authority.
        head: FrameHead,
        /// One per event.
        items: Vec<Item<Event>>,
    },
    /// Elections.
    Election {
        /// The role taken.
        role: Role,
        /// One per event.
        items: Vec<Item<Event>>,
    },
    /// Nothing that can be read.
    Void {
        /// Why.
        reason: VoidReason,
        /// Where whoever sent it hopes for an answer.
        reply: Option<String>,
    },
}

/// A record of submissions.
#[derive(Clone, Debug, PartialEq)]
pub struct SubmitRecord {
    /// The queue of the subject.
    pub queue: QueueName,
    /// The namespace of the subject, if it names one.
    pub namespace: Option<Namespace>,
    /// How it is encoded.
    pub encoding: Encoding,
    /// Where verdicts and outcomes are also published.
    pub reply: Option<String>,
    /// W3C trace context.
    pub traceparent: Option<String>,
    /// The bytes.
    pub payload: Bytes,
    /// How many submissions it holds.
    pub count: u32,
}

/// The submissions of a record, to be read one by one: those of a submit record, or those among
/// the reports of an agent. Clones share the bytes.
#[derive(Clone, Debug)]
pub struct Submissions {
    /// `None` for reports.
    encoding: Option<Encoding>,
    elements: Arc<[Bytes]>,
    bytes: usize,
}

impl Submissions {
    /// Splits a record; `None` if it cannot be split. Which kind it is follows from its subject
    /// alone: what was accepted as the one must never be read as the other.
    pub fn of(record: &Record) -> Option<Self> {
        let (encoding, elements) = if is_of_agent(&record.subject) {
            (None, frame::split(&record.payload).ok()?.events)
        } else {
            let encoding = Encoding::of(record.content_type.as_deref(), &record.payload);
            let elements = frame::split_public(encoding, &record.payload).ok()?;
            (Some(encoding), elements)
        };
        let slices = elements.iter().map(|e| record.payload.slice_ref(e));
        Some(Self {
            encoding,
            elements: slices.collect(),
            bytes: record.payload.len(),
        })
    }

    /// The submission at an index, as far as it can be read.
    pub fn get(&self, index: u32) -> Option<Submission> {
        let element = self.elements.get(usize::try_from(index).ok()?)?;
        let Some(encoding) = self.encoding else {
            return match Event::decode(element).ok()? {
                Event::AttemptSubmitted(e) => {
                    Some(Submission::read(Encoding::Json, e.body.as_bytes()).0)
                }
                _ => None,
            };
        };
        Some(Submission::read(encoding, element).0)
    }

    /// Bytes of the record.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

/// Whether an agent reports on a subject; names have no dots, so the third token says it.
fn is_of_agent(subject: &str) -> bool {
    subject.split('.').nth(2) == Some("agent")
}

/// Reads a record. Total: whatever cannot be read is void.
pub fn decode(cell: &CellId, record: &Record) -> Decoded {
    let content = match Subject::parse(cell, &record.subject) {
        Some(subject) => content(subject, record),
        None => unreadable(VoidReason::WrongWriter),
    };
    Decoded {
        seq: record.seq,
        time_ms: record.time_ms,
        content,
    }
}

fn content(subject: Subject, record: &Record) -> Content {
    match subject {
        Subject::Submit(queue) => submit(queue, None, record),
        Subject::SubmitIn(queue, namespace) => submit(queue, Some(namespace), record),
        Subject::Control => control(record),
        Subject::Orchestrator => events(record, Writer::Orchestrator, |head, items| {
            Content::Leader {
                role: Role::Orchestrator,
                agent: None,
                head,
                items,
            }
        }),
        Subject::Scheduler(agent) => {
            events(record, Writer::Scheduler, |head, items| Content::Leader {
                role: Role::Scheduler,
                agent: Some(agent),
                head,
                items,
            })
        }
        Subject::Agent(agent) => events(record, Writer::Agent, |head, items| Content::Agent {
            agent,
            head,
            items,
        }),
        Subject::Leader(role) => events(record, Writer::Leader, |_, items| Content::Election {
            role,
            items,
        }),
        // The notary's records mean nothing to the state.
        Subject::Checkpoint => unreadable(VoidReason::UnknownKind),
    }
}

fn unreadable(reason: VoidReason) -> Content {
    Content::Void {
        reason,
        reply: None,
    }
}

fn malformed_by_a_person(record: &Record) -> Content {
    Content::Void {
        reason: VoidReason::Malformed,
        reply: record.reply.clone(),
    }
}

fn submit(queue: QueueName, namespace: Option<Namespace>, record: &Record) -> Content {
    let encoding = Encoding::of(record.content_type.as_deref(), &record.payload);
    match frame::split_public(encoding, &record.payload) {
        Ok(elements) => Content::Submit(SubmitRecord {
            queue,
            namespace,
            encoding,
            reply: record.reply.clone(),
            traceparent: record.traceparent.clone(),
            payload: record.payload.clone(),
            count: elements.len() as u32,
        }),
        Err(_) => malformed_by_a_person(record),
    }
}

fn control(record: &Record) -> Content {
    let encoding = Encoding::of(record.content_type.as_deref(), &record.payload);
    match frame::split_public(encoding, &record.payload) {
        Ok(elements) => Content::Control {
            items: elements
                .into_iter()
                .map(|e| Control::decode(encoding, e).ok_or(VoidReason::Malformed))
                .collect(),
            reply: record.reply.clone(),
        },
        Err(_) => malformed_by_a_person(record),
    }
}

fn events(
    record: &Record,
    writer: Writer,
    wrap: impl FnOnce(FrameHead, Vec<Item<Event>>) -> Content,
) -> Content {
    let read = frame::split_with(&record.payload, |rest| {
        if let Some((event, len)) = Event::first_of(rest) {
            return Some((by(writer, event), len));
        }
        let (bytes, len) = frame::whole(rest)?;
        Some((item(bytes, writer), len))
    });
    match read {
        Ok((head, items)) => wrap(head, items),
        Err(_) => unreadable(VoidReason::Malformed),
    }
}

fn item(bytes: &[u8], writer: Writer) -> Item<Event> {
    match Event::decode(bytes) {
        Ok(event) => by(writer, event),
        Err(EventError::Malformed) => Err(VoidReason::Malformed),
        Err(EventError::Unknown { .. }) => Err(VoidReason::UnknownKind),
    }
}

/// An event counts only from whoever may write it.
fn by(writer: Writer, event: Event) -> Item<Event> {
    if event.writer() == writer {
        Ok(event)
    } else {
        Err(VoidReason::WrongWriter)
    }
}
