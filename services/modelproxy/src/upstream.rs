//! The way to the providers: TLS with the system's roots, over the agent's own proxy where one is
//! set, connections kept for all its attempts.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::{Request, Response, Uri};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::proxy::matcher::Matcher;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tower_service::Service;

/// Longest that a connection may take.
const CONNECT_TIME: Duration = Duration::from_secs(15);

/// Sends requests to providers.
#[derive(Clone, Debug)]
pub struct Upstream {
    client: Client<HttpsConnector<Way>, Full<Bytes>>,
}

impl Upstream {
    /// As the agent's environment says: `HTTPS_PROXY` and its kin, `SSL_CERT_FILE`, and the
    /// certificates of `NODE_EXTRA_CA_CERTS` besides the system's.
    pub fn from_env() -> Result<Self, String> {
        let mut roots = RootCertStore::empty();
        let found = rustls_native_certs::load_native_certs();
        roots.add_parsable_certificates(found.certs);
        if let Some(path) = std::env::var_os("NODE_EXTRA_CA_CERTS") {
            let wrong = |e: rustls::pki_types::pem::Error| {
                format!("NODE_EXTRA_CA_CERTS {}: {e}", path.display())
            };
            for certificate in CertificateDer::pem_file_iter(&path).map_err(wrong)? {
                // One that is no authority is of no use, and no harm.
                let _ = roots.add(certificate.map_err(wrong)?);
            }
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config =
            ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = config.map_err(|e| format!("TLS: {e}"))?;
        let config = config.with_root_certificates(roots).with_no_client_auth();
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        http.set_connect_timeout(Some(CONNECT_TIME));
        http.set_nodelay(true);
        let proxies = Arc::new(Matcher::from_env());
        let connector = hyper_rustls::HttpsConnectorBuilder::new()
            .with_tls_config(config)
            .https_or_http()
            .enable_http1()
            .wrap_connector(Way { http, proxies });
        let client = Client::builder(TokioExecutor::new())
            .pool_idle_timeout(Duration::from_secs(60))
            .build(connector);
        Ok(Self { client })
    }

    /// Sends a request; the answer's body is still to come.
    pub(crate) async fn send(
        &self,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, String> {
        let sent = self.client.request(request).await;
        sent.map_err(|e| {
            // The cause says more than that there was an error.
            let mut source: &dyn std::error::Error = &e;
            while let Some(deeper) = source.source() {
                source = deeper;
            }
            source.to_string()
        })
    }
}

/// Whether keys may be sent there: over TLS, or to this very machine.
pub fn is_private(url: &Uri) -> bool {
    let host = url.host().unwrap_or_default();
    let is_here = || {
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        host == "localhost"
            || bare
                .parse::<std::net::IpAddr>()
                .is_ok_and(|ip| ip.is_loopback())
    };
    match url.scheme_str() {
        Some("https") => !host.is_empty(),
        Some("http") => is_here(),
        _ => false,
    }
}

/// Directly, or through the agent's own proxy.
#[derive(Clone, Debug)]
struct Way {
    http: HttpConnector,
    proxies: Arc<Matcher>,
}

type Error = Box<dyn std::error::Error + Send + Sync>;
type Connecting = Pin<Box<dyn Future<Output = Result<TokioIo<TcpStream>, Error>> + Send>>;

impl Service<Uri> for Way {
    type Response = TokioIo<TcpStream>;
    type Error = Error;
    type Future = Connecting;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.http.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, to: Uri) -> Connecting {
        // Plain HTTP goes to this machine alone, which no proxy stands before.
        let is_direct = to.scheme_str() == Some("http");
        match self.proxies.intercept(&to).filter(|_| !is_direct) {
            None => {
                let connecting = self.http.call(to);
                Box::pin(async move { connecting.await.map_err(Into::into) })
            }
            Some(proxy) => {
                let mut tunnel = Tunnel::new(proxy.uri().clone(), self.http.clone());
                if let Some(auth) = proxy.basic_auth() {
                    tunnel = tunnel.with_auth(auth.clone());
                }
                let connecting = tunnel.call(to);
                Box::pin(async move { connecting.await.map_err(Into::into) })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_go_over_tls_or_stay_on_this_machine() {
        for (url, is_fine) in [
            ("https://api.anthropic.com", true),
            ("http://127.0.0.1:8080/x", true),
            ("http://localhost:1", true),
            ("http://[::1]:1", true),
            ("http://api.anthropic.com", false),
            ("http://10.0.0.1", false),
            ("http://localhost.evil.example", false),
            ("/v1", false),
        ] {
            assert_eq!(is_private(&url.parse().unwrap()), is_fine, "{url}");
        }
    }
}
