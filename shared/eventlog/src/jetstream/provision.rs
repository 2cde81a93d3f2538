//! Making the streams, and refusing ones that would lose what they acknowledged.
//!
//! Idempotent. An existing log is never changed in a way that could lose data: what is
//! missing is added, what is unsafe is named and refused.

use std::time::Duration;

use async_nats::jetstream::stream::{
    self, Compression, DiscardPolicy, PersistenceMode, RetentionPolicy, StorageType,
};
use conductor_protocol::CellId;
use conductor_protocol::limits::PAYLOAD_BYTES_MAX;
use conductor_protocol::subject::{log_stream, log_subjects, submissions_of_namespaces};

use super::Connection;

/// Oldest server that is accepted (design section 5).
pub const SERVER_FLOOR: (u64, u64, u64) = (2, 14, 5);
/// Window in which the server itself drops a repeated append: an optimisation.
const DUPLICATE_WINDOW: Duration = Duration::from_secs(120);
/// Consumers the log may have; the server's own default is 1,000.
const CONSUMERS_MAX: i32 = 20_000;

/// A risk that an operator can accept by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Risk {
    /// The server does not sync each append to disk: a power loss takes acknowledged
    /// records with it.
    LazySync,
}

impl std::str::FromStr for Risk {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        match s {
            "lazy-sync" => Ok(Self::LazySync),
            other => Err(format!("{other:?} is no known risk; known: lazy-sync")),
        }
    }
}

/// How to provision.
#[derive(Clone, Debug, Default)]
pub struct Provision {
    /// Replicas of the streams, where they do not exist yet; 0 means 1.
    pub replicas: usize,
    /// Risks the operator accepts.
    pub accepted_risks: Vec<Risk>,
    /// The server's monitoring URL: only there its sync interval can be seen.
    pub monitor_url: Option<String>,
}

/// Whether an acknowledged append survives a power loss.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Durability {
    /// The server syncs before it acknowledges.
    Always,
    /// It syncs at this interval.
    Lazy(String),
    /// It cannot be seen from here.
    Unknown(String),
}

impl std::fmt::Display for Durability {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Always => f.write_str("fsync before every acknowledgement"),
            Self::Lazy(interval) => write!(f, "fsync only every {interval}"),
            Self::Unknown(why) => write!(f, "unknown: {why}"),
        }
    }
}

/// What was found and made.
#[derive(Clone, Debug)]
pub struct Provisioned {
    /// Version of the server.
    pub server: String,
    /// Whether the log was made just now.
    pub is_new: bool,
    /// Replicas of the log.
    pub replicas: usize,
    /// Whether acknowledged appends survive a power loss.
    pub durability: Durability,
    /// Sequence of the log's last record.
    pub last_seq: u64,
    /// Records up to it that the server itself says it does not have.
    pub missing: u64,
}

/// Why the log cannot be used as it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProvisionError {
    /// The server is too old.
    #[error(
        "nats-server {found} is older than {floor}: its log loses records in ways that were \
         fixed since, and fsync on replicated streams is about 30 times slower; run {floor} or newer"
    )]
    ServerTooOld {
        /// What runs.
        found: String,
        /// What is needed.
        floor: String,
    },
    /// JetStream is off, full, or not allowed.
    #[error("JetStream does not let us make {what}: {problem}")]
    Refused {
        /// The stream.
        what: String,
        /// What the server said.
        problem: String,
    },
    /// The log could lose what it acknowledged.
    #[error("the log {stream} is not safe: {}; {remedy}", problems.join("; "))]
    Unsafe {
        /// The stream.
        stream: String,
        /// Everything that is wrong with it.
        problems: Vec<String>,
        /// What to do.
        remedy: String,
    },
    /// Nobody answers.
    #[error("the log does not answer: {0}")]
    Unavailable(String),
}

impl Connection {
    /// Makes what is missing and checks what is there.
    pub async fn provision(&self, how: &Provision) -> Result<Provisioned, ProvisionError> {
        let server = self.server_version();
        check_version(&server)?;
        let (info, is_new) = self.log_as_made(how).await?;
        check_config(&info.config)?;
        let durability = durability(how.monitor_url.clone()).await;
        if let Durability::Lazy(interval) = &durability
            && !how.accepted_risks.contains(&Risk::LazySync)
        {
            return Err(ProvisionError::Unsafe {
                stream: info.config.name.clone(),
                problems: vec![format!(
                    "the server syncs only every {interval}, so a power loss takes \
                     acknowledged records with it"
                )],
                remedy: "set `sync_interval: always` in its jetstream block, or accept it by \
                         name with --accept-risk lazy-sync"
                    .to_owned(),
            });
        }
        let side = |e: crate::LogError| match e {
            crate::LogError::Unavailable(problem)
            | crate::LogError::Refused(problem)
            | crate::LogError::Lost(problem) => ProvisionError::Unavailable(problem),
        };
        // All at once: services may have no right to make any of them.
        self.ensure_presence().await.map_err(side)?;
        self.ensure_output().await.map_err(side)?;
        self.locks().await.map_err(side)?;
        self.positions().await.map_err(side)?;
        self.snapshots().await.map_err(side)?;
        self.ensure_artifacts().await.map_err(side)?;
        Ok(Provisioned {
            server,
            is_new,
            replicas: info.config.num_replicas,
            durability,
            last_seq: info.state.last_sequence,
            missing: missing(&info.state),
        })
    }

    /// Looks at the log as it is, and changes nothing.
    pub async fn inspect_log(&self, how: &Provision) -> Result<Provisioned, ProvisionError> {
        let server = self.server_version();
        check_version(&server)?;
        let name = log_stream(&self.cell);
        let stream = self
            .js
            .get_stream(&name)
            .await
            .map_err(|e| ProvisionError::Refused {
                what: name.clone(),
                problem: e.to_string(),
            })?;
        let info = stream.cached_info();
        check_config(&info.config)?;
        Ok(Provisioned {
            server,
            is_new: false,
            replicas: info.config.num_replicas,
            durability: durability(how.monitor_url.clone()).await,
            last_seq: info.state.last_sequence,
            missing: missing(&info.state),
        })
    }

    /// The log as the server made it, made or completed first where needed.
    async fn log_as_made(&self, how: &Provision) -> Result<(stream::Info, bool), ProvisionError> {
        let name = log_stream(&self.cell);
        let refused = |problem: String| ProvisionError::Refused {
            what: name.clone(),
            problem,
        };
        let wanted = log_config(self, how.replicas.max(1));
        let is_new = match self.js.get_stream(&name).await {
            Ok(stream) => {
                let mut config = stream.cached_info().config.clone();
                let has_changed = complete(&mut config, &wanted);
                // Nothing is added to a stream that we would refuse all the same.
                check_config(&config)?;
                if has_changed && let Err(e) = self.js.update_stream(&config).await {
                    let found = &stream.cached_info().config;
                    // Services have no right to; who submits in no namespace misses nothing.
                    if check_config(found).is_err() || !is_usable(found, &wanted, &self.cell) {
                        return Err(refused(e.to_string()));
                    }
                    tracing::warn!(
                        log = name,
                        "the log takes no subjects that name a namespace yet, so clients that were \
                         granted one cannot submit; run `conductor provision` with the \
                         administrator's credentials"
                    );
                }
                false
            }
            Err(_) => {
                self.js
                    .create_stream(wanted)
                    .await
                    .map_err(|e| refused(e.to_string()))?;
                true
            }
        };
        // Servers ignore what they do not know: only what is read back counts.
        let stream = self.js.get_stream(&name).await;
        let stream = stream.map_err(|e| ProvisionError::Unavailable(e.to_string()))?;
        Ok((stream.cached_info().clone(), is_new))
    }

    /// Replicas of the log, which the streams beside it follow.
    pub(crate) async fn log_replicas(&self) -> usize {
        match self.js.get_stream(log_stream(&self.cell)).await {
            Ok(stream) => stream.cached_info().config.num_replicas.max(1),
            Err(_) => 1,
        }
    }
}

fn log_config(connection: &Connection, replicas: usize) -> stream::Config {
    stream::Config {
        name: log_stream(&connection.cell),
        description: Some("The event log of a Conductor cell: append-only, never deleted".into()),
        subjects: log_subjects(&connection.cell),
        retention: RetentionPolicy::Limits,
        storage: StorageType::File,
        discard: DiscardPolicy::New,
        num_replicas: replicas,
        duplicate_window: DUPLICATE_WINDOW,
        max_message_size: PAYLOAD_BYTES_MAX as i32,
        max_consumers: CONSUMERS_MAX,
        deny_delete: true,
        deny_purge: true,
        allow_direct: true,
        compression: Some(Compression::None),
        ..Default::default()
    }
}

/// Adds to an existing log what can only help; returns whether anything changed.
fn complete(config: &mut stream::Config, wanted: &stream::Config) -> bool {
    let before = config.subjects.len();
    for subject in &wanted.subjects {
        if !config.subjects.contains(subject) {
            config.subjects.push(subject.clone());
        }
    }
    let mut has_changed = config.subjects.len() != before;
    for (flag, on) in [
        (&mut config.allow_direct, wanted.allow_direct),
        (&mut config.deny_delete, wanted.deny_delete),
        (&mut config.deny_purge, wanted.deny_purge),
    ] {
        has_changed |= on && !*flag;
        *flag |= on;
    }
    has_changed
}

/// Whether all that a log lacks is what only clients of namespaces need.
fn is_usable(found: &stream::Config, wanted: &stream::Config, cell: &CellId) -> bool {
    let optional = submissions_of_namespaces(cell);
    let mut needed = wanted.subjects.iter().filter(|s| **s != optional);
    needed.all(|s| found.subjects.contains(s)) && (found.allow_direct || !wanted.allow_direct)
}

/// Every sequence from 1 on is a record: what is fewer is lost.
fn missing(state: &stream::State) -> u64 {
    state.last_sequence.saturating_sub(state.messages)
}

fn check_version(found: &str) -> Result<(), ProvisionError> {
    let core = found.split(['-', '+']).next().unwrap_or_default();
    let mut parts = core.split('.').map(|p| p.parse::<u64>().unwrap_or(0));
    let mut next = || parts.next().unwrap_or(0);
    if (next(), next(), next()) >= SERVER_FLOOR {
        return Ok(());
    }
    let (major, minor, patch) = SERVER_FLOOR;
    let floor = format!("{major}.{minor}.{patch}");
    Err(ProvisionError::ServerTooOld {
        found: found.to_owned(),
        floor,
    })
}

/// Everything that could make this stream lose a record it acknowledged.
fn check_config(config: &stream::Config) -> Result<(), ProvisionError> {
    let mut problems = Vec::new();
    let mut check = |is_bad: bool, problem: &str| {
        if is_bad {
            problems.push(problem.to_owned());
        }
    };
    check(config.storage != StorageType::File, "it is kept in memory");
    check(
        config.retention != RetentionPolicy::Limits,
        "it drops records once consumed",
    );
    check(
        !config.max_age.is_zero(),
        "it drops records by age (max_age)",
    );
    check(
        config.max_messages_per_subject > 0,
        "it drops records by count per subject",
    );
    let has_limit = config.max_bytes > 0 || config.max_messages > 0;
    let drops_old = config.discard == DiscardPolicy::Old;
    check(
        has_limit && drops_old,
        "it drops its oldest records when it is full (max_msgs or max_bytes, with discard old)",
    );
    check(
        !config.deny_delete,
        "records can be deleted (deny_delete is off)",
    );
    check(!config.deny_purge, "it can be purged (deny_purge is off)");
    check(
        config.allow_rollup,
        "a publish can roll it up (allow_rollup)",
    );
    check(
        config.allow_message_ttl,
        "a publish can give a record a TTL (allow_msg_ttl)",
    );
    check(config.no_ack, "it acknowledges nothing (no_ack)");
    check(config.sealed, "it is sealed and takes nothing more");
    check(
        config.persist_mode == Some(PersistenceMode::Async),
        "it acknowledges before it writes (persist_mode async)",
    );
    if problems.is_empty() {
        return Ok(());
    }
    Err(ProvisionError::Unsafe {
        stream: config.name.clone(),
        problems,
        remedy: "Conductor does not change an existing log; mend its configuration with the \
                 nats CLI, or name another cell with --cell"
            .to_owned(),
    })
}

/// Reads the sync interval where it can be seen.
async fn durability(monitor_url: Option<String>) -> Durability {
    let Some(url) = monitor_url else {
        return Durability::Unknown(
            "the server's sync interval is only visible on its monitoring port; \
             name it with --nats-monitor-url"
                .to_owned(),
        );
    };
    let asked = tokio::task::spawn_blocking(move || read_sync_interval(&url)).await;
    match asked {
        Ok(Ok(durability)) => durability,
        Ok(Err(problem)) => Durability::Unknown(problem),
        Err(e) => Durability::Unknown(e.to_string()),
    }
}

fn read_sync_interval(url: &str) -> Result<Durability, String> {
    let url = format!("{}/varz", url.trim_end_matches('/'));
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .timeout_global(Some(Duration::from_secs(3)))
        .build()
        .into();
    let mut answer = agent.get(&url).call().map_err(|e| format!("{url}: {e}"))?;
    let body = answer
        .body_mut()
        .read_to_string()
        .map_err(|e| format!("{url}: {e}"))?;
    let varz: serde_json::Value = serde_json::from_str(&body).map_err(|e| format!("{url}: {e}"))?;
    let config = varz
        .pointer("/jetstream/config")
        .ok_or(format!("{url}: JetStream is off"))?;
    if config
        .get("sync_always")
        .and_then(serde_json::Value::as_bool)
        == Some(true)
    {
        return Ok(Durability::Always);
    }
    match config
        .get("sync_interval")
        .and_then(serde_json::Value::as_u64)
    {
        Some(ns) => Ok(Durability::Lazy(format!("{:?}", Duration::from_nanos(ns)))),
        None => Err(format!("{url} does not say how often it syncs")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_servers_are_refused() {
        assert!(check_version("2.15.1").is_ok());
        assert!(check_version("2.14.5").is_ok());
        assert!(check_version("2.15.0-dev").is_ok());
        for old in ["2.14.4", "2.12.8", "2.9.25", "1.4.1", ""] {
            assert!(check_version(old).is_err(), "{old}");
        }
    }

    #[test]
    fn a_log_can_do_without_subjects_of_namespaces_alone() {
        let cell = CellId::default();
        let wanted = stream::Config {
            subjects: log_subjects(&cell),
            allow_direct: true,
            ..Default::default()
        };
        let without = |subject: &str| {
            let mut found = wanted.clone();
            found.subjects.retain(|s| s != subject);
            assert!(complete(&mut found.clone(), &wanted), "it is added");
            is_usable(&found, &wanted, &cell)
        };
        assert!(without("conductor.local.submit.*.*"));
        assert!(!without("conductor.local.submit.*"));
        assert!(!without("conductor.local.control"));
    }

    #[test]
    fn every_way_to_lose_records_is_named() {
        let good = stream::Config {
            deny_delete: true,
            deny_purge: true,
            ..Default::default()
        };
        assert_eq!(check_config(&good), Ok(()));
        let bad = stream::Config {
            max_age: Duration::from_secs(1),
            storage: StorageType::Memory,
            allow_rollup: true,
            ..Default::default()
        };
        let Err(ProvisionError::Unsafe { problems, .. }) = check_config(&bad) else {
            panic!("accepted an unsafe log");
        };
        assert_eq!(problems.len(), 5, "{problems:?}");
    }
}
