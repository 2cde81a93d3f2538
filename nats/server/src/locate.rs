//! Finding a nats-server that is new enough.

use std::path::{Path, PathBuf};
use std::process::Command;

/// A server version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u64, pub u64, pub u64);

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

impl Version {
    /// Reads `nats-server: v2.15.1` or a bare version.
    pub fn parse(text: &str) -> Option<Self> {
        let bare = text.trim().rsplit([' ', 'v']).next()?;
        let core = bare.split(['-', '+']).next()?;
        let mut parts = core.split('.').map(|p| p.parse().ok());
        Some(Self(parts.next()??, parts.next()??, parts.next()??))
    }
}

/// Older servers are refused: their log loses records in ways that were fixed since, and
/// fsync on replicated streams is about 30 times slower (design section 5).
pub const FLOOR: Version = Version(2, 14, 5);
/// What Conductor is built and tested on, and `make nats-server` fetches.
pub const PINNED: Version = Version(2, 15, 1);
/// Names the binary to use, whatever else is there.
pub const ENV: &str = "CONDUCTOR_NATS_SERVER";

/// Why there is no server to start.
#[derive(Debug, thiserror::Error)]
pub enum LocateError {
    /// The one named cannot be used.
    #[error(
        "{ENV} names {path}, which {problem}; point it at nats-server {FLOOR} or newer, or unset it"
    )]
    Named {
        /// The path.
        path: String,
        /// What is wrong with it.
        problem: String,
    },
    /// There is none.
    #[error(
        "no nats-server {FLOOR} or newer found (looked on PATH{found} and in {cache}); \
         run `make nats-server`, or set {ENV}, or use a running server with --nats-url"
    )]
    NotFound {
        /// What was there but too old.
        found: String,
        /// Where it would be cached.
        cache: String,
    },
}

/// Where `make nats-server` unpacks the pinned server.
pub fn cache_path() -> PathBuf {
    let cache = std::env::var_os("XDG_CACHE_HOME").map_or_else(
        || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache"),
        PathBuf::from,
    );
    cache.join(format!("conductor/nats-server-{PINNED}/nats-server"))
}

/// The version a binary reports.
pub fn version_of(path: &Path) -> Option<Version> {
    let output = Command::new(path).arg("--version").output().ok()?;
    Version::parse(&String::from_utf8_lossy(&output.stdout))
}

/// Finds a server: the one named, then one on PATH that is as new as the pinned one, then
/// the pinned one in the cache, then one on PATH that is new enough.
pub fn locate() -> Result<PathBuf, LocateError> {
    if let Some(named) = std::env::var_os(ENV) {
        let path = PathBuf::from(named);
        return match version_of(&path) {
            Some(v) if v >= FLOOR => Ok(path),
            Some(v) => Err(named_error(&path, format!("is version {v}"))),
            None => Err(named_error(&path, "does not run".to_owned())),
        };
    }
    let on_path = on_path();
    let cached = cache_path();
    if let Some((path, version)) = &on_path
        && *version >= PINNED
    {
        return Ok(path.clone());
    }
    if version_of(&cached).is_some_and(|v| v >= FLOOR) {
        return Ok(cached);
    }
    match on_path {
        Some((path, version)) if version >= FLOOR => Ok(path),
        other => Err(LocateError::NotFound {
            found: other.map_or_else(String::new, |(_, v)| format!(", where there is {v}")),
            cache: cached.display().to_string(),
        }),
    }
}

fn named_error(path: &Path, problem: String) -> LocateError {
    LocateError::Named {
        path: path.display().to_string(),
        problem,
    }
}

fn on_path() -> Option<(PathBuf, Version)> {
    let paths = std::env::var_os("PATH")?;
    std::env::split_paths(&paths)
        .map(|dir| dir.join("nats-server"))
        .find_map(|path| {
            let version = version_of(&path)?;
            Some((path, version))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_as_numbers() {
        assert_eq!(Version::parse("nats-server: v2.15.1\n"), Some(PINNED));
        assert_eq!(Version::parse("2.9.25-RC.1"), Some(Version(2, 9, 25)));
        assert!(Version(2, 9, 25) < FLOOR);
        assert_eq!(Version::parse("nonsense"), None);
    }
}
