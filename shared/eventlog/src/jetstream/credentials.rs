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
/// the inboxes that are its user's alone, where it has such.
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
    let heard = claims.pointer("/nats/sub/allow")?.as_array()?;
    let all = format!("{own}.>");
    let is_heard = heard.iter().any(|subject| *subject == all.as_str());
    (is_valid_name(name) && is_heard).then_some(own)
}

/// Answers a server's challenge with what is in the file now. A connection has its inboxes for good:
/// with credentials that hear others it would be deaf, so it does not come about.
pub(super) async fn answer(
    path: PathBuf,
    nonce: Vec<u8>,
    inbox: Option<String>,
) -> Result<Auth, AuthError> {
    let text = tokio::fs::read_to_string(&path)
        .await
        .map_err(AuthError::new)?;
    if part(&text, "NATS USER JWT").and_then(inbox_prefix) != inbox {
        let path = path.display();
        tracing::error!(%path, "credentials of another user, who hears elsewhere: start again");
        return Err(AuthError::new("credentials of another user"));
    }
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

    #[tokio::test]
    async fn a_connection_does_not_go_on_with_credentials_that_hear_elsewhere() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.creds");
        let seed = KeyPair::new_user().seed().unwrap();
        let claims = json!({"name": "b", "nats": {"sub": {"allow": ["_INBOX_OF.b.>"]}}});
        let payload = BASE64URL_NOPAD.encode(claims.to_string().as_bytes());
        let text = conductor_protocol::credentials::render(&format!("a.{payload}.c"), &seed);
        std::fs::write(&path, text).unwrap();
        let tried = |inbox: &str| answer(path.clone(), Vec::new(), Some(inbox.to_owned()));
        assert!(tried("_INBOX_OF.b").await.is_ok());
        assert!(tried("_INBOX_OF.a").await.is_err());
        assert!(answer(path.clone(), Vec::new(), None).await.is_err());
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
        assert_eq!(prefix(json!({"name": "ci", "nats": {"sub": {}}})), None);
        assert_eq!(prefix(hears(&["_INBOX.>", "_INBOX_OF.cia.>"])), None);
        assert_eq!(prefix(json!({"name": "a.>", "nats": {}})), None);
        assert_eq!(prefix(json!({"nats": {}})), None);
        assert_eq!(inbox_prefix("nonsense"), None);
    }
}
