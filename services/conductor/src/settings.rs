//! Settings: flags, then `CONDUCTOR_*`, then `conductor.toml`, then defaults.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use conductor_eventlog::jetstream::{Connect, Connection, Tls};
use conductor_protocol::CellId;
use serde::Deserialize;

use crate::exit::{Exit, Failure, Outcome};
use crate::out::Format;
use crate::run::access::keys_dir;

/// Where the client port of a cell is when nothing says otherwise.
const URL_DEFAULT: &str = "nats://127.0.0.1:4222";

/// Flags every command takes.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Options of every command")]
pub(crate) struct Global {
    /// NATS servers, comma-separated [default: those of the `conductor up` in the data
    /// directory, else nats://127.0.0.1:4222]
    #[arg(long, global = true, env = "CONDUCTOR_NATS_URL", value_name = "URL")]
    pub(crate) nats_url: Option<String>,
    /// Monitoring URL of the server, to see how it syncs
    #[arg(
        long,
        global = true,
        env = "CONDUCTOR_NATS_MONITOR_URL",
        value_name = "URL"
    )]
    pub(crate) nats_monitor_url: Option<String>,
    /// NATS credentials file
    #[arg(long, global = true, env = "CONDUCTOR_CREDS", value_name = "FILE")]
    pub(crate) creds: Option<PathBuf>,
    /// CA whose servers are trusted (PEM)
    #[arg(long, global = true, env = "CONDUCTOR_TLS_CA", value_name = "FILE")]
    pub(crate) tls_ca: Option<PathBuf>,
    /// Certificate of our own (PEM), where servers want one
    #[arg(
        long,
        global = true,
        env = "CONDUCTOR_TLS_CERT",
        value_name = "FILE",
        requires = "tls_key"
    )]
    pub(crate) tls_cert: Option<PathBuf>,
    /// Its key
    #[arg(
        long,
        global = true,
        env = "CONDUCTOR_TLS_KEY",
        value_name = "FILE",
        requires = "tls_cert"
    )]
    pub(crate) tls_key: Option<PathBuf>,
    /// Accept links to other machines that are not encrypted
    #[arg(long, global = true, env = "CONDUCTOR_ALLOW_PLAINTEXT")]
    pub(crate) allow_plaintext: bool,
    /// The cell [default: local]
    #[arg(long, global = true, env = "CONDUCTOR_CELL", value_name = "NAME")]
    pub(crate) cell: Option<String>,
    /// Data of the standalone mode [default: ~/.conductor]
    #[arg(long, global = true, env = "CONDUCTOR_DATA_DIR", value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Where a service shows metrics and health, or `off` [default: 127.0.0.1:9090, or another
    /// free port where that is taken]
    #[arg(
        long,
        global = true,
        env = "CONDUCTOR_METRICS_ADDR",
        value_name = "ADDR"
    )]
    pub(crate) metrics_addr: Option<String>,
    /// Where traces are shown, such as http://127.0.0.1:16686/trace
    #[arg(long, global = true, env = "CONDUCTOR_TRACE_URL", value_name = "URL")]
    pub(crate) trace_url: Option<String>,
    /// How data is written
    #[arg(
        long,
        short = 'o',
        global = true,
        env = "CONDUCTOR_OUTPUT",
        default_value = "table"
    )]
    pub(crate) output: Format,
    /// No colour
    #[arg(long, global = true)]
    pub(crate) no_color: bool,
    /// What is logged: error, warn, info, debug, or a filter
    #[arg(long, global = true, env = "CONDUCTOR_LOG", value_name = "LEVEL")]
    pub(crate) log: Option<String>,
}

/// `conductor.toml`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    nats_url: Option<String>,
    nats_monitor_url: Option<String>,
    creds: Option<PathBuf>,
    tls_ca: Option<PathBuf>,
    tls_cert: Option<PathBuf>,
    tls_key: Option<PathBuf>,
    #[serde(default)]
    allow_plaintext: bool,
    cell: Option<String>,
    data_dir: Option<PathBuf>,
    log: Option<String>,
    trace_url: Option<String>,
    metrics_addr: Option<String>,
}

/// Where metrics and health are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MetricsAddr {
    /// Nowhere.
    Off,
    /// Here, or nearby where that is taken: nobody named it.
    Unnamed(SocketAddr),
    /// Here.
    Named(SocketAddr),
}

impl MetricsAddr {
    /// Of loopback alone: what is shown is for those who are let in on purpose.
    const DEFAULT: Self = Self::Unnamed(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9090));

    fn read(text: Option<&str>) -> Outcome<Self> {
        match text {
            None => Ok(Self::DEFAULT),
            Some("off") => Ok(Self::Off),
            Some(text) => text.parse().map(Self::Named).map_err(|_| {
                Failure::usage(format!(
                    "--metrics-addr {text:?} is neither an address such as 0.0.0.0:9090 nor off"
                ))
            }),
        }
    }
}

/// Settings in force.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// `None` where nothing names servers.
    pub(crate) nats_url: Option<String>,
    pub(crate) nats_monitor_url: Option<String>,
    pub(crate) creds: Option<PathBuf>,
    pub(crate) tls: Tls,
    pub(crate) cell: CellId,
    pub(crate) data_dir: PathBuf,
    pub(crate) output: Format,
    pub(crate) log: Option<String>,
    pub(crate) trace_url: Option<String>,
    pub(crate) metrics: MetricsAddr,
}

impl Settings {
    pub(crate) fn resolve(global: Global) -> Outcome<Self> {
        let file = read_file()?;
        let cell = global
            .cell
            .or(file.cell)
            .unwrap_or_else(|| "local".to_owned());
        let cell = cell
            .parse()
            .map_err(|e| Failure::usage(format!("--cell {cell:?}: {e}")))?;
        let metrics_addr = global.metrics_addr.or(file.metrics_addr);
        let data_dir = global.data_dir.or(file.data_dir);
        let home = || PathBuf::from(std::env::var_os("HOME").unwrap_or_default());
        Ok(Self {
            nats_url: global.nats_url.or(file.nats_url),
            nats_monitor_url: global.nats_monitor_url.or(file.nats_monitor_url),
            creds: global.creds.or(file.creds),
            tls: Tls {
                ca: global.tls_ca.or(file.tls_ca),
                identity: global
                    .tls_cert
                    .or(file.tls_cert)
                    .zip(global.tls_key.or(file.tls_key)),
                allows_plaintext: global.allow_plaintext || file.allow_plaintext,
            },
            cell,
            // Attempts have working directories of their own.
            data_dir: std::path::absolute(data_dir.unwrap_or_else(|| home().join(".conductor")))?,
            output: global.output,
            log: global.log.or(file.log),
            trace_url: global.trace_url.or(file.trace_url),
            metrics: MetricsAddr::read(metrics_addr.as_deref())?,
        })
    }

    /// How to reach the servers of the cell.
    pub(crate) fn connect(&self, name: &str) -> Connect {
        let of_up = || read_trimmed(&self.data_dir.join("nats.url"));
        let up = self.nats_url.is_none().then(of_up).flatten();
        // Whoever can read the data directory operates what runs in it.
        let of_up = || {
            let path = keys_dir(&self.data_dir).join("operator.creds");
            (up.is_some() && path.is_file()).then_some(path)
        };
        let credentials = self.creds.clone().or_else(of_up);
        let url = self.nats_url.clone().or(up);
        let url = url.unwrap_or_else(|| URL_DEFAULT.to_owned());
        Connect {
            tls: self.tls.clone(),
            credentials,
            ..Connect::to(url, name, self.cell.clone())
        }
    }

    /// Where the server can be monitored, if anything says.
    pub(crate) fn monitor_url(&self) -> Option<String> {
        let of_up = || {
            self.nats_url
                .is_none()
                .then(|| read_trimmed(&self.data_dir.join("nats.monitor")))?
        };
        self.nats_monitor_url.clone().or_else(of_up)
    }

    /// Connects once, for a command that wants an answer now.
    pub(crate) async fn open(&self) -> Outcome<Connection> {
        let limit = std::time::Duration::from_secs(5);
        let connect = self.connect("conductor-cli");
        match tokio::time::timeout(limit, Connection::open(&connect)).await {
            Ok(connection) => Ok(connection?),
            Err(_) => {
                let message = format!("NATS at {} does not answer", connect.url);
                Err(Failure::new(Exit::Unreachable, message))
            }
        }
    }
}

fn read_trimmed(path: &Path) -> Option<String> {
    std::fs::read_to_string(path)
        .ok()
        .map(|s| s.trim().to_owned())
        .filter(|s| !s.is_empty())
}

fn read_file() -> Outcome<File> {
    let config = std::env::var_os("XDG_CONFIG_HOME").map_or_else(
        || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".config"),
        PathBuf::from,
    );
    let candidates = [
        PathBuf::from("conductor.toml"),
        config.join("conductor/conductor.toml"),
    ];
    let Some(path) = candidates.into_iter().find(|p| p.is_file()) else {
        return Ok(File::default());
    };
    let bad = |e: String| Failure::usage(format!("{}: {e}", path.display()));
    let text = std::fs::read_to_string(&path).map_err(|e| bad(e.to_string()))?;
    toml::from_str(&text).map_err(|e| bad(e.to_string()))
}
