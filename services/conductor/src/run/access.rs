//! Keys and credentials of the standalone mode: made by itself, kept in the data directory.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use conductor_access::{AccessError, Keyring};
use conductor_nats::OperatorMode;
use conductor_protocol::{AgentId, CellId};

use super::stack::Credentials;
use crate::exit::{Failure, Outcome};

/// Where keys and credentials are, below the data directory.
const KEYS: &str = "keys";

/// The keys of a local server, and what it is told of them.
#[derive(Debug)]
pub(super) struct LocalAccess {
    keys: Keyring,
    operator: OperatorMode,
}

/// Seconds since the Unix epoch.
pub(crate) fn now_s() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| now.as_secs())
}

/// Where the keys of a data directory are.
pub(crate) fn keys_dir(data: &Path) -> PathBuf {
    data.join(KEYS)
}

impl LocalAccess {
    /// Makes what is missing, credentials for everybody who is always there, and for `agents`.
    pub(super) fn prepare(data: &Path, cell: &CellId, agents: &[AgentId]) -> Outcome<Self> {
        let now = now_s();
        let keys = Keyring::open_or_make(&keys_dir(data), cell)?;
        keys.write_credentials(now)?;
        let jwt_dir = data.join("nats").join("jwt");
        std::fs::create_dir_all(&jwt_dir)?;
        let mut tokens = keys.account_tokens(now)?.to_vec();
        for agent in agents {
            tokens.push(keys.agent_account(agent, now)?);
            let expires = now + super::issuer::GOOD_FOR.as_secs();
            keys.write_agent_credentials(agent, Some(expires), now)?;
        }
        // Those that were enrolled before.
        for agent in keys.agents() {
            if !agents.contains(&agent) {
                tokens.push(keys.agent_account(&agent, now)?);
            }
        }
        for token in tokens {
            std::fs::write(jwt_dir.join(format!("{}.jwt", token.account)), token.jwt)?;
        }
        let operator = OperatorMode {
            token: keys.operator_token(now)?,
            system_account: keys.system_account(),
            jwt_dir,
        };
        Ok(Self { keys, operator })
    }

    /// The keys.
    pub(super) fn keys(&self) -> &Keyring {
        &self.keys
    }

    /// The keys, for whoever issues credentials.
    pub(super) fn into_keys(self) -> Keyring {
        self.keys
    }

    /// What the server is told.
    pub(super) fn operator_mode(&self) -> &OperatorMode {
        &self.operator
    }

    /// Credentials of orchestrator, scheduler and projector.
    pub(super) fn services(&self) -> PathBuf {
        self.keys.path("services.creds")
    }

    /// Credentials of somebody who submits to any queue.
    pub(super) fn client(&self) -> Outcome<conductor_access::Credentials> {
        let path = self.keys.path("client.creds");
        Ok(conductor_access::Credentials::read(&path)?)
    }

    /// The other credentials.
    pub(super) fn credentials(&self) -> Credentials {
        Credentials {
            admin: self.keys.path("admin.creds"),
            agents: self.keys.path("agents"),
            client: self.keys.path("client.creds"),
        }
    }
}

impl From<AccessError> for Failure {
    fn from(e: AccessError) -> Self {
        let hint = match e {
            AccessError::File { .. } => {
                "free some space there, or name another directory with --data-dir"
            }
            AccessError::Invalid { .. } => {
                "have others made: conductor access --help, conductor agent enroll --help"
            }
        };
        Failure::new(crate::exit::Exit::Failure, e.to_string()).hint(hint)
    }
}
