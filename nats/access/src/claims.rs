//! The claims behind the rights: operator, accounts, users, and what accounts share.

use std::collections::BTreeMap;

use conductor_protocol::ids::{AgentId, CellId};
use nkeys::KeyPair;
use serde_json::{Value, json};

use crate::jwt::{AccessError, sign};
use crate::rights::{self, Rights, Service};

/// What may not be exceeded by an account: `-1` for no limit.
fn limits(has_streams: bool, connections: i64) -> Value {
    let storage = if has_streams { -1 } else { 0 };
    json!({
        "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1,
        "wildcards": true, "conn": connections, "leaf": if has_streams { -1 } else { 0 },
        "mem_storage": storage, "disk_storage": storage, "streams": storage, "consumer": storage,
    })
}

/// Credentials that are refused from here on, and links that use one are cut: by public key of their
/// user, or `*` for all, with the second until which those were issued.
pub type Revocations = BTreeMap<String, u64>;

/// Notes in an account's claims what is refused.
fn revoke(nats: &mut Value, revoked: &Revocations) {
    if let Some(nats) = nats.as_object_mut().filter(|_| !revoked.is_empty()) {
        nats.insert("revocations".to_owned(), json!(revoked));
    }
}

/// The operator's token, which servers trust.
pub fn operator(operator: &KeyPair, system: &str, now_s: u64) -> Result<String, AccessError> {
    let claims = json!({
        "sub": operator.public_key(), "name": "conductor",
        "nats": {"type": "operator", "version": 2, "system_account": system},
    });
    sign(claims, operator, now_s)
}

/// The servers' own account.
pub fn system_account(
    account: &KeyPair,
    operator: &KeyPair,
    revoked: &Revocations,
    now_s: u64,
) -> Result<String, AccessError> {
    let mut nats = json!({
        "type": "account", "version": 2, "limits": limits(false, -1),
        "exports": [
            {"name": "account-monitoring-services", "subject": "$SYS.REQ.ACCOUNT.*.*",
             "type": "service", "response_type": "Stream", "account_token_position": 4},
            {"name": "account-monitoring-streams", "subject": "$SYS.ACCOUNT.*.>",
             "type": "stream", "account_token_position": 3},
        ],
    });
    revoke(&mut nats, revoked);
    let claims = json!({"sub": account.public_key(), "name": "SYS", "nats": nats});
    sign(claims, operator, now_s)
}

/// The account of a cell, which has the streams and lets agents' accounts and the clients' use single
/// services, and hear words for submitters.
pub fn cell_account(
    account: &KeyPair,
    operator: &KeyPair,
    cell: &CellId,
    revoked: &Revocations,
    now_s: u64,
) -> Result<String, AccessError> {
    let any = AgentId::from_log("any");
    let services = [rights::services(cell, &any), rights::client_services(cell)].concat();
    let services = services.into_iter().map(|service| {
        let response = if service.is_streaming {
            "Stream"
        } else {
            "Singleton"
        };
        json!({
            "name": service.exported, "subject": service.exported, "type": "service",
            "token_req": true, "response_type": response,
        })
    });
    let answers = rights::answers(cell).into_iter().map(|(exported, _)| {
        json!({"name": exported, "subject": exported, "type": "stream", "token_req": true})
    });
    let exports: Vec<Value> = services.chain(answers).collect();
    let mut nats = json!({
        "type": "account", "version": 2, "limits": limits(true, -1), "exports": exports,
    });
    revoke(&mut nats, revoked);
    let name = format!("CELL_{cell}");
    let claims = json!({"sub": account.public_key(), "name": name, "nats": nats});
    sign(claims, operator, now_s)
}

/// What one account lets another import of it.
struct Import<'a> {
    /// `service` or `stream`.
    kind: &'static str,
    subject: &'a str,
    /// What it is in the other account.
    local: &'a str,
}

impl Import<'_> {
    /// The import in the claims of the account `to`, with a token that lets it: signed by the account
    /// that has what is imported.
    fn claims(&self, cell_account: &KeyPair, to: &str, now_s: u64) -> Result<Value, AccessError> {
        let activation = json!({
            "sub": to, "name": self.subject,
            "nats": {
                "type": "activation", "version": 2, "subject": self.subject, "kind": self.kind,
            },
        });
        let token = sign(activation, cell_account, now_s)?;
        let mut import = json!({
            "name": self.subject, "subject": self.subject, "type": self.kind,
            "account": cell_account.public_key(), "token": token,
        });
        if let Some(fields) = import
            .as_object_mut()
            .filter(|_| self.local != self.subject)
        {
            fields.insert("local_subject".to_owned(), self.local.into());
        }
        Ok(import)
    }
}

fn import_service(service: &Service) -> Import<'_> {
    Import {
        kind: "service",
        subject: &service.imported,
        local: &service.imported,
    }
}

/// An account that has nothing but what it imports of the cell's, by name, with how many connections
/// it may have.
fn importing(
    (account, operator, cell_account): (&KeyPair, &KeyPair, &KeyPair),
    (name, connections): (String, i64),
    imports: &[Import<'_>],
    revoked: &Revocations,
    now_s: u64,
) -> Result<String, AccessError> {
    let to = account.public_key();
    let imports = imports.iter();
    let imports: Result<Vec<Value>, _> = imports
        .map(|import| import.claims(cell_account, &to, now_s))
        .collect();
    let mut nats = json!({
        "type": "account", "version": 2, "limits": limits(false, connections),
        "imports": imports?,
    });
    revoke(&mut nats, revoked);
    sign(
        json!({"sub": to, "name": name, "nats": nats}),
        operator,
        now_s,
    )
}

/// How many connections an agent's account may have: itself, and itself while it reconnects.
const AGENT_CONNECTIONS: i64 = 4;

/// The account of one agent.
pub fn agent_account(
    account: &KeyPair,
    operator: &KeyPair,
    cell_account: &KeyPair,
    (cell, agent): (&CellId, &AgentId),
    revoked: &Revocations,
    now_s: u64,
) -> Result<String, AccessError> {
    let services = rights::services(cell, agent);
    let imports: Vec<Import<'_>> = services.iter().map(import_service).collect();
    let called = (format!("AGENT_{cell}_{agent}"), AGENT_CONNECTIONS);
    importing(
        (account, operator, cell_account),
        called,
        &imports,
        revoked,
        now_s,
    )
}

/// The account of those who only submit. Answers of the cell's account go where a request says, with
/// the rights of the server: here there is nothing but inboxes of clients.
pub fn clients_account(
    account: &KeyPair,
    operator: &KeyPair,
    cell_account: &KeyPair,
    cell: &CellId,
    revoked: &Revocations,
    now_s: u64,
) -> Result<String, AccessError> {
    let services = rights::client_services(cell);
    let answers = rights::answers(cell);
    let answers = answers.iter().map(|(subject, local)| Import {
        kind: "stream",
        subject,
        local,
    });
    let imports: Vec<Import<'_>> = services.iter().map(import_service).chain(answers).collect();
    let called = (format!("CLIENTS_{cell}"), -1);
    importing(
        (account, operator, cell_account),
        called,
        &imports,
        revoked,
        now_s,
    )
}

/// A user's token.
pub fn user(
    name: &str,
    user_key: &str,
    account: &KeyPair,
    rights: &Rights,
    expires_s: Option<u64>,
    now_s: u64,
) -> Result<String, AccessError> {
    let who = (name, user_key.to_owned());
    tagged_user(who, account, rights, &[], expires_s, now_s)
}

/// A user's token, by name and public key, with words that tell it from others.
pub(crate) fn tagged_user(
    (name, user_key): (&str, String),
    account: &KeyPair,
    rights: &Rights,
    tags: &[&str],
    expires_s: Option<u64>,
    now_s: u64,
) -> Result<String, AccessError> {
    let list = |allow: &[String], deny: &[String]| {
        let mut map = serde_json::Map::new();
        for (key, subjects) in [("allow", allow), ("deny", deny)] {
            if !subjects.is_empty() {
                map.insert(key.to_owned(), json!(subjects));
            }
        }
        Value::Object(map)
    };
    let mut claims = json!({
        "sub": user_key, "name": name,
        "nats": {
            "type": "user", "version": 2, "subs": -1, "data": -1, "payload": -1, "tags": tags,
            "pub": list(&rights.publish, &rights.publish_not),
            "sub": list(&rights.subscribe, &rights.subscribe_not),
        },
    });
    if let (Some(expires), Some(fields)) = (expires_s, claims.as_object_mut()) {
        fields.insert("exp".to_owned(), expires.into());
    }
    sign(claims, account, now_s)
}
