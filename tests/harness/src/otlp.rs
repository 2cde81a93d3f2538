//! A collector inside the test: takes spans over gRPC and HTTP, and can be made to refuse them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value};
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use tokio::net::TcpListener;

/// A span as it arrived.
#[derive(Clone, Debug, PartialEq)]
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
    refuses: AtomicBool,
    asked: AtomicUsize,
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
        let inbox = Arc::new(Inbox::default());
        let mut servers = tokio::task::JoinSet::new();
        let (grpc, http) = (listener().await, listener().await);
        let (grpc_at, http_at) = (address(&grpc), address(&http));
        let service = TraceServiceServer::new(Service(Arc::clone(&inbox)));
        servers.spawn(async move {
            let incoming = tonic::transport::server::TcpIncoming::from(grpc);
            let served = tonic::transport::Server::builder().add_service(service);
            served
                .serve_with_incoming(incoming)
                .await
                .expect("it serves");
        });
        let app = axum::Router::new()
            .route("/v1/traces", axum::routing::post(post))
            .with_state(Arc::clone(&inbox));
        servers.spawn(async move { axum::serve(http, app).await.expect("it serves") });
        Self {
            inbox,
            grpc: format!("http://{grpc_at}"),
            http: format!("http://{http_at}"),
            servers,
        }
    }

    /// Whether exports are refused from now on.
    pub fn refuse(&self, refuses: bool) {
        self.inbox.refuses.store(refuses, Ordering::SeqCst);
    }

    /// How many exports were tried.
    pub fn asked(&self) -> usize {
        self.inbox.asked.load(Ordering::SeqCst)
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
    fn take(&self, request: &ExportTraceServiceRequest) -> bool {
        self.asked.fetch_add(1, Ordering::SeqCst);
        if self.refuses.load(Ordering::SeqCst) {
            return false;
        }
        let scopes = request.resource_spans.iter().flat_map(|r| &r.scope_spans);
        let seen = scopes.flat_map(|s| &s.spans).map(seen);
        self.spans.lock().expect("no panic").extend(seen);
        true
    }
}

struct Service(Arc<Inbox>);

#[tonic::async_trait]
impl TraceService for Service {
    async fn export(
        &self,
        request: tonic::Request<ExportTraceServiceRequest>,
    ) -> Result<tonic::Response<ExportTraceServiceResponse>, tonic::Status> {
        if self.0.take(request.get_ref()) {
            Ok(tonic::Response::new(ExportTraceServiceResponse::default()))
        } else {
            Err(tonic::Status::unavailable("told to refuse"))
        }
    }
}

async fn post(State(inbox): State<Arc<Inbox>>, body: Bytes) -> (StatusCode, Vec<u8>) {
    let Ok(request) = ExportTraceServiceRequest::decode(body) else {
        return (StatusCode::BAD_REQUEST, Vec::new());
    };
    if inbox.take(&request) {
        let answer = ExportTraceServiceResponse::default();
        (StatusCode::OK, answer.encode_to_vec())
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, Vec::new())
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
