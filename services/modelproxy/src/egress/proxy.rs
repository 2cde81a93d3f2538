//! The proxy itself: `CONNECT`, and plain HTTP with the whole URL.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{self, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper::{Method, Request, Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::allow::{AllowList, is_public, split_port};
use crate::listen::{Io, Listener};

/// Connections of one attempt at a time; more wait.
const CONNECTIONS_MAX: usize = 64;
/// Longest that a connection may take.
const CONNECT_TIME: Duration = Duration::from_secs(15);

type Answer = Response<BoxBody<Bytes, hyper::Error>>;

/// The way out of one attempt. Dropped, it is gone, and with it what goes through it.
#[derive(Debug)]
pub struct Egress {
    _tasks: JoinSet<()>,
}

impl Egress {
    /// Serves an attempt on these listeners.
    pub fn start(listeners: Vec<Listener>, allowed: AllowList) -> Self {
        let allowed = Arc::new(allowed);
        let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let mut tasks = JoinSet::new();
        for listener in listeners {
            tasks.spawn(accept(listener, Arc::clone(&allowed), Arc::clone(&permits)));
        }
        Self { _tasks: tasks }
    }
}

async fn accept(listener: Listener, allowed: Arc<AllowList>, permits: Arc<Semaphore>) {
    let mut connections = JoinSet::new();
    loop {
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else {
            return;
        };
        let io = tokio::select! {
            io = listener.accept() => io,
            Some(_) = connections.join_next() => continue,
        };
        let Ok(io) = io else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let allowed = Arc::clone(&allowed);
        connections.spawn(async move {
            serve(io, &allowed).await;
            drop(permit);
        });
    }
}

/// What a connection becomes once it is a tunnel.
type Tunnel = Mutex<Option<(OnUpgrade, TcpStream)>>;

async fn serve(io: Box<dyn Io>, allowed: &AllowList) {
    let tunnel = Tunnel::default();
    let service = service_fn(|request| {
        let tunnel = &tunnel;
        async move {
            let answer = handle(allowed, tunnel, request).await;
            Ok::<_, std::convert::Infallible>(
                answer.unwrap_or_else(|(status, message)| say(status, &message)),
            )
        }
    });
    let connection = http1::Builder::new().serve_connection(TokioIo::new(io), service);
    // A client that goes away needs no answer.
    let _ = connection.with_upgrades().await;
    let tunnel = tunnel.into_inner().unwrap_or_else(PoisonError::into_inner);
    if let Some((upgrade, mut stream)) = tunnel
        && let Ok(upgraded) = upgrade.await
    {
        // Either side ends it.
        let _ = tokio::io::copy_bidirectional(&mut TokioIo::new(upgraded), &mut stream).await;
    }
}

fn say(status: StatusCode, message: &str) -> Answer {
    let body = Full::new(Bytes::from(format!("{message}\n")));
    let mut answer = Response::new(body.map_err(|never| match never {}).boxed());
    *answer.status_mut() = status;
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    answer.headers_mut().insert(header::CONTENT_TYPE, plain);
    answer
}

type Failed = (StatusCode, String);

async fn handle(
    allowed: &AllowList,
    tunnel: &Tunnel,
    mut request: Request<Incoming>,
) -> Result<Answer, Failed> {
    let is_connect = request.method() == Method::CONNECT;
    let authority = request.uri().authority().map(|a| a.as_str().to_owned());
    let bad = |what: &str| (StatusCode::BAD_REQUEST, what.to_owned());
    let authority = authority.ok_or_else(|| bad("name the whole URL, as to a proxy"))?;
    if !is_connect && request.uri().scheme_str() != Some("http") {
        return Err(bad("use CONNECT for what is not plain HTTP"));
    }
    let default = if is_connect { 443 } else { 80 };
    let (host, port) = split_port(&authority, default).ok_or_else(|| bad("this is no host"))?;
    let stream = reach(allowed, host, port).await?;
    if is_connect {
        let upgrade = hyper::upgrade::on(&mut request);
        *tunnel.lock().unwrap_or_else(PoisonError::into_inner) = Some((upgrade, stream));
        let empty = Full::new(Bytes::new()).map_err(|never| match never {});
        Ok(Response::new(empty.boxed()))
    } else {
        forward(request, &authority, stream).await
    }
}

/// Connects, if that is allowed: to the very address that was looked at.
async fn reach(allowed: &AllowList, host: &str, port: u16) -> Result<TcpStream, Failed> {
    let refuse = |what: String| {
        tracing::debug!(host, port, "refused: {what}");
        (StatusCode::FORBIDDEN, what)
    };
    let any = allowed.allows(host, port).ok_or_else(|| {
        refuse(format!(
            "this task may not reach {host}:{port}; it is not in its sandbox.network"
        ))
    })?;
    let unreachable = |e: String| (StatusCode::BAD_GATEWAY, format!("{host}:{port}: {e}"));
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let found = tokio::time::timeout(CONNECT_TIME, tokio::net::lookup_host((bare, port))).await;
    let found = found.map_err(|_| unreachable("its name takes too long".to_owned()))?;
    let found: Vec<SocketAddr> = found.map_err(|e| unreachable(e.to_string()))?.collect();
    let usable: Vec<SocketAddr> = found
        .into_iter()
        .filter(|a| any || is_public(a.ip()))
        .collect();
    if usable.is_empty() {
        let what = format!("{host} lies in a private network; name its address to allow that");
        return Err(refuse(what));
    }
    let connecting = TcpStream::connect(usable.as_slice());
    let stream = tokio::time::timeout(CONNECT_TIME, connecting).await;
    let stream = stream.map_err(|_| unreachable("it does not answer".to_owned()))?;
    stream.map_err(|e| unreachable(e.to_string()))
}

async fn forward(
    mut request: Request<Incoming>,
    authority: &str,
    stream: TcpStream,
) -> Result<Answer, Failed> {
    let failed = |e: hyper::Error| (StatusCode::BAD_GATEWAY, e.to_string());
    let path = request.uri().path_and_query().map_or("/", |p| p.as_str());
    let path: Uri = path
        .parse()
        .map_err(|_| (StatusCode::BAD_REQUEST, "a path".to_owned()))?;
    *request.uri_mut() = path;
    let host = HeaderValue::from_str(authority);
    let host = host.map_err(|_| (StatusCode::BAD_REQUEST, "this is no host".to_owned()))?;
    let headers = request.headers_mut();
    headers.insert(header::HOST, host);
    for name in [
        header::PROXY_AUTHORIZATION,
        header::CONNECTION,
        header::UPGRADE,
    ] {
        headers.remove(name);
    }
    headers.remove("proxy-connection");
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(failed)?;
    tokio::spawn(connection);
    let answer = sender.send_request(request).await.map_err(failed)?;
    let (mut head, body) = answer.into_parts();
    for name in [
        header::CONNECTION,
        header::TRANSFER_ENCODING,
        header::UPGRADE,
    ] {
        head.headers.remove(name);
    }
    Ok(Response::from_parts(head, body.boxed()))
}
