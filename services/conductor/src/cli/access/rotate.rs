//! `conductor access rotate` and `revoke`: new credentials for old ones, while everything runs.

use conductor_access::Keyring;
use conductor_access::keyring::STANDING;
use serde_json::{Value, json};

use super::connect_as;
use crate::exit::{Exit, Failure, Outcome};
use crate::out;
use crate::run::access::now_s;
use crate::settings::Settings;

/// Writes new credentials for those that are always there; the old ones go on to be good.
pub(super) fn rotate(keys: &Keyring, who: &[String], settings: &Settings) -> Outcome {
    let all = STANDING.map(str::to_owned);
    let who = if who.is_empty() { &all } else { who };
    if let Some(other) = who.iter().find(|name| !STANDING.contains(&name.as_str())) {
        let message = format!("{other:?} is none of {}", STANDING.join(", "));
        return Err(Failure::usage(message).hint(
            "people are granted new credentials with `conductor access grant`; agents renew theirs by \
             themselves",
        ));
    }
    let now = now_s();
    let rows: Result<Vec<Value>, _> = who
        .iter()
        .map(|name| {
            let path = keys.write_standing(name, now)?;
            Ok::<_, Failure>(json!({"name": name, "credentials": path}))
        })
        .collect();
    let columns = [("NAME", "name"), ("CREDENTIALS", "credentials")];
    out::rows(settings.output, &columns, &rows?);
    out::say(&format!(
        "the old ones are good until: conductor access revoke {}",
        who.join(" ")
    ));
    Ok(Exit::Ok)
}

/// Has the servers refuse credentials that were made for these names, and cut the links that use
/// them; of those that are always there all but the newest.
pub(super) async fn revoke(keys: &Keyring, who: &[String], settings: &Settings) -> Outcome {
    let known = keys.issued_names();
    if let Some(other) = who.iter().find(|name| !known.contains(name)) {
        let message = format!("no credentials were made for {other:?}");
        let hint = format!(
            "there are some for {}; agents: conductor agent revoke",
            known.join(", ")
        );
        return Err(Failure::new(Exit::NotFound, message).hint(hint));
    }
    let now = now_s();
    let rows: Result<Vec<Value>, _> = who
        .iter()
        .map(|name| {
            let revoked = keys.revoke_name(name, now)?;
            Ok::<_, Failure>(json!({"name": name, "revoked": revoked}))
        })
        .collect();
    let rows = rows?;
    // By a link of its own, which the second token may cut: it is revoked itself where `system` is.
    let connection = connect_as(keys, "system", settings).await?;
    let [system, cell] = keys.account_tokens(now)?;
    for token in [cell, system] {
        connection.put_account(&token.jwt).await?;
    }
    // Agents were not meant, but do not hear what the other account says until they ask anew.
    let agents = keys.agents();
    let accounts: Result<_, _> = agents
        .iter()
        .map(|agent| keys.agent_account_key(agent))
        .collect();
    connection.cut_links(&accounts?).await?;
    out::rows(
        settings.output,
        &[("NAME", "name"), ("REVOKED", "revoked")],
        &rows,
    );
    Ok(Exit::Ok)
}
