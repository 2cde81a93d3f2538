//! Export of spans over OTLP, as the `OTEL_*` variables say.

use std::time::{Duration, SystemTime};

use opentelemetry::trace::{
    Link, SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState,
};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_otlp::{Protocol, SpanExporter as Transport, WithExportConfig, WithTonicConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SpanData, SpanExporter as _, SpanLinks};

use tonic::transport::ClientTlsConfig;

use crate::span::{Side, Span, Value};

/// Where gRPC receivers listen unless told otherwise (OTLP specification).
const GRPC_PORT: &str = ":4317";
/// Most spans in one export unless told otherwise (`OTEL_BSP_MAX_EXPORT_BATCH_SIZE`).
const BATCH_MAX: usize = 512;

/// How spans are exported.
#[derive(Clone, Debug, PartialEq)]
pub struct Otlp {
    /// The collector.
    pub endpoint: String,
    /// Over gRPC instead of HTTP.
    is_grpc: bool,
    /// Share of traces that are recorded where no caller says.
    pub ratio: f64,
    /// Whether a caller's word is followed.
    pub follows_caller: bool,
    /// Most spans in one export.
    pub batch_max: usize,
    /// The service's name, where it is named.
    service: Option<String>,
}

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
    },
}

impl Otlp {
    /// As the environment says; `None` where it names no collector, or says that nothing is to
    /// be exported.
    pub fn from_env() -> Result<Option<Self>, ExportError> {
        Self::from(&|name| std::env::var(name).ok().filter(|v| !v.is_empty()))
    }

    fn from(env: &dyn Fn(&'static str) -> Option<String>) -> Result<Option<Self>, ExportError> {
        let is_off = env("OTEL_SDK_DISABLED").is_some_and(|v| v.eq_ignore_ascii_case("true"))
            || env("OTEL_TRACES_EXPORTER").is_some_and(|v| v == "none");
        let endpoint = env("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
            .or_else(|| env("OTEL_EXPORTER_OTLP_ENDPOINT"));
        let Some(endpoint) = endpoint.filter(|_| !is_off) else {
            return Ok(None);
        };
        let (ratio, follows_caller) = sampler(env)?;
        Ok(Some(Self {
            is_grpc: is_grpc(env, &endpoint)?,
            endpoint,
            ratio,
            follows_caller,
            batch_max: batch_max(env)?,
            service: env("OTEL_SERVICE_NAME"),
        }))
    }

    /// Whether the trace of this task is recorded, should it not fail.
    pub fn records(&self, context: &conductor_protocol::TraceContext) -> bool {
        if self.follows_caller {
            return context.is_recorded(self.ratio);
        }
        let alone = conductor_protocol::TraceContext {
            is_sampled: None,
            ..*context
        };
        alone.is_recorded(self.ratio)
    }

    fn is_secured(&self) -> bool {
        self.endpoint.starts_with("https://")
    }

    /// The exporter. Connects only when it first exports.
    pub fn exporter(&self, resource: &[(&'static str, String)]) -> Result<Exporter, ExportError> {
        let setup = |e: opentelemetry_otlp::ExporterBuildError| ExportError::Setup {
            endpoint: self.endpoint.clone(),
            problem: e.to_string(),
        };
        if self.is_secured() && !self.is_grpc {
            return Err(ExportError::Setup {
                endpoint: self.endpoint.clone(),
                problem:
                    "https is spoken over gRPC only: set OTEL_EXPORTER_OTLP_PROTOCOL=grpc, or \
                          export to a collector nearby"
                        .to_owned(),
            });
        }
        // Endpoint, headers, timeout and compression are read from the environment by it.
        let mut transport = if self.is_grpc {
            let grpc = Transport::builder().with_tonic();
            let grpc = if self.is_secured() {
                grpc.with_tls_config(ClientTlsConfig::new().with_enabled_roots())
            } else {
                grpc
            };
            grpc.build().map_err(setup)?
        } else {
            let http = Transport::builder().with_http();
            let http = http.with_protocol(Protocol::HttpBinary);
            http.build().map_err(setup)?
        };
        let service = self.service.clone().unwrap_or_else(|| "conductor".into());
        let ours = resource.iter().map(|(k, v)| KeyValue::new(*k, v.clone()));
        let resource = Resource::builder()
            .with_attributes(ours)
            .with_service_name(service)
            .build();
        transport.set_resource(&resource);
        Ok(Exporter {
            transport,
            endpoint: self.endpoint.clone(),
            scope: InstrumentationScope::builder("conductor")
                .with_version(env!("CARGO_PKG_VERSION"))
                .build(),
        })
    }
}

type Env<'a> = &'a dyn Fn(&'static str) -> Option<String>;

/// The specification's samplers, as far as they say something of a whole task.
fn sampler(env: Env<'_>) -> Result<(f64, bool), ExportError> {
    let name = env("OTEL_TRACES_SAMPLER").unwrap_or_else(|| "parentbased_always_on".into());
    // Other samplers' arguments are none of ours.
    let argument = env("OTEL_TRACES_SAMPLER_ARG").filter(|_| name.ends_with("traceidratio"));
    let ratio = match argument {
        None => 1.0,
        Some(text) => match text.parse::<f64>() {
            Ok(ratio) if (0.0..=1.0).contains(&ratio) => ratio,
            _ => {
                return Err(ExportError::Variable {
                    variable: "OTEL_TRACES_SAMPLER_ARG",
                    value: text,
                    expected: "a number from 0 to 1",
                });
            }
        },
    };
    match name.as_str() {
        "parentbased_always_on" => Ok((1.0, true)),
        "parentbased_always_off" => Ok((0.0, true)),
        "parentbased_traceidratio" => Ok((ratio, true)),
        "always_on" => Ok((1.0, false)),
        "always_off" => Ok((0.0, false)),
        "traceidratio" => Ok((ratio, false)),
        _ => Err(ExportError::Variable {
            variable: "OTEL_TRACES_SAMPLER",
            value: name,
            expected: "always_on, always_off, traceidratio, or one of these behind parentbased_",
        }),
    }
}

fn is_grpc(env: Env<'_>, endpoint: &str) -> Result<bool, ExportError> {
    let named =
        env("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL").or_else(|| env("OTEL_EXPORTER_OTLP_PROTOCOL"));
    match named.as_deref() {
        Some("grpc") => Ok(true),
        Some("http/protobuf") => Ok(false),
        // Nobody listens for HTTP there.
        None => Ok(endpoint.trim_end_matches('/').ends_with(GRPC_PORT)),
        Some(other) => Err(ExportError::Variable {
            variable: "OTEL_EXPORTER_OTLP_PROTOCOL",
            value: other.to_owned(),
            expected: "grpc or http/protobuf",
        }),
    }
}

fn batch_max(env: Env<'_>) -> Result<usize, ExportError> {
    let variable = "OTEL_BSP_MAX_EXPORT_BATCH_SIZE";
    let Some(text) = env(variable) else {
        return Ok(BATCH_MAX);
    };
    let parsed = text.parse().ok().filter(|n| *n > 0);
    parsed.ok_or(ExportError::Variable {
        variable,
        value: text,
        expected: "a number above 0",
    })
}

/// Brings spans to the collector.
#[derive(Debug)]
pub struct Exporter {
    transport: Transport,
    endpoint: String,
    scope: InstrumentationScope,
}

impl Exporter {
    /// Exports these, all or none as far as the collector says. Never waits longer than
    /// `OTEL_EXPORTER_OTLP_TIMEOUT` (10 s by default).
    pub async fn export(&self, spans: &[Span]) -> Result<(), ExportError> {
        let batch = spans.iter().map(|s| self.data(s)).collect();
        let exported = self.transport.export(batch).await;
        exported.map_err(|e| ExportError::Refused {
            endpoint: self.endpoint.clone(),
            problem: e.to_string(),
        })
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

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&'static str, &str)]) -> Result<Option<Otlp>, ExportError> {
        Otlp::from(&|name| {
            let found = pairs.iter().find(|(n, _)| *n == name);
            found.map(|(_, v)| (*v).to_owned())
        })
    }

    const HTTP: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318");

    #[test]
    fn without_an_endpoint_nothing_is_exported() {
        assert_eq!(read(&[]), Ok(None));
        assert_eq!(read(&[HTTP, ("OTEL_SDK_DISABLED", "TRUE")]), Ok(None));
        assert_eq!(read(&[HTTP, ("OTEL_TRACES_EXPORTER", "none")]), Ok(None));
    }

    #[test]
    fn the_protocol_is_as_named_or_as_the_port_says() {
        let of = |pairs: &[_]| read(pairs).unwrap().unwrap().is_grpc;
        assert!(!of(&[HTTP]));
        let grpc = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4317/");
        assert!(of(&[grpc]));
        assert!(!of(&[
            grpc,
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
        ]));
        assert!(of(&[HTTP, ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "grpc")]));
        assert!(read(&[HTTP, ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json")]).is_err());
    }

    #[test]
    fn samplers_are_those_of_the_specification() {
        let of = |name, arg| {
            let pairs = [
                HTTP,
                ("OTEL_TRACES_SAMPLER", name),
                ("OTEL_TRACES_SAMPLER_ARG", arg),
            ];
            read(&pairs).map(|o| o.map(|o| (o.ratio, o.follows_caller)))
        };
        assert_eq!(
            of("parentbased_traceidratio", "0.25"),
            Ok(Some((0.25, true)))
        );
        assert_eq!(of("always_off", "0.25"), Ok(Some((0.0, false))));
        assert_eq!(of("always_on", "endpoint=x"), Ok(Some((1.0, false))));
        assert!(of("sometimes", "1").is_err());
        assert!(of("traceidratio", "2").is_err());
        assert_eq!(
            of("traceidratio", "x").unwrap_err().to_string(),
            "OTEL_TRACES_SAMPLER_ARG=\"x\" is not a number from 0 to 1"
        );
    }
}
