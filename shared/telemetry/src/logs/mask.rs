//! Secrets that got into a line do not get out of the process.

use std::borrow::Cow;
use std::io::{self, Write};
use std::sync::Arc;

use regex::Regex;
use tracing_subscriber::fmt::MakeWriter;

/// What stands in a secret's place.
const MASKED: &str = "[masked]";
/// Shorter values of variables are no secrets, and would mask half of everything.
const SECRET_LEN_MIN: usize = 8;
/// Names of variables that hold secrets end so.
const SECRET_NAMES: [&str; 7] = [
    "KEY",
    "TOKEN",
    "SECRET",
    "PASSWORD",
    "PASS",
    "PWD",
    "CREDENTIALS",
];
/// … but for those of places.
const PLACES: [&str; 2] = ["PWD", "OLDPWD"];
/// What looks like a secret, and what of it is kept.
const PATTERNS: [(&str, &str); 6] = [
    // Keys by the prefixes their makers gave them.
    (
        r"\b(?:sk-|ghp_|gho_|github_pat_|glpat-|xox[abprs]-|AKIA|SU[A-Z2-7]{8})[A-Za-z0-9_\-]{8,}",
        MASKED,
    ),
    (
        r"(?i)\b(bearer|basic) +[A-Za-z0-9._~+/=\-]{8,}",
        "$1 [masked]",
    ),
    // Of a URL the user and password.
    (r"([a-z][a-z0-9+.\-]*://)[^/@\s]+@", "$1[masked]@"),
    (
        r#"(?i)\b(password|passwd|secret|api_?key|access_?token|auth_?token)(["']?\s*[=:]\s*["']?)[^\s"',;&]+"#,
        "$1$2[masked]",
    ),
    (
        r"\beyJ[A-Za-z0-9_\-]+\.[A-Za-z0-9_\-]+\.[A-Za-z0-9_\-]*",
        MASKED,
    ),
    (
        r"-----BEGIN [^-]+-----[\s\S]*?(?:-----END [^-]+-----|$)",
        MASKED,
    ),
];

/// What is masked.
#[derive(Debug)]
pub(super) struct Mask {
    patterns: Vec<(Regex, &'static str)>,
    known: Vec<String>,
}

impl Mask {
    /// Everything that looks like a secret, and the values of variables that are named like one.
    pub(super) fn of_env(vars: impl Iterator<Item = (String, String)>) -> Self {
        let is_secret = |(name, value): &(String, String)| {
            value.len() >= SECRET_LEN_MIN
                && !PLACES.contains(&name.as_str())
                && SECRET_NAMES.iter().any(|end| name.ends_with(end))
        };
        let patterns = PATTERNS
            .iter()
            .filter_map(|(pattern, kept)| Some((Regex::new(pattern).ok()?, *kept)))
            .collect();
        Self {
            patterns,
            known: vars.filter(is_secret).map(|(_, value)| value).collect(),
        }
    }

    /// The text without secrets.
    pub(super) fn apply<'t>(&self, text: &'t str) -> Cow<'t, str> {
        let mut text = Cow::Borrowed(text);
        for secret in &self.known {
            if text.contains(secret.as_str()) {
                text = Cow::Owned(text.replace(secret.as_str(), MASKED));
            }
        }
        for (pattern, kept) in &self.patterns {
            if pattern.is_match(&text) {
                text = Cow::Owned(pattern.replace_all(&text, *kept).into_owned());
            }
        }
        text
    }
}

/// Standard error, without secrets.
#[derive(Clone, Debug)]
pub(super) struct Masked(pub(super) Arc<Mask>);

impl<'a> MakeWriter<'a> for Masked {
    type Writer = Self;
    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

impl Write for Masked {
    /// Lines come whole: a secret is never cut in two.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(line);
        let masked = self.0.apply(&text);
        io::stderr().lock().write_all(masked.as_bytes())?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mask() -> Mask {
        let vars = [
            ("MY_TOKEN", "hush-hush-hush"),
            ("SHORT_KEY", "a"),
            ("PATH", "/usr/local/bin"),
        ];
        Mask::of_env(vars.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())))
    }

    #[test]
    fn all_patterns_can_be_read() {
        assert_eq!(mask().patterns.len(), PATTERNS.len());
    }

    #[test]
    fn secrets_do_not_get_out() {
        for (text, masked) in [
            (
                "connect to nats://me:pw@host:4222/x",
                "connect to nats://[masked]@host:4222/x",
            ),
            (
                "key sk-ant-api03-abcdefgh_IJ-k failed",
                "key [masked] failed",
            ),
            (
                "Authorization: Bearer abcdefghijkl",
                "Authorization: Bearer [masked]",
            ),
            (
                r#"{"password": "pst", "user": "me"}"#,
                r#"{"password": "[masked]", "user": "me"}"#,
            ),
            ("it said hush-hush-hush to me", "it said [masked] to me"),
            ("eyJhbGciOi.eyJzdWIi.c2ln", "[masked]"),
            ("AKIAIOSFODNN7EXAMPLE", "[masked]"),
        ] {
            assert_eq!(mask().apply(text), masked);
        }
    }

    #[test]
    fn everything_else_stays() {
        for text in [
            "task 01890a5d-ac96-774b-bcce-b302099a8057 ended: task-list",
            "connected to nats://127.0.0.1:4222",
            "a token ring, a secret agent, in /usr/local/bin",
            "",
        ] {
            assert_eq!(mask().apply(text), text);
        }
    }
}
