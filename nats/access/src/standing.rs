//! Credentials of those that are always there, beside the keys.

use std::path::PathBuf;

use crate::creds::Credentials;
use crate::jwt::{AccessError, invalid, verify};
use crate::keyring::Keyring;
use crate::rights::{self, Rights};

/// Who tells the servers of accounts.
pub(crate) const SYSTEM: &str = "system";
/// Who submits to any queue.
const CLIENT: &str = "client";
/// Those that are always there, and have their credentials beside the keys.
pub const STANDING: [&str; 6] = ["admin", "services", "operator", CLIENT, "issuer", SYSTEM];

impl Keyring {
    /// Writes the credentials of those that are always there, where they have none that are good.
    pub fn write_credentials(&self, now_s: u64) -> Result<(), AccessError> {
        for name in STANDING {
            if !self.is_good(name)? {
                self.write_standing(name, now_s)?;
            }
        }
        Ok(())
    }

    /// Writes new credentials for one of [`STANDING`]; returns where. Those before them go on to be
    /// good until they are revoked.
    pub fn write_standing(&self, name: &str, now_s: u64) -> Result<PathBuf, AccessError> {
        let newest = self.newest(name)?;
        if let Some(before) = &newest {
            // Made before there was a ledger, it is not in it.
            self.note_issued(name, before)?;
        }
        let is_in_cell = self.issuer_of(name) == Some(self.account.public_key());
        let credentials = match name {
            SYSTEM => self.system_credentials(now_s)?,
            CLIENT => self.client_credentials(name, &self.rights_of(name)?, None, now_s)?,
            name => self.credentials(name, &self.rights_of(name)?, None, now_s)?,
        };
        let path = self.path(&format!("{name}.creds"));
        credentials.write(&path)?;
        // Until clients had an account they were in the cell's, where they heard what was not for them.
        if let Some(before) = newest.filter(|_| name == CLIENT && is_in_cell) {
            self.note_revoked(&before, now_s)?;
        }
        Ok(path)
    }

    /// The account whose key signed the token beside the keys.
    fn issuer_of(&self, name: &str) -> Option<String> {
        let credentials = Credentials::read(&self.path(&format!("{name}.creds"))).ok()?;
        let claims = verify(&credentials.jwt).ok()?;
        claims.get("iss")?.as_str().map(str::to_owned)
    }

    /// The rights of one of [`STANDING`].
    fn rights_of(&self, name: &str) -> Result<Rights, AccessError> {
        let cell = self.cell();
        Ok(match name {
            "admin" => rights::administrator(),
            "services" => rights::service(cell),
            "operator" => rights::operator(cell),
            CLIENT => rights::client(cell, rights::shared_answers(cell), &["*".to_owned()], &[]),
            "issuer" => rights::issuer(cell),
            SYSTEM => Rights::default(),
            other => return Err(invalid(other, "nobody who is always there")),
        })
    }

    /// Whether the credentials beside the keys are what would be made now: by these keys, with these
    /// rights, and not revoked.
    fn is_good(&self, name: &str) -> Result<bool, AccessError> {
        let Ok(credentials) = Credentials::read(&self.path(&format!("{name}.creds"))) else {
            return Ok(false);
        };
        let account = match name {
            SYSTEM => &self.system,
            CLIENT => &self.clients,
            _ => &self.account,
        };
        let Ok(claims) = verify(&credentials.jwt) else {
            return Ok(false);
        };
        let claim = |name: &str| claims.get(name).and_then(serde_json::Value::as_str);
        let user = claim("sub").unwrap_or_default();
        Ok(claim("iss") == Some(&account.public_key())
            && claims.get("exp").is_none()
            && credentials.rights()? == self.rights_of(name)?
            && !self.revoked()?.contains_key(user))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use conductor_protocol::ids::CellId;

    /// Keys of before clients had an account: what they have hears too much, so it is refused.
    #[test]
    fn clients_of_the_cells_account_get_credentials_of_their_own() {
        let dir = tempfile::tempdir().unwrap();
        let cell = CellId::default();
        let keys = Keyring::open_or_make(dir.path(), &cell).unwrap();
        let before = keys.credentials("client", &rights::operator(&cell), None, 5);
        let path = keys.path("client.creds");
        before.unwrap().write(&path).unwrap();
        let before = keys.newest("client").unwrap().unwrap();
        std::fs::remove_file(keys.path("clients.nk")).unwrap();
        let keys = Keyring::open_or_make(dir.path(), &cell).unwrap();
        keys.write_credentials(6).unwrap();
        assert_eq!(keys.issuer_of("client"), Some(keys.clients_account_key()));
        let [_, in_cell, in_clients] = keys.account_tokens(7).unwrap();
        for account in [in_cell, in_clients] {
            let claims = verify(&account.jwt).unwrap();
            assert_eq!(claims["nats"]["revocations"][&before], 6);
        }
        // Once more changes nothing.
        let good = Credentials::read(&path).unwrap();
        keys.write_credentials(8).unwrap();
        assert_eq!(Credentials::read(&path).unwrap(), good);
    }
}
