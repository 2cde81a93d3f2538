//! Credentials, read anew at every connection: whoever replaces the file has rotated them.

use std::path::{Path, PathBuf};

use async_nats::{Auth, AuthError};
use conductor_protocol::credentials::part;
use conductor_protocol::ids::is_valid_name;
use conductor_protocol::subject::private_inbox;
use data_encoding::BASE64URL_NOPAD;
use nkeys::KeyPair;
use serde_json::Value;

/// Proves to a server who we are: the token, and its challenge signed.
fn prove(text: &str, nonce: &[u8]) -> Result<Auth, String> {
    let jwt = part(text, "NATS USER JWT").ok_or("it holds no token")?;
    let seed = part(text, "USER NKEY SEED").ok_or("it holds no seed")?;
    let key = KeyPair::from_seed(seed).map_err(|e| format!("its seed is not valid: {e}"))?;
    let signature = key.sign(nonce).map_err(|e| e.to_string())?;
    let mut auth = Auth::new();
    auth.jwt = Some(jwt.to_owned());
    auth.signature = Some(signature);
    Ok(auth)
}

/// Whether a credentials file can be used, to say so before anything is tried; returns the prefix of
/// the inboxes that are its user's alone, where it has any.
pub(super) fn check(path: &Path) -> Result<Option<String>, String> {
    let text = std::fs::read_to_string(path);
    let text = text.map_err(|e| format!("cannot read credentials {}: {e}", path.display()))?;
    let proved = prove(&text, b"");
    proved.map_err(|e| format!("credentials {}: {e}", path.display()))?;
    Ok(part(&text, "NATS USER JWT").and_then(inbox_prefix))
}

/// The prefix of a user's own inboxes, as far as its token lets it subscribe there. Servers judge the
/// token; here it is only read.
fn inbox_prefix(jwt: &str) -> Option<String> {
    let payload = BASE64URL_NOPAD.decode(jwt.split('.').nth(1)?.as_bytes());
    let claims: Value = serde_json::from_slice(&payload.ok()?).ok()?;
    let name = claims.get("name")?.as_str()?;
    let own = private_inbox(name);
    // Without a list everything is allowed.
    let allowed = claims.pointer("/nats/sub/allow").and_then(Value::as_array);
    let is_allowed = allowed.is_none_or(|list| {
        let all = format!("{own}.>");
        list.is_empty() || list.iter().any(|subject| *subject == all.as_str())
    });
    (is_valid_name(name) && is_allowed).then_some(own)
}

/// Answers a server's challenge with what is in the file now.
pub(super) async fn answer(path: PathBuf, nonce: Vec<u8>) -> Result<Auth, AuthError> {
    let text = tokio::fs::read_to_string(&path)
        .await
        .map_err(AuthError::new)?;
    prove(&text, &nonce).map_err(AuthError::new)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_challenge_is_signed_with_the_seed_of_the_file() {
        let key = KeyPair::new_user();
        let seed = key.seed().unwrap();
        let text = conductor_protocol::credentials::render("a.b.c", &seed);
        let auth = prove(&text, b"challenge").unwrap();
        assert_eq!(auth.jwt.as_deref(), Some("a.b.c"));
        assert!(key.verify(b"challenge", &auth.signature.unwrap()).is_ok());
        assert!(prove("nothing", b"").is_err());
    }

    #[test]
    fn answers_come_where_the_token_lets_its_user_alone_hear_them() {
        let prefix = |claims: Value| {
            let payload = BASE64URL_NOPAD.encode(claims.to_string().as_bytes());
            inbox_prefix(&format!("head.{payload}.signature"))
        };
        let hears = |subjects: &[&str]| json!({"name": "ci", "nats": {"sub": {"allow": subjects}}});
        let own = Some("_INBOX_OF.ci".to_owned());
        assert_eq!(prefix(hears(&["x", "_INBOX_OF.ci.>"])), own);
        assert_eq!(prefix(json!({"name": "ci", "nats": {"sub": {}}})), own);
        assert_eq!(prefix(hears(&["_INBOX.>", "_INBOX_OF.cia.>"])), None);
        assert_eq!(prefix(json!({"name": "a.>", "nats": {}})), None);
        assert_eq!(prefix(json!({"nats": {}})), None);
        assert_eq!(inbox_prefix("nonsense"), None);
    }
}
