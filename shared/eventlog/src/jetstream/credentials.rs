//! Credentials, read anew at every connection: whoever replaces the file has rotated them.

use std::path::{Path, PathBuf};

use async_nats::{Auth, AuthError};
use nkeys::KeyPair;

/// The text between the lines that begin and end a part of a credentials file.
fn part<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    let begin = format!("-----BEGIN {name}-----");
    let (_, rest) = text.split_once(&begin)?;
    let (part, _) = rest.split_once("---")?;
    Some(part.trim()).filter(|p| !p.is_empty())
}

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

/// Whether a credentials file can be used, to say so before anything is tried.
pub(super) fn check(path: &Path) -> Result<(), String> {
    let text = std::fs::read_to_string(path);
    let text = text.map_err(|e| format!("cannot read credentials {}: {e}", path.display()))?;
    let proved = prove(&text, b"");
    proved
        .map(|_| ())
        .map_err(|e| format!("credentials {}: {e}", path.display()))
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

    #[test]
    fn a_challenge_is_signed_with_the_seed_of_the_file() {
        let key = KeyPair::new_user();
        let seed = key.seed().unwrap();
        let text = format!(
            "-----BEGIN NATS USER JWT-----\na.b.c\n------END NATS USER JWT------\n\n\
             -----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
        );
        let auth = prove(&text, b"challenge").unwrap();
        assert_eq!(auth.jwt.as_deref(), Some("a.b.c"));
        assert!(key.verify(b"challenge", &auth.signature.unwrap()).is_ok());
        assert!(prove("nothing", b"").is_err());
    }
}
