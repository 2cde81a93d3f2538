//! A provider on loopback, and a client inside an attempt.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use conductor_modelproxy::keys::Keys;
use conductor_modelproxy::{
    Access, Beside, KeySource, Listener, Prices, Provider, Proxy, Report, Secret, Terms, Upstream,
};
use http_body_util::channel::{Channel, Sender};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::HeaderMap;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, UnixStream};
use tokio::sync::mpsc;

pub(crate) const PLACEHOLDER: &str = "placeholder-1";
pub(crate) const REAL_KEY: &str = "sk-real-key";

/// What the provider was asked.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// What it answers: a status, headers, and its body's pieces, which the test may add to.
pub(crate) struct Said {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Body,
}

pub(crate) enum Body {
    Whole(Bytes),
    /// Pieces come out of the channel for as long as the test holds its other end.
    Pieces(mpsc::UnboundedReceiver<Bytes>),
}

impl Said {
    pub(crate) fn whole(status: u16, kind: &str, body: impl Into<Bytes>) -> Self {
        Self {
            status,
            headers: vec![("content-type", kind.to_owned())],
            body: Body::Whole(body.into()),
        }
    }

    pub(crate) fn stream() -> (mpsc::UnboundedSender<Bytes>, Self) {
        let (pieces, body) = mpsc::unbounded_channel();
        let headers = vec![("content-type", "text/event-stream".to_owned())];
        let body = Body::Pieces(body);
        (
            pieces,
            Self {
                status: 200,
                headers,
                body,
            },
        )
    }
}

/// The provider.
pub(crate) struct Fake {
    pub(crate) url: String,
    seen: Arc<Mutex<Vec<Seen>>>,
    answers: Arc<Mutex<VecDeque<Said>>>,
    /// Says when a stream's reader went away.
    pub(crate) broken: mpsc::UnboundedReceiver<()>,
}

impl Fake {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (seen, answers) = (
            Arc::<Mutex<Vec<Seen>>>::default(),
            Arc::<Mutex<VecDeque<Said>>>::default(),
        );
        let (breaks, broken) = mpsc::unbounded_channel();
        let (s, a) = (Arc::clone(&seen), Arc::clone(&answers));
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (s, a, breaks) = (Arc::clone(&s), Arc::clone(&a), breaks.clone());
                let service = service_fn(move |request| {
                    answer(request, Arc::clone(&s), Arc::clone(&a), breaks.clone())
                });
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service),
                );
            }
        });
        Self {
            url,
            seen,
            answers,
            broken,
        }
    }

    /// What it answers next; the last is said again and again.
    pub(crate) fn will_say(&self, said: Said) {
        self.answers.lock().unwrap().push_back(said);
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }
}

async fn answer(
    request: Request<Incoming>,
    seen: Arc<Mutex<Vec<Seen>>>,
    answers: Arc<Mutex<VecDeque<Said>>>,
    breaks: mpsc::UnboundedSender<()>,
) -> Result<Response<Channel<Bytes, Infallible>>, Infallible> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    seen.lock().unwrap().push(Seen {
        method: head.method.to_string(),
        path: head.uri.to_string(),
        headers: head.headers,
        body,
    });
    let said = answers
        .lock()
        .unwrap()
        .pop_front()
        .expect("it was told what to say");
    let (sender, channel) = Channel::new(1);
    tokio::spawn(fill(sender, said.body, breaks));
    let mut response = Response::builder().status(said.status);
    for (name, value) in said.headers {
        response = response.header(name, value);
    }
    Ok(response.body(channel).unwrap())
}

async fn fill(mut sender: Sender<Bytes>, body: Body, breaks: mpsc::UnboundedSender<()>) {
    match body {
        Body::Whole(bytes) => {
            let _ = sender.send_data(bytes).await;
        }
        Body::Pieces(mut pieces) => {
            while let Some(piece) = pieces.recv().await {
                if sender.send_data(piece).await.is_err() {
                    let _ = breaks.send(());
                    return;
                }
            }
        }
    }
}

/// What stands beside the models: it says what it was asked.
#[derive(Debug)]
struct Echo;

#[async_trait]
impl Beside for Echo {
    fn path(&self) -> &'static str {
        "/beside"
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<BoxBody<Bytes, Infallible>> {
        let body = request.into_body().collect().await.unwrap().to_bytes();
        Response::new(Full::new(body).boxed())
    }
}

/// An attempt: its proxy, and what it reports.
pub(crate) struct Attempt {
    pub(crate) proxy: Proxy,
    pub(crate) reports: mpsc::UnboundedReceiver<Report>,
    dir: tempfile::TempDir,
}

impl Attempt {
    pub(crate) fn start(fake: &Fake, terms: Terms) -> Self {
        let source = KeySource::Variable("ANTHROPIC_API_KEY", Secret::new(REAL_KEY).unwrap());
        Self::with_keys(fake, terms, &source)
    }

    /// One that may ask no model, though there is one.
    pub(crate) fn without_models(fake: &Fake) -> Self {
        let source = KeySource::Variable("ANTHROPIC_API_KEY", Secret::new(REAL_KEY).unwrap());
        Self::open(fake, Terms::default(), &source, None)
    }

    pub(crate) fn with_keys(fake: &Fake, terms: Terms, source: &KeySource) -> Self {
        Self::open(fake, terms, source, Some(Upstream::from_env().unwrap()))
    }

    fn open(fake: &Fake, terms: Terms, source: &KeySource, upstream: Option<Upstream>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let listener = Listener::unix(dir.path(), "model.sock").unwrap();
        let access = |provider, path: &str| {
            let url = format!("{}{path}", fake.url).parse().unwrap();
            (
                provider,
                Access {
                    url,
                    keys: Keys::new(provider, source.clone()),
                },
            )
        };
        let accesses = BTreeMap::from([
            access(Provider::Anthropic, ""),
            access(Provider::OpenAi, "/v1"),
        ]);
        let terms = Terms {
            placeholder: PLACEHOLDER.into(),
            ..terms
        };
        let prices = Arc::new(Prices::new(None).unwrap());
        let beside: Arc<dyn Beside> = Arc::new(Echo);
        let beside = Some(beside);
        let (proxy, reports) =
            Proxy::start(vec![listener], terms, upstream, accesses, prices, beside);
        Self {
            proxy,
            reports,
            dir,
        }
    }

    /// Asks, as a client inside would.
    pub(crate) async fn ask(&self, request: Request<Full<Bytes>>) -> Response<Incoming> {
        self.connect().await.send_request(request).await.unwrap()
    }

    pub(crate) async fn connect(&self) -> hyper::client::conn::http1::SendRequest<Full<Bytes>> {
        let stream = UnixStream::connect(self.dir.path().join("model.sock"))
            .await
            .unwrap();
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .unwrap();
        tokio::spawn(connection);
        sender
    }

    /// The next report, soon.
    pub(crate) async fn report(&mut self) -> Report {
        let next = tokio::time::timeout(Duration::from_secs(20), self.reports.recv());
        next.await.expect("a report comes").unwrap()
    }
}

/// A request as Claude Code makes it.
pub(crate) fn messages(body: &str) -> Request<Full<Bytes>> {
    post("/v1/messages?beta=true", body)
}

pub(crate) fn post(path: &str, body: &str) -> Request<Full<Bytes>> {
    Request::builder()
        .method("POST")
        .uri(path)
        .header("host", "model.conductor")
        .header("x-api-key", PLACEHOLDER)
        .header("anthropic-version", "2023-06-01")
        .header("accept-encoding", "gzip, br")
        .header("x-claude-code-session-id", "s-1")
        .body(Full::new(Bytes::from(body.to_owned())))
        .unwrap()
}

pub(crate) async fn text(response: Response<Incoming>) -> String {
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// A fixture's bytes.
pub(crate) fn fixture(name: &str) -> Bytes {
    let path = format!("{}/tests/fixtures/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read(path).unwrap().into()
}
