//! `/metrics`, `/livez`, `/readyz`, `/startupz`, `/log`: one small server beside every role.

mod connections;

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{ConnectInfo, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use prometheus_client::encoding::text;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;

use crate::logs;
use crate::metrics::metrics;
use crate::plain_text;
use crate::sample::{Gathered, Source};
use connections::Limits;

/// How long a source may take; what is slower is left out of that answer.
const SOURCE_MAX: Duration = Duration::from_secs(2);
/// The format's media type.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Whether the process can do its work.
pub trait Health: Send + Sync {
    /// Why it has not begun yet, if it has not.
    fn not_started(&self) -> Option<String>;
    /// Why it cannot do its work now, if it cannot. Never waits long.
    fn not_ready(&self) -> Answer<'_>;
}

/// A problem, if there is one.
pub type Answer<'a> = Pin<Box<dyn Future<Output = Option<String>> + Send + 'a>>;

/// What is served.
pub struct Sight {
    /// The cell, a label of everything.
    pub cell: String,
    /// Who is asked at every look.
    pub sources: Vec<Box<dyn Source>>,
    /// Whether the process can do its work.
    pub health: Box<dyn Health>,
}

impl std::fmt::Debug for Sight {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sight")
            .field("cell", &self.cell)
            .finish_non_exhaustive()
    }
}

struct Served {
    sight: Sight,
    registry: Registry,
    gathered: Gathered,
    /// One look at a time: what was gathered belongs to one answer.
    looking: tokio::sync::Mutex<()>,
}

/// Listens at `wanted`; where that is taken and `may_move`, at any free port of the same address.
pub async fn listen(wanted: SocketAddr, may_move: bool) -> std::io::Result<TcpListener> {
    match TcpListener::bind(wanted).await {
        Err(e) if may_move && e.kind() == std::io::ErrorKind::AddrInUse => {
            TcpListener::bind((wanted.ip(), 0)).await
        }
        bound => bound,
    }
}

/// Serves until it is dropped.
pub async fn serve(listener: TcpListener, sight: Sight) {
    let gathered = Gathered::default();
    let mut registry = metrics().registry(&sight.cell);
    registry.register_collector(Box::new(gathered.clone()));
    let served = Arc::new(Served {
        sight,
        registry,
        gathered,
        looking: tokio::sync::Mutex::new(()),
    });
    let app = Router::new()
        .route("/metrics", get(show))
        // Of the process alone: one that cannot reach NATS is not cured by a restart.
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .route("/startupz", get(started))
        .route("/log", get(log_filter).put(set_log_filter))
        .with_state(served);
    connections::serve(listener, app, Limits::default()).await;
}

async fn show(State(served): State<Arc<Served>>, headers: HeaderMap) -> impl IntoResponse {
    let _one = served.looking.lock().await;
    let mut samples = Vec::new();
    for source in &served.sight.sources {
        if let Ok(of_it) = tokio::time::timeout(SOURCE_MAX, source.samples()).await {
            samples.extend(of_it);
        }
    }
    served.gathered.set(samples);
    let mut page = String::new();
    if let Err(e) = text::encode(&mut page, &served.registry) {
        let plain = [(header::CONTENT_TYPE, "text/plain")];
        return (StatusCode::INTERNAL_SERVER_ERROR, plain, e.to_string());
    }
    let accepted = headers.get(header::ACCEPT).and_then(|a| a.to_str().ok());
    if accepted.is_some_and(|a| a.contains("application/openmetrics-text")) {
        (StatusCode::OK, [(header::CONTENT_TYPE, OPEN_METRICS)], page)
    } else {
        let page = plain_text::of_open_metrics(&page);
        (
            StatusCode::OK,
            [(header::CONTENT_TYPE, plain_text::MEDIA_TYPE)],
            page,
        )
    }
}

async fn log_filter() -> String {
    format!("{}\n", logs::filter().unwrap_or_default())
}

/// Changes what is logged. Only for whoever is on the same machine: more lines cost more.
async fn set_log_filter(
    ConnectInfo(from): ConnectInfo<SocketAddr>,
    filter: String,
) -> (StatusCode, String) {
    if !from.ip().is_loopback() {
        let problem = "only from the same machine: exec into it, or forward the port\n";
        return (StatusCode::FORBIDDEN, problem.to_owned());
    }
    match logs::set_filter(filter.trim()) {
        Ok(()) => (StatusCode::OK, "ok\n".to_owned()),
        Err(problem) => (StatusCode::BAD_REQUEST, format!("{problem}\n")),
    }
}

async fn ready(State(served): State<Arc<Served>>) -> (StatusCode, String) {
    let health = &served.sight.health;
    match health.not_started() {
        Some(problem) => answer(Some(problem)),
        None => answer(health.not_ready().await),
    }
}

async fn started(State(served): State<Arc<Served>>) -> (StatusCode, String) {
    answer(served.sight.health.not_started())
}

fn answer(problem: Option<String>) -> (StatusCode, String) {
    match problem {
        None => (StatusCode::OK, "ok\n".to_owned()),
        Some(problem) => (StatusCode::SERVICE_UNAVAILABLE, format!("{problem}\n")),
    }
}
