//! Who has credentials in the cell's account and the system's, and which of them are revoked.
//!
//! A file for each user, called by its public key: below `issued` with the name it was made for,
//! below `revoked` with the second since when it is refused. Nothing of it is secret. An account's
//! token names all that are revoked in it, so that servers which begin with it refuse them too.

use std::fs;
use std::path::PathBuf;

use crate::claims::Revocations;
use crate::creds::{Credentials, write_private};
use crate::jwt::{AccessError, verify};
use crate::keyring::{Keyring, STANDING, private_dir};

impl Keyring {
    /// Keeps that a user was given credentials.
    pub(crate) fn note_issued(&self, name: &str, user_key: &str) -> Result<(), AccessError> {
        private_dir(&self.ledger("issued"))?;
        write_private(&self.ledger("issued").join(user_key), name.as_bytes())
    }

    /// Names that were given credentials.
    pub fn issued_names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.entries("issued").map(|(_, name)| name).collect();
        names.sort();
        names.dedup();
        names
    }

    /// Revokes all credentials of a name, but for those that stand beside the keys where it is one of
    /// [`STANDING`]; returns how many. The servers still have to be told.
    pub fn revoke_name(&self, name: &str, now_s: u64) -> Result<usize, AccessError> {
        let newest = match STANDING.contains(&name) {
            true => self.newest(name)?,
            false => None,
        };
        let revoked = self.revoked();
        let of_name = self.entries("issued").filter(|(_, n)| n == name);
        let old: Vec<String> = of_name
            .map(|(user, _)| user)
            .filter(|user| newest.as_ref() != Some(user) && !revoked.contains_key(user))
            .collect();
        private_dir(&self.ledger("revoked"))?;
        for user in &old {
            let path = self.ledger("revoked").join(user);
            write_private(&path, now_s.to_string().as_bytes())?;
        }
        Ok(old.len())
    }

    /// Users whose credentials are refused, with the second since when.
    pub(crate) fn revoked(&self) -> Revocations {
        let entries = self.entries("revoked");
        entries
            .filter_map(|(user, at)| Some((user, at.trim().parse().ok()?)))
            .collect()
    }

    /// The user of the credentials that stand beside the keys.
    fn newest(&self, name: &str) -> Result<Option<String>, AccessError> {
        let path = self.path(&format!("{name}.creds"));
        if !path.exists() {
            return Ok(None);
        }
        let claims = verify(&Credentials::read(&path)?.jwt)?;
        Ok(claims["sub"].as_str().map(str::to_owned))
    }

    fn ledger(&self, part: &str) -> PathBuf {
        self.dir.join(part)
    }

    /// Users of a part, with what is kept of each.
    fn entries(&self, part: &str) -> impl Iterator<Item = (String, String)> {
        let files = fs::read_dir(self.ledger(part)).into_iter().flatten();
        files.flatten().filter_map(|file| {
            let user = file.file_name().into_string().ok()?;
            // One that is being written has another end.
            let is_whole = user.starts_with('U') && !user.contains('.');
            let kept = fs::read_to_string(file.path()).ok()?;
            is_whole.then_some((user, kept))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rights;
    use conductor_protocol::ids::CellId;

    fn user(credentials: &Credentials) -> String {
        let claims = verify(&credentials.jwt).unwrap();
        claims["sub"].as_str().unwrap().to_owned()
    }

    #[test]
    fn what_is_revoked_stays_so_and_the_newest_does_not_go() {
        let dir = tempfile::tempdir().unwrap();
        let cell = CellId::default();
        let keys = Keyring::open_or_make(dir.path(), &cell).unwrap();
        keys.write_credentials(5).unwrap();
        let old = Credentials::read(&keys.path("services.creds")).unwrap();
        assert_eq!(keys.revoke_name("services", 6).unwrap(), 0, "it is in use");
        keys.write_standing("services", 7).unwrap();
        let new = Credentials::read(&keys.path("services.creds")).unwrap();
        assert_eq!(new.rights().unwrap(), old.rights().unwrap());
        assert_eq!(keys.revoke_name("services", 8).unwrap(), 1);
        assert_eq!(keys.revoke_name("services", 9).unwrap(), 0, "once");
        let people = keys.credentials("ada", &rights::operator(&cell), None, 9);
        let people = people.unwrap();
        assert_eq!(keys.revoke_name("ada", 10).unwrap(), 1);
        assert_eq!(keys.revoke_name("nobody", 10).unwrap(), 0);
        assert!(keys.issued_names().contains(&"ada".to_owned()));
        // As whoever opens them later sees it.
        let again = Keyring::open_or_make(dir.path(), &cell).unwrap();
        let expected = Revocations::from([(user(&old), 8), (user(&people), 10)]);
        assert_eq!(again.revoked(), expected);
        for token in again.account_tokens(11).unwrap() {
            let claims = verify(&token.jwt).unwrap();
            let told = &claims["nats"]["revocations"];
            assert_eq!(told[user(&old)], 8);
            assert!(told.get(user(&new)).is_none());
        }
    }

    #[test]
    fn only_those_that_are_always_there_are_made_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let keys = Keyring::open_or_make(dir.path(), &CellId::default()).unwrap();
        assert!(keys.write_standing("ada", 5).is_err());
        for name in STANDING {
            assert!(keys.write_standing(name, 5).unwrap().exists());
        }
    }
}
