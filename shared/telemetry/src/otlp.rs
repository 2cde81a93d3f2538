//! Export of spans over OTLP, as the `OTEL_*` variables say.
//!
//! [`settings`] (what they say) → [`tls`] (whom to trust) → [`Exporter`] → [`answer`] (what the
//! collector made of it).

mod answer;
mod settings;
mod tls;

use std::time::{Duration, SystemTime};

use opentelemetry::trace::{
    Link, SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState,
};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_http::hyper::HyperClient;
use opentelemetry_otlp::{
    Protocol, SpanExporter as Transport, WithExportConfig, WithHttpConfig, WithTonicConfig,
};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SpanData, SpanExporter as _, SpanLinks};
use tracing::Dispatch;
use tracing::instrument::WithSubscriber;

use crate::metrics::metrics;
use crate::span::{Side, Span, Value};
use answer::Rejected;

pub use answer::Verdict;
pub use settings::Otlp;

/// Why spans did not reach the collector, or never can.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExportError {
    /// A variable says what cannot be.
    #[error("{variable}={value:?} is not {expected}")]
    Variable {
        /// Its name.
        variable: &'static str,
        /// What it says.
        value: String,
        /// What it may say.
        expected: &'static str,
    },
    /// A variable that holds secrets says what cannot be.
    #[error("{variable}: entry {entry} is not name=value, of characters that a header may have")]
    Headers {
        /// Its name.
        variable: &'static str,
        /// Which of its entries, counted from 1.
        entry: usize,
    },
    /// A file that a variable names is not what it should be.
    #[error("{variable}={path:?}: {problem}")]
    File {
        /// The variable.
        variable: &'static str,
        /// The file.
        path: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The exporter cannot be made.
    #[error("spans cannot be exported to {endpoint}: {problem}")]
    Setup {
        /// The collector.
        endpoint: String,
        /// What is wrong.
        problem: String,
    },
    /// The collector did not take them.
    #[error("the collector at {endpoint} did not take the spans: {problem}")]
    Refused {
        /// The collector.
        endpoint: String,
        /// What it said.
        problem: String,
        /// Whether another try can help.
        verdict: Verdict,
    },
}

impl ExportError {
    /// Whether another try can help.
    pub fn verdict(&self) -> Verdict {
        match self {
            Self::Refused { verdict, .. } => *verdict,
            _ => Verdict::Later,
        }
    }

    /// Whether none can.
    pub fn is_for_good(&self) -> bool {
        self.verdict() != Verdict::Later
    }
}

impl Otlp {
    /// The exporter. Connects only when it first exports.
    pub fn exporter(&self, resource: &[(&'static str, String)]) -> Result<Exporter, ExportError> {
        let mut transport = match self.protocol {
            Protocol::Grpc => self.over_grpc()?,
            _ => self.over_http()?,
        };
        let service = self.service.clone().unwrap_or_else(|| "conductor".into());
        let ours = resource.iter().map(|(k, v)| KeyValue::new(*k, v.clone()));
        let resource = Resource::builder()
            .with_attributes(ours)
            .with_service_name(service)
            .build();
        transport.set_resource(&resource);
        let rejected = Rejected::default();
        Ok(Exporter {
            transport,
            endpoint: self.endpoint.clone(),
            scope: InstrumentationScope::builder("conductor")
                .with_version(env!("CARGO_PKG_VERSION"))
                .build(),
            listening: Dispatch::new(rejected.clone()),
            rejected,
        })
    }

    // Endpoint, headers and compression the library reads from the environment itself; what they
    // say was checked before.

    fn over_grpc(&self) -> Result<Transport, ExportError> {
        let grpc = Transport::builder().with_tonic().with_timeout(self.timeout);
        let grpc = if tls::is_secured(&self.endpoint) {
            grpc.with_tls_config(self.tls.for_grpc()?)
        } else {
            grpc
        };
        grpc.build().map_err(|e| setup(&self.endpoint, &e))
    }

    fn over_http(&self) -> Result<Transport, ExportError> {
        let connector = hyper_rustls::HttpsConnectorBuilder::new()
            .with_tls_config(self.tls.for_http(&self.endpoint)?)
            .https_or_http()
            .enable_http1()
            .build();
        let http = Transport::builder().with_http();
        http.with_http_client(HyperClient::new(connector, self.timeout, None))
            .with_protocol(self.protocol)
            .with_timeout(self.timeout)
            .build()
            .map_err(|e| setup(&self.endpoint, &e))
    }
}

fn setup(endpoint: &str, problem: &dyn std::fmt::Display) -> ExportError {
    ExportError::Setup {
        endpoint: endpoint.to_owned(),
        problem: problem.to_string(),
    }
}

/// Brings spans to the collector.
#[derive(Debug)]
pub struct Exporter {
    transport: Transport,
    endpoint: String,
    scope: InstrumentationScope,
    /// Hears of the spans that the collector rejected of those it took.
    listening: Dispatch,
    rejected: Rejected,
}

impl Exporter {
    /// Exports these, all or none but for those that the collector rejects by name. Never waits
    /// longer than `OTEL_EXPORTER_OTLP_TIMEOUT` (10 s by default).
    pub async fn export(&self, spans: &[Span]) -> Result<(), ExportError> {
        let batch = spans.iter().map(|s| self.data(s)).collect();
        let export = self.transport.export(batch);
        let exported = export.with_subscriber(self.listening.clone()).await;
        if let Err(e) = exported {
            metrics().export_failures.inc();
            let problem = e.to_string();
            return Err(ExportError::Refused {
                endpoint: self.endpoint.clone(),
                verdict: answer::verdict(&problem),
                problem,
            });
        }
        let (rejected, why) = self.rejected.take();
        if rejected > 0 || !why.is_empty() {
            tracing::warn!(rejected, why, "the collector did not keep all spans");
        }
        let taken = (spans.len() as u64).saturating_sub(rejected);
        metrics().spans_exported.inc_by(taken);
        metrics().spans_rejected.inc_by(rejected);
        Ok(())
    }

    /// Whether the collector takes anything from us: an export of nothing.
    pub async fn is_welcome(&self) -> bool {
        self.export(&[]).await.is_ok()
    }

    fn data(&self, span: &Span) -> SpanData {
        let mut links = SpanLinks::default();
        links.links = span.links.iter().map(|(t, s)| link(*t, *s)).collect();
        SpanData {
            span_context: context(span.trace, span.id, false),
            parent_span_id: span.parent.map_or(SpanId::INVALID, SpanId::from_bytes),
            parent_span_is_remote: span.is_parent_remote,
            span_kind: match span.side {
                Side::Internal => SpanKind::Internal,
                Side::Consumer => SpanKind::Consumer,
                Side::Producer => SpanKind::Producer,
                Side::Client => SpanKind::Client,
            },
            name: span.name.clone(),
            start_time: SystemTime::UNIX_EPOCH + Duration::from_nanos(span.start_ns),
            end_time: SystemTime::UNIX_EPOCH + Duration::from_nanos(span.end_ns),
            attributes: span.attributes.iter().map(key_value).collect(),
            dropped_attributes_count: 0,
            events: opentelemetry_sdk::trace::SpanEvents::default(),
            links,
            status: match &span.error {
                Some(why) => Status::error(why.clone()),
                None => Status::Unset,
            },
            instrumentation_scope: self.scope.clone(),
        }
    }
}

fn key_value((name, value): &(crate::span::Text, Value)) -> KeyValue {
    let value: opentelemetry::Value = match value {
        Value::Text(text) => text.clone().into(),
        Value::Int(n) => (*n).into(),
        Value::Float(n) => (*n).into(),
        Value::Bool(is) => (*is).into(),
    };
    KeyValue::new(name.clone(), value)
}

fn context(trace: [u8; 16], span: [u8; 8], is_remote: bool) -> SpanContext {
    SpanContext::new(
        TraceId::from_bytes(trace),
        SpanId::from_bytes(span),
        TraceFlags::SAMPLED,
        is_remote,
        TraceState::default(),
    )
}

fn link(trace: [u8; 16], span: [u8; 8]) -> Link {
    Link::new(context(trace, span, true), Vec::new(), 0)
}
