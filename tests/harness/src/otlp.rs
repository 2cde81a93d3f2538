//! A collector inside the test: takes spans over gRPC and HTTP, secured or not, and can be made to
//! refuse them.

mod judge;
mod secured;

use std::collections::BTreeMap;
use std::io::Read;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value};
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use tokio::net::TcpListener;
use tonic::codec::CompressionEncoding;

pub use judge::Refusal;
use judge::Ruling;
pub use secured::{Authority, Pem};

/// A span as it arrived.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seen {
    /// Its trace, in hexadecimal.
    pub trace: String,
    /// Its id, in hexadecimal.
    pub id: String,
    /// Its parent's id; empty for a root.
    pub parent: String,
    /// Its name.
    pub name: String,
    /// Beginning and end, in nanoseconds since 1970.
    pub times_ns: (u64, u64),
    /// Attributes as text.
    pub attributes: BTreeMap<String, String>,
    /// Traces it links to.
    pub links: Vec<String>,
    /// Whether its status is an error.
    pub is_error: bool,
}

#[derive(Debug, Default)]
struct Inbox {
    spans: Mutex<Vec<Seen>>,
    refusal: Mutex<Refusal>,
    asked: AtomicUsize,
    /// Headers of every export, in lower case.
    headers: Mutex<Vec<BTreeMap<String, String>>>,
}

/// The collector.
#[derive(Debug)]
pub struct Collector {
    inbox: Arc<Inbox>,
    /// Where it takes OTLP over gRPC.
    pub grpc: String,
    /// Where it takes OTLP over HTTP.
    pub http: String,
    servers: tokio::task::JoinSet<()>,
}

impl Collector {
    /// Starts one on free ports.
    pub async fn start() -> Self {
        Self::start_as(None).await
    }

    /// Starts one that speaks TLS with a certificate of this authority, and wants one of its
    /// clients.
    pub async fn start_secured(authority: &Authority) -> Self {
        Self::start_as(Some(authority)).await
    }

    async fn start_as(authority: Option<&Authority>) -> Self {
        let inbox = Arc::new(Inbox::default());
        let mut servers = tokio::task::JoinSet::new();
        let (grpc, http) = (listener().await, listener().await);
        let (grpc_at, http_at) = (address(&grpc), address(&http));
        let service = TraceServiceServer::new(Service(Arc::clone(&inbox)))
            .accept_compressed(CompressionEncoding::Gzip);
        let mut server = tonic::transport::Server::builder();
        if let Some(authority) = authority {
            server = server.tls_config(authority.for_grpc()).expect("it is TLS");
        }
        servers.spawn(async move {
            let incoming = tonic::transport::server::TcpIncoming::from(grpc);
            let serving = server.add_service(service).serve_with_incoming(incoming);
            serving.await.expect("it serves");
        });
        let app = axum::Router::new()
            .route("/v1/traces", axum::routing::post(post))
            .with_state(Arc::clone(&inbox));
        let scheme = match authority {
            None => {
                servers.spawn(async move { axum::serve(http, app).await.expect("it serves") });
                "http"
            }
            Some(authority) => {
                let http = authority.listener(http);
                servers.spawn(async move { axum::serve(http, app).await.expect("it serves") });
                "https"
            }
        };
        Self {
            inbox,
            grpc: format!("{scheme}://{grpc_at}"),
            http: format!("{scheme}://{http_at}"),
            servers,
        }
    }

    /// Whether exports are refused from now on, as if it had too much to do.
    pub fn refuse(&self, refuses: bool) {
        self.refuse_as(if refuses {
            Refusal::Busy
        } else {
            Refusal::None
        });
    }

    /// What is refused from now on.
    pub fn refuse_as(&self, refusal: Refusal) {
        *self.inbox.refusal.lock().expect("no panic") = refusal;
    }

    /// How many exports were tried.
    pub fn asked(&self) -> usize {
        self.inbox.asked.load(Ordering::SeqCst)
    }

    /// The headers of all exports, by their names in lower case.
    pub fn headers(&self) -> Vec<BTreeMap<String, String>> {
        self.inbox.headers.lock().expect("no panic").clone()
    }

    /// All spans that came, in the order in which they came.
    pub fn spans(&self) -> Vec<Seen> {
        self.inbox.spans.lock().expect("no panic").clone()
    }

    /// Takes no more connections.
    pub fn stop(&mut self) {
        self.servers.abort_all();
    }
}

async fn listener() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.expect("a free port")
}

fn address(listener: &TcpListener) -> SocketAddr {
    listener.local_addr().expect("it is bound")
}

impl Inbox {
    fn take(&self, headers: &HeaderMap, request: &ExportTraceServiceRequest) -> Ruling {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let text = |v: &axum::http::HeaderValue| String::from_utf8_lossy(v.as_bytes()).into_owned();
        let headers = headers.iter().map(|(k, v)| (k.to_string(), text(v)));
        self.headers
            .lock()
            .expect("no panic")
            .push(headers.collect());
        let scopes = request.resource_spans.iter().flat_map(|r| &r.scope_spans);
        let mut spans: Vec<Seen> = scopes.flat_map(|s| &s.spans).map(seen).collect();
        let ruling = self.refusal.lock().expect("no panic").judge(&mut spans);
        if matches!(ruling, Ruling::Taken { .. }) {
            self.spans.lock().expect("no panic").extend(spans);
        }
        ruling
    }
}

/// What is answered to an export that is taken.
fn answer(rejected: i64) -> ExportTraceServiceResponse {
    ExportTraceServiceResponse {
        partial_success: (rejected > 0).then(|| ExportTracePartialSuccess {
            rejected_spans: rejected,
            error_message: "told to reject them".to_owned(),
        }),
    }
}

struct Service(Arc<Inbox>);

#[tonic::async_trait]
impl TraceService for Service {
    async fn export(
        &self,
        request: tonic::Request<ExportTraceServiceRequest>,
    ) -> Result<tonic::Response<ExportTraceServiceResponse>, tonic::Status> {
        let headers = request.metadata().clone().into_headers();
        match self.0.take(&headers, request.get_ref()) {
            Ruling::Taken { rejected } => Ok(tonic::Response::new(answer(rejected))),
            Ruling::Refused { code, .. } => Err(tonic::Status::new(code, "told to refuse")),
        }
    }
}

async fn post(
    State(inbox): State<Arc<Inbox>>,
    headers: HeaderMap,
    body: Bytes,
) -> (StatusCode, Vec<u8>) {
    let is = |name: &str, value: &str| headers.get(name).is_some_and(|v| v == value);
    let mut body = body.to_vec();
    if is("content-encoding", "gzip") {
        let mut plain = Vec::new();
        let read = flate2::read::GzDecoder::new(body.as_slice()).read_to_end(&mut plain);
        read.expect("it is compressed");
        body = plain;
    }
    let is_json = is("content-type", "application/json");
    let request = if is_json {
        serde_json::from_slice(&body).ok()
    } else {
        ExportTraceServiceRequest::decode(body.as_slice()).ok()
    };
    let Some(request) = request else {
        return (StatusCode::BAD_REQUEST, Vec::new());
    };
    match inbox.take(&headers, &request) {
        Ruling::Taken { rejected } if is_json => {
            let answer = serde_json::to_vec(&answer(rejected)).expect("it is JSON");
            (StatusCode::OK, answer)
        }
        Ruling::Taken { rejected } => (StatusCode::OK, answer(rejected).encode_to_vec()),
        Ruling::Refused { status, .. } => (status, Vec::new()),
    }
}

fn seen(span: &Span) -> Seen {
    Seen {
        trace: hex(&span.trace_id),
        id: hex(&span.span_id),
        parent: hex(&span.parent_span_id),
        name: span.name.clone(),
        times_ns: (span.start_time_unix_nano, span.end_time_unix_nano),
        attributes: span.attributes.iter().map(attribute).collect(),
        links: span.links.iter().map(|l| hex(&l.trace_id)).collect(),
        is_error: span.status.as_ref().is_some_and(|s| s.code == 2),
    }
}

fn attribute(pair: &KeyValue) -> (String, String) {
    let value = pair.value.as_ref().and_then(|v| v.value.as_ref());
    let text = match value {
        Some(Value::StringValue(text)) => text.clone(),
        Some(Value::IntValue(n)) => n.to_string(),
        Some(Value::DoubleValue(n)) => n.to_string(),
        Some(Value::BoolValue(is)) => is.to_string(),
        other => format!("{other:?}"),
    };
    (pair.key.clone(), text)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
