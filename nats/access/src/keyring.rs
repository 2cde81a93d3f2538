//! The keys of a cell on disk: whoever has them is its administrator.
//!
//! ```text
//! operator.nk  system.nk  cell.nk  clients.nk     seeds of the operator and its accounts
//! agents/<name>.nk                    seed of each agent's account
//! used/<id>                           one-time tokens that are used up
//! issued/<user>  revoked/<user>       users of all accounts but agents' (ledger.rs)
//! admin.creds  services.creds  operator.creds  client.creds  issuer.creds  system.creds
//! ```

use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use conductor_protocol::ids::{AgentId, CellId};
use nkeys::{KeyPair, KeyPairType};

use crate::claims;
use crate::creds::{Credentials, write_private};
use crate::jwt::{AccessError, invalid};
use crate::rights::{self, Rights};
pub use crate::standing::STANDING;
use crate::standing::SYSTEM;

/// The keys of one cell.
pub struct Keyring {
    pub(crate) dir: PathBuf,
    cell: CellId,
    operator: KeyPair,
    pub(crate) system: KeyPair,
    pub(crate) account: KeyPair,
    pub(crate) clients: KeyPair,
}

impl std::fmt::Debug for Keyring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keyring")
            .field("dir", &self.dir)
            .field("cell", &self.cell)
            .finish_non_exhaustive()
    }
}

/// An account's token, and which account it is of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountToken {
    /// The account's public key.
    pub account: String,
    /// The token.
    pub jwt: String,
}

impl Keyring {
    /// Opens the keys in `dir`; those that are not there are made.
    pub fn open_or_make(dir: &Path, cell: &CellId) -> Result<Self, AccessError> {
        private_dir(dir)?;
        private_dir(&dir.join("agents"))?;
        Ok(Self {
            operator: key(&dir.join("operator.nk"), KeyPairType::Operator)?,
            system: key(&dir.join("system.nk"), KeyPairType::Account)?,
            account: key(&dir.join("cell.nk"), KeyPairType::Account)?,
            clients: key(&dir.join("clients.nk"), KeyPairType::Account)?,
            dir: dir.to_owned(),
            cell: cell.clone(),
        })
    }

    /// The cell whose keys they are.
    pub fn cell(&self) -> &CellId {
        &self.cell
    }

    /// The operator's token, for the servers' configuration.
    pub fn operator_token(&self, now_s: u64) -> Result<String, AccessError> {
        claims::operator(&self.operator, &self.system.public_key(), now_s)
    }

    /// The system account's public key, for the servers' configuration.
    pub fn system_account(&self) -> String {
        self.system.public_key()
    }

    /// The accounts servers must know from the beginning: the system's, the cell's, its clients'.
    pub fn account_tokens(&self, now_s: u64) -> Result<[AccountToken; 3], AccessError> {
        let (operator, cell) = (&self.operator, &self.cell);
        let in_system = self.revoked_in(true)?;
        let revoked = self.revoked_in(false)?;
        let system = claims::system_account(&self.system, operator, &in_system, now_s)?;
        let of_cell = claims::cell_account(&self.account, operator, cell, &revoked, now_s)?;
        let by = &self.account;
        let clients = claims::clients_account(&self.clients, operator, by, cell, &revoked, now_s)?;
        let token = |account: &KeyPair, jwt| AccountToken {
            account: account.public_key(),
            jwt,
        };
        Ok([
            token(&self.system, system),
            token(&self.account, of_cell),
            token(&self.clients, clients),
        ])
    }

    /// The public key of the clients' account.
    pub fn clients_account_key(&self) -> String {
        self.clients.public_key()
    }

    /// The account of an agent, made where it is new. Credentials that were revoked stay so.
    pub fn agent_account(&self, agent: &AgentId, now_s: u64) -> Result<AccountToken, AccessError> {
        let account = self.agent_key(agent)?;
        let revoked = self.revoked_before(agent).map(|at| ("*".to_owned(), at));
        let revoked = revoked.into_iter().collect();
        let of = (&self.cell, agent);
        let jwt =
            claims::agent_account(&account, &self.operator, &self.account, of, &revoked, now_s)?;
        Ok(AccountToken {
            account: account.public_key(),
            jwt,
        })
    }

    /// Until when credentials of an agent that were issued are revoked.
    pub fn revoked_before(&self, agent: &AgentId) -> Option<u64> {
        let text = fs::read_to_string(self.revocation(agent)).ok()?;
        text.trim().parse().ok()
    }

    /// Revokes every credential of an agent that was issued until now.
    pub fn revoke(&self, agent: &AgentId, now_s: u64) -> Result<(), AccessError> {
        write_private(&self.revocation(agent), now_s.to_string().as_bytes())
    }

    fn revocation(&self, agent: &AgentId) -> PathBuf {
        self.dir.join("agents").join(format!("{agent}.revoked"))
    }

    /// Writes credentials for an agent, with a key of our making, where its process looks for them.
    pub fn write_agent_credentials(
        &self,
        agent: &AgentId,
        expires_s: Option<u64>,
        now_s: u64,
    ) -> Result<PathBuf, AccessError> {
        let path = self.dir.join("agents").join(format!("{agent}.creds"));
        self.agent_credentials(agent, expires_s, now_s)?
            .write(&path)?;
        Ok(path)
    }

    pub(crate) fn agent_key(&self, agent: &AgentId) -> Result<KeyPair, AccessError> {
        let path = self.dir.join("agents").join(format!("{agent}.nk"));
        key(&path, KeyPairType::Account)
    }

    /// The public key of an agent's account.
    pub fn agent_account_key(&self, agent: &AgentId) -> Result<String, AccessError> {
        Ok(self.agent_key(agent)?.public_key())
    }

    /// Agents that have an account.
    pub fn agents(&self) -> Vec<AgentId> {
        let entries = fs::read_dir(self.dir.join("agents"))
            .into_iter()
            .flatten()
            .flatten();
        let names = entries.filter_map(|e| {
            let path = e.path();
            let is_key = path.extension().is_some_and(|x| x == "nk");
            let name = path.file_stem()?.to_str()?.parse().ok()?;
            is_key.then_some(name)
        });
        let mut all: Vec<AgentId> = names.collect();
        all.sort();
        all
    }

    /// A token for an agent whose key is `user_key`, good until `expires_s`.
    pub fn agent_token(
        &self,
        agent: &AgentId,
        user_key: &str,
        expires_s: Option<u64>,
        now_s: u64,
    ) -> Result<String, AccessError> {
        let is_user = nkeys::from_public_key(user_key).is_ok() && user_key.starts_with('U');
        if !is_user {
            return Err(invalid("the agent's key", "not the public key of a user"));
        }
        let account = self.agent_key(agent)?;
        let rights = rights::agent(&self.cell, agent);
        claims::user(
            agent.as_str(),
            user_key,
            &account,
            &rights,
            expires_s,
            now_s,
        )
    }

    /// Credentials for an agent, with a key of our making.
    pub fn agent_credentials(
        &self,
        agent: &AgentId,
        expires_s: Option<u64>,
        now_s: u64,
    ) -> Result<Credentials, AccessError> {
        let user = KeyPair::new_user();
        let jwt = self.agent_token(agent, &user.public_key(), expires_s, now_s)?;
        Ok(Credentials {
            jwt,
            seed: seed(&user)?,
        })
    }

    /// Credentials within the cell's account. Which there are is kept, so that they can be revoked.
    pub fn credentials(
        &self,
        name: &str,
        rights: &Rights,
        expires_s: Option<u64>,
        now_s: u64,
    ) -> Result<Credentials, AccessError> {
        self.user(name, &self.account, rights, expires_s, now_s)
    }

    /// Credentials within the clients' account.
    pub fn client_credentials(
        &self,
        name: &str,
        rights: &Rights,
        expires_s: Option<u64>,
        now_s: u64,
    ) -> Result<Credentials, AccessError> {
        self.user(name, &self.clients, rights, expires_s, now_s)
    }

    /// Credentials that may tell the servers of accounts.
    pub fn system_credentials(&self, now_s: u64) -> Result<Credentials, AccessError> {
        self.user(SYSTEM, &self.system, &Rights::default(), None, now_s)
    }

    fn user(
        &self,
        name: &str,
        account: &KeyPair,
        rights: &Rights,
        expires_s: Option<u64>,
        now_s: u64,
    ) -> Result<Credentials, AccessError> {
        let user = KeyPair::new_user();
        let key = user.public_key();
        let jwt = claims::user(name, &key, account, rights, expires_s, now_s)?;
        self.note_issued(name, &key)?;
        Ok(Credentials {
            jwt,
            seed: seed(&user)?,
        })
    }

    /// Where a file of these keys is.
    pub fn path(&self, file: &str) -> PathBuf {
        self.dir.join(file)
    }
}

/// Makes a directory for its owner alone, where it is not there.
pub(crate) fn private_dir(path: &Path) -> Result<(), AccessError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|e| AccessError::File {
        path: path.display().to_string(),
        problem: e.to_string(),
    })
}

/// The key whose seed is in a file; made where there is none.
fn key(path: &Path, kind: KeyPairType) -> Result<KeyPair, AccessError> {
    let shown = path.display().to_string();
    match fs::read_to_string(path) {
        Ok(text) => {
            let key = KeyPair::from_seed(text.trim()).map_err(|e| invalid(&shown, e))?;
            if key.key_pair_type() == kind {
                Ok(key)
            } else {
                Err(invalid(&shown, "a key of another kind"))
            }
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            let key = KeyPair::new(kind);
            write_private(path, seed(&key)?.as_bytes())?;
            Ok(key)
        }
        Err(e) => Err(AccessError::File {
            path: shown,
            problem: e.to_string(),
        }),
    }
}

fn seed(key: &KeyPair) -> Result<String, AccessError> {
    key.seed().map_err(|e| invalid("a key", e))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jwt::verify;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn keys_are_made_once_and_for_their_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        let cell = CellId::default();
        let first = Keyring::open_or_make(dir.path(), &cell).unwrap();
        let again = Keyring::open_or_make(dir.path(), &cell).unwrap();
        assert_eq!(first.system_account(), again.system_account());
        let a1 = AgentId::from_log("a1");
        let account = first.agent_account(&a1, 7).unwrap();
        assert_eq!(
            again.agent_account(&a1, 7).unwrap().account,
            account.account
        );
        assert_eq!(first.agents(), [a1]);
        for file in ["operator.nk", "cell.nk", "agents/a1.nk"] {
            let mode = fs::metadata(first.path(file)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{file}");
        }
    }

    #[test]
    fn an_agents_token_names_it_and_its_account() {
        let dir = tempfile::tempdir().unwrap();
        let keys = Keyring::open_or_make(dir.path(), &CellId::default()).unwrap();
        let a1 = AgentId::from_log("a1");
        keys.revoke(&a1, 5).unwrap();
        let account = keys.agent_account(&a1, 7).unwrap();
        let claims = verify(&account.jwt).unwrap();
        assert_eq!(claims["nats"]["revocations"]["*"], 5);
        let creds = keys.agent_credentials(&a1, Some(99), 7).unwrap();
        let cell = CellId::default();
        assert_eq!(creds.rights().unwrap(), rights::agent(&cell, &a1));
        let all = keys.credentials("services", &rights::service(&cell), None, 7);
        assert_eq!(all.unwrap().rights().unwrap(), rights::service(&cell));
        let claims = verify(&creds.jwt).unwrap();
        assert_eq!(
            (&claims["name"], &claims["exp"]),
            (&"a1".into(), &99.into())
        );
        assert_eq!(claims["iss"], account.account);
        assert!(!format!("{creds:?}").contains(&creds.seed));
        assert!(keys.agent_token(&a1, "nonsense", None, 7).is_err());
    }
}
