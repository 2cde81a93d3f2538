//! An agent's own credentials: got for a one-time token, renewed before they end.

use std::path::{Path, PathBuf};
use std::time::Duration;

use conductor_access::Credentials;
use conductor_access::issuer::{Answer, Request, expiry, read_one_time_token};
use conductor_eventlog::jetstream::{Connect, Connection};
use conductor_protocol::AgentId;

use super::access::now_s;
use crate::exit::{Exit, Failure, Outcome};

/// How long after a renewal that failed the next is tried.
const AGAIN: Duration = Duration::from_secs(30);
/// How long an issuer may take to be there when an agent is let in for the first time.
const ISSUER_STARTS: Duration = Duration::from_secs(30);
/// Credentials without an end are looked at so often: a file may be replaced.
const LOOKED_AT: Duration = Duration::from_secs(3600);

/// Where the credentials are that an agent was given.
pub(super) fn path(data: &Path, agent: &AgentId) -> PathBuf {
    data.join("credentials").join(format!("{agent}.creds"))
}

/// Gets credentials for a one-time token, unless there are some already.
pub(super) async fn enrol(
    connect: &Connect,
    agent: &AgentId,
    word: &str,
    path: &Path,
) -> Outcome<()> {
    if path.exists() {
        return Ok(());
    }
    let token = read_one_time_token(word)?;
    let dir = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(dir)?;
    // Clients read credentials from files alone; this one is of no more use afterwards.
    let one_time = path.with_extension("enrolment");
    token.write(&one_time)?;
    let connect = Connect {
        name: format!("conductor-enrol-{agent}"),
        credentials: Some(one_time.clone()),
        ..connect.clone()
    };
    let asked = async {
        let connection = Connection::open_patiently(&connect).await?;
        ask_patiently(&connection, agent, &token.jwt).await
    };
    let asked = asked.await;
    // It may be gone already.
    let _ = std::fs::remove_file(&one_time);
    asked?.write(path)?;
    tracing::info!(%agent, path = %path.display(), "enrolled");
    Ok(())
}

/// The same as [`ask`], where the issuer may still be starting: the servers of a cluster learn of it
/// one after the other.
async fn ask_patiently(
    connection: &Connection,
    agent: &AgentId,
    token: &str,
) -> Outcome<Credentials> {
    let deadline = tokio::time::Instant::now() + ISSUER_STARTS;
    let mut pause = Duration::from_millis(100);
    loop {
        match ask(connection, agent, token).await {
            Err(e) if e.code == Exit::Unreachable && tokio::time::Instant::now() < deadline => {
                tracing::warn!(%agent, error = e.message, retry_in = ?pause, "no issuer answers yet");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(Duration::from_secs(2));
            }
            Err(e) if e.code == Exit::Unreachable => {
                return Err(e.hint(
                    "an agent is given its credentials by `conductor issuer`: is it running?",
                ));
            }
            other => return other,
        }
    }
}

/// Asks the issuer for credentials with a key of our own making.
async fn ask(connection: &Connection, agent: &AgentId, token: &str) -> Outcome<Credentials> {
    let (user_key, seed) = conductor_access::creds::new_user()?;
    let request = Request {
        token: token.to_owned(),
        user_key,
    };
    let body = serde_json::to_vec(&request).map_err(std::io::Error::from)?;
    let answer = connection.ask_credential(agent, body.into()).await?;
    match serde_json::from_slice(&answer).map_err(std::io::Error::from)? {
        Answer::Token(jwt) => Ok(Credentials { jwt, seed }),
        Answer::Refused(why) => Err(Failure::new(
            Exit::Denied,
            format!("no credentials for {agent}: {why}"),
        )
        .hint("conductor agent enroll makes a new token")),
    }
}

/// Renews credentials when half of their time is over, for as long as it runs. The connection takes
/// up the new ones by itself when the old ones end.
pub(super) async fn renew(connection: std::sync::Arc<Connection>, agent: AgentId, path: PathBuf) {
    loop {
        let pause = match renew_if_due(&connection, &agent, &path).await {
            Ok(pause) => pause,
            Err(e) => {
                tracing::warn!(%agent, error = e.message, "credentials were not renewed, trying again");
                AGAIN
            }
        };
        tokio::time::sleep(pause).await;
    }
}

/// Renews credentials that are due; says when to look again.
async fn renew_if_due(connection: &Connection, agent: &AgentId, path: &Path) -> Outcome<Duration> {
    let credentials = Credentials::read(path)?;
    let Some(expires) = expiry(&credentials.jwt) else {
        return Ok(LOOKED_AT);
    };
    let left = expires.saturating_sub(now_s());
    let all = conductor_access::issuer::lifetime(&credentials.jwt).unwrap_or(left);
    if left > all / 2 {
        return Ok(Duration::from_secs(left - all / 2).min(LOOKED_AT));
    }
    ask(connection, agent, &credentials.jwt)
        .await?
        .write(path)?;
    tracing::info!(%agent, "credentials were renewed");
    Ok(Duration::from_secs(1))
}
