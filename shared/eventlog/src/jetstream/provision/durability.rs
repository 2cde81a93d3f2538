//! Whether what a server acknowledged survives a power loss: seen on its monitoring port alone.

use std::time::Duration;

/// Whether an acknowledged append survives a power loss.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Durability {
    /// The server syncs before it acknowledges.
    Always,
    /// It syncs at this interval.
    Lazy(String),
    /// It cannot be seen from here.
    Unknown(String),
}

impl std::fmt::Display for Durability {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Always => f.write_str("fsync before every acknowledgement"),
            Self::Lazy(interval) => write!(f, "fsync only every {interval}"),
            Self::Unknown(why) => write!(f, "unknown: {why}"),
        }
    }
}

/// Reads the sync interval where it can be seen.
pub(super) async fn seen_on(monitor_url: Option<String>) -> Durability {
    let Some(url) = monitor_url else {
        return Durability::Unknown(
            "the server's sync interval is only visible on its monitoring port; \
             name it with --nats-monitor-url"
                .to_owned(),
        );
    };
    let asked = tokio::task::spawn_blocking(move || read_sync_interval(&url)).await;
    match asked {
        Ok(Ok(durability)) => durability,
        Ok(Err(problem)) => Durability::Unknown(problem),
        Err(e) => Durability::Unknown(e.to_string()),
    }
}

fn read_sync_interval(url: &str) -> Result<Durability, String> {
    let url = format!("{}/varz", url.trim_end_matches('/'));
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .timeout_global(Some(Duration::from_secs(3)))
        .build()
        .into();
    let mut answer = agent.get(&url).call().map_err(|e| format!("{url}: {e}"))?;
    let body = answer
        .body_mut()
        .read_to_string()
        .map_err(|e| format!("{url}: {e}"))?;
    let varz: serde_json::Value = serde_json::from_str(&body).map_err(|e| format!("{url}: {e}"))?;
    let config = varz
        .pointer("/jetstream/config")
        .ok_or(format!("{url}: JetStream is off"))?;
    if config
        .get("sync_always")
        .and_then(serde_json::Value::as_bool)
        == Some(true)
    {
        return Ok(Durability::Always);
    }
    match config
        .get("sync_interval")
        .and_then(serde_json::Value::as_u64)
    {
        Some(ns) => Ok(Durability::Lazy(format!("{:?}", Duration::from_nanos(ns)))),
        None => Err(format!("{url} does not say how often it syncs")),
    }
}
