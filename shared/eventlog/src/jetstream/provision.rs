//! Making the streams, and refusing ones that would lose what they acknowledged.
//!
//! Idempotent. An existing log is never changed in a way that could lose data: what is
//! missing is added, what is unsafe is named and refused.

mod durability;
mod shape;

use async_nats::jetstream::context::{GetStreamError, GetStreamErrorKind};
use async_nats::jetstream::{ErrorCode, stream};
use conductor_protocol::subject::log_stream;

pub use self::durability::Durability;
use self::shape::{check_config, complete, is_usable, log_config};
use super::Connection;

/// Oldest server that is accepted (design section 5).
pub const SERVER_FLOOR: (u64, u64, u64) = (2, 14, 5);

/// A risk that an operator can accept by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Risk {
    /// The server does not sync each append to disk: a power loss takes acknowledged
    /// records with it.
    LazySync,
    /// A log was there and the servers show none: making another has them remove what they could not
    /// read of it.
    NewLog,
}

impl std::str::FromStr for Risk {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        match s {
            "lazy-sync" => Ok(Self::LazySync),
            "new-log" => Ok(Self::NewLog),
            other => Err(format!(
                "{other:?} is no known risk; known: lazy-sync, new-log"
            )),
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
    /// There was a log, and there is none now.
    #[error(
        "there are locks of the cell, but the servers show no log {stream}: it was deleted, or they \
         cannot read it; nothing was made or removed"
    )]
    Gone {
        /// The stream.
        stream: String,
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
        let durability = durability::seen_on(how.monitor_url.clone()).await;
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
            durability: durability::seen_on(how.monitor_url.clone()).await,
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
        let wanted = log_config(&self.cell, how.replicas.max(1));
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
            Err(e) if is_not_there(&e) => {
                self.check_never_there(&name, how).await?;
                self.js
                    .create_stream(wanted)
                    .await
                    .map_err(|e| refused(e.to_string()))?;
                true
            }
            Err(e) => return Err(unknown(&name, &e)),
        };
        // Servers ignore what they do not know: only what is read back counts.
        let stream = self.js.get_stream(&name).await;
        let stream = stream.map_err(|e| ProvisionError::Unavailable(e.to_string()))?;
        Ok((stream.cached_info().clone(), is_new))
    }

    /// Refuses to make a log where there was one. A server does not show a stream that it cannot read,
    /// and removes its files when it is told to make one of that name (seen with 2.15.1).
    async fn check_never_there(&self, name: &str, how: &Provision) -> Result<(), ProvisionError> {
        if how.accepted_risks.contains(&Risk::NewLog) {
            return Ok(());
        }
        // Made after the log.
        let beside = format!("KV_{}", self.stream_name("LOCKS"));
        match self.js.get_stream(&beside).await {
            Ok(_) => {}
            Err(e) if is_not_there(&e) => return Ok(()),
            Err(e) => return Err(unknown(&beside, &e)),
        }
        // Somebody may have made both just now.
        match self.js.get_stream(name).await {
            Err(e) if is_not_there(&e) => Err(ProvisionError::Gone {
                stream: name.to_owned(),
            }),
            _ => Err(ProvisionError::Unavailable("it is being made".to_owned())),
        }
    }

    /// Replicas of the log, which the streams beside it follow.
    pub(crate) async fn log_replicas(&self) -> usize {
        match self.js.get_stream(log_stream(&self.cell)).await {
            Ok(stream) => stream.cached_info().config.num_replicas.max(1),
            Err(_) => 1,
        }
    }
}

/// Whether the servers say that there is no such stream; all else says nothing of it.
fn is_not_there(e: &GetStreamError) -> bool {
    matches!(e.kind(), GetStreamErrorKind::JetStream(e) if e.error_code() == ErrorCode::STREAM_NOT_FOUND)
}

/// Whether a stream is there is not known: JetStream is off, or nobody answers.
fn unknown(stream: &str, e: &GetStreamError) -> ProvisionError {
    match e.kind() {
        GetStreamErrorKind::JetStream(problem) => ProvisionError::Refused {
            what: stream.to_owned(),
            problem: problem.to_string(),
        },
        _ => ProvisionError::Unavailable(e.to_string()),
    }
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
}
