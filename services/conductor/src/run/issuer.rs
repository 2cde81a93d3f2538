//! The issuer: gives agents credentials for a while, and new ones before those end.

use std::sync::Arc;
use std::time::Duration;

use conductor_access::issuer::{Answer, Request, issue};
use conductor_access::{AccessError, Keyring};
use conductor_eventlog::jetstream::accounts::CredentialRequest;
use conductor_eventlog::jetstream::{Connect, Connection};
use futures::StreamExt;
use tokio::sync::watch;

use super::IssuerArgs;
use super::access::now_s;
use super::stack::{signals, stopped};
use crate::exit::{Exit, Outcome};
use crate::out;
use crate::settings::Settings;

/// How long credentials are good that an agent was given.
pub(super) const GOOD_FOR: Duration = Duration::from_secs(24 * 3600);

/// Runs an issuer by itself.
pub(super) async fn run(args: IssuerArgs, settings: &Settings) -> Outcome {
    let keys = Arc::new(args.keys.open(settings)?);
    let connect = Connect {
        credentials: Some(keys.path("issuer.creds")),
        ..settings.connect("conductor-issuer")
    };
    let stop = signals();
    let connection = Arc::new(Connection::open_patiently(&connect).await?);
    out::say(&format!(
        "issuer on {} in cell {}",
        connect.url, connect.cell
    ));
    serve(keys, connection, args.good_for, stop).await;
    Ok(Exit::Ok)
}

/// Answers agents until told to stop. `connection` has the issuer's credentials.
pub(super) async fn serve(
    keys: Arc<Keyring>,
    connection: Arc<Connection>,
    good_for: Duration,
    mut stop: watch::Receiver<bool>,
) {
    loop {
        match connection.credential_requests().await {
            Ok(mut requests) => loop {
                tokio::select! {
                    request = requests.next() => match request {
                        Some(request) => answer(&keys, request, good_for).await,
                        None => break,
                    },
                    () = stopped(&mut stop) => return,
                }
            },
            Err(e) => tracing::warn!(error = %e, "agents cannot be heard that ask for credentials"),
        }
        tokio::select! {
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
            () = stopped(&mut stop) => return,
        }
    }
}

async fn answer(keys: &Keyring, request: CredentialRequest, good_for: Duration) {
    let agent = request.agent.clone();
    let decided = decide(keys, &request, good_for);
    let answer = match decided {
        Ok(token) => {
            tracing::info!(%agent, good_for = ?good_for, "credentials were issued");
            Answer::Token(token)
        }
        Err(e) => {
            tracing::warn!(%agent, error = %e, "credentials were refused");
            Answer::Refused(e.to_string())
        }
    };
    // Two plain words: nothing about them can fail to be written.
    let body = serde_json::to_vec(&answer).unwrap_or_default();
    request.answer(body.into()).await;
}

fn decide(
    keys: &Keyring,
    request: &CredentialRequest,
    good_for: Duration,
) -> Result<String, AccessError> {
    let read = serde_json::from_slice::<Request>(&request.body);
    let read = read.map_err(|e| AccessError::Invalid {
        what: "the request".to_owned(),
        problem: e.to_string(),
    })?;
    let now = now_s();
    issue(
        keys,
        &request.agent,
        &read,
        Some(now + good_for.as_secs()),
        now,
    )
}
