//! Who has credentials in the cell's account, its clients' and the system's, and which of them are revoked.
//!
//! A file for each user, called by its public key: below `issued` with the name it was made for,
//! below `revoked` with the second since when it is refused. Nothing of it is secret. An account's
//! token names all that are revoked in it, so that servers which begin with it refuse them too.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::Path;

use crate::claims::Revocations;
use crate::creds::{Credentials, write_private};
use crate::jwt::{AccessError, invalid, verify};
use crate::keyring::{Keyring, STANDING, private_dir};
use crate::standing::SYSTEM;

/// Users that were given credentials.
const ISSUED: &str = "issued";
/// Users whose credentials are refused.
const REVOKED: &str = "revoked";

impl Keyring {
    /// Keeps others from changing who has credentials until it is dropped: two that revoke at once
    /// would each tell the servers of their own alone.
    pub fn lock(&self) -> Result<File, AccessError> {
        let path = self.dir.join("lock");
        let locked = File::create(&path).and_then(|file| file.lock().map(|()| file));
        locked.map_err(|e| failed(&path, &e))
    }

    /// Keeps that a user was given credentials.
    pub(crate) fn note_issued(&self, name: &str, user_key: &str) -> Result<(), AccessError> {
        private_dir(&self.dir.join(ISSUED))?;
        let path = self.dir.join(ISSUED).join(user_key);
        write_private(&path, name.as_bytes())
    }

    /// Names that were given credentials.
    pub fn issued_names(&self) -> Result<Vec<String>, AccessError> {
        let mut names: Vec<String> = self.entries(ISSUED)?.into_values().collect();
        names.sort();
        names.dedup();
        Ok(names)
    }

    /// Revokes all credentials of a name, but for those that stand beside the keys where it is one of
    /// [`STANDING`]; returns how many of that name are refused now. The servers still have to be told.
    pub fn revoke_name(&self, name: &str, now_s: u64) -> Result<usize, AccessError> {
        let newest = if STANDING.contains(&name) {
            self.newest(name)?
        } else {
            None
        };
        let issued = self.entries(ISSUED)?.into_iter();
        let of_name = issued.filter(|(user, n)| n == name && newest.as_ref() != Some(user));
        let users: Vec<String> = of_name.map(|(user, _)| user).collect();
        for user in &users {
            self.note_revoked(user, now_s)?;
        }
        Ok(users.len())
    }

    /// Revokes credentials by their file, whoever they were made for.
    pub fn revoke_credentials(&self, path: &Path, now_s: u64) -> Result<(), AccessError> {
        let user = user_of(path)?;
        let is_newest = |name: &&str| self.newest(name).is_ok_and(|n| n.as_ref() == Some(&user));
        if let Some(name) = STANDING.iter().find(|name| is_newest(name)) {
            let shown = path.display().to_string();
            return Err(invalid(
                &shown,
                format!(
                    "the {name} credentials in use; make others first: conductor access rotate {name}"
                ),
            ));
        }
        self.note_revoked(&user, now_s)
    }

    /// Users whose credentials are refused, with the second since when.
    pub(crate) fn revoked(&self) -> Result<Revocations, AccessError> {
        let entries = self.entries(REVOKED)?.into_iter();
        let read = |(user, at): (String, String)| match at.trim().parse() {
            Ok(at) => Ok((user, at)),
            Err(e) => Err(invalid(&format!("{REVOKED}/{user}"), e)),
        };
        entries.map(read).collect()
    }

    /// Those of them in the system's account, or in the cell's and its clients'; whom nobody knows in
    /// both.
    pub(crate) fn revoked_in(&self, is_system: bool) -> Result<Revocations, AccessError> {
        let (issued, mut revoked) = (self.entries(ISSUED)?, self.revoked()?);
        let is_there = |user: &String| {
            let name = issued.get(user);
            name.is_none_or(|name| (name == SYSTEM) == is_system)
        };
        revoked.retain(|user, _| is_there(user));
        Ok(revoked)
    }

    /// The user of the credentials that stand beside the keys.
    pub(crate) fn newest(&self, name: &str) -> Result<Option<String>, AccessError> {
        let path = self.path(&format!("{name}.creds"));
        path.exists().then(|| user_of(&path)).transpose()
    }

    /// What was revoked before stays as it was.
    pub(crate) fn note_revoked(&self, user: &str, now_s: u64) -> Result<(), AccessError> {
        private_dir(&self.dir.join(REVOKED))?;
        let path = self.dir.join(REVOKED).join(user);
        if path.exists() {
            return Ok(());
        }
        write_private(&path, now_s.to_string().as_bytes())
    }

    /// Users of a part, with what is kept of each. One that cannot be read is an error: a token that
    /// leaves it out would let in whom it must not.
    fn entries(&self, part: &str) -> Result<BTreeMap<String, String>, AccessError> {
        let dir = self.dir.join(part);
        let files = match fs::read_dir(&dir) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
            files => files.map_err(|e| failed(&dir, &e))?,
        };
        let mut entries = BTreeMap::new();
        for file in files {
            let path = file.map_err(|e| failed(&dir, &e))?.path();
            let user = path.file_name().and_then(|name| name.to_str());
            // One that is being written has another end.
            let Some(user) = user.filter(|u| u.starts_with('U') && !u.contains('.')) else {
                continue;
            };
            let kept = fs::read_to_string(&path).map_err(|e| failed(&path, &e))?;
            entries.insert(user.to_owned(), kept);
        }
        Ok(entries)
    }
}

fn failed(path: &Path, e: &io::Error) -> AccessError {
    AccessError::File {
        path: path.display().to_string(),
        problem: e.to_string(),
    }
}

/// Whose credentials are in a file.
fn user_of(path: &Path) -> Result<String, AccessError> {
    let claims = verify(&Credentials::read(path)?.jwt)?;
    let user = claims.get("sub").and_then(serde_json::Value::as_str);
    user.map(str::to_owned)
        .ok_or_else(|| invalid(&path.display().to_string(), "it names no user"))
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
        assert_eq!(keys.revoke_name("services", 9).unwrap(), 1, "as before");
        let people = keys.credentials("ada", &rights::operator(&cell), None, 9);
        let people = people.unwrap();
        assert_eq!(keys.revoke_name("ada", 10).unwrap(), 1);
        assert_eq!(keys.revoke_name("nobody", 10).unwrap(), 0);
        assert!(keys.issued_names().unwrap().contains(&"ada".to_owned()));
        // As whoever opens them later sees it.
        let again = Keyring::open_or_make(dir.path(), &cell).unwrap();
        again.write_credentials(10).unwrap();
        let kept = Credentials::read(&keys.path("services.creds")).unwrap();
        assert_eq!(kept.jwt, new.jwt, "what is good is kept");
        let expected = Revocations::from([(user(&old), 8), (user(&people), 10)]);
        assert_eq!(again.revoked().unwrap(), expected);
        let [_, cell, clients] = again.account_tokens(11).unwrap();
        for account in [cell, clients] {
            let claims = verify(&account.jwt).unwrap();
            assert_eq!(claims["nats"]["revocations"], serde_json::json!(expected));
        }
        assert!(!expected.contains_key(&user(&new)));
    }

    #[test]
    fn what_was_made_before_there_was_a_ledger_is_revoked_too() {
        let dir = tempfile::tempdir().unwrap();
        let keys = Keyring::open_or_make(dir.path(), &CellId::default()).unwrap();
        let old = keys.write_standing("admin", 5).unwrap();
        let old = Credentials::read(&old).unwrap();
        fs::remove_dir_all(keys.path(ISSUED)).unwrap();
        let copy = keys.path("copy.creds");
        old.write(&copy).unwrap();
        assert!(keys.revoke_credentials(&copy, 6).is_err(), "it is in use");
        keys.write_standing("admin", 7).unwrap();
        assert_eq!(keys.revoke_name("admin", 8).unwrap(), 1);
        let ada = keys.credentials("ada", &rights::administrator(), None, 5);
        ada.unwrap().write(&copy).unwrap();
        keys.revoke_credentials(&copy, 9).unwrap();
        let revoked = keys.revoked().unwrap();
        assert_eq!(revoked.get(&user(&old)), Some(&8));
        assert_eq!(revoked.len(), 2);
    }

    #[test]
    fn a_ledger_that_cannot_be_read_lets_nobody_in() {
        let dir = tempfile::tempdir().unwrap();
        let keys = Keyring::open_or_make(dir.path(), &CellId::default()).unwrap();
        keys.write_standing("admin", 5).unwrap();
        private_dir(&keys.path(REVOKED)).unwrap();
        fs::write(keys.path(REVOKED).join("UX"), "soon").unwrap();
        assert!(keys.account_tokens(6).is_err());
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
