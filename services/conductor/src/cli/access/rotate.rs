//! `conductor access rotate` and `revoke`: new credentials for old ones, while everything runs.

use std::collections::BTreeSet;
use std::path::Path;

use conductor_access::Keyring;
use conductor_access::keyring::STANDING;
use serde_json::{Value, json};

use super::{connect_as, jwt_dir, write_tokens};
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
    let _alone = keys.lock()?;
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

/// Has the servers refuse credentials that were made for these names, but for the newest of those that
/// are always there, and those in a file; and cut the links that use them.
pub(super) async fn revoke(
    keys: &Keyring,
    who: &[String],
    file: Option<&Path>,
    settings: &Settings,
) -> Outcome {
    let known = keys.issued_names()?;
    let is_known = |name: &String| known.contains(name) || STANDING.contains(&name.as_str());
    if let Some(other) = who.iter().find(|name| !is_known(name)) {
        let message = format!("no credentials were made for {other:?}");
        let hint = format!(
            "there are some for {}; others by their file: --file; agents: conductor agent revoke",
            known.join(", ")
        );
        return Err(Failure::new(Exit::NotFound, message).hint(hint));
    }
    let _alone = keys.lock()?;
    let now = now_s();
    let mut rows = Vec::new();
    for name in who {
        let refused = keys.revoke_name(name, now)?;
        rows.push(json!({"name": name, "refused": refused}));
    }
    if let Some(file) = file {
        keys.revoke_credentials(file, now)?;
        rows.push(json!({"name": file, "refused": 1}));
    }
    tell(keys, now, settings).await?;
    out::rows(
        settings.output,
        &[("NAME", "name"), ("REFUSED", "refused")],
        &rows,
    );
    Ok(Exit::Ok)
}

/// Tells the servers that run, and those that begin with what `access init` wrote.
async fn tell(keys: &Keyring, now: u64, settings: &Settings) -> Outcome<()> {
    let tokens = keys.account_tokens(now)?;
    let dir = jwt_dir(&keys.path(""));
    if dir.exists() {
        write_tokens(&dir, &tokens)?;
    }
    let connection = connect_as(keys, "system", settings).await?;
    for token in tokens {
        connection.put_account(&token.jwt).await?;
    }
    // They were not meant, but do not hear what the cell's account says until they ask anew.
    let agents = keys.agents();
    let accounts = agents.iter().map(|agent| keys.agent_account_key(agent));
    let accounts: Result<BTreeSet<_>, _> = accounts.collect();
    let mut accounts = accounts?;
    accounts.insert(keys.clients_account_key());
    connection.cut_links(&accounts).await?;
    Ok(())
}
