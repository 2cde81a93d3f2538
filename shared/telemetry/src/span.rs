//! A span as Conductor makes it: plain data, so that the rules which make it are pure.

use std::borrow::Cow;

use conductor_protocol::trace::{SpanId, TraceId};
use serde::{Deserialize, Serialize};

/// Text that is mostly ours.
pub type Text = Cow<'static, str>;
/// Attributes, in the order in which they were given.
pub type Attributes = Vec<(Text, Value)>;

/// Nanoseconds in a millisecond.
const NS_PER_MS: u64 = 1_000_000;

/// Whose part of an exchange a span is (OpenTelemetry's span kind).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Side {
    /// Within the system.
    Internal,
    /// Takes what somebody published.
    Consumer,
    /// Publishes.
    Producer,
    /// Asks another service, such as a model.
    Client,
}

/// A value of an attribute.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum Value {
    /// Text.
    Text(String),
    /// A whole number.
    Int(i64),
    /// A number.
    Float(f64),
    /// Yes or no.
    Bool(bool),
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}
impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}
impl From<u64> for Value {
    fn from(n: u64) -> Self {
        // What is beyond is no figure of ours.
        Self::Int(i64::try_from(n).unwrap_or(i64::MAX))
    }
}
impl From<u32> for Value {
    fn from(n: u32) -> Self {
        Self::Int(n.into())
    }
}
impl From<i32> for Value {
    fn from(n: i32) -> Self {
        Self::Int(n.into())
    }
}
impl From<f64> for Value {
    fn from(n: f64) -> Self {
        Self::Float(n)
    }
}
impl From<bool> for Value {
    fn from(is: bool) -> Self {
        Self::Bool(is)
    }
}

/// Something that took time.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Span {
    /// The trace it belongs to.
    pub trace: TraceId,
    /// Its own id.
    pub id: SpanId,
    /// The span it is part of.
    pub parent: Option<SpanId>,
    /// Whether that one is another system's.
    pub is_parent_remote: bool,
    /// What happened; of few different values.
    pub name: Text,
    /// Whose part of an exchange.
    pub side: Side,
    /// Beginning, in nanoseconds since 1970.
    pub start_ns: u64,
    /// End, in nanoseconds since 1970.
    pub end_ns: u64,
    /// What is known of it.
    pub attributes: Attributes,
    /// Spans of other traces that it followed from.
    pub links: Vec<(TraceId, SpanId)>,
    /// Why it failed, if it did.
    pub error: Option<Text>,
}

impl Span {
    /// A span within the system, from and to these milliseconds since 1970.
    pub fn new(
        trace: TraceId,
        id: SpanId,
        parent: Option<SpanId>,
        name: impl Into<Text>,
        (start_ms, end_ms): (u64, u64),
    ) -> Self {
        Self {
            trace,
            id,
            parent,
            is_parent_remote: false,
            name: name.into(),
            side: Side::Internal,
            start_ns: start_ms.saturating_mul(NS_PER_MS),
            end_ns: end_ms.max(start_ms).saturating_mul(NS_PER_MS),
            attributes: Vec::new(),
            links: Vec::new(),
            error: None,
        }
    }

    /// The same, from and to these nanoseconds since 1970.
    #[must_use]
    pub fn at_ns(mut self, start_ns: u64, end_ns: u64) -> Self {
        (self.start_ns, self.end_ns) = (start_ns, end_ns.max(start_ns));
        self
    }

    /// With an attribute more.
    #[must_use]
    pub fn with(mut self, name: impl Into<Text>, value: impl Into<Value>) -> Self {
        self.attributes.push((name.into(), value.into()));
        self
    }

    /// With an attribute more, where there is a value.
    #[must_use]
    pub fn with_some(self, name: impl Into<Text>, value: Option<impl Into<Value>>) -> Self {
        match value {
            Some(value) => self.with(name, value),
            None => self,
        }
    }
}
