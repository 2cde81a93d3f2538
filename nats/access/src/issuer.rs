//! Who is given credentials: an agent that has good ones, or a token that was never used.

use std::fs::OpenOptions;
use std::path::PathBuf;

use conductor_protocol::AgentId;
use data_encoding::BASE64URL_NOPAD;
use nkeys::KeyPair;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::claims;
use crate::creds::Credentials;
use crate::jwt::{AccessError, invalid, verify};
use crate::keyring::Keyring;
use crate::rights;

/// The tag of a token that is good for enrolment alone.
const ENROLMENT: &str = "enrolment";

/// What an agent asks with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// The token it has: its last credentials', or that of its enrolment.
    pub token: String,
    /// Public key it wants credentials for; its seed never leaves it.
    pub user_key: String,
}

/// What it is answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// A token for its key.
    Token(String),
    /// Why there is none.
    Refused(String),
}

/// What a one-time token holds, as one word.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct OneTime {
    jwt: String,
    seed: String,
}

/// Makes the word that somebody hands to an agent: good once, until it expires, and for nothing but
/// asking for credentials.
pub fn one_time_token(
    keys: &Keyring,
    agent: &AgentId,
    expires_s: u64,
    now_s: u64,
) -> Result<String, AccessError> {
    let user = KeyPair::new_user();
    let rights = rights::enrolment(keys.cell(), agent);
    let account = keys.agent_key(agent)?;
    let tags = &[ENROLMENT];
    let who = (agent.as_str(), user.public_key());
    let jwt = claims::tagged_user(who, &account, &rights, tags, Some(expires_s), now_s)?;
    let seed = user.seed().map_err(|e| invalid("a key", e))?;
    let word = serde_json::to_vec(&OneTime { jwt, seed }).map_err(|e| invalid("the token", e))?;
    Ok(BASE64URL_NOPAD.encode(&word))
}

/// The credentials that a one-time token stands for.
pub fn read_one_time_token(word: &str) -> Result<Credentials, AccessError> {
    let bytes = BASE64URL_NOPAD.decode(word.trim().as_bytes());
    let bytes = bytes.map_err(|e| invalid("the enrolment token", e))?;
    let OneTime { jwt, seed } =
        serde_json::from_slice(&bytes).map_err(|e| invalid("the enrolment token", e))?;
    Ok(Credentials { jwt, seed })
}

/// Decides upon a request by `agent`, as the servers know it, and notes a token that is used up
/// before anything is given for it.
pub fn issue(
    keys: &Keyring,
    agent: &AgentId,
    request: &Request,
    expires_s: Option<u64>,
    now_s: u64,
) -> Result<String, AccessError> {
    let claims = verify(&request.token)?;
    let text = |pointer: &str| claims.pointer(pointer).and_then(Value::as_str);
    let number = |pointer: &str| claims.pointer(pointer).and_then(Value::as_u64);
    let refuse = |why: &str| Err(invalid("the token", why));
    if text("/iss") != Some(keys.agent_key(agent)?.public_key().as_str()) {
        return refuse("it is of another agent, or of another cell");
    }
    if number("/exp").is_some_and(|at| at <= now_s) {
        return refuse("it has expired; enrol the agent anew");
    }
    let issued = number("/iat").unwrap_or(0);
    if keys.revoked_before(agent).is_some_and(|at| issued <= at) {
        return refuse("it was revoked");
    }
    let tags = claims.pointer("/nats/tags").and_then(Value::as_array);
    let is_enrolment = tags.is_some_and(|tags| tags.iter().any(|t| t == ENROLMENT));
    if is_enrolment && !use_up(keys, text("/jti").unwrap_or_default())? {
        return refuse("it was used before; enrol the agent anew");
    }
    keys.agent_token(agent, &request.user_key, expires_s, now_s)
}

/// Notes that a token is used; `false` if it was.
fn use_up(keys: &Keyring, id: &str) -> Result<bool, AccessError> {
    let is_id = !id.is_empty() && id.bytes().all(|b| b.is_ascii_alphanumeric());
    if !is_id {
        return Err(invalid("the token", "it has no id"));
    }
    let path: PathBuf = keys.path("used").join(id);
    let failed = |e: std::io::Error| AccessError::File {
        path: path.display().to_string(),
        problem: e.to_string(),
    };
    std::fs::create_dir_all(keys.path("used")).map_err(failed)?;
    match OpenOptions::new().write(true).create_new(true).open(&path) {
        Ok(file) => file.sync_all().map(|()| true).map_err(failed),
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => Ok(false),
        Err(e) => Err(failed(e)),
    }
}

/// When a token expires, in seconds since the Unix epoch.
pub fn expiry(token: &str) -> Option<u64> {
    verify(token).ok()?.get("exp")?.as_u64()
}

/// How long a token is good in all, in seconds.
pub fn lifetime(token: &str) -> Option<u64> {
    let claims = verify(token).ok()?;
    let number = |name: &str| claims.get(name).and_then(Value::as_u64);
    number("exp")?.checked_sub(number("iat")?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use conductor_protocol::CellId;

    fn request(token: &str) -> Request {
        Request {
            token: token.to_owned(),
            user_key: KeyPair::new_user().public_key(),
        }
    }

    #[test]
    fn a_one_time_token_is_good_once_and_only_for_its_agent() {
        let dir = tempfile::tempdir().unwrap();
        let keys = Keyring::open_or_make(dir.path(), &CellId::default()).unwrap();
        let (a1, a2) = (AgentId::from_log("a1"), AgentId::from_log("a2"));
        keys.agent_account(&a2, 10).unwrap();
        let word = one_time_token(&keys, &a1, 100, 10).unwrap();
        let token = read_one_time_token(&word).unwrap();
        assert!(issue(&keys, &a2, &request(&token.jwt), None, 20).is_err());
        let given = issue(&keys, &a1, &request(&token.jwt), Some(500), 20).unwrap();
        assert_eq!(expiry(&given), Some(500));
        let again = issue(&keys, &a1, &request(&token.jwt), None, 21).unwrap_err();
        assert!(again.to_string().contains("used before"), "{again}");
        // What was given for it may be renewed, until it is revoked.
        assert!(issue(&keys, &a1, &request(&given), Some(900), 30).is_ok());
        assert!(issue(&keys, &a1, &request(&given), Some(900), 500).is_err());
        keys.revoke(&a1, 40).unwrap();
        let revoked = issue(&keys, &a1, &request(&given), Some(900), 50).unwrap_err();
        assert!(revoked.to_string().contains("revoked"), "{revoked}");
        assert!(issue(&keys, &a1, &request("nonsense"), None, 50).is_err());
    }

    #[test]
    fn an_expired_token_is_worth_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let keys = Keyring::open_or_make(dir.path(), &CellId::default()).unwrap();
        let a1 = AgentId::from_log("a1");
        let token = read_one_time_token(&one_time_token(&keys, &a1, 100, 10).unwrap()).unwrap();
        let refused = issue(&keys, &a1, &request(&token.jwt), None, 100).unwrap_err();
        assert!(refused.to_string().contains("expired"), "{refused}");
        assert!(read_one_time_token("%%").is_err());
    }
}
