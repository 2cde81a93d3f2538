//! The one connection of a process.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_nats::jetstream::{self, Context, context::ContextBuilder};
use async_nats::{Client, ConnectOptions, Event};
use conductor_protocol::CellId;
use tokio::sync::watch;

use super::credentials;

/// How long an append or request may take before it is repeated.
pub(crate) const ACK_TIMEOUT: Duration = Duration::from_secs(3);
/// How often a silent link is probed unless told otherwise: the client's default of 60 s would
/// notice a dead one after 180 s (nats-facts 9.3).
const PROBE_EVERY: Duration = Duration::from_secs(5);
/// A link over which so many beats in a row failed in silence is dead.
const SILENT_BEATS_MAX: u32 = 2;

/// How to connect.
#[derive(Clone, Debug)]
pub struct Connect {
    /// Server URLs, comma-separated.
    pub url: String,
    /// Name shown in the server's lists.
    pub name: String,
    /// The cell.
    pub cell: CellId,
    /// Credentials file (token and seed), where the server wants one; read at every connection.
    pub credentials: Option<PathBuf>,
    /// How links are encrypted.
    pub tls: Tls,
    /// How often a silent link is probed. A dead one is noticed after three times that.
    pub probe_every: Duration,
}

impl Connect {
    /// Without credentials, and with the usual probing.
    pub fn to(url: impl Into<String>, name: impl Into<String>, cell: CellId) -> Self {
        Self {
            url: url.into(),
            name: name.into(),
            cell,
            credentials: None,
            tls: Tls::default(),
            probe_every: PROBE_EVERY,
        }
    }
}

/// How links to servers are encrypted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    /// CA whose servers are trusted, in PEM, besides those of the machine.
    pub ca: Option<PathBuf>,
    /// Certificate and key of our own, in PEM, where servers want one.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// Whether links that leave the machine may be readable to others.
    pub allows_plaintext: bool,
}

impl Tls {
    fn set(&self, mut options: ConnectOptions) -> ConnectOptions {
        if let Some(ca) = &self.ca {
            options = options.add_root_certificates(ca.clone());
        }
        if let Some((cert, key)) = &self.identity {
            options = options.add_client_certificate(cert.clone(), key.clone());
        }
        let is_meant = self.ca.is_some() || self.identity.is_some();
        options.require_tls(is_meant)
    }
}

/// Whether a link broke off because one end does not trust the other: the client library says so in
/// words alone, those of rustls.
fn is_of_tls(problem: &str) -> bool {
    let words = [
        "invalid peer certificate",
        "received fatal alert",
        "received corrupt message",
    ];
    words.iter().any(|words| problem.contains(words))
}

/// Whether a server's address is on this machine.
fn is_local(url: &str) -> bool {
    let host = url.rsplit_once("://").map_or(url, |(_, rest)| rest);
    let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
    let name = host.rsplit_once(':').map_or(host, |(name, port)| {
        if port.bytes().all(|b| b.is_ascii_digit()) {
            name
        } else {
            host
        }
    });
    let name = name.trim_start_matches('[').trim_end_matches(']');
    name == "localhost"
        || name
            .parse::<std::net::IpAddr>()
            .is_ok_and(|ip| ip.is_loopback())
}

/// Why there is no connection.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ConnectError {
    /// Nobody answers.
    #[error("cannot reach NATS at {url}: {problem}")]
    Unreachable {
        /// Where.
        url: String,
        /// Why.
        problem: String,
    },
    /// The server answers no.
    #[error("NATS at {url} refuses the connection: {problem}; check the credentials")]
    Denied {
        /// Where.
        url: String,
        /// Why.
        problem: String,
    },
    /// One end does not trust the other's certificate, or has none.
    #[error(
        "the link to NATS at {url} is not trusted: {problem}; check --tls-ca (who signs the servers' \
         certificates), and --tls-cert and --tls-key where servers want a certificate of ours"
    )]
    Untrusted {
        /// Where.
        url: String,
        /// Why.
        problem: String,
    },
    /// The configuration is wrong.
    #[error("{0}")]
    Invalid(String),
}

/// A connection to the servers of a cell. Clones share it.
#[derive(Clone, Debug)]
pub struct Connection {
    pub(crate) client: Client,
    pub(crate) js: Context,
    pub(crate) cell: CellId,
    credentials: Option<PathBuf>,
    is_up: watch::Receiver<bool>,
    /// Beats in a row while which nothing at all arrived.
    silent_beats: Arc<AtomicU32>,
}

impl Connection {
    /// Connects once.
    pub async fn open(connect: &Connect) -> Result<Self, ConnectError> {
        let (up, is_up) = watch::channel(true);
        let options = match &connect.credentials {
            None => ConnectOptions::new(),
            Some(path) => {
                let inbox = credentials::check(path).map_err(ConnectError::Invalid)?;
                let (path, own) = (path.clone(), inbox.clone());
                let options = ConnectOptions::with_auth_callback(move |nonce| {
                    credentials::answer(path.clone(), nonce, own.clone())
                });
                match inbox {
                    Some(prefix) => options.custom_inbox_prefix(prefix),
                    None => options,
                }
            }
        };
        let options = connect
            .tls
            .set(options)
            .name(&connect.name)
            .ping_interval(connect.probe_every)
            .request_timeout(Some(Duration::from_secs(5)))
            .client_capacity(8192)
            .reconnect_delay_callback(reconnect_delay)
            .event_callback(move |event| {
                on_event(&event, &up);
                async {}
            });
        let servers: Vec<String> = connect
            .url
            .split(',')
            .map(str::trim)
            .map(str::to_owned)
            .collect();
        let is_remote = servers.iter().any(|s| !is_local(s));
        let client = options.connect(servers).await.map_err(|e| {
            let (url, problem) = (connect.url.clone(), e.to_string());
            match e.kind() {
                async_nats::ConnectErrorKind::Authentication
                | async_nats::ConnectErrorKind::AuthorizationViolation => {
                    ConnectError::Denied { url, problem }
                }
                async_nats::ConnectErrorKind::ServerParse => {
                    ConnectError::Invalid(format!("{url} is not a NATS URL: {problem}"))
                }
                async_nats::ConnectErrorKind::Tls => ConnectError::Untrusted { url, problem },
                _ if is_of_tls(&problem) => ConnectError::Untrusted { url, problem },
                _ => ConnectError::Unreachable { url, problem },
            }
        })?;
        let is_readable = !client.server_info().tls_required;
        if is_remote && is_readable && !connect.tls.allows_plaintext {
            return Err(ConnectError::Invalid(format!(
                "the link to {} is not encrypted and leaves this machine: whoever sees it reads \
                 everything; give the servers TLS, or accept it with --allow-plaintext",
                connect.url
            )));
        }
        let js = ContextBuilder::new()
            .timeout(ACK_TIMEOUT)
            .ack_timeout(ACK_TIMEOUT)
            .max_ack_inflight(4096)
            .build(client.clone());
        Ok(Self {
            client,
            js,
            cell: connect.cell.clone(),
            credentials: connect.credentials.clone(),
            is_up,
            silent_beats: Arc::default(),
        })
    }

    /// Connects, trying again with growing pauses until somebody answers.
    pub async fn open_patiently(connect: &Connect) -> Result<Self, ConnectError> {
        let mut pause = Duration::from_millis(200);
        loop {
            match Self::open(connect).await {
                Err(ConnectError::Unreachable { url, problem }) => {
                    tracing::warn!(url, problem, retry_in = ?pause, "cannot reach NATS, trying again");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(Duration::from_secs(5));
                }
                other => return other,
            }
        }
    }

    /// The cell.
    pub fn cell(&self) -> &CellId {
        &self.cell
    }

    /// The credentials file it was opened with.
    pub fn credentials(&self) -> Option<&Path> {
        self.credentials.as_deref()
    }

    /// Whether the link is up; changes are seen.
    pub fn is_up(&self) -> watch::Receiver<bool> {
        self.is_up.clone()
    }

    /// What the server has sent so far, whatever it was.
    pub(super) fn bytes_heard(&self) -> u64 {
        self.client.statistics().in_bytes.load(Ordering::Relaxed)
    }

    /// Takes note of a beat: whether it failed and nothing arrived meanwhile. A link that was silent
    /// for two beats is taken for dead and made anew, long before its probes would notice.
    pub(super) async fn note_beat(&self, is_silent: bool) {
        if !is_silent {
            self.silent_beats.store(0, Ordering::Relaxed);
            return;
        }
        if self.silent_beats.fetch_add(1, Ordering::Relaxed) + 1 >= SILENT_BEATS_MAX {
            self.silent_beats.store(0, Ordering::Relaxed);
            tracing::warn!("nothing arrives from NATS, connecting anew");
            // Refused only where the client has ended.
            let _ = self.client.force_reconnect().await;
        }
    }

    /// Version of the server connected to.
    pub fn server_version(&self) -> String {
        self.client.server_info().version
    }

    /// Waits until everything published is on its way.
    pub async fn flush(&self) {
        // A link that is down has nothing more to give at shutdown.
        let _ = tokio::time::timeout(Duration::from_secs(2), self.client.flush()).await;
    }

    pub(crate) fn stream_name(&self, of: &str) -> String {
        format!("{of}_{}", self.cell)
    }

    pub(crate) async fn stream(&self, name: &str) -> Result<jetstream::stream::Stream<()>, String> {
        self.js
            .get_stream_no_info(name)
            .await
            .map_err(|e| e.to_string())
    }
}

/// Quick at first, for a server that restarts; then gentle.
fn reconnect_delay(attempts: usize) -> Duration {
    let doubled = 25_u64.saturating_mul(1 << attempts.min(6));
    Duration::from_millis(doubled.min(1_000))
}

fn on_event(event: &Event, up: &watch::Sender<bool>) {
    match event {
        Event::Connected => {
            tracing::info!("connected to NATS");
            // The first one is no change: whoever waits for a lost link to come back must not
            // be woken by it.
            up.send_if_modified(|is_up| !std::mem::replace(is_up, true));
        }
        Event::Disconnected => {
            tracing::warn!("lost the connection to NATS, reconnecting");
            up.send_replace(false);
        }
        Event::SlowConsumer(id) => {
            tracing::error!(id, "a subscription overflowed and lost messages");
        }
        other => tracing::debug!(event = %other, "NATS event"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_on_this_machine() {
        for local in [
            "nats://127.0.0.1:4222",
            "localhost",
            "tls://[::1]:4222",
            "127.0.0.9:1",
            "nats://u:p@localhost:4222",
        ] {
            assert!(is_local(local), "{local}");
        }
        for remote in [
            "nats://n1:4222",
            "10.0.0.1:4222",
            "tls://example.org",
            "localhost.example.org",
        ] {
            assert!(!is_local(remote), "{remote}");
        }
    }
}
