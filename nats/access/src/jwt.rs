//! NATS JWTs (ADR-14): claims as JSON, signed by an nkey.

use data_encoding::{BASE32_NOPAD, BASE64URL_NOPAD};
use nkeys::KeyPair;
use serde_json::Value;
use sha2::{Digest, Sha256};

/// Why keys or credentials cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// A key or a token is not what it should be.
    #[error("{what} is not valid: {problem}")]
    Invalid {
        /// Which.
        what: String,
        /// What is wrong.
        problem: String,
    },
    /// A file cannot be read or written.
    #[error("cannot use {path}: {problem}")]
    File {
        /// Which.
        path: String,
        /// Why.
        problem: String,
    },
}

pub(crate) fn invalid(what: &str, problem: impl std::fmt::Display) -> AccessError {
    AccessError::Invalid {
        what: what.to_owned(),
        problem: problem.to_string(),
    }
}

/// Signs claims: `iat`, `iss` and `jti` are filled in.
pub fn sign(mut claims: Value, issuer: &KeyPair, now_s: u64) -> Result<String, AccessError> {
    let encode = |claims: &Value| serde_json::to_vec(claims).map_err(|e| invalid("claims", e));
    let Some(fields) = claims.as_object_mut() else {
        return Err(invalid("claims", "not an object"));
    };
    fields.insert("iat".to_owned(), now_s.into());
    fields.insert("iss".to_owned(), issuer.public_key().into());
    fields.insert("jti".to_owned(), "".into());
    let id = BASE32_NOPAD.encode(&Sha256::digest(encode(&claims)?));
    if let Some(fields) = claims.as_object_mut() {
        fields.insert("jti".to_owned(), id.into());
    }
    let head = br#"{"typ":"JWT","alg":"ed25519-nkey"}"#;
    let body = encode(&claims)?;
    let text = [head.as_slice(), &body].map(|part| BASE64URL_NOPAD.encode(part));
    let text = text.join(".");
    let signature = issuer.sign(text.as_bytes());
    let signature = signature.map_err(|e| invalid("the issuer's key", e))?;
    Ok(format!("{text}.{}", BASE64URL_NOPAD.encode(&signature)))
}

/// The claims of a token whose signature is that of its issuer. Who the issuer is, and whether the
/// token is still good, is for the caller to judge.
pub fn verify(token: &str) -> Result<Value, AccessError> {
    let bad = |problem: &str| invalid("the token", problem);
    let (signed, signature) = token
        .trim()
        .rsplit_once('.')
        .ok_or(bad("it has no signature"))?;
    let (_, body) = signed.split_once('.').ok_or(bad("it has no claims"))?;
    let decode = |text: &str| BASE64URL_NOPAD.decode(text.as_bytes()).ok();
    let body = decode(body).ok_or(bad("its claims are not base64"))?;
    let claims: Value = serde_json::from_slice(&body).map_err(|e| invalid("the token", e))?;
    let issuer = claims.get("iss").and_then(Value::as_str);
    let issuer = issuer.and_then(|key| KeyPair::from_public_key(key).ok());
    let issuer = issuer.ok_or(bad("it names no issuer"))?;
    let signature = decode(signature).ok_or(bad("its signature is not base64"))?;
    let is_signed = issuer.verify(signed.as_bytes(), &signature).is_ok();
    is_signed
        .then_some(claims)
        .ok_or(bad("its signature is wrong"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_was_signed_is_verified_and_what_was_changed_is_not() {
        let issuer = KeyPair::new_account();
        let token = sign(json!({"sub": "x", "nats": {"type": "user"}}), &issuer, 7).unwrap();
        let claims = verify(&token).unwrap();
        assert_eq!(claims["iat"], 7);
        assert_eq!(claims["iss"], issuer.public_key());
        assert_eq!(claims["jti"].as_str().unwrap().len(), 52);
        let parts: Vec<&str> = token.split('.').collect();
        let other = sign(json!({"sub": "y"}), &issuer, 7).unwrap();
        let body = other.split('.').nth(1).unwrap();
        let forged = [parts[0], body, parts[2]].join(".");
        assert!(verify(&forged).is_err());
        assert!(verify("nothing").is_err());
    }
}
