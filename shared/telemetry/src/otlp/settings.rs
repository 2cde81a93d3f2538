//! What the `OTEL_*` variables say.

use std::time::Duration;

use axum::http::{HeaderName, HeaderValue};
use opentelemetry_otlp::Protocol;

use super::ExportError;
use super::tls::{self, Named, Tls};

/// Where gRPC receivers listen unless told otherwise (OTLP specification).
const GRPC_PORT: &str = ":4317";
/// Most spans in one export unless told otherwise (`OTEL_BSP_MAX_EXPORT_BATCH_SIZE`).
const BATCH_MAX: usize = 512;
/// How long an export may take unless told otherwise.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Variables of which the one of traces goes before the one of everything.
type Pair = [&'static str; 2];

const ENDPOINT: Pair = [
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    "OTEL_EXPORTER_OTLP_ENDPOINT",
];
const PROTOCOL: Pair = [
    "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
    "OTEL_EXPORTER_OTLP_PROTOCOL",
];
const HEADERS: Pair = [
    "OTEL_EXPORTER_OTLP_TRACES_HEADERS",
    "OTEL_EXPORTER_OTLP_HEADERS",
];
const WAITS: Pair = [
    "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT",
    "OTEL_EXPORTER_OTLP_TIMEOUT",
];
const COMPRESSION: Pair = [
    "OTEL_EXPORTER_OTLP_TRACES_COMPRESSION",
    "OTEL_EXPORTER_OTLP_COMPRESSION",
];
const INSECURE: Pair = [
    "OTEL_EXPORTER_OTLP_TRACES_INSECURE",
    "OTEL_EXPORTER_OTLP_INSECURE",
];
const AUTHORITY: Pair = [
    "OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE",
    "OTEL_EXPORTER_OTLP_CERTIFICATE",
];
const CERTIFICATE: Pair = [
    "OTEL_EXPORTER_OTLP_TRACES_CLIENT_CERTIFICATE",
    "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE",
];
const KEY: Pair = [
    "OTEL_EXPORTER_OTLP_TRACES_CLIENT_KEY",
    "OTEL_EXPORTER_OTLP_CLIENT_KEY",
];
/// All of them; those of certificates last.
const PAIRS: [Pair; 9] = [
    ENDPOINT,
    PROTOCOL,
    HEADERS,
    WAITS,
    COMPRESSION,
    INSECURE,
    AUTHORITY,
    CERTIFICATE,
    KEY,
];
/// How many of those are of certificates.
const OF_CERTIFICATES: usize = 3;
/// What else is followed.
const OTHERS: [&str; 7] = [
    "OTEL_SDK_DISABLED",
    "OTEL_TRACES_EXPORTER",
    "OTEL_TRACES_SAMPLER",
    "OTEL_TRACES_SAMPLER_ARG",
    "OTEL_BSP_MAX_EXPORT_BATCH_SIZE",
    "OTEL_SERVICE_NAME",
    "OTEL_RESOURCE_ATTRIBUTES",
];

/// How spans are exported.
#[derive(Clone, Debug, PartialEq)]
pub struct Otlp {
    /// The collector.
    pub endpoint: String,
    pub(super) protocol: Protocol,
    /// Share of traces that are recorded where no caller says.
    pub ratio: f64,
    /// Whether a caller's word is followed.
    pub follows_caller: bool,
    /// Most spans in one export.
    pub batch_max: usize,
    pub(super) timeout: Duration,
    pub(super) tls: Tls,
    /// The service's name, where it is named.
    pub(super) service: Option<String>,
}

impl Otlp {
    /// As the environment says; `None` where it names no collector, or says that nothing is to
    /// be exported. Says which variables are set in vain.
    pub fn from_env() -> Result<Option<Self>, ExportError> {
        let otlp = Self::from(&|name| std::env::var(name).ok().filter(|v| !v.is_empty()))?;
        if let Some(otlp) = &otlp {
            static SAID: std::sync::Once = std::sync::Once::new();
            let names = std::env::vars_os().filter(|(_, value)| value != "none");
            let names = names.filter_map(|(name, _)| name.into_string().ok());
            let ignored = otlp.ignored(names);
            if !ignored.is_empty() {
                let variables = ignored.join(", ");
                SAID.call_once(|| {
                    tracing::warn!(variables, "variables are set that change nothing here");
                });
            }
        }
        Ok(otlp)
    }

    fn from(env: Env<'_>) -> Result<Option<Self>, ExportError> {
        let is_off = env("OTEL_SDK_DISABLED").is_some_and(|v| v.eq_ignore_ascii_case("true"));
        let Some((variable, endpoint)) = first(env, ENDPOINT).filter(|_| !is_off) else {
            return Ok(None);
        };
        if !is_exporter_otlp(env)? {
            return Ok(None);
        }
        let protocol = protocol(env, &endpoint)?;
        let endpoint = with_scheme(env, variable, endpoint, protocol)?;
        let (ratio, follows_caller) = sampler(env)?;
        check_headers(env)?;
        check_compression(env)?;
        Ok(Some(Self {
            endpoint,
            protocol,
            ratio,
            follows_caller,
            batch_max: batch_max(env)?,
            timeout: timeout(env)?,
            tls: certificates(env)?,
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

    /// Those of these variables that are OpenTelemetry's and change nothing here.
    fn ignored(&self, names: impl Iterator<Item = String>) -> Vec<String> {
        let of_files = if tls::is_secured(&self.endpoint) {
            0
        } else {
            OF_CERTIFICATES
        };
        let followed = |name: &String| {
            let mut pairs = PAIRS.iter().rev().skip(of_files).flatten();
            pairs.any(|p| p == name) || OTHERS.contains(&name.as_str())
        };
        let mut ignored: Vec<String> = names
            .filter(|name| name.starts_with("OTEL_") && !followed(name))
            .collect();
        ignored.sort();
        ignored
    }
}

type Env<'a> = &'a dyn Fn(&'static str) -> Option<String>;

/// The variable of a pair that is set, and what it says.
fn first(env: Env<'_>, pair: Pair) -> Option<(&'static str, String)> {
    pair.into_iter().find_map(|name| Some((name, env(name)?)))
}

fn is_exporter_otlp(env: Env<'_>) -> Result<bool, ExportError> {
    let variable = "OTEL_TRACES_EXPORTER";
    match env(variable).as_deref() {
        None | Some("otlp") => Ok(true),
        Some("none") => Ok(false),
        Some(other) => Err(ExportError::Variable {
            variable,
            value: other.to_owned(),
            expected: "otlp or none, which are the exporters there are",
        }),
    }
}

fn protocol(env: Env<'_>, endpoint: &str) -> Result<Protocol, ExportError> {
    let Some((variable, value)) = first(env, PROTOCOL) else {
        // Nobody listens for HTTP there.
        let is_grpc = endpoint.trim_end_matches('/').ends_with(GRPC_PORT);
        return Ok(if is_grpc {
            Protocol::Grpc
        } else {
            Protocol::HttpBinary
        });
    };
    match value.as_str() {
        "grpc" => Ok(Protocol::Grpc),
        "http/protobuf" => Ok(Protocol::HttpBinary),
        "http/json" => Ok(Protocol::HttpJson),
        _ => Err(ExportError::Variable {
            variable,
            value,
            expected: "grpc, http/protobuf or http/json",
        }),
    }
}

/// Of gRPC alone an endpoint may come without a scheme (OTLP exporter specification).
fn with_scheme(
    env: Env<'_>,
    variable: &'static str,
    endpoint: String,
    protocol: Protocol,
) -> Result<String, ExportError> {
    if endpoint.starts_with("http://") || tls::is_secured(&endpoint) {
        return Ok(endpoint);
    }
    if protocol == Protocol::Grpc && !endpoint.contains("://") {
        let is_insecure = first(env, INSECURE).is_some_and(|(_, v)| v.eq_ignore_ascii_case("true"));
        let scheme = if is_insecure { "http" } else { "https" };
        return Ok(format!("{scheme}://{endpoint}"));
    }
    Err(ExportError::Variable {
        variable,
        value: endpoint,
        expected: "a URL that begins with http:// or https://",
    })
}

fn timeout(env: Env<'_>) -> Result<Duration, ExportError> {
    let Some((variable, value)) = first(env, WAITS) else {
        return Ok(TIMEOUT);
    };
    match value.parse() {
        Ok(ms @ 1..) => Ok(Duration::from_millis(ms)),
        _ => Err(ExportError::Variable {
            variable,
            value,
            expected: "a number of milliseconds above 0",
        }),
    }
}

fn check_compression(env: Env<'_>) -> Result<(), ExportError> {
    match first(env, COMPRESSION) {
        Some((variable, value))
            if !["gzip", "none"].contains(&value.to_ascii_lowercase().as_str()) =>
        {
            Err(ExportError::Variable {
                variable,
                value,
                expected: "gzip or none",
            })
        }
        _ => Ok(()),
    }
}

/// The library leaves out what it cannot send, without a word.
fn check_headers(env: Env<'_>) -> Result<(), ExportError> {
    let Some((variable, value)) = first(env, HEADERS) else {
        return Ok(());
    };
    let is_header = |text: &str| {
        let (name, value) = text.split_once('=')?;
        HeaderName::from_bytes(name.trim().as_bytes()).ok()?;
        let value = decoded(value.trim());
        HeaderValue::from_bytes(&value).ok()?.to_str().ok()?;
        (!value.is_empty()).then_some(())
    };
    let wrong = value
        .split_terminator(',')
        .position(|text| is_header(text).is_none());
    match wrong {
        Some(n) => Err(ExportError::Headers {
            variable,
            entry: n + 1,
        }),
        None => Ok(()),
    }
}

/// With `%20` and such read.
fn decoded(value: &str) -> Vec<u8> {
    let (mut out, mut rest) = (Vec::new(), value.as_bytes());
    while let [first, after @ ..] = rest {
        let hex = after.first_chunk::<2>().filter(|_| *first == b'%');
        let hex = hex.and_then(|h| u8::from_str_radix(std::str::from_utf8(h).ok()?, 16).ok());
        out.push(hex.unwrap_or(*first));
        rest = if hex.is_some() {
            after.get(2..).unwrap_or_default()
        } else {
            after
        };
    }
    out
}

fn certificates(env: Env<'_>) -> Result<Tls, ExportError> {
    let named = |pair| first(env, pair).map(|(variable, path)| Named { variable, path });
    let missing = |variable, of: Named| ExportError::File {
        problem: format!("{variable} is not set, and one needs the other"),
        variable: of.variable,
        path: of.path,
    };
    let identity = match (named(CERTIFICATE), named(KEY)) {
        (Some(certificate), Some(key)) => Some((certificate, key)),
        (None, None) => None,
        (Some(certificate), None) => return Err(missing(KEY[1], certificate)),
        (None, Some(key)) => return Err(missing(CERTIFICATE[1], key)),
    };
    Ok(Tls {
        authority: named(AUTHORITY),
        identity,
    })
}

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

#[cfg(test)]
mod tests;
