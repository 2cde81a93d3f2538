//! Credentials as NATS clients read them: a token and the seed of its key, in one file.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use conductor_protocol::credentials::{part, render};
use data_encoding::BASE64URL_NOPAD;
use nkeys::KeyPair;
use serde_json::Value;

use crate::jwt::{AccessError, invalid, verify};
use crate::rights::Rights;

/// A user's token and the seed of its key.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The token.
    pub jwt: String,
    /// The seed: whoever has it is the user.
    pub seed: String,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").finish_non_exhaustive()
    }
}

impl Credentials {
    /// Reads a file.
    pub fn read(path: &Path) -> Result<Self, AccessError> {
        let text = std::fs::read_to_string(path).map_err(|e| AccessError::File {
            path: path.display().to_string(),
            problem: e.to_string(),
        })?;
        let held = |name: &str| part(&text, name).map(str::to_owned);
        let shown = path.display().to_string();
        let lacks = |what: &str| invalid(&shown, format!("it holds no {what}"));
        Ok(Self {
            jwt: held("NATS USER JWT").ok_or(lacks("token"))?,
            seed: held("USER NKEY SEED").ok_or(lacks("seed"))?,
        })
    }

    /// The file's text.
    pub fn render(&self) -> String {
        render(&self.jwt, &self.seed)
    }

    /// What proves to a server that we are the user: its challenge, signed.
    pub fn sign(&self, nonce: &[u8]) -> Result<String, AccessError> {
        let key = KeyPair::from_seed(&self.seed).map_err(|e| invalid("the seed", e))?;
        let signature = key.sign(nonce).map_err(|e| invalid("the seed", e))?;
        Ok(BASE64URL_NOPAD.encode(&signature))
    }

    /// What the token says its user may do: the servers go by the same.
    pub fn rights(&self) -> Result<Rights, AccessError> {
        let claims = verify(&self.jwt)?;
        let list = |path: &str| -> Vec<String> {
            let subjects = claims.pointer(path).and_then(Value::as_array);
            let texts = subjects.into_iter().flatten().filter_map(Value::as_str);
            texts.map(str::to_owned).collect()
        };
        Ok(Rights {
            publish: list("/nats/pub/allow"),
            publish_not: list("/nats/pub/deny"),
            subscribe: list("/nats/sub/allow"),
            subscribe_not: list("/nats/sub/deny"),
        })
    }

    /// Writes the file, for its owner alone, whole or not at all.
    pub fn write(&self, path: &Path) -> Result<(), AccessError> {
        write_private(path, self.render().as_bytes())
    }
}

/// A user's key of our making: public key and seed.
pub fn new_user() -> Result<(String, String), AccessError> {
    let user = KeyPair::new_user();
    let seed = user.seed().map_err(|e| invalid("a key", e))?;
    Ok((user.public_key(), seed))
}

/// Writes a file for its owner alone, whole or not at all.
pub(crate) fn write_private(path: &Path, bytes: &[u8]) -> Result<(), AccessError> {
    let failed = |e: std::io::Error| AccessError::File {
        path: path.display().to_string(),
        problem: e.to_string(),
    };
    let part = path.with_extension("part");
    // One that was left half-written would keep its old mode.
    let _ = std::fs::remove_file(&part);
    let mut options = OpenOptions::new();
    let file = options.write(true).create_new(true).mode(0o600).open(&part);
    let mut file = file.map_err(failed)?;
    file.write_all(bytes).map_err(failed)?;
    file.sync_all().map_err(failed)?;
    std::fs::rename(&part, path).map_err(failed)
}
