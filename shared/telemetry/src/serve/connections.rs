//! Connections to what is shown: no more than there is room for, and none that says nothing.
//! Whoever asks without end costs the process no more than that.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{ConnectInfo, Request};
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::metrics::metrics;

/// How long whoever is refused may take to hear it.
const REFUSED_MAX: Duration = Duration::from_secs(1);
/// Pause after a connection could not be taken, such as where no file may be opened any more.
const PAUSE: Duration = Duration::from_millis(500);

/// What a client may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Connections at once.
    pub(super) connections: usize,
    /// How long it may say nothing, or not all of a request's head.
    pub(super) head: Duration,
    /// How long a request may take in all.
    pub(super) request: Duration,
    /// How long a connection may stay.
    pub(super) connection: Duration,
}

impl Default for Limits {
    /// Several Prometheus servers, probes and people; a look takes some seconds at most.
    fn default() -> Self {
        Self {
            connections: 64,
            head: Duration::from_secs(10),
            request: Duration::from_secs(15),
            connection: Duration::from_secs(600),
        }
    }
}

/// Serves until it is dropped.
pub(super) async fn serve(listener: TcpListener, app: Router, limits: Limits) {
    let room = Arc::new(Semaphore::new(limits.connections));
    let room_for_refused = Arc::new(Semaphore::new(limits.connections));
    let app = app.layer(middleware::from_fn(move |request, next| {
        in_time(limits.request, request, next)
    }));
    let mut tasks = JoinSet::new();
    loop {
        while tasks.try_join_next().is_some() {}
        let Ok((stream, from)) = listener.accept().await else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        if let Ok(permit) = Arc::clone(&room).try_acquire_owned() {
            let app = app.clone();
            tasks.spawn(async move {
                talk(stream, from, app, limits).await;
                drop(permit);
            });
            continue;
        }
        metrics().connections_refused.inc();
        // Beyond that they are hung up on.
        if let Ok(permit) = Arc::clone(&room_for_refused).try_acquire_owned() {
            tasks.spawn(async move {
                // Whoever does not listen has hung up.
                let _ = tokio::time::timeout(REFUSED_MAX, refuse(stream)).await;
                drop(permit);
            });
        }
    }
}

async fn talk(stream: TcpStream, from: SocketAddr, app: Router, limits: Limits) {
    let app = app.layer(Extension(ConnectInfo(from)));
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(limits.head);
    let connection = http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(app));
    let mut connection = pin!(connection);
    // How a connection ended is its client's business.
    tokio::select! {
        _ = connection.as_mut() => return,
        () = tokio::time::sleep(limits.connection) => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = tokio::time::timeout(limits.request, connection).await;
}

/// A request that is answered in time, or told that it is not.
async fn in_time(at_most: Duration, request: Request, next: Next) -> Response {
    match tokio::time::timeout(at_most, next.run(request)).await {
        Ok(response) => response,
        Err(_) => (StatusCode::REQUEST_TIMEOUT, "this takes too long\n").into_response(),
    }
}

async fn refuse(mut stream: TcpStream) -> std::io::Result<()> {
    let said = "too many connections are open here: close some, or ask again\n";
    let length = said.len();
    let head = "HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Type: text/plain";
    let answer = format!("{head}\r\nContent-Length: {length}\r\n\r\n{said}");
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await?;
    // What was asked is read first: closed before that, the answer would be lost with it.
    let mut rest = [0; 1024];
    while stream.read(&mut rest).await? > 0 {}
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::routing::{get, put};

    const LONG: Duration = Duration::from_secs(60);

    async fn served(limits: Limits) -> (SocketAddr, JoinSet<()>) {
        let app = Router::new()
            .route("/", get(async || "here"))
            .route("/put", put(async |body: String| body));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let mut server = JoinSet::new();
        server.spawn(serve(listener, app, limits));
        (at, server)
    }

    fn limits() -> Limits {
        Limits {
            connections: 2,
            head: LONG,
            request: LONG,
            connection: LONG,
        }
    }

    /// Sends this and reads until the server hangs up.
    async fn ask(stream: &mut TcpStream, request: &str) -> String {
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        let read = stream.read_to_string(&mut answer);
        let read = tokio::time::timeout(LONG, read).await;
        // Hung up on hard counts as the end too.
        let _ = read.expect("the server hangs up");
        answer
    }

    const GET: &str = "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";

    #[tokio::test]
    async fn what_is_beyond_the_limit_is_told_so_and_what_was_closed_makes_room() {
        let (at, _server) = served(limits()).await;
        let mut open = Vec::new();
        for _ in 0..2 {
            let mut stream = TcpStream::connect(at).await.unwrap();
            let keep = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
            stream.write_all(keep.as_bytes()).await.unwrap();
            let mut first = [0; 15];
            stream.read_exact(&mut first).await.unwrap();
            assert_eq!(&first, b"HTTP/1.1 200 OK");
            open.push(stream);
        }
        let before = metrics().connections_refused.get();
        let mut third = TcpStream::connect(at).await.unwrap();
        let answer = ask(&mut third, GET).await;
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
        assert!(answer.contains("too many connections"), "{answer}");
        assert!(metrics().connections_refused.get() > before);
        open.clear();
        let again = async {
            loop {
                let mut stream = TcpStream::connect(at).await.unwrap();
                let answer = ask(&mut stream, GET).await;
                if answer.starts_with("HTTP/1.1 200 ") {
                    return answer;
                }
                tokio::task::yield_now().await;
            }
        };
        let answer = tokio::time::timeout(LONG, again).await.unwrap();
        assert!(answer.ends_with("here"), "{answer}");
    }

    #[tokio::test]
    async fn whoever_says_nothing_or_not_all_is_hung_up_on() {
        let head = Duration::from_millis(100);
        let (at, _server) = served(Limits { head, ..limits() }).await;
        for part in ["", "GET / HTTP/1.1\r\nHost: "] {
            let mut stream = TcpStream::connect(at).await.unwrap();
            let answer = ask(&mut stream, part).await;
            assert!(!answer.contains("200"), "{answer}");
        }
        let request = Duration::from_millis(100);
        let (at, _server) = served(Limits {
            request,
            ..limits()
        })
        .await;
        let mut stream = TcpStream::connect(at).await.unwrap();
        let part =
            "PUT /put HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 9\r\n\r\nab";
        let answer = ask(&mut stream, part).await;
        assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
        let connection = Duration::from_millis(100);
        let (at, _server) = served(Limits {
            connection,
            ..limits()
        })
        .await;
        let mut stream = TcpStream::connect(at).await.unwrap();
        let answer = ask(&mut stream, "GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
        assert!(answer.ends_with("here"), "{answer}");
    }
}
